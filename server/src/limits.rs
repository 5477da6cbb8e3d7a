//! Every bound of the server, and how they hang together.

use std::time::Duration;

/// What a request may exceed `--max-request-bytes` by before the transport itself refuses it; as in etcd.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Committed entries that may wait for being applied before proposals are refused with
/// "too many requests"; as in etcd.
pub const COMMIT_APPLY_GAP_MAX: u64 = 5_000;

/// Proposals of this member that may be under way at once.
pub const PROPOSALS_MAX: usize = 16_384;

/// Longest time to live of a lease, in seconds; as in etcd.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Leases that the leader ends in one round of half a second; as in etcd (1,000 a second).
pub const LEASE_REVOKES_PER_ROUND: usize = 500;

/// Leases whose remaining time one log entry records; as in etcd.
pub const LEASE_CHECKPOINTS_PER_COMMAND: usize = 1_000;

/// Messages that may wait for the leader's lease expirer; who sends waits when it is full.
pub const LESSOR_INBOX: usize = 4_096;

/// Keys that a reader takes from the index before it lets the writer in again.
pub const INDEX_SLICE_KEYS: usize = 1_000;

/// Responses that wait for one slow watch stream before its watchers are marked as lagging.
pub const WATCH_MAILBOX: usize = 128;

/// Batches of events that may wait for the watch hub; the state machine waits when it is full.
pub const HUB_INBOX: usize = 1_024;

/// How long a member waits for a linearizable read or a proposal beyond two election timeouts; as in etcd.
pub const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);

/// Bytes that may be written to the engine before it is flushed.
pub const FLUSH_BYTES: u64 = 64 * 1024 * 1024;

/// Keys that one slice of an index checkpoint writes.
pub const CHECKPOINT_SLICE_KEYS: usize = 500;

/// Revisions that one slice of a compaction removes.
pub const COMPACTION_SLICE_REVISIONS: usize = 500;

/// Keys that one slice of a compaction looks at.
pub const COMPACTION_SLICE_KEYS: usize = 2_000;

/// Bytes of history that one slice of a compaction reads for its hash.
pub const HASH_SLICE_BYTES: usize = 256 * 1024;

/// Creations and deletions of keys that the index remembers, to count at a recent revision.
pub const INDEX_CHANGES_MAX: usize = 16_384;

/// Hashes of compaction points that are kept; as in etcd.
pub const COMPACTION_HASHES: usize = 10;
