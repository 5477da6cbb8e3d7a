//! Many leases, of which many end at the same time.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, ensure};
use mainstay_client::{Client, KeyRange, Range};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::put;
use super::super::session::Session;
use super::expiry::{Deletions, Granted, Heard, Life, granters, renewers};
use super::host::{Host, Setting, resident_bytes};
use super::{Seen, Site};
use crate::keyspace::key;
use crate::latency::Recorder;
use crate::load::{Budget, Pace, drive};
use crate::options::ensure_above_zero;
use crate::process::Usage;
use crate::steady::Steady;

/// Connections that the clients share.
const CONNECTIONS: usize = 10;
/// Keys that the load writes, and bytes of their values.
const LOAD_KEYS: u64 = 1_000;
const LOAD_VALUE_BYTES: usize = 256;
/// Puts in flight at most.
const LOAD_CLIENTS: usize = 100;
/// Streams over which the leases are kept alive.
const RENEWERS: usize = 16;
/// How much later than it should be a deletion counts as lost.
const LATE_MAX: Duration = Duration::from_secs(180);
/// How long asking for all leases may take.
const LIST_MAX: Duration = Duration::from_secs(60);
/// So many times in its life a lease is renewed that is kept alive.
const RENEWALS: u64 = 3;
/// What the load is compared with lasts so long at least.
const BEFORE_MIN: Duration = Duration::from_secs(1);

/// The sizes of `leases`.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Leases {
    /// leases: leases in all, each with one key.
    #[arg(long, default_value_t = 100_000)]
    pub leases_total: u64,
    /// leases: how many of them end within one second. The others are kept alive.
    #[arg(long, default_value_t = 20_000)]
    pub leases_expiring: u64,
    /// leases: seconds that the others live, from one renewal to the next.
    #[arg(long, default_value_t = 120)]
    pub leases_ttl: u64,
    /// leases: seconds in which those that end have to be granted, and then are waited for.
    #[arg(long, default_value_t = 20)]
    pub leases_lead: u64,
    /// leases: puts a second meanwhile.
    #[arg(long, default_value_t = 500)]
    pub leases_rate: u64,
    /// leases: clients that grant them.
    #[arg(long, default_value_t = 64)]
    pub leases_clients: usize,
}

impl Leases {
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("leases-total", self.leases_total),
            ("leases-expiring", self.leases_expiring),
            ("leases-rate", self.leases_rate),
            ("leases-clients", self.leases_clients as u64),
        ])?;
        ensure!(
            self.leases_total > self.leases_expiring,
            "--leases-total: must be above --leases-expiring ({})",
            self.leases_expiring
        );
        ensure!(self.leases_ttl >= 10, "--leases-ttl: at least 10, so that there is time to renew");
        ensure!(self.leases_lead >= 3, "--leases-lead: at least 3, as etcd grants none for less");
        Ok(())
    }

    /// How many are kept alive.
    fn kept(&self) -> u64 {
        self.leases_total - self.leases_expiring
    }

    /// The number of the first key of those that are kept, and of those that end.
    fn firsts(&self) -> (u64, u64) {
        (LOAD_KEYS, LOAD_KEYS + self.kept())
    }

    pub(super) async fn run(&self, site: &Site<'_>, seen: &mut Seen) -> anyhow::Result<()> {
        let mut host = Host::start(site, 1, Setting::default()).await?;
        let session = Session::open(&host.cluster.endpoints(), CONNECTIONS)?;
        seen.version = session.version().await?;
        let pids = host.cluster.pids();
        let (first_kept, first_ending) = self.firsts();

        let resident = resident_bytes(&pids)?;
        let began = Instant::now();
        let life = Life::Seconds(i64::try_from(self.leases_ttl)?);
        let kept = self.grant(&session, life, first_kept, self.kept()).await?;
        seen.figure("grants_with_put_per_second", kept.len() as f64 / began.elapsed().as_secs_f64().max(1e-9));
        let taken = resident_bytes(&pids)?.saturating_sub(resident);
        seen.figure("bytes_per_lease", taken as f64 / kept.len() as f64);

        let mut ids: Vec<i64> = kept.iter().map(|lease| lease.id).collect();
        let renewals = Steady::start(
            renewers(&session, RENEWERS, ids.clone()),
            (self.kept() * RENEWALS).div_ceil(self.leases_ttl),
        );
        renewals.begin();
        let puts = put::at_random(&session, LOAD_CLIENTS, LOAD_KEYS, LOAD_VALUE_BYTES, 1);
        let puts = Steady::start(puts, self.leases_rate);

        // A connection of its own: what is late shall be late at the server.
        let watch = Session::open(&host.cluster.endpoints(), 1)?;
        let deletions = Deletions::open(&watch.client(0), first_ending, self.leases_expiring).await?;
        let end = Instant::now() + Duration::from_secs(self.leases_lead);
        let ending = self.grant(&session, Life::Until(end), first_ending, self.leases_expiring).await?;
        ensure!(
            Instant::now() + BEFORE_MIN < end,
            "--leases-lead: granting {} leases takes longer",
            self.leases_expiring
        );
        let mut watching = JoinSet::new();
        watching.spawn(deletions.receive(end + LATE_MAX));

        puts.begin();
        sleep_until(end).await;
        puts.pause();
        let before = Usage::of(&pids)?;
        puts.begin();
        let heard = watching.join_next().await.context("nobody watches")?.context("watching the keys")?;
        // Those that run out take a second, however fast they end: the load of all of it counts.
        sleep_until(end + BEFORE_MIN).await;
        puts.pause();
        let spent = Usage::of(&pids)?.since(before);
        host.cluster.check_alive()?;
        self.judge(&ending, &heard, end, seen);
        seen.figure("expiry_cpu_seconds", spent.cpu.as_secs_f64());

        // Those that are kept live on for long after the others: none of them may have ended with them.
        sleep(BEFORE_MIN).await;
        for (share, name) in puts.finish().await?.iter().zip(["put_before", "put_during"]) {
            seen.latency(name, &share.latency);
            seen.check(share.errors.is_empty(), || format!("{name}: {:?}", share.errors));
        }
        for share in renewals.finish().await? {
            seen.latency("renewal", &share.latency);
            seen.check(share.errors.is_empty(), || format!("renewals: {:?}", share.errors));
        }
        let mut alive = session.client(0).with_timeout(LIST_MAX).leases().await.context("asking for the leases")?;
        ids.sort_unstable();
        alive.sort_unstable();
        seen.check(alive == ids, || format!("{} leases are alive, and {} were kept alive", alive.len(), ids.len()));
        for (first, count, expected) in
            [(first_kept, self.kept(), self.kept()), (first_ending, self.leases_expiring, 0)]
        {
            let found = count_keys(&session.client(0), first, count).await?;
            seen.check(found == expected, || format!("{found} keys with leases are there, not {expected}"));
        }
        seen.figure("rss_peak_mb", Usage::of(&pids)?.rss_peak_bytes as f64 / 1e6);
        host.stop().await
    }

    async fn grant(&self, session: &Session, life: Life, first: u64, count: u64) -> anyhow::Result<Vec<Granted>> {
        let (workers, granted) = granters(session, self.leases_clients, life, first);
        let measured = drive(workers, Pace { budget: Budget::Total(count), rate: 0 }).await;
        let granted = std::mem::take(&mut *granted.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(granted.len() as u64 == count, "{} of {count} leases granted: {:?}", granted.len(), measured.errors);
        Ok(granted)
    }

    /// Compares when keys were deleted with when that was due.
    fn judge(&self, ending: &[Granted], heard: &Heard, end: Instant, seen: &mut Seen) {
        let (_, first) = self.firsts();
        let late = Recorder::default();
        let (mut early, mut missing, mut last) = (0_u64, 0_u64, end);
        for lease in ending {
            match heard.at[(lease.number - first) as usize] {
                Some(at) => {
                    early += u64::from(at < lease.earliest);
                    last = last.max(at);
                    late.record(0, at.saturating_duration_since(lease.due));
                }
                None => missing += 1,
            }
        }
        seen.latency("deletion_late", &late.summary());
        let seconds = last.saturating_duration_since(end).as_secs_f64();
        seen.figure("all_deleted_after_seconds", seconds);
        seen.figure("deletions_per_second", (ending.len() as u64 - missing) as f64 / seconds.max(1e-9));
        seen.check(early == 0, || format!("{early} leases ended before their time"));
        seen.check(missing == 0, || format!("{missing} keys of leases that ended were not deleted"));
        seen.check(heard.wrong.is_empty(), || format!("the watch: {:?}", heard.wrong));
    }
}

/// How many keys there are of so many from a number on.
async fn count_keys(client: &Client, first: u64, count: u64) -> anyhow::Result<u64> {
    let range = Range::of(&KeyRange::new(key(first), key(first + count))).count_only();
    let answer = client.with_timeout(LIST_MAX).range(range).await.context("counting keys")?;
    Ok(u64::try_from(answer.count)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        leases: Leases,
    }

    fn leases(flags: &[&str]) -> Leases {
        Only::parse_from([&["bench"], flags].concat()).leases
    }

    #[test]
    fn refusals_name_the_flag() {
        for flags in [
            ["--leases-total", "20000"],
            ["--leases-expiring", "0"],
            ["--leases-ttl", "9"],
            ["--leases-lead", "2"],
            ["--leases-rate", "0"],
        ] {
            let error = leases(&flags).validate().unwrap_err().to_string();
            assert!(error.starts_with(flags[0]), "{error}");
        }
        leases(&[]).validate().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_early_late_or_not_at_all_is_told() {
        let leases = leases(&["--leases-total", "10", "--leases-expiring", "3"]);
        let (_, first) = leases.firsts();
        let end = Instant::now() + Duration::from_secs(10);
        let granted = |number: u64| Granted { id: 1, number: first + number, earliest: end, due: end };
        let ending = [granted(0), granted(1), granted(2)];
        let late = Duration::from_millis(500);
        let heard = |at| Heard { at, wrong: BTreeMap::new() };

        let mut seen = Seen::default();
        leases.judge(&ending, &heard(vec![Some(end), Some(end + late), Some(end)]), end, &mut seen);
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
        let figure = |name: &str| seen.figures.iter().find(|(figure, _)| figure == name).unwrap().1;
        assert_eq!((figure("all_deleted_after_seconds"), figure("deletions_per_second")), (0.5, 6.0));
        assert!((499.0..=501.0).contains(&figure("deletion_late_max_ms")));

        let mut seen = Seen::default();
        leases.judge(&ending, &heard(vec![Some(end - late), None, Some(end)]), end, &mut seen);
        let told: Vec<&str> = seen.failures.iter().map(String::as_str).collect();
        assert_eq!(told, ["1 leases ended before their time", "1 keys of leases that ended were not deleted"]);
    }
}
