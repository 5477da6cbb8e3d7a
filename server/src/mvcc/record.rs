//! What stands in `revisions`: a kind byte, then `mvccpb.KeyValue` in its wire encoding.
//!
//! The record is shared: a decoded [`KeyValue`] holds slices of it. Its bytes behind the kind are
//! those that etcd stores for the same change, which `HashKV` needs.

use bytes::Bytes;
use mainstay_proto::mvccpb::KeyValue;
use mainstay_proto::mvccpb::event::EventType;
use prost::Message;

use super::{Event, Revision};

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// Bytes that are not a record.
#[derive(Debug, thiserror::Error)]
#[error("a stored record is damaged")]
pub(crate) struct RecordError;

/// Encodes a put.
pub(crate) fn encode_put(kv: &KeyValue) -> Bytes {
    encode(PUT, kv)
}

/// Encodes a delete: of the key value only the key.
pub(crate) fn encode_delete(key: &Bytes) -> Bytes {
    encode(DELETE, &KeyValue { key: key.clone(), ..KeyValue::default() })
}

fn encode(kind: u8, kv: &KeyValue) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + kv.encoded_len());
    bytes.push(kind);
    kv.encode_raw(&mut bytes);
    bytes.into()
}

/// Whether a record is a delete.
pub(crate) fn is_delete(record: &[u8]) -> Result<bool, RecordError> {
    match record.first() {
        Some(&PUT) => Ok(false),
        Some(&DELETE) => Ok(true),
        _ => Err(RecordError),
    }
}

/// The bytes that etcd stores for the same change.
pub(crate) fn wire(record: &[u8]) -> &[u8] {
    record.get(1..).unwrap_or_default()
}

/// A record taken apart without copying.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) is_delete: bool,
    pub(crate) key: &'a [u8],
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) value: &'a [u8],
    pub(crate) lease: i64,
}

/// Takes a record apart.
pub(crate) fn parse(record: &[u8]) -> Result<Parts<'_>, RecordError> {
    let mut parts = Parts { is_delete: is_delete(record)?, ..Parts::default() };
    let mut rest = wire(record);
    while !rest.is_empty() {
        match take_varint(&mut rest)? {
            0x0a => parts.key = take_bytes(&mut rest)?,
            0x10 => parts.create_revision = take_varint(&mut rest)?.cast_signed(),
            0x18 => parts.mod_revision = take_varint(&mut rest)?.cast_signed(),
            0x20 => parts.version = take_varint(&mut rest)?.cast_signed(),
            0x2a => parts.value = take_bytes(&mut rest)?,
            0x30 => parts.lease = take_varint(&mut rest)?.cast_signed(),
            _ => return Err(RecordError),
        }
    }
    if parts.key.is_empty() { Err(RecordError) } else { Ok(parts) }
}

/// The key value of a put; key and value share the record.
pub(crate) fn key_value(record: &Bytes) -> Result<KeyValue, RecordError> {
    let parts = parse(record)?;
    if parts.is_delete {
        return Err(RecordError);
    }
    Ok(KeyValue {
        key: record.slice_ref(parts.key),
        create_revision: parts.create_revision,
        mod_revision: parts.mod_revision,
        version: parts.version,
        value: record.slice_ref(parts.value),
        lease: parts.lease,
    })
}

/// The event that the change of a record makes.
pub(crate) fn event(revision: Revision, record: &Bytes) -> Result<Event, RecordError> {
    let (kind, kv) = if is_delete(record)? {
        let key = record.slice_ref(parse(record)?.key);
        (EventType::Delete, KeyValue { key, mod_revision: revision.main, ..KeyValue::default() })
    } else {
        (EventType::Put, key_value(record)?)
    };
    Ok(Event { r#type: kind.into(), kv: Some(kv), prev_kv: None })
}

/// Takes a protobuf varint off the front.
fn take_varint(rest: &mut &[u8]) -> Result<u64, RecordError> {
    let mut value = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(value);
        }
    }
    Err(RecordError)
}

/// Takes a length and that many bytes off the front.
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RecordError> {
    let len = usize::try_from(take_varint(rest)?).map_err(|_| RecordError)?;
    let (taken, left) = rest.split_at_checked(len).ok_or(RecordError)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::cases;
    use super::*;

    fn kv() -> KeyValue {
        KeyValue { key: "k".into(), create_revision: 2, mod_revision: 300, version: 3, value: "v".into(), lease: -1 }
    }

    #[test]
    fn the_bytes_are_fixed() {
        assert_eq!(
            encode_put(&kv()).as_ref(),
            b"\0\x0a\x01k\x10\x02\x18\xac\x02\x20\x03\x2a\x01v\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        );
        assert_eq!(encode_delete(&"k".into()).as_ref(), b"\x01\x0a\x01k");
    }

    #[test]
    fn damage_is_found() {
        for bytes in [
            &b""[..],
            b"\x02",
            b"\0",
            b"\0\x0a",
            b"\0\x0a\x05k",
            b"\0\x0a\x01k\x38\x01",
            b"\0\x0a\x01k\x10",
            b"\0\x0a\x01k\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(key_value(&encode_delete(&"k".into())).is_err());
    }

    #[test]
    fn a_delete_makes_an_event_of_key_and_revision() {
        let event = event(Revision { main: 9, sub: 1 }, &encode_delete(&"k".into())).unwrap();
        assert_eq!(event.r#type, i32::from(EventType::Delete));
        assert_eq!(event.kv.unwrap(), KeyValue { key: "k".into(), mod_revision: 9, ..KeyValue::default() });
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn what_was_encoded_is_decoded(
            key in prop::collection::vec(any::<u8>(), 1..40), create: i64, modified: i64, version: i64,
            value in prop::collection::vec(any::<u8>(), 0..300), lease: i64,
        ) {
            let kv = KeyValue {
                key: key.into(), create_revision: create, mod_revision: modified, version, value: value.into(), lease,
            };
            let record = encode_put(&kv);
            prop_assert_eq!(KeyValue::decode(wire(&record)).unwrap(), kv.clone());
            prop_assert_eq!(key_value(&record).unwrap(), kv);
        }
    }
}
