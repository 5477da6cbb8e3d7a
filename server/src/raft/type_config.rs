use bytes::Bytes;
use openraft::impls::leader_id_std;

use crate::command::Outcome;
use crate::env::RaftRuntime;
use crate::env::clock::Instant;

openraft::declare_raft_types!(
    /// What openraft is made of here: encoded commands in, their outcomes out, one leader a term.
    pub TypeConfig:
        D = EncodedCommand,
        R = Applied,
        NodeId = u64,
        Node = PeerNode,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = RaftRuntime,
);

/// The consensus of this server.
pub(crate) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;
/// One entry of the log.
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Where an entry stands in the log.
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// Who leads, or stands for election, in which term.
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
/// The members, and where in the log they were set.
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// The members.
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;

/// A command as `crate::command` encodes it; openraft never looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCommand(pub Bytes);

impl std::fmt::Display for EncodedCommand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "command of {} bytes", self.0.len())
    }
}

/// What came of an entry.
#[derive(Clone, Debug)]
pub struct Applied {
    pub(crate) outcome: Outcome,
    pub(crate) times: Times,
}

/// When an entry passed what its proposer cannot see; for the metrics, and for nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Consensus gave it its place in the log.
    pub(crate) proposed: Instant,
    /// Readers see it.
    pub(crate) applied: Instant,
}

/// A member as consensus knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// The name in `--initial-cluster`; clients see the published one, see `apply::MemberView`.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it stays without a vote until it is promoted.
    pub learner: bool,
}
