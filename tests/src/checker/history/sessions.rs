//! A member that answers a client has got as far itself, so that what the client asks of it next,
//! though it be a serializable read, is not answered from before.

use std::collections::BTreeMap;

use super::text::told;
use crate::history::{History, Operation, Outcome, Reply};

/// Checks that the revisions which one member tells one client never go back while it is left alone: a
/// restart may take it back to what it has stored.
pub fn check(history: &History) -> Result<(), String> {
    let mut last: BTreeMap<(usize, usize), &Operation> = BTreeMap::new();
    let mut begun: Vec<&Operation> = history.operations.iter().collect();
    begun.sort_by_key(|operation| operation.began);
    for operation in begun {
        let (Some(member), Some(revision)) = (operation.member, revision_of(operation)) else { continue };
        let before = last.insert((operation.client, member), operation);
        let Some(before) = before.filter(|before| before.ended <= operation.began) else { continue };
        if revision_of(before).is_some_and(|before| before > revision) && !disturbed(history, before, operation) {
            return Err(format!("member {member} went back\nfrom {}\nto {}", told(before), told(operation)));
        }
    }
    Ok(())
}

fn revision_of(operation: &Operation) -> Option<i64> {
    match &operation.outcome {
        Outcome::Done(Reply::Txn { revision, .. }) => Some(*revision),
        _ => None,
    }
}

fn disturbed(history: &History, from: &Operation, to: &Operation) -> bool {
    let within = |began, until| began <= to.ended && until >= from.began;
    history.disturbances.iter().any(|disturbance| within(disturbance.from, disturbance.until))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample::{Sample, expect, get, put};
    use super::*;
    use crate::history::Disturbance;

    fn stale() -> Sample {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1")).member = Some(0);
        let read = sample.txn(1, get("a"));
        read.member = Some(0);
        if let Outcome::Done(Reply::Txn { revision, .. }) = &mut read.outcome {
            *revision -= 1;
        }
        sample
    }

    #[test]
    fn a_member_that_goes_back_is_found() {
        expect(check(&stale().end()), "member 0 went back");
    }

    #[test]
    fn other_members_and_restarts_may_be_behind() {
        let mut other = stale();
        other.history.operations[1].member = Some(1);
        assert_eq!(check(&other.end()), Ok(()));
        let mut restarted = stale();
        let until = restarted.history.operations[1].began;
        restarted.history.disturbances.push(Disturbance {
            from: Duration::ZERO,
            until,
            what: "kill".into(),
            effect: None,
        });
        assert_eq!(check(&restarted.end()), Ok(()));
    }
}
