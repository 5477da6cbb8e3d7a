//! bbolt's file format, as far as etcd's database is written in it (pure).
//!
//! A file is a row of pages of 4 KiB, numbered from 0; a page that is too small goes on in those behind
//! it. All integers are little-endian.
//!
//! ```text
//! page 0, 1   meta    where the root bucket begins, how many pages there are, a checksum
//! page 2      freelist, empty: every page is in use
//! then        the pages of each bucket: leaves and branches, each behind what it points to
//! last        the root bucket: a leaf that names the buckets and their root pages
//!
//! page header     id u64 · kind u16 · elements u16 · further pages u32
//! leaf element    flags u32 · offset u32 · key length u32 · value length u32
//! branch element  offset u32 · key length u32 · page u64
//! meta            magic u32 · version u32 · page size u32 · flags u32 · root page u64 · sequence u64 ·
//!                 freelist page u64 · pages u64 · transaction u64 · FNV-1a of what is before u64
//! ```
//!
//! Offsets count from the element itself. Keys and values stand behind the elements, in their order.

mod file;
mod node;
mod tree;

#[cfg(test)]
pub(super) mod reader;
#[cfg(test)]
mod tests;

pub(super) use file::{Content, Layout, Put};

/// The size of a page; what bbolt takes on every machine that mainstay is built for.
pub(super) const PAGE_BYTES: usize = 4096;

/// The longest key that bbolt takes.
const KEY_BYTES_MAX: usize = 32_768;

/// The longest value that bbolt takes.
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

/// Pairs that cannot become a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    /// bbolt has no empty keys.
    #[error("a key is empty")]
    EmptyKey,
    /// bbolt has no keys as long as this.
    #[error("a key has {0} bytes, {KEY_BYTES_MAX} is the most")]
    KeyTooLong(usize),
    /// bbolt has no values as long as this.
    #[error("a value has {0} bytes, {VALUE_BYTES_MAX} is the most")]
    ValueTooLong(usize),
    /// A key is not above the one before it.
    #[error("keys are out of order")]
    OutOfOrder,
    /// The second pass found other pairs than the first.
    #[error("the content changed between the two passes")]
    Changed,
}
