//! The places of the code that a good simulation comes to, one for each `probe::reached("…")`.

/// Those that a few hundred seeds come to, by room.
pub(crate) const REACHABLE: &[&str] = &[
    // raft-log
    "disk-read-failed",
    "disk-write-failed",
    "disk-sync-failed",
    "disk-name-failed",
    "log-segment-sealed",
    "log-segment-recycled",
    "log-segment-retired",
    "log-disk-full",
    "log-sync-failed",
    "log-rot-found",
    // raft
    "log-conflict-truncated",
    "log-purged",
    "restart-with-state",
    "snapshot-sent",
    "snapshot-installed",
    "snapshot-resumed",
    "snapshot-throttled",
    "checkpoint-sent-again",
    "log-kept-for-snapshot",
    "proposal-forwarded",
    "forward-refused",
    "forward-given-up",
    "forward-never-sent",
    "forward-stream-broken",
    "forward-stream-late",
    "forward-batch-damaged",
    "peer-call-never-sent",
    "peer-call-failed",
    "request-timed-out",
    "read-index-waited",
    "read-index-shared",
    "read-by-the-only-voter",
    "renewal-by-the-only-voter",
    "append-conflict",
    "append-from-old-leader",
    "append-damaged",
    "vote-refused",
    "pre-vote-refused",
    "leader-transferred",
    "leadership-gained",
    "leadership-lost",
    "leader-disk-hangs",
    "member-removed",
    "membership-chore-done",
    "removed-member-told",
    "removed-member-asked",
    "call-for-another-refused",
    // watch
    "watch-caught-up-in-memory",
    "watch-history-read",
    "watch-mailbox-full",
    "watch-progress-told",
    "watch-response-fragmented",
    // leader
    "lease-expired",
    "lease-renewed",
    "lease-renewed-too-late",
    "lease-revocation-failed",
    "member-found-corrupt",
    // space
    "quota-warned",
    "quota-alarm-disarmed",
    // apply
    "txn-refused",
    "write-refused-for-space",
    "shrinking-put-under-alarm",
    // mvcc
    "index-replayed",
    "range-read-in-slices",
    "read-of-the-compacted",
    "compaction-begun",
    "compaction-slice",
    "store-flushed-whole",
    "store-flushed-in-background",
    // api
    "quota-used-up",
    "range-streamed-in-chunks",
    "defragmented",
];

/// Those that it takes thousands of seeds to come to.
#[allow(dead_code)] // read by the rules of the tree
pub(crate) const RARE: &[&str] = &[
    "disk-directory-sync-failed",
    "append-with-a-gap",
    "proposals-gathered",
    "snapshot-superseded",
    "snapshot-not-needed",
    "snapshot-waits-for-log",
    "staged-file-rotten",
    "staged-files-given-up",
    "first-start-told-of-members",
    "start-of-the-corrupt",
    "compaction-resumed",
    "log-torn-tail-found",
    "log-waits-for-segment",
    "prev-kv-compacted",
    "watch-canceled-by-compaction",
    "watch-history-unreadable",
    "watch-store-replaced",
    "read-of-the-future",
];

/// Those that the present workloads do not come to: it takes more load or larger answers than these
/// clients ask for, leases of minutes, or a member of an older release.
#[allow(dead_code)] // read by the rules of the tree
pub(crate) const BEYOND: &[&str] = &[
    "log-inbox-full",
    "request-refused-for-room",
    "request-waited-for-room",
    "overloaded",
    "proposal-refused-for-load",
    "proposal-refused-for-number",
    "forwarded-one-by-one",
    "lease-renewal-clears-checkpoint",
    "lease-checkpoint-proposed",
];
