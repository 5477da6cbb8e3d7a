//! Who asks which keys a lease has is told those that it has.

use super::text::told;
use super::window::Window;
use crate::history::{Call, History, Outcome, Reply};
use crate::model::Truth;

/// Checks that there was a state, between the last one known before the question and the last one before
/// the answer, in which exactly the keys that are told were tied to the lease, and that the answer does not
/// name an earlier revision than that.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    let window = Window::of(history, truth);
    for operation in &history.operations {
        let Call::LeaseKeys { id } = &operation.call else { continue };
        let Outcome::Done(reply) = &operation.outcome else { continue };
        let Reply::LeaseKeys { revision, ttl, keys } = reply else {
            return Err(format!("an answer of another kind: {}", told(operation)));
        };
        if *ttl < 0 {
            // That it is gone is held against what it was promised.
            if !keys.is_empty() {
                return Err(format!("a lease that is gone has keys: {}", told(operation)));
            }
            continue;
        }
        // The member may have applied more than it had published when it wrote the header.
        let (first, last) = window.states(operation);
        if *revision < first {
            return Err(format!("revision {first} was known before: {}", told(operation)));
        }
        if !truth.knows_state(last.max(*revision)) {
            continue;
        }
        let is_so = |revision: i64| {
            let tied = truth.versions.all(revision).filter(|kv| kv.lease == *id);
            tied.map(|kv| &kv.key).eq(keys)
        };
        if !(first..=last).any(is_so) {
            let text = format!("from revision {first} to {last} lease {id} never had these keys");
            return Err(format!("{text}: {}", told(operation)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, leased, put};
    use super::*;

    fn asked(sample: &mut Sample, ttl: i64, keys: &[&str]) {
        let keys = keys.iter().map(ToString::to_string).collect();
        let reply = Reply::LeaseKeys { revision: sample.revision, ttl, keys };
        sample.call(2, Call::LeaseKeys { id: 7 }, Outcome::Done(reply));
    }

    fn found(sample: Sample) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history))
    }

    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.grant(1, 7, 10);
        asked(&mut sample, 9, &[]);
        sample.txn(1, leased("a", "1", 7));
        sample.txn(1, leased("b", "2", 7));
        sample.txn(1, leased("c", "3", 8));
        sample
    }

    #[test]
    fn the_keys_that_are_tied_pass() {
        let mut sample = sample();
        asked(&mut sample, 9, &["a", "b"]);
        sample.txn(1, put("b", "4"));
        asked(&mut sample, 9, &["a"]);
        sample.txn(1, leased("c", "5", 7));
        sample.txn(1, delete("a"));
        asked(&mut sample, 9, &["c"]);
        sample.expire(7);
        asked(&mut sample, 0, &[]);
        asked(&mut sample, -1, &[]);
        assert_eq!(found(sample), Ok(()));
    }

    #[test]
    fn while_keys_change_either_state_will_do() {
        for (keys, text) in [(&["a"][..], None), (&["a", "b"], None), (&["b"], Some("never had"))] {
            let mut sample = sample();
            asked(&mut sample, 9, keys);
            let began = sample.history.operations[3].began;
            sample.history.operations.last_mut().unwrap().began = began;
            match text {
                None => assert_eq!(found(sample), Ok(())),
                Some(text) => expect(found(sample), text),
            }
        }
    }

    #[test]
    fn other_keys_are_found() {
        for keys in [&["a"][..], &["a", "b", "c"], &["b", "a"], &["a", "b", "b"], &[]] {
            let mut sample = sample();
            asked(&mut sample, 9, keys);
            expect(found(sample), "never had these keys");
        }
        let mut stale = sample();
        asked(&mut stale, 9, &["a", "b"]);
        if let Outcome::Done(Reply::LeaseKeys { revision, .. }) =
            &mut stale.history.operations.last_mut().unwrap().outcome
        {
            *revision -= 1;
        }
        expect(found(stale), "revision 4 was known before");
        let mut gone = sample();
        asked(&mut gone, -1, &["a"]);
        expect(found(gone), "a lease that is gone has keys");
    }
}
