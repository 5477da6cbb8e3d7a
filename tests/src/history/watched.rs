use std::time::Duration;

use super::{KeyValue, Span};

/// One watch: a client that wants to see every change of some keys, and goes on after every break
/// at the revision behind the last one that it was told of.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Who watches.
    pub client: usize,
    /// When it began to want this.
    pub since: Duration,
    /// Until when its client takes its time to look at what came.
    pub slow_until: Duration,
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
    /// The server has ended the watch as its client asked: nothing more is wanted, or may come.
    Cancelled {
        /// When.
        at: Duration,
    },
    /// The stream broke.
    Broken {
        /// When.
        at: Duration,
        /// Why, as far as the client knows.
        why: String,
    },
}

/// One stream, from its opening to its end, as the protocol sees it: which watches were asked for and
/// ended on it, and for which of them something came. What came, the watches have.
#[derive(Clone, Debug, Default)]
pub struct WatchStream {
    /// Whose it is.
    pub client: usize,
    /// What was said on it by both sides, in the order in which the client said it and heard it.
    pub said: Vec<(Duration, Said)>,
}

/// Something that was said on a stream of watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The client asked for a watch under this id; 0 lets the server pick one.
    Create(i64),
    /// The client asked for the end of a watch.
    Cancel(i64),
    /// The client asked up to where it knows everything.
    Progress,
    /// The server has created a watch.
    Created(i64),
    /// The server has created none.
    Refused {
        /// The id that the answer names.
        id: i64,
        /// Why.
        why: String,
    },
    /// The server has ended a watch.
    Cancelled {
        /// Which.
        id: i64,
        /// Why; empty where it was asked to.
        why: String,
        /// The revision that was compacted, if that is the reason; otherwise 0.
        compact_revision: i64,
    },
    /// Events of a watch came.
    Events(i64),
    /// There was progress of a watch, or with -1 of all.
    Told(i64),
    /// The stream broke.
    Over,
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

/// What somebody has who lists once and watches from there on, held against another list.
#[derive(Clone, Debug, PartialEq)]
pub struct Reflection {
    /// Who.
    pub client: usize,
    /// The revision that it had got to.
    pub revision: i64,
    /// What it had then, by key.
    pub cached: Vec<KeyValue>,
    /// What it was told when it listed that revision.
    pub listed: Vec<KeyValue>,
}
