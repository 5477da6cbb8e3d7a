//! Between which revisions a call was carried out, as far as others can tell.

use std::time::Duration;

use crate::history::{Call, History, Operation, Outcome, Received, Reply};
use crate::model::{Truth, wrote};

/// What was known of revisions, by time.
pub(super) struct Window {
    /// By the times when somebody was told: the highest revision up to then.
    known: Vec<(Duration, i64)>,
    /// By the times when a write began: the lowest revision of it and those that began later.
    asked: Vec<(Duration, i64)>,
    last: i64,
}

impl Window {
    pub(super) fn of(history: &History, truth: &Truth) -> Self {
        let (mut known, mut asked) = (Vec::new(), Vec::new());
        for operation in &history.operations {
            let Some(revision) = revision_of(operation) else { continue };
            known.push((operation.ended, revision));
            if matches!(&operation.outcome, Outcome::Done(Reply::Txn { steps, .. }) if wrote(steps)) {
                asked.push((operation.began, revision));
            }
        }
        for received in history.watches.iter().flat_map(|watch| &watch.received) {
            if let Received::Opened { at, revision, .. }
            | Received::Progress { at, revision }
            | Received::Events { at, revision, .. } = received
            {
                known.push((*at, *revision));
            }
        }
        known.sort_unstable();
        let mut highest = 1;
        for (_, revision) in &mut known {
            highest = highest.max(*revision);
            *revision = highest;
        }
        asked.sort_unstable();
        let mut lowest = i64::MAX;
        for (_, revision) in asked.iter_mut().rev() {
            lowest = lowest.min(*revision);
            *revision = lowest;
        }
        Self { known, asked, last: truth.last }
    }

    /// The revision that was known to somebody before a time: who asks later sees that state or a later one.
    pub(super) fn known_before(&self, time: Duration) -> i64 {
        let behind = self.known.partition_point(|(at, _)| *at < time);
        self.known[..behind].last().map_or(1, |(_, revision)| *revision)
    }

    /// The states that a call may have met which is not served from an older one: the first and the last.
    pub(super) fn states(&self, operation: &Operation) -> (i64, i64) {
        // The first of those that were asked for only after it was over, and the one before that.
        let behind = self.asked.partition_point(|(began, _)| *began <= operation.ended);
        let last = self.asked.get(behind).map_or(self.last, |(_, revision)| revision - 1);
        (self.known_before(operation.began), last.min(self.last))
    }
}

/// The revision in an answer's header, where that is one which was there when it was asked.
fn revision_of(operation: &Operation) -> Option<i64> {
    match (&operation.call, &operation.outcome) {
        (Call::Txn(_), Outcome::Done(Reply::Txn { revision, .. })) => Some(*revision),
        (_, Outcome::Done(Reply::Compacted { revision } | Reply::Revoked { revision })) => Some(*revision),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, get, put};
    use super::*;

    #[test]
    fn a_call_met_what_was_known_before_it_or_asked_for_before_its_end() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.txn(1, put("a", "2"));
        sample.txn(1, get("a"));
        sample.txn(1, put("a", "3"));
        let mut slow = sample.txn(1, get("a")).clone();
        let history = sample.end();
        let truth = Truth::of(&history);
        let window = Window::of(&history, &truth);
        assert_eq!(window.states(&history.operations[2]), (3, 3));
        assert_eq!(window.states(&history.operations[1]), (2, 3));
        assert_eq!(window.states(&history.operations[0]), (1, 2));
        slow.began = history.operations[0].began;
        assert_eq!(window.states(&slow), (1, 4));
    }
}
