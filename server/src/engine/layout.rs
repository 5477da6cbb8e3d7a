//! Every key that is stored, byte for byte; the values are their rooms'.
//!
//! Integers are big-endian, so that the order of the bytes is the order of the numbers.
//!
#![doc = include_str!("../docs/storage-format.md")]

use bytes::{BufMut, Bytes, BytesMut};

/// The newest format that this release knows; it reads and writes every older one, too.
///
/// It counts for all that members store and agree on: what the store holds, what a command may be, and what a command
/// does. The rules for raising it: `server/src/docs/decisions/2026-11-22-what-a-release-may-change.md`.
pub const FORMAT: u32 = 1;

/// The format of a new store. The members raise it together as soon as all of them know a newer one.
pub const FIRST_FORMAT: u32 = 1;

/// Data of a format that this release does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data has format {found}, this release knows {newest} at most: run the newer release that wrote it")]
pub struct NewerFormat {
    /// The format of the data.
    pub found: u32,
    /// The newest that is known here.
    pub newest: u32,
}

/// Refuses a format that is newer than the newest one that is known.
///
/// # Errors
/// When it is.
pub fn check_format(found: u32, newest: u32) -> Result<(), NewerFormat> {
    if found > newest { Err(NewerFormat { found, newest }) } else { Ok(()) }
}

/// Keys of [`Family::Meta`](super::Family::Meta).
pub mod meta {
    /// The format of everything stored: `u32`. Written when the store is created, and when the members raise it.
    pub const FORMAT: &[u8] = b"format";
    /// The last written revision: `i64`.
    pub const REVISION: &[u8] = b"revision";
    /// The revision up to which history may not be read any more: `i64`.
    pub const COMPACTED: &[u8] = b"compacted";
    /// The revision up to which compacted history has been removed: `i64`.
    pub const COMPACTION_FINISHED: &[u8] = b"compaction_finished";
    /// Bytes of all keys and values of [`Family::Revisions`](super::super::Family::Revisions) together: `i64`.
    /// Written with every change of them; a store of an older release does not have it.
    pub const RETAINED: &[u8] = b"retained";
    /// The revision that [`Family::Index`](super::super::Family::Index) covers at least: `i64`.
    pub const INDEXED_REVISION: &[u8] = b"indexed_revision";
    /// The applied position: opaque, written by `apply` for `raft`.
    pub const APPLIED: &[u8] = b"applied";
    /// What the applied entries wrote, as one number: written by `apply`. A store of an older release does not have it.
    pub const DIGEST: &[u8] = b"digest";
    /// Active alarms: written by `apply`.
    pub const ALARMS: &[u8] = b"alarms";
    /// The downgrade that is announced: written by `apply`.
    pub const DOWNGRADE: &[u8] = b"downgrade";
    /// Who this member is: written by `raft`.
    pub const IDENTITY: &[u8] = b"identity";
}

/// Keys of [`Family::Auth`](super::Family::Auth).
pub mod auth {
    use bytes::Bytes;

    /// Whether users and roles count: one byte, 0 or 1.
    pub const ENABLED: &[u8] = b"enabled";
    /// The revision of users and roles: `u64`.
    pub const REVISION: &[u8] = b"revision";
    /// What a role's name follows.
    pub const ROLE: &[u8] = b"role/";
    /// What a user's name follows.
    pub const USER: &[u8] = b"user/";

    /// The key of a role.
    pub fn role(name: &str) -> Bytes {
        [ROLE, name.as_bytes()].concat().into()
    }

    /// The key of a user.
    pub fn user(name: &str) -> Bytes {
        [USER, name.as_bytes()].concat().into()
    }
}

/// The length of a key of [`Family::Revisions`](super::Family::Revisions).
pub const REVISION_KEY_LEN: usize = 16;

/// A key of [`Family::Revisions`](super::Family::Revisions). Neither number is ever negative.
pub fn revision_key(main: i64, sub: i64) -> [u8; REVISION_KEY_LEN] {
    let mut key = [0; REVISION_KEY_LEN];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// The numbers of a key of [`Family::Revisions`](super::Family::Revisions).
pub fn decode_revision_key(key: &[u8]) -> Option<(i64, i64)> {
    let (main, sub) = key.split_at_checked(8)?;
    let main = i64::from_be_bytes(main.try_into().ok()?);
    let sub = i64::from_be_bytes(sub.try_into().ok()?);
    (main >= 0 && sub >= 0).then_some((main, sub))
}

/// A key of [`Family::Leases`](super::Family::Leases), in the order of the signed ids.
pub fn lease_key(id: i64) -> Bytes {
    // The sign bit is flipped, so that negative ids come first.
    let mut key = BytesMut::with_capacity(8);
    key.put_u64(id.cast_unsigned() ^ (1 << 63));
    key.freeze()
}

/// The id of a key of [`Family::Leases`](super::Family::Leases).
pub fn decode_lease_key(key: &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(key.try_into().ok()?) ^ (1 << 63)).cast_signed())
}

/// A key of [`Family::Members`](super::Family::Members).
pub fn member_key(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// The id of a key of [`Family::Members`](super::Family::Members).
pub fn decode_member_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// A number as a value of [`Family::Meta`](super::Family::Meta).
pub fn meta_i64(value: i64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// The number of a value of [`Family::Meta`](super::Family::Meta).
pub fn decode_meta_i64(value: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_fixed() {
        assert_eq!(revision_key(2, 1), [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(lease_key(7).as_ref(), [0x80, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(lease_key(-1).as_ref(), [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(member_key(0x0102).as_ref(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(meta_i64(-1).as_ref(), [0xff; 8]);
        assert_eq!(meta::REVISION, b"revision");
        assert_eq!((auth::user("a"), auth::role("b")), (b"user/a"[..].into(), b"role/b"[..].into()));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(decode_revision_key(&[0; 15]), None);
        assert_eq!(decode_revision_key(&[0; 17]), None);
        assert_eq!(decode_revision_key(&[0xff; 16]), None);
        assert_eq!(decode_lease_key(&[0; 7]), None);
        assert_eq!(decode_member_key(&[]), None);
        assert_eq!(decode_meta_i64(&[0; 9]), None);
    }

    #[test]
    fn a_newer_format_is_refused_and_both_are_named() {
        assert_eq!((check_format(1, 2), check_format(2, 2)), (Ok(()), Ok(())));
        let refused = check_format(3, 2).unwrap_err().to_string();
        assert!(refused.contains("format 3") && refused.contains("knows 2 at most"), "{refused}");
    }

    proptest! {
        #[test]
        fn order_and_round_trip(a in (0..i64::MAX, 0..i64::MAX), b in (0..i64::MAX, 0..i64::MAX), x: i64, y: i64) {
            prop_assert_eq!(decode_revision_key(&revision_key(a.0, a.1)), Some(a));
            prop_assert_eq!(revision_key(a.0, a.1).cmp(&revision_key(b.0, b.1)), a.cmp(&b));
            prop_assert_eq!(decode_lease_key(&lease_key(x)), Some(x));
            prop_assert_eq!(lease_key(x).cmp(&lease_key(y)), x.cmp(&y));
            let (u, v) = (x.cast_unsigned(), y.cast_unsigned());
            prop_assert_eq!(decode_member_key(&member_key(u)), Some(u));
            prop_assert_eq!(member_key(u).cmp(&member_key(v)), u.cmp(&v));
            prop_assert_eq!(decode_meta_i64(&meta_i64(x)), Some(x));
        }
    }
}
