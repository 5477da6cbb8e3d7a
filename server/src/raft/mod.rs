//! The glue to openraft: a log, a state machine, a network, and the one way for the rest of the server to use them.
//!
//! Owns consensus. `api`, `http` and `leader` call [`Gateway`]; peers call the service of `peer`.
//! openraft's types do not leave this room.
//!
//! | file | what |
//! |---|---|
//! | `type_config`, `codec` | what openraft is made of here, and how it is stored and sent (pure) |
//! | `checksum` | whether entries, the answers to them, and commands are what was sent (pure) |
//! | `log_store` | openraft's log on `mainstay-raft-log` |
//! | `state_machine`, `snapshot` | committed entries into `apply`, run by run; checkpoints |
//! | `progress` | how far this member has applied, and who waits for that |
//! | `departures`, `sending`, `throttle` | a checkpoint to a peer: kept until it is there, what is missing, how fast |
//! | `receiving` | a checkpoint from a peer, file by file; what is left of one that broke off |
//! | `network`, `peers`, `peer` | to a peer for consensus, to a peer for a client, and what this member answers |
//! | `envelope` | whom a call between members is for, and who makes it |
//! | `passed_on` | what other members pass on to this one as the leader, alone or as a stream |
//! | `read_index`, `confirmation` | one quorum round for all reads that wait; whether a leader still leads |
//! | `timeline` | when entries were proposed, flushed and replicated, for the metrics |
//! | `gateway` | propose (`proposals`) in batches (`gathering`), here or at the leader (`forwarding`), read, ask |
//! | `leadership` | who leads, and handing that over |
//! | `members`, `reconfigure` | which changes of the members are let through (pure), and carrying them out |
//! | `addresses`, `removal` | where members are now; that this one was removed |
//! | `silence` | asks, where no leader is heard of, whether this member was removed |
//! | `evidence` | what members hold against each other, to see whether they have the same |
//! | `stall` | hands the leadership over where the disk hangs; says when it is behind |
//! | `standstill` | silences a leader for a while that is heard and gets nothing committed |
//! | `probing` | whether the other members answer, for the metrics |
//! | `requests` | what clients asked for, as etcd writes it in its log |
//! | `bootstrap` | refuses a member that lost its data; asks a cluster who its members are |
//! | `forced`, `replace` | a cluster of this member alone; a member's place taken anew |
//! | `consensus` | opens and starts all of it |
//!
//! **Invariant:** no caller is answered before the entry is committed and readable here.
//! **Invariant:** a linearizable read waits for a round that began after it (`read_index`).
//! **Invariant:** nobody's answer counts as that of another member, whoever is at the address of that (`envelope`).
//! **Invariant:** a restarted leader must be elected anew before it serves reads (`consensus`).
//! **Invariant:** a file of a snapshot is installed as the sender has it: it came in this transfer, every byte checked, or
//! both have the same checksum of it and it was read again (`receiving`).

mod addresses;
mod bootstrap;
mod checksum;
mod codec;
mod confirmation;
mod consensus;
mod departures;
mod envelope;
mod evidence;
mod forced;
mod gateway;
mod leadership;
mod log_store;
mod members;
mod network;
mod passed_on;
mod peer;
mod peers;
mod probing;
mod progress;
mod read_index;
mod receiving;
mod reconfigure;
mod removal;
mod replace;
mod requests;
mod sending;
mod silence;
mod snapshot;
mod stall;
mod standstill;
mod state_machine;
mod throttle;
mod timeline;
mod type_config;

pub use bootstrap::{ExistingCluster, Past, applied_index, existing_cluster, past_of};
pub use consensus::{Consensus, ConsensusOptions, Listeners, StartError};
pub use departures::Departure;
pub use evidence::Evidence;
pub use gateway::{Gateway, Member, Role, Status, Unavailable};
pub use leadership::{Leadership, LeadershipView, TransferError};
pub use mainstay_proto::mainstay::MemberRefusal;
pub use members::{MemberChange, MemberRules};
pub use probing::probe_peers;
pub use receiving::Staged;
pub use removal::REMOVED;
pub use replace::{Place, ReplaceError, take_place};
pub use requests::{RequestsError, write_requests};
pub use snapshot::{SnapshotBuilder, SnapshotData};
pub use state_machine::{AppliedObserver, StateMachine};
pub use type_config::{Applied, EncodedCommand, PeerNode, TypeConfig};
