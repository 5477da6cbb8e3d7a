use std::cell::Cell;

use mainstay_proto::KeyRange;

use crate::engine::EngineError;
use crate::mvcc::{KeyValue, RangeOptions, RangeResult, ReadError, Room, Store, WriteTxn};

/// A read at one revision, for what transactions do alike whether they write or not.
pub(super) trait View {
    /// Returns the key as it is.
    fn get(&mut self, key: &[u8]) -> Result<Option<KeyValue>, ReadError>;

    /// Returns the keys of a range as they are, or as they were where the options name a revision.
    fn range(&mut self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, ReadError>;
}

/// What a command sees while it writes: its own writes, and everything before it.
impl View for WriteTxn<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<KeyValue>, ReadError> {
        WriteTxn::get(self, key).map_err(ReadError::Engine)
    }

    fn range(&mut self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, ReadError> {
        let result = WriteTxn::range(self, range, options)?;
        Ok(RangeResult { revision: self.revision(), ..result })
    }
}

/// A published revision, while later ones are published.
pub(super) struct Pinned<'a> {
    store: &'a Store,
    pub(super) revision: i64,
    /// Is told how much was read by all reads together.
    room: Room<'a>,
    read: u64,
}

impl<'a> Pinned<'a> {
    pub(super) fn new(store: &'a Store, revision: i64, room: Room<'a>) -> Self {
        Self { store, revision, room, read: 0 }
    }

    pub(super) fn compact_revision(&self) -> i64 {
        self.store.compact_revision()
    }
}

impl View for Pinned<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<KeyValue>, ReadError> {
        self.store.get_at(key, self.revision)
    }

    fn range(&mut self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, ReadError> {
        let revision = if options.revision > 0 { options.revision } else { self.revision };
        let (before, now) = (self.read, Cell::new(0));
        let room = |bytes: u64| {
            now.set(bytes);
            (self.room)(before + bytes)
        };
        let result = self.store.range_within(range, &RangeOptions { revision, ..*options }, &room)?;
        self.read += now.get();
        Ok(RangeResult { revision: self.revision, ..result })
    }
}

/// The failure behind a read of what cannot be compacted or yet to come.
pub(super) fn engine_error(error: ReadError) -> EngineError {
    match error {
        ReadError::Engine(error) => error,
        ReadError::Compacted | ReadError::FutureRevision | ReadError::NoRoom => {
            EngineError(format!("a revision that was found to be readable is not: {error:?}"))
        }
    }
}
