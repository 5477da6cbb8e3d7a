//! A leader whose disk hangs hands the leadership over.
//!
//! Its heartbeats go on, for they need no disk, so nobody else would stand for election; and as long as a majority of
//! the others has an entry it is committed. But nothing that this member is asked to confirm comes to an end, and once
//! its log takes no more entries the cluster stands still. (etcd's leader beats from the same loop that writes, and is
//! deposed by that.)

use std::time::Duration;

use mainstay_raft_log::{Progress, RaftLog};
use openraft::async_runtime::WatchReceiver;

use super::leadership::Leadership;
use super::type_config::Raft;
use crate::env::clock::{self, Instant};
use crate::env::probe;

/// So much of an election timeout the disk may take for one batch.
const PATIENCE: f64 = 0.6;
/// Election timeouts for which a member that handed over keeps the leadership when it gets it back: where every disk is
/// slow, it would go round and round.
const REST: u32 = 10;

/// What one member watches.
pub(super) struct Stall {
    log: RaftLog,
    raft: Raft,
    leadership: Leadership,
    election_timeout: Duration,
}

impl Stall {
    pub(super) fn new(log: RaftLog, raft: Raft, leadership: Leadership, election_timeout: Duration) -> Self {
        Self { log, raft, leadership, election_timeout }
    }

    /// Watches for as long as the task runs.
    pub(super) async fn watch(&self) {
        let mut hang = Hang::default();
        let mut handed_over = None;
        loop {
            clock::sleep(self.election_timeout / 20).await;
            let hangs_for = hang.look(self.log.progress(), clock::now());
            let rests = handed_over.is_some_and(|at| clock::elapsed(at) < REST * self.election_timeout);
            if hangs_for < self.election_timeout.mul_f64(PATIENCE) || rests || !self.leadership.view().leads {
                continue;
            }
            let Some(heir) = self.heir() else { continue };
            probe::reached("leader-disk-hangs");
            tracing::warn!(took = ?hangs_for, heir = format!("{heir:x}"), "slow disk: the leadership is handed over");
            handed_over = Some(clock::now());
            if let Err(error) = self.leadership.transfer(heir).await {
                tracing::warn!(%error, "the leadership was not handed over");
                handed_over = None;
            }
        }
    }

    /// The voter that has most of the log, of those that answer.
    fn heir(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let answers = |id: &u64| {
            let heard = metrics.heartbeat.iter().flatten().find(|(of, _)| *of == id);
            heard.and_then(|(_, at)| *at).is_some_and(|at| openraft::Instant::elapsed(&*at) <= self.election_timeout)
        };
        let others = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id).filter(answers);
        let matched = |id: &u64| metrics.replication.iter().flatten().find(|(of, _)| *of == id)?.1.map(|it| it.index);
        others.max_by_key(matched)
    }
}

/// Since when nothing has become durable although something waits.
#[derive(Default)]
struct Hang {
    since: Option<(u64, Instant)>,
}

impl Hang {
    fn look(&mut self, progress: Progress, now: Instant) -> Duration {
        match self.since {
            Some((batches, since)) if progress.waits && batches == progress.batches => now - since,
            _ => {
                self.since = progress.waits.then_some((progress.batches, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_waits_and_does_not_move_hangs() {
        let (mut hang, start) = (Hang::default(), clock::now());
        let mut look = |waits, batches, millis| {
            hang.look(Progress { waits, batches }, start + Duration::from_millis(millis)).as_millis()
        };
        assert_eq!(look(false, 3, 0), 0);
        assert_eq!(look(true, 3, 100), 0);
        assert_eq!(look(true, 3, 400), 300);
        assert_eq!(look(true, 4, 500), 0, "one batch is durable");
        assert_eq!(look(true, 4, 900), 400);
        assert_eq!(look(false, 4, 1000), 0, "nothing waits");
        assert_eq!(look(true, 4, 1100), 0);
    }
}
