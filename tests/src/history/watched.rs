use std::time::Duration;

use super::{KeyValue, Span};

/// One watch: a client that wants to see every change of some keys, and goes on after every break
/// at the revision behind the last one that it was told of.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Who watches.
    pub client: usize,
    /// Which keys.
    pub span: Span,
    /// The first revision that it wants; 0 for what happens from now on.
    pub start: i64,
    /// Whether it wants what was there before.
    pub prev_kv: bool,
    /// Whether puts are left out.
    pub no_put: bool,
    /// Whether deletes are left out.
    pub no_delete: bool,
    /// Whether a response may hold a part of a revision.
    pub fragment: bool,
    /// What it received, in this order.
    pub received: Vec<Received>,
}

/// Something that a watch received.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A stream was opened, at first or again, and the server has created the watch.
    Opened {
        /// When.
        at: Duration,
        /// The first revision that was asked for; 0 for what happens from now on.
        start: i64,
        /// The store's revision, from the header.
        revision: i64,
    },
    /// Events, in one response.
    Events {
        /// When.
        at: Duration,
        /// The store's revision, from the header.
        revision: i64,
        /// The events.
        changes: Vec<Change>,
        /// Whether the rest of the revision is in the next response.
        fragment: bool,
    },
    /// A response without events: everything up to this revision was delivered.
    Progress {
        /// When.
        at: Duration,
        /// Up to which.
        revision: i64,
    },
    /// The watch was ended by the server because its start was compacted. The watcher goes on from
    /// a fresh look at the keys: `resumed` is the first revision behind it.
    Compacted {
        /// When.
        at: Duration,
        /// The revision that the server named.
        compact_revision: i64,
        /// The first revision that the watch goes on with.
        resumed: i64,
    },
    /// The stream broke.
    Broken {
        /// When.
        at: Duration,
        /// Why, as far as the client knows.
        why: String,
    },
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the key was removed; `kv` then holds its name and the revision alone.
    pub deleted: bool,
    /// The key as it was written.
    pub kv: KeyValue,
    /// What was there before, if it was asked for and still known.
    pub prev: Option<KeyValue>,
}
