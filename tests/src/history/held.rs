use std::time::Duration;

use super::{Compare, Comparison, KeyValue, Span, Step, Txn};

/// What was asked for of locks and elections that the server holds. Each lease takes part once.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldCall {
    /// A lock.
    Lock {
        /// What is locked.
        name: String,
        /// For how long.
        lease: i64,
    },
    /// The end of holding a lock.
    Unlock {
        /// The key that stands for holding it.
        key: String,
    },
    /// The leadership of an election.
    Campaign {
        /// The election.
        name: String,
        /// For how long.
        lease: i64,
        /// What the leader says.
        value: String,
    },
    /// Something else that the leader says.
    Proclaim {
        /// The leader.
        leader: Candidate,
        /// What it says.
        value: String,
    },
    /// The end of a leadership.
    Resign {
        /// The leader.
        leader: Candidate,
    },
    /// Who leads.
    Leader {
        /// The election.
        name: String,
    },
}

/// Why the fate of what the server does for a call is not known: see [`HeldCall::effects`].
pub const UNTOLD: &str = "done by the server, and told to nobody";

/// Whoever takes part in an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The election.
    pub name: String,
    /// The candidate's key.
    pub key: String,
    /// The revision that created it.
    pub created: i64,
    /// Its lease.
    pub lease: i64,
}

/// The key of who takes part by a lease.
pub fn key_of(name: &str, lease: i64) -> String {
    format!("{name}/{lease:x}")
}

impl HeldCall {
    /// Whether it waits until others are done.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Lock { .. } | Self::Campaign { .. })
    }

    /// What the server does with keys for it: transactions that nobody is told of.
    pub fn effects(&self) -> Vec<Txn> {
        let created = |key: &str, to| vec![Compare::equal(key, Comparison::Created(to))];
        let put = |key: &str, value: &str, lease| Step::Put {
            key: key.to_owned(),
            value: value.to_owned(),
            lease,
            prev_kv: false,
        };
        let delete = |key: &str| Step::Delete { span: Span::key(key), prev_kv: false };
        match self {
            Self::Lock { name, lease } => {
                let key = key_of(name, *lease);
                let then = vec![put(&key, "", *lease)];
                vec![Txn { compares: created(&key, 0), then, ..Txn::default() }]
            }
            Self::Campaign { name, lease, value } => {
                let key = key_of(name, *lease);
                let then = vec![put(&key, value, *lease)];
                vec![Txn { compares: created(&key, 0), then, ..Txn::default() }]
            }
            Self::Unlock { key } => vec![Txn::of(delete(key))],
            Self::Proclaim { leader, value } => {
                let then = vec![put(&leader.key, value, leader.lease)];
                vec![Txn { compares: created(&leader.key, leader.created), then, ..Txn::default() }]
            }
            Self::Resign { leader } => {
                let then = vec![delete(&leader.key)];
                vec![Txn { compares: created(&leader.key, leader.created), then, ..Txn::default() }]
            }
            Self::Leader { .. } => Vec::new(),
        }
    }

    /// What the server does for who goes away before it is answered.
    pub fn withdrawal(&self) -> Option<Txn> {
        match self {
            Self::Lock { name, lease } | Self::Campaign { name, lease, .. } => {
                Some(Txn::of(Step::Delete { span: Span::key(key_of(name, *lease)), prev_kv: false }))
            }
            Self::Unlock { .. } | Self::Proclaim { .. } | Self::Resign { .. } | Self::Leader { .. } => None,
        }
    }
}

/// An answer about a lock or an election.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldReply {
    /// It is held, or led.
    Held {
        /// The revision in the header.
        revision: i64,
        /// The key that stands for it.
        key: String,
        /// The revision that created the key; 0 where the answer does not say.
        created: i64,
    },
    /// It is done.
    Done {
        /// The revision in the header.
        revision: i64,
    },
    /// Who leads.
    Leader {
        /// The revision in the header.
        revision: i64,
        /// Its key, with what it says.
        kv: KeyValue,
    },
}

impl HeldReply {
    /// The revision in the header.
    pub fn revision(&self) -> i64 {
        match self {
            Self::Held { revision, .. } | Self::Done { revision } | Self::Leader { revision, .. } => *revision,
        }
    }
}

/// What somebody was told who observed an election, without a break.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Who observed.
    pub client: usize,
    /// The election.
    pub name: String,
    /// What it was told, in order.
    pub told: Vec<Led>,
}

/// One leader, or one thing that it said.
#[derive(Clone, Debug, PartialEq)]
pub struct Led {
    /// When it was told.
    pub at: Duration,
    /// The revision in the header.
    pub revision: i64,
    /// The leader's key, with what it said.
    pub kv: KeyValue,
}
