//! The connections of a run, and the keys it works on.

use anyhow::Context;
use mainstay_client::{Client, ClientOptions, Delete, Put, Range, Txn};
use tokio::task::JoinSet;

use super::members::Members;
use crate::keyspace::{PREFIX, key, value};
use crate::options::Options;

/// Operations in a transaction that fills the key space; etcd allows 128.
const FILL_OPERATIONS_MAX: usize = 100;
/// Bytes of values in such a transaction; etcd allows 1.5 MiB for a request.
const FILL_BYTES_MAX: usize = 1 << 20;
/// Such transactions in flight.
const FILL_TASKS: usize = 16;

/// The connections of a run.
#[derive(Clone, Debug)]
pub struct Session {
    connections: Vec<Client>,
}

impl Session {
    /// As many connections as the options say, to the endpoints in turn. Each keeps to its endpoint:
    /// a member that fails shall show as errors and not move its load to the others.
    pub fn connect(endpoints: &[String], options: &Options) -> anyhow::Result<Self> {
        Self::open(endpoints, options.connections)
    }

    /// The same; to the leader alone, where the options say so.
    pub async fn begin(endpoints: &[String], options: &Options) -> anyhow::Result<Self> {
        if !options.leader {
            return Self::connect(endpoints, options);
        }
        let leader = Members::connect(endpoints)?.leader().await?;
        Self::connect(&endpoints[leader..=leader], options)
    }

    /// So many connections to the endpoints in turn, each of which keeps to its endpoint.
    pub fn open(endpoints: &[String], connections: usize) -> anyhow::Result<Self> {
        let connect = |number: usize| Client::connect([&endpoints[number % endpoints.len()]], ClientOptions::default());
        Ok(Self { connections: (0..connections).map(connect).collect::<Result<_, _>>()? })
    }

    /// So many connections to the first endpoint, each of which goes on at the next one when its own fails.
    pub(super) fn open_with_failover(endpoints: &[String], connections: usize) -> anyhow::Result<Self> {
        let connect = |_: usize| Client::connect(endpoints, ClientOptions::default());
        Ok(Self { connections: (0..connections).map(connect).collect::<Result<_, _>>()? })
    }

    /// The connection of a client.
    pub(super) fn client(&self, number: usize) -> Client {
        self.connections[number % self.connections.len()].clone()
    }

    /// The version that the first endpoint reports.
    pub async fn version(&self) -> anyhow::Result<String> {
        Ok(self.connections[0].status().await.context("asking for the status")?.version)
    }

    /// Opens every connection, so that the first requests of a run are as the later ones.
    pub(crate) async fn warm_up(&self) -> anyhow::Result<()> {
        for connection in &self.connections {
            connection.get(PREFIX).await.context("opening a connection")?;
        }
        Ok(())
    }

    /// Writes every key of the key space.
    pub(crate) async fn fill(&self, options: &Options) -> anyhow::Result<()> {
        let batch = (FILL_BYTES_MAX / options.value_size.max(1)).clamp(1, FILL_OPERATIONS_MAX) as u64;
        let mut tasks = JoinSet::new();
        for task in 0..FILL_TASKS {
            let (client, options) = (self.client(task), options.clone());
            tasks.spawn(async move {
                let mut first = task as u64 * batch;
                while first < options.keys {
                    let puts = (first..options.keys.min(first + batch))
                        .map(|number| Put::new(key(number), value(options.seed, number, options.value_size)));
                    client.txn(puts.fold(Txn::new(), Txn::then)).await?;
                    first += FILL_TASKS as u64 * batch;
                }
                Ok::<_, mainstay_client::Error>(())
            });
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.expect("filling does not panic").context("filling the key space")?;
        }
        // Linearizably, so that each member has them all before a serializable read asks it.
        for connection in &self.connections {
            let count = connection.range(Range::prefix(PREFIX).count_only()).await?.count;
            anyhow::ensure!(count as u64 == options.keys, "{count} keys after filling, not {}", options.keys);
        }
        Ok(())
    }

    /// Removes the keys of every run.
    pub async fn clean(&self) -> anyhow::Result<()> {
        self.connections[0].delete_with(Delete::prefix(PREFIX)).await.context("removing the keys")?;
        Ok(())
    }
}
