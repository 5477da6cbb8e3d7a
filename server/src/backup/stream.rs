//! Cuts a file into blobs as etcd does, and ends it with its SHA-256.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::bolt::{FormatError, Layout};
use super::source::Source;
use crate::config::version::STORAGE_VERSION;
use crate::engine::EngineError;
use crate::limits;
use crate::mvcc::{DamagedChange, Store};

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// Bytes of the file that come after these; 0 also with the checksum.
    pub remaining: u64,
    /// Whether this is the checksum, with which the file ends.
    pub is_checksum: bool,
}

/// Why a file was not made to its end.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is stored cannot be read.
    #[error(transparent)]
    Revision(#[from] DamagedChange),
    /// A stored lease cannot be read.
    #[error(transparent)]
    Lease(#[from] crate::lease::RecordError),
    /// A stored message cannot be read.
    #[error(transparent)]
    Message(#[from] prost::DecodeError),
    /// A member cannot be written.
    #[error(transparent)]
    Member(#[from] serde_json::Error),
    /// Something stored cannot be read.
    #[error("{0} is damaged")]
    Damaged(&'static str),
    /// What is stored does not fit into the format.
    #[error("{0}")]
    Format(String),
    /// Nobody waits for it any more.
    #[error("nobody waits for the snapshot any more")]
    Unwanted,
}

impl From<FormatError> for SnapshotError {
    fn from(error: FormatError) -> Self {
        Self::Format(error.to_string())
    }
}

/// Whom a file is made for.
pub struct Receiver<'a> {
    /// Takes the next blob, and waits while there is no room for it; whether anybody wants more.
    pub send: &'a dyn Fn(Blob) -> bool,
    /// Whether anybody still waits.
    pub is_waiting: &'a dyn Fn() -> bool,
}

/// Makes a file of what the store holds now and hands it over blob by blob; the last one is the checksum.
///
/// # Errors
/// When the file could not be made to its end. Then there was no checksum.
pub fn stream(store: &Store, cluster_version: &str, receiver: &Receiver<'_>) -> Result<(), SnapshotError> {
    let send = |blob| if (receiver.send)(blob) { Ok(()) } else { Err(SnapshotError::Unwanted) };
    store.with_view(|view| {
        let source = Source::open(view, cluster_version, receiver.is_waiting)?;
        let layout = Layout::of(&source)?;
        tracing::info!(
            "total-bytes" = layout.bytes(),
            "consistent-index" = source.applied_index(),
            "storage-version" = STORAGE_VERSION,
            "sending database snapshot to client"
        );
        let mut cutter = Cutter::new(layout.bytes());
        layout.write(&source, &mut |pages| cutter.add(pages, &send))?;
        cutter.finish(&send)
    })?
}

/// Cuts pages into blobs, and sums them up.
struct Cutter {
    blob: BytesMut,
    remaining: u64,
    sha256: Sha256,
}

impl Cutter {
    fn new(total: u64) -> Self {
        Self { blob: BytesMut::new(), remaining: total, sha256: Sha256::new() }
    }

    fn add(&mut self, mut pages: &[u8], send: &dyn Fn(Blob) -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
        while !pages.is_empty() {
            let room = limits::DATABASE_BLOB_BYTES - self.blob.len();
            let (taken, rest) = pages.split_at(room.min(pages.len()));
            self.blob.extend_from_slice(taken);
            pages = rest;
            if self.blob.len() == limits::DATABASE_BLOB_BYTES {
                self.send_blob(send)?;
            }
        }
        Ok(())
    }

    fn finish(mut self, send: &dyn Fn(Blob) -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
        if !self.blob.is_empty() {
            self.send_blob(send)?;
        }
        if self.remaining > 0 {
            return Err(FormatError::Changed.into());
        }
        let checksum = Bytes::copy_from_slice(&self.sha256.finalize());
        send(Blob { bytes: checksum, remaining: 0, is_checksum: true })
    }

    fn send_blob(&mut self, send: &dyn Fn(Blob) -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
        let bytes = self.blob.split().freeze();
        self.blob.reserve(limits::DATABASE_BLOB_BYTES);
        self.sha256.update(&bytes);
        self.remaining = self.remaining.checked_sub(bytes.len() as u64).ok_or(FormatError::Changed)?;
        send(Blob { bytes, remaining: self.remaining, is_checksum: false })
    }
}
