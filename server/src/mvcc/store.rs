//! What readers and the writer share, and the readers' handle to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use mainstay_proto::KeyRange;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::hash::HashKv;
use super::history::EventSlice;
use super::index::{Cache, Changes, Tree};
use super::read::{EncodedResult, RangeOptions, RangeResult, ReadError, Room};
use super::{KeyValue, hash, history, read};
use crate::engine::{Engine, EngineError, View};
use crate::limits;

/// A handle to read the published state; clones are cheap and see the same.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What the handles share. Of its locks no two are ever held together.
pub(super) struct Shared {
    /// Locked for short sections: a slice of keys to read, one key or one run to write.
    pub(super) state: RwLock<State>,
    pub(super) pins: Pins,
    /// Hashes taken at compactions, oldest first.
    pub(super) hashes: Mutex<VecDeque<HashKv>>,
    /// The revision up to which compacted history has been removed.
    pub(super) finished: watch::Sender<i64>,
    /// Equals [`State::published`].
    published: AtomicI64,
    /// Bytes of all that is stored of records; changed by the writer only.
    retained: AtomicU64,
    /// Records that a reader fetches at once, before it is looked whether there is room for them.
    fetched_at_once: AtomicUsize,
}

/// How large a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes on disk, with what waits there to be given back.
    pub total_bytes: u64,
    /// Bytes of the records that can be read, history included, and of what a compaction has yet to remove:
    /// uncompressed, and without what the engine adds.
    pub in_use_bytes: u64,
}

/// The state that readers read. The index may be ahead of `published`: the writer's run is in it.
pub(super) struct State {
    /// `None` between `release` and `reopen`.
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) tree: Tree,
    pub(super) cache: Cache,
    pub(super) changes: Changes,
    /// The newest revision that readers see.
    pub(super) published: i64,
    /// The oldest revision that readers may ask for; -1 before the first compaction.
    pub(super) compacted: i64,
    /// Counts how often the state was replaced as a whole.
    pub(super) life: u64,
}

impl State {
    /// A state of which nothing is known yet.
    pub(super) fn released(cache_bytes: u64) -> Self {
        Self {
            engine: None,
            tree: Tree::default(),
            cache: Cache::new(cache_bytes),
            changes: Changes::new(1, limits::INDEX_CHANGES_MAX),
            published: 1,
            compacted: -1,
            life: 0,
        }
    }
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            published: AtomicI64::new(state.published),
            pins: Pins::new(state.compacted),
            state: RwLock::new(state),
            hashes: Mutex::default(),
            finished: watch::Sender::new(-1),
            retained: AtomicU64::new(0),
            fetched_at_once: AtomicUsize::new(usize::MAX),
        }
    }

    pub(super) fn fetched_at_once(&self) -> usize {
        self.fetched_at_once.load(Ordering::Relaxed).max(1)
    }

    pub(super) fn set_fetched_at_once(&self, records: usize) {
        self.fetched_at_once.store(records, Ordering::Relaxed);
    }

    pub(super) fn retained(&self) -> u64 {
        self.retained.load(Ordering::Relaxed)
    }

    pub(super) fn set_retained(&self, bytes: u64) {
        self.retained.store(bytes, Ordering::Relaxed);
    }

    /// Changes the state and lets readers see its revisions from then on.
    pub(super) fn publish(&self, change: impl FnOnce(&mut State)) {
        let (published, compacted) = {
            let mut state = self.state.write();
            change(&mut state);
            (state.published, state.compacted)
        };
        self.pins.set_watermark(compacted);
        self.published.store(published, Ordering::Release);
    }

    /// The engine, for work outside the lock.
    pub(super) fn engine(&self) -> Result<Arc<dyn Engine>, EngineError> {
        self.state.read().engine.clone().ok_or_else(released)
    }
}

/// The failure of whatever needs the engine while a snapshot takes its place.
pub(super) fn released() -> EngineError {
    EngineError("the store is being replaced by a snapshot".into())
}

/// Revisions that must stay readable because somebody is in the middle of reading them.
pub(super) struct Pins {
    pinned: Mutex<Pinned>,
}

struct Pinned {
    /// Below it nothing may be pinned any more.
    watermark: i64,
    /// Revision → how many readers hold it.
    readers: BTreeMap<i64, usize>,
}

/// Keeps a revision readable until it is dropped.
pub(super) struct Pin<'a> {
    pins: &'a Pins,
    revision: i64,
}

impl Pins {
    fn new(watermark: i64) -> Self {
        Self { pinned: Mutex::new(Pinned { watermark, readers: BTreeMap::new() }) }
    }

    fn set_watermark(&self, watermark: i64) {
        self.pinned.lock().watermark = watermark;
    }

    /// Pins a revision, unless it has been compacted.
    pub(super) fn pin(&self, revision: i64) -> Option<Pin<'_>> {
        let mut pinned = self.pinned.lock();
        if revision < pinned.watermark {
            return None;
        }
        *pinned.readers.entry(revision).or_default() += 1;
        Some(Pin { pins: self, revision })
    }

    /// Whether a compaction at `revision` may remove history now: nobody reads below it, and
    /// nobody can begin to.
    pub(super) fn allow_compaction(&self, revision: i64) -> bool {
        let pinned = self.pinned.lock();
        revision <= pinned.watermark && pinned.readers.first_key_value().is_none_or(|(oldest, _)| *oldest >= revision)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pinned = self.pins.pinned.lock();
        if let Some(readers) = pinned.readers.get_mut(&self.revision) {
            *readers -= 1;
            if *readers == 0 {
                pinned.readers.remove(&self.revision);
            }
        }
    }
}

impl Store {
    /// The hashes that the last compactions took of what they left, the oldest first.
    pub fn compaction_hashes(&self) -> Vec<HashKv> {
        self.shared.hashes.lock().iter().copied().collect()
    }

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The last published revision; 1 when nothing was ever written.
    pub fn revision(&self) -> i64 {
        self.shared.published.load(Ordering::Acquire)
    }

    /// The revision of the last compaction, the oldest that can be read; -1 before the first one.
    pub fn compact_revision(&self) -> i64 {
        self.shared.state.read().compacted
    }

    /// The records of a range at one revision.
    pub fn range(&self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, ReadError> {
        read::range(&self.shared, range, options, None, None)
    }

    /// The same, no further than there is room: a long range is read piece by piece, and `room` is told each time how
    /// much it is so far.
    pub fn range_within(
        &self,
        range: &KeyRange,
        options: &RangeOptions,
        room: Room<'_>,
    ) -> Result<RangeResult, ReadError> {
        read::range(&self.shared, range, options, None, Some(room))
    }

    /// The same in the encoding in which it leaves.
    pub fn encoded_within(
        &self,
        range: &KeyRange,
        options: &RangeOptions,
        room: Room<'_>,
    ) -> Result<EncodedResult, ReadError> {
        read::encoded_range(&self.shared, range, options, room)
    }

    /// How many keys a read of a range comes past, about, which tells how long it takes.
    pub fn keys_on_the_way(&self, range: &KeyRange, options: &RangeOptions) -> i64 {
        read::keys_on_the_way(&self.shared, range, options)
    }

    /// The record of a key as of a revision.
    pub fn get_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ReadError> {
        if revision <= 0 {
            return Ok(None); // history begins after revision 1
        }
        let key = KeyRange::single(bytes::Bytes::copy_from_slice(key));
        let found = self.range(&key, &RangeOptions { revision, ..RangeOptions::default() })?;
        Ok(found.kvs.into_iter().next())
    }

    /// The events of the revisions from `from` to `to`, whole revisions only. Stops after about
    /// `max_bytes`, but not before it has one revision.
    pub fn events(&self, from: i64, to: i64, max_bytes: usize) -> Result<EventSlice, ReadError> {
        history::events(&self.shared, from, to, max_bytes)
    }

    /// The hash of the history up to a revision (0: the current one), equal to etcd's.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        hash::hash_kv(&self.shared, revision)
    }

    /// A hash of everything replicated that is stored; equal on members that are at rest.
    pub fn hash(&self) -> Result<u32, ReadError> {
        Ok(hash::hash_all(&*self.shared.engine()?)?)
    }

    /// Lets `read` look at everything that is stored, as it is now and stays for it. Nobody waits meanwhile.
    pub fn with_view<T>(&self, read: impl FnOnce(&dyn View) -> T) -> Result<T, EngineError> {
        let engine = self.shared.engine()?;
        let view = engine.view()?;
        Ok(read(&*view))
    }

    /// How large the store is.
    pub fn size(&self) -> Size {
        let total_bytes = self.shared.engine().map_or(0, |engine| engine.size_bytes());
        Size { total_bytes, in_use_bytes: self.retained_bytes() }
    }

    /// [`Size::in_use_bytes`] alone, which costs nothing.
    pub fn retained_bytes(&self) -> u64 {
        self.shared.retained()
    }

    /// Gives the space of what was compacted back.
    pub fn reclaim(&self) -> Result<(), EngineError> {
        self.shared.engine()?.reclaim()
    }

    /// The number of keys.
    pub fn key_count(&self) -> u64 {
        read::key_count(&self.shared)
    }

    /// Bytes of the records that are held in memory.
    pub fn cached_bytes(&self) -> u64 {
        self.shared.state.read().cache.used_bytes()
    }

    /// Whether everything that a compaction at `revision` drops has been removed.
    pub fn compaction_done(&self, revision: i64) -> bool {
        *self.shared.finished.borrow() >= revision
    }

    /// Waits until everything that a compaction at `revision` drops has been removed. Returns at
    /// once with `false` where nobody is left to remove it.
    pub async fn wait_compaction_done(&self, revision: i64) -> bool {
        self.shared.finished.subscribe().wait_for(|finished| *finished >= revision).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_waits_for_readers_below_it() {
        let pins = Pins::new(-1);
        assert!(!pins.allow_compaction(5), "nobody asked for it yet");
        let below = pins.pin(4).unwrap();
        let also_below = pins.pin(4).unwrap();
        pins.set_watermark(5);
        assert!(pins.pin(4).is_none());
        let at = pins.pin(5).unwrap();
        drop(below);
        assert!(!pins.allow_compaction(5));
        drop(also_below);
        assert!(pins.allow_compaction(5));
        drop(at);
    }
}
