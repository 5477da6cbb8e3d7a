//! Where a watch stands, and what a response from the server means for it. Pure.

use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use mainstay_proto::mvccpb::Event;

use crate::client::revision;
use crate::error::{Error, Reason};

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// Events of one or more revisions, each revision complete, in order.
    Events {
        /// The revision in the response's header.
        revision: i64,
        /// The events; each has its own revision in `kv.mod_revision`.
        events: Vec<Event>,
    },
    /// Every event up to this revision was delivered before.
    Progress {
        /// That revision.
        revision: i64,
    },
}

/// The position of a watch, and the fragments of a response that is not complete.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The first revision that was not delivered. 0 until the server has said where "now" is.
    next_revision: i64,
    /// Events of earlier fragments of the response that is being received.
    fragments: Vec<Event>,
}

impl Cursor {
    /// A cursor at the start of a watch. As on the wire, 0 means from now on.
    pub(super) fn new(start_revision: i64) -> Self {
        Self { next_revision: start_revision, fragments: Vec::new() }
    }

    pub(super) fn next_revision(&self) -> i64 {
        self.next_revision
    }

    /// The request that goes on from here. Half a response received on an earlier stream is
    /// forgotten: the server sends the whole of it again.
    pub(super) fn resume(&mut self, watch: &WatchCreateRequest) -> WatchCreateRequest {
        self.fragments.clear();
        WatchCreateRequest { start_revision: self.next_revision, ..watch.clone() }
    }

    /// Takes the answer to a create request; returns the revision at which the watch was created.
    pub(super) fn created(&mut self, response: &WatchResponse) -> Result<i64, Error> {
        if response.canceled {
            return Err(cancelled(response));
        }
        if !response.created {
            return Err(Error::Malformed("a watch that begins with something else than its creation"));
        }
        let now = revision(&response.header);
        if self.next_revision == 0 {
            // A watch from now on, so that it stays "from then on" when it has to be opened again.
            self.next_revision = now + 1;
        }
        Ok(now)
    }

    /// Takes any later response. `None` where it is not complete yet.
    pub(super) fn accept(&mut self, mut response: WatchResponse) -> Result<Option<Update>, Error> {
        if response.canceled {
            return Err(cancelled(&response));
        }
        if response.created {
            return Err(Error::Malformed("a watch that was created twice"));
        }
        let revision = revision(&response.header);
        if response.events.is_empty() && self.fragments.is_empty() {
            self.advance_past(revision);
            return Ok(Some(Update::Progress { revision }));
        }
        self.fragments.append(&mut response.events);
        if response.fragment {
            return Ok(None);
        }
        let events = std::mem::take(&mut self.fragments);
        let last =
            events.last().and_then(|event| event.kv.as_ref()).ok_or(Error::Malformed("an event without a key"))?;
        self.advance_past(last.mod_revision);
        Ok(Some(Update::Events { revision, events }))
    }

    fn advance_past(&mut self, revision: i64) {
        self.next_revision = self.next_revision.max(revision + 1);
    }
}

fn cancelled(response: &WatchResponse) -> Error {
    if response.compact_revision > 0 {
        return Error::WatchCompacted { compact_revision: response.compact_revision };
    }
    let text = response.cancel_reason.clone();
    Error::WatchCancelled { reason: Reason::of(&text), text }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::ResponseHeader;
    use mainstay_proto::mvccpb::KeyValue;

    use super::*;

    fn response(revision: i64, event_revisions: &[i64]) -> WatchResponse {
        WatchResponse {
            header: Some(ResponseHeader { revision, ..Default::default() }),
            events: event_revisions.iter().map(|revision| event(*revision)).collect(),
            ..Default::default()
        }
    }

    fn event(revision: i64) -> Event {
        Event { kv: Some(KeyValue { mod_revision: revision, ..Default::default() }), ..Default::default() }
    }

    fn create(cursor: &mut Cursor, revision: i64) {
        let created = WatchResponse { created: true, ..response(revision, &[]) };
        assert_eq!(cursor.created(&created).unwrap(), revision);
    }

    #[test]
    fn a_watch_from_now_on_stays_so() {
        let mut cursor = Cursor::new(0);
        create(&mut cursor, 7);
        assert_eq!(cursor.next_revision(), 8);
        // Opened again later, elsewhere: still from 8.
        assert_eq!(cursor.resume(&WatchCreateRequest::default()).start_revision, 8);
        create(&mut cursor, 20);
        assert_eq!(cursor.next_revision(), 8);
    }

    #[test]
    fn it_goes_on_after_the_last_event_and_not_after_the_header() {
        let mut cursor = Cursor::new(3);
        create(&mut cursor, 9);
        // Catching up, the header names the store's revision, which is ahead of the events.
        let update = cursor.accept(response(9, &[3, 4, 4])).unwrap().unwrap();
        assert!(matches!(update, Update::Events { revision: 9, events } if events.len() == 3));
        assert_eq!(cursor.next_revision(), 5);
    }

    #[test]
    fn progress_moves_it_but_never_back() {
        let mut cursor = Cursor::new(3);
        create(&mut cursor, 9);
        assert_eq!(cursor.accept(response(9, &[])).unwrap(), Some(Update::Progress { revision: 9 }));
        assert_eq!(cursor.next_revision(), 10);
        cursor.accept(response(5, &[])).unwrap();
        assert_eq!(cursor.next_revision(), 10);
    }

    #[test]
    fn fragments_become_one_update() {
        let mut cursor = Cursor::new(1);
        create(&mut cursor, 2);
        let piece = |fragment| WatchResponse { fragment, ..response(2, &[2]) };
        assert_eq!(cursor.accept(piece(true)).unwrap(), None);
        assert_eq!(cursor.next_revision(), 1, "half a revision does not count");
        assert_eq!(cursor.accept(piece(true)).unwrap(), None);
        let update = cursor.accept(piece(false)).unwrap().unwrap();
        assert!(matches!(update, Update::Events { events, .. } if events.len() == 3));
        assert_eq!(cursor.next_revision(), 3);
    }

    #[test]
    fn fragments_of_a_broken_stream_are_forgotten() {
        let mut cursor = Cursor::new(1);
        create(&mut cursor, 2);
        cursor.accept(WatchResponse { fragment: true, ..response(2, &[2]) }).unwrap();
        assert_eq!(cursor.resume(&WatchCreateRequest::default()).start_revision, 1);
        create(&mut cursor, 2);
        let update = cursor.accept(response(2, &[2, 2])).unwrap().unwrap();
        assert!(matches!(update, Update::Events { events, .. } if events.len() == 2));
    }

    #[test]
    fn cancellation_is_typed() {
        let mut cursor = Cursor::new(1);
        let compacted = WatchResponse { canceled: true, compact_revision: 5, ..Default::default() };
        let error = cursor.accept(compacted).unwrap_err();
        assert!(matches!(error, Error::WatchCompacted { compact_revision: 5 }));
        let text = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        let denied = WatchResponse { created: true, canceled: true, cancel_reason: text.into(), ..Default::default() };
        assert_eq!(cursor.created(&denied).unwrap_err().reason(), Some(Reason::PermissionDenied));
    }
}
