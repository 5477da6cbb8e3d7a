/// What was asked for of the members.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberCall {
    /// Who they are.
    List {
        /// Whether the cluster has to agree on the answer, or the member that is asked may say what it knows.
        linearizable: bool,
    },
    /// A new member.
    Add {
        /// Where its peers will reach it.
        urls: Vec<String>,
        /// Whether it is to have no vote until it is promoted.
        learner: bool,
    },
    /// A member shall be none any more.
    Remove {
        /// Which.
        id: u64,
    },
    /// A learner shall get its vote.
    Promote {
        /// Which.
        id: u64,
    },
    /// A member is reached elsewhere.
    Update {
        /// Which.
        id: u64,
        /// Where its peers reach it from then on.
        urls: Vec<String>,
    },
}

/// An answer about the members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberReply {
    /// The id that a new member got.
    pub added: Option<u64>,
    /// The members, as the one that was asked then knew them, in the order of their ids.
    pub members: Vec<Listed>,
}

/// A member as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// A process of a member that was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The member's peer URL, as the process knew it.
    pub url: String,
    /// When.
    pub at: std::time::Duration,
}
