use super::{AuthReply, HeldReply, MemberReply};

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Done(Reply),
    /// It was refused and certainly has not happened; the text is etcd's.
    Refused(String),
    /// Nobody knows whether it has happened or will.
    Unknown(String),
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a transaction.
    Txn {
        /// The store's revision, from the header.
        revision: i64,
        /// Whether its conditions held.
        succeeded: bool,
        /// One for each step of the branch that was taken.
        steps: Vec<StepReply>,
    },
    /// To a compaction.
    Compacted {
        /// The store's revision, from the header.
        revision: i64,
    },
    /// To a grant, renewal or question: the seconds that were granted or are left; -1 (question) or 0
    /// (renewal) where there is no such lease.
    Lease {
        /// Seconds.
        ttl: i64,
    },
    /// To a grant whose id the server chose, or which it gave another one than it was asked for.
    Granted {
        /// The id.
        id: i64,
        /// Seconds.
        ttl: i64,
    },
    /// To the question which keys a lease has.
    LeaseKeys {
        /// The store's revision, from the header.
        revision: i64,
        /// Seconds that are left; -1 where there is no such lease.
        ttl: i64,
        /// The keys.
        keys: Vec<String>,
    },
    /// To the end of a lease.
    Revoked {
        /// The store's revision, from the header.
        revision: i64,
    },
    /// To something about users and roles.
    Auth(AuthReply),
    /// To something about a lock or an election.
    Held(HeldReply),
    /// To something about the members.
    Members(MemberReply),
}

/// An answer to one step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepReply {
    /// To a put.
    Put {
        /// What was there before, if it was asked for.
        prev: Option<KeyValue>,
    },
    /// To a delete.
    Delete {
        /// How many keys were removed.
        deleted: i64,
        /// What was there before, if it was asked for.
        prevs: Vec<KeyValue>,
    },
    /// To a range.
    Range {
        /// The keys.
        keys: Vec<KeyValue>,
        /// How many there are beyond any limit.
        count: i64,
        /// Whether the limit held some back.
        more: bool,
    },
    /// To a transaction within.
    Txn {
        /// Whether its conditions held.
        succeeded: bool,
        /// One for each step of the branch that was taken.
        steps: Vec<StepReply>,
    },
}

/// A key as the store holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value; empty where only keys were asked for.
    pub value: String,
    /// The revision that created it.
    pub created: i64,
    /// The revision that wrote it last.
    pub modified: i64,
    /// How often it was written since it was created.
    pub version: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
}
