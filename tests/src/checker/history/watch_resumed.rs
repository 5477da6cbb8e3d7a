//! A watch goes on where it was, and gets nothing from before it.

use super::text::{named, seconds};
use crate::history::{History, Received, Watch};

/// Checks of each opening of a watch that it asks for what comes next, leaving out nothing and
/// repeating nothing; that nothing comes before it or after it broke, and nothing at all after it was
/// cancelled; that neither an event nor progress is older than what was asked for; that no response is
/// of an earlier revision than its events; and that no compaction ends a watch that does not want what
/// is gone. (That this much was compacted, `compaction.rs` checks.)
pub fn check(history: &History) -> Result<(), String> {
    for (place, watch) in history.watches.iter().enumerate() {
        resumed(watch).map_err(|why| format!("{}: {why}", named(place, watch)))?;
    }
    Ok(())
}

fn resumed(watch: &Watch) -> Result<(), String> {
    // What the watch has not been told yet; `None` before its first opening.
    let mut next: Option<i64> = None;
    // The first revision that this stream may deliver; `None` while there is none.
    let mut start = None;
    let mut part = None;
    // The first revision that this stream may speak of.
    let mut asked_from = 0;
    let mut cancelled = false;
    for received in &watch.received {
        if cancelled {
            return Err(format!("it was cancelled, and this came: {received:?}"));
        }
        match received {
            Received::Opened { at, start: asked, revision } => {
                let expected = next.unwrap_or(watch.start);
                if *asked != expected {
                    let at = seconds(*at);
                    return Err(format!("at {at} it was opened from revision {asked}, and {expected} comes next"));
                }
                let first = if *asked == 0 { revision + 1 } else { *asked };
                asked_from = *asked;
                (start, next, part) = (Some(first), Some(first), None);
            }
            Received::Events { at, revision, changes, fragment } => {
                let at = seconds(*at);
                let Some(start) = start else { return Err(format!("at {at} events came on no stream: {changes:?}")) };
                let revisions = || changes.iter().map(|change| change.kv.modified);
                if let Some(early) = revisions().find(|revision| *revision < start) {
                    return Err(format!("at {at} revision {early} came on a stream from revision {start}"));
                }
                if let Some(later) = revisions().find(|later| later > revision) {
                    return Err(format!("at {at} revision {later} came in a response of revision {revision}"));
                }
                let last = revisions().max().unwrap_or(0);
                part = fragment.then_some(last);
                next = next.max(Some(last + 1));
            }
            Received::Progress { at, revision } => {
                if start.is_none() {
                    return Err(format!("at {} progress came on no stream", seconds(*at)));
                }
                if *revision < asked_from {
                    let at = seconds(*at);
                    return Err(format!("at {at} progress up to {revision} came on a stream from {asked_from}"));
                }
                next = next.max(Some(revision + 1));
            }
            Received::Compacted { at, compact_revision, resumed } => {
                let at = seconds(*at);
                let Some(wanted) = next.filter(|_| start.is_some()) else {
                    return Err(format!("at {at} it was ended by a compaction, and was not open"));
                };
                // The compacted revision itself can be watched.
                if *compact_revision <= wanted || *resumed < *compact_revision {
                    let why = format!("{compact_revision} is compacted, and it was to go on from {wanted}");
                    return Err(format!("at {at} it was ended because {why}; it goes on from {resumed}"));
                }
                (start, next, part) = (None, Some(*resumed), None);
            }
            Received::Cancelled { .. } => cancelled = true,
            Received::Broken { .. } => {
                // Of what came in part nothing counts.
                next = part.or(next);
                (start, part) = (None, None);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{all_keys, expect, millis, watch};
    use super::*;
    use crate::history::{Change, KeyValue};

    fn opened(start: i64, revision: i64) -> Received {
        Received::Opened { at: millis(1), start, revision }
    }

    fn events(modified: i64, revision: i64, fragment: bool) -> Received {
        let kv = KeyValue { modified, ..KeyValue::default() };
        let changes = vec![Change { deleted: false, kv, prev: None }];
        Received::Events { at: millis(1), revision, changes, fragment }
    }

    fn broken() -> Received {
        Received::Broken { at: millis(1), why: "test".into() }
    }

    fn progress(revision: i64) -> Received {
        Received::Progress { at: millis(1), revision }
    }

    fn compacted(compact_revision: i64, resumed: i64) -> Received {
        Received::Compacted { at: millis(1), compact_revision, resumed }
    }

    fn cancelled() -> Received {
        Received::Cancelled { at: millis(1) }
    }

    fn found(start: i64, received: Vec<Received>) -> Result<(), String> {
        let watch = Watch { received, ..watch(all_keys(), start) };
        check(&History { watches: vec![watch], ..History::default() })
    }

    #[test]
    fn going_on_behind_what_was_told_passes() {
        let events_then = |more: Vec<Received>| {
            let mut received = vec![opened(3, 9), events(5, 9, false)];
            received.extend(more);
            found(3, received)
        };
        assert_eq!(events_then(vec![broken(), opened(6, 4), broken(), opened(6, 9), events(6, 6, false)]), Ok(()));
        assert_eq!(events_then(vec![progress(8), broken(), opened(9, 9)]), Ok(()));
        assert_eq!(events_then(vec![events(6, 9, true), broken(), opened(6, 9), events(6, 9, false)]), Ok(()));
        assert_eq!(events_then(vec![broken(), opened(6, 11), compacted(8, 12), opened(12, 12)]), Ok(()));
        assert_eq!(events_then(vec![compacted(7, 7), opened(7, 12)]), Ok(()));
        assert_eq!(events_then(vec![cancelled()]), Ok(()));
        assert_eq!(found(0, vec![opened(0, 7), broken(), opened(8, 9), events(8, 9, false)]), Ok(()));
    }

    #[test]
    fn leaving_out_and_repeating_are_found() {
        let first = || vec![opened(3, 9), events(5, 9, false), broken()];
        let again = |start| found(3, [first(), vec![opened(start, 9)]].concat());
        expect(again(7), "opened from revision 7, and 6 comes next");
        expect(again(5), "opened from revision 5, and 6 comes next");
        expect(found(3, vec![opened(4, 9)]), "and 3 comes next");
        expect(found(0, vec![opened(0, 7), broken(), opened(0, 9)]), "and 8 comes next");
    }

    #[test]
    fn old_events_are_found() {
        expect(found(3, vec![opened(3, 9), events(2, 9, false)]), "revision 2 came on a stream from revision 3");
        expect(found(0, vec![opened(0, 7), events(7, 7, false)]), "revision 7 came on a stream from revision 8");
        expect(found(3, vec![opened(3, 9), events(5, 4, false)]), "in a response of revision 4");
    }

    #[test]
    fn what_comes_on_no_stream_is_found() {
        expect(found(3, vec![events(5, 9, false)]), "on no stream");
        expect(found(3, vec![opened(3, 9), broken(), progress(5)]), "on no stream");
    }

    #[test]
    fn what_comes_after_a_cancellation_is_found() {
        for late in [events(5, 9, false), progress(9), opened(3, 9), cancelled()] {
            expect(found(3, vec![opened(3, 9), cancelled(), late]), "it was cancelled, and this came");
        }
    }

    #[test]
    fn progress_before_the_start_is_found() {
        assert_eq!(found(9, vec![opened(9, 4), progress(9)]), Ok(()));
        assert_eq!(found(0, vec![opened(0, 4), progress(4)]), Ok(()));
        expect(found(9, vec![opened(9, 4), progress(8)]), "progress up to 8 came on a stream from 9");
    }

    #[test]
    fn a_compaction_of_what_is_not_wanted_is_found() {
        expect(found(3, vec![opened(3, 9), compacted(3, 3)]), "it was to go on from 3");
        expect(found(3, vec![opened(3, 9), events(5, 9, false), compacted(6, 6)]), "it was to go on from 6");
        expect(found(0, vec![opened(0, 9), compacted(8, 8)]), "it was to go on from 10");
        expect(found(3, vec![opened(3, 9), compacted(5, 4)]), "it goes on from 4");
        expect(found(3, vec![compacted(5, 5)]), "was not open");
        expect(found(3, vec![opened(3, 9), compacted(5, 5), compacted(7, 7)]), "was not open");
    }
}
