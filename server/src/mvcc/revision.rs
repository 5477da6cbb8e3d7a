//! The place of one change in the history.

use crate::engine::layout;

/// A change of one key: the transaction that made it, and its place within that transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The number of the transaction; 1 is the empty store, so changes begin at 2.
    pub main: i64,
    /// The number of the change within the transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The bytes that sort as revisions do.
    pub fn to_bytes(self) -> [u8; layout::REVISION_KEY_LEN] {
        layout::revision_key(self.main, self.sub)
    }

    /// The revision of such bytes; `None` for any others.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        layout::decode_revision_key(bytes).map(|(main, sub)| Self { main, sub })
    }

    /// The first possible revision of a transaction.
    pub(crate) fn first_of(main: i64) -> Self {
        Self { main, sub: 0 }
    }
}
