//! Every bound of the server, and how they hang together.

use std::time::Duration;

/// What a request may exceed `--max-request-bytes` by before the transport itself refuses it; as in etcd.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// What the raft log's record of a request takes more than the request at most: its identity, term, index and
/// leader, and the envelope of the command.
pub const LOG_RECORD_OVERHEAD_BYTES: u64 = 1_024;

/// Committed entries that may wait for being applied before proposals are refused with
/// "too many requests"; as in etcd.
pub const COMMIT_APPLY_GAP_MAX: u64 = 5_000;

/// Bytes that ordinary requests of clients may take together, where `--memory-limit` says nothing: enough for the
/// largest list that a client of etcd's takes, while others are asked for beside it.
pub const ADMISSION_POOL_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes that are kept for what must go on when ordinary requests have taken all of theirs.
pub const ADMISSION_RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// How long a request waits for room before it is refused with "too many requests".
pub const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// What a request is reckoned to take besides its bytes and its answer's.
pub const UNARY_BYTES: u64 = 8 * 1024;

/// What an open stream is reckoned to take besides its messages, with what waits for its client to read.
pub const STREAM_BYTES: u64 = 32 * 1024;

/// Messages that stay below it are in what is reckoned for their request or stream.
pub const MESSAGE_FREE_BYTES: u64 = 4 * 1024;

/// What a connection is reckoned to take besides its requests and what waits to be read of them.
pub const CONNECTION_BYTES: u64 = 64 * 1024;

/// What a watcher is reckoned to take besides its keys.
pub const WATCHER_BYTES: u64 = 1024;

/// How often a command is in memory while it is replicated and applied: as it came, encoded, on its way to the log and
/// to the others, and in the store's memory.
pub const WRITE_COPIES: u64 = 4;

/// How often what is read is in memory until it has left: as records, and encoded. A plain list is encoded while it
/// leaves, and is there once less.
pub const READ_COPIES: u64 = 2;

/// The same where it leaves as JSON: as records, encoded twice, taken apart, and as text.
pub const JSON_COPIES: u64 = 8;

/// What a record is reckoned to take besides its bytes while it is in an answer.
pub const KEY_VALUE_BYTES: u64 = 128;

/// What deleting a key takes until it is done: its record, its event, and its place in the batch.
pub const DELETION_BYTES: u64 = 512;

/// What a database file on its way to a client takes, with what was made ahead of it.
pub const DATABASE_BYTES: u64 = 4 * 1024 * 1024;

/// Entries that are applied with one write of the engine.
pub const APPLY_RUN_ENTRIES: usize = 512;

/// Bytes of entries after which a run ends, however few they are: what it writes is in memory until it is written.
pub const APPLY_RUN_BYTES: usize = 8 * 1024 * 1024;

/// Most bytes of one chunk of a snapshot on its way to a peer.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// Bytes of one blob of a database file on its way to a client; as in etcd.
pub const DATABASE_BLOB_BYTES: usize = 32 * 1024;

/// Blobs of a database file that are made before the client has taken those before them.
pub const DATABASE_BLOBS_AHEAD: usize = 64;

/// Largest message between members: a batch of entries, each up to the largest request.
pub const PEER_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a key that the span of a request shows. Thousands of spans may wait to be sent.
pub const SPAN_TEXT_BYTES: usize = 1_024;

/// Waiting calls that one round of ReadIndex answers at most.
pub const READ_INDEX_INBOX: usize = 65_536;

/// Proposals under way at once from which on the next ones wait for each other: fewer are served sooner than gathered.
pub const PROPOSALS_GATHERED_FROM: usize = 32;

/// Proposals of this member that may be under way at once.
pub const PROPOSALS_MAX: usize = 16_384;

/// Proposals that one member may have passed on to another and not heard of yet. Further ones wait where they are.
pub const FORWARDED_UNDER_WAY: usize = PROPOSALS_MAX;

/// Bytes of the commands, or of the outcomes, that are passed on in one message, unless it is a single one. More of them
/// would keep others waiting behind them.
pub const FORWARD_BATCH_BYTES: usize = 1024 * 1024;

/// Largest encoded outcome that is passed on with others; its message has a few bytes more.
pub const FORWARD_OUTCOME_BYTES: usize = PEER_MESSAGE_BYTES - 1024;

/// Groups of entries of which it is remembered when they came how far, for the metrics.
pub const TIMELINE_MARKS_MAX: usize = 4_096;

/// Passwords that may wait to be hashed or checked at once; one more is refused.
pub const PASSWORDS_MAX: usize = 4_096;

/// Longest time to live of a lease, in seconds; as in etcd.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Leases that the leader ends at the same time. Others that have run out follow as these are gone; etcd ends as many
/// every half a second.
pub const LEASE_REVOKES_UNDER_WAY: usize = 500;

/// Leases whose remaining time one log entry records; as in etcd.
pub const LEASE_CHECKPOINTS_PER_COMMAND: usize = 1_000;

/// Messages that may wait for the leader's lease expirer; who sends waits when it is full.
pub const LESSOR_INBOX: usize = 4_096;

/// How many of them it takes at once.
pub const LESSOR_TOGETHER: usize = 256;

/// How deep transactions may be nested. Messages nested deeper than 100 cannot be decoded, a level of
/// a transaction takes two of that, and the outcome in a forwarded response has five more.
pub const TXN_DEPTH_MAX: usize = 40;

/// Keys in the first chunk of a streamed range; as in etcd.
pub const RANGE_STREAM_FIRST_CHUNK: i64 = 10;

/// Bytes of a chunk of a streamed range that are aimed at, at most; below it `--max-request-bytes` is, as in etcd.
pub const RANGE_STREAM_CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Bytes of records after which a chunk is made smaller, since it is in memory twice: what comes behind small values is
/// not known before it is read.
pub const RANGE_STREAM_BYTES_MAX: u64 = 8 * 1024 * 1024;

const _: () = assert!(RANGE_STREAM_CHUNK_BYTES as u64 <= RANGE_STREAM_BYTES_MAX / 4, "what is aimed at is reached");

/// Bytes that a request reads where its connection lives; one that reads more begins anew on a thread that nobody else
/// waits for.
pub const READ_HERE_BYTES: u64 = 4 * 1024 * 1024;

/// Keys that a read may come past, in its list or to count them, where its connection lives; one with more is made aside,
/// on a thread that nobody else waits for.
pub const RANGE_ASIDE_KEYS: i64 = 2_000;

/// What such a read is reckoned to take besides what it reads, while it does: its thread, and of every file that it comes
/// past an index and what was read ahead. Measured with a limit of 256 MiB: 32 at once took 50 MB.
pub const LONG_READ_BYTES: u64 = 2 * 1024 * 1024;

/// Keys that a reader takes from the index before it lets the writer in again.
pub const INDEX_SLICE_KEYS: usize = 1_000;

/// Responses that wait for one slow watch stream before its watchers are marked as lagging.
pub const WATCH_MAILBOX: usize = 128;

/// Responses for each of a stream's watchers that may wait for it, where that is more: an event that concerns a thousand
/// watchers of one stream is a response for each of them.
pub const WATCH_MAILBOX_PER_WATCHER: usize = 2;

/// Bytes of events that wait for one slow watch stream before its watchers are marked as lagging.
pub const WATCH_MAILBOX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of events that wait for all watch streams together: each client may have an equal part of it, and each of its
/// streams an equal part of that, up to [`WATCH_MAILBOX_BYTES`].
pub const WATCH_WAITING_BYTES: usize = 2 * 1024 * 1024 * 1024;

/// What every stream may have of it, however many there are.
pub const WATCH_MAILBOX_BYTES_MIN: usize = 16 * 1024;

/// Answers that wait for a watch stream before it stops to read requests.
pub const WATCH_ANSWERS: usize = 64;

/// Bytes of events of several revisions that are put into one response while they are published.
pub const WATCH_MESSAGE_BYTES: usize = 1024 * 1024;

/// Batches of events that may wait for the watch hub; the state machine waits when it is full.
pub const HUB_INBOX: usize = 1_024;

/// Revisions from which on the watch hub tells of what it has before it takes what was published meanwhile.
pub const HUB_REVISIONS_TOGETHER: usize = 64;

/// Bytes of the newest revisions that the watch hub keeps for watchers that lag a little.
pub const HUB_RECENT_BYTES: usize = 16 * 1024 * 1024;

/// The number of those revisions.
pub const HUB_RECENT_REVISIONS: usize = 16_384;

/// Bytes of history that all lagging watchers are told at once, together.
pub const CATCH_UP_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of history that one lagging watcher is told at once, where many lag.
pub const CATCH_UP_SLICE_BYTES_MIN: usize = 256 * 1024;

/// Bytes of history that one lagging watcher is told at once, where few lag.
pub const CATCH_UP_SLICE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Events that are looked at for lagging watchers before synced ones have their turn.
pub const CATCH_UP_STEP_EVENTS: usize = 16_384;

/// Pairs of an event and a lagging watcher that are handed out before synced watchers have their turn.
pub const CATCH_UP_STEP_HITS: usize = 32_768;

/// How long to wait before history is read again after that failed.
pub const CATCH_UP_RETRY: Duration = Duration::from_millis(50);

/// Records before events that a watch stream looks up before it lets others have their turn.
pub const PREVIOUS_LOOKUPS: usize = 64;

/// How often a watch stream tries to look one up before it gives up.
pub const PREVIOUS_ATTEMPTS: usize = 200;

const _: () = assert!(CATCH_UP_SLICE_BYTES_MIN <= WATCH_MAILBOX_BYTES / 2, "a drained mailbox has room for a slice");
const _: () = assert!(WATCH_MESSAGE_BYTES <= WATCH_MAILBOX_BYTES / 2, "a drained mailbox has room for a message");

/// How long a member waits for a linearizable read or a proposal beyond two election timeouts; as in etcd.
pub const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);

/// Requests for a lock or the lead of an election that may be under way; further ones wait.
pub const WAITING_MAX: usize = 65_536;

/// Keys of clients that went away that are taken back at the same time.
pub const WITHDRAWALS_AT_ONCE: usize = 64;

/// Bytes of the store's blocks that were read and stay in memory; live records are kept above the engine.
pub const BLOCK_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that may be written to the engine before it is flushed. They are in memory until then, and those that were not
/// flushed are applied again at the start behind a crash.
pub const FLUSH_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes of the newest records that are kept ready to be read, where nobody says how many: what is asked for one by one,
/// while a long list of others is one walk over the store.
pub const VALUE_CACHE_BYTES: u64 = 96 * 1024 * 1024;

/// The same where the memory is limited, and there is that much of it.
pub const VALUE_CACHE_BYTES_LIMITED_MAX: u64 = 512 * 1024 * 1024;

/// Bytes of the newest entries of the raft log that are kept for members that are a little behind.
pub const LOG_CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Keys that one slice of an index checkpoint writes.
pub const CHECKPOINT_SLICE_KEYS: usize = 500;

/// Revisions that one slice of a compaction removes: what is applied meanwhile waits for it.
pub const COMPACTION_SLICE_REVISIONS: usize = 100;

/// Keys that one slice of a compaction looks at.
pub const COMPACTION_SLICE_KEYS: usize = 500;

/// Bytes of history that one slice of a compaction reads for its hash.
pub const HASH_SLICE_BYTES: usize = 256 * 1024;

/// Creations and deletions of keys that the index remembers, to count at a recent revision.
pub const INDEX_CHANGES_MAX: usize = 16_384;

/// Hashes of compaction points that are kept; as in etcd.
pub const COMPACTION_HASHES: usize = 10;

/// Connections that the system may hold ready to be accepted; it lowers this to its own limit.
pub const LISTEN_BACKLOG: u32 = 4_096;

/// How long a TLS handshake may take; as in etcd.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a client may send on one stream, and on all streams of a connection, before it must
/// wait for them to be read: a largest request fits, and a few of them.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// See [`HTTP2_STREAM_WINDOW_BYTES`].
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes of a response that wait in a connection before the next ones are made; what HTTP/2 brings by default.
pub const HTTP2_SEND_BYTES: usize = 400 * 1024;

/// Bytes of headers that a request may have.
pub const HTTP2_HEADER_BYTES: u32 = 64 * 1024;

/// Bytes that are read of a connection of HTTP/1 before they are looked at, headers among them; hyper's own bound.
pub const HTTP1_BUFFER_BYTES: usize = 8 * 1024 + 100 * 4 * 1024;

/// The same where the memory is limited: as many bytes of headers as HTTP/2 may bring.
pub const HTTP1_BUFFER_BYTES_LIMITED: usize = HTTP2_HEADER_BYTES as usize;

/// Streams that a client may cancel before they were looked at; more of them is an attack
/// (CVE-2023-44487), and ends the connection. Clients that give up many requests at once stay below.
pub const HTTP2_PENDING_RESETS: usize = 1_000;

const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES <= HTTP2_CONNECTION_WINDOW_BYTES);
