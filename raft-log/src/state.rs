//! What readers see and what waits for the owner, behind one leaf lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::LogError;
use crate::index::{Index, Place};
use crate::log::{Completion, Record};
use crate::segment::Segment;

/// Shared by the handles and the owner. Nothing else is locked, and nothing awaited, under the lock.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Wakes the owner: the queue is not empty.
    pub(crate) work: Notify,
    /// Wakes those who wait for room: the queue became shorter, or failed.
    pub(crate) room: Notify,
    pub(crate) cache_bytes: u64,
    pub(crate) inbox_bytes: u64,
    pub(crate) payload_bytes_max: u64,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// The log as callers see it: changes show at once, in the order in which they were queued.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) purged: Option<Position>,
    /// As last made durable.
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
    /// Whether the owner has yet to take `committed`.
    pub(crate) committed_waits: bool,
    /// The records that are on disk, but for those removed since.
    pub(crate) located: Index,
    /// The last records, and among them every record that is not located.
    pub(crate) tail: VecDeque<Recent>,
    pub(crate) tail_bytes: u64,
    /// The segments that located records stand in.
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    pub(crate) queue: VecDeque<Change>,
    /// Bytes of records that are queued or under way to the disk.
    pub(crate) waiting_bytes: u64,
    /// Batches that were made durable.
    pub(crate) batches: u64,
    pub(crate) tickets: u64,
    pub(crate) failed: Option<LogError>,
    /// A trouble that does not stop the log yet.
    pub(crate) warning: Option<LogError>,
    /// Set by the first close; nothing is queued after it.
    pub(crate) closed: bool,
}

/// A record in memory.
pub(crate) struct Recent {
    pub(crate) record: Record,
    /// Tells this record from another that took its index after a truncation.
    pub(crate) ticket: u64,
}

/// What the owner is asked to do, and whom to tell.
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    pub(crate) done: Completion,
}

pub(crate) enum ChangeKind {
    /// Records to write; their tickets rise from the first one.
    Append {
        records: Vec<Record>,
        first_ticket: u64,
    },
    /// Removes the records after a position, or all where there is none.
    Truncate {
        last: Option<Position>,
    },
    /// Removes the records up to and with a position.
    Purge(Position),
    Vote(Bytes),
    /// Nothing to write; completes after what was queued before.
    Barrier,
    /// Writes what is left and ends the owner.
    Close,
}

/// A record that a batch made durable.
pub(crate) struct Located {
    pub(crate) segment: u32,
    pub(crate) index: u64,
    pub(crate) ticket: u64,
    pub(crate) place: Place,
}

/// What a record in memory or in the inbox weighs besides its payload.
pub(crate) const RECORD_OVERHEAD_BYTES: u64 = 64;

pub(crate) fn weight(record: &Record) -> u64 {
    record.payload.len() as u64 + RECORD_OVERHEAD_BYTES
}

impl State {
    /// The first record's index.
    pub(crate) fn first_index(&self) -> Option<u64> {
        self.located.first().or_else(|| self.tail.front().map(|recent| recent.record.index))
    }

    /// The last record's position, or where there is none the purge mark.
    pub(crate) fn last(&self) -> Option<Position> {
        if let Some(recent) = self.tail.back() {
            return Some(Position { index: recent.record.index, term: recent.record.term });
        }
        let located = self.located.last().and_then(|index| {
            let term = self.located.term_of(index)?;
            Some(Position { index, term })
        });
        located.or(self.purged)
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if let Some(purged) = self.purged
            && purged.index == index
        {
            return Some(purged.term);
        }
        if let Some(recent) = self.recent(index) {
            return Some(recent.record.term);
        }
        self.located.term_of(index)
    }

    /// The first index in memory; everything from there on is in memory too.
    pub(crate) fn tail_first(&self) -> Option<u64> {
        self.tail.front().map(|recent| recent.record.index)
    }

    pub(crate) fn recent(&self, index: u64) -> Option<&Recent> {
        let nth = index.checked_sub(self.tail_first()?)?;
        self.tail.get(usize::try_from(nth).ok()?)
    }

    /// Adds records at the end; they follow the last one.
    pub(crate) fn push(&mut self, records: &[Record]) -> u64 {
        let first_ticket = self.tickets;
        for record in records {
            self.tail_bytes += weight(record);
            self.tail.push_back(Recent { record: record.clone(), ticket: self.tickets });
            self.tickets += 1;
        }
        first_ticket
    }

    /// Removes the records from an index on.
    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some(recent) = self.tail.pop_back_if(|recent| recent.record.index >= from) {
            self.tail_bytes -= weight(&recent.record);
        }
        self.located.truncate(from);
    }

    /// Removes the records up to and with a position, which becomes the purge mark.
    pub(crate) fn purge(&mut self, position: Position) {
        while let Some(recent) = self.tail.pop_front_if(|recent| recent.record.index <= position.index) {
            self.tail_bytes -= weight(&recent.record);
        }
        self.located.purge(position.index);
        self.purged = Some(position);
    }

    /// Notes where a record stands, unless it was removed or replaced in the meantime.
    pub(crate) fn locate(&mut self, located: &Located) {
        let Some(recent) = self.recent(located.index) else {
            return;
        };
        if recent.ticket == located.ticket {
            let term = recent.record.term;
            self.located.push(located.segment, located.index, term, located.place);
        }
    }

    /// Forgets the oldest records in memory that are on disk, until the rest fits.
    pub(crate) fn evict(&mut self, cache_bytes: u64) {
        let Some(located_last) = self.located.last() else {
            return;
        };
        while self.tail_bytes > cache_bytes
            && let Some(recent) = self.tail.pop_front_if(|recent| recent.record.index <= located_last)
        {
            self.tail_bytes -= weight(&recent.record);
        }
    }

    /// Why nothing more is taken.
    pub(crate) fn refusal(&self) -> Option<LogError> {
        self.failed.clone().or_else(|| self.closed.then_some(LogError::Closed))
    }
}

impl Shared {
    /// Latches the first failure; everything queued and everything later gets it.
    pub(crate) fn fail(&self, error: LogError) {
        self.fail_after(error, std::iter::empty());
    }

    /// Latches the first failure and tells those who came before the queue, then the queue.
    pub(crate) fn fail_after(&self, error: LogError, before: impl Iterator<Item = Completion>) {
        let (error, queued) = {
            let mut state = self.state.lock();
            let error = state.failed.get_or_insert(error).clone();
            (error, std::mem::take(&mut state.queue))
        };
        for done in before.chain(queued.into_iter().map(|change| change.done)) {
            done(Err(error.clone()));
        }
        self.room.notify_waiters();
        self.work.notify_one();
    }
}
