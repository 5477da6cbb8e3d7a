//! Opening: recovery, then the two owners and the handle around what it found.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::options::Options;
use crate::preparer::Preparer;
use crate::probe;
use crate::recovery::recover;
use crate::state::{Shared, State};
use crate::writer::{Writer, payload_bytes_max};

/// The owner of the log's files, to be run.
pub struct LogTask {
    pub(crate) writer: Writer,
    pub(crate) preparer: Preparer,
}

impl LogTask {
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Arc<Shared>, Self), OpenError> {
        options.check()?;
        let mut recovered = recover(&*disk, &options)?;
        let state = State {
            // Wrong where it is broken: a restart forgets up to where the log was purged.
            purged: recovered.ledger.purged.filter(|_| !probe::broken("lost-purge-boundary")),
            vote: recovered.ledger.vote.clone(),
            committed: recovered.ledger.committed.clone(),
            located: std::mem::take(&mut recovered.located),
            segments: recovered.written.iter().map(|segment| (segment.sequence(), Arc::clone(segment))).collect(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
            cache_bytes: options.cache_bytes,
            inbox_bytes: options.inbox_bytes,
            payload_bytes_max: payload_bytes_max(options.segment_bytes),
        });
        let spares = std::mem::take(&mut recovered.spares);
        let observer = options.observer.clone();
        let (preparer, jobs) =
            Preparer::new(Arc::clone(&disk), Arc::clone(&shared), options, recovered.identity, spares);
        let writer = Writer::new(Arc::clone(&shared), disk, observer, recovered, jobs);
        Ok((shared, Self { writer, preparer }))
    }

    /// Owns the files until the log is closed, its last handle dropped, or a write failed.
    ///
    /// On a real disk this blocks the thread it runs on for as long as the disk takes.
    pub async fn run(self) {
        let Self { writer, preparer } = self;
        // In the order of the data: the preparer ends when the writer has.
        tokio::join!(biased; writer.run(), preparer.run());
    }
}
