//! A watch sees a revision in one response, or in several that say that they are parts.

use super::text::{named, seconds};
use crate::history::{History, Received, Watch};

/// Checks that no response begins with the revision that the one before it ended with, unless that
/// one said that the rest follows; that this is said only where it was asked for; and that then the
/// rest does follow, unless the stream breaks.
pub fn check(history: &History) -> Result<(), String> {
    for (place, watch) in history.watches.iter().enumerate() {
        atomic(watch).map_err(|why| format!("{}: {why}", named(place, watch)))?;
    }
    Ok(())
}

fn atomic(watch: &Watch) -> Result<(), String> {
    // The last revision that came on this stream, and whether it is announced to go on.
    let mut before: Option<(i64, bool)> = None;
    for received in &watch.received {
        match received {
            Received::Events { at, changes, fragment, .. } => {
                let at = seconds(*at);
                let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
                    return Err(format!("at {at} came a response with neither events nor progress"));
                };
                let first = first.kv.modified;
                if before == Some((first, false)) {
                    return Err(format!("at {at} came a second part of revision {first}, which was not announced"));
                }
                if *fragment && !watch.fragment {
                    return Err(format!("at {at} came a part of a response, which was not asked for"));
                }
                before = Some((last.kv.modified, *fragment));
            }
            Received::Progress { at, .. } | Received::Compacted { at, .. } | Received::Cancelled { at } => {
                if let Some((revision, true)) = before {
                    let at = seconds(*at);
                    return Err(format!(
                        "at {at} the rest of revision {revision} was due, and this came: {received:?}"
                    ));
                }
            }
            Received::Opened { .. } | Received::Broken { .. } => before = None,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{all_keys, expect, millis, watch};
    use super::*;
    use crate::history::{Change, KeyValue};

    fn events(revisions: &[i64], fragment: bool) -> Received {
        let put = |revision: &i64| Change {
            deleted: false,
            kv: KeyValue { modified: *revision, ..KeyValue::default() },
            prev: None,
        };
        Received::Events { at: millis(1), revision: 9, changes: revisions.iter().map(put).collect(), fragment }
    }

    fn found(fragment: bool, received: Vec<Received>) -> Result<(), String> {
        let watch = Watch { fragment, received, ..watch(all_keys(), 1) };
        check(&History { watches: vec![watch], ..History::default() })
    }

    #[test]
    fn whole_revisions_and_announced_parts_pass() {
        assert_eq!(found(false, vec![events(&[2, 2, 3], false), events(&[4], false)]), Ok(()));
        assert_eq!(found(true, vec![events(&[2], true), events(&[2], true), events(&[2, 3], false)]), Ok(()));
        let broken = Received::Broken { at: millis(2), why: "test".into() };
        assert_eq!(found(true, vec![events(&[2], true), broken, events(&[2, 2], false)]), Ok(()));
    }

    #[test]
    fn a_split_revision_is_found() {
        expect(found(true, vec![events(&[2], false), events(&[2], false)]), "second part of revision 2");
        expect(found(false, vec![events(&[2], true), events(&[2], false)]), "not asked for");
        let progress = Received::Progress { at: millis(2), revision: 2 };
        expect(found(true, vec![events(&[2], true), progress]), "the rest of revision 2 was due");
        expect(found(false, vec![events(&[], false)]), "neither events nor progress");
    }
}
