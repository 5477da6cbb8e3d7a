//! The public face.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::error::{LogError, OpenError};
use crate::index::Place;
use crate::options::Options;
use crate::probe;
use crate::segment::Segment;
use crate::state::{Change, ChangeKind, Position, Shared, State, weight};
use crate::task::LogTask;

/// Is called once, when a change is durable or has failed: on the owner's thread, or, where the change
/// is refused, on the caller's. It must not block.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place; consecutive.
    pub index: u64,
    /// The term in which it was made.
    pub term: u64,
    /// Opaque to the log.
    pub payload: Bytes,
}

/// How a log gets on with what waits for the disk: looked at twice, it shows whether the disk hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether records are queued or under way to the disk.
    pub waits: bool,
    /// How many batches have been made durable since the log was opened.
    pub batches: u64,
}

/// A handle to an open log.
///
/// Changes show to readers at once and take effect in the order in which they are made; they are
/// durable when their completion or future says so. A future that is dropped halfway leaves the
/// change made. When the last handle is dropped the owner writes what is queued and ends.
#[derive(Clone)]
pub struct RaftLog {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        queue_close(&self.shared, Box::new(|_| ()));
    }
}

impl RaftLog {
    /// Opens the log in a directory, creating it where there is none, and repairs what a crash left unfinished.
    ///
    /// The handle is of use once the task runs: [`LogTask::run`], or [`LogTask::spawn_thread`] on a real disk.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, LogTask), OpenError> {
        let (shared, task) = LogTask::open(disk, options)?;
        Ok((Self { handle: Arc::new(Handle { shared }) }, task))
    }

    /// Adds records after the last one. They can be read when this returns; `done` is called when
    /// they are durable, in the order of the calls. An empty list completes after what came before it.
    ///
    /// The first record of an empty log may have any index, later ones follow without a gap.
    ///
    /// While [`Options::inbox_bytes`] or more wait for the disk a call is refused with
    /// [`LogError::Busy`] and changes nothing; who cannot be refused, and is the only one to append,
    /// awaits [`room`](Self::room) first. The bound is passed by at most one call.
    pub fn append(&self, records: Vec<Record>, done: Completion) {
        if let Err((error, done)) = self.try_append(records, done) {
            done(Err(error));
        }
    }

    fn try_append(&self, records: Vec<Record>, done: Completion) -> Result<(), (LogError, Completion)> {
        let shared = &self.handle.shared;
        let bytes: u64 = records.iter().map(weight).sum();
        if let Some(large) = records.iter().find(|record| record.payload.len() as u64 > shared.payload_bytes_max) {
            let error = LogError::TooLarge { bytes: large.payload.len() as u64, limit: shared.payload_bytes_max };
            return Err((error, done));
        }
        {
            let mut state = shared.state.lock();
            if let Some(error) = state.refusal() {
                return Err((error, done));
            }
            if let Err(error) = check_consecutive(&state, &records) {
                return Err((error, done));
            }
            if state.waiting_bytes >= shared.inbox_bytes {
                return Err((LogError::Busy, done));
            }
            state.waiting_bytes += bytes;
            let first_ticket = state.push(&records);
            state.queue.push_back(Change { kind: ChangeKind::Append { records, first_ticket }, done });
        }
        shared.work.notify_one();
        Ok(())
    }

    /// How the log gets on with what waits for the disk.
    pub fn progress(&self) -> Progress {
        let state = self.handle.shared.state.lock();
        Progress { waits: state.waiting_bytes > 0, batches: state.batches }
    }

    /// The size in bytes of the largest payload that is taken; it follows from [`Options::segment_bytes`].
    pub fn payload_bytes_max(&self) -> u64 {
        self.handle.shared.payload_bytes_max
    }

    /// Waits until less than [`Options::inbox_bytes`] wait for the disk, or the log has failed.
    pub async fn room(&self) {
        let shared = &self.handle.shared;
        loop {
            let changed = shared.room.notified();
            {
                let state = shared.state.lock();
                if state.waiting_bytes < shared.inbox_bytes || state.refusal().is_some() {
                    return;
                }
            }
            probe::reached("log-inbox-full");
            changed.await;
        }
    }

    /// Removes every record after an index; `None` removes all. Purged positions stay purged.
    pub async fn truncate_after(&self, index: Option<u64>) -> Result<(), LogError> {
        self.change(|state| {
            let wanted = index.map_or(0, |index| index.saturating_add(1));
            let from = state.purged.map_or(wanted, |purged| wanted.max(purged.index + 1));
            if state.first_index().is_none() || state.last().is_none_or(|last| last.index < from) {
                return ChangeKind::Barrier;
            }
            state.truncate(from);
            ChangeKind::Truncate { last: state.last() }
        })
        .await
    }

    /// Removes every record up to and with an index, and remembers that position.
    ///
    /// The position may lie beyond the last record (a snapshot was installed): then all are removed
    /// and the next record follows the position. A position that is purged already, or that lies
    /// before the first record and does not touch it, changes nothing.
    pub async fn purge(&self, up_to: u64, term: u64) -> Result<(), LogError> {
        self.change(|state| {
            let purged_already = state.purged.is_some_and(|purged| up_to <= purged.index);
            if purged_already || state.first_index().is_some_and(|first| up_to.saturating_add(1) < first) {
                return ChangeKind::Barrier;
            }
            let position = Position { index: up_to, term };
            state.purge(position);
            ChangeKind::Purge(position)
        })
        .await
    }

    /// Keeps a vote in the place of the one before. At most [`STATE_BYTES_MAX`](crate::STATE_BYTES_MAX) bytes.
    pub async fn save_vote(&self, vote: Bytes) -> Result<(), LogError> {
        check_state_size(&vote)?;
        if probe::broken("skip-vote-fsync") {
            // Wrong: the vote shows, but no crash will find it.
            self.handle.shared.state.lock().vote = Some(vote);
            return Ok(());
        }
        self.change(|_| ChangeKind::Vote(vote)).await
    }

    /// Keeps a committed position in the place of the one before. Not durable when it returns: it
    /// rides on the next batch, and at the latest on [`close`](Self::close). At most
    /// [`STATE_BYTES_MAX`](crate::STATE_BYTES_MAX) bytes.
    pub async fn save_committed(&self, committed: Bytes) -> Result<(), LogError> {
        check_state_size(&committed)?;
        let mut state = self.handle.shared.state.lock();
        if let Some(error) = state.refusal() {
            return Err(error);
        }
        if state.committed.as_ref() != Some(&committed) {
            state.committed = Some(committed);
            state.committed_waits = true;
        }
        Ok(())
    }

    /// Returns the vote as last made durable.
    pub fn vote(&self) -> Option<Bytes> {
        self.handle.shared.state.lock().vote.clone()
    }

    /// Returns the committed position as last saved.
    pub fn committed(&self) -> Option<Bytes> {
        self.handle.shared.state.lock().committed.clone()
    }

    /// Returns the first record's index.
    pub fn first_index(&self) -> Option<u64> {
        self.handle.shared.state.lock().first_index()
    }

    /// Returns index and term that the next record follows: the last record's, or where none is left the purge mark's.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.handle.shared.state.lock().last().map(|position| (position.index, position.term))
    }

    /// Returns index and term of the last purged position.
    pub fn purged(&self) -> Option<(u64, u64)> {
        self.handle.shared.state.lock().purged.map(|position| (position.index, position.term))
    }

    /// Returns the records in `[from, to)`, as many as their payloads fit into `max_bytes`, but at
    /// least one if there is any. Indices before the first record and after the last are left out.
    ///
    /// Recent records come from memory, older ones from disk, checked: that blocks the caller.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let (mut records, recent) = self.plan_read(from, to, max_bytes)?.execute()?;
        records.extend(recent);
        Ok(records)
    }

    fn plan_read(&self, from: u64, to: u64, max_bytes: usize) -> Result<ReadPlan, LogError> {
        let state = self.handle.shared.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let mut plan = ReadPlan::default();
        let mut taken = 0_usize;
        let mut take = |bytes: usize, nothing_yet: bool| {
            taken = taken.saturating_add(bytes);
            nothing_yet || taken <= max_bytes
        };
        let disk_end = state.tail_first().map_or(to, |first| first.min(to));
        let mut next = from.max(state.first_index().unwrap_or(from));
        if next < disk_end {
            for (segment, index, place) in state.located.from(next) {
                if index >= disk_end {
                    break;
                }
                if !take(place.payload_bytes as usize, plan.stored.is_empty()) {
                    return Ok(plan);
                }
                plan.add_stored(&state, segment, index, place);
                next = index + 1;
            }
        }
        while next < to
            && let Some(recent) = state.recent(next)
        {
            if !take(recent.record.payload.len(), plan.stored.is_empty() && plan.recent.is_empty()) {
                break;
            }
            plan.recent.push(recent.record.clone());
            next += 1;
        }
        Ok(plan)
    }

    /// Returns the term of a record or of the purge mark, `None` where there is neither.
    pub fn term_of(&self, index: u64) -> Result<Option<u64>, LogError> {
        let state = self.handle.shared.state.lock();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok(state.term_of(index)),
        }
    }

    /// Returns the failure that stopped the log.
    pub fn failed(&self) -> Option<LogError> {
        self.handle.shared.state.lock().failed.clone()
    }

    /// Returns a trouble that will stop the log if nothing is done: the disk is too full for the
    /// segment after this one. It goes away when the segment could be made after all.
    pub fn warning(&self) -> Option<LogError> {
        self.handle.shared.state.lock().warning.clone()
    }

    /// Writes what is queued and ends the owner. Later changes are refused, reads go on; a second call
    /// returns at once.
    pub async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        queue_close(&self.handle.shared, Box::new(move |_| sender.send(()).unwrap_or_default()));
        // An owner that is gone drops the sender, which is an end, too.
        closed.await.ok();
    }

    /// Queues what `prepare` makes of the state, and waits for it.
    async fn change(&self, prepare: impl FnOnce(&mut State) -> ChangeKind) -> Result<(), LogError> {
        let (sender, result) = oneshot::channel();
        {
            let mut state = self.handle.shared.state.lock();
            if let Some(error) = state.refusal() {
                return Err(error);
            }
            let kind = prepare(&mut state);
            state.queue.push_back(Change { kind, done: Box::new(move |result| drop(sender.send(result))) });
        }
        self.handle.shared.work.notify_one();
        result.await.unwrap_or(Err(LogError::OwnerGone))
    }
}

/// What a read takes from disk and what from memory, as of one moment.
#[derive(Default)]
struct ReadPlan {
    stored: Vec<(u64, Place)>,
    /// Per segment how many of `stored` are its.
    segments: Vec<(Arc<Segment>, usize)>,
    recent: Vec<Record>,
}

impl ReadPlan {
    fn add_stored(&mut self, state: &State, segment: u32, index: u64, place: Place) {
        self.stored.push((index, place));
        match self.segments.last_mut() {
            Some((last, count)) if last.sequence() == segment => *count += 1,
            _ => {
                let segment = state.segments.get(&segment).expect("located records stand in known segments");
                self.segments.push((Arc::clone(segment), 1));
            }
        }
    }

    fn execute(self) -> Result<(Vec<Record>, Vec<Record>), LogError> {
        let mut records = Vec::with_capacity(self.stored.len() + self.recent.len());
        let mut stored = self.stored.as_slice();
        for (segment, count) in &self.segments {
            let (places, rest) = stored.split_at(*count);
            segment.read_records(places, &mut records)?;
            stored = rest;
        }
        Ok((records, self.recent))
    }
}

fn check_consecutive(state: &State, records: &[Record]) -> Result<(), LogError> {
    let mut expected = state.last().map(|last| last.index + 1);
    for record in records {
        if let Some(expected) = expected
            && expected != record.index
        {
            return Err(LogError::NotConsecutive { expected, found: record.index });
        }
        expected = Some(record.index + 1);
    }
    Ok(())
}

fn check_state_size(bytes: &Bytes) -> Result<(), LogError> {
    if bytes.len() > crate::STATE_BYTES_MAX {
        return Err(LogError::TooLarge { bytes: bytes.len() as u64, limit: crate::STATE_BYTES_MAX as u64 });
    }
    Ok(())
}

fn queue_close(shared: &Shared, done: Completion) {
    let done = {
        let mut state = shared.state.lock();
        if state.refusal().is_some() {
            Some(done)
        } else {
            state.closed = true;
            state.queue.push_back(Change { kind: ChangeKind::Close, done });
            None
        }
    };
    match done {
        Some(done) => done(Ok(())),
        None => shared.work.notify_one(),
    }
}
