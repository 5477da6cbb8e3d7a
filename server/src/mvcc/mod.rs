//! Every version of every key: what is written, read, watched and compacted.
//!
//! Owns the families `revisions` and `index` and the index in memory. [`Writer`] is the single
//! writer and belongs to the state machine; [`Store`] is what everybody else reads through. Both
//! are synchronous. What a long list is answered with leaves as it is stored ([`EncodedKvs`]).
//!
//! One forward walk of `revisions` is the history in order; the index says where each key's
//! versions are in it. What stands in `revisions` is described in `docs/storage-format.md`, why the
//! index is in memory in `docs/decisions/2026-11-21-index-in-memory.md`.
//!
//! - **Invariant:** readers see published revisions only, each whole (`tests::the_store_equals_the_model`).
//! - **Invariant:** what survives a crash is the state after some run of commands, never less than
//!   the last flush (same test, which crashes after every prefix of batches).
//! - **Invariant:** a read that began at a readable revision ends at it, whatever is compacted
//!   meanwhile: compaction removes nothing above the oldest pinned revision (`store::Pins`).
//! - The lock of the index is a leaf: nothing else is locked, read from the engine or awaited under it.
//!
//! Not here: leases (only their ids stand in records), who may read what, watchers.

mod backend;
mod checkpoint;
mod compact;
mod encoded;
mod hash;
mod history;
mod index;
mod open;
mod read;
mod record;
mod revision;
mod store;
mod write;

#[cfg(test)]
mod tests;

pub use backend::{BackendChange, DamagedChange, revision_bytes};
pub use encoded::EncodedKvs;
pub use hash::{HASH_VERSION, HashKv};
pub use history::{EventSlice, RevisionEvents};
pub use mainstay_proto::mvccpb::{Event, KeyValue};
pub use open::OpenError;
pub use read::{EncodedResult, RangeOptions, RangeResult, ReadError, Room};
pub use revision::Revision;
pub use store::{Size, Store};
pub use write::{DeletedKey, PutEffect, WriteTxn, Writer};
