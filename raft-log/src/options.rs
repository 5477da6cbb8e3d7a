use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::OpenError;

/// Sizes of a segment: from what takes a head and some records to what 32-bit addresses reach.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 * 1024..=1024 * 1024 * 1024;

/// How a log is kept.
#[derive(Clone)]
pub struct Options {
    /// Size of one segment file in bytes, a multiple of 4096; existing segments keep theirs.
    pub segment_bytes: u64,
    /// How many purged segments wait for being written again; more are removed.
    pub keep_recycled: usize,
    /// Bytes of recent records kept in memory. What is not on disk yet is kept regardless.
    pub cache_bytes: u64,
    /// Bytes that may wait in the inbox or be under way to the disk; see [`RaftLog::append`](crate::RaftLog::append).
    pub inbox_bytes: u64,
    /// Whose log this is, stamped on every segment. 0 takes any log as it is.
    pub identity: u64,
    /// Is told how long writes and syncs took.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            keep_recycled: 4,
            cache_bytes: 64 * 1024 * 1024,
            inbox_bytes: 256 * 1024 * 1024,
            identity: 0,
            observer: None,
        }
    }
}

impl Options {
    /// Checks what the rest of the crate relies on.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !self.segment_bytes.is_multiple_of(4096) || !SEGMENT_BYTES.contains(&self.segment_bytes) {
            return Err(OpenError::BadOption("segment_bytes must be a multiple of 4096 from 16 KiB to 1 GiB"));
        }
        if self.inbox_bytes == 0 {
            return Err(OpenError::BadOption("inbox_bytes must not be 0"));
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("keep_recycled", &self.keep_recycled)
            .field("cache_bytes", &self.cache_bytes)
            .field("inbox_bytes", &self.inbox_bytes)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Is told what the log did, for metrics. Called on the owner's thread: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// A batch was written, not yet synced.
    fn wrote(&self, _bytes: u64, _took: Duration) {}

    /// A batch was synced.
    fn synced(&self, _took: Duration) {}

    /// The next segment was made ready, from a purged one or from nothing.
    fn prepared(&self, _recycled: bool, _took: Duration) {}

    /// A batch waited for the next segment to be made ready.
    fn waited(&self, _took: Duration) {}
}
