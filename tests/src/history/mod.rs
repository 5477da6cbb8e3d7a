//! What clients asked, what they were told, and what watchers saw: plain data, written down while a
//! run goes on and judged when it is over.
//!
//! Times are durations since the run's beginning, on the world's clock: a client's clock does not
//! drift. Keys and values are text, because workloads write text and a violation is read by people.

mod auth;
mod call;
mod disturbance;
mod held;
mod member;
mod reply;
mod watched;

use std::collections::BTreeMap;
use std::time::Duration;

pub use auth::{AuthCall, AuthEnd, AuthReply, Rights};
pub use call::{Call, Compare, Comparison, Order, Relation, Sort, SortBy, Span, Step, Txn, Within};
pub use disturbance::{Disturbance, Effect};
pub use held::{Candidate, HeldCall, HeldReply, Led, Observation, UNTOLD, key_of};
pub use member::{Listed, MemberCall, MemberReply, Started};
pub use reply::{KeyValue, Outcome, Reply, StepReply};
pub use watched::{Change, Received, Reflection, Said, Watch, WatchStream};

/// Everything that happened in one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every call of every client, in the order in which they began.
    pub operations: Vec<Operation>,
    /// Every watch, the observer's first: it watches all keys from the first revision on, with
    /// previous values, and is the record of what was committed.
    pub watches: Vec<Watch>,
    /// Every stream of watches.
    pub streams: Vec<WatchStream>,
    /// What those had who listed once and watched from there on.
    pub reflections: Vec<Reflection>,
    /// What those were told who observed elections.
    pub observations: Vec<Observation>,
    /// The users that clients are, by the client; all others may do everything.
    pub users: BTreeMap<usize, String>,
    /// Every fault that may move what an invariant promises about time.
    pub disturbances: Vec<Disturbance>,
    /// Who answered, and in which term, for the answers that say so.
    pub headers: Vec<Header>,
    /// The processes of members that were started while the run went on, to join the cluster.
    pub joined: Vec<Started>,
    /// What each member said it was, whenever that changed.
    pub leaderships: Vec<Leadership>,
    /// Bytes that the store may retain, where these are so few that a run may use them up.
    pub quota: Option<u64>,
    /// What the store held in the end, once all was quiet and everything that lapses had time to.
    pub end: End,
}

impl History {
    /// Whether somebody decides what clients may do.
    pub fn has_users(&self) -> bool {
        self.operations.iter().any(|operation| matches!(operation.call, Call::Auth(_)))
    }

    /// Whether members come and go.
    pub fn has_changing_members(&self) -> bool {
        self.operations.iter().any(|operation| matches!(operation.call, Call::Member(_)))
    }
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked. A client has one call under way at a time.
    pub client: usize,
    /// The one member that it asked, by its place in the client's own list; `None` where the client was free
    /// to turn to others.
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

impl Operation {
    /// The lease that it was granted, or would have been; `None` where only the server knows its id, and
    /// for other calls.
    pub fn granted(&self) -> Option<i64> {
        match (&self.call, &self.outcome) {
            (Call::LeaseGrant { .. }, Outcome::Done(Reply::Granted { id, .. })) => Some(*id),
            (Call::LeaseGrant { id, .. }, _) => Some(*id).filter(|id| *id != 0),
            _ => None,
        }
    }
}

/// What an answer's header says, but for the revision, which is in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The place of the operation in the history.
    pub operation: usize,
    /// The cluster.
    pub cluster: u64,
    /// The member that answered.
    pub member: u64,
    /// The term that the member was in.
    pub term: u64,
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
