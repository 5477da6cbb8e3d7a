//! What travels from the hub to a stream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mainstay_proto::etcdserverpb::{ResponseHeader, WatchResponse};

use crate::mvcc::{Event, KeyValue, RevisionEvents};

/// A message for a stream.
pub(super) enum Delivery {
    /// An answer or a notice, complete but for the rest of its header.
    Notice(WatchResponse),
    /// Events of one watcher.
    Events(Events),
}

/// Events of one watcher, of one or more whole revisions in rising order.
pub(super) struct Events {
    /// The watcher's id on its stream.
    pub(super) id: i64,
    /// The revision for the header.
    pub(super) revision: i64,
    /// Whether the watcher wants the records before the events.
    pub(super) prev_kv: bool,
    /// Whether a large response may be split.
    pub(super) fragment: bool,
    /// The events, shared with other watchers.
    pub(super) parts: Vec<Part>,
    /// How many events there are.
    pub(super) count: usize,
    /// About their bytes.
    pub(super) bytes: usize,
}

/// What concerns one watcher of one revision.
pub(super) struct Part {
    pub(super) recorded: Arc<Recorded>,
    pub(super) chosen: Chosen,
}

/// Which events of a revision are meant.
pub(super) enum Chosen {
    /// Every one.
    All,
    /// Those at these places, rising.
    Some(Box<[u32]>),
}

impl Part {
    /// The events with their places in the revision.
    pub(super) fn events(&self) -> impl Iterator<Item = (usize, &Event)> {
        let events = &self.recorded.revision_events.events;
        let (all, some) = match &self.chosen {
            Chosen::All => (events.len(), &[][..]),
            Chosen::Some(places) => (0, &places[..]),
        };
        (0..all).chain(some.iter().map(|place| *place as usize)).map(|place| (place, &events[place]))
    }
}

/// The events of a revision, and the records before them as far as anybody asked for those.
pub(super) struct Recorded {
    pub(super) revision_events: Arc<RevisionEvents>,
    /// One for each event, made when the first one is asked for.
    previous: OnceLock<Box<[OnceLock<Option<KeyValue>>]>>,
    /// What the records take that are kept here.
    kept: AtomicUsize,
    kept_by_all: Kept,
}

/// What all records before events take that are kept.
#[derive(Clone)]
pub(super) struct Kept {
    bytes: Arc<AtomicUsize>,
    /// Beyond it everyone who wants one looks it up.
    max: usize,
}

impl Kept {
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Arc::default(), max }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.kept_by_all.bytes.fetch_sub(*self.kept.get_mut(), Ordering::Relaxed);
    }
}

impl Recorded {
    pub(super) fn new(revision_events: Arc<RevisionEvents>, kept_by_all: Kept) -> Arc<Self> {
        let (previous, kept) = (OnceLock::new(), AtomicUsize::new(0));
        Arc::new(Self { revision_events, previous, kept, kept_by_all })
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision_events.revision
    }

    /// About the bytes of all events.
    pub(super) fn bytes(&self) -> usize {
        self.revision_events.events.iter().map(event_bytes).sum()
    }

    /// The record before an event, if somebody has looked it up.
    pub(super) fn previous(&self, place: usize) -> Option<&Option<KeyValue>> {
        self.previous.get().and_then(|previous| previous[place].get())
    }

    /// Keeps the record before an event, which every watcher of the event shares, if there is room.
    pub(super) fn keep_previous(&self, place: usize, found: &Option<KeyValue>) {
        const FIXED: usize = 128;
        let bytes = FIXED + found.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
        if self.kept_by_all.bytes.load(Ordering::Relaxed) + bytes > self.kept_by_all.max {
            return;
        }
        let count = self.revision_events.events.len();
        let previous = self.previous.get_or_init(|| (0..count).map(|_| OnceLock::new()).collect());
        // Somebody else may have been faster.
        if previous[place].set(found.clone()).is_ok() {
            self.kept.fetch_add(bytes, Ordering::Relaxed);
            self.kept_by_all.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// About what an event takes in memory and on the wire.
pub(super) fn event_bytes(event: &Event) -> usize {
    const FIXED: usize = 32;
    FIXED + event.kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len())
}

/// A header that tells a revision; `api` knows the rest of it.
pub(super) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// The revision that a response's header tells.
pub(super) fn revision_of(response: &WatchResponse) -> i64 {
    response.header.map_or(0, |header| header.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(kept: &Kept) -> Arc<Recorded> {
        let event = Event { kv: Some(KeyValue::default()), ..Event::default() };
        Recorded::new(Arc::new(RevisionEvents { revision: 2, events: vec![event.clone(), event] }), kept.clone())
    }

    #[test]
    fn records_before_events_are_kept_while_there_is_room() {
        let kept = Kept::new(1_000);
        let found = Some(KeyValue { value: vec![0; 400].into(), ..KeyValue::default() });
        let first = recorded(&kept);
        first.keep_previous(0, &found);
        assert_eq!((first.previous(0), first.previous(1)), (Some(&found), None));
        let bytes = kept.bytes();
        first.keep_previous(0, &found);
        assert_eq!(kept.bytes(), bytes, "it is kept once");
        let second = recorded(&kept);
        second.keep_previous(1, &found);
        assert_eq!(second.previous(1), None, "there is no room");
        drop(first);
        assert_eq!(kept.bytes(), 0);
        second.keep_previous(1, &found);
        assert_eq!(second.previous(1), Some(&found));
    }
}
