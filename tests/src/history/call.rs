use super::{AuthCall, HeldCall, MemberCall};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// A put, delete, range or transaction; all are transactions here.
    Txn(Txn),
    /// A compaction up to a revision.
    Compact {
        /// The revision.
        revision: i64,
        /// Whether to wait until what was compacted is gone from the disk.
        physical: bool,
    },
    /// A new lease.
    LeaseGrant {
        /// Its id, chosen by the client; 0 where the server is to choose.
        id: i64,
        /// Seconds it shall live without being renewed.
        ttl: i64,
    },
    /// The renewal of a lease.
    LeaseKeepAlive {
        /// Which.
        id: i64,
    },
    /// The end of a lease.
    LeaseRevoke {
        /// Which.
        id: i64,
    },
    /// The question how long a lease has left.
    LeaseTimeToLive {
        /// Which.
        id: i64,
    },
    /// The same question, and which keys the lease has.
    LeaseKeys {
        /// Which.
        id: i64,
    },
    /// Something about users and roles.
    Auth(AuthCall),
    /// Something about a lock or an election that the server holds.
    Held(HeldCall),
    /// Something about the members.
    Member(MemberCall),
}

/// A transaction. A put, delete or range alone is one without conditions and with one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// What is done when they hold.
    pub then: Vec<Step>,
    /// What is done when they do not.
    pub otherwise: Vec<Step>,
    /// Whether a member may answer from what it has. Only of transactions that read.
    pub serializable: bool,
}

impl Txn {
    /// A transaction of one step without conditions.
    pub fn of(step: Step) -> Self {
        Self { then: vec![step], ..Self::default() }
    }

    /// Whether the answer may be behind: it is asked for so, or there is nothing to read or write, which
    /// etcd takes for the same.
    pub fn may_be_stale(&self) -> bool {
        let is_empty = self.then.is_empty() && self.otherwise.is_empty();
        is_empty || (self.serializable && !self.may_write())
    }

    /// Whether some branch writes.
    pub fn may_write(&self) -> bool {
        self.then.iter().chain(&self.otherwise).any(Step::may_write)
    }
}

/// A condition on one key, or on every key of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// The key, or the first one.
    pub key: String,
    /// The end of the span, not included; `None` for the one key alone.
    pub until: Option<String>,
    /// How it must stand to what it is compared with.
    pub is: Relation,
    /// What of it is compared, and with what.
    pub to: Comparison,
}

impl Compare {
    /// What of a key must be equal to what.
    pub fn equal(key: impl Into<String>, to: Comparison) -> Self {
        Self { key: key.into(), until: None, is: Relation::Equal, to }
    }

    /// The keys that it looks at.
    pub fn span(&self) -> Span {
        Span { from: self.key.clone(), to: self.until.clone() }
    }
}

/// How something stands to what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is more.
    Greater,
    /// It is less.
    Less,
}

/// What of a key a condition looks at. A key that is not there has zeros, and no value: whatever is asked
/// of that does not hold. A span without keys is like a key that is not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// How often it was written since it was created.
    Version(i64),
    /// The revision that created it.
    Created(i64),
    /// The revision that wrote it last.
    Modified(i64),
    /// Its lease.
    Lease(i64),
    /// Its value.
    Value(String),
}

/// One key or the keys from one up to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first key.
    pub from: String,
    /// The end, not included; `None` for the one key alone.
    pub to: Option<String>,
}

impl Span {
    /// One key.
    pub fn key(key: impl Into<String>) -> Self {
        Self { from: key.into(), to: None }
    }

    /// Every key that begins so; the prefix ends in a character below `~`.
    pub fn prefix(prefix: &str) -> Self {
        let mut to = prefix.to_owned();
        let last = to.pop().expect("a prefix is not empty");
        to.push(char::from_u32(last as u32 + 1).expect("a prefix ends in ASCII"));
        Self { from: prefix.to_owned(), to: Some(to) }
    }

    /// Whether a key lies within.
    pub fn contains(&self, key: &str) -> bool {
        match &self.to {
            None => key == self.from,
            Some(to) => key >= self.from.as_str() && key < to.as_str(),
        }
    }
}

/// One operation within a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Writes a key. Values are never written twice, so a value names its call.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The lease that it is tied to; 0 for none.
        lease: i64,
        /// Whether the answer holds what was there before.
        prev_kv: bool,
    },
    /// Writes a key that is there, but leaves its value or its lease as it is. Where it is not there, the
    /// whole transaction is refused.
    Amend {
        /// The key.
        key: String,
        /// The value; empty where it is left.
        value: String,
        /// The lease that it is tied to; 0 for none, and where it is left.
        lease: i64,
        /// Whether the value is left.
        ignore_value: bool,
        /// Whether the lease is left.
        ignore_lease: bool,
        /// Whether the answer holds what was there before.
        prev_kv: bool,
    },
    /// Removes keys.
    Delete {
        /// Which.
        span: Span,
        /// Whether the answer holds what was there before.
        prev_kv: bool,
    },
    /// Reads keys, in their order or in another.
    Range {
        /// Which.
        span: Span,
        /// At most so many; 0 for all.
        limit: i64,
        /// At which revision; 0 for the present.
        revision: i64,
        /// Whether only their number is asked for.
        count_only: bool,
        /// Whether the values are left out.
        keys_only: bool,
        /// In which order.
        sort: Sort,
        /// Which of them, by their revisions.
        within: Within,
    },
    /// A transaction within.
    Txn(Box<Txn>),
}

impl Step {
    /// Writes a key, plainly.
    pub fn put(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: 0, prev_kv: false }
    }

    /// Reads keys as they are now.
    pub fn range(span: Span) -> Self {
        Self::Range {
            span,
            limit: 0,
            revision: 0,
            count_only: false,
            keys_only: false,
            sort: Sort::default(),
            within: Within::default(),
        }
    }

    fn may_write(&self) -> bool {
        match self {
            Self::Put { .. } | Self::Amend { .. } | Self::Delete { .. } => true,
            Self::Range { .. } => false,
            Self::Txn(txn) => txn.may_write(),
        }
    }
}

/// The order of the keys in an answer, and by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: SortBy,
    /// Which way.
    pub order: Order,
}

/// What keys are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// Their names.
    #[default]
    Key,
    /// How often they were written since they were created.
    Version,
    /// The revision that created them.
    Created,
    /// The revision that wrote them last.
    Modified,
    /// Their values.
    Value,
}

/// Which way keys are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing was said: rising, but a limit comes first.
    #[default]
    Unsaid,
    /// The least first.
    Rising,
    /// The greatest first.
    Falling,
}

/// The revisions that keys must have to be in an answer, both ends included; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Within {
    /// The revision that wrote them last: the least and the greatest.
    pub modified: (i64, i64),
    /// The revision that created them: the least and the greatest.
    pub created: (i64, i64),
}

impl Within {
    /// No bound: every key.
    pub const ALL: Self = Self { modified: (0, 0), created: (0, 0) };
}
