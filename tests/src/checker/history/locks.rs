//! A lock has one holder, and only the holder writes what it guards.

use std::collections::BTreeMap;

use super::text::told;
use crate::history::{
    Call, Comparison, HeldCall, HeldReply, History, Operation, Outcome, Relation, Reply, Span, Step, Txn,
};
use crate::model::Truth;

/// Where the keys of locks are, those that the server holds as well: `lock/<name>/<lease>`. The one that was created first holds.
pub const LOCKS: &str = "lock/";

/// What locks guard: `fence/<name>`, put by transactions on the condition that the holder's key is
/// still the one that was created at the revision it names, which is the fencing token.
pub const FENCES: &str = "fence/";

/// Checks of every write of what a lock guards that its lock key was there right before, was the
/// first created one, and that tokens never fall; and that whoever the server gives a lock to holds it
/// at the revision of the answer.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    history.operations.iter().try_for_each(|operation| holds_what_it_was_given(truth, operation))?;
    let causes = truth.causes(history);
    let mut tokens: BTreeMap<&str, i64> = BTreeMap::new();
    for (revision, commit) in &truth.commits {
        for change in commit.changes.iter().filter(|change| !change.deleted) {
            let Some(name) = change.kv.key.strip_prefix(FENCES) else { continue };
            let locks = format!("{LOCKS}{name}/");
            // A call tells itself by the value; who did not write it is found by `exactly_once_effects.rs`.
            let writers = causes.writers_of(&change.kv.value).iter().map(|place| &history.operations[*place]);
            let mut guards = writers.filter_map(|writer| guard(writer, &locks).map(|guard| (writer, guard)));
            let Some((writer, (lock, token))) = guards.next() else {
                return Err(format!(
                    "at revision {revision} {} was written without its lock: {change:?}",
                    change.kv.key
                ));
            };
            let last = tokens.entry(name).or_default();
            if token < *last {
                let text = format!("at revision {revision} {name} was written with token {token} after {last}");
                return Err(format!("{text}: {}", told(writer)));
            }
            *last = token;
            if !truth.knows_state(*revision) {
                continue;
            }
            let holder = truth.versions.range(&Span::prefix(&locks), revision - 1).min_by_key(|kv| kv.created);
            if holder.is_none_or(|holder| holder.key != lock || holder.created != token) {
                let text = format!("at revision {revision} {name} was held by {holder:?}");
                return Err(format!("{text}, and written by another: {}", told(writer)));
            }
        }
    }
    Ok(())
}

fn holds_what_it_was_given(truth: &Truth, operation: &Operation) -> Result<(), String> {
    let Call::Held(HeldCall::Lock { name, .. }) = &operation.call else { return Ok(()) };
    let Outcome::Done(Reply::Held(HeldReply::Held { revision, key, .. })) = &operation.outcome else { return Ok(()) };
    if !truth.knows_state(*revision) || *revision > truth.last {
        return Ok(());
    }
    let keys = Span::prefix(&format!("{name}/"));
    match truth.versions.range(&keys, *revision).min_by_key(|kv| kv.created) {
        Some(holder) if holder.key == *key => Ok(()),
        holder => Err(format!("at revision {revision} {holder:?} holds {name}, and not: {}", told(operation))),
    }
}

/// The lock key on which a call writes what is guarded, and its token.
fn guard<'a>(operation: &'a Operation, locks: &str) -> Option<(&'a str, i64)> {
    let Call::Txn(txn) = &operation.call else { return None };
    let guards = txn.compares.iter().filter(|compare| compare.key.starts_with(locks));
    let mut guards = guards.filter_map(|compare| match compare.to {
        Comparison::Created(token) if token > 0 && compare.is == Relation::Equal => Some((compare.key.as_str(), token)),
        _ => None,
    });
    guards.next().filter(|_| writes_fence(txn))
}

/// Whether what is guarded is written where the conditions hold, and nowhere else.
fn writes_fence(txn: &Txn) -> bool {
    let fence = |step: &Step| matches!(step, Step::Put { key, .. } if key.starts_with(FENCES));
    txn.then.iter().any(fence) && !txn.otherwise.iter().any(fence)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, leased, put};
    use super::*;
    use crate::history::Compare;

    fn fenced(lock: &str, token: i64, value: &str) -> Txn {
        let compares = vec![Compare::equal(lock, Comparison::Created(token))];
        Txn { compares, then: vec![Step::put("fence/x", value)], ..Txn::default() }
    }

    /// Lets a transaction happen whether its conditions hold or not.
    fn force(sample: &mut Sample, txn: Txn) {
        sample.unknown(1, Txn { then: txn.then.clone(), ..Txn::default() }, true);
        sample.history.operations.last_mut().unwrap().call = Call::Txn(txn);
    }

    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.txn(1, leased("lock/x/7", "1", 7));
        sample.txn(2, leased("lock/x/8", "2", 8));
        sample.txn(3, leased("lock/y/1", "3", 9));
        sample.txn(1, fenced("lock/x/7", 2, "4"));
        sample.unknown(1, fenced("lock/x/7", 2, "5"), true);
        sample.txn(1, delete("lock/x/7"));
        sample.txn(1, fenced("lock/x/7", 2, "6"));
        sample.txn(2, fenced("lock/x/8", 3, "7"));
        sample
    }

    fn found(sample: Sample) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history))
    }

    #[test]
    fn writes_of_the_holder_pass() {
        assert_eq!(found(sample()), Ok(()));
    }

    #[test]
    fn a_write_of_another_is_found() {
        let mut waiting = sample();
        waiting.txn(1, leased("lock/x/9", "8", 9));
        force(&mut waiting, fenced("lock/x/9", 9, "9"));
        expect(found(waiting), "written by another");
        let mut gone = sample();
        gone.txn(1, delete("lock/x/8"));
        force(&mut gone, fenced("lock/x/8", 3, "9"));
        expect(found(gone), "was held by None");
        let mut again = sample();
        again.txn(1, delete("lock/x/8"));
        again.txn(1, leased("lock/x/8", "8", 8));
        force(&mut again, fenced("lock/x/8", 3, "9"));
        expect(found(again), "written by another");
    }

    #[test]
    fn a_falling_token_is_found() {
        let mut sample = sample();
        force(&mut sample, fenced("lock/x/7", 2, "8"));
        expect(found(sample), "with token 2 after 3");
    }

    #[test]
    fn a_write_without_a_lock_is_found() {
        let mut sample = sample();
        sample.txn(1, put("fence/x", "8"));
        expect(found(sample), "without its lock");
        let mut other = Sample::new();
        other.txn(1, leased("lock/y/7", "1", 7));
        other.txn(1, fenced("lock/y/7", 2, "2"));
        expect(found(other), "without its lock");
    }

    #[test]
    fn a_lock_that_another_holds_is_found() {
        let given = |key: &str, revision| {
            let mut sample = sample();
            let reply = Reply::Held(HeldReply::Held { revision, key: key.into(), created: 0 });
            sample.call(4, Call::Held(HeldCall::Lock { name: "lock/x".into(), lease: 8 }), Outcome::Done(reply));
            found(sample)
        };
        assert_eq!(given("lock/x/8", 8), Ok(()));
        assert_eq!(given("lock/x/7", 3), Ok(()));
        expect(given("lock/x/8", 3), "holds lock/x, and not: client 4");
        expect(given("lock/x/7", 8), "holds lock/x, and not: client 4");
    }
}
