//! How long things took.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told apart from longer ones.
const MAX: Duration = Duration::from_secs(600);
/// Significant decimal digits.
const DIGITS: u8 = 3;
/// Histograms that the clients share. One for each of a thousand clients would take more memory
/// than the server that is measured.
const SHARDS: usize = 16;

/// Takes the times of many clients at once.
#[derive(Debug)]
pub struct Recorder {
    shards: Vec<Mutex<Histogram<u64>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(empty())).collect() }
    }
}

fn empty() -> Histogram<u64> {
    let max = u64::try_from(MAX.as_micros()).expect("ten minutes are few microseconds");
    Histogram::new_with_bounds(1, max, DIGITS).expect("the bounds are valid")
}

impl Recorder {
    /// Takes one time from a client.
    pub fn record(&self, client: usize, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // A panic elsewhere cannot have left a histogram half written in a way that matters here.
        let mut shard = self.shards[client % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        shard.saturating_record(micros.max(1));
    }

    /// All the times together.
    pub fn summary(&self) -> Summary {
        let mut whole = empty();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            whole.add(&*shard).expect("all have the same bounds");
        }
        Summary {
            count: whole.len(),
            mean_us: whole.mean().round() as u64,
            p50_us: whole.value_at_quantile(0.5),
            p99_us: whole.value_at_quantile(0.99),
            p999_us: whole.value_at_quantile(0.999),
            max_us: whole.max(),
        }
    }
}

/// What is kept of the times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// The mean.
    pub mean_us: u64,
    /// Half of them were shorter.
    pub p50_us: u64,
    /// One in a hundred was longer.
    pub p99_us: u64,
    /// One in a thousand was longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_all_clients_together() {
        let recorder = Recorder::default();
        for number in 1..=10_000_u64 {
            recorder.record(number as usize, Duration::from_micros(number));
        }
        let summary = recorder.summary();
        assert_eq!(summary.count, 10_000);
        for (found, expected) in [
            (summary.p50_us, 5_000),
            (summary.p99_us, 9_900),
            (summary.p999_us, 9_990),
            (summary.max_us, 10_000),
            (summary.mean_us, 5_000),
        ] {
            assert!(found.abs_diff(expected) * 1000 <= expected, "{found} for {expected}");
        }
    }

    #[test]
    fn nothing_is_out_of_bounds() {
        let recorder = Recorder::default();
        recorder.record(0, Duration::ZERO);
        recorder.record(1, Duration::MAX);
        let summary = recorder.summary();
        assert_eq!((summary.count, summary.p50_us), (2, 1));
        assert!(summary.max_us >= 599_000_000);
    }

    #[test]
    fn nothing_recorded_is_nothing_measured() {
        assert_eq!(Recorder::default().summary(), Summary::default());
    }
}
