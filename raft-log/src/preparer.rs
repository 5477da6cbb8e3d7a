//! Makes the next segment before it is needed, and purged segments into spare ones.
//!
//! Owned by a thread or task of its own, because filling a file takes long. A disk that is too
//! full for the next segment is found here, while the present one still takes records.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::disk::{Disk, Operation, wait};
use crate::error::LogError;
use crate::options::Options;
use crate::probe;
use crate::segment::{Segment, spare_name};
use crate::state::Shared;

/// What the writer asks for. The queue holds at most one request per segment.
pub(crate) enum Job {
    /// Make the segment with this sequence number.
    Prepare { sequence: u32, made: oneshot::Sender<Result<Arc<Segment>, LogError>> },
    /// The writer waits for the segment that it asked for: try again, or say why not.
    Hurry,
    /// Nothing in the segment is needed any more, and no later crash will need it.
    Retire(Arc<Segment>),
}

pub(crate) struct Preparer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    options: Options,
    identity: u64,
    spares: VecDeque<String>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// A segment that found no room; tried again when room may have been made.
    postponed: Option<Postponed>,
}

struct Postponed {
    sequence: u32,
    made: oneshot::Sender<Result<Arc<Segment>, LogError>>,
}

impl Preparer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        options: Options,
        identity: u64,
        spares: VecDeque<String>,
    ) -> (Self, mpsc::UnboundedSender<Job>) {
        let (sender, jobs) = mpsc::unbounded_channel();
        (Self { disk, shared, options, identity, spares, jobs, postponed: None }, sender)
    }

    /// Works until the writer is gone.
    pub(crate) async fn run(mut self) {
        while let Some(job) = self.jobs.recv().await {
            match job {
                Job::Prepare { sequence, made } => self.prepare(Postponed { sequence, made }, false).await,
                Job::Hurry => {
                    if let Some(postponed) = self.postponed.take() {
                        self.prepare(postponed, true).await;
                    }
                }
                Job::Retire(segment) => {
                    if let Err(error) = self.retire(segment) {
                        tracing::error!(%error, "a purged segment could not be put aside");
                        self.shared.fail(error);
                        // The next ones must stay, or the one that could not go would leave a gap behind it.
                        return;
                    }
                    if let Some(postponed) = self.postponed.take() {
                        self.prepare(postponed, false).await;
                    }
                }
            }
        }
    }

    async fn prepare(&mut self, wanted: Postponed, last_try: bool) {
        wait(&*self.disk, Operation::Prepare).await;
        let begun = Instant::now();
        let spare = self.spares.pop_front();
        let bytes = self.options.segment_bytes;
        let made = Segment::make(&*self.disk, wanted.sequence, self.identity, bytes, spare.as_deref());
        match made {
            Ok(segment) => {
                if spare.is_some() {
                    probe::reached("log-segment-recycled");
                }
                tracing::debug!(segment = segment.name(), recycled = spare.is_some(), "a segment is ready");
                if let Some(observer) = &self.options.observer {
                    observer.prepared(spare.is_some(), begun.elapsed());
                }
                self.shared.state.lock().warning = None;
                // A writer that is gone needs no segment.
                drop(wanted.made.send(Ok(Arc::new(segment))));
            }
            Err(error @ LogError::DiskFull(_)) if !last_try => {
                probe::reached("log-disk-full");
                tracing::error!(%error, "the log goes on until its present segment is full");
                self.shared.state.lock().warning = Some(error);
                self.postponed = Some(wanted);
            }
            Err(error) => {
                self.shared.fail(error.clone());
                drop(wanted.made.send(Err(error)));
            }
        }
    }

    fn retire(&mut self, segment: Arc<Segment>) -> Result<(), LogError> {
        probe::reached("log-segment-retired");
        let name = segment.name().to_owned();
        // A reader may still be at work in it: it keeps the file, which then gets no second life.
        let unread = Arc::strong_count(&segment) == 1;
        let wanted = self.spares.len() < self.options.keep_recycled && segment.bytes() == self.options.segment_bytes;
        if unread && wanted {
            let spare = spare_name(segment.sequence());
            self.disk.rename(&name, &spare).map_err(|error| LogError::io("rename", &name, &error))?;
            self.spares.push_back(spare);
        } else {
            self.disk.remove(&name).map_err(|error| LogError::io("remove", &name, &error))?;
        }
        // One at a time, oldest first, so that no crash leaves a gap between segments.
        self.disk.sync_dir().map_err(|error| LogError::io("sync the directory of", &name, &error))
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        // Without it the writer would learn of a panic only when its segment is full.
        if std::thread::panicking() {
            self.shared.fail(LogError::OwnerGone);
        }
    }
}
