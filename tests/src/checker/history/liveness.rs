//! Once it is left alone, the cluster serves.

use std::time::Duration;

use super::refusals::{CORRUPT, LEARNER, asked_the_lost, is_unavailability, may_meet_a_learner, may_meet_the_corrupt};
use super::text::{seconds, told};
use crate::history::{Call, History, Operation, Outcome, UNTOLD};

/// Checks that whatever was asked later than this bound after the last disturbance was over got an
/// answer, or was refused for what it asks, and that something was asked then. Without a disturbance the bound
/// counts from the beginning, since a cluster first has to elect.
pub fn check(history: &History, bound: Duration) -> Result<(), String> {
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
    match asked.find(is_open) {
        Some(operation) => {
            Err(format!("all was quiet from {} on, and got no answer: {}", seconds(quiet), told(operation)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, expect, get, millis, put};
    use super::*;
    use crate::history::Disturbance;

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
        assert_eq!(check(&sample.end(), millis(500)), Ok(()));
    }

    #[test]
    fn silence_is_found() {
        let mut sample = Sample::new();
        disturbed(&mut sample);
        sample.now += millis(1000);
        sample.txn(1, put("a", "1"));
        let mut late = sample.clone();
        late.unknown(1, put("a", "2"), true);
        expect(check(&late.end(), millis(500)), "got no answer: client 1");
        let mut refused = sample.clone();
        refused.refused(1, Call::Txn(get("a")), "etcdserver: too many requests");
        expect(check(&refused.end(), millis(500)), "got no answer: client 1");
        expect(check(&sample.end(), millis(5000)), "nothing was asked");
    }
}
