//! Reading the changes in the order in which they were made.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use super::read::ReadError;
use super::store::Shared;
use super::{Event, Revision, record};
use crate::engine::{EngineError, Family};

/// The events of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionEvents {
    /// The revision.
    pub revision: i64,
    /// Its events in the order in which they were made; `prev_kv` is not set. A delete has the key
    /// and its `mod_revision` only.
    pub events: Vec<Event>,
}

/// A part of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSlice {
    /// Rising revisions, each whole.
    pub revisions: Vec<Arc<RevisionEvents>>,
    /// The revision from which to go on.
    pub next: i64,
}

/// Reads whole revisions from `from` to `to`, about `max_bytes` of them but at least one.
pub(super) fn events(shared: &Shared, from: i64, to: i64, max_bytes: usize) -> Result<EventSlice, ReadError> {
    let from = from.max(0);
    let (engine, published, compacted) = {
        let state = shared.state.read();
        (state.engine.clone().ok_or_else(super::store::released)?, state.published, state.compacted)
    };
    let to = to.min(published);
    // What is compacted in the middle of the scan is still in it: a scan sees the state at its beginning.
    let _pin = shared.pins.pin(from).ok_or(ReadError::Compacted)?;
    if from > to {
        return Ok(EventSlice { revisions: Vec::new(), next: from });
    }

    let mut gathered = Gathered { compacted, ..Gathered::default() };
    let mut bytes = 0;
    let mut failure = None;
    engine.scan(
        Family::Revisions,
        Bound::Included(&Revision::first_of(from).to_bytes()),
        Bound::Excluded(&Revision::first_of(to + 1).to_bytes()),
        &mut |key, value| {
            let Some(revision) = Revision::from_bytes(key) else {
                failure = Some(EngineError(format!("not a revision: {key:?}")));
                return ControlFlow::Break(());
            };
            if revision.main != gathered.revision && bytes >= max_bytes && gathered.revision > 0 {
                gathered.is_cut = true;
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            match record::event(revision, &Bytes::copy_from_slice(value)) {
                Ok(event) => {
                    gathered.add(revision.main, event);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(EngineError(format!("{revision:?}: {error}")));
                    ControlFlow::Break(())
                }
            }
        },
    )?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(gathered.finish(to)),
    }
}

/// Events on their way into whole revisions.
#[derive(Default)]
struct Gathered {
    revisions: Vec<Arc<RevisionEvents>>,
    /// The one that is being gathered; 0 before the first.
    revision: i64,
    events: Vec<Event>,
    /// Whether there is more than was asked for.
    is_cut: bool,
    compacted: i64,
}

impl Gathered {
    fn add(&mut self, revision: i64, event: Event) {
        if revision != self.revision {
            self.end_revision();
            self.revision = revision;
        }
        self.events.push(event);
    }

    fn end_revision(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return;
        }
        if self.revision == self.compacted {
            keep_last_of_each_key(&mut events);
        }
        self.revisions.push(Arc::new(RevisionEvents { revision: self.revision, events }));
    }

    fn finish(mut self, to: i64) -> EventSlice {
        self.end_revision();
        let next = if self.is_cut { self.revision + 1 } else { to + 1 };
        EventSlice { revisions: self.revisions, next }
    }
}

/// Of the compacted revision itself only the last change of each key is history; the others are
/// removed sooner or later, and no two members at the same time.
fn keep_last_of_each_key(events: &mut Vec<Event>) {
    let mut seen = std::collections::BTreeSet::new();
    events.reverse();
    events.retain(|event| event.kv.as_ref().is_some_and(|kv| seen.insert(kv.key.clone())));
    events.reverse();
}
