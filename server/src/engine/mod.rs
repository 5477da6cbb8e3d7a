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
//!
//! A checkpoint travels as files. Those that arrived whole stay with the receiver, across crashes, until all are there:
//! so a transfer that breaks off goes on where it was.

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

    /// The same for a long way: reads ahead, and leaves the caches alone. (A [`View`] would do that, too; but RocksDB
    /// rewrites whole files where it finds when a view ends that what they hold needs to be told apart no more.)
    fn walk(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        self.scan(family, from, to, visit)
    }

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

    /// Keys that cut a family into about so many parts of about equal size, rising; fewer where it is small or that is not
    /// known.
    fn cuts(&self, _family: Family, _parts: usize) -> Result<Vec<Bytes>, EngineError> {
        Ok(Vec::new())
    }

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

    /// The [`Checksum`] of a file that was read before and cannot have changed since, be it for another checkpoint.
    fn known_checksum(&self, file: &str) -> Option<u64>;

    /// Remembers the [`Checksum`] of a file that was read from its beginning to its end.
    fn learn_checksum(&self, file: &str, checksum: u64);
}

/// The place where an engine lives: opens it, and replaces it whole by a received checkpoint.
pub trait EngineHome: Send + Sync + 'static {
    /// Opens the engine, creating it where there is none; what is staged stays. Refuses, and touches nothing, where a
    /// format is declared that this release does not know.
    fn open(&self) -> Result<Arc<dyn Engine>, EngineError>;

    /// Prepares for receiving a checkpoint, with what an earlier try left. One at a time.
    fn stage(&self) -> Result<Box<dyn Staging>, EngineError>;

    /// Removes what is staged; whether there was something. Nobody may hold a [`Staging`].
    fn unstage(&self) -> Result<bool, EngineError>;
}

/// A checkpoint that is being received. Dropped before its commit it leaves the old state as it was, and the files that
/// are whole to whoever stages next.
pub trait Staging: Send + 'static {
    /// The files that are here whole, as it was noted when they came.
    fn whole(&self) -> Vec<StagedFile>;

    /// Forgets and removes all files but these.
    fn keep_only(&mut self, files: &[String]) -> Result<(), EngineError>;

    /// Writes bytes of a file at an offset; offsets of one file rise without gaps, and one file follows the other.
    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), EngineError>;

    /// Makes the file that was written last durable, and notes, as durably, that it is whole and has this
    /// [`Checksum`].
    fn finish(&mut self, file: &str, checksum: u64) -> Result<(), EngineError>;

    /// Reads a whole file again: whether it is what was noted. One that is not is forgotten and removed.
    fn verify(&mut self, file: &str) -> Result<bool, EngineError>;

    /// Puts the files, all of them whole, in the place of the old state, atomically across crashes, and opens the new
    /// engine. Every handle to the old one must be idle. Nothing stays staged, whatever comes of it.
    ///
    /// `own` is written to the new state before it counts: what belongs to this member, in place of
    /// what the files say of the one that sent them.
    fn commit(self: Box<Self>, own: Batch) -> Result<Arc<dyn Engine>, EngineError>;
}

/// A file that was received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its [`Checksum`].
    pub checksum: u64,
}

/// What the content of a file is known by: CRC-32 and CRC-32C, 64 bits together.
///
/// It tells files apart that have one name by chance, as those of two leaders do, and finds damage. It does not stand up
/// to somebody who looks for two contents with one checksum; members trust each other.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    ieee: crc32fast::Hasher,
    castagnoli: u32,
}

impl Checksum {
    /// Takes in what comes next in the file.
    pub fn add(&mut self, data: &[u8]) {
        self.ieee.update(data);
        self.castagnoli = crc32c::crc32c_append(self.castagnoli, data);
    }

    /// The checksum of all that was taken in.
    pub fn value(&self) -> u64 {
        (u64::from(self.ieee.clone().finalize()) << 32) | u64::from(self.castagnoli)
    }

    /// The checksum of one piece.
    pub fn of(data: &[u8]) -> u64 {
        let mut checksum = Self::default();
        checksum.add(data);
        checksum.value()
    }
}

/// Where the real engine keeps its files below the data directory.
pub fn directory(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("member").join("db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_whole_however_it_came() {
        let mut pieces = Checksum::default();
        for piece in [&b"12"[..], b"", b"3456789"] {
            pieces.add(piece);
        }
        // The check values of both CRCs, as they are published.
        assert_eq!((pieces.value(), Checksum::of(b"123456789")), (0xcbf4_3926_e306_9283, 0xcbf4_3926_e306_9283));
        assert_eq!(Checksum::default().value(), 0);
    }
}
