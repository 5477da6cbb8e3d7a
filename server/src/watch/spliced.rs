//! A response whose events are encoded already, once for all who are told of them.
//!
//! Events are the last field of a response, so its encoding is that of everything else followed by theirs.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mainstay_proto::etcdserverpb::WatchResponse;
use prost::Message;
use prost::encoding::message;

use crate::mvcc::{Event, KeyValue};

/// The tag of a response's events, the highest of its tags.
const EVENTS_TAG: u32 = 11;

/// A response as it goes out. Many of them share the bytes of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplicedResponse {
    /// Everything but the events.
    pub head: WatchResponse,
    /// Each as a field of the response.
    events: Vec<Bytes>,
}

impl SplicedResponse {
    /// Events are those that [`encoded_event`] has made.
    pub(super) fn new(head: WatchResponse, events: Vec<Bytes>) -> Self {
        debug_assert!(head.events.is_empty());
        Self { head, events }
    }

    /// Whether it tells of events.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The bytes of its encoding.
    pub fn encoded_len(&self) -> usize {
        self.head.encoded_len() + self.events.iter().map(Bytes::len).sum::<usize>()
    }

    /// Writes what the ordinary encoding of the response would be.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        self.head.encode_raw(buffer);
        for event in &self.events {
            buffer.put_slice(event);
        }
    }

    /// The response for who is in the same process.
    pub fn into_response(self) -> WatchResponse {
        let Self { mut head, events } = self;
        head.events = events.into_iter().map(decoded_event).collect();
        head
    }

    /// The parts of it.
    pub(super) fn into_parts(self) -> (WatchResponse, Vec<Bytes>) {
        (self.head, self.events)
    }

    pub(super) fn events(&self) -> &[Bytes] {
        &self.events
    }
}

impl From<WatchResponse> for SplicedResponse {
    fn from(mut head: WatchResponse) -> Self {
        let events = std::mem::take(&mut head.events);
        Self { head, events: events.iter().map(encoded_field).collect() }
    }
}

/// An event as a field of a response, with the record before it where that is told.
pub(super) fn encoded_event(event: &Event, previous: Option<KeyValue>) -> Bytes {
    match previous {
        None => encoded_field(event),
        previous => encoded_field(&Event { prev_kv: previous, ..event.clone() }),
    }
}

fn encoded_field(event: &Event) -> Bytes {
    let mut field = BytesMut::with_capacity(message::encoded_len(EVENTS_TAG, event));
    message::encode(EVENTS_TAG, event, &mut field);
    field.freeze()
}

fn decoded_event(mut field: Bytes) -> Event {
    const TAG_BYTES: usize = 1;
    field.advance(TAG_BYTES);
    Event::decode_length_delimited(field).expect("it was encoded here")
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::ResponseHeader;
    use mainstay_proto::mvccpb::event::EventType;
    use proptest::prelude::*;

    use super::*;

    fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
    }

    fn record() -> impl Strategy<Value = KeyValue> {
        (bytes(20), bytes(400), any::<[i64; 4]>()).prop_map(|(key, value, [create, modified, version, lease])| {
            KeyValue { key, create_revision: create, mod_revision: modified, version, value, lease }
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        (any::<bool>(), record(), prop::option::of(record())).prop_map(|(deletes, kv, prev_kv)| {
            let kind = if deletes { EventType::Delete } else { EventType::Put };
            Event { r#type: kind as i32, kv: Some(kv), prev_kv }
        })
    }

    /// Whatever is set: created, cancelled with and without a reason or a compacted revision, progress, a fragment.
    fn response() -> impl Strategy<Value = WatchResponse> {
        let header = (any::<[u64; 3]>(), any::<i64>());
        let header = header.prop_map(|([cluster_id, member_id, raft_term], revision)| ResponseHeader {
            cluster_id,
            member_id,
            revision,
            raft_term,
        });
        let events = proptest::collection::vec(event(), 0..6);
        (prop::option::of(header), any::<[i64; 2]>(), any::<[bool; 3]>(), "[a-z ]{0,30}", events).prop_map(
            |(header, [watch_id, compact_revision], [created, canceled, fragment], cancel_reason, events)| {
                WatchResponse { header, watch_id, created, canceled, compact_revision, cancel_reason, fragment, events }
            },
        )
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_ordinary_encoding(response in response()) {
            let head = WatchResponse { events: Vec::new(), ..response.clone() };
            let event = |event: &Event| encoded_event(&Event { prev_kv: None, ..event.clone() }, event.prev_kv.clone());
            let spliced = SplicedResponse::new(head, response.events.iter().map(event).collect());
            let mut encoded = Vec::new();
            spliced.encode(&mut encoded);
            prop_assert_eq!(spliced.encoded_len(), encoded.len());
            prop_assert_eq!(&encoded, &response.encode_to_vec());
            prop_assert_eq!(&SplicedResponse::from(response.clone()), &spliced);
            prop_assert_eq!(spliced.into_response(), response);
        }
    }
}
