//! Lets a member miss so much that it needs a snapshot, and catch up while a steady load goes on.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::fill::Fill;
use super::members::{Level, Members, POLL, snapshot_bytes_received, snapshots_received};
use super::put;
use super::session::Session;
use crate::launch::Cluster;
use crate::options::{ensure_above_zero, parse_seconds, write_seconds};
use crate::phase::{CaughtUp, Phase};
use crate::process::Usage;
use crate::scenario::Scenario;
use crate::steady::Steady;

/// Members of the cluster: one is away, the other two go on.
const MEMBERS: usize = 3;
/// Keys that the load writes, and bytes of their values.
const LOAD_KEYS: u64 = 1000;
const LOAD_VALUE_BYTES: usize = 256;
/// How long a member may take to catch up, also where the leader is killed meanwhile.
const CATCH_UP_MAX: Duration = Duration::from_secs(1800);
/// What is due shortly before the member starts counts for neither phase: its answer may come later.
const GAP: Duration = Duration::from_millis(250);

/// Stops a member of three, writes more than the log keeps, and starts it again under a steady load:
/// how long it takes to catch up, and what that does to the puts.
///
/// Needs about four times --megabytes on the disk.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct CatchUp {
    /// Megabytes (10^6 bytes) of values in the store; the member misses nearly all of them.
    #[arg(long, default_value_t = 5000)]
    pub megabytes: u64,
    /// Bytes of such a value.
    #[arg(long, default_value_t = 64 << 10)]
    pub value_size: usize,
    /// Puts a second of the steady load, of 256 bytes each, sent to the leader.
    #[arg(long, default_value_t = 200)]
    pub rate: u64,
    /// Puts in flight at most.
    #[arg(long, default_value_t = 100)]
    pub clients: usize,
    /// Connections that the clients share.
    #[arg(long, default_value_t = 10)]
    pub connections: usize,
    /// Seconds of the load before the first phase, so that what the filling left to be done is over.
    #[arg(long, value_parser = parse_seconds, default_value = "10")]
    #[serde(serialize_with = "write_seconds")]
    pub settle_seconds: Duration,
    /// Seconds of the phase before the member starts again.
    #[arg(long, value_parser = parse_seconds, default_value = "10")]
    #[serde(serialize_with = "write_seconds")]
    pub phase_seconds: Duration,
    /// Kills the leader (SIGKILL) when the member has about half of what it misses, and starts it again;
    /// measures until all three have the same.
    #[arg(long)]
    pub kill_leader: bool,
    /// Seconds after which the leader that was killed is started again.
    #[arg(long, value_parser = parse_seconds, default_value = "5")]
    #[serde(serialize_with = "write_seconds")]
    pub leader_away_seconds: Duration,
    /// mainstay's flag --snapshot-send-rate, bytes a second; 0 is no limit, nothing its default. etcd has no limit.
    #[arg(long)]
    pub send_rate: Option<u64>,
    /// The servers' flag of this name. Small, so that the log does not keep what the member misses.
    #[arg(long, default_value_t = 2000)]
    pub snapshot_count: u64,
    /// The servers' flag of this name.
    #[arg(long, default_value_t = 200)]
    pub snapshot_catchup_entries: u64,
    /// Where the random choice of keys and the values come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Scenario for CatchUp {
    const NAME: &'static str = "catch-up";

    fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("megabytes", self.megabytes),
            ("value-size", self.value_size as u64),
            ("rate", self.rate),
            ("clients", self.clients as u64),
            ("connections", self.connections as u64),
            ("snapshot-count", self.snapshot_count),
        ])?;
        let (values, kept) = (self.values(), self.snapshot_count + self.snapshot_catchup_entries);
        ensure!(
            values >= 2 * kept,
            "--megabytes: {values} values would stay in a log of {kept} entries; or give a smaller --snapshot-count"
        );
        Ok(())
    }

    fn members(&self) -> usize {
        MEMBERS
    }

    fn server_flags(&self) -> Vec<String> {
        vec![
            format!("--snapshot-count={}", self.snapshot_count),
            format!("--snapshot-catchup-entries={}", self.snapshot_catchup_entries),
        ]
    }

    fn mainstay_flags(&self) -> Vec<String> {
        self.send_rate.iter().map(|rate| format!("--snapshot-send-rate={rate}")).collect()
    }

    async fn run(&self, cluster: &mut Cluster) -> anyhow::Result<Vec<Phase>> {
        let (endpoints, members) = (cluster.endpoints(), Members::connect(&cluster.endpoints())?);
        let absent = self.leave_behind(cluster, &members).await?;
        let leader = members.leader().await?;
        let third = (0..MEMBERS).find(|member| ![leader, absent].contains(member)).expect("there are three");
        let session = if self.kill_leader {
            // The member that is behind is asked last: it cannot answer before it has caught up.
            let order = [leader, third, absent].map(|member| endpoints[member].clone());
            Session::open_with_failover(&order, self.connections)?
        } else {
            Session::open(&endpoints[leader..=leader], self.connections)?
        };
        session.warm_up().await?;
        let puts = put::at_random(&session, self.clients, LOAD_KEYS, LOAD_VALUE_BYTES, self.seed);
        let puts = Steady::start(puts, self.rate);
        sleep(self.settle_seconds).await;

        let pids = [leader, third].map(|member| cluster.pids()[member]);
        let usage = Usage::of(&pids)?;
        puts.begin();
        sleep(self.phase_seconds).await;
        puts.pause();
        let spent_before = Usage::of(&pids)?.since(usage);

        sleep(GAP).await;
        let disk_bytes = cluster.disk_bytes(absent);
        puts.begin();
        let began = Instant::now();
        cluster.restart(absent)?;
        let usage = Usage::of(&cluster.pids())?;
        let mut leader_killed_in_time = None;
        if self.kill_leader {
            let half = disk_bytes + self.bytes() / 2;
            leader_killed_in_time = Some(self.lose_leader(cluster, &members, absent, half).await?);
        }
        members.wait_until_level(cluster, CATCH_UP_MAX).await?;
        let took = began.elapsed();
        puts.pause();
        // What a process spent that was killed is not known any more.
        let spent = if self.kill_leader { None } else { Some(Usage::of(&cluster.pids())?.since(usage)) };

        let mut shares = puts.finish().await?.into_iter();
        members.expect_keys(LOAD_KEYS + self.values()).await?;
        let snapshots = snapshots_received(&endpoints[absent]).await;
        let received_bytes = snapshot_bytes_received(&endpoints[absent]).await;
        let mut phase = |name| Phase::of(name, shares.next().expect("a share for each phase"), None);
        let before = Phase { server: Some(spent_before), ..phase("before") };
        let during = Phase {
            operation: Some(took),
            catch_up: Some(CaughtUp { bytes: self.bytes(), snapshots, received_bytes, leader_killed_in_time }),
            server: spent,
            ..phase("catch-up")
        };
        Ok(vec![before, during])
    }
}

impl CatchUp {
    /// How many values there are.
    fn values(&self) -> u64 {
        (self.megabytes * 1_000_000).div_ceil(self.value_size as u64)
    }

    /// Bytes of all the values.
    fn bytes(&self) -> u64 {
        self.values() * self.value_size as u64
    }

    /// Writes a little, stops a member that does not lead, and writes the rest. Returns which it is.
    async fn leave_behind(&self, cluster: &mut Cluster, members: &Members) -> anyhow::Result<usize> {
        let (values, few, seed) = (self.values(), (self.values() / 100).max(1), self.seed);
        let load = Fill { first: 0, keys: LOAD_KEYS, count: LOAD_KEYS, value_size: LOAD_VALUE_BYTES, seed };
        let little = Fill { first: LOAD_KEYS, keys: few, count: few, value_size: self.value_size, seed };
        let rest = Fill { first: LOAD_KEYS + few, keys: values - few, count: values - few, ..little };
        let session = self.leader_session(cluster, members).await?;
        load.write(&session).await?;
        little.write(&session).await?;
        let absent = (members.leader().await? + 1) % MEMBERS;
        cluster.terminate(absent).await?;
        // Anew: the lead may have moved, and the first session's endpoint may be the one that is away.
        rest.write(&self.leader_session(cluster, members).await?).await?;
        Ok(absent)
    }

    /// Connections to the leader alone.
    async fn leader_session(&self, cluster: &Cluster, members: &Members) -> anyhow::Result<Session> {
        let leader = members.leader().await?;
        let session = Session::open(&cluster.endpoints()[leader..=leader], self.connections)?;
        session.warm_up().await?;
        Ok(session)
    }

    /// Kills the leader when the member has so much on its disk, or has caught up already, and starts it
    /// again after a while. Returns whether the member still had something to receive.
    async fn lose_leader(
        &self,
        cluster: &mut Cluster,
        members: &Members,
        absent: usize,
        disk_bytes: u64,
    ) -> anyhow::Result<bool> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        let mut level = Level::default();
        let in_time = loop {
            cluster.check_alive()?;
            if cluster.disk_bytes(absent) >= disk_bytes {
                break true;
            }
            if level.reached(&members.applied().await) {
                break false;
            }
            ensure!(Instant::now() < deadline, "the member receives nothing");
            sleep(POLL).await;
        };
        // Asked only now, for the lead may have moved.
        let leader = members.leader().await?;
        cluster.kill(leader)?;
        sleep(self.leader_away_seconds).await;
        cluster.restart(leader)?;
        Ok(in_time)
    }
}
