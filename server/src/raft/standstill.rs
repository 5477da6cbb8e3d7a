//! A leader that is heard and gets nothing committed falls silent for a while, so that somebody else is elected.
//!
//! Heartbeats travel on a connection of their own, so that nothing large holds them up. They may get through where entries
//! do not: on a way that loses what is large, or where the other connections are cut. The others would take the leader for
//! alive for ever, and nothing would be written. (etcd sends both along the same stream.)
//!
//! A leader that a majority does not answer needs none of this: nobody waits for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::gateway::is_only_voter;
use super::leadership::matched_in;
use super::type_config::Raft;
use crate::env::clock::{self, Instant};
use crate::env::probe;

/// Election timeouts for which a leader may be heard and get nowhere: entries were sent, given up and sent again.
const PATIENCE: u32 = 2;
/// The same while a snapshot arrives that a majority may wait for: who has all of it reads it once more and installs it.
const PATIENCE_WITH_SNAPSHOT: u32 = 60;
/// The same after a silence in which nobody else was elected.
const PATIENCE_IN_VAIN: u32 = 10;
/// Election timeouts for which it is silent: the others wait for up to two until they ask for votes, and so long again
/// where one of them had heard the leader a moment before. If nobody was elected it tries again itself.
const HUSH: u32 = 6;

/// What of a snapshot was handed over may wait on the way, in windows and sockets' buffers. What is more has arrived.
const ON_THE_WAY_BYTES: u64 = 8 * 1024 * 1024;

/// What those who send and the watch over them tell each other. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Voice(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    silent: AtomicBool,
    /// Snapshots under way of which a part has arrived.
    snapshots: AtomicUsize,
    /// Parts of snapshots that have arrived.
    parts: AtomicU64,
}

impl Voice {
    /// Whether this member sends nothing for now of what a leader sends but entries, whose answers it waits for.
    pub(super) fn is_silent(&self) -> bool {
        self.0.silent.load(Ordering::Relaxed)
    }

    /// A snapshot sets out.
    pub(super) fn snapshot(&self) -> Passage {
        Passage { voice: self.clone(), bytes: AtomicU64::new(0) }
    }
}

/// A snapshot under way.
pub(super) struct Passage {
    voice: Voice,
    bytes: AtomicU64,
}

impl Passage {
    /// A part was handed over.
    pub(super) fn handed_over(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > ON_THE_WAY_BYTES {
            if before <= ON_THE_WAY_BYTES {
                self.voice.0.snapshots.fetch_add(1, Ordering::Relaxed);
            }
            self.voice.0.parts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.bytes.load(Ordering::Relaxed) > ON_THE_WAY_BYTES {
            self.voice.0.snapshots.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What one member watches.
pub(super) struct Standstill {
    raft: Raft,
    voice: Voice,
    election_timeout: Duration,
}

impl Standstill {
    pub(super) fn new(raft: Raft, voice: Voice, election_timeout: Duration) -> Self {
        Self { raft, voice, election_timeout }
    }

    /// Watches for as long as the task runs.
    pub(super) async fn watch(&self) {
        let interval = self.election_timeout / 20;
        let mut standing = Standing::new(self.election_timeout);
        loop {
            clock::sleep(interval).await;
            let is_silent = standing.look(self.lead(), clock::now(), 2 * interval);
            if is_silent && !self.voice.is_silent() {
                probe::reached("leader-stands-still");
                if probe::broken("heartbeats-without-entries") {
                    // Wrong: who hears heartbeats never stands for election, whatever else it lacks.
                    continue;
                }
                let reason = "a majority answers, and nothing is committed";
                tracing::warn!(reason, "heartbeats are not sent, so that another leader is elected");
            }
            self.voice.0.silent.store(is_silent, Ordering::Relaxed);
        }
    }

    /// How this member leads, if it does and something waits that others have to agree to.
    fn lead(&self) -> Option<Lead> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = metrics.cluster_committed.as_ref().map(|log_id| log_id.index);
        let membership = metrics.membership_config.membership();
        let leads = metrics.state == ServerState::Leader && !is_only_voter(membership, metrics.id);
        if !leads || metrics.last_log_index <= committed {
            return None;
        }
        let matched = |id: &u64| if *id == metrics.id { metrics.last_log_index } else { matched_in(&metrics, *id) };
        let by_majority = |voters: &BTreeSet<u64>| of_a_majority(voters.iter().map(matched).collect());
        let heard = metrics.last_quorum_acked.map(|at| openraft::Instant::elapsed(&*at));
        Some(Lead {
            place: Place {
                term: metrics.current_term,
                committed,
                matched: membership.get_joint_config().iter().map(by_majority).min().flatten(),
                parts: self.voice.0.parts.load(Ordering::Relaxed),
            },
            is_heard: heard.is_some_and(|ago| ago <= self.election_timeout),
            sends_snapshot: self.voice.0.snapshots.load(Ordering::Relaxed) > 0,
        })
    }
}

/// Up to where a majority of some members has the log.
fn of_a_majority(mut matched: Vec<Option<u64>>) -> Option<u64> {
    matched.sort_unstable_by(|one, other| other.cmp(one));
    matched.get(matched.len() / 2).copied().flatten()
}

/// How far a leader has got. As long as that changes it does not stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    term: u64,
    committed: Option<u64>,
    /// Up to where a majority has the log, be it of earlier terms.
    matched: Option<u64>,
    /// Parts of snapshots that have arrived.
    parts: u64,
}

/// How a member leads.
#[derive(Clone, Copy, Debug)]
struct Lead {
    place: Place,
    /// Whether a majority answered lately.
    is_heard: bool,
    sends_snapshot: bool,
}

/// What has come of a leader.
struct Standing {
    election_timeout: Duration,
    /// Where it was, and when that was looked at.
    seen: Option<(Place, Instant)>,
    /// For how long it has been heard there.
    lasts: Duration,
    /// Since when it is silent.
    silent: Option<Instant>,
    /// Whether it was silent there, and nobody was elected.
    in_vain: bool,
}

impl Standing {
    fn new(election_timeout: Duration) -> Self {
        Self { election_timeout, seen: None, lasts: Duration::ZERO, silent: None, in_vain: false }
    }

    /// Looks; whether the leader is to be silent. Counts no more than `longest` since the look before, as a process that
    /// stood still was not heard meanwhile.
    fn look(&mut self, lead: Option<Lead>, now: Instant, longest: Duration) -> bool {
        let before = self.seen.filter(|(before, _)| lead.is_some_and(|lead| lead.place == *before));
        self.seen = lead.map(|lead| (lead.place, now));
        let (Some((_, at)), Some(lead)) = (before, lead) else {
            (self.lasts, self.silent, self.in_vain) = (Duration::ZERO, None, false);
            return false;
        };
        if let Some(since) = self.silent {
            // Who is silent is not heard, either.
            if now - since < HUSH * self.election_timeout {
                return true;
            }
            (self.silent, self.in_vain) = (None, true);
        }
        self.lasts = if lead.is_heard { self.lasts + longest.min(now - at) } else { Duration::ZERO };
        let patience = match (lead.sends_snapshot, self.in_vain) {
            (true, _) => PATIENCE_WITH_SNAPSHOT,
            (false, true) => PATIENCE_IN_VAIN,
            (false, false) => PATIENCE,
        };
        if self.lasts >= patience * self.election_timeout {
            (self.lasts, self.silent) = (Duration::ZERO, Some(now));
        }
        self.silent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn place(committed: u64) -> Place {
        Place { term: 3, committed: Some(committed), matched: Some(committed), parts: 0 }
    }

    fn heard(place: Place) -> Option<Lead> {
        Some(Lead { place, is_heard: true, sends_snapshot: false })
    }

    fn unheard(place: Place) -> Option<Lead> {
        Some(Lead { place, is_heard: false, sends_snapshot: false })
    }

    #[tokio::test]
    async fn only_who_is_heard_and_commits_nothing_for_long_stands_still() {
        let start = clock::now();
        let mut standing = Standing::new(TIMEOUT);
        let mut silent = |lead, millis| standing.look(lead, start + Duration::from_millis(millis), TIMEOUT);
        assert!(!silent(heard(place(5)), 0));
        assert!(!silent(heard(place(5)), 500));
        assert!(!silent(heard(place(6)), 900), "one more is committed");
        assert!(!silent(heard(place(6)), 1400));
        assert!(!silent(unheard(place(6)), 1700), "nobody waits for who is not heard");
        assert!(!silent(heard(place(6)), 2000));
        assert!(!silent(heard(place(6)), 9000), "the process stood still");
        assert!(silent(heard(place(6)), 9200));
        assert!(silent(unheard(place(6)), 12_100), "it is silent, and so not heard");
        assert!(!silent(unheard(place(6)), 12_200), "nobody was elected");
        assert!((0..10).all(|at| !silent(heard(place(6)), 12_500 + at * 500)), "it tries for longer");
        assert!(silent(heard(place(6)), 17_500), "and it is no better");
        assert!(!silent(heard(place(7)), 17_600), "an entry got there");
        assert!(!silent(None, 30_000), "nothing waits");
    }

    #[tokio::test]
    async fn who_catches_up_is_waited_for() {
        let start = clock::now();
        let mut standing = Standing::new(TIMEOUT);
        let mut silent = |lead, millis| standing.look(lead, start + Duration::from_millis(millis), TIMEOUT);
        let at = |matched, parts| Place { matched: Some(matched), parts, ..place(5) };
        assert!((0..10).all(|step| !silent(heard(at(step, 0)), step * 500)), "a majority gets more of the log");
        assert!((0..10).all(|step| !silent(heard(at(9, step)), 5000 + step * 500)), "or of a snapshot");
        let installs = || Some(Lead { place: at(9, 9), is_heard: true, sends_snapshot: true });
        assert!((0..50).all(|step| !silent(installs(), 10_000 + step * 500)), "that is there and not installed yet");
        assert!(silent(heard(at(9, 9)), 40_000), "it was not installed");
    }

    #[test]
    fn what_a_majority_has_decides() {
        assert_eq!(of_a_majority(vec![Some(9), Some(4), None]), Some(4));
        assert_eq!(of_a_majority(vec![Some(9), None, None]), None);
        assert_eq!(of_a_majority(vec![Some(9), Some(4), Some(2), Some(7)]), Some(4), "three of four");
    }

    #[test]
    fn a_snapshot_counts_once_more_is_sent_than_the_way_holds() {
        let voice = Voice::default();
        let passage = voice.snapshot();
        passage.handed_over(ON_THE_WAY_BYTES);
        assert_eq!(voice.0.parts.load(Ordering::Relaxed), 0);
        passage.handed_over(1);
        passage.handed_over(1);
        assert_eq!((voice.0.parts.load(Ordering::Relaxed), voice.0.snapshots.load(Ordering::Relaxed)), (2, 1));
        drop(passage);
        drop(voice.snapshot());
        assert_eq!(voice.0.snapshots.load(Ordering::Relaxed), 0);
    }
}
