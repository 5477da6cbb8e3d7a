//! The single writer: runs of transactions, each run one write of the engine.
//!
//! A transaction goes straight into the index, at revisions above the published one, where readers
//! do not look. Its records wait in memory until [`Writer::commit`] writes the run to the engine
//! and publishes it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mainstay_proto::KeyRange;

use super::checkpoint::Checkpoint;
use super::compact::Compaction;
use super::history::RevisionEvents;
use super::index::{Head, Interval};
use super::read::{self, Pending, RangeOptions, RangeResult, ReadError, RunView};
use super::store::{Shared, Store, released};
use super::{Event, KeyValue, Revision, record};
use crate::engine::layout::{self, meta};
use crate::engine::{Batch, Engine, EngineError, Family};
use crate::env::probe;

/// Keys of records that are given memory together.
const KEYS_AT_ONCE: usize = 64;

/// The writer of the state; there is one.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) cache_bytes: u64,
    pub(super) run: Run,
    pub(super) compaction: Compaction,
    pub(super) checkpoint: Checkpoint,
}

/// What was written since the last commit.
pub(super) struct Run {
    /// The last written revision.
    pub(super) revision: i64,
    /// The watermark, including compactions of this run.
    pub(super) compacted: i64,
    /// Compactions of this run, each with the one before it.
    pub(super) compactions: Vec<(i64, i64)>,
    pub(super) batch: Batch,
    /// Memory for the keys of the records, shared by many.
    keys: BytesMut,
    /// Bytes that its records take.
    bytes: u64,
    /// The records, oldest first.
    pub(super) pending: Vec<Pending>,
    pub(super) events: Vec<Arc<RevisionEvents>>,
}

impl Run {
    /// An empty run on a committed state.
    pub(super) fn new(revision: i64, compacted: i64) -> Self {
        Self {
            revision,
            compacted,
            compactions: Vec::new(),
            batch: Batch::default(),
            keys: BytesMut::new(),
            bytes: 0,
            pending: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.pending.is_empty() && self.compactions.is_empty()
    }
}

/// What a put found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutEffect {
    /// The lease that the key was attached to, 0 for none.
    pub lease_before: i64,
    /// Whether the key existed.
    pub existed: bool,
}

/// A key that was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct DeletedKey {
    /// The key.
    pub key: Bytes,
    /// The lease that it was attached to, 0 for none.
    pub lease: i64,
    /// Its last record, where that was asked for.
    pub prev: Option<KeyValue>,
}

impl Writer {
    /// A handle to read what is published.
    pub fn store(&self) -> Store {
        Store::new(self.shared.clone())
    }

    /// The last written revision, published or not.
    pub fn revision(&self) -> i64 {
        self.run.revision
    }

    /// Sets how many records readers fetch at once before they look whether there is room for them; at first all that
    /// they need.
    pub fn set_fetched_at_once(&self, records: usize) {
        self.shared.set_fetched_at_once(records);
    }

    /// The engine.
    ///
    /// # Panics
    /// Between [`Writer::release`] and [`Writer::reopen`] there is none.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        self.engine.as_ref().expect("the engine is used between release and reopen only by mistake")
    }

    /// The writes of the run, for other rooms to add theirs.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.run.batch
    }

    /// Begins the transaction of one command. It takes a revision with its first write.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        let begin = self.run.revision;
        WriteTxn { writer: self, begin, events: Vec::new() }
    }

    /// Moves the watermark to a revision: older history can no longer be read and will be removed.
    pub fn compact(&mut self, revision: i64) -> Result<(), ReadError> {
        if revision > self.run.revision {
            return Err(ReadError::FutureRevision);
        }
        // Wrong where it is broken: what is gone counts as there again.
        if revision <= self.run.compacted && !probe::broken("compaction-goes-back") {
            return Err(ReadError::Compacted);
        }
        self.run.batch.put(Family::Meta, meta::COMPACTED, layout::meta_i64(revision));
        self.run.compactions.push((revision, self.run.compacted));
        self.run.compacted = revision;
        Ok(())
    }

    /// Writes the run to the engine in one write, publishes it, and returns its events in order.
    pub fn commit(&mut self) -> Result<Vec<Arc<RevisionEvents>>, EngineError> {
        if self.run.is_empty() {
            return Ok(Vec::new());
        }
        let engine = self.engine.clone().ok_or_else(released)?;
        let next = Run::new(self.run.revision, self.run.compacted);
        let mut run = std::mem::replace(&mut self.run, next);
        let retained = self.shared.retained() + run.bytes;
        if !run.pending.is_empty() {
            run.batch.put(Family::Meta, meta::REVISION, layout::meta_i64(run.revision));
            run.batch.put(Family::Meta, meta::RETAINED, layout::meta_i64(retained.cast_signed()));
        }
        engine.write(run.batch)?;
        self.shared.set_retained(retained);
        self.shared.publish(|state| {
            for pending in run.pending {
                state.cache.fill(pending.slot, pending.revision, pending.record);
            }
            state.cache.evict();
            state.changes.trim(run.revision);
            state.published = run.revision;
            state.compacted = run.compacted;
        });
        self.compaction.schedule(run.compactions);
        Ok(run.events)
    }

    /// Visits the live keys that have a lease.
    pub fn for_each_leased(&self, visit: &mut dyn FnMut(&[u8], i64)) {
        let state = self.shared.state.read();
        state.tree.scan(Interval::ALL, &mut |key, entry| {
            if let Some(head) = entry.head().filter(|head| head.lease != 0) {
                visit(&key.to_vec(), head.lease);
            }
            ControlFlow::Continue(())
        });
    }

    /// How this run reads.
    fn view(&self, revision: i64) -> RunView<'_> {
        RunView { revision, compacted: self.run.compacted, pending: &self.run.pending }
    }
}

/// The transaction of one command. Its reads see its own writes and those of the run before it.
/// It ends when it is dropped, or with [`WriteTxn::end`], which tells whether it wrote.
pub struct WriteTxn<'a> {
    writer: &'a mut Writer,
    begin: i64,
    events: Vec<Event>,
}

impl WriteTxn<'_> {
    /// The revision that the transaction began at, or its own after its first write.
    pub fn revision(&self) -> i64 {
        self.begin + i64::from(!self.events.is_empty())
    }

    /// The revision of the last compaction; -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        self.writer.run.compacted
    }

    /// The record of a key.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<KeyValue>, EngineError> {
        let key = KeyRange::single(Bytes::copy_from_slice(key));
        match self.range(&key, &RangeOptions::default()) {
            Ok(found) => Ok(found.kvs.into_iter().next()),
            Err(ReadError::Engine(error)) => Err(error),
            Err(error @ (ReadError::Compacted | ReadError::FutureRevision | ReadError::NoRoom)) => {
                unreachable!("the newest revision is readable: {error}")
            }
        }
    }

    /// The records of a range.
    pub fn range(&mut self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, ReadError> {
        let view = self.writer.view(self.revision());
        // What commands do must not depend on the room that a member has.
        read::range(&self.writer.shared, range, options, Some(&view), None)
    }

    /// Sets a key.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Result<PutEffect, EngineError> {
        let revision = self.next_revision();
        let (before, head, slot) = self.writer.shared.add_version(&key, revision, lease);
        let kv = KeyValue {
            key,
            create_revision: head.create,
            mod_revision: revision.main,
            version: head.version,
            value,
            lease,
        };
        self.add(revision, slot, record::encode_put(&kv))?;
        Ok(PutEffect { lease_before: before.map_or(0, |before| before.lease), existed: before.is_some() })
    }

    /// Deletes the keys of a range.
    pub fn delete_range(&mut self, range: &KeyRange, want_prev: bool) -> Result<Vec<DeletedKey>, EngineError> {
        let options = RangeOptions { keys_only: !want_prev, ..RangeOptions::default() };
        let found = match self.range(range, &options) {
            Ok(found) => found.kvs,
            Err(ReadError::Engine(error)) => return Err(error),
            Err(error @ (ReadError::Compacted | ReadError::FutureRevision | ReadError::NoRoom)) => {
                unreachable!("the newest revision is readable: {error}")
            }
        };
        let mut deleted = Vec::with_capacity(found.len());
        // Wrong where it is broken: the last key of a range stays.
        let spared = usize::from(!range.is_single() && found.len() > 1 && probe::broken("delete-range-spares-last"));
        let gone = found.len() - spared;
        for kv in found.into_iter().take(gone) {
            let revision = self.next_revision();
            let lease = self.writer.shared.add_tombstone(&kv.key, revision);
            self.add(revision, super::index::NO_SLOT, record::encode_delete(&kv.key))?;
            deleted.push(DeletedKey { key: kv.key.clone(), lease, prev: want_prev.then_some(kv) });
        }
        Ok(deleted)
    }

    /// Ends the transaction; its revision, if it wrote.
    pub fn end(mut self) -> Option<i64> {
        self.finish()
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.begin + 1, sub: self.events.len() as i64 }
    }

    fn add(&mut self, revision: Revision, slot: u32, record: Bytes) -> Result<(), EngineError> {
        let event = record::event(revision, &record).map_err(|error| EngineError(error.to_string()))?;
        self.events.push(event);
        let run = &mut self.writer.run;
        if run.keys.capacity() < layout::REVISION_KEY_LEN {
            run.keys = BytesMut::with_capacity(KEYS_AT_ONCE * layout::REVISION_KEY_LEN);
        }
        run.keys.extend_from_slice(&revision.to_bytes());
        run.bytes += stored_bytes(&record);
        run.batch.put(Family::Revisions, run.keys.split().freeze(), record.clone());
        run.pending.push(Pending { revision, slot, record });
        Ok(())
    }

    fn finish(&mut self) -> Option<i64> {
        if self.events.is_empty() {
            return None;
        }
        let revision = self.begin + 1;
        let events = std::mem::take(&mut self.events);
        self.writer.run.revision = revision;
        self.writer.run.events.push(Arc::new(RevisionEvents { revision, events }));
        Some(revision)
    }
}

/// What a record takes in the family `revisions`, as far as [`Store::size`] counts it.
pub(super) fn stored_bytes(record: &[u8]) -> u64 {
    (layout::REVISION_KEY_LEN + record.len()) as u64
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    /// Adds a version of a key to the index. Returns what the key was before, what it is now, and
    /// the slot that waits for its record.
    fn add_version(&self, key: &[u8], revision: Revision, lease: i64) -> (Option<Head>, Head, u32) {
        let mut state = self.state.write();
        let state = &mut *state;
        let slot = state.cache.reserve(revision);
        let (before, after) = state.tree.upsert(key, |entry| {
            let before = entry.head();
            state.cache.remove(entry.slot(), entry.revision());
            let (create, version) = before.map_or((revision.main, 1), |head| (head.create, head.version + 1));
            entry.put(revision, create, version, lease);
            entry.set_slot(slot);
            (before, Head { revision, create, version, lease })
        });
        if before.is_none() {
            state.changes.push(revision.main, key, true);
        }
        (before, after, slot)
    }

    /// Adds a tombstone of a live key to the index. Returns the lease that the key was attached to.
    fn add_tombstone(&self, key: &[u8], revision: Revision) -> i64 {
        let mut state = self.state.write();
        let state = &mut *state;
        state.changes.push(revision.main, key, false);
        state.tree.upsert(key, |entry| {
            state.cache.remove(entry.slot(), entry.revision());
            let lease = entry.head().map_or(0, |head| head.lease);
            entry.delete(revision);
            lease
        })
    }
}
