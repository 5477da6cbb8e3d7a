//! Drives clients and times what they do.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::latency::{Recorder, Summary};

/// A client gives up after this many failures in a row: the server is gone, and what would follow
/// are time-outs.
const FAILURES_MAX: u32 = 10;

/// One client: does one operation at a time.
pub trait Worker: Send + 'static {
    /// Does the next operation; returns how many items it moved.
    fn step(&mut self) -> impl Future<Output = Result<u64, mainstay_client::Error>> + Send;
}

/// When the clients stop, and how fast they go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How much there is to do.
    pub budget: Budget,
    /// Operations a second over all clients; 0 is as fast as they go.
    pub rate: u64,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// Operations, shared by all clients.
    Total(u64),
    /// Time.
    Duration(Duration),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Operations that succeeded.
    pub operations: u64,
    /// Items that they moved.
    pub items: u64,
    /// From the first operation's start to the last one's end.
    pub elapsed: Duration,
    /// The times of the operations that succeeded.
    pub latency: Summary,
    /// The texts of the failures, with their numbers.
    pub errors: BTreeMap<String, u64>,
}

/// The n-th operation's place in the run, handed out to whoever is free.
struct Tickets {
    next: AtomicU64,
    pace: Pace,
    start: Instant,
}

impl Tickets {
    /// When the next operation is due; `None` when there is none left.
    fn take(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.pace.rate {
            0 => self.start,
            rate => self.start + Duration::from_secs_f64(number as f64 / rate as f64),
        };
        let left = match self.pace.budget {
            Budget::Total(total) => number < total,
            Budget::Duration(duration) => due.max(Instant::now()) < self.start + duration,
        };
        left.then_some(due)
    }
}

/// Lets every worker do operations until the budget is used up.
pub async fn drive<W: Worker>(workers: Vec<W>, pace: Pace) -> Measured {
    let recorder = Arc::new(Recorder::default());
    let tickets = Arc::new(Tickets { next: AtomicU64::new(0), pace, start: Instant::now() });
    // Dropping the set stops the workers, so an interrupted run leaves none behind.
    let mut tasks = JoinSet::new();
    for (client, worker) in workers.into_iter().enumerate() {
        tasks.spawn(work(client, worker, tickets.clone(), recorder.clone()));
    }
    let mut measured = Measured::default();
    while let Some(outcome) = tasks.join_next().await {
        let part = outcome.expect("a worker does not panic");
        measured.operations += part.operations;
        measured.items += part.items;
        for (text, count) in part.errors {
            *measured.errors.entry(text).or_default() += count;
        }
    }
    measured.elapsed = tickets.start.elapsed();
    measured.latency = recorder.summary();
    measured
}

async fn work<W: Worker>(client: usize, mut worker: W, tickets: Arc<Tickets>, recorder: Arc<Recorder>) -> Measured {
    let mut part = Measured::default();
    let mut failures = 0;
    while let Some(due) = tickets.take() {
        let start = match tickets.pace.rate {
            0 => Instant::now(),
            _ => {
                sleep_until(due).await;
                // From when it was due, not from when a client was free for it: otherwise a stall
                // would hide the waiting that it caused.
                due
            }
        };
        match worker.step().await {
            Ok(items) => {
                recorder.record(client, start.elapsed());
                part.operations += 1;
                part.items += items;
                failures = 0;
            }
            Err(error) => {
                *part.errors.entry(error.to_string()).or_default() += 1;
                failures += 1;
                if failures == FAILURES_MAX {
                    break;
                }
            }
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slow::{ITEMS, workers};

    #[tokio::test(start_paused = true)]
    async fn a_total_is_shared_by_all() {
        let measured = drive(workers(10, 5), Pace { budget: Budget::Total(105), rate: 0 }).await;
        assert_eq!((measured.operations, measured.items, measured.latency.count), (105, 105 * ITEMS, 105));
        assert_eq!(measured.elapsed.as_millis(), 55);
    }

    #[tokio::test(start_paused = true)]
    async fn a_duration_ends_the_run() {
        let budget = Budget::Duration(Duration::from_secs(1));
        let measured = drive(workers(2, 10), Pace { budget, rate: 0 }).await;
        assert_eq!(measured.operations, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_spaces_the_operations() {
        let measured = drive(workers(5, 1), Pace { budget: Budget::Total(1000), rate: 100 }).await;
        assert_eq!(measured.elapsed.as_millis(), 9991);
        assert!(measured.latency.max_us < 3_000, "{:?}", measured.latency);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_is_missed_shows_in_the_latency() {
        // One client can do 100 a second; 200 are due.
        let measured = drive(workers(1, 10), Pace { budget: Budget::Total(200), rate: 200 }).await;
        assert!(measured.latency.max_us > 900_000, "{:?}", measured.latency);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_and_a_dead_server_ends_the_run() {
        let mut workers = workers(2, 1);
        workers[0].broken = true;
        let measured = drive(workers, Pace { budget: Budget::Total(100), rate: 0 }).await;
        assert_eq!(measured.errors, BTreeMap::from([("no answer in time".to_owned(), 10)]));
        assert_eq!((measured.operations, measured.latency.count), (90, 90));
    }
}
