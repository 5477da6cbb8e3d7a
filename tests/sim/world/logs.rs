//! The members' stored logs, read from their disks and held against each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_proto::mainstay::Identity;
use mainstay_raft_log::{Options, RaftLog, Record};
use mainstay_server::engine::layout::meta;
use mainstay_server::engine::{EngineHome, Family};
use mainstay_server::node::log_identity;
use prost::Message;

use super::World;
use crate::trace;

/// Bytes that one reading of a log returns at most.
const READ_BYTES: usize = 1 << 20;

impl World {
    /// Log matching (Ongaro and Ousterhout 2014, §5.3): where two logs have an entry of one index and
    /// one term, that entry and all before it are equal.
    pub(crate) fn logs_match(&self) -> Result<(), String> {
        let mut logs = Vec::new();
        for index in self.survivors() {
            let name = self.members[index].name();
            match self.stored_log(index) {
                Ok(log) => logs.push((name, log)),
                // It goes on, for it has read its log before; the next start would find what rotted further on, where
                // nothing was written yet.
                Err(reason) if self.state().conditions[index].may_be_lost => {
                    trace::note(format_args!("the log of {name} cannot be compared: {reason}"));
                }
                Err(reason) => return Err(format!("the log of {name}: {reason}")),
            }
        }
        for (place, (one, ones)) in logs.iter().enumerate() {
            for (other, others) in &logs[place + 1..] {
                matching(ones, others).map_err(|index| {
                    let show =
                        |log: &BTreeMap<u64, Record>| log.get(&index).map(|entry| (entry.term, entry.payload.len()));
                    format!(
                        "{one} and {other} differ at index {index}: (term, bytes) {:?} and {:?}",
                        show(ones),
                        show(others)
                    )
                })?;
            }
        }
        Ok(())
    }

    /// A log that has rotted is refused, or holds what it held before: rot in what is needed no more, or
    /// in what nobody was told is safe, may pass.
    pub(super) fn rot_is_found(&self, index: usize, before: Result<BTreeMap<u64, Record>, String>) {
        let (Ok(before), Ok(after)) = (before, self.stored_log(index)) else { return };
        let gone = before.iter().find(|(at, record)| after.get(at).is_none_or(|found| found.payload != record.payload));
        if let Some((at, record)) = gone {
            let (name, term) = (self.members[index].name(), record.term);
            let surprise = format!("rot in the log of {name} took entry {at} of term {term}, and nobody noticed");
            self.surprise(surprise);
        }
    }

    pub(super) fn stored_log(&self, index: usize) -> Result<BTreeMap<u64, Record>, String> {
        let disks = self.members[index].disks();
        let engine = disks.store.open().map_err(|error| error.to_string())?;
        let identity = engine.get(Family::Meta, meta::IDENTITY).map_err(|error| error.to_string())?;
        let identity = Identity::decode(identity.unwrap_or_default()).map_err(|error| error.to_string())?;
        let options =
            Options { identity: log_identity(&identity), segment_bytes: self.plan.segment_bytes, ..Options::default() };
        let (log, _task) =
            RaftLog::open(Arc::new(disks.log.fork().mount()), options).map_err(|error| error.to_string())?;
        let (Some(mut from), Some((last, _))) = (log.first_index(), log.last()) else { return Ok(BTreeMap::new()) };
        let mut records = BTreeMap::new();
        while from <= last {
            let read = log.read(from, last + 1, READ_BYTES).map_err(|error| error.to_string())?;
            from += read.len() as u64;
            records.extend(read.into_iter().map(|record| (record.index, record)));
        }
        Ok(records)
    }
}

/// Compares two logs where both have entries; the index of the first difference that must not be.
fn matching(ones: &BTreeMap<u64, Record>, others: &BTreeMap<u64, Record>) -> Result<(), u64> {
    let mut difference = None;
    for (index, one) in ones {
        let Some(other) = others.get(index) else { continue };
        let equal = one.term == other.term && one.payload == other.payload;
        if one.term == other.term && (!equal || difference.is_some()) {
            return Err(difference.unwrap_or(*index));
        }
        if !equal {
            difference.get_or_insert(*index);
        }
    }
    Ok(())
}
