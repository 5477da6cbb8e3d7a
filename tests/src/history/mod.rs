//! What clients asked, what they were told, and what watchers saw: plain data, written down while a
//! run goes on and judged when it is over.
//!
//! Times are durations since the run's beginning, on the world's clock: a client's clock does not
//! drift. Keys and values are text, because workloads write text and a violation is read by people.

mod auth;
mod call;
mod disturbance;
mod held;
mod reply;
mod watched;

use std::collections::BTreeMap;
use std::time::Duration;

pub use auth::{AuthCall, AuthEnd, AuthReply, Rights};
pub use call::{Call, Compare, Comparison, Span, Step, Txn};
pub use disturbance::{Disturbance, Effect};
pub use held::{Candidate, HeldCall, HeldReply, Led, Observation, UNTOLD, key_of};
pub use reply::{KeyValue, Outcome, Reply, StepReply};
pub use watched::{Change, Received, Watch};

/// Everything that happened in one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every call of every client, in the order in which they began.
    pub operations: Vec<Operation>,
    /// Every watch, the observer's first: it watches all keys from the first revision on, with
    /// previous values, and is the record of what was committed.
    pub watches: Vec<Watch>,
    /// What those were told who observed elections.
    pub observations: Vec<Observation>,
    /// The users that clients are, by the client; all others may do everything.
    pub users: BTreeMap<usize, String>,
    /// Every fault that may move what an invariant promises about time.
    pub disturbances: Vec<Disturbance>,
    /// What each member said it was, whenever that changed.
    pub leaderships: Vec<Leadership>,
    /// What the store held in the end, once all was quiet and everything that lapses had time to.
    pub end: End,
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked. A client has one call under way at a time.
    pub client: usize,
    /// The one member that it asked; `None` where the client was free to turn to others.
    pub member: Option<usize>,
    /// What it asked for.
    pub call: Call,
    /// When it asked.
    pub began: Duration,
    /// When it was answered, or gave up.
    pub ended: Duration,
    /// What it was told.
    pub outcome: Outcome,
}

/// A member that took itself for the leader.
#[derive(Clone, Debug, PartialEq)]
pub struct Leadership {
    /// Which member.
    pub member: usize,
    /// Of which term.
    pub term: u64,
    /// When this was seen first.
    pub at: Duration,
}

/// The end of a run.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// When it was looked at.
    pub at: Duration,
    /// The store's revision.
    pub revision: i64,
    /// Every key.
    pub keys: Vec<KeyValue>,
    /// The leases that were still there.
    pub leases: Vec<i64>,
    /// The highest revision that was compacted.
    pub compacted: i64,
    /// Users and roles, where there were any.
    pub auth: Option<AuthEnd>,
}
