//! An election has one leader at a time, and who observes it is told of every one, in order.
//!
//! Candidates are keys below the election's name; the one that was created first leads.

use std::time::Duration;

use super::text::{seconds, told};
use crate::history::{Call, HeldCall, HeldReply, History, KeyValue, Observation, Operation, Outcome, Reply, Span};
use crate::model::{Truth, wrote};

/// Checks of every election that the server holds:
/// - who is told that it leads is first in line by then;
/// - who asks is told of the leader at the revision of the answer;
/// - what a leader was told to have proclaimed it did, and who resigned or unlocked is gone;
/// - who observes is told of leaders only, in their order, and of all that the one it follows says.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    for operation in &history.operations {
        let (Call::Held(call), Outcome::Done(Reply::Held(reply))) = (&operation.call, &operation.outcome) else {
            continue;
        };
        if !truth.knows_state(reply.revision()) || reply.revision() > truth.last {
            continue;
        }
        judge(history, truth, operation, call, reply)?;
    }
    history.observations.iter().try_for_each(|observation| observed(truth, observation))
}

fn judge(
    history: &History,
    truth: &Truth,
    operation: &Operation,
    call: &HeldCall,
    reply: &HeldReply,
) -> Result<(), String> {
    let revision = reply.revision();
    match (call, reply) {
        (HeldCall::Campaign { name, .. }, HeldReply::Held { key, created, .. }) => {
            won(history, truth, operation, name, (key, *created))
        }
        (HeldCall::Leader { name }, HeldReply::Leader { kv, .. }) => match leader(truth, name, revision) {
            Some(leader) if leader == kv => Ok(()),
            leader => Err(format!("at revision {revision} {leader:?} led: {}", told(operation))),
        },
        (HeldCall::Proclaim { leader, value }, HeldReply::Done { .. }) => {
            let changes = truth.changes(revision);
            let said = |kv: &KeyValue| kv.key == leader.key && kv.created == leader.created && kv.value == *value;
            if changes.iter().any(|change| !change.deleted && said(&change.kv)) {
                return Ok(());
            }
            Err(format!("what was proclaimed is not there: {}\nat this revision: {changes:?}", told(operation)))
        }
        (HeldCall::Resign { leader }, HeldReply::Done { .. }) => {
            match truth.versions.get(&leader.key, revision).filter(|kv| kv.created == leader.created) {
                Some(kv) => Err(format!("at revision {revision} {kv:?} is there after: {}", told(operation))),
                None => Ok(()),
            }
        }
        (HeldCall::Unlock { key }, HeldReply::Done { .. }) => match truth.versions.get(key, revision) {
            Some(kv) => Err(format!("at revision {revision} {kv:?} is there after: {}", told(operation))),
            None => Ok(()),
        },
        (HeldCall::Lock { .. }, HeldReply::Held { .. }) => Ok(()), // by `locks.rs`
        _ => Err(format!("an answer of another kind: {}", told(operation))),
    }
}

/// The leader of an election at a revision.
fn leader<'a>(truth: &'a Truth, name: &str, revision: i64) -> Option<&'a KeyValue> {
    truth.versions.range(&Span::prefix(&format!("{name}/")), revision).min_by_key(|kv| kv.created)
}

/// Checks that it was a candidate's turn by the time at which it was told so. As in etcd it may be gone
/// itself by then, with its lease.
fn won(
    history: &History,
    truth: &Truth,
    operation: &Operation,
    name: &str,
    (key, created): (&str, i64),
) -> Result<(), String> {
    let prefix = format!("{name}/");
    let is_turn = |revision: &i64| leader(truth, name, *revision).is_none_or(|leader| leader.created >= created);
    // It comes where another candidate goes.
    let turns = truth
        .commits
        .range(created..)
        .filter(|(_, commit)| commit.changes.iter().any(|change| change.kv.key.starts_with(&prefix)));
    let Some(first) = turns.map(|(revision, _)| *revision).find(is_turn) else {
        return if truth.knows_state(truth.last) {
            Err(format!("whose turn never came was told that it did: {}", told(operation)))
        } else {
            Ok(())
        };
    };
    match seen_later(history, operation.ended, first) {
        Some(witness) => {
            let text = format!("the turn of {key} came at revision {first}, and it was told so before");
            Err(format!("{text}: {}\nafter it came {}", told(operation), told(witness)))
        }
        None => Ok(()),
    }
}

/// Somebody who asked after a time for the present, and was answered from before a revision.
pub(super) fn seen_later(history: &History, after: Duration, revision: i64) -> Option<&Operation> {
    history.operations.iter().find(|operation| {
        let Call::Txn(txn) = &operation.call else { return false };
        let Outcome::Done(Reply::Txn { revision: seen, steps, .. }) = &operation.outcome else { return false };
        operation.began > after && (!txn.may_be_stale() || wrote(steps)) && *seen < revision
    })
}

fn observed(truth: &Truth, observation: &Observation) -> Result<(), String> {
    let Observation { client, name, told } = observation;
    let mut last: Option<&KeyValue> = None;
    for led in told {
        let wrong = |what: &str| {
            let text = format!("client {client} observes {name}, and is told at {} of {:?}", seconds(led.at), led.kv);
            Err(format!("{text}, {what}"))
        };
        let known = truth.knows_state(led.revision.max(led.kv.modified)) && led.revision <= truth.last;
        let is_leader = |revision| leader(truth, name, revision) == Some(&led.kv);
        if known && !is_leader(led.revision) && !is_leader(led.kv.modified) {
            return wrong("which did not lead then");
        }
        match last {
            Some(last) if last.created > led.kv.created => return wrong(&format!("after a later leader, {last:?}")),
            Some(last) if last.created == led.kv.created && last.version + 1 != led.kv.version => {
                return wrong(&format!("right after {last:?}"));
            }
            _ => {}
        }
        last = Some(&led.kv);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, get, leased, millis};
    use super::*;
    use crate::history::{Candidate, Led};

    fn found(sample: Sample) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history))
    }

    fn held(sample: &mut Sample, call: HeldCall, reply: HeldReply) {
        sample.call(1, Call::Held(call), Outcome::Done(Reply::Held(reply)));
    }

    fn won(sample: &mut Sample, lease: i64, created: i64) {
        let call = HeldCall::Campaign { name: "e".into(), lease, value: "1".into() };
        held(sample, call, HeldReply::Held { revision: created, key: format!("e/{lease}"), created });
    }

    /// Two candidates, one of which led and is gone.
    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.txn(1, leased("e/7", "1", 7));
        sample.txn(2, leased("e/8", "2", 8));
        won(&mut sample, 7, 2);
        sample.txn(1, delete("e/7"));
        won(&mut sample, 8, 3);
        sample.txn(1, get("e/7"));
        sample
    }

    fn kv(sample: &Sample, key: &str, revision: i64) -> KeyValue {
        sample.versions.get(key, revision).unwrap().clone()
    }

    #[test]
    fn leaders_pass() {
        assert_eq!(found(sample()), Ok(()));
    }

    #[test]
    fn a_leader_before_its_time_is_found() {
        let mut early = Sample::new();
        early.txn(1, leased("e/7", "1", 7));
        early.txn(2, leased("e/8", "2", 8));
        won(&mut early, 8, 3);
        let mut never = early.clone();
        let mut gone = early.clone();
        early.txn(1, delete("e/7"));
        assert_eq!(found(early), Ok(()), "nobody saw when");
        never.txn(1, get("e/7"));
        expect(found(never), "whose turn never came was told");
        gone.history.operations.pop();
        gone.txn(2, delete("e/8"));
        gone.txn(1, delete("e/7"));
        won(&mut gone, 8, 3);
        assert_eq!(found(gone), Ok(()), "with its lease");
        let mut seen = Sample::new();
        seen.txn(1, leased("e/7", "1", 7));
        seen.txn(2, leased("e/8", "2", 8));
        won(&mut seen, 8, 3);
        seen.txn(1, get("e/7"));
        seen.txn(1, delete("e/7"));
        expect(found(seen), "the turn of e/8 came at revision 4");
    }

    #[test]
    fn another_leader_than_asked_for_is_found() {
        let mut asked = sample();
        let kv = kv(&asked, "e/8", 4);
        let call = HeldCall::Leader { name: "e".into() };
        held(&mut asked, call.clone(), HeldReply::Leader { revision: 4, kv: kv.clone() });
        assert_eq!(found(asked.clone()), Ok(()));
        held(&mut asked, call, HeldReply::Leader { revision: 3, kv });
        expect(found(asked), "at revision 3 Some(");
    }

    #[test]
    fn what_was_not_done_is_found() {
        let leader = Candidate { name: "e".into(), key: "e/8".into(), created: 3, lease: 8 };
        let mut lost = sample();
        let call = HeldCall::Proclaim { leader: leader.clone(), value: "3".into() };
        held(&mut lost, call, HeldReply::Done { revision: 4 });
        expect(found(lost), "what was proclaimed is not there");
        for call in [HeldCall::Resign { leader }, HeldCall::Unlock { key: "e/8".into() }] {
            let mut stays = sample();
            held(&mut stays, call.clone(), HeldReply::Done { revision: 4 });
            expect(found(stays), "is there after");
            let mut gone = sample();
            gone.txn(1, delete("e/8"));
            held(&mut gone, call, HeldReply::Done { revision: 5 });
            assert_eq!(found(gone), Ok(()));
        }
    }

    #[test]
    fn what_observers_must_not_see_is_found() {
        let mut sample = sample();
        sample.txn(2, leased("e/8", "3", 8));
        sample.txn(2, leased("e/8", "4", 8));
        sample.txn(3, leased("e/9", "5", 9));
        sample.txn(1, get("e/7"));
        let led = |key, revision| Led { at: millis(1), revision, kv: kv(&sample, key, revision) };
        let observes = |told: Vec<Led>| {
            let mut history = sample.clone();
            history.history.observations.push(Observation { client: 1, name: "e".into(), told });
            found(history)
        };
        let (first, said, again) = (led("e/8", 4), led("e/8", 5), led("e/8", 6));
        assert_eq!(observes(vec![led("e/7", 2), first.clone(), said.clone(), again.clone()]), Ok(()));
        assert_eq!(observes(vec![Led { revision: 7, ..said.clone() }]), Ok(()), "told late");
        expect(observes(vec![first.clone(), again]), "right after");
        expect(observes(vec![first.clone(), first.clone()]), "right after");
        expect(observes(vec![first, led("e/7", 2)]), "after a later leader");
        expect(observes(vec![led("e/9", 7)]), "which did not lead then");
    }
}
