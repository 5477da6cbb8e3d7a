//! The owner of the files: drains its inbox, one write and one sync per batch, then completes the callers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::batch::{Batch, CONTENT_BYTES, SECTOR_BYTES, sectors_for};
use crate::disk::{Disk, Operation, wait};
use crate::error::LogError;
use crate::ledger::Ledger;
use crate::log::{Completion, Record};
use crate::options::Observer;
use crate::preparer::Job;
use crate::probe;
use crate::record::Frame;
use crate::recovery::Recovered;
use crate::segment::{HEADER_SECTORS, Segment, place};
use crate::state::{Change, ChangeKind, Located, Position, Shared, weight};

pub(crate) struct Writer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    observer: Option<Arc<dyn Observer>>,
    /// What the frames so far amount to, those of the present batch included.
    ledger: Ledger,
    /// Where the next batch goes; none before the first one.
    active: Option<Active>,
    /// The segments before it, oldest first.
    sealed: VecDeque<Arc<Segment>>,
    /// Segments made ready, in order; where there are none, one is coming.
    ready: VecDeque<Arc<Segment>>,
    coming: Option<oneshot::Receiver<Result<Arc<Segment>, LogError>>>,
    jobs: mpsc::UnboundedSender<Job>,
    next_sequence: u32,
    next_batch: u64,
    /// Taken from the inbox, not yet in a batch; of the first, `taken` records are.
    pending: VecDeque<Change>,
    taken: usize,
    /// A committed position that rides on the next frame.
    committed: Option<Bytes>,
    batch: Batch,
    effects: Effects,
    ended: bool,
}

struct Active {
    segment: Arc<Segment>,
    next_sector: u32,
}

/// What to do when the present batch is durable.
#[derive(Default)]
struct Effects {
    located: Vec<Located>,
    record_bytes: u64,
    vote: Option<Bytes>,
    done: Vec<Completion>,
    close: Option<Completion>,
}

/// Whether more can go into the present batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    Drained,
    /// The segment has no room for the next frame, or the next change wants a batch of its own.
    Full,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        observer: Option<Arc<dyn Observer>>,
        recovered: Recovered,
        jobs: mpsc::UnboundedSender<Job>,
    ) -> Self {
        let mut sealed: VecDeque<_> = recovered.written.into();
        let next_sector = recovered.next_sector;
        let active = sealed.pop_back().map(|segment| Active { segment, next_sector });
        let newest = recovered.ready.back().or(active.as_ref().map(|active| &active.segment));
        let next_sequence = newest.map_or(1, |segment| segment.sequence() + 1);
        Self {
            shared,
            disk,
            observer,
            ledger: recovered.ledger,
            active,
            sealed,
            ready: recovered.ready,
            coming: None,
            jobs,
            next_sequence,
            next_batch: recovered.next_batch,
            pending: VecDeque::new(),
            taken: 0,
            committed: None,
            batch: Batch::default(),
            effects: Effects::default(),
            ended: false,
        }
    }

    /// Works until the log is closed or fails.
    pub(crate) async fn run(mut self) {
        self.retire_dead();
        self.prepare_next();
        while !self.ended {
            if let Err(error) = self.turn().await {
                tracing::error!(%error, "the raft log has failed and takes nothing more");
                self.fail(error);
            }
        }
    }

    /// Waits for work, then brings all of it to the disk.
    async fn turn(&mut self) -> Result<(), LogError> {
        self.drain();
        if self.pending.is_empty() {
            self.shared.work.notified().await;
            if let Some(error) = self.shared.state.lock().failed.clone() {
                return Err(error);
            }
            return Ok(());
        }
        while !self.pending.is_empty() {
            if self.fill().await? == Fill::Full {
                self.commit().await?;
            }
        }
        self.commit().await
    }

    fn drain(&mut self) {
        let mut state = self.shared.state.lock();
        self.pending.append(&mut state.queue);
        let rides = |change: &Change| !matches!(change.kind, ChangeKind::Barrier);
        if state.committed_waits && self.pending.iter().any(rides) {
            state.committed_waits = false;
            self.committed = state.committed.clone();
        }
    }

    /// Puts pending changes into the batch, in order.
    async fn fill(&mut self) -> Result<Fill, LogError> {
        if let Some(committed) = self.committed.clone() {
            if !self.make_room(&Frame::Committed(&committed)).await? {
                return Ok(Fill::Full);
            }
            self.push(&Frame::Committed(&committed));
            self.committed = None;
        }
        while let Some(change) = self.pending.pop_front() {
            let added = self.add(&change.kind).await;
            if !matches!(added, Ok(true)) {
                // Its caller is told when the rest of it was added, or that it failed.
                self.pending.push_front(change);
                return added.map(|_| Fill::Full);
            }
            self.taken = 0;
            match change.kind {
                ChangeKind::Close => self.effects.close = Some(change.done),
                ChangeKind::Vote(vote) => {
                    self.effects.vote = Some(vote);
                    self.effects.done.push(change.done);
                }
                _ => self.effects.done.push(change.done),
            }
        }
        Ok(Fill::Drained)
    }

    /// Puts one change into the batch; false where a part of it has to wait for the next one.
    async fn add(&mut self, change: &ChangeKind) -> Result<bool, LogError> {
        let frame = match change {
            ChangeKind::Append { records, first_ticket } => return self.add_records(records, *first_ticket).await,
            ChangeKind::Truncate { last: Some(last) } => Frame::Truncate { last: *last },
            ChangeKind::Truncate { last: None } => Frame::Clear,
            ChangeKind::Purge(position) => Frame::Purge(*position),
            ChangeKind::Vote(vote) => Frame::Vote(vote),
            ChangeKind::Barrier => return Ok(true),
            // The mark of a clean end is a batch of its own: its presence proves the batch before it.
            ChangeKind::Close => return Ok(self.batch.is_empty()),
        };
        let fits = self.make_room(&frame).await?;
        if fits {
            self.push(&frame);
        }
        Ok(fits)
    }

    async fn add_records(&mut self, records: &[Record], first_ticket: u64) -> Result<bool, LogError> {
        for record in &records[self.taken..] {
            let position = Position { index: record.index, term: record.term };
            let frame = Frame::Record { position, payload: &record.payload };
            if !self.make_room(&frame).await? {
                return Ok(false);
            }
            let begin = self.push(&frame);
            let active = self.active.as_ref().expect("there is room, so there is a segment");
            self.effects.located.push(Located {
                segment: active.segment.sequence(),
                index: record.index,
                ticket: first_ticket + self.taken as u64,
                place: place(active.next_sector, begin, record.payload.len()),
            });
            self.effects.record_bytes += weight(record);
            self.taken += 1;
        }
        Ok(true)
    }

    /// Whether a frame fits the present batch. An empty batch moves on to the next segment for it.
    async fn make_room(&mut self, frame: &Frame<'_>) -> Result<bool, LogError> {
        if self.fits(frame) {
            return Ok(true);
        }
        if !self.batch.is_empty() {
            return Ok(false);
        }
        self.roll().await?;
        assert!(self.fits(frame), "what was taken fits an empty segment");
        Ok(true)
    }

    fn fits(&self, frame: &Frame<'_>) -> bool {
        let Some(active) = &self.active else {
            return false;
        };
        let left = (active.segment.sectors() - active.next_sector) as usize;
        left > 0 && sectors_for(self.batch.content_bytes() + frame.bytes()) <= left
    }

    fn push(&mut self, frame: &Frame<'_>) -> usize {
        let active = self.active.as_ref().expect("there is room, so there is a segment");
        self.ledger.apply(active.segment.sequence(), frame).expect("callers' changes were checked when they came");
        self.batch.push(frame, active.segment.seed())
    }

    /// Seals the active segment and opens the next one with its head.
    async fn roll(&mut self) -> Result<(), LogError> {
        let segment = self.next_segment().await?;
        probe::reached("log-segment-sealed");
        self.shared.state.lock().segments.insert(segment.sequence(), Arc::clone(&segment));
        let before = self.ledger.clone();
        for frame in before.head() {
            self.ledger.apply(segment.sequence(), &frame).expect("a head changes nothing");
            self.batch.push(&frame, segment.seed());
        }
        let active = Active { segment, next_sector: HEADER_SECTORS };
        self.sealed.extend(self.active.replace(active).map(|active| active.segment));
        self.prepare_next();
        Ok(())
    }

    async fn next_segment(&mut self) -> Result<Arc<Segment>, LogError> {
        if let Some(segment) = self.ready.pop_front() {
            return Ok(segment);
        }
        let mut coming = self.coming.take().ok_or(LogError::OwnerGone)?;
        if let Ok(segment) = coming.try_recv() {
            return segment;
        }
        probe::reached("log-waits-for-segment");
        let begun = Instant::now();
        drop(self.jobs.send(Job::Hurry));
        let segment = coming.await.unwrap_or(Err(LogError::OwnerGone));
        if let Some(observer) = &self.observer {
            observer.waited(begun.elapsed());
        }
        segment
    }

    /// Asks for the segment after the active one, where it is not there yet.
    fn prepare_next(&mut self) {
        if !self.ready.is_empty() || self.coming.is_some() {
            return;
        }
        let (made, coming) = oneshot::channel();
        drop(self.jobs.send(Job::Prepare { sequence: self.next_sequence, made }));
        self.next_sequence = self.next_sequence.checked_add(1).expect("no log lives through so many segments");
        self.coming = Some(coming);
    }

    /// Writes and syncs the batch, then lets its effects be seen and completes its callers.
    async fn commit(&mut self) -> Result<(), LogError> {
        let mark = self.effects.close.is_some() && self.has_sector();
        if probe::broken("acknowledge-before-fsync") {
            // Wrong: the callers are told that the batch is durable before anything of it is written.
            for done in self.effects.done.drain(..) {
                done(Ok(()));
            }
        }
        if !self.batch.is_empty() || mark {
            self.write().await?;
        }
        let effects = std::mem::take(&mut self.effects);
        self.show(&effects);
        self.retire_dead();
        for done in effects.done {
            done(Ok(()));
        }
        self.shared.room.notify_waiters();
        if let Some(closed) = effects.close {
            self.ended = true;
            closed(Ok(()));
        }
        Ok(())
    }

    fn has_sector(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.next_sector < active.segment.sectors())
    }

    async fn write(&mut self) -> Result<(), LogError> {
        let active = self.active.as_mut().expect("a batch has a segment");
        let sectors = self.batch.stamp(active.segment.sequence(), active.next_sector, self.next_batch);
        wait(&*self.disk, Operation::Write).await;
        let begun = Instant::now();
        active.segment.write(active.next_sector, sectors)?;
        if let Some(observer) = &self.observer {
            observer.wrote(sectors.len() as u64, begun.elapsed());
        }
        let begun = Instant::now();
        wait(&*self.disk, Operation::Sync).await;
        if let Err(error) = active.segment.sync() {
            probe::reached("log-sync-failed");
            // Wrong where it is broken: a second sync succeeds, and what the first one lost counts as durable.
            if !(probe::broken("ignore-failed-fsync") && active.segment.sync().is_ok()) {
                return Err(error);
            }
        }
        if let Some(observer) = &self.observer {
            observer.synced(begun.elapsed());
        }
        wait(&*self.disk, Operation::Acknowledge).await;
        active.next_sector += (sectors.len() / SECTOR_BYTES) as u32;
        self.next_batch += 1;
        self.batch.clear();
        Ok(())
    }

    fn show(&self, effects: &Effects) {
        let mut state = self.shared.state.lock();
        for located in &effects.located {
            state.locate(located);
        }
        state.waiting_bytes -= effects.record_bytes;
        state.batches += 1;
        state.evict(self.shared.cache_bytes);
        if let Some(vote) = &effects.vote {
            state.vote = Some(vote.clone());
        }
    }

    /// Gives away the oldest segments of which nothing is needed. All that says so is durable.
    fn retire_dead(&mut self) {
        while let Some(segment) = self.sealed.pop_front_if(|oldest| !self.ledger.is_live(oldest.sequence())) {
            self.shared.state.lock().segments.remove(&segment.sequence());
            drop(self.jobs.send(Job::Retire(segment)));
        }
    }

    /// Latches a failure and tells everyone who waits, in order.
    fn fail(&mut self, error: LogError) {
        self.ended = true;
        let effects = std::mem::take(&mut self.effects);
        let pending = std::mem::take(&mut self.pending).into_iter().map(|change| change.done);
        let waiting = effects.done.into_iter().chain(pending).chain(effects.close);
        self.shared.fail_after(error, waiting);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.fail(LogError::OwnerGone);
        }
    }
}

/// The largest payload that fits a new segment beside the largest head.
pub(crate) fn payload_bytes_max(segment_bytes: u64) -> u64 {
    let content = (segment_bytes / SECTOR_BYTES as u64 - u64::from(HEADER_SECTORS)) * CONTENT_BYTES as u64;
    let state = vec![0; crate::STATE_BYTES_MAX];
    let position = Position { index: 0, term: 0 };
    let others = [
        Frame::Continue { last: position, first: Some(0) },
        Frame::Purge(position),
        Frame::Vote(&state),
        Frame::Committed(&state),
        Frame::Committed(&state),
        Frame::Record { position, payload: &[] },
    ];
    content - others.iter().map(|frame| frame.bytes() as u64).sum::<u64>()
}
