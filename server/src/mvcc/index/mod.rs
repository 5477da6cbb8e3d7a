//! The index in memory: every key with the places of its versions, and the newest records within
//! a budget. Pure: it knows no engine. Used under the one lock of `store`.

mod cache;
mod changes;
mod entry;
mod keys;
mod leaf;
mod stored;
mod tree;

pub(crate) use cache::Cache;
pub(crate) use changes::Changes;
pub(crate) use entry::{Entry, Head, NO_SLOT, Visible};
pub(crate) use stored::{decode_entry, encode_entry};
pub(crate) use tree::{Builder, Fate, Interest, Interval, KeyRef, Tree};
