//! A watch goes on where it was, and gets nothing from before it.

use super::text::{named, seconds};
use crate::history::{History, Received, Watch};

/// Checks of each opening of a watch that it asks for what comes next, leaving out nothing and
/// repeating nothing; that nothing comes before it or after it broke; that no event is older than
/// what was asked for; and that no response is of an earlier revision than its events.
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
    for received in &watch.received {
        match received {
            Received::Opened { at, start: asked, revision } => {
                let expected = next.unwrap_or(watch.start);
                if *asked != expected {
                    let at = seconds(*at);
                    return Err(format!("at {at} it was opened from revision {asked}, and {expected} comes next"));
                }
                let first = if *asked == 0 { revision + 1 } else { *asked };
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
                next = next.max(Some(revision + 1));
            }
            Received::Compacted { resumed, .. } => (start, next, part) = (None, Some(*resumed), None),
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
        let compacted = Received::Compacted { at: millis(1), compact_revision: 8, resumed: 12 };
        assert_eq!(events_then(vec![broken(), opened(6, 11), compacted, opened(12, 12)]), Ok(()));
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
}
