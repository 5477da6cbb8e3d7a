//! What travels from the hub to a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mainstay_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use parking_lot::Mutex;

use crate::mvcc::{Event, RevisionEvents};

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

/// In which of two forms an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Without the record before it.
    Plain,
    /// With it, where there is one.
    WithPrevious,
}

/// The events of a revision, and their encodings as far as anybody was told of them.
pub(super) struct Recorded {
    pub(super) revision_events: Arc<RevisionEvents>,
    /// A leaf lock.
    encoded: Mutex<Encoded>,
    kept_by_all: Kept,
}

/// What is kept of the encodings of a revision's events.
#[derive(Default)]
struct Encoded {
    /// One for each event, made when the first encoding is kept.
    events: Box<[EncodedEvent]>,
    /// What they take.
    bytes: usize,
}

#[derive(Clone, Default)]
struct EncodedEvent {
    plain: Option<Bytes>,
    with_previous: Option<Bytes>,
}

impl EncodedEvent {
    fn form(&self, form: Form) -> &Option<Bytes> {
        match form {
            Form::Plain => &self.plain,
            Form::WithPrevious => &self.with_previous,
        }
    }
}

/// What all encodings take that are kept.
#[derive(Clone)]
pub(super) struct Kept {
    bytes: Arc<AtomicUsize>,
    /// Beyond it everyone makes their own.
    max: usize,
}

impl Kept {
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Arc::default(), max }
    }

    /// Whether old ones should make room for those that come.
    pub(super) fn is_half_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.max / 2
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.kept_by_all.bytes.fetch_sub(self.encoded.get_mut().bytes, Ordering::Relaxed);
    }
}

impl Recorded {
    pub(super) fn new(revision_events: Arc<RevisionEvents>, kept_by_all: Kept) -> Arc<Self> {
        Arc::new(Self { revision_events, encoded: Mutex::default(), kept_by_all })
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision_events.revision
    }

    /// About the bytes of all events.
    pub(super) fn bytes(&self) -> usize {
        self.revision_events.events.iter().map(event_bytes).sum()
    }

    /// The encoding of an event, if somebody has made it.
    pub(super) fn encoded(&self, place: usize, form: Form) -> Option<Bytes> {
        self.encoded.lock().events.get(place)?.form(form).clone()
    }

    /// Keeps the encoding of an event, which every watcher of the event shares, if there is room.
    pub(super) fn keep_encoded(&self, place: usize, form: Form, event: &Bytes) {
        const FIXED: usize = 64;
        let bytes = FIXED + event.len();
        if self.kept_by_all.bytes.load(Ordering::Relaxed) + bytes > self.kept_by_all.max {
            return;
        }
        let mut encoded = self.encoded.lock();
        if encoded.events.is_empty() {
            encoded.events = vec![EncodedEvent::default(); self.revision_events.events.len()].into();
        }
        let kept = &mut encoded.events[place];
        let kept = match form {
            Form::Plain => &mut kept.plain,
            Form::WithPrevious => &mut kept.with_previous,
        };
        // Somebody else may have been faster.
        if kept.is_none() {
            *kept = Some(event.clone());
            encoded.bytes += bytes;
            self.kept_by_all.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Lets go of the encodings.
    pub(super) fn forget_encoded(&self) {
        let forgotten = std::mem::take(&mut *self.encoded.lock());
        self.kept_by_all.bytes.fetch_sub(forgotten.bytes, Ordering::Relaxed);
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
    use crate::mvcc::KeyValue;

    fn recorded(kept: &Kept) -> Arc<Recorded> {
        let event = Event { kv: Some(KeyValue::default()), ..Event::default() };
        Recorded::new(Arc::new(RevisionEvents { revision: 2, events: vec![event.clone(), event] }), kept.clone())
    }

    #[test]
    fn encodings_are_kept_while_there_is_room() {
        let kept = Kept::new(1_000);
        let (plain, longer) = (Bytes::from(vec![0; 300]), Bytes::from(vec![1; 500]));
        let first = recorded(&kept);
        first.keep_encoded(0, Form::Plain, &plain);
        assert_eq!(first.encoded(0, Form::Plain).as_ref(), Some(&plain));
        assert_eq!((first.encoded(0, Form::WithPrevious), first.encoded(1, Form::Plain)), (None, None));
        let bytes = kept.bytes();
        first.keep_encoded(0, Form::Plain, &plain);
        assert_eq!(kept.bytes(), bytes, "it is kept once");
        assert!(!kept.is_half_full());
        first.keep_encoded(0, Form::WithPrevious, &longer);
        assert_eq!(first.encoded(0, Form::WithPrevious).as_ref(), Some(&longer));
        assert!(kept.is_half_full());
        let second = recorded(&kept);
        second.keep_encoded(1, Form::Plain, &plain);
        assert_eq!(second.encoded(1, Form::Plain), None, "there is no room");
        first.forget_encoded();
        assert_eq!((kept.bytes(), first.encoded(0, Form::Plain)), (0, None));
        second.keep_encoded(1, Form::Plain, &plain);
        assert_eq!(second.encoded(1, Form::Plain).as_ref(), Some(&plain));
        drop(second);
        assert_eq!(kept.bytes(), 0);
    }
}
