//! The stored form of a lease, in the family of that name: its id to its granted and remaining time to
//! live. Which keys are attached to it follows from the live records.

use bytes::{BufMut, Bytes, BytesMut};

use crate::engine::layout;

/// One stored lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The lease.
    pub id: i64,
    /// Seconds that were granted.
    pub ttl: i64,
    /// Seconds that were left at the last checkpoint, or 0.
    pub remaining: i64,
}

/// Stored bytes that are not a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored lease has a key of {key_len} and a value of {value_len} bytes, instead of 8 and 16")]
pub struct RecordError {
    /// Length of the key that was found.
    pub key_len: usize,
    /// Length of the value that was found.
    pub value_len: usize,
}

impl LeaseRecord {
    /// The key under which a lease is stored.
    pub fn key(id: i64) -> Bytes {
        layout::lease_key(id)
    }

    /// The value that is stored there.
    pub fn value(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(16);
        value.put_i64(self.ttl);
        value.put_i64(self.remaining);
        value.freeze()
    }

    /// Reads a stored pair.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let malformed = RecordError { key_len: key.len(), value_len: value.len() };
        let id = layout::decode_lease_key(key).ok_or(malformed)?;
        let value = <[u8; 16]>::try_from(value).map_err(|_| malformed)?;
        let value = u128::from_be_bytes(value);
        Ok(Self { id, ttl: (value >> 64) as i64, remaining: value as i64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_bytes_are_fixed() {
        let record = LeaseRecord { id: -2, ttl: 60, remaining: 258 };
        let key = LeaseRecord::key(record.id);
        assert_eq!(key.as_ref(), b"\x7f\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!(record.value().as_ref(), b"\0\0\0\0\0\0\0\x3c\0\0\0\0\0\0\x01\x02");
        assert_eq!(LeaseRecord::decode(&key, &record.value()), Ok(record));
    }

    #[test]
    fn what_was_stored_is_read() {
        for (ttl, remaining) in [(0, 0), (i64::MAX, i64::MIN), (-1, -1), (-5, 7)] {
            let record = LeaseRecord { id: i64::MIN, ttl, remaining };
            assert_eq!(LeaseRecord::decode(&LeaseRecord::key(record.id), &record.value()), Ok(record));
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        assert_eq!(LeaseRecord::decode(b"1234567", &[0; 16]), Err(RecordError { key_len: 7, value_len: 16 }));
        assert_eq!(LeaseRecord::decode(b"12345678", &[0; 15]), Err(RecordError { key_len: 8, value_len: 15 }));
    }
}
