//! A cluster whose disks are slow: nobody may take that for a leader that is gone.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use super::super::members::Members;
use super::super::put;
use super::super::session::Session;
use super::host::{Host, Setting};
use super::{Seen, Site};
use crate::options::{ensure_above_zero, parse_seconds, write_seconds};
use crate::process::Usage;
use crate::steady::Steady;

/// Members of the cluster, each with such a disk.
pub(super) const MEMBERS: usize = 3;
/// Connections that the clients share.
const CONNECTIONS: usize = 10;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;
/// Keys that are written.
const KEYS: u64 = 1_000;
/// How long a member may take to say where it stands.
const STATUS_MAX: Duration = Duration::from_secs(5);

/// The sizes of `slow-disk`.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct SlowDisk {
    /// slow-disk: milliseconds that each fsync takes longer, on all three members. Needs strace.
    #[arg(long, default_value_t = 10)]
    pub slow_disk_millis: u64,
    /// slow-disk: seconds of the load, in which no member may stand for election.
    #[arg(long, value_parser = parse_seconds, default_value = "60")]
    #[serde(serialize_with = "write_seconds")]
    pub slow_disk_seconds: Duration,
    /// slow-disk: puts a second.
    #[arg(long, default_value_t = 500)]
    pub slow_disk_rate: u64,
    /// slow-disk: puts in flight at most.
    #[arg(long, default_value_t = 200)]
    pub slow_disk_clients: usize,
}

impl SlowDisk {
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("slow-disk-millis", self.slow_disk_millis),
            ("slow-disk-rate", self.slow_disk_rate),
            ("slow-disk-clients", self.slow_disk_clients as u64),
        ])
    }

    pub(super) async fn run(&self, site: &Site<'_>, seen: &mut Seen) -> anyhow::Result<()> {
        let delay = Duration::from_millis(self.slow_disk_millis);
        let setting = Setting { fsync_delay: Some(delay), ..Setting::default() };
        let mut host = Host::start(site, MEMBERS, setting).await?;
        let (endpoints, pids) = (host.cluster.endpoints(), host.cluster.pids());
        let members = Members::connect(&endpoints)?;
        let leader = members.leader().await?;
        let session = Session::open(&endpoints[leader..=leader], CONNECTIONS)?;
        seen.version = session.version().await?;
        let terms_before = terms(&members).await?;

        let before = Usage::of(&pids)?;
        let puts = put::at_random(&session, self.slow_disk_clients, KEYS, VALUE_BYTES, 1);
        let puts = Steady::start(puts, self.slow_disk_rate);
        puts.begin();
        sleep(self.slow_disk_seconds).await;
        puts.pause();
        let shares = puts.finish().await?;
        host.cluster.check_alive()?;
        let spent = Usage::of(&pids)?.since(before);
        let share = shares.first().context("the load had no phase")?;

        let terms_after = terms(&members).await?;
        seen.figure("puts_per_second", share.latency.count as f64 / share.elapsed.as_secs_f64().max(1e-9));
        seen.latency("put", &share.latency);
        seen.figure("cpu_seconds", spent.cpu.as_secs_f64());
        let elections =
            terms_before.iter().zip(&terms_after).map(|(before, after)| after.saturating_sub(*before)).max();
        seen.figure("elections", elections.unwrap_or(0) as f64);
        seen.check(terms_before == terms_after, || {
            format!("elections under load: the members' terms were {terms_before:?} and are {terms_after:?}")
        });
        seen.check(share.errors.is_empty(), || format!("puts failed: {:?}", share.errors));
        // A put that is faster than an fsync was not waited for, or the delay met nobody: either way nothing was shown.
        let floor = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        seen.check(share.latency.p50_us >= floor, || {
            format!("half of the puts took less than the {} µs of an fsync: {} µs", floor, share.latency.p50_us)
        });
        members.wait_until_level(&mut host.cluster, Duration::from_secs(60)).await?;
        host.stop().await
    }
}

/// The term in which each member is.
async fn terms(members: &Members) -> anyhow::Result<Vec<u64>> {
    let mut terms = Vec::with_capacity(MEMBERS);
    for member in 0..MEMBERS {
        let status = members
            .client(member, STATUS_MAX)
            .status()
            .await
            .with_context(|| format!("asking member {member} for its term"))?;
        terms.push(status.raft_term);
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        slow_disk: SlowDisk,
    }

    #[test]
    fn refusals_name_the_flag() {
        for flags in [["--slow-disk-millis", "0"], ["--slow-disk-rate", "0"], ["--slow-disk-clients", "0"]] {
            let slow_disk = Only::parse_from([&["bench"], &flags[..]].concat()).slow_disk;
            let error = slow_disk.validate().unwrap_err().to_string();
            assert!(error.starts_with(flags[0]), "{error}");
        }
    }
}
