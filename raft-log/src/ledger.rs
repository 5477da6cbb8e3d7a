//! What the log amounts to, in the order of the disk: the fold over its frames. Pure.
//!
//! Recovery folds what it finds; the writer folds what it writes, before it writes it, so that
//! nothing is written that recovery would refuse.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::record::Frame;
use crate::state::Position;

/// The state after a number of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The first record's index; none when there are no records.
    pub(crate) first: Option<u64>,
    /// What the next record follows: the last record or the purge mark.
    pub(crate) last: Option<Position>,
    pub(crate) purged: Option<Position>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
    /// First and last index of the records of each segment that has any left.
    live: BTreeMap<u32, (u64, u64)>,
    begun: bool,
}

impl Ledger {
    /// Folds one more frame, which stands in a segment. Refuses a frame that cannot follow.
    pub(crate) fn apply(&mut self, segment: u32, frame: &Frame<'_>) -> Result<(), &'static str> {
        if !self.begun && !matches!(frame, Frame::Start | Frame::Continue { .. }) {
            return Err("a segment does not begin with its head");
        }
        match *frame {
            Frame::Start => self.open(None, None)?,
            Frame::Continue { last, first } => self.open(Some(last), first)?,
            Frame::Record { position, .. } => self.record(segment, position)?,
            Frame::Purge(position) => self.purge(position),
            Frame::Truncate { last } => {
                if self.last.is_none_or(|before| before.index < last.index) {
                    return Err("a truncation lies beyond the last record");
                }
                self.remove_after(Some(last.index));
                self.last = Some(last);
            }
            Frame::Clear => {
                self.remove_after(None);
                self.last = None;
            }
            Frame::Vote(vote) => self.vote = Some(Bytes::copy_from_slice(vote)),
            Frame::Committed(committed) => self.committed = Some(Bytes::copy_from_slice(committed)),
        }
        Ok(())
    }

    /// The frames that a new segment opens with, so that it needs no older one but for its records.
    pub(crate) fn head(&self) -> impl Iterator<Item = Frame<'_>> {
        let opening = match self.last {
            None => Frame::Start,
            Some(last) => Frame::Continue { last, first: self.first },
        };
        std::iter::once(opening)
            .chain(self.purged.map(Frame::Purge))
            .chain(self.vote.as_deref().map(Frame::Vote))
            .chain(self.committed.as_deref().map(Frame::Committed))
    }

    /// Whether a segment holds records that are neither purged nor removed.
    pub(crate) fn is_live(&self, segment: u32) -> bool {
        self.live.contains_key(&segment)
    }

    fn open(&mut self, last: Option<Position>, first: Option<u64>) -> Result<(), &'static str> {
        if self.begun && (last != self.last || first != self.first) {
            return Err("a segment does not follow the one before it");
        }
        (self.begun, self.last, self.first) = (true, last, first);
        Ok(())
    }

    fn record(&mut self, segment: u32, position: Position) -> Result<(), &'static str> {
        if self.last.is_some_and(|last| position.index != last.index + 1) {
            return Err("a record does not follow the one before it");
        }
        self.last = Some(position);
        self.first.get_or_insert(position.index);
        self.live.entry(segment).or_insert((position.index, position.index)).1 = position.index;
        Ok(())
    }

    fn purge(&mut self, position: Position) {
        self.purged = Some(position);
        self.live.retain(|_, (first, last)| {
            *first = (*first).max(position.index.saturating_add(1));
            *first <= *last
        });
        if self.last.is_none_or(|last| last.index <= position.index) {
            self.last = Some(position);
            self.first = None;
        }
        self.first = self.first.map(|first| first.max(position.index + 1));
    }

    fn remove_after(&mut self, index: Option<u64>) {
        self.live.retain(|_, (first, last)| {
            let Some(index) = index else {
                return false;
            };
            *last = (*last).min(index);
            *first <= *last
        });
        self.first = self.first.filter(|first| index.is_some_and(|index| *first <= index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position { index, term }
    }

    fn record(index: u64, term: u64) -> Frame<'static> {
        Frame::Record { position: at(index, term), payload: b"" }
    }

    fn folded(frames: &[(u32, Frame<'_>)]) -> Result<Ledger, &'static str> {
        let mut ledger = Ledger::default();
        for (segment, frame) in frames {
            ledger.apply(*segment, frame)?;
        }
        Ok(ledger)
    }

    #[test]
    fn a_head_restores_all_but_the_records() {
        let before = folded(&[
            (1, Frame::Start),
            (1, record(5, 1)),
            (1, record(6, 1)),
            (1, record(7, 2)),
            (1, Frame::Purge(at(5, 1))),
            (1, Frame::Vote(b"v")),
            (1, Frame::Committed(b"c")),
        ])
        .unwrap();
        let mut after = Ledger::default();
        for frame in before.head() {
            after.apply(2, &frame).unwrap();
        }
        assert_eq!(after, Ledger { live: BTreeMap::new(), ..before.clone() });
        assert_eq!((after.first, after.last, after.purged), (Some(6), Some(at(7, 2)), Some(at(5, 1))));
        // A head in the middle changes nothing.
        let mut same = before.clone();
        for frame in before.head() {
            same.apply(2, &frame).unwrap();
        }
        assert_eq!(same, before);
    }

    #[test]
    fn segments_die_when_their_records_are_purged_or_removed() {
        let frames = [(1, Frame::Start), (1, record(1, 1)), (1, record(2, 1)), (2, record(3, 1)), (3, record(4, 1))];
        let mut ledger = folded(&frames).unwrap();
        ledger.apply(3, &Frame::Truncate { last: at(2, 1) }).unwrap();
        assert_eq!([1, 2, 3].map(|segment| ledger.is_live(segment)), [true, false, false]);
        ledger.apply(3, &record(3, 2)).unwrap();
        assert_eq!([1, 2, 3].map(|segment| ledger.is_live(segment)), [true, false, true]);
        ledger.apply(3, &Frame::Purge(at(2, 1))).unwrap();
        assert_eq!([1, 2, 3].map(|segment| ledger.is_live(segment)), [false, false, true]);
        assert_eq!(ledger.first, Some(3));
        ledger.apply(3, &Frame::Purge(at(9, 4))).unwrap();
        assert_eq!((ledger.first, ledger.last, ledger.is_live(3)), (None, Some(at(9, 4)), false));
        assert!(ledger.apply(3, &record(9, 4)).is_err());
        assert!(ledger.apply(3, &record(10, 4)).is_ok());
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        assert!(folded(&[(1, record(1, 1))]).is_err());
        assert!(folded(&[(1, Frame::Start), (1, record(1, 1)), (1, record(3, 1))]).is_err());
        assert!(folded(&[(1, Frame::Start), (1, record(1, 1)), (2, Frame::Start)]).is_err());
        assert!(folded(&[(1, Frame::Start), (1, record(1, 1)), (1, Frame::Truncate { last: at(2, 1) })]).is_err());
        let cleared = folded(&[(1, Frame::Start), (1, record(1, 1)), (1, Frame::Clear), (1, record(8, 1))]).unwrap();
        assert_eq!(cleared.first, Some(8));
    }
}
