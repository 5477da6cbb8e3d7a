//! Defragments and compacts while a steady load goes on.

use std::time::Duration;

use anyhow::{Context, ensure};
use mainstay_client::{Client, Range, revision};
use tokio::time::{Instant, sleep};

use super::fill::Fill;
use super::members::Members;
use super::session::Session;
use super::{get, put};
use crate::keyspace::key;
use crate::launch::Cluster;
use crate::options::{ensure_above_zero, parse_seconds, write_seconds};
use crate::phase::Phase;
use crate::process::Usage;
use crate::scenario::Scenario;
use crate::steady::Steady;

/// Bytes of the values that only make the store larger.
const BULK_VALUE_BYTES: usize = 16 << 10;
/// How long an operation may take.
const OPERATION_MAX: Duration = Duration::from_secs(600);
/// How long a member may take to tell the size of its store.
const SIZE_MAX: Duration = Duration::from_secs(10);
/// What is due shortly before a phase counts for none: its answer may come when the next operation has
/// begun, and the longest put of a quiet phase would be one of the operation's.
const GAP: Duration = Duration::from_millis(250);

/// What happens in a phase.
#[derive(Clone, Copy)]
enum Step {
    /// Nothing but the load.
    Rest,
    /// The leader is asked to defragment.
    Defragment,
    /// The old revisions are compacted, until they are gone from the disk.
    Compact,
}

/// The phases. Those after an operation show what it leaves to be done later.
const PHASES: [(&str, Step); 5] = [
    ("before", Step::Rest),
    ("defragment", Step::Defragment),
    ("after-defragment", Step::Rest),
    ("compact", Step::Compact),
    ("after-compact", Step::Rest),
];

/// Defragments and compacts under a steady load, and shows what that does to puts and gets.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Maintenance {
    /// Members of each cluster; the leader is the one that defragments.
    #[arg(long, default_value_t = 1)]
    pub members: usize,
    /// Puts a second, and as many linearizable gets. Well below what the servers can do: a full queue
    /// would hide what the operations cost.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Puts in flight at most, and as many gets.
    #[arg(long, default_value_t = 100)]
    pub clients: usize,
    /// Connections that the clients share.
    #[arg(long, default_value_t = 10)]
    pub connections: usize,
    /// Keys that are written and read.
    #[arg(long, default_value_t = 10_000)]
    pub keys: u64,
    /// Bytes of their values.
    #[arg(long, default_value_t = 256)]
    pub value_size: usize,
    /// Old revisions of these keys, which are compacted.
    #[arg(long, default_value_t = 200_000)]
    pub revisions: u64,
    /// Megabytes (10^6 bytes) of other keys, which make the store large.
    #[arg(long, default_value_t = 600)]
    pub bulk_megabytes: u64,
    /// Seconds of the load before the first phase, so that what the filling left to be done is over.
    #[arg(long, value_parser = parse_seconds, default_value = "10")]
    #[serde(serialize_with = "write_seconds")]
    pub settle_seconds: Duration,
    /// Seconds of a phase in which there is nothing but the load.
    #[arg(long, value_parser = parse_seconds, default_value = "10")]
    #[serde(serialize_with = "write_seconds")]
    pub phase_seconds: Duration,
    /// Seconds of a phase with an operation, at least: it lasts until the operation is answered, but
    /// the p99 of a few requests says nothing.
    #[arg(long, value_parser = parse_seconds, default_value = "2")]
    #[serde(serialize_with = "write_seconds")]
    pub operation_seconds_min: Duration,
    /// Where the random choice of keys and the values come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Scenario for Maintenance {
    const NAME: &'static str = "maintenance";

    fn validate(&self) -> anyhow::Result<()> {
        ensure!(matches!(self.members, 1 | 3 | 5 | 7), "--members: must be 1, 3, 5 or 7");
        ensure_above_zero(&[
            ("rate", self.rate),
            ("clients", self.clients as u64),
            ("connections", self.connections as u64),
            ("keys", self.keys),
            ("revisions", self.revisions),
        ])
    }

    fn members(&self) -> usize {
        self.members
    }

    fn server_flags(&self) -> Vec<String> {
        Vec::new()
    }

    async fn run(&self, cluster: &mut Cluster) -> anyhow::Result<Vec<Phase>> {
        let (endpoints, pids) = (cluster.endpoints(), cluster.pids());
        let (session, members) = (Session::open(&endpoints, self.connections)?, Members::connect(&endpoints)?);
        session.warm_up().await?;
        let newest = self.prepare(&session, &members).await?;
        let leader = members.leader().await?;
        let puts = put::at_random(&session, self.clients, self.keys, self.value_size, self.seed);
        let gets = get::at_random(&session, self.clients, self.keys, self.seed);
        let (puts, gets) = (Steady::start(puts, self.rate), Steady::start(gets, self.rate));
        sleep(self.settle_seconds).await;
        let mut seen = Vec::with_capacity(PHASES.len());
        for (name, step) in PHASES {
            sleep(GAP).await;
            let before = Usage::of(&pids)?;
            puts.begin();
            gets.begin();
            let operation = self.work(step, &members.client(leader, OPERATION_MAX), newest).await.context(name)?;
            puts.pause();
            gets.pause();
            let spent = Usage::of(&pids)?.since(before);
            let status = members.client(leader, SIZE_MAX).status().await.context("asking for the store's size")?;
            seen.push((name, operation, spent, status.db_size));
        }
        let (puts, gets) = (puts.finish().await?, gets.finish().await?);
        let loads = puts.into_iter().zip(gets);
        let phases = seen.into_iter().zip(loads).map(|((name, operation, spent, size), (puts, gets))| Phase {
            operation,
            server: Some(spent),
            store_bytes: u64::try_from(size).ok(),
            ..Phase::of(name, puts, Some(gets))
        });
        Ok(phases.collect())
    }
}

impl Maintenance {
    /// Fills the store. Returns its revision, below which just the old revisions can be compacted.
    async fn prepare(&self, session: &Session, members: &Members) -> anyhow::Result<i64> {
        let bulk = (self.bulk_megabytes * 1_000_000).div_ceil(BULK_VALUE_BYTES as u64);
        let seed = self.seed;
        Fill { first: self.keys, keys: bulk.max(1), count: bulk, value_size: BULK_VALUE_BYTES, seed }
            .write(session)
            .await?;
        // The newest revision of each key stays, all others are old.
        let count = self.keys + self.revisions;
        Fill { first: 0, keys: self.keys, count, value_size: self.value_size, seed }.write(session).await?;
        members.expect_keys(self.keys + bulk).await?;
        let read = session.client(0).range(Range::key(key(0))).await.context("asking for the revision")?;
        Ok(revision(&read.header))
    }

    /// Does what happens in a phase; returns how long the operation took, where there is one.
    async fn work(&self, step: Step, leader: &Client, newest: i64) -> anyhow::Result<Option<Duration>> {
        let began = Instant::now();
        match step {
            Step::Rest => {
                sleep(self.phase_seconds).await;
                return Ok(None);
            }
            Step::Defragment => {
                leader.defragment().await?;
            }
            Step::Compact => {
                leader.compact_physically(newest).await?;
            }
        }
        let took = began.elapsed();
        sleep(self.operation_seconds_min.saturating_sub(took)).await;
        Ok(Some(took))
    }
}
