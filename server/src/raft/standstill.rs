//! A leader that is heard and gets nothing committed falls silent for a while, so that somebody else is elected.
//!
//! Heartbeats travel on a connection of their own, so that nothing large holds them up. They may get through where entries
//! do not: on a way that loses what is large, or where the other connections are cut. The others would take the leader for
//! alive for ever, and nothing would be written. (etcd sends both along the same stream.)
//!
//! A leader that a majority does not answer needs none of this: nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::type_config::Raft;
use crate::env::clock::{self, Instant};
use crate::env::probe;

/// Election timeouts for which a leader may be heard and commit nothing: entries were sent, given up and sent again.
const PATIENCE: u32 = 2;
/// Election timeouts for which it is silent then: the others wait for up to two until they ask for votes, and so long again
/// where one of them had heard the leader a moment before. If nobody was elected it tries again itself.
const HUSH: u32 = 6;

/// Whether this member sends nothing for now of what a leader sends but entries, whose answers it waits for. Clones know
/// the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Hush(Arc<AtomicBool>);

impl Hush {
    /// Whether it is to be silent.
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// What one member watches.
pub(super) struct Standstill {
    raft: Raft,
    hush: Hush,
    election_timeout: Duration,
}

impl Standstill {
    pub(super) fn new(raft: Raft, hush: Hush, election_timeout: Duration) -> Self {
        Self { raft, hush, election_timeout }
    }

    /// Watches for as long as the task runs.
    pub(super) async fn watch(&self) {
        let interval = self.election_timeout / 20;
        let mut standing = Standing::new(PATIENCE * self.election_timeout, HUSH * self.election_timeout);
        loop {
            clock::sleep(interval).await;
            let is_silent = standing.look(self.lead(), clock::now(), 2 * interval);
            if is_silent && !self.hush.is_on() {
                probe::reached("leader-stands-still");
                if probe::broken("heartbeats-without-entries") {
                    // Wrong: who hears heartbeats never stands for election, whatever else it lacks.
                    continue;
                }
                let reason = "a majority answers, and nothing is committed";
                tracing::warn!(reason, "heartbeats are not sent, so that another leader is elected");
            }
            self.hush.set(is_silent);
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

/// What has come of a leader.
struct Standing {
    patience: Duration,
    hush: Duration,
    /// The term and what was committed, and when that was looked at.
    seen: Option<((u64, Option<u64>), Instant)>,
    /// For how long it has been heard while nothing was committed of what waits.
    lasts: Duration,
    /// Since when it is silent.
    silent: Option<Instant>,
}

impl Standing {
    fn new(patience: Duration, hush: Duration) -> Self {
        Self { patience, hush, seen: None, lasts: Duration::ZERO, silent: None }
    }

    /// Looks; whether the leader is to be silent. Counts no more than `longest` since the look before, as a process that
    /// stood still was not heard meanwhile.
    fn look(&mut self, lead: Option<Lead>, now: Instant, longest: Duration) -> bool {
        let lead = lead.filter(|lead| lead.waits);
        let place = lead.map(|lead| (lead.term, lead.committed));
        let before = self.seen.filter(|(before, _)| place == Some(*before));
        self.seen = place.map(|place| (place, now));
        self.silent = self.silent.filter(|since| before.is_some() && now - *since < self.hush);
        self.lasts = match (before, lead) {
            // Who is silent is not heard, either.
            (Some((_, at)), Some(lead)) if lead.is_heard && self.silent.is_none() => self.lasts + longest.min(now - at),
            _ => Duration::ZERO,
        };
        if self.lasts >= self.patience {
            self.silent = Some(now);
        }
        self.silent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_is_heard_and_commits_nothing_for_long_stands_still() {
        let start = clock::now();
        let mut standing = Standing::new(Duration::from_millis(1000), Duration::from_millis(3000));
        let lead = |committed, waits, is_heard| Some(Lead { term: 3, committed: Some(committed), waits, is_heard });
        let mut silent =
            |lead, millis| standing.look(lead, start + Duration::from_millis(millis), Duration::from_millis(500));
        assert!(!silent(lead(5, true, true), 0));
        assert!(!silent(lead(5, true, true), 500));
        assert!(!silent(lead(6, true, true), 900), "one more is committed");
        assert!(!silent(lead(6, true, true), 1400));
        assert!(!silent(lead(6, true, false), 1700), "nobody waits for who is not heard");
        assert!(!silent(lead(6, true, true), 2000));
        assert!(!silent(lead(6, true, true), 9000), "the process stood still");
        assert!(silent(lead(6, true, true), 9200));
        assert!(silent(lead(6, true, false), 12_100), "it is silent, and so not heard");
        assert!(!silent(lead(6, true, false), 12_200), "nobody was elected");
        assert!(!silent(lead(6, true, true), 12_500));
        assert!(!silent(lead(6, true, true), 12_900));
        assert!(silent(lead(6, true, true), 13_400), "and it is no better");
        assert!(!silent(lead(7, true, true), 13_500), "an entry got there");
        assert!(!silent(lead(7, false, true), 20_000), "nothing waits");
        assert!(!silent(None, 30_000), "another leads");
    }
}
