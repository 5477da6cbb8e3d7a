use std::fmt;
use std::io;

/// Stored bytes that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The name of the file in the log's directory.
    pub file: String,
    /// Where in the file the first damaged unit begins, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the raft log is damaged: file {}, offset {}: {}", self.file, self.offset, self.what)
    }
}

/// Why an operation of an open log failed.
///
/// [`Busy`](Self::Busy), [`NotConsecutive`](Self::NotConsecutive) and [`TooLarge`](Self::TooLarge) refuse
/// one call and change nothing. The others are final for the log, but for damage found while
/// reading, which is reported to that reader.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The disk has no room for the next segment.
    #[error("the disk is full: no room for the raft log's next segment: {0}")]
    DiskFull(String),
    /// A file operation failed; it is not retried.
    #[error("the raft log failed to {operation} {file}: {message}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file of the log's directory.
        file: String,
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// The system's error in words.
        message: String,
    },
    /// Stored bytes are not what was written.
    #[error("{0}")]
    Damaged(Damage),
    /// The record does not follow the last one.
    #[error("the raft log expects index {expected} next, got {found}")]
    NotConsecutive {
        /// The index that would have followed.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// The payload does not fit.
    #[error("{bytes} bytes are too many for one record of the raft log, which takes {limit}")]
    TooLarge {
        /// The size of what came.
        bytes: u64,
        /// The largest that is taken.
        limit: u64,
    },
    /// The inbox is full; wait for room and try again.
    #[error("the raft log's inbox is full")]
    Busy,
    /// The log was closed.
    #[error("the raft log is closed")]
    Closed,
    /// The owner of the files ended without being asked to.
    #[error("the raft log's owner is gone")]
    OwnerGone,
}

impl LogError {
    pub(crate) fn io(operation: &'static str, file: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull(format!("failed to {operation} {file}: {error}"));
        }
        Self::Io { operation, file: file.to_owned(), kind: error.kind(), message: error.to_string() }
    }
}

/// Why a log could not be opened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("data directory {0} is in use by another process")]
    InUse(String),
    /// Stored bytes are not what was written, and cutting them could lose what was acknowledged.
    #[error("{0}")]
    Damaged(Damage),
    /// The log was written by a newer version.
    #[error("file {file} of the raft log has format version {found}, this program reads up to {supported}")]
    NewerVersion {
        /// The name of the file in the log's directory.
        file: String,
        /// The version that it is written in.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// The log belongs to another member or cluster.
    #[error("file {file} of the raft log belongs to member {found:016x}, this is {expected:016x}")]
    WrongIdentity {
        /// The name of the file in the log's directory.
        file: String,
        /// The identity that it is stamped with.
        found: u64,
        /// The identity that was asked for.
        expected: u64,
    },
    /// An option is out of its bounds.
    #[error("raft log option {0}")]
    BadOption(&'static str),
    /// A file operation failed.
    #[error(transparent)]
    Log(#[from] LogError),
}
