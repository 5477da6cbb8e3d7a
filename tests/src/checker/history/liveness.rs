//! Once it is left alone, the cluster serves.

use std::time::Duration;

use super::refusals::{CORRUPT, LEARNER, asked_the_lost, is_unavailability, may_meet_a_learner, may_meet_the_corrupt};
use super::text::{seconds, told};
use crate::history::{Call, HeldCall, History, Operation, Outcome, Span, UNTOLD, key_of};
use crate::model::Truth;

/// So long nobody waits for a lock or an election whose turn it is: less than the leases live by which they wait.
const TURN: Duration = Duration::from_secs(3);

/// Checks that whatever was asked later than this bound after the last disturbance was over got an
/// answer, or was refused for what it asks, and that something was asked then. Without a disturbance the bound
/// counts from the beginning, since a cluster first has to elect. And that whoever waited then for a lock or an election
/// was told soon that its turn had come.
pub fn check(history: &History, truth: &Truth, bound: Duration) -> Result<(), String> {
    let quiet = history.disturbances.iter().map(|disturbance| disturbance.until).max().unwrap_or_default() + bound;
    let mut asked = history.operations.iter().filter(|operation| operation.began >= quiet).peekable();
    if asked.peek().is_none() {
        return Err(format!("nothing was asked after {}, when all was to be served", seconds(quiet)));
    }
    let is_open = |operation: &&Operation| match (&operation.call, &operation.outcome) {
        // Who waits for others, or goes away, is not owed an answer.
        (Call::Held(held), _) if held.waits() => false,
        (_, Outcome::Done(_)) => false,
        // One that has no vote says so, though for locks and elections it may come late.
        (Call::Held(_), Outcome::Unknown(why)) if why.ends_with(LEARNER) => {
            !may_meet_a_learner(history, operation.ended)
        }
        // One that is out of service says so, too.
        (Call::Held(_), Outcome::Unknown(why)) if why.ends_with(CORRUPT) => {
            !may_meet_the_corrupt(history, operation.ended)
        }
        (_, Outcome::Refused(why)) => is_unavailability(why) && !asked_the_lost(history, operation),
        (_, Outcome::Unknown(why)) => why != UNTOLD,
    };
    if let Some(operation) = asked.find(is_open) {
        return Err(format!("all was quiet from {} on, and got no answer: {}", seconds(quiet), told(operation)));
    }
    let mut overdue = history.operations.iter().filter_map(|it| Some((overdue(history, truth, it, quiet)?, it)));
    match overdue.next() {
        Some((since, operation)) => Err(format!(
            "its turn had come by {}, when all was quiet, and it was not told: {}",
            seconds(since),
            told(operation)
        )),
        None => Ok(()),
    }
}

/// Since when it was the turn of a call that went on to wait for too long.
fn overdue(history: &History, truth: &Truth, operation: &Operation, quiet: Duration) -> Option<Duration> {
    let Call::Held(HeldCall::Lock { name, lease } | HeldCall::Campaign { name, lease, .. }) = &operation.call else {
        return None;
    };
    let ended = operation.ended.min(history.end.at);
    if ended < quiet + TURN {
        return None;
    }
    let (key, queue) = (key_of(name, *lease), Span::prefix(&format!("{name}/")));
    let is_long = |since: &Duration, until: Duration| until.saturating_sub(*since) >= TURN;
    let mut turn: Option<Duration> = None;
    for (revision, commit) in &truth.commits {
        if !commit.changes.iter().any(|change| queue.contains(&change.kv.key)) {
            continue;
        }
        let first = truth.versions.range(&queue, *revision).min_by_key(|kv| kv.created);
        if truth.knows_state(*revision) && first.is_some_and(|first| first.key == key) {
            // The observer learns of a turn after it has begun, so it counts for a bit less.
            turn.get_or_insert(commit.at.max(quiet).max(operation.began));
        } else if let Some(since) = turn.take().filter(|since| is_long(since, commit.at.min(ended))) {
            return Some(since);
        }
    }
    turn.filter(|since| is_long(since, ended))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, get, leased, millis, put};
    use super::*;
    use crate::history::{Disturbance, HeldReply, Reply};

    fn found(sample: Sample, bound: Duration) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history), bound)
    }

    fn disturbed(sample: &mut Sample) {
        let (from, until) = (sample.now, sample.now + millis(100));
        sample.history.disturbances.push(Disturbance { from, until, what: "test".into(), effect: None });
    }

    #[test]
    fn answers_in_quiet_times_pass() {
        let mut sample = Sample::new();
        sample.unknown(1, put("a", "1"), false);
        disturbed(&mut sample);
        sample.unknown(1, put("a", "2"), false);
        sample.now += millis(1000);
        sample.txn(1, put("a", "3"));
        sample.refused(1, Call::LeaseRevoke { id: 7 }, "etcdserver: requested lease not found");
        assert_eq!(found(sample, millis(500)), Ok(()));
    }

    #[test]
    fn silence_is_found() {
        let mut sample = Sample::new();
        disturbed(&mut sample);
        sample.now += millis(1000);
        sample.txn(1, put("a", "1"));
        let mut late = sample.clone();
        late.unknown(1, put("a", "2"), true);
        expect(found(late, millis(500)), "got no answer: client 1");
        let mut refused = sample.clone();
        refused.refused(1, Call::Txn(get("a")), "etcdserver: too many requests");
        expect(found(refused, millis(500)), "got no answer: client 1");
        expect(found(sample, millis(5000)), "nothing was asked");
    }

    /// Of two who want a lock the first one gives it back, and the second one waits for so long after that.
    fn waited(wait: u64, outcome: Outcome) -> Sample {
        let mut sample = Sample::new();
        disturbed(&mut sample);
        sample.now += millis(1000);
        sample.txn(1, leased("lock/s0/6", "", 6));
        let began = sample.now;
        sample.txn(2, leased("lock/s0/7", "", 7));
        sample.now += millis(2000);
        sample.txn(1, delete("lock/s0/6"));
        sample.now += millis(wait);
        let call = Call::Held(HeldCall::Lock { name: "lock/s0".into(), lease: 7 });
        sample.call(2, call, outcome).began = began;
        sample
    }

    fn timeout() -> Outcome {
        Outcome::Unknown("timeout".into())
    }

    #[test]
    fn a_turn_that_is_not_told_of_is_found() {
        expect(found(waited(4000, timeout()), millis(500)), "its turn had come by");
        let key = "lock/s0/7".to_owned();
        let late = Outcome::Done(Reply::Held(HeldReply::Held { revision: 5, key, created: 0 }));
        expect(found(waited(4000, late.clone()), millis(500)), "its turn had come by");
        assert_eq!(found(waited(100, late), millis(500)), Ok(()));
        // Who gives up soon was not kept waiting.
        assert_eq!(found(waited(2000, timeout()), millis(500)), Ok(()));
    }

    #[test]
    fn who_waits_for_others_is_owed_nothing() {
        let mut behind = waited(4000, timeout());
        behind.history.operations.retain(|it| it.call != Call::Txn(delete("lock/s0/6")));
        behind.history.watches[0].received.pop();
        assert_eq!(found(behind, millis(500)), Ok(()));
        // What another waits for is no turn of this one.
        let mut other = waited(4000, timeout());
        let Some(last) = other.history.operations.last_mut() else { panic!("no call") };
        last.call = Call::Held(HeldCall::Lock { name: "lock/s1".into(), lease: 7 });
        assert_eq!(found(other, millis(500)), Ok(()));
    }

    #[test]
    fn a_turn_that_ends_or_comes_in_a_storm_is_no_ones_fault() {
        // Its lease is over soon after its turn has come.
        let mut gone = waited(100, timeout());
        gone.txn(1, delete("lock/s0/7"));
        gone.now += millis(4000);
        let last = gone.now;
        gone.history.operations[3].ended = last;
        gone.txn(1, put("a", "1"));
        assert_eq!(found(gone, millis(500)), Ok(()));
        let mut storm = waited(4000, timeout());
        disturbed(&mut storm);
        storm.now += millis(1000);
        storm.txn(1, put("a", "1"));
        assert_eq!(found(storm, millis(500)), Ok(()));
    }
}
