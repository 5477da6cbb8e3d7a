//! When entries passed what lies between their proposal and the state machine, for the metrics alone.
//!
//! Consensus, the log and the commit work on many entries at once. Each of them leaves a mark a batch, the index of its
//! last entry and the time, and the state machine reads them when it has applied a run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::clock::Instant;
use crate::limits;

/// The marks of one member. Whoever clones it shares them.
#[derive(Clone, Default)]
pub(crate) struct Timeline(
    /// A leaf lock.
    Arc<Mutex<Marks>>,
);

#[derive(Default)]
struct Marks {
    proposed: Track,
    flushed: Track,
    replicated: Track,
}

/// When entries up to an index passed one place, oldest first, with rising indexes.
#[derive(Default)]
struct Track(VecDeque<(u64, Instant)>);

/// How the entries up to an index came to be applied, those before the first asked for left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) last: u64,
    pub(crate) proposed: Instant,
    flushed: Instant,
    replicated: Instant,
    applied: Instant,
}

impl Timeline {
    /// Entries up to this one have their place in the log.
    pub(crate) fn proposed(&self, last: u64, at: Instant) {
        self.0.lock().proposed.mark(last, at);
    }

    /// Entries up to this one are on this member's disk.
    pub(crate) fn flushed(&self, last: u64, at: Instant) {
        self.0.lock().flushed.mark(last, at);
    }

    /// Entries up to this one are known to be committed.
    pub(crate) fn replicated(&self, last: u64, at: Instant) {
        self.0.lock().replicated.mark(last, at);
    }

    /// How an entry, and those behind it that went with it all the way, came to be applied. What lies before it is
    /// forgotten.
    ///
    /// The moments are in the order of the stages. A majority may have an entry before it is on disk here: then that is
    /// the moment of both. Where a mark is missing, the stage ends with the next one.
    pub(crate) fn passage(&self, index: u64, applied: Instant) -> Passage {
        let mut marks = self.0.lock();
        let mut last = u64::MAX;
        let mut at = |track: &mut Track, later: Instant| match track.covering(index) {
            Some((end, at)) => {
                last = last.min(end);
                at.min(later)
            }
            None => {
                last = index;
                later
            }
        };
        let replicated = at(&mut marks.replicated, applied);
        let flushed = at(&mut marks.flushed, replicated);
        let proposed = at(&mut marks.proposed, flushed);
        Passage { last, proposed, flushed, replicated, applied }
    }

    /// Nobody asks for entries up to this one any more.
    pub(crate) fn forget_through(&self, index: u64) {
        let mut marks = self.0.lock();
        let Marks { proposed, flushed, replicated } = &mut *marks;
        for track in [proposed, flushed, replicated] {
            track.forget_before(index + 1);
        }
    }
}

impl Track {
    fn mark(&mut self, last: u64, at: Instant) {
        // Entries that were replaced by those of another leader.
        while self.0.back().is_some_and(|(before, _)| *before >= last) {
            self.0.pop_back();
        }
        // Where much is under way its oldest entries count for the mark of later ones.
        if self.0.len() == limits::TIMELINE_MARKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((last, at));
    }

    fn forget_before(&mut self, index: u64) {
        while self.0.front().is_some_and(|(last, _)| *last < index) {
            self.0.pop_front();
        }
    }

    fn covering(&mut self, index: u64) -> Option<(u64, Instant)> {
        self.forget_before(index);
        self.0.front().copied()
    }
}

impl Passage {
    pub(crate) fn took_to_flush(&self) -> Duration {
        self.flushed.saturating_duration_since(self.proposed)
    }

    pub(crate) fn took_to_replicate(&self) -> Duration {
        self.replicated.saturating_duration_since(self.flushed)
    }

    pub(crate) fn took_to_apply(&self) -> Duration {
        self.applied.saturating_duration_since(self.replicated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::clock;

    /// The passage of an entry in milliseconds from a moment on, and up to which entry it holds.
    fn passage(timeline: &Timeline, index: u64, start: Instant, applied: u64) -> (u64, [u128; 4]) {
        let found = timeline.passage(index, start + Duration::from_millis(applied));
        let proposed = found.proposed.saturating_duration_since(start);
        let took = [proposed, found.took_to_flush(), found.took_to_replicate(), found.took_to_apply()];
        (found.last, took.map(|took| took.as_millis()))
    }

    #[test]
    fn entries_that_went_together_are_told_together() {
        let (timeline, start) = (Timeline::default(), clock::now());
        let at = |millis| start + Duration::from_millis(millis);
        timeline.proposed(3, at(1));
        timeline.proposed(9, at(2));
        timeline.flushed(3, at(5));
        timeline.flushed(9, at(8));
        timeline.replicated(6, at(10));
        timeline.replicated(9, at(20));
        assert_eq!(passage(&timeline, 2, start, 30), (3, [1, 4, 5, 20]));
        assert_eq!(passage(&timeline, 4, start, 30), (6, [2, 6, 2, 20]));
        assert_eq!(passage(&timeline, 7, start, 40), (9, [2, 6, 12, 20]));
        timeline.forget_through(9);
        assert_eq!(passage(&timeline, 9, start, 40), (9, [40, 0, 0, 0]), "nothing is left");
    }

    /// The sum of the stages is the whole time, whatever is missing or came in another order.
    #[test]
    fn what_a_majority_had_first_is_replicated_at_once() {
        let (timeline, start) = (Timeline::default(), clock::now());
        let at = |millis| start + Duration::from_millis(millis);
        timeline.proposed(5, at(1));
        timeline.replicated(5, at(7));
        assert_eq!(passage(&timeline, 5, start, 9), (5, [1, 6, 0, 2]), "it is on its way to the disk");
        timeline.flushed(5, at(8));
        assert_eq!(passage(&timeline, 5, start, 9), (5, [1, 6, 0, 2]), "it is there, too late");
    }

    #[test]
    fn replaced_entries_leave_no_mark() {
        let (timeline, start) = (Timeline::default(), clock::now());
        timeline.proposed(9, start);
        timeline.proposed(4, start + Duration::from_millis(3));
        timeline.proposed(6, start + Duration::from_millis(5));
        assert_eq!(passage(&timeline, 4, start, 5).1[0], 3);
        assert_eq!(passage(&timeline, 6, start, 5).1[0], 5);
    }

    #[test]
    fn marks_are_bounded() {
        let (timeline, start) = (Timeline::default(), clock::now());
        for index in 0..2 * limits::TIMELINE_MARKS_MAX as u64 {
            timeline.flushed(index, start);
        }
        assert_eq!(timeline.0.lock().flushed.0.len(), limits::TIMELINE_MARKS_MAX);
        timeline.forget_through(u64::MAX - 1);
        assert!(timeline.0.lock().flushed.0.is_empty());
    }
}
