//! Key values in the encoding in which they leave, made of the records as they are stored.
//!
//! A record holds the encoding of its key value already (`record`). So a list is neither taken apart nor encoded as a
//! whole: what leaves is made piece by piece, and what a piece was made of is let go.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::KeyValue;
use super::index::{Entry, KeyRef};
use super::record::{self, RecordError};

/// What stands before the length of each: the field `kvs` of `etcdserverpb.RangeResponse`.
const KVS: u8 = 0x12;

/// Bytes of a piece that is put together of small ones.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes from which on a key value leaves as it is stored, without being copied.
const WHOLE_BYTES: usize = 16 * 1024;

const _: () = assert!(WHOLE_BYTES < PIECE_BYTES, "what is copied fits into a piece");

/// The field `kvs` of an `etcdserverpb.RangeResponse`, encoded, as pieces to be taken.
#[derive(Clone, Debug, Default)]
pub struct EncodedKvs {
    parts: VecDeque<Part>,
    /// A part whose beginning was taken.
    whole: Option<Bytes>,
    count: usize,
    /// Bytes that were not taken.
    left: u64,
}

#[derive(Clone, Debug)]
enum Part {
    /// A put as it is stored.
    Record(Bytes),
    /// Fields as they leave.
    Fields(BytesMut),
}

impl EncodedKvs {
    /// The number of key values that were added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The length of the encoding, as far as it was not taken.
    pub fn encoded_len(&self) -> u64 {
        self.left
    }

    /// Adds a record, which must be a put, without looking further into it.
    pub(super) fn add_record(&mut self, record: Bytes) -> Result<(), RecordError> {
        if record::is_delete(&record)? {
            return Err(RecordError);
        }
        let len = record::wire(&record).len();
        self.left += (head_len(len) + len) as u64;
        self.count += 1;
        self.parts.push_back(Part::Record(record));
        Ok(())
    }

    /// Adds a key value that is not stored in this form.
    pub(super) fn add_key_value(&mut self, kv: &KeyValue) {
        let len = kv.encoded_len();
        let fields = self.fields(head_len(len) + len);
        put_head(fields, len);
        kv.encode_raw(fields);
    }

    /// Adds fields as they leave: those of one key value.
    pub(super) fn add_fields(&mut self, one: &[u8]) {
        self.fields(one.len()).extend_from_slice(one);
    }

    /// Where so many bytes of one more key value are to be put.
    fn fields(&mut self, len: usize) -> &mut BytesMut {
        self.left += len as u64;
        self.count += 1;
        // A first one may stay alone; behind a full one follow more.
        let capacity = match self.parts.back() {
            Some(Part::Fields(fields)) if fields.len() + len <= PIECE_BYTES => None,
            Some(Part::Fields(_)) => Some(PIECE_BYTES.max(len)),
            Some(Part::Record(_)) | None => Some(len),
        };
        if let Some(capacity) = capacity {
            self.parts.push_back(Part::Fields(BytesMut::with_capacity(capacity)));
        }
        match self.parts.back_mut() {
            Some(Part::Fields(fields)) => fields,
            _ => unreachable!("it was just added"),
        }
    }

    /// Takes the next piece off the front; `None` when all are taken.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        let piece = self.whole.take().or_else(|| self.gather())?;
        self.left -= piece.len() as u64;
        Some(piece)
    }

    /// Puts a piece together of what is small; what is not small leaves by itself.
    fn gather(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        while let Some(part) = self.parts.pop_front() {
            match part {
                Part::Record(record) => {
                    let wire = record::wire(&record);
                    let is_small = wire.len() < WHOLE_BYTES;
                    let taken = head_len(wire.len()) + if is_small { wire.len() } else { 0 };
                    if !piece.is_empty() && piece.len() + taken > PIECE_BYTES {
                        self.parts.push_front(Part::Record(record));
                        break;
                    }
                    if piece.capacity() == 0 {
                        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                        piece.reserve(if is_small { PIECE_BYTES.min(most) } else { taken });
                    }
                    put_head(&mut piece, wire.len());
                    if !is_small {
                        self.whole = Some(record.slice_ref(wire));
                        break;
                    }
                    piece.extend_from_slice(wire);
                }
                Part::Fields(fields) if piece.is_empty() => return Some(fields.freeze()),
                Part::Fields(fields) => {
                    self.parts.push_front(Part::Fields(fields));
                    break;
                }
            }
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

/// What stands before so many bytes of a key value.
fn head_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64)
}

fn put_head(buffer: &mut impl BufMut, len: usize) {
    buffer.put_u8(KVS);
    encode_varint(len as u64, buffer);
}

/// Appends the field of a key's newest version without its value and lease, from the index alone; the same as
/// [`EncodedKvs::add_key_value`] of such a key value.
pub(super) fn put_key(buffer: &mut Vec<u8>, key: KeyRef<'_>, entry: &Entry) {
    let (create_revision, version) = entry.head().map_or((0, 0), |head| (head.create, head.version));
    let numbers = [(0x10, create_revision), (0x18, entry.revision().main), (0x20, version)]
        .map(|(tag, number)| (tag, number.cast_unsigned()));
    let there = || numbers.iter().filter(|(_, number)| *number != 0);
    let [prefix, suffix] = key.halves();
    let key_len = prefix.len() + suffix.len();
    let numbers_len: usize = there().map(|(_, number)| 1 + encoded_len_varint(*number)).sum();
    put_head(buffer, 1 + encoded_len_varint(key_len as u64) + key_len + numbers_len);
    buffer.push(0x0a);
    encode_varint(key_len as u64, buffer);
    buffer.extend_from_slice(prefix);
    buffer.extend_from_slice(suffix);
    for (tag, number) in there() {
        buffer.push(*tag);
        encode_varint(*number, buffer);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::RangeResponse;
    use proptest::prelude::*;

    use super::super::Revision;
    use super::super::tests::cases;
    use super::*;

    fn kv(key: Vec<u8>, value: Vec<u8>, [create_revision, mod_revision, version, lease]: [i64; 4]) -> KeyValue {
        KeyValue { key: key.into(), create_revision, mod_revision, version, value: value.into(), lease }
    }

    /// All that is left, and the largest piece of it.
    fn taken(mut encoded: EncodedKvs) -> (Vec<u8>, usize) {
        let (mut all, mut largest, len) = (Vec::new(), 0, encoded.encoded_len());
        while let Some(piece) = encoded.next_piece() {
            assert!(!piece.is_empty());
            largest = largest.max(piece.len());
            all.extend_from_slice(&piece);
            assert_eq!(encoded.encoded_len(), len - all.len() as u64);
        }
        assert_eq!(encoded.encoded_len(), 0);
        (all, largest)
    }

    fn key_value() -> impl Strategy<Value = KeyValue> {
        let value = prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 0..200),
            1 => (0usize..40_000).prop_map(|len| vec![7; len]),
        ];
        (prop::collection::vec(any::<u8>(), 1..40), value, any::<[i64; 4]>())
            .prop_map(|(key, value, numbers)| kv(key, value, numbers))
    }

    #[test]
    fn a_piece_is_bounded_and_what_is_large_is_not_copied() {
        let mut encoded = EncodedKvs::default();
        let small = record::encode_put(&kv(b"k".to_vec(), vec![1; 1000], [2, 2, 1, 0]));
        let large = record::encode_put(&kv(b"l".to_vec(), vec![1; 1 << 20], [3, 3, 1, 0]));
        for _ in 0..1000 {
            encoded.add_record(small.clone()).unwrap();
        }
        encoded.add_record(large.clone()).unwrap();
        assert_eq!(encoded.count(), 1001);
        let mut pieces = Vec::new();
        while let Some(piece) = encoded.next_piece() {
            pieces.push(piece);
        }
        let last = pieces.pop().unwrap();
        assert_eq!(last.as_ptr(), large[1..].as_ptr(), "it is the record itself");
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES), "{pieces:?}");
        assert!(pieces.len() < 20, "{} pieces for a megabyte", pieces.len());
    }

    #[test]
    fn what_was_taken_is_let_go() {
        let mut encoded = EncodedKvs::default();
        let record = record::encode_put(&kv(b"k".to_vec(), vec![1; 40_000], [2, 2, 1, 0]));
        encoded.add_record(record.clone()).unwrap();
        assert!(!record.is_unique());
        while encoded.next_piece().is_some() {}
        assert!(record.is_unique());
    }

    #[test]
    fn a_tombstone_is_no_key_value() {
        assert!(EncodedKvs::default().add_record(record::encode_delete(&"k".into())).is_err());
        assert!(EncodedKvs::default().add_record(Bytes::new()).is_err());
    }

    proptest! {
        #![proptest_config(cases(256))]

        /// However a key value was added, the bytes are those of the ordinary encoding.
        #[test]
        fn the_bytes_are_those_of_the_message(kvs in prop::collection::vec((key_value(), any::<bool>()), 0..60)) {
            let mut encoded = EncodedKvs::default();
            for (kv, is_stored) in &kvs {
                if *is_stored {
                    encoded.add_record(record::encode_put(kv)).unwrap();
                } else {
                    encoded.add_key_value(kv);
                }
            }
            prop_assert_eq!(encoded.count(), kvs.len());
            let message = RangeResponse { kvs: kvs.into_iter().map(|(kv, _)| kv).collect(), ..RangeResponse::default() };
            let (bytes, largest) = taken(encoded);
            prop_assert!(bytes == message.encode_to_vec());
            prop_assert!(largest <= PIECE_BYTES);
        }

        #[test]
        fn a_key_from_the_index_has_the_bytes_of_its_key_value(
            key in prop::collection::vec(any::<u8>(), 1..300), at: prop::sample::Index,
            create in 1i64.., gap in 0i64..1 << 40, version in 1i64..,
        ) {
            let main = create.saturating_add(gap);
            let mut entry = Entry::default();
            entry.put(Revision { main, sub: 0 }, create, version, 7);
            let (prefix, suffix) = key.split_at(at.index(key.len() + 1));
            let mut field = Vec::new();
            put_key(&mut field, KeyRef::parts(prefix, suffix), &entry);
            let mut encoded = EncodedKvs::default();
            encoded.add_fields(&field);
            let kvs = vec![kv(key, Vec::new(), [create, main, version, 0])];
            let message = RangeResponse { kvs, ..RangeResponse::default() };
            prop_assert_eq!(taken(encoded).0, message.encode_to_vec());
        }
    }
}
