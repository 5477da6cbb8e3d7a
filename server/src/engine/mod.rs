//! What the state machine is stored in: an ordered map of byte strings in a few families.
//!
//! Owns the stored bytes. Called by `mvcc`, `lease`, `apply` and `raft`, synchronously.
//! `rocks` is the real one, `mem` the simulated one, which forgets what was not flushed.
//!
//! A write is atomic across families and visible at once, but durable only after [`Engine::flush`]
//! (or a flush of the engine's own): what a crash loses, the raft log replays. So every batch
//! carries the applied index that it brings the state to.
//!
//! **Invariant:** what survives a crash is a prefix of the batches that were written, each whole
//! (`mem` simulates every such prefix; `rocks` flushes its families atomically, without a WAL).

pub mod layout;
pub mod mem;
#[cfg(not(madsim))]
pub mod rocks;

use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

/// A family of keys; the families of one engine are written and flushed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// (main, sub) → the record or tombstone of that revision.
    Revisions,
    /// key → what the in-memory index knows of it, as of the last index checkpoint.
    Index,
    /// Lease id → granted and remaining time to live.
    Leases,
    /// Users and roles.
    Auth,
    /// Member id → its attributes.
    Members,
    /// Applied index, revisions, alarms, format version, identity.
    Meta,
}

/// Every family, in the order of their declaration.
pub const FAMILIES: [Family; 6] =
    [Family::Revisions, Family::Index, Family::Leases, Family::Auth, Family::Members, Family::Meta];

/// A failed operation of the engine. Fatal wherever it happens while applying.
#[derive(Clone, Debug, thiserror::Error)]
#[error("engine: {0}")]
pub struct EngineError(pub String);

/// Writes that take effect together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they were added; a later one wins.
    pub operations: Vec<BatchOperation>,
}

/// One write of a batch.
#[derive(Debug)]
pub enum BatchOperation {
    /// Sets a key.
    Put(Family, Bytes, Bytes),
    /// Removes a key.
    Delete(Family, Bytes),
    /// Removes every key from the first up to, but not, the second.
    DeleteRange(Family, Bytes, Bytes),
}

impl Batch {
    /// Adds the setting of a key.
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.operations.push(BatchOperation::Put(family, key.into(), value.into()));
    }

    /// Adds the removal of a key.
    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.operations.push(BatchOperation::Delete(family, key.into()));
    }

    /// Adds the removal of `[from, to)`.
    pub fn delete_range(&mut self, family: Family, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.operations.push(BatchOperation::DeleteRange(family, from.into(), to.into()));
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// What [`Engine::scan`] calls for each pair; `Break` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An open store.
pub trait Engine: Send + Sync + 'static {
    /// Returns the value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Returns the values of several keys, in their order.
    fn multi_get(&self, family: Family, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// Visits the pairs between two bounds in key order, as they were when the scan began.
    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError>;

    /// Applies a batch, whole or not at all; visible at once, durable at the next flush.
    fn write(&self, batch: Batch) -> Result<(), EngineError>;

    /// Makes everything written so far durable.
    fn flush(&self) -> Result<(), EngineError>;

    /// Begins to make everything written so far durable, and does not wait for it.
    fn begin_flush(&self) -> Result<(), EngineError> {
        self.flush()
    }

    /// Whether a flush that was begun has not ended yet.
    fn is_flushing(&self) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Bytes written since the last flush began, roughly.
    fn unflushed_bytes(&self) -> u64;

    /// Holds the present state to be read at leisure; costs nothing until much of it is overwritten.
    fn view(&self) -> Result<Box<dyn View + '_>, EngineError>;

    /// Takes a durable copy of the present state in constant time (hard links), to be sent to a peer.
    fn checkpoint(&self) -> Result<Arc<dyn Checkpoint>, EngineError>;

    /// Says beside the store, durably, which format it has from now on: there a release that does not know it looks
    /// before it opens the store. To be called before anything of that format is written.
    fn declare_format(&self, _format: u32) -> Result<(), EngineError> {
        Ok(())
    }

    /// Gives the space of deleted keys back; readers and writers do not notice.
    fn reclaim(&self) -> Result<(), EngineError>;

    /// Ends work in the background, because another engine takes this one's place. Who still reads may go on.
    fn retire(&self) {}

    /// Bytes that the engine's files take, and what is to be written to them.
    fn size_bytes(&self) -> u64;
}

/// The state of an engine at one moment. Readers and writers of the engine do not notice it.
pub trait View {
    /// Returns the value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Visits the pairs between two bounds in key order; as [`Engine::scan`], but leaves the caches alone.
    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError>;
}

/// A consistent copy of an engine as named files; its space is given back when it is dropped.
pub trait Checkpoint: Send + Sync + 'static {
    /// The files with their sizes in bytes, in a fixed order.
    fn files(&self) -> Vec<(String, u64)>;

    /// Reads up to `len` bytes of a file from an offset.
    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, EngineError>;
}

/// The place where an engine lives: opens it, and replaces it whole by a received checkpoint.
pub trait EngineHome: Send + Sync + 'static {
    /// Opens the engine, creating it where there is none. Refuses, and touches nothing, where a format is declared that
    /// this release does not know.
    fn open(&self) -> Result<Arc<dyn Engine>, EngineError>;

    /// Prepares for receiving a checkpoint; what was staged before is discarded.
    fn stage(&self) -> Result<Box<dyn Staging>, EngineError>;
}

/// A checkpoint that is being received. Dropped before its commit it leaves the old state as it was.
pub trait Staging: Send + 'static {
    /// Writes bytes of a file at an offset; offsets of one file rise without gaps.
    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), EngineError>;

    /// Makes the received files durable, puts them in the place of the old state, atomically
    /// across crashes, and opens the new engine. Every handle to the old one must be idle.
    ///
    /// `own` is written to the new state before it counts: what belongs to this member, in place of
    /// what the files say of the one that sent them.
    fn commit(self: Box<Self>, own: Batch) -> Result<Arc<dyn Engine>, EngineError>;
}

/// Where the real engine keeps its files below the data directory.
pub fn directory(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("member").join("db")
}
