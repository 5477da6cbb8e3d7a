//! The state as a database file of etcd's, for `Maintenance.Snapshot`.
//!
//! `api` asks for a [`stream`] of bytes and sends them on. What such a file is made of:
//!
//! | file | what |
//! |---|---|
//! | `bolt/` | bbolt's file format: sorted pairs in, pages out (pure) |
//! | `schema` | etcd's buckets: what a record of ours is called and looks like there (pure) |
//! | `source` | lists the buckets from one moment of the store |
//! | `stream` | cuts the file into blobs and ends it with its SHA-256 |
//!
//! A file is made in two passes over one moment of the engine, so nothing of it is held: see
//! `docs/decisions/2026-11-21-snapshots-in-two-passes.md`.
//!
//! - **Invariant:** the file shows the state at one applied entry (`tests`, and `tests/compat` asks etcd).
//! - **Invariant:** a file that could not be made to its end is never ended with a checksum (`tests`).

mod bolt;
mod schema;
mod source;
mod stream;

#[cfg(test)]
mod tests;

pub use stream::{Blob, Receiver, SnapshotError, stream};
