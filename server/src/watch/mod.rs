//! Who watches which keys, and what each has yet to be told.
//!
//! Owns every watcher of this member. Called by the state machine, which publishes the events of
//! each revision in order once they can be read, and by `api`, which opens one stream for each
//! gRPC stream. One task, the [`Hub`]'s, owns all of it; streams and the state machine talk to it
//! through its inbox, and it talks to streams through their mailboxes. It never waits for a stream.
//!
//! ```text
//! start > current   synced at once, but hears of nothing below its start
//! start ≤ current   lagging: is told history until it meets the hub's revision, then synced
//! synced            each published revision: group → watchers → their streams' mailboxes
//! mailbox full      lagging again from the first revision that did not fit, once there is room
//! next < compacted  cancelled with the compact revision
//! ```
//!
//! History comes from two places ([`watchers`]): the newest revisions are kept in memory for those
//! that lag a little, anything older is read from the store in slices, each read once for all
//! watchers that travel along. Both take turns with publishing, in bounded steps.
//!
//! - **Invariant:** a watcher is told every revision from its start on in which its range changed,
//!   rising, once, whole (`tests::watchers_are_told_the_history`).
//! - **Invariant:** a progress notice at R follows every event ≤ R of the watchers it speaks for:
//!   it goes through the same mailbox, and only when all of them are synced (same test).
//! - **Invariant:** no event of a watcher precedes the answer to its creation (same test).
//! - **Invariant:** what waits for a stream is bounded in messages and bytes, whatever the stream
//!   does (`tests::a_slow_stream_stalls_nobody`).
//! - **Invariant:** what waits for all streams of a client is bounded too, and does not depend on how many they are;
//!   other clients have as much (`tests::many_slow_streams_share_what_their_client_may_have`).
//!
//! An event is encoded once for all its watchers, with and without the record before it ([`spliced`]); what is kept of
//! that is bounded, and gives way to newer events first.
//!
//! Absent by design: permissions and the leader (they are `api`'s), the network, the encoding of all else.

mod allowance;
mod bounds;
mod catch_up;
mod delivery;
mod fragment;
mod group;
mod hub;
mod mailbox;
mod matching;
mod recent;
mod spliced;
mod stats;
mod stream;
mod watchers;

#[cfg(test)]
mod tests;

pub use bounds::Bounds;
pub use hub::{Hub, HubOptions};
pub use spliced::SplicedResponse;
pub use stats::WatchStats;
pub use stream::{WatchStream, WatchStreamEnd};

/// A watcher of this member; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WatcherKey(u64);

/// A watch stream of this member; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StreamKey(u64);
