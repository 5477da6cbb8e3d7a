//! The deliberate bugs that a simulation can switch on, one for each `probe::broken("…")` in the code:
//! a checker is worth something only if it notices them.

/// A deliberate bug.
pub(crate) struct Mutant {
    /// The place that is broken.
    pub(crate) name: &'static str,
    /// What is wrong there.
    pub(crate) what: &'static str,
    /// How many seeds may run until it is found.
    pub(crate) within: u64,
}

/// How many seeds may run until a bug is found, where nothing else is said.
const WITHIN: u64 = 300;

const fn mutant(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what, within: WITHIN }
}

/// One that takes several rare things at once.
const fn rare(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what, within: 1000 }
}

/// Every one of them, by room.
#[rustfmt::skip] // one line each
pub(crate) const MUTANTS: &[Mutant] = &[
    // raft-log
    mutant("acknowledge-before-fsync", "The log completes its callers before it writes and syncs what they gave."),
    mutant("skip-vote-fsync", "A vote is kept in memory only, so a crash takes it back."),
    mutant("ignore-failed-fsync", "A failed sync is tried again, and what the first one lost is acknowledged."),
    mutant("lost-purge-boundary", "A restart forgets up to where the log was purged."),
    mutant("skip-directory-sync", "A new segment's name is not synced, so a crash may take the whole segment away."),
    mutant("rot-taken-for-the-end", "Recovery takes an acknowledged batch that has rotted for the end of the log."),
    // raft
    mutant("truncate-committed", "A restart drops the last two entries of the log, committed or not."),
    mutant("vote-twice-in-term", "A restart goes back to the term before the last vote, so the member votes in that one twice."),
    mutant("apply-twice-after-restart", "The applied position is one behind after a restart, so a command applies twice."),
    mutant("member-diverges", "The fourth command of a run is left out, and every member cuts runs of its own."),
    mutant("read-without-read-index", "A linearizable read is served from whatever the member has applied."),
    mutant("read-before-applied", "A linearizable read asks for the read index, but does not wait until it is applied."),
    mutant("read-index-without-quorum", "A leader answers for the read index without asking whether it still leads."),
    mutant("read-index-by-leader-lease", "A leader answers for the read index from a lease by its own clock, without a round."),
    mutant("answer-to-an-earlier-question", "A leader counts what voters said before the read was asked for."),
    mutant("answers-for-another", "A member answers what is meant for another one whose address leads to it."),
    mutant("read-joins-running-round", "A read takes the answer of a round that began before it."),
    mutant("leader-resumes-after-restart", "A leader goes on in its old term after a restart, and serves reads from before it."),
    mutant("reply-before-apply", "A follower answers for a forwarded command before it has applied it itself."),
    mutant("retry-unknown-write", "A follower forwards a command again although the first attempt may have succeeded."),
    mutant("forwarded-again-after-break", "A follower forwards again what was on a stream to the leader that broke."),
    mutant("refused-from-one-too-early", "A leader that is sent a damaged batch says that the one before was not proposed, either."),
    mutant("conflict-told-as-success", "A follower that refuses entries for a conflict tells the leader that it has them."),
    mutant("refused-vote-counts", "A candidate counts refused votes as granted."),
    mutant("joiner-votes-at-once", "Whoever is added as a voter counts for the quorum before it was ever started."),
    rare("promotion-without-catch-up", "A learner is promoted whatever it holds."),
    mutant("strict-check-skipped", "A change of the members is let through that may cost the quorum."),
    mutant("removed-member-not-told", "Who was removed is taken for a member by the others, and told nothing."),
    rare("removed-learner-waits", "A learner that was removed waits for a leader and never asks."),
    mutant("members-listed-before-committed", "A list of members shows changes that are in a log alone."),
    mutant("refused-by-the-uncommitted", "A change of the members is refused because of another that may never be made."),
    mutant("members-stay-where-they-were", "A member that moved is looked for where it was."),
    mutant("file-resumed-by-its-name", "A file of a snapshot is not sent where the receiver has one of that name and size."),
    mutant("resumed-file-not-verified", "What was received of a snapshot before is installed without being read again."),
    mutant("hung-disk-keeps-the-lead", "A leader whose disk hangs goes on to lead, as its heartbeats need no disk."),
    mutant("heartbeats-without-entries", "A leader whose entries reach nobody goes on with its heartbeats, which keep the others from an election."),
    // watch
    mutant("watch-resume-skips-one", "A watch with a start revision begins one revision later."),
    mutant("drop-event-at-hand-over", "A watcher that has caught up misses the next revision that is published."),
    mutant("full-mailbox-drops-events", "Events that find a full mailbox are dropped."),
    mutant("notice-ahead-of-events", "A watcher that lags is sent progress notices of revisions that it was not told yet."),
    mutant("filter-ignored-in-catch-up", "A watcher that catches up gets events that its filter excludes."),
    mutant("split-revision-in-watch", "The events of a revision come in several responses that are not marked as fragments."),
    mutant("prev-kv-from-wrong-revision", "The record after a change passes for the one before it."),
    mutant("event-shared-with-its-record-before", "A watcher is told the record before an event because another one asked for it."),
    mutant("mailbox-without-bounds", "A watcher that is slow is sent everything nevertheless, so that it waits in memory."),
    mutant("watches-outlive-their-stream", "The watches of a stream that has ended stay."),
    mutant("cancelled-watch-goes-on", "A watch is told events after the answer to its cancellation."),
    mutant("progress-of-one-counts-for-all", "Progress of all watches of a stream is told when one of them knows everything."),
    mutant("watch-misses-snapshot", "A watch on a member that gets a snapshot misses what the snapshot skipped."),
    mutant("watch-from-compacted-refused", "A watch that starts at the compacted revision is cancelled."),
    mutant("future-watch-hears-the-present", "A watch that starts in the future is told what happens now."),
    // leader
    mutant("forget-lease-on-leader-change", "A new leader neither renews nor ends leases that were granted before its term."),
    rare("renewal-by-a-deposed-leader", "A leader that was deposed, and does not know it yet, answers renewals."),
    mutant("lease-expires-early", "A lease ends after half of its time."),
    mutant("failed-revocation-forgotten", "A lease whose revocation failed is not looked at again."),
    mutant("renewal-adds-up", "A renewal adds a lease's time to what is left of it."),
    mutant("renewal-after-the-end", "A lease that has run out is renewed as long as it was not revoked."),
    mutant("remaining-by-a-deposed-leader", "A leader that was deposed, and does not know it yet, says what is left of a lease."),
    mutant("lease-lives-twice-as-long", "A lease that runs out is revoked only when its time has gone by twice."),
    mutant("digest-of-nothing", "Of what entries wrote only the last one counts when members are compared."),
    // space
    mutant("quota-without-end", "A write fits whatever the store retains."),
    mutant("quota-alarm-stays", "The alarm NOSPACE is not disarmed, however much room there is."),
    // apply
    mutant("quota-refusal-after-the-write", "A put that is refused for space is carried out."),
    mutant("shrinking-put-refused", "A put of a shorter value counts as one that takes space."),
    mutant("alarms-forgotten", "A restart or a snapshot forgets which alarms are raised."),
    mutant("put-with-a-dead-lease", "A put may tie its key to a lease that is gone."),
    mutant("txn-compare-ignored", "A compare with the last revision of a key that does not exist always holds."),
    mutant("txn-compares-published-state", "Compares do not see what earlier commands of the same run wrote."),
    mutant("refused-txn-writes", "A transaction that is refused carries out its writes."),
    mutant("lease-revoke-leaves-key", "Revoking a lease leaves its first key."),
    mutant("snapshot-without-leases", "A member that installed a snapshot knows no leases."),
    mutant("greater-means-not-less", "A compare for \"greater\" holds for what is equal, too."),
    mutant("deleted-key-keeps-lease", "A key that is deleted stays with its lease, whose end deletes it again."),
    mutant("moved-key-keeps-old-lease", "A key that moves to another lease stays with the old one, too."),
    mutant("ignored-lease-is-lost", "A put that is to leave the lease as it is unties the key from it."),
    mutant("lease-granted-twice", "A grant of an id that is in use is not refused, and begins a lease anew."),
    mutant("range-cut-before-it-is-sorted", "A sorted range with a limit sorts only the first keys."),
    mutant("tombstones-forgotten", "A restart or a snapshot forgets which members were removed."),
    // mvcc
    mutant("delete-range-spares-last", "A delete of several keys leaves the last one."),
    mutant("compacted-revision-unreadable", "A read at exactly the compacted revision is refused."),
    mutant("compaction-goes-back", "A compaction below an earlier one is carried out."),
    mutant("stale-revision-in-range", "A read at an earlier revision gets the present state."),
    mutant("compaction-swallows-delete", "A compaction removes a deleted key with its delete, even where that is newer."),
    mutant("compaction-drops-visible-version", "A compaction removes the version that its own revision shows."),
    mutant("durable-ahead-of-flush", "What was written but not flushed counts as durable, so the log is purged too far."),
    mutant("flush-covers-what-came-during-it", "What was written while a flush went on counts as durable, so the log is purged too far."),
    mutant("index-misses-tombstone", "A restart forgets deletes that are newer than the stored index."),
    // admission
    mutant("admission-never-released", "What a request holds of the server's memory is never given back."),
    mutant("overload-never-ends", "A member that was late once refuses ordinary requests for ever."),
    // auth
    mutant("permission-checked-before-apply-only", "Who asked before users or roles changed is not judged by what they are now."),
    mutant("revoked-role-keeps-permission", "Who has a role keeps what was taken from it."),
    // api
    mutant("corrupt-member-goes-on", "A member that is named in an alarm CORRUPT serves what it has."),
    mutant("added-id-of-the-removed", "A member that is added in the place of another gets its id."),
    mutant("branches-share-no-keys", "A nested transaction whose two branches put one key is refused as a duplicate."),
    mutant("lease-keys-without-read-index", "The keys of a lease are those that the member knows, applied or not."),
    mutant("header-names-the-leader", "A follower's answers name the leader as the member that answers."),
    mutant("lock-without-waiting", "A lock is given to whoever asks, held or not."),
    mutant("turn-comes-after-one-ahead", "Who waits for a lock or an election gets it when the one just before it is gone."),
    mutant("turn-never-comes", "Who waits for a lock or an election is not woken when the one before it is gone."),
    mutant("observer-misses-a-proclamation", "Who observes an election misses what is said right after the leader was found."),
    mutant("range-stream-moves-on", "The chunks of a streamed range are of different revisions."),
];
