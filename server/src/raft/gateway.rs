use crate::command::{Outcome, command};
use crate::lease::Remaining;

/// Why a request could not be served now. A client may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request was under way.
    #[error("leader changed")]
    LeaderChanged,
    /// The request took longer than the request timeout.
    #[error("request timed out")]
    Timeout,
    /// The same, while the leader was lost.
    #[error("request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailure,
    /// The same, while this member was cut off from the leader or the quorum.
    #[error("request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    /// This member did not apply what it had to in time.
    #[error("request timed out, waiting for the applied index took too long")]
    TimeoutApplied,
    /// Too much is committed that is not applied yet, or too many proposals wait.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded command is larger than allowed.
    #[error("request is too large")]
    TooLarge,
    /// The request goes to the leader only, and this member does not lead.
    #[error("not leader")]
    NotLeader,
    /// Leases are looked after by the leader, and it just lost that duty.
    #[error("not a primary lessor")]
    NotPrimaryLessor,
    /// The server is stopping.
    #[error("server stopped")]
    Stopped,
}

/// What this member knows of consensus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The cluster.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// The leader, where one is known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Index of the last entry that was applied here.
    pub applied: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
}

/// A member of the cluster, as this one knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// The way to the replicated state for `api`, `http` and `leader`: propose, wait for a read, ask.
#[derive(Clone)]
pub struct Gateway {}

impl Gateway {
    /// Replicates a command and returns its outcome, from any member.
    ///
    /// When it returns, this member's own state includes the command.
    pub async fn propose(&self, _command: command::Kind) -> Result<Outcome, Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// Waits until this member's state covers everything that was acknowledged before the call.
    pub async fn read_index(&self) -> Result<(), Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// What this member knows of consensus right now.
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// The members, as this one knows them.
    pub fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    /// Renews a lease with the leader: its granted time to live in seconds, 0 where it is unknown or has ended.
    pub async fn lease_renew(&self, _id: i64) -> Result<i64, Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// Asks the leader what is left of a lease; `None` where it is unknown.
    pub async fn lease_remaining(&self, _id: i64) -> Result<Option<Remaining>, Unavailable> {
        Err(Unavailable::Stopped)
    }
}
