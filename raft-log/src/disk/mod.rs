//! The files of one directory, real or simulated.
//!
//! Everything is synchronous. A disk never waits: how long an operation takes on a simulated disk
//! is asked beforehand with [`Disk::delay`] and waited for by the caller, so that a stalled sync
//! takes virtual time and a crash within it finds the write unsynced.

#[cfg(not(madsim))]
pub mod real;
pub mod sim;

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// One directory of files, flat.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file; fails when the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing. The handle stays with the file when it is renamed or removed.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing what has the new name. Durable after [`sync_dir`](Self::sync_dir).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`sync_dir`](Self::sync_dir).
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns the names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes created, renamed and removed names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns how long to wait before the next operation of a kind; zero on a real disk, which takes its time by itself.
    fn delay(&self, _operation: Operation) -> Duration {
        Duration::ZERO
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Returns the size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from an offset; fails when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of the data at an offset. Durable after [`sync`](Self::sync).
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes what was written durable, with no more of the metadata than reading it back needs.
    fn sync(&self) -> io::Result<()>;

    /// Reserves room for a size, where the file system can; finds a full disk early.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
}

/// What a simulated disk may delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Writing a batch.
    Write,
    /// Syncing a batch.
    Sync,
    /// Between the end of a sync and its acknowledgement.
    Acknowledge,
    /// Making a segment ready.
    Prepare,
}

/// Waits as long as the disk wants an operation to take.
pub(crate) async fn wait(disk: &dyn Disk, operation: Operation) {
    let delay = disk.delay(operation);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
