//! Each commit is the effect of one call, and no call has two.

use std::collections::BTreeMap;

use super::text::told;
use crate::history::{History, Outcome};
use crate::model::{Causes, Commit, Truth};

/// Checks that every commit is explained: by the transaction that was told its revision, or by one
/// whose fate its client never learned, or by the end of a lease. Of these each call is used once.
/// So no write happened twice, none that was refused, and none that nobody asked for.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    let causes = truth.causes(history);
    let mut open = Vec::new();
    for (revision, possible) in &causes.possible {
        let commit = &truth.commits[revision];
        if possible.is_empty() && !causes.ends_lease.contains_key(revision) {
            return Err(unexplained(history, causes, *revision, commit));
        }
        // A lease may end by itself, which takes no call.
        if !causes.ends_lease.contains_key(revision) {
            open.push((*revision, possible.as_slice()));
        }
    }
    match without_cause(&open) {
        None => Ok(()),
        Some(revision) => {
            let calls: Vec<String> =
                causes.possible[&revision].iter().map(|it| told(&history.operations[*it])).collect();
            let changes = &truth.commits[&revision].changes;
            let calls = calls.join("\n");
            Err(format!("revision {revision} is {changes:?}, and whoever may have done that did another:\n{calls}"))
        }
    }
}

fn unexplained(history: &History, causes: &Causes, revision: i64, commit: &Commit) -> String {
    let changes = &commit.changes;
    let put = changes.iter().find(|change| !change.deleted);
    let writers = put.map_or(&[][..], |put| causes.writers_of(&put.kv.value));
    let mut text = format!("revision {revision} is {changes:?}, ");
    match writers.first() {
        None if put.is_some() => text.push_str("which nobody asked for"),
        None => text.push_str("which no call explains and no end of a lease"),
        Some(place) => {
            let operation = &history.operations[*place];
            text.push_str(match &operation.outcome {
                Outcome::Refused(_) => "but its call was refused: ",
                Outcome::Done(_) => "but its call was answered otherwise, so it happened twice: ",
                Outcome::Unknown(_) => "which is not what its call does, or before it was made: ",
            });
            text.push_str(&told(operation));
        }
    }
    text
}

/// A revision that is left when each is given a call of its own (augmenting paths, as in Kuhn's
/// algorithm for bipartite matching).
fn without_cause(open: &[(i64, &[usize])]) -> Option<i64> {
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    for (place, (revision, _)) in open.iter().enumerate() {
        if !give(open, place, &mut taken, &mut Vec::new()) {
            return Some(*revision);
        }
    }
    None
}

fn give(open: &[(i64, &[usize])], place: usize, taken: &mut BTreeMap<usize, usize>, tried: &mut Vec<usize>) -> bool {
    for call in open[place].1 {
        if tried.contains(call) {
            continue;
        }
        tried.push(*call);
        let holder = taken.get(call).copied();
        if holder.is_none_or(|holder| give(open, holder, taken, tried)) {
            taken.insert(*call, place);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, leased, millis, put, revision};
    use super::*;
    use crate::history::{Call, Span, Step, Txn};

    fn found(sample: Sample) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history))
    }

    /// Carries out a transaction that no call asks for.
    fn phantom(sample: &mut Sample, txn: Txn) {
        sample.unknown(9, txn, true);
        sample.history.operations.pop();
    }

    #[test]
    fn explained_commits_pass() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.unknown(2, put("b", "2"), true);
        sample.unknown(3, put("c", "3"), false);
        sample.unknown(2, delete("b"), true);
        sample.unknown(2, delete("b"), false);
        sample.refused(1, Call::Txn(put("d", "4")), "etcdserver: too many requests");
        assert_eq!(found(sample), Ok(()));
    }

    #[test]
    fn leases_explain_what_they_remove_when_they_end() {
        let mut sample = Sample::new();
        sample.txn(1, leased("a", "1", 7));
        sample.txn(1, leased("b", "2", 7));
        sample.txn(1, leased("c", "3", 8));
        sample.txn(1, leased("d", "4", 9));
        sample.txn(1, leased("e", "5", 9));
        sample.expire(7);
        sample.revoke(1, 8);
        let mut part = sample.clone();
        assert_eq!(found(sample), Ok(()));
        phantom(&mut part, delete("d"));
        expect(found(part), "no end of a lease");
    }

    #[test]
    fn a_phantom_is_found() {
        let mut sample = Sample::new();
        phantom(&mut sample, put("a", "1"));
        let mut deleted = sample.clone();
        expect(found(sample), "nobody asked for");
        deleted.history.watches[0].received.pop();
        (deleted.versions, deleted.revision) = Default::default();
        deleted.revision = 1;
        deleted.txn(1, put("a", "1"));
        phantom(&mut deleted, delete("a"));
        expect(found(deleted), "no call explains");
    }

    #[test]
    fn a_refused_write_that_happened_is_found() {
        let mut sample = Sample::new();
        phantom(&mut sample, put("a", "1"));
        sample.refused(1, Call::Txn(put("a", "1")), "etcdserver: too many requests");
        expect(found(sample), "refused");
    }

    #[test]
    fn a_write_that_happened_twice_is_found() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        phantom(&mut sample, put("a", "1"));
        expect(found(sample), "happened twice");
        let mut sample = Sample::new();
        sample.unknown(1, put("a", "1"), true);
        phantom(&mut sample, put("a", "1"));
        expect(found(sample), "did another");
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.unknown(1, delete("a"), true);
        sample.txn(1, put("a", "2"));
        phantom(&mut sample, delete("a"));
        expect(found(sample), "did another");
    }

    #[test]
    fn a_write_before_its_call_is_found() {
        let mut sample = Sample::new();
        let late = sample.unknown(1, put("a", "1"), true);
        late.began += millis(50);
        late.ended += millis(50);
        expect(found(sample), "before it was made");
    }

    #[test]
    fn a_part_of_a_call_is_found() {
        let mut sample = Sample::new();
        phantom(&mut sample, put("a", "1"));
        let both = Txn { then: vec![Step::put("a", "1"), Step::put("b", "2")], ..Txn::default() };
        sample.unknown(1, both, false).began = millis(0);
        expect(found(sample), "not what its call does");
    }

    #[test]
    fn ambiguous_removals_are_told_apart_by_matching() {
        let both = Txn::of(Step::Delete { span: Span { from: "a".into(), to: Some("c".into()) }, prev_kv: false });
        let mut sample = Sample::new();
        sample.unknown(1, both, false).began = millis(0);
        sample.unknown(2, delete("a"), false).began = millis(0);
        sample.txn(3, put("a", "1"));
        phantom(&mut sample, delete("a"));
        sample.txn(3, put("a", "2"));
        phantom(&mut sample, delete("a"));
        let mut third = sample.clone();
        assert_eq!(found(sample), Ok(()));
        third.txn(3, put("a", "3"));
        phantom(&mut third, delete("a"));
        expect(found(third), "did another");
    }

    #[test]
    fn revisions_told_to_nobody_are_held_against_the_answer() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        *revision(&mut sample.history.operations[0]) = 3;
        expect(found(sample), "answered otherwise");
    }
}
