//! A watch sees revisions rise, and nothing twice.

use super::text::{named, seconds};
use crate::history::{Change, History, Received, Watch};

/// Checks that within a watch, over all its openings, revisions rise from one response to the next,
/// or stay where a response was split, do not fall within a response, and that no event comes again.
/// What was split when its stream broke is begun anew, and may come again.
pub fn check(history: &History) -> Result<(), String> {
    for (place, watch) in history.watches.iter().enumerate() {
        ordered(watch).map_err(|why| format!("{}: {why}", named(place, watch)))?;
    }
    Ok(())
}

fn ordered(watch: &Watch) -> Result<(), String> {
    let mut last = 0;
    // The events of the last revision.
    let mut of_last: Vec<&Change> = Vec::new();
    let mut is_open = false;
    for received in &watch.received {
        match received {
            Received::Events { at, changes, fragment, .. } => {
                for (place, change) in changes.iter().enumerate() {
                    let revision = change.kv.modified;
                    let at = seconds(*at);
                    // The first event may go on with a revision only where the last response said so.
                    if revision < last || (revision == last && place == 0 && !is_open) {
                        return Err(format!("at {at} revision {revision} came after revision {last}: {change:?}"));
                    }
                    if revision > last {
                        of_last.clear();
                    }
                    last = revision;
                    if of_last.iter().any(|other| other.kv.key == change.kv.key && other.deleted == change.deleted) {
                        return Err(format!("at {at} an event came again: {change:?}"));
                    }
                    of_last.push(change);
                }
                is_open = *fragment;
            }
            Received::Broken { .. } | Received::Opened { .. } | Received::Compacted { .. } => {
                if is_open {
                    last -= 1;
                    of_last.clear();
                }
                is_open = false;
            }
            Received::Progress { .. } | Received::Cancelled { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{all_keys, expect, millis, watch};
    use super::*;
    use crate::history::KeyValue;

    fn put(key: &str, revision: i64) -> Change {
        let kv = KeyValue { key: key.into(), modified: revision, ..KeyValue::default() };
        Change { deleted: false, kv, prev: None }
    }

    fn events(changes: Vec<Change>, fragment: bool) -> Received {
        Received::Events { at: millis(1), revision: 9, changes, fragment }
    }

    fn broken() -> Received {
        Received::Broken { at: millis(1), why: "test".into() }
    }

    fn found(received: Vec<Received>) -> Result<(), String> {
        let watch = Watch { received, ..watch(all_keys(), 1) };
        check(&History { watches: vec![watch], ..History::default() })
    }

    #[test]
    fn rising_revisions_pass() {
        let whole = events(vec![put("a", 2), put("b", 2), put("a", 4)], false);
        assert_eq!(found(vec![whole.clone(), events(vec![put("a", 5)], false)]), Ok(()));
        let removed = Change { deleted: true, ..put("a", 4) };
        assert_eq!(found(vec![events(vec![put("a", 4)], true), events(vec![removed], false)]), Ok(()));
        assert_eq!(found(vec![whole, broken(), events(vec![put("a", 5)], false)]), Ok(()));
    }

    #[test]
    fn what_was_split_when_it_broke_is_begun_anew() {
        let part = events(vec![put("a", 2), put("b", 2)], true);
        let whole = || events(vec![put("a", 2), put("b", 2), put("c", 2)], false);
        assert_eq!(found(vec![part.clone(), broken(), whole()]), Ok(()));
        expect(found(vec![whole(), broken(), whole()]), "revision 2 came after revision 2");
        expect(found(vec![part, whole()]), "came again");
    }

    #[test]
    fn falling_and_repeated_revisions_are_found() {
        expect(found(vec![events(vec![put("a", 3), put("b", 2)], false)]), "revision 2 came after revision 3");
        let three = || events(vec![put("a", 3)], false);
        expect(found(vec![three(), events(vec![put("b", 2)], false)]), "revision 2 came after revision 3");
        expect(found(vec![three(), three()]), "revision 3 came after revision 3");
        expect(found(vec![three(), broken(), three()]), "revision 3 came after revision 3");
        expect(found(vec![events(vec![put("a", 3), put("a", 3)], false)]), "came again");
    }
}
