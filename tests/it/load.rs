//! Clients at work while a story goes on: some write keys of their own and others share a few, one watches. In the end
//! what became of it is held against what clients were promised.

use std::time::Duration;

use anyhow::{Error, Result};
use mainstay_client::{Client, ClientOptions};
use mainstay_tests::checker::history::linearizable;
use mainstay_tests::checker::{Found, WatchOrder, equal_members, seen_once};
use mainstay_tests::workload::{Record, Registers, UniquePuts};
use mainstay_tests::{Cluster, ProcessCluster, wait_until_serving};
use tokio::time::Instant;

/// Between two puts of a client, and between two calls on shared keys.
const PACES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));

/// The clients, and when they began.
pub(crate) struct Load {
    prefix: &'static str,
    watch: WatchOrder,
    registers: Registers,
    pub(crate) puts: UniquePuts,
    pub(crate) begun: Instant,
}

/// What became of a load that clients were right to rely on.
pub(crate) struct Judged {
    pub(crate) lasted: Duration,
    pub(crate) record: Record,
    pub(crate) found: Found,
    /// How many calls on shared keys there were, and what those failed with that did.
    pub(crate) calls: usize,
    pub(crate) errors: Vec<mainstay_client::Error>,
}

impl Load {
    /// Begins with so many writers of keys of their own below `prefix`, and so many that share keys, at the first
    /// `places` in turn.
    pub(crate) async fn begin(
        cluster: &ProcessCluster,
        places: usize,
        prefix: &'static str,
        (writers, sharers): (usize, usize),
    ) -> Result<Self> {
        let client = |number: usize| cluster.client(number % places, ClientOptions::default());
        let watch = WatchOrder::spawn(&client(0), prefix).await?;
        let puts = UniquePuts::spawn(prefix, (0..writers).map(client).collect(), PACES.0);
        let registers = Registers::spawn((0..sharers).map(client).collect(), PACES.1);
        Ok(Self { prefix, watch, registers, puts, begun: Instant::now() })
    }

    /// Ends the load and judges it: no acknowledged put is lost or doubled, every event came once, calls on shared keys
    /// are linearizable, members are equal.
    pub(crate) async fn judge(self, cluster: &ProcessCluster, client: &Client) -> Result<Judged> {
        let lasted = self.begun.elapsed();
        let record = self.puts.finish().await?;
        let (history, errors) = self.registers.finish().await?;
        wait_until_serving(cluster, cluster.present()).await?;
        let found = seen_once(client, self.prefix, &record, self.watch).await?;
        linearizable::check(&history).map_err(Error::msg)?;
        equal_members(cluster).await?;
        Ok(Judged { lasted, record, found, calls: history.operations.len(), errors })
    }
}

impl Judged {
    /// What any client was told of failures.
    pub(crate) fn all_errors(&self) -> impl Iterator<Item = &mainstay_client::Error> {
        self.record.errors.iter().chain(&self.errors)
    }
}
