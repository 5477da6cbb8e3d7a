//! The owner of the files.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::disk::Disk;
use crate::error::{LogError, OpenError};
use crate::options::Options;
use crate::state::{ChangeKind, Shared, State};

/// The owner of the log's files, to be run.
pub struct LogTask {
    shared: Arc<Shared>,
}

impl LogTask {
    pub(crate) fn open(_disk: Arc<dyn Disk>, options: Options) -> Result<(Arc<Shared>, Self), OpenError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            work: Notify::new(),
            room: Notify::new(),
            cache_bytes: options.cache_bytes,
            inbox_bytes: options.inbox_bytes,
            payload_bytes_max: options.segment_bytes / 2,
        });
        Ok((Arc::clone(&shared), Self { shared }))
    }

    /// Owns the files until the log is closed, its last handle dropped, or a write failed.
    pub async fn run(self) {
        loop {
            let changes = std::mem::take(&mut self.shared.state.lock().queue);
            if changes.is_empty() {
                self.shared.work.notified().await;
            }
            for change in changes {
                match change.kind {
                    ChangeKind::Append { records, .. } => {
                        self.shared.state.lock().waiting_bytes -= records.iter().map(crate::state::weight).sum::<u64>();
                    }
                    ChangeKind::Vote(vote) => self.shared.state.lock().vote = Some(vote),
                    ChangeKind::Close => {
                        (change.done)(Ok(()));
                        return;
                    }
                    ChangeKind::Truncate { .. } | ChangeKind::Purge(_) | ChangeKind::Barrier => {}
                }
                (change.done)(Ok(()));
            }
            self.shared.room.notify_waiters();
        }
    }
}

impl Drop for LogTask {
    fn drop(&mut self) {
        self.shared.fail(LogError::OwnerGone);
    }
}
