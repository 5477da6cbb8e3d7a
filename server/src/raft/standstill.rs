//! A leader that is heard and gets nothing committed stops its heartbeats, so that somebody else is elected.
//!
//! Heartbeats travel on a connection of their own, so that nothing large holds them up. They may get through where entries
//! do not: on a way that loses what is large, or where the other connections are cut. The others would take the leader for
//! alive for ever, and nothing would be written. (etcd sends both along the same stream.)
//!
//! A leader that a majority does not answer needs none of this: nobody waits for it.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::type_config::Raft;
use crate::env::clock::{self, Instant};
use crate::env::probe;

/// Election timeouts for which a leader may be heard and commit nothing: entries were sent, given up and sent again.
const PATIENCE: u32 = 2;

/// What one member watches.
pub(super) struct Standstill {
    raft: Raft,
    election_timeout: Duration,
}

impl Standstill {
    pub(super) fn new(raft: Raft, election_timeout: Duration) -> Self {
        Self { raft, election_timeout }
    }

    /// Watches for as long as the task runs.
    pub(super) async fn watch(&self) {
        let interval = self.election_timeout / 20;
        let mut standing = Standing::new(PATIENCE * self.election_timeout);
        let mut was_over = false;
        loop {
            clock::sleep(interval).await;
            let is_over = standing.is_over(self.lead(), clock::now(), 2 * interval);
            if is_over == was_over {
                continue;
            }
            was_over = is_over;
            if is_over {
                probe::reached("leader-stands-still");
                let reason = "a majority answers, and nothing is committed";
                tracing::warn!(reason, "no more heartbeats are sent, so that another leader is elected");
            }
            // Wrong where it is broken: who hears heartbeats never stands for election, whatever else it lacks.
            self.raft.runtime_config().heartbeat(!is_over || probe::broken("heartbeats-without-entries"));
        }
    }

    /// How this member leads, if it does.
    fn lead(&self) -> Option<Lead> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = metrics.cluster_committed.as_ref().map(|log_id| log_id.index);
        let heard = metrics.last_quorum_acked.map(|at| openraft::Instant::elapsed(&*at));
        (metrics.state == ServerState::Leader).then(|| Lead {
            term: metrics.current_term,
            committed,
            waits: metrics.last_log_index > committed,
            is_heard: heard.is_some_and(|ago| ago <= self.election_timeout),
        })
    }
}

/// How a member leads.
#[derive(Clone, Copy, Debug)]
struct Lead {
    term: u64,
    committed: Option<u64>,
    /// Whether there is more in its log.
    waits: bool,
    /// Whether a majority answered lately.
    is_heard: bool,
}

/// Whether a leader has been heard for too long while nothing was committed of what waits.
struct Standing {
    patience: Duration,
    /// The term and what was committed, and when that was looked at.
    seen: Option<((u64, Option<u64>), Instant)>,
    lasts: Duration,
}

impl Standing {
    fn new(patience: Duration) -> Self {
        Self { patience, seen: None, lasts: Duration::ZERO }
    }

    /// Looks; counts no more than `longest` since the look before, as a process that stood still was not heard meanwhile.
    /// Once it is over it stays so until something is committed: a leader that is silent is not heard either.
    fn is_over(&mut self, lead: Option<Lead>, now: Instant, longest: Duration) -> bool {
        let lead = lead.filter(|lead| lead.waits);
        let place = lead.map(|lead| (lead.term, lead.committed));
        self.lasts = match (self.seen, lead) {
            (Some((before, _)), Some(_)) if Some(before) == place && self.lasts >= self.patience => self.lasts,
            (Some((before, at)), Some(lead)) if Some(before) == place && lead.is_heard => {
                self.lasts + longest.min(now - at)
            }
            _ => Duration::ZERO,
        };
        self.seen = place.map(|place| (place, now));
        self.lasts >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_is_heard_and_commits_nothing_for_long_stands_still() {
        let start = clock::now();
        let mut standing = Standing::new(Duration::from_millis(1000));
        let lead = |committed, waits, is_heard| Some(Lead { term: 3, committed: Some(committed), waits, is_heard });
        let mut over =
            |lead, millis| standing.is_over(lead, start + Duration::from_millis(millis), Duration::from_millis(500));
        assert!(!over(lead(5, true, true), 0));
        assert!(!over(lead(5, true, true), 500));
        assert!(!over(lead(6, true, true), 900), "one more is committed");
        assert!(!over(lead(6, true, true), 1400));
        assert!(!over(lead(6, true, false), 1700), "nobody waits for who is not heard");
        assert!(!over(lead(6, true, true), 2200));
        assert!(!over(lead(6, true, true), 9000), "the process stood still");
        assert!(over(lead(6, true, true), 9100));
        assert!(over(lead(6, true, false), 9600), "it is silent, and so not heard");
        assert!(!over(lead(7, true, true), 9700), "an entry got there");
        assert!(!over(lead(7, false, true), 20_000), "nothing waits");
        assert!(!over(None, 30_000), "another leads");
    }
}
