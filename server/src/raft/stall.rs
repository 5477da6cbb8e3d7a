//! A leader whose disk hangs hands the leadership over.
//!
//! Its heartbeats go on, for they need no disk, so nobody else would stand for election; and as long as a majority of
//! the others has an entry it is committed. But nothing that this member is asked to confirm comes to an end, and once
//! its log takes no more entries the cluster stands still. (etcd's leader beats from the same loop that writes, and is
//! deposed by that.)
//!
//! Long before that, what can wait is told to (`Pressure`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_raft_log::{Progress, RaftLog};

use super::leadership::{Leadership, TransferError};
use crate::env::clock::{self, Instant};
use crate::env::probe;

/// So much of an election timeout the disk may take for one batch.
const PATIENCE: f64 = 0.6;
/// From so much of it on, what can wait should leave the disk to the log.
const PRESSED: f64 = 0.1;
/// Election timeouts for which a member that handed over keeps the leadership when it gets it back: where every disk is
/// slow, it would go round and round.
const REST: u32 = 10;

/// Whether the log's disk is behind. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pressure {
    high: Arc<AtomicBool>,
}

impl Pressure {
    /// Whether what can wait should.
    pub(super) fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, high: bool) {
        self.high.store(high, Ordering::Relaxed);
    }
}

/// What one member watches.
pub(super) struct Stall {
    log: RaftLog,
    leadership: Leadership,
    election_timeout: Duration,
    pressure: Pressure,
}

impl Stall {
    pub(super) fn new(log: RaftLog, leadership: Leadership, election_timeout: Duration, pressure: Pressure) -> Self {
        Self { log, leadership, election_timeout, pressure }
    }

    /// Watches for as long as the task runs.
    pub(super) async fn watch(&self) {
        let mut hang = Hang::default();
        let mut handed_over = None;
        loop {
            let interval = self.election_timeout / 20;
            clock::sleep(interval).await;
            let hangs_for = hang.look(self.log.progress(), clock::now(), 2 * interval);
            self.pressure.set(hangs_for >= self.election_timeout.mul_f64(PRESSED));
            let rests = handed_over.is_some_and(|at| clock::elapsed(at) < REST * self.election_timeout);
            if hangs_for < self.election_timeout.mul_f64(PATIENCE) || rests || !self.leadership.view().leads {
                continue;
            }
            if probe::broken("hung-disk-keeps-the-lead") {
                // Wrong: nobody else stands for election as long as this member's heartbeats go on.
                continue;
            }
            let Some(heir) = self.leadership.heir(|_| true) else { continue };
            probe::reached("leader-disk-hangs");
            tracing::warn!(took = ?hangs_for, heir = format!("{heir:x}"), "slow disk: the leadership is handed over");
            handed_over = Some(clock::now());
            if let Err(error) = self.leadership.transfer(heir).await {
                tracing::warn!(%error, "{}", told(error));
                handed_over = None;
            }
        }
    }
}

/// What can be said of a hand-over that did not come to an end here. A new term is known to a member once its disk has
/// it: who has led into the hang sees the next leader only when that is over.
fn told(error: TransferError) -> &'static str {
    match error {
        TransferError::Timeout => "the leadership was offered; who took it is not known here while the disk hangs",
        TransferError::NotLeader | TransferError::NotVoter | TransferError::Stopped => {
            "the leadership was not handed over"
        }
    }
}

/// For how long nothing has become durable although something waits.
#[derive(Default)]
struct Hang {
    /// The batches, and when that was looked at.
    seen: Option<(u64, Instant)>,
    lasts: Duration,
}

impl Hang {
    /// Looks; counts no more than `longest` since the look before. A process that stood still knows nothing of its disk.
    fn look(&mut self, progress: Progress, now: Instant, longest: Duration) -> Duration {
        self.lasts = match self.seen {
            Some((batches, at)) if progress.waits && batches == progress.batches => self.lasts + longest.min(now - at),
            _ => Duration::ZERO,
        };
        self.seen = progress.waits.then_some((progress.batches, now));
        self.lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_whose_end_is_not_known_is_not_said_to_have_failed() {
        assert!(told(TransferError::Timeout).contains("is not known here"));
        assert_eq!(told(TransferError::NotLeader), "the leadership was not handed over");
    }

    #[tokio::test]
    async fn only_what_waits_and_does_not_move_hangs() {
        let (mut hang, start) = (Hang::default(), clock::now());
        let mut look = |waits, batches, millis| {
            let now = start + Duration::from_millis(millis);
            hang.look(Progress { waits, batches }, now, Duration::from_millis(500)).as_millis()
        };
        assert_eq!(look(false, 3, 0), 0);
        assert_eq!(look(true, 3, 100), 0);
        assert_eq!(look(true, 3, 400), 300);
        assert_eq!(look(true, 4, 500), 0, "one batch is durable");
        assert_eq!(look(true, 4, 900), 400);
        assert_eq!(look(false, 4, 1000), 0, "nothing waits");
        assert_eq!(look(true, 4, 1100), 0);
        assert_eq!(look(true, 4, 9000), 500, "the process stood still");
        assert_eq!(look(true, 4, 9100), 600);
    }
}
