//! Many watchers, and many of them on one prefix.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use mainstay_client::{Client, Error, Reason};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::session::Session;
use super::fan::{Board, Count, Plan, Stream, numbered};
use super::host::{Host, Setting, resident_bytes};
use super::{Seen, Site};
use crate::latency::Recorder;
use crate::options::ensure_above_zero;
use crate::process::Usage;

/// Bytes of a value.
const VALUE_BYTES: usize = 256;
/// Watchers with a prefix of their own that are told something, at most.
const OWN_MAX: u64 = 10_000;
/// Puts in flight where many are sent at once.
const BURST_TASKS: usize = 16;
/// How often a put is tried that is refused: a server that is late with its timers refuses for a while.
const ATTEMPTS_MAX: u64 = 300;
/// How long a refused put rests.
const REST: Duration = Duration::from_millis(100);

/// The sizes of `watchers`.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Watchers {
    /// watchers: watchers in all.
    #[arg(long, default_value_t = 100_000)]
    pub watchers_total: u64,
    /// watchers: how many of them are on the same prefix. Each of the others has a prefix of its own.
    #[arg(long, default_value_t = 10_000)]
    pub watchers_on_prefix: u64,
    /// watchers: streams that they share.
    #[arg(long, default_value_t = 200)]
    pub watchers_streams: usize,
    /// watchers: connections that the streams share.
    #[arg(long, default_value_t = 20)]
    pub watchers_connections: usize,
    /// watchers: events for all on the prefix, one after the other, and again as many at once.
    #[arg(long, default_value_t = 20)]
    pub watchers_events: u64,
}

impl Watchers {
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("watchers-on-prefix", self.watchers_on_prefix),
            ("watchers-streams", self.watchers_streams as u64),
            ("watchers-connections", self.watchers_connections as u64),
            ("watchers-events", self.watchers_events),
        ])?;
        let least = (self.watchers_streams as u64).max(self.watchers_on_prefix);
        ensure!(
            self.watchers_total >= least,
            "--watchers-total: must be at least --watchers-streams and --watchers-on-prefix"
        );
        Ok(())
    }

    fn plan(&self) -> Plan {
        Plan { total: self.watchers_total, on_prefix: self.watchers_on_prefix, streams: self.watchers_streams }
    }

    /// The watchers with a prefix of their own that are told something.
    fn told(&self) -> impl Iterator<Item = u64> + use<> {
        let own = self.watchers_total - self.watchers_on_prefix;
        let step = own.div_ceil(OWN_MAX).max(1);
        (self.watchers_on_prefix..self.watchers_total).step_by(step as usize)
    }

    /// How many events a watcher has to see.
    fn expected(&self, watcher: u64) -> u64 {
        if watcher < self.watchers_on_prefix {
            return 2 * self.watchers_events;
        }
        let step = (self.watchers_total - self.watchers_on_prefix).div_ceil(OWN_MAX).max(1);
        u64::from((watcher - self.watchers_on_prefix).is_multiple_of(step))
    }

    pub(super) async fn run(&self, site: &Site<'_>, seen: &mut Seen) -> anyhow::Result<()> {
        let mut host = Host::start(site, 1, Setting::default()).await?;
        let (endpoints, pids, plan) = (host.cluster.endpoints(), host.cluster.pids(), self.plan());
        let session = Session::open(&endpoints, self.watchers_connections)?;
        seen.version = session.version().await?;
        session.warm_up().await?;

        let (resident, began) = (resident_bytes(&pids)?, Instant::now());
        let streams = self.open(&session, plan).await?;
        seen.figure("watchers_opened_per_second", self.watchers_total as f64 / began.elapsed().as_secs_f64().max(1e-9));
        let taken = resident_bytes(&pids)?.saturating_sub(resident);
        seen.figure("bytes_per_watcher", taken as f64 / self.watchers_total as f64);

        let own: Vec<u64> = self.told().collect();
        let board = Arc::new(Board::new(2 * self.watchers_events as usize + own.len()));
        let recorder = Arc::new(Recorder::default());
        let (stop, stopped) = watch::channel(false);
        let mut receiving: JoinSet<Vec<Count>> = JoinSet::new();
        for stream in streams {
            let (board, recorder, stopped) = (board.clone(), recorder.clone(), stopped.clone());
            receiving.spawn(async move { stream.receive(&board, &recorder, stopped).await });
        }
        // A connection of its own: the puts shall not wait behind events.
        let puts = Session::open(&endpoints, 1)?;
        puts.warm_up().await?;

        let before = Usage::of(&pids)?;
        self.one_by_one(&puts, plan, &board, seen).await?;
        seen.latency("event", &recorder.summary());
        self.burst(&puts, plan, &board, seen).await?;
        host.cluster.check_alive()?;
        let spent = Usage::of(&pids)?.since(before);
        let delivered = 2 * self.watchers_events * self.watchers_on_prefix;
        seen.figure("cpu_seconds_per_million_events", spent.cpu.as_secs_f64() * 1e6 / delivered as f64);
        self.others(&puts, plan, &own, &board, seen).await?;

        stop.send_replace(true);
        let mut counts = Vec::with_capacity(self.watchers_total as usize);
        while let Some(part) = receiving.join_next().await {
            counts.extend(part.context("receiving events")?);
        }
        self.judge(&counts, seen);
        seen.check(board.wrong().is_empty(), || format!("the watches: {:?}", board.wrong()));
        seen.figure("rss_peak_mb", Usage::of(&pids)?.rss_peak_bytes as f64 / 1e6);
        host.cluster.check_alive()?;
        host.stop().await
    }

    async fn open(&self, session: &Session, plan: Plan) -> anyhow::Result<Vec<Stream>> {
        let mut opening = JoinSet::new();
        for number in 0..plan.streams {
            let client = session.client(number);
            opening.spawn(async move { Stream::open(&client, plan, number).await });
        }
        let mut streams = Vec::with_capacity(plan.streams);
        while let Some(stream) = opening.join_next().await {
            streams.push(stream.context("opening a watch stream")??);
        }
        Ok(streams)
    }

    /// An event after the other, each when all have seen the one before.
    async fn one_by_one(&self, puts: &Session, plan: Plan, board: &Board, seen: &mut Seen) -> anyhow::Result<()> {
        let (all, mut refused) = (Recorder::default(), 0);
        for event in 0..self.watchers_events {
            board.send(event, self.watchers_on_prefix);
            refused += put(&puts.client(0), plan.key(0), numbered(event, VALUE_BYTES)).await?;
            all.record(0, board.wait(event).await?);
        }
        seen.latency("event_to_all", &all.summary());
        seen.figure("events_refused", refused as f64);
        Ok(())
    }

    /// As many events at once, which is more than streams have room for.
    async fn burst(&self, puts: &Session, plan: Plan, board: &Board, seen: &mut Seen) -> anyhow::Result<()> {
        let events = self.watchers_events..2 * self.watchers_events;
        let began = Instant::now();
        let mut sending = JoinSet::new();
        for task in 0..BURST_TASKS {
            let (client, key) = (puts.client(0), plan.key(0));
            let mine: Vec<u64> = events.clone().skip(task).step_by(BURST_TASKS).collect();
            for event in &mine {
                board.send(*event, self.watchers_on_prefix);
            }
            sending.spawn(async move {
                let mut refused = 0;
                for event in mine {
                    refused += put(&client, key.clone(), numbered(event, VALUE_BYTES)).await?;
                }
                Ok::<u64, Error>(refused)
            });
        }
        let mut refused = 0;
        while let Some(sent) = sending.join_next().await {
            refused += sent.context("sending events")??;
        }
        let mut longest = Duration::ZERO;
        for event in events {
            longest = longest.max(board.wait(event).await?);
        }
        let delivered = self.watchers_events * self.watchers_on_prefix;
        seen.figure("burst_events_per_second", delivered as f64 / began.elapsed().as_secs_f64().max(1e-9));
        seen.figure("burst_to_all_seconds", longest.as_secs_f64());
        seen.figure("burst_refused", refused as f64);
        Ok(())
    }

    /// An event for each of some watchers that nobody else hears of.
    async fn others(
        &self,
        puts: &Session,
        plan: Plan,
        own: &[u64],
        board: &Board,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        let recorder = Recorder::default();
        for (event, watcher) in (2 * self.watchers_events..).zip(own) {
            board.send(event, 1);
            put(&puts.client(0), plan.key(*watcher), numbered(event, VALUE_BYTES)).await?;
            recorder.record(0, board.wait(event).await?);
        }
        seen.latency("own_event", &recorder.summary());
        Ok(())
    }

    /// Whether each watcher has seen as much as there was for it.
    fn judge(&self, counts: &[Count], seen: &mut Seen) {
        let (mut lost, mut surplus) = (0, 0);
        for (watcher, count) in counts {
            let expected = self.expected(*watcher);
            lost += expected.saturating_sub(*count);
            surplus += count.saturating_sub(expected);
        }
        let watchers = counts.len() as u64;
        seen.check(watchers == self.watchers_total, || {
            format!("{watchers} of {} watchers were there at the end", self.watchers_total)
        });
        seen.check(lost == 0, || format!("{lost} events did not come"));
        seen.check(surplus == 0, || format!("{surplus} events came that should not have"));
    }
}

/// Puts, and again where that is refused because the server has too much to do: then it has certainly not taken effect.
/// Returns how often it was refused.
async fn put(client: &Client, key: Bytes, value: Bytes) -> Result<u64, Error> {
    let mut refused = 0;
    loop {
        match client.put(key.clone(), value.clone()).await {
            Ok(_) => return Ok(refused),
            Err(Error::Refused { reason: Reason::TooManyRequests, .. }) if refused < ATTEMPTS_MAX => {
                refused += 1;
                sleep(REST).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        watchers: Watchers,
    }

    fn watchers(flags: &[&str]) -> Watchers {
        Only::parse_from([&["bench"], flags].concat()).watchers
    }

    #[test]
    fn refusals_name_the_flag() {
        for flags in [["--watchers-total", "9999"], ["--watchers-streams", "0"], ["--watchers-events", "0"]] {
            let error = watchers(&flags).validate().unwrap_err().to_string();
            assert!(error.starts_with(flags[0]), "{error}");
        }
        watchers(&[]).validate().unwrap();
    }

    #[test]
    fn who_is_told_something_is_expected_to_have_seen_it() {
        for flags in [&[][..], &["--watchers-total", "10000"], &["--watchers-total", "35000"]] {
            let watchers = watchers(flags);
            let told: Vec<u64> = watchers.told().collect();
            assert!(told.len() as u64 <= OWN_MAX);
            let expected = |watcher: &u64| watchers.expected(*watcher) == 1;
            let own = watchers.watchers_on_prefix..watchers.watchers_total;
            assert!(own.filter(expected).eq(told), "{flags:?}");
            assert_eq!(watchers.expected(0), 40);
        }
    }

    #[test]
    fn what_is_lost_or_comes_twice_is_told() {
        let flags = ["--watchers-total", "4", "--watchers-on-prefix", "2", "--watchers-events", "1"];
        let watchers = watchers(&flags);
        let judged = |counts: &[Count]| {
            let mut seen = Seen::default();
            watchers.judge(counts, &mut seen);
            seen.failures
        };
        assert!(judged(&[(0, 2), (1, 2), (2, 1), (3, 1)]).is_empty());
        let failures = judged(&[(0, 1), (1, 2), (2, 3)]);
        let told =
            ["3 of 4 watchers were there at the end", "1 events did not come", "2 events came that should not have"];
        assert_eq!(failures, told);
    }
}
