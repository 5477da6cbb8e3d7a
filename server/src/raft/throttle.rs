//! How fast this member may send snapshots: so many bytes a second to all others together, and nothing while the disk of
//! its log is behind. Clients wait for that disk, and entries for the same network; who catches up can wait.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::stall::Pressure;
use crate::env::clock::{self, Instant};
use crate::env::probe;
use crate::limits;

/// What is not sent for so long can be made up for later; beyond that it is lost.
const SAVED: Duration = Duration::from_millis(100);
/// Pieces a second that are sent at least, where that makes them smaller than they may be.
const PIECES_A_SECOND: u64 = 8;
/// The smallest piece.
const PIECE_BYTES_MIN: u64 = 16 * 1024;
/// Pause before it is looked again whether the disk is still behind.
const PRESSURE_PAUSE: Duration = Duration::from_millis(50);

/// The one throttle of a member; clones share it.
#[derive(Clone)]
pub(crate) struct Throttle {
    /// `None` where there is no limit. A leaf lock.
    bucket: Option<Arc<Mutex<Bucket>>>,
    pressure: Pressure,
    piece_bytes: usize,
}

impl Throttle {
    /// So many bytes a second, or any number where that is 0.
    pub(crate) fn new(bytes_per_second: u64, pressure: Pressure) -> Self {
        let rate = NonZeroU64::new(bytes_per_second);
        let piece_bytes = rate.map_or(limits::SNAPSHOT_CHUNK_BYTES, piece_bytes);
        let bucket = rate.map(|rate| Arc::new(Mutex::new(Bucket { rate, due: None })));
        Self { bucket, pressure, piece_bytes }
    }

    /// How much is to be read and sent at once.
    pub(super) fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Waits until so many bytes may be read or sent.
    pub(super) async fn take(&self, bytes: usize) {
        let wait = self.bucket.as_ref().map(|bucket| bucket.lock().take(bytes as u64, clock::now()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            probe::reached("snapshot-throttled");
            clock::sleep(wait).await;
        }
        while self.pressure.is_high() {
            probe::reached("snapshot-waits-for-log");
            clock::sleep(PRESSURE_PAUSE).await;
        }
    }
}

fn piece_bytes(rate: NonZeroU64) -> usize {
    let bytes = (rate.get() / PIECES_A_SECOND).max(PIECE_BYTES_MIN);
    usize::try_from(bytes).unwrap_or(usize::MAX).min(limits::SNAPSHOT_CHUNK_BYTES)
}

/// Hands out bytes at a rate. Whoever comes takes his place in the queue, and is told how long it is.
#[derive(Debug)]
struct Bucket {
    rate: NonZeroU64,
    /// When all that was handed out so far is through.
    due: Option<Instant>,
}

impl Bucket {
    /// Takes so many bytes; how long to wait before they are used.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let earliest = now.checked_sub(SAVED).unwrap_or(now);
        let begins = self.due.map_or(now, |due| due.max(earliest));
        self.due = Some(begins + Duration::from_secs_f64(bytes as f64 / self.rate.get() as f64));
        begins.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64) -> Bucket {
        Bucket { rate: NonZeroU64::new(rate).unwrap(), due: None }
    }

    #[tokio::test]
    async fn bytes_are_handed_out_at_the_rate() {
        let (mut bucket, start) = (bucket(1000), clock::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut take = |bytes, millis| bucket.take(bytes, at(millis)).as_millis();
        assert_eq!(take(500, 0), 0, "nobody is before it");
        assert_eq!(take(100, 0), 500);
        assert_eq!(take(100, 0), 600, "whoever comes at the same time is behind");
        assert_eq!(take(300, 400), 300);
        assert_eq!(take(100, 1000), 0, "all before it is through");
        // Who comes a little late loses nothing.
        assert_eq!(take(100, 1150), 0);
        assert_eq!(take(100, 1150), 50);
        // What was not used for long is not saved up.
        assert_eq!(take(100, 60_000), 0);
        assert_eq!(take(100, 60_000), 0);
        assert_eq!(take(100, 60_000), 100);
    }

    #[tokio::test]
    async fn all_who_send_have_one_limit() {
        let throttle = Throttle::new(1_000_000, Pressure::default());
        assert_eq!(throttle.piece_bytes(), 125_000);
        let began = clock::now();
        let send = async |throttle: Throttle| {
            for _ in 0..10 {
                throttle.take(10_000).await;
            }
        };
        futures_util::future::join(send(throttle.clone()), send(throttle.clone())).await;
        let took = clock::elapsed(began);
        // The first takes nothing, and the last one's bytes are not waited for.
        assert!(took >= Duration::from_millis(180), "{took:?}");
    }

    #[tokio::test]
    async fn without_a_limit_only_the_log_is_waited_for() {
        let pressure = Pressure::default();
        let throttle = Throttle::new(0, pressure.clone());
        assert_eq!(throttle.piece_bytes(), limits::SNAPSHOT_CHUNK_BYTES);
        for _ in 0..1000 {
            throttle.take(usize::MAX).await;
        }
        pressure.set(true);
        let waits = throttle.take(1);
        assert!(clock::timeout(Duration::from_millis(200), waits).await.is_err());
        pressure.set(false);
        throttle.take(1).await;
    }

    #[test]
    fn pieces_are_small_where_little_may_be_sent() {
        let pieces = |rate| Throttle::new(rate, Pressure::default()).piece_bytes();
        assert_eq!((pieces(1), pieces(1 << 20)), (16 * 1024, 128 * 1024));
        assert_eq!((pieces(64 << 20), pieces(u64::MAX)), (limits::SNAPSHOT_CHUNK_BYTES, limits::SNAPSHOT_CHUNK_BYTES));
    }
}
