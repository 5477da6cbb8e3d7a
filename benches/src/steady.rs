//! A load at a steady rate through several phases.
//!
//! Requests are due at fixed times, whatever the server does, and their latency counts from there. Each
//! counts for the phase in which it was due, however late its answer comes: so what a phase delays
//! shows in that phase and in no other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use mainstay_client::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::latency::{Recorder, Summary};
use crate::load::Worker;

/// How long the answers may take to what was due before the load ended.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A load that goes on until it is finished. Dropping it stops its clients at once.
///
/// Unlike [`drive`](crate::load::drive), it goes on when requests fail: servers that are away for a
/// while are part of what is measured.
#[derive(Debug)]
pub struct Steady {
    shared: Arc<Shared>,
    /// When the load ended: what is due from then on is not sent.
    end: watch::Sender<Option<Instant>>,
    tasks: JoinSet<()>,
}

/// What a load did in one phase.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// How long the phase was.
    pub elapsed: Duration,
    /// The times of the requests that succeeded, each from when it was due.
    pub latency: Summary,
    /// The texts of the failures, with their numbers.
    pub errors: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Requests a second over all clients.
    rate: u64,
    /// The number of the next request.
    next: AtomicU64,
    /// The phases and what is between them, in the order of time. The first begins with the load.
    stretches: Mutex<Vec<Stretch>>,
}

/// From some moment until the next stretch.
#[derive(Debug)]
struct Stretch {
    begin: Instant,
    /// Where the times go of what is due in it; `None` where they are not kept.
    tally: Option<Arc<Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    recorder: Recorder,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Steady {
    /// Starts the load: so many requests a second over all the workers. Nothing is kept of it until
    /// the first phase begins.
    pub fn start<W: Worker>(workers: Vec<W>, rate: u64) -> Self {
        assert!(rate > 0);
        let start = Instant::now();
        let stretches = Mutex::new(vec![Stretch { begin: start, tally: None }]);
        let shared = Arc::new(Shared { start, rate, next: AtomicU64::new(0), stretches });
        let (end, known) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for (client, worker) in workers.into_iter().enumerate() {
            tasks.spawn(work(client, worker, shared.clone(), known.clone()));
        }
        Self { shared, end, tasks }
    }

    /// Begins a phase: what is due from now on counts for it.
    pub fn begin(&self) {
        self.shared.turn(Some(Arc::default()));
    }

    /// Ends the phase. The load goes on, but what is due until the next phase is not kept.
    pub fn pause(&self) {
        self.shared.turn(None);
    }

    /// Ends the load, waits for the answers to what was due, and tells of every phase in its order.
    pub async fn finish(self) -> anyhow::Result<Vec<Share>> {
        let Self { shared, end, mut tasks } = self;
        shared.turn(None);
        end.send_replace(Some(Instant::now()));
        let drain = async {
            while let Some(outcome) = tasks.join_next().await {
                outcome.expect("a worker does not panic");
            }
        };
        let drained = timeout(DRAIN_MAX, drain).await;
        ensure!(drained.is_ok(), "requests have no answer {DRAIN_MAX:?} after the load ended");
        Ok(shared.shares())
    }
}

impl Shared {
    /// When the next request is due.
    fn take(&self) -> Instant {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.start + Duration::from_secs_f64(number as f64 / self.rate as f64)
    }

    fn turn(&self, tally: Option<Arc<Tally>>) {
        let mut stretches = self.stretches();
        stretches.push(Stretch { begin: Instant::now(), tally });
    }

    /// Where the time goes of a request that was due then.
    fn tally(&self, due: Instant) -> Option<Arc<Tally>> {
        let stretches = self.stretches();
        let later = stretches.partition_point(|stretch| stretch.begin <= due);
        // Nothing is due before the first stretch, which begins with the load.
        stretches[later - 1].tally.clone()
    }

    fn shares(&self) -> Vec<Share> {
        let stretches = self.stretches();
        let share = |pair: &[Stretch]| {
            let tally = pair[0].tally.as_ref()?;
            let errors = tally.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Some(Share { elapsed: pair[1].begin - pair[0].begin, latency: tally.recorder.summary(), errors })
        };
        stretches.windows(2).filter_map(share).collect()
    }

    fn stretches(&self) -> MutexGuard<'_, Vec<Stretch>> {
        // A push either happened or did not: a panic elsewhere leaves nothing half done.
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn fail(&self, error: &Error) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(error.to_string()).or_default() += 1;
    }
}

async fn work<W: Worker>(
    client: usize,
    mut worker: W,
    shared: Arc<Shared>,
    mut ended: watch::Receiver<Option<Instant>>,
) {
    loop {
        let due = shared.take();
        // What is overdue needs no timer, which could be late by a millisecond more.
        if due > Instant::now() {
            tokio::select! {
                biased;
                // First the request: it may be due at the very moment at which the load ends.
                () = sleep_until(due) => {}
                _ = ended.changed() => {}
            }
        }
        // What was due before the end is sent, however late that is: otherwise the requests that waited
        // longest would be missing.
        let end: Option<Instant> = *ended.borrow();
        if end.is_some_and(|end| due >= end) {
            return;
        }
        let outcome = worker.step().await;
        let took = due.elapsed();
        let Some(tally) = shared.tally(due) else { continue };
        match outcome {
            Ok(_items) => tally.recorder.record(client, took),
            Err(error) => tally.fail(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::slow::workers;

    async fn seconds(count: u64) {
        sleep(Duration::from_secs(count)).await;
    }

    #[track_caller]
    fn about(found: u64, expected: u64) {
        assert!(found.abs_diff(expected) <= 1, "{found} for {expected}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_what_was_due_in_it() {
        let steady = Steady::start(workers(5, 5), 100);
        seconds(1).await;
        steady.begin();
        seconds(2).await;
        steady.pause();
        seconds(1).await;
        steady.begin();
        seconds(1).await;
        let shares = steady.finish().await.unwrap();
        assert_eq!(shares.len(), 2);
        for (share, length) in shares.iter().zip([2, 1]) {
            about(share.latency.count, 100 * length);
            about(share.elapsed.as_millis() as u64, 1000 * length);
            assert!(share.latency.max_us < 8_000 && share.errors.is_empty(), "{share:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_counts_for_the_phase_in_which_it_was_due() {
        let steady = Steady::start(workers(10, 500), 10);
        steady.begin();
        seconds(1).await;
        steady.pause();
        let shares = steady.finish().await.unwrap();
        about(shares[0].latency.count, 10);
        assert!(shares[0].latency.p50_us >= 499_000, "{:?}", shares[0].latency);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_client_is_free_for_waits_and_is_not_left_out() {
        // One client can do 10 a second; 20 are due.
        let steady = Steady::start(workers(1, 100), 20);
        steady.begin();
        seconds(2).await;
        steady.pause();
        let shares = steady.finish().await.unwrap();
        about(shares[0].latency.count, 40);
        assert!(shares[0].latency.max_us > 1_800_000, "{:?}", shares[0].latency);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_and_end_nothing() {
        let mut workers = workers(2, 1);
        workers.iter_mut().for_each(|worker| worker.broken = true);
        let steady = Steady::start(workers, 100);
        steady.begin();
        seconds(1).await;
        let shares = steady.finish().await.unwrap();
        assert_eq!(shares[0].latency.count, 0);
        about(shares[0].errors["no answer in time"], 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_told_of() {
        let steady = Steady::start(workers(1, 3_600_000), 1);
        seconds(1).await;
        let error = steady.finish().await.unwrap_err().to_string();
        assert!(error.contains("no answer"), "{error}");
    }
}
