//! A watch sees everything that it asked for, as it was.

use std::time::Duration;

use super::text::{named, seconds};
use crate::history::{Call, Change, History, Outcome, Received, Watch};
use crate::model::Truth;

/// Checks that every watch was told of exactly the changes of its keys, from the first revision that
/// it wanted up to the end of the run: none left out, none else, with the content and in the order
/// of the record, its filters applied, and with what was there before if and only if it asked (that
/// may be missing where a compaction may have taken it).
///
/// A watch that was never opened is owed nothing here (`watch_opened.rs`), and one that its client has
/// cancelled nothing more. Any other goes on to the end of the run.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    let compactions = compactions(history);
    for (place, watch) in history.watches.iter().enumerate() {
        let run = Run { watch, truth, compactions: &compactions };
        run.check().map_err(|why| format!("{}: {why}", named(place, watch)))?;
    }
    Ok(())
}

/// When each compaction that may have happened was asked for, and up to where.
fn compactions(history: &History) -> Vec<(Duration, i64)> {
    let of = history.operations.iter().filter_map(|operation| match (&operation.call, &operation.outcome) {
        (Call::Compact { .. }, Outcome::Refused(_)) => None,
        (Call::Compact { revision, .. }, _) => Some((operation.began, *revision)),
        _ => None,
    });
    of.collect()
}

struct Run<'a> {
    watch: &'a Watch,
    truth: &'a Truth,
    compactions: &'a [(Duration, i64)],
}

impl Run<'_> {
    fn check(&self) -> Result<(), String> {
        let mut next = None;
        // Changes of a revision that is not complete yet.
        let mut parts: Vec<&Change> = Vec::new();
        for received in &self.watch.received {
            match received {
                Received::Opened { start, revision, .. } if next.is_none() => {
                    next = Some(if *start == 0 { revision + 1 } else { *start });
                }
                Received::Opened { .. } | Received::Broken { .. } => parts.clear(),
                Received::Events { at, changes, fragment, .. } => {
                    parts.extend(changes);
                    // The last revision of a part may go on in the next.
                    let last = parts.last().filter(|_| *fragment).map(|change| change.kv.modified);
                    let whole = parts.iter().take_while(|change| Some(change.kv.modified) != last).count();
                    let rest = parts.split_off(whole);
                    for revision in parts.chunk_by(|one, other| one.kv.modified == other.kv.modified) {
                        self.delivered(*at, revision, &mut next)?;
                    }
                    parts = rest;
                }
                Received::Compacted { resumed, .. } => {
                    parts.clear();
                    next = Some(*resumed);
                }
                // What it had not been told when it ended is not owed.
                Received::Cancelled { .. } => return Ok(()),
                Received::Progress { .. } => {}
            }
        }
        let missing = next.and_then(|next| self.truth.seen_by(self.watch, next, self.truth.last).next());
        match missing {
            Some((revision, changes)) => Err(format!("revision {revision} never came: {changes:?}")),
            None => Ok(()),
        }
    }

    /// Compares what came of one revision with the record.
    fn delivered(&self, at: Duration, changes: &[&Change], next: &mut Option<i64>) -> Result<(), String> {
        let revision = changes[0].kv.modified;
        let time = seconds(at);
        if let Some(next) = *next
            && let Some((missing, changes)) = self.truth.seen_by(self.watch, next, revision - 1).next()
        {
            return Err(format!("at {time} revision {revision} came, and revision {missing} had not: {changes:?}"));
        }
        *next = (*next).max(Some(revision + 1));
        if !self.truth.knows(revision) {
            return Ok(());
        }
        let expected = self.truth.seen_by(self.watch, revision, revision).next();
        let expected = expected.map_or(Vec::new(), |(_, changes)| changes);
        let is_same = |(one, other): (&&Change, &&Change)| one.deleted == other.deleted && one.kv == other.kv;
        if expected.len() != changes.len() || !expected.iter().zip(changes).all(is_same) {
            return Err(format!("at {time} revision {revision} came as {changes:?}\nand was {expected:?}"));
        }
        changes.iter().try_for_each(|change| self.prev(at, change))
    }

    fn prev(&self, at: Duration, change: &Change) -> Result<(), String> {
        let revision = change.kv.modified;
        if !self.watch.prev_kv {
            return match change.prev {
                None => Ok(()),
                Some(_) => Err(format!("what was before was not asked for: {change:?}")),
            };
        }
        if !self.truth.knows_state(revision) {
            return Ok(());
        }
        let expected = self.truth.prev(change);
        let is_compacted = || self.compactions.iter().any(|(began, up_to)| *began <= at && *up_to >= revision);
        if change.prev == expected || (change.prev.is_none() && is_compacted()) {
            return Ok(());
        }
        Err(format!("at {} before revision {revision} was {expected:?}, but {change:?} came", seconds(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, millis, put};
    use super::*;
    use crate::history::{Span, Step, Txn};

    /// A run of two keys, and a watch of one of them from revision 3 on.
    fn sample() -> History {
        let mut sample = Sample::new();
        for txn in [put("a", "1"), put("a", "2"), put("b", "3"), delete("a"), put("a", "4")] {
            sample.txn(1, txn);
        }
        sample.txn(
            1,
            Txn { then: vec![Step::put("a", "5"), Step::put("b", "6"), Step::put("aa", "7")], ..Txn::default() },
        );
        let mut watch = sample.history.watches[0].clone();
        (watch.span, watch.start) = (Span::prefix("a"), 3);
        watch.received[0] = Received::Opened { at: millis(0), start: 3, revision: 1 };
        watch.received.remove(1);
        watch.received.retain_mut(|received| match received {
            Received::Events { changes, .. } => {
                changes.retain(|change| change.kv.key.starts_with('a'));
                !changes.is_empty()
            }
            _ => true,
        });
        sample.history.watches.push(watch);
        sample.end()
    }

    fn found(history: &History) -> Result<(), String> {
        check(history, &Truth::of(history))
    }

    fn changes(history: &mut History, place: usize) -> &mut Vec<Change> {
        match &mut history.watches[1].received[place] {
            Received::Events { changes, .. } => changes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_as_it_was_passes() {
        assert_eq!(found(&sample()), Ok(()));
        let mut late = sample();
        late.watches[1].received[0] = Received::Opened { at: millis(0), start: 0, revision: 2 };
        assert_eq!(found(&late), Ok(()));
        late.watches[1].received.clear();
        assert_eq!(found(&late), Ok(()));
    }

    #[test]
    fn a_watch_that_was_cancelled_is_owed_nothing_more() {
        let mut history = sample();
        history.watches[1].received.truncate(3);
        expect(found(&history), "revision 6 never came");
        history.watches[1].received.push(Received::Cancelled { at: millis(999) });
        assert_eq!(found(&history), Ok(()));
        history.watches[1].received.remove(1);
        expect(found(&history), "revision 3 had not");
    }

    #[test]
    fn filters_leave_out_what_they_say() {
        let mut history = sample();
        history.watches[1].no_delete = true;
        assert!(found(&history).is_err());
        history.watches[1].received.remove(2);
        assert_eq!(found(&history), Ok(()));
        let mut history = sample();
        history.watches[1].no_put = true;
        assert!(found(&history).is_err());
        let delete = history.watches[1].received.remove(2);
        history.watches[1].received = vec![history.watches[1].received[0].clone(), delete];
        assert_eq!(found(&history), Ok(()));
    }

    #[test]
    fn a_split_revision_is_put_together_unless_it_broke() {
        let mut history = sample();
        let last = changes(&mut history, 4).pop().unwrap();
        let Received::Events { fragment, .. } = &mut history.watches[1].received[4] else { panic!("no events") };
        *fragment = true;
        let rest = Received::Events { at: millis(999), revision: 7, changes: vec![last], fragment: false };
        history.watches[1].received.push(rest.clone());
        assert_eq!(found(&history), Ok(()));
        history.watches[1].received.insert(5, Received::Broken { at: millis(999), why: "test".into() });
        expect(found(&history), "revision 7 came as");
        history.watches[1].received.truncate(5);
        expect(found(&history), "revision 7 never came");
    }

    #[test]
    fn a_gap_is_found() {
        for place in 1..=3 {
            let mut history = sample();
            history.watches[1].received.remove(place);
            expect(found(&history), "had not");
        }
        let mut history = sample();
        history.watches[1].received.pop();
        expect(found(&history), "revision 7 never came");
        let mut history = sample();
        changes(&mut history, 4).pop();
        expect(found(&history), "revision 7 came as");
    }

    #[test]
    fn other_content_is_found() {
        let wrong: [fn(&mut Change); 6] = [
            |change| change.kv.value.push('x'),
            |change| change.kv.created += 1,
            |change| change.kv.version += 1,
            |change| change.kv.lease = 9,
            |change| change.kv.key = "ab".into(),
            |change| change.deleted = true,
        ];
        for wrong in wrong {
            let mut history = sample();
            wrong(&mut changes(&mut history, 3)[0]);
            expect(found(&history), "came as");
        }
        let mut history = sample();
        changes(&mut history, 4).swap(0, 1);
        expect(found(&history), "came as");
        let mut history = sample();
        let Received::Events { changes: b, .. } = history.watches[0].received[3].clone() else { panic!("no events") };
        let foreign = Received::Events { at: millis(1), revision: 4, changes: b, fragment: false };
        history.watches[1].received.insert(2, foreign);
        expect(found(&history), "revision 4 came as");
    }

    #[test]
    fn wrong_previous_values_are_found() {
        let mut history = sample();
        changes(&mut history, 1)[0].prev = None;
        expect(found(&history), "before revision 3 was Some");
        // A compaction may have taken it, if it was asked for in time.
        let compact = |history: &mut History, revision, began| {
            let mut operation = history.operations[0].clone();
            (operation.call, operation.began) = (Call::Compact { revision, physical: false }, began);
            operation.outcome = Outcome::Unknown("timeout".into());
            history.operations.push(operation);
        };
        compact(&mut history, 3, millis(900));
        compact(&mut history, 2, millis(0));
        assert!(found(&history).is_err());
        compact(&mut history, 3, millis(0));
        assert_eq!(found(&history), Ok(()));
        let mut history = sample();
        changes(&mut history, 1)[0].prev.as_mut().unwrap().value = "x".into();
        expect(found(&history), "before revision 3 was");
        let mut history = sample();
        let prev = changes(&mut history, 1)[0].prev.clone();
        changes(&mut history, 3)[0].prev = prev;
        expect(found(&history), "before revision 6 was None");
        let mut history = sample();
        history.watches[1].prev_kv = false;
        expect(found(&history), "was not asked for");
    }

    #[test]
    fn what_was_compacted_away_is_not_owed() {
        let mut history = sample();
        let compacted = Received::Compacted { at: millis(1), compact_revision: 6, resumed: 7 };
        history.watches[1].received.splice(1..=3, [compacted]);
        assert_eq!(found(&history), Ok(()));
    }
}
