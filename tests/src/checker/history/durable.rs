//! What was acknowledged is there.

use super::text::told;
use crate::history::{Call, History, KeyValue, Outcome, Reply};
use crate::model::{Truth, deletes, written, wrote};

/// Checks that each acknowledged write was committed at the revision that it was told, and that the
/// store ends with what was committed.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    for operation in &history.operations {
        let (Call::Txn(txn), Outcome::Done(Reply::Txn { revision, succeeded, steps })) =
            (&operation.call, &operation.outcome)
        else {
            continue;
        };
        if !wrote(steps) || !truth.knows(*revision) {
            continue;
        }
        let changes = truth.changes(*revision);
        let lost = || format!("an acknowledged write is lost: {}\nat this revision: {changes:?}", told(operation));
        for put in written(txn, *succeeded, steps) {
            let is_there = |kv: &KeyValue| kv.key == put.key && kv.value == put.value;
            if !changes.iter().any(|change| !change.deleted && is_there(&change.kv)) {
                return Err(lost());
            }
        }
        let deleted = changes.iter().filter(|change| change.deleted).count() as i64;
        if deleted != deletes(steps) {
            return Err(lost());
        }
    }
    if !truth.knows_state(truth.last) {
        return Ok(());
    }
    let mut expected = truth.versions.all(history.end.revision);
    let mut actual = history.end.keys.iter();
    loop {
        match (expected.next(), actual.next()) {
            (None, None) => return Ok(()),
            (expected, actual) if expected == actual => {}
            (expected, actual) => {
                return Err(format!("the store ends with {actual:?} where {expected:?} was committed"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, all_keys, delete, expect, get, put, revision};
    use super::*;
    use crate::history::{Received, Step, Txn};

    fn sample() -> History {
        let mut sample = Sample::new();
        let nested = Step::Txn(Box::new(put("c", "3")));
        sample.txn(1, put("a", "1"));
        sample.txn(1, Txn { then: vec![Step::put("b", "2"), nested], ..Txn::default() });
        sample.txn(2, delete("a"));
        sample.txn(2, delete("a"));
        sample.txn(1, get("a"));
        sample.unknown(3, put("d", "4"), true);
        sample.end()
    }

    fn found(history: &History) -> Result<(), String> {
        check(history, &Truth::of(history))
    }

    #[test]
    fn what_was_acknowledged_and_is_there_passes() {
        assert_eq!(found(&sample()), Ok(()));
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut history = sample();
        *revision(&mut history.operations[1]) = 9;
        expect(found(&history), "an acknowledged write is lost: client 1");
        let mut history = sample();
        *revision(&mut history.operations[2]) = 5;
        expect(found(&history), "an acknowledged write is lost: client 2");
        let mut history = sample();
        let Received::Events { changes, .. } = &mut history.watches[0].received[2] else { panic!("no events") };
        changes.pop();
        expect(found(&history), "an acknowledged write is lost: client 1");
    }

    #[test]
    fn another_end_is_found() {
        let changes: [fn(&mut History); 4] = [
            |history| drop(history.end.keys.pop()),
            |history| history.end.keys[0].value.push('x'),
            |history| history.end.keys[0].lease = 1,
            |history| history.end.keys.push(history.end.keys[0].clone()),
        ];
        for change in changes {
            let mut history = sample();
            change(&mut history);
            expect(found(&history), "the store ends with");
        }
    }

    #[test]
    fn what_could_not_be_observed_is_not_judged() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.txn(1, Txn::of(Step::range(all_keys())));
        let mut history = sample.end();
        let at = history.end.at;
        history.watches[0].received[1] = Received::Compacted { at, compact_revision: 3, resumed: 3 };
        assert_eq!(found(&history), Ok(()));
    }
}
