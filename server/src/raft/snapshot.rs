//! What openraft calls a snapshot: a checkpoint of the engine, taken when somebody needs it.
//!
//! The state machine itself is durable up to its last flush, so a "built" snapshot is only the
//! knowledge of that position: it lets openraft purge the log below it. A checkpoint is made in
//! constant time at the moment a peer asks for one, and is then newer than any kept one could be; one that
//! did not arrive is sent again for a while (`departures`).

use std::io;

use openraft::alias::SnapshotOf;
use openraft::{RaftSnapshotBuilder, SnapshotMeta};

use super::departures::Departure;
use super::receiving::Staged;
use super::type_config::{LogId, StoredMembership, TypeConfig};

/// The content of a snapshot.
pub enum SnapshotData {
    /// This member's own state is durable up to the position: nothing to send or install.
    Position,
    /// A checkpoint to send.
    Checkpoint(Departure),
    /// A checkpoint that was received whole and waits to be installed.
    Received(Staged),
}

/// A snapshot as openraft passes it around.
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;

/// Up to where a state reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// The last entry in the state.
    pub(crate) log_id: Option<LogId>,
    /// The members at that entry.
    pub(crate) membership: StoredMembership,
}

impl Position {
    pub(crate) fn snapshot(&self, data: SnapshotData) -> Snapshot {
        let meta = SnapshotMeta { last_log_id: self.log_id, last_membership: self.membership.clone() };
        Snapshot { meta, snapshot: data }
    }
}

/// Reports how far the state is durable.
pub struct SnapshotBuilder {
    pub(crate) durable: Position,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.durable.snapshot(SnapshotData::Position))
    }
}
