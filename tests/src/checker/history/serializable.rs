//! All transactions together are what they would be one after the other, in the order of revisions.

use super::text::told;
use crate::history::{Call, History, Outcome, Reply, Step, Txn};
use crate::model::{Truth, always_refused, evaluate, wrote};

/// Checks every answer against the model: that of a transaction that wrote on the state before its
/// revision, where what was committed is exactly its writes; that of any other on the state at its
/// revision. So revisions are the witness of one order for all transactions, also of many keys.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    for operation in &history.operations {
        let (Call::Txn(txn), Outcome::Done(reply)) = (&operation.call, &operation.outcome) else { continue };
        let Reply::Txn { revision, succeeded, steps } = reply else {
            return Err(format!("an answer of another kind: {}", told(operation)));
        };
        if let Some(why) = always_refused(txn) {
            return Err(format!("a transaction was not refused ({why}): {}", told(operation)));
        }
        if *revision < 1 || *revision > truth.last {
            return Err(format!("a revision that never was; the last is {}: {}", truth.last, told(operation)));
        }
        let seen = if wrote(steps) { revision - 1 } else { *revision };
        if let Some(future) = read_revisions(txn, *succeeded).into_iter().find(|read| *read > *revision) {
            return Err(format!("revision {future} was read before it was: {}", told(operation)));
        }
        // A state that the observer could not see explains any answer. (What is read at an old
        // revision is known where the present is.)
        if !truth.knows_state(*revision) {
            continue;
        }
        let expected = evaluate(&truth.versions, txn, seen);
        if expected.refused {
            let text = format!("on the state at revision {seen} a key that is to be left as it is was not there");
            return Err(format!("{text}, and this was not refused: {}", told(operation)));
        }
        if (expected.succeeded, &expected.steps) != (*succeeded, steps) {
            let expected = format!("succeeded: {}, steps: {:?}", expected.succeeded, expected.steps);
            return Err(format!("on the state at revision {seen} the answer is {expected}\nbut: {}", told(operation)));
        }
        if wrote(steps) && truth.is_effect(*revision, txn) == Some(false) {
            let (expected, actual) = (expected.changes, truth.changes(*revision));
            let what = format!("writes {expected:?}\nbut revision {revision} is {actual:?}");
            return Err(format!("a transaction {what}: {}", told(operation)));
        }
    }
    Ok(())
}

/// The revisions that ranges ask for by number, in the branch that is taken.
fn read_revisions(txn: &Txn, succeeded: bool) -> Vec<i64> {
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let of = |step: &Step| match step {
        Step::Range { revision, .. } if *revision > 0 => Some(*revision),
        _ => None,
    };
    branch.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, all_keys, at, delete, expect, get, put, read_keys, revision};
    use super::*;
    use crate::history::{Compare, Comparison, Operation, Received, Span, StepReply};

    fn found(history: &History) -> Result<(), String> {
        check(history, &Truth::of(history))
    }

    fn sample() -> History {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.txn(1, put("b", "2"));
        let compares = vec![Compare::equal("a", Comparison::Value("1".into()))];
        let nested = Txn { compares: compares.clone(), otherwise: vec![Step::put("c", "5")], ..Txn::default() };
        let then = vec![
            Step::Put { key: "a".into(), value: "3".into(), lease: 0, prev_kv: true },
            Step::Delete { span: Span::key("b"), prev_kv: true },
            Step::range(all_keys()),
            Step::Txn(Box::new(nested)),
        ];
        sample.txn(2, Txn { compares, then, ..Txn::default() });
        sample.txn(2, get("a"));
        let mut old = at(all_keys(), 3);
        let Step::Range { limit, .. } = &mut old else { panic!("no range") };
        *limit = 1;
        sample.txn(2, Txn::of(old));
        sample.txn(2, delete("b"));
        sample.end()
    }

    #[test]
    fn answers_of_the_model_pass() {
        assert_eq!(found(&sample()), Ok(()));
    }

    #[test]
    fn a_read_of_an_older_state_passes_at_its_revision_only() {
        let mut history = sample();
        let stale: Operation = {
            let mut before = Sample::new();
            before.txn(1, put("a", "1"));
            before.txn(1, get("a")).clone()
        };
        history.operations.push(stale.clone());
        assert_eq!(found(&history), Ok(()));
        *revision(history.operations.last_mut().unwrap()) = 4;
        expect(found(&history), "on the state at revision 4");
    }

    #[test]
    fn wrong_answers_are_found() {
        type Wrong = fn(&mut Operation);
        let wrong: [(usize, Wrong); 6] = [
            (2, |operation| {
                let Outcome::Done(Reply::Txn { succeeded, .. }) = &mut operation.outcome else { panic!("no txn") };
                *succeeded = false;
            }),
            (2, |operation| {
                let Outcome::Done(Reply::Txn { steps, .. }) = &mut operation.outcome else { panic!("no txn") };
                steps[0] = StepReply::Put { prev: None };
            }),
            (3, |operation| read_keys(operation)[0].value = "1".into()),
            (3, |operation| read_keys(operation)[0].version = 1),
            (4, |operation| read_keys(operation)[0].value = "3".into()),
            (4, |operation| {
                let Outcome::Done(Reply::Txn { steps, .. }) = &mut operation.outcome else { panic!("no txn") };
                let StepReply::Range { more, .. } = &mut steps[0] else { panic!("no range") };
                *more = false;
            }),
        ];
        for (place, wrong) in wrong {
            let mut history = sample();
            wrong(&mut history.operations[place]);
            expect(found(&history), "the answer is");
        }
    }

    #[test]
    fn a_commit_that_is_not_the_transaction_is_found() {
        let mut history = sample();
        let Received::Events { changes, .. } = &mut history.watches[0].received[3] else { panic!("no events") };
        changes.pop();
        expect(found(&history), "but revision 4 is");
        let mut history = sample();
        let Received::Events { changes, .. } = &mut history.watches[0].received[3] else { panic!("no events") };
        changes[0].kv.lease = 3;
        assert!(found(&history).is_err());
    }

    #[test]
    fn revisions_that_never_were_are_found() {
        let mut history = sample();
        *revision(&mut history.operations[3]) = 9;
        expect(found(&history), "never was");
        let mut history = sample();
        let Call::Txn(txn) = &mut history.operations[4].call else { panic!("no txn") };
        let Step::Range { revision, .. } = &mut txn.then[0] else { panic!("no range") };
        *revision = 5;
        expect(found(&history), "before it was");
    }

    #[test]
    fn what_is_always_refused_is_found() {
        let mut history = sample();
        let Call::Txn(txn) = &mut history.operations[0].call else { panic!("no txn") };
        txn.then.push(Step::put("a", "9"));
        expect(found(&history), "duplicate key");
    }
}
