//! A watch that is told of progress has seen everything up to there.

use super::text::{named, seconds};
use crate::history::{History, Received, Watch};
use crate::model::Truth;

/// Checks that whoever was told of progress up to a revision had been told everything that it wants
/// up to there, and gets no event of that revision or an earlier one later; and that on one stream
/// progress does not fall behind what was delivered.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    for (place, watch) in history.watches.iter().enumerate() {
        progress(watch, truth).map_err(|why| format!("{}: {why}", named(place, watch)))?;
    }
    Ok(())
}

fn progress(watch: &Watch, truth: &Truth) -> Result<(), String> {
    // Up to where the watch was told everything, and was told so.
    let mut promised = 0;
    // From where on it has not been told.
    let mut next = None;
    let mut on_this_stream = 0;
    for received in &watch.received {
        match received {
            Received::Opened { start, revision, .. } => {
                on_this_stream = 0;
                let from = if *start == 0 { revision + 1 } else { *start };
                next = Some(next.map_or(from, |next: i64| next.max(from)));
            }
            Received::Events { at, changes, .. } => {
                if let Some(late) = changes.iter().find(|change| change.kv.modified <= promised) {
                    let at = seconds(*at);
                    return Err(format!("at {at} an event came after progress up to {promised}: {late:?}"));
                }
                let last = changes.last().map_or(0, |change| change.kv.modified);
                next = next.map(|next| next.max(last + 1));
                on_this_stream = on_this_stream.max(last);
            }
            Received::Progress { at, revision } => {
                let at = seconds(*at);
                if *revision < on_this_stream {
                    return Err(format!("at {at} progress up to {revision} came after revision {on_this_stream}"));
                }
                let missing = next.and_then(|next| truth.seen_by(watch, next, *revision).next());
                if let Some((missing, changes)) = missing {
                    let text = format!("at {at} there was progress up to {revision}");
                    return Err(format!("{text}, but revision {missing} had not come: {changes:?}"));
                }
                promised = promised.max(*revision);
                on_this_stream = on_this_stream.max(*revision);
            }
            Received::Compacted { resumed, .. } => next = Some(*resumed),
            Received::Cancelled { .. } | Received::Broken { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, expect, put};
    use super::*;
    use crate::history::Span;

    /// A run, and a watch of one of its keys that has seen two of its three changes.
    fn sample() -> History {
        let mut sample = Sample::new();
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("a", "5")] {
            sample.txn(1, put(key, value));
        }
        let mut watch = sample.history.watches[0].clone();
        watch.span = Span::key("a");
        watch.received.retain(|received| match received {
            Received::Events { changes, .. } => changes[0].kv.key == "a",
            _ => true,
        });
        sample.history.watches.push(watch);
        sample.end()
    }

    fn with(place: usize, revision: i64) -> Result<(), String> {
        let mut history = sample();
        let progress = Received::Progress { at: history.end.at, revision };
        history.watches[1].received.insert(place, progress);
        check(&history, &Truth::of(&history))
    }

    #[test]
    fn true_progress_passes() {
        for (place, revision) in [(1, 1), (2, 2), (2, 3), (3, 4), (3, 5), (4, 6), (4, 9)] {
            assert_eq!(with(place, revision), Ok(()), "{place} {revision}");
        }
    }

    #[test]
    fn early_progress_is_found() {
        expect(with(1, 2), "revision 2 had not come");
        expect(with(2, 4), "revision 4 had not come");
    }

    #[test]
    fn an_event_behind_progress_is_found() {
        let mut history = sample();
        let at = history.end.at;
        // The record does not know revision 4, so that only the order is wrong.
        history.watches[0].received.remove(3);
        history.watches[1].received.insert(2, Received::Progress { at, revision: 5 });
        expect(check(&history, &Truth::of(&history)), "an event came after progress up to 5");
    }

    #[test]
    fn progress_that_falls_behind_is_found() {
        expect(with(3, 3), "progress up to 3 came after revision 4");
    }
}
