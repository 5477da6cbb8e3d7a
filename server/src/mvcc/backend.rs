//! A change as etcd's backend holds it: what `HashKV` is computed over, and what a snapshot consists of.

use super::{Revision, record};

/// Stored bytes that are no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored revision is damaged")]
pub struct DamagedChange;

/// A pair of etcd's bucket `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendChange<'a> {
    key: [u8; KEY_BYTES + 1],
    key_len: usize,
    /// The change as an encoded `mvccpb.KeyValue`.
    pub value: &'a [u8],
}

const KEY_BYTES: usize = 17;

impl<'a> BackendChange<'a> {
    /// Makes it of a pair of the family `revisions`.
    ///
    /// # Errors
    /// When the pair is none.
    pub fn of(key: &[u8], value: &'a [u8]) -> Result<Self, DamagedChange> {
        let revision = Revision::from_bytes(key).ok_or(DamagedChange)?;
        let is_delete = record::is_delete(value).map_err(|_| DamagedChange)?;
        let (key, key_len) = self::key(revision, is_delete);
        Ok(Self { key, key_len, value: record::wire(value) })
    }

    /// The key: the revision, marked where it is a tombstone.
    pub fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }
}

/// The bytes of a revision on its own.
pub fn revision_bytes(revision: Revision) -> [u8; KEY_BYTES] {
    let mut bytes = [b'_'; KEY_BYTES];
    bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
    bytes[9..].copy_from_slice(&revision.sub.to_be_bytes());
    bytes
}

/// The bytes of a change's key, and how many of them count.
pub(super) fn key(revision: Revision, is_delete: bool) -> ([u8; KEY_BYTES + 1], usize) {
    let mut key = [b't'; KEY_BYTES + 1];
    key[..KEY_BYTES].copy_from_slice(&revision_bytes(revision));
    (key, if is_delete { KEY_BYTES + 1 } else { KEY_BYTES })
}

#[cfg(test)]
mod tests {
    use mainstay_proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn the_bytes_are_etcds() {
        let revision = Revision { main: 0x0102, sub: 3 };
        let delete = record::encode_delete(&"k".into());
        let change = BackendChange::of(&revision.to_bytes(), &delete).unwrap();
        assert_eq!(change.key(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        assert_eq!(change.value, b"\x0a\x01k");
        let put = record::encode_put(&KeyValue { key: "k".into(), version: 1, ..KeyValue::default() });
        let change = BackendChange::of(&revision.to_bytes(), &put).unwrap();
        assert_eq!(change.key(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        assert_eq!(change.value, b"\x0a\x01k\x20\x01");
    }

    #[test]
    fn damage_is_found() {
        let key = Revision { main: 2, sub: 0 }.to_bytes();
        assert_eq!(BackendChange::of(&key[1..], b"\0"), Err(DamagedChange));
        assert_eq!(BackendChange::of(&key, b"\x07"), Err(DamagedChange));
        assert_eq!(BackendChange::of(&key, b""), Err(DamagedChange));
    }
}
