use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures_util::Stream;
use mainstay_raft_log::{LogError, RaftLog, Record};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use prost::Message;

use super::codec;
use super::timeline::Timeline;
use super::type_config::{Entry, LogId, TypeConfig, Vote};
use crate::env::{clock, probe};

/// Bytes that one read for applying takes from the log.
const APPLY_READ_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that one request of replication carries, but for a single larger entry.
const REPLICATE_READ_BYTES: usize = 2 * 1024 * 1024;

/// openraft's log on our write-ahead log: entries and votes become opaque records.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: RaftLog,
    timeline: Timeline,
}

impl LogStore {
    pub(crate) fn new(log: RaftLog, timeline: Timeline) -> Self {
        Self { log, timeline }
    }

    fn entries(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let records = self.log.read(from, to, bytes_max).map_err(failed)?;
        records
            .into_iter()
            .map(|record| Ok(codec::entry_from_bytes(codec::log_id(record.term, record.index), record.payload)?))
            .collect()
    }

    fn last_index(&self) -> Option<u64> {
        self.log.last().map(|(index, _)| index)
    }
}

/// A failure of the log is final: it latches, and openraft stops on it.
fn failed(error: LogError) -> io::Error {
    io::Error::other(error)
}

/// The half-open interval that a range names, cut to what the log can hold.
fn bounds(range: &impl RangeBounds<u64>, last: Option<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = last.map_or(0, |index| index + 1);
    let to = match range.end_bound() {
        Bound::Included(index) => end.min(index.saturating_add(1)),
        Bound::Excluded(index) => end.min(*index),
        Bound::Unbounded => end,
    };
    (from, to.max(from))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Read in slices: after a restart the range is all that was not flushed.
        let (from, to) = bounds(&range, self.last_index());
        let store = self.clone();
        let mut slice = Vec::new().into_iter();
        let mut next = from;
        futures_util::stream::iter(std::iter::from_fn(move || {
            loop {
                if let Some(entry) = slice.next() {
                    return Some(Ok(entry));
                }
                if next >= to {
                    return None;
                }
                match store.entries(next, to, APPLY_READ_BYTES) {
                    Ok(entries) if entries.is_empty() => {
                        next = to;
                        return Some(Err(io::Error::other(format!("the log has no entry at index {next}"))));
                    }
                    Ok(entries) => {
                        next += entries.len() as u64;
                        slice = entries.into_iter();
                    }
                    Err(error) => {
                        next = to;
                        return Some(Err(error));
                    }
                }
            }
        }))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range, self.last_index());
        self.entries(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&(start..end), self.last_index());
        self.entries(from, to, REPLICATE_READ_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let Some(bytes) = self.log.vote() else {
            return Ok(None);
        };
        let mut vote = mainstay_proto::mainstay::Vote::decode(bytes).map_err(codec::CodecError::from)?;
        if probe::broken("vote-twice-in-term") {
            // Wrong: a restart goes back to the term before its last vote, and votes once more in that one's.
            (vote.term, vote.committed) = (vote.term.saturating_sub(1), false);
        }
        Ok(Some(codec::vote_from_wire(&vote)))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let purged = self.log.purged().map(|(index, term)| codec::log_id(term, index));
        let last = self.log.last().map(|(index, term)| codec::log_id(term, index));
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = codec::vote_to_wire(vote).encode_to_vec().into();
        self.log.save_vote(bytes).await.map_err(failed)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = &committed {
            self.timeline.replicated(committed.index, clock::now());
        }
        let bytes = committed.map(|log_id| codec::log_id_to_wire(&log_id).encode_to_vec()).unwrap_or_default();
        self.log.save_committed(bytes.into()).await.map_err(failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        if probe::broken("truncate-committed") {
            // Wrong: a restart takes the last entries for unfinished, though they may be committed.
            let kept = self.last_index().and_then(|last| last.checked_sub(2));
            self.log.truncate_after(kept).await.map_err(failed)?;
        }
        match self.log.committed() {
            Some(bytes) if !bytes.is_empty() => {
                let log_id = mainstay_proto::mainstay::LogId::decode(bytes).map_err(codec::CodecError::from)?;
                // It is written lazily, so it may only lag behind what is stored, never lead.
                let stored = self.last_index().is_some_and(|last| log_id.index <= last);
                Ok(stored.then(|| codec::log_id_from_wire(&log_id)))
            }
            _ => Ok(None),
        }
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<Record> = entries
            .into_iter()
            .map(|entry| Record {
                index: entry.log_id.index,
                term: codec::term_of(&entry.log_id),
                payload: codec::payload_to_bytes(&entry),
            })
            .collect();
        let last = records.last().map(|record| record.index);
        if let Some(last) = last {
            self.timeline.proposed(last, clock::now());
        }
        let timeline = self.timeline.clone();
        let done = move |result: Result<(), LogError>| {
            if let (Ok(()), Some(last)) = (&result, last) {
                timeline.flushed(last, clock::now());
            }
            callback.io_completed(result.map_err(failed));
        };
        // The log refuses what exceeds its inbox; consensus waits instead, which is its back-pressure.
        self.log.room().await;
        self.log.append(records, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        probe::reached("log-conflict-truncated");
        self.log.truncate_after(last.map(|log_id| log_id.index)).await.map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        probe::reached("log-purged");
        self.log.purge(log_id.index, codec::term_of(&log_id)).await.map_err(failed)
    }
}
