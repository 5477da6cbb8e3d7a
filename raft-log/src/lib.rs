//! A durable sequence of opaque records: a segmented write-ahead log with group commit.
//!
//! Owns the files of one directory. Called by the glue to consensus, which keeps its entries, its
//! vote and its committed position here. Knows no consensus library and no serialization:
//! payloads, votes and committed positions are byte strings.
//!
//! [`RaftLog`] is the handle, cheap to clone. [`LogTask`] is the one owner of the files: it drains
//! its inbox, makes one write and one sync for everything that waits, then completes the callers
//! in order. What it writes is described in [`mod@format`], byte by byte.
//!
//! **Invariant:** what was acknowledged is found again after a crash, or the log refuses to open
//! and names the file and the offset; nothing acknowledged is ever cut silently.
//! (`tests/crash.rs`, `tests/rot.rs`)
//!
//! **Invariant:** after a failed write or sync nothing is written or acknowledged any more. (`tests/faults.rs`)
//!
//! What this crate does *not* do: it never decides what to purge, it holds no clock but for
//! measuring, and it retries nothing.

mod batch;
pub mod disk;
mod error;
pub mod format {
    #![doc = include_str!("docs/format.md")]
}
mod index;
mod ledger;
mod log;
mod options;
mod preparer;
pub mod probe;
mod reading;
mod record;
mod recovery;
mod segment;
mod state;
mod task;
mod writer;

/// The largest vote and committed position that the log keeps, in bytes.
pub const STATE_BYTES_MAX: usize = 1024;

pub use disk::{Disk, DiskFile};
pub use error::{Damage, LogError, OpenError};
pub use log::{Completion, Progress, RaftLog, Record};
pub use options::{Observer, Options};
pub use reading::LogView;
pub use recovery::check_version;
pub use task::LogTask;
