//! Reading a range at one revision.
//!
//! A long range takes the index in slices and lets the writer in between. That is correct because
//! the revision is fixed: what the writer adds meanwhile is newer, and what it could take away is
//! pinned as soon as the reader lets go of the lock for the first time. Records that are not in
//! memory are fetched from the engine after the lock was given up, a slice at a time.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::KeyRange;

use super::index::{Interval, KeyRef, NO_SLOT, Visible};
use super::store::{Pin, Shared, State, released};
use super::{KeyValue, Revision, record};
use crate::engine::{Engine, EngineError, Family};
use crate::limits;

/// Keys of one section under the lock. Few in tests, so that short ranges go on from slice to slice.
const SLICE_KEYS: usize = if cfg!(test) { 7 } else { limits::INDEX_SLICE_KEYS };

/// How to read a range.
#[derive(Clone, Copy, Debug, Default)]
pub struct RangeOptions {
    /// The revision to read at; the latest one where this is not positive.
    pub revision: i64,
    /// Records to return at most; all where this is not positive.
    pub limit: i64,
    /// Whether to return the number of keys only.
    pub count_only: bool,
    /// Whether to leave values (and leases, as etcd 3.7 does) out of the records.
    pub keys_only: bool,
}

/// What a range holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeResult {
    /// The records in the order of their keys, up to the limit.
    pub kvs: Vec<KeyValue>,
    /// The number of keys in the whole range, whatever the limit.
    pub count: i64,
    /// The current revision when the range was read.
    pub revision: i64,
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision has been compacted.
    #[error("the revision has been compacted")]
    Compacted,
    /// The revision does not exist yet.
    #[error("the revision is in the future")]
    FutureRevision,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How the writer reads: the state of its run, which is not published.
pub(super) struct RunView<'a> {
    /// The newest revision of the run.
    pub(super) revision: i64,
    /// The watermark of the run.
    pub(super) compacted: i64,
    /// The records of the run.
    pub(super) pending: &'a [Pending],
}

/// A record that is not in the engine yet.
pub(super) struct Pending {
    pub(super) revision: Revision,
    /// Set aside for it in the cache.
    pub(super) slot: u32,
    pub(super) record: Bytes,
}

impl RunView<'_> {
    fn record(&self, revision: Revision) -> Option<&Bytes> {
        let i = self.pending.binary_search_by_key(&revision, |pending| pending.revision).ok()?;
        Some(&self.pending[i].record)
    }
}

/// Reads a range as readers see it, or as the writer's run does.
pub(super) fn range(
    shared: &Shared,
    range: &KeyRange,
    options: &RangeOptions,
    run: Option<&RunView<'_>>,
) -> Result<RangeResult, ReadError> {
    let end = range.end_exclusive();
    let interval = Interval { from: range.key(), to: end.as_deref() };
    loop {
        match attempt(shared, interval, range.is_single(), options, run)? {
            Some(result) => return Ok(result),
            // Overtaken by a compaction or a snapshot between two sections: the newest state is newer now.
            None if options.revision <= 0 => {}
            None => return Err(ReadError::Compacted),
        }
    }
}

/// The number of published keys.
pub(super) fn key_count(shared: &Shared) -> u64 {
    let state = shared.state.read();
    let growth = state.changes.growth_since(state.published, Interval::ALL, usize::MAX).unwrap_or(0);
    state.tree.live().saturating_add_signed(-growth)
}

/// Reads a range once; `None` if the state was compacted or replaced meanwhile.
fn attempt(
    shared: &Shared,
    interval: Interval<'_>,
    is_single: bool,
    options: &RangeOptions,
    run: Option<&RunView<'_>>,
) -> Result<Option<RangeResult>, ReadError> {
    let mut state = shared.state.read();
    if state.engine.is_none() {
        return Err(released().into());
    }
    let life = state.life;
    let (current, compacted) = run.map_or((state.published, state.compacted), |run| (run.revision, run.compacted));
    let at = if options.revision <= 0 { current } else { options.revision };
    if at > current {
        return Err(ReadError::FutureRevision);
    }
    if at < compacted {
        return Err(ReadError::Compacted);
    }

    let limit = usize::try_from(options.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut pin: Option<Pin<'_>> = None;
    let mut kvs: Vec<KeyValue> = Vec::new();
    let mut counted: Option<i64> = None;
    let mut walked: i64 = 0;
    let mut from = interval.from.to_vec();
    let wants_records = !options.count_only;
    loop {
        // Records first; the count is known when they reach the end. Else it follows from the
        // tree where that is short, and from walking on where it is not.
        let mut slice = Slice::default();
        let rest = Interval { from: &from, to: interval.to };
        if wants_records && kvs.len() < limit {
            let max = (limit - kvs.len()).min(SLICE_KEYS);
            slice.take(&state, rest, is_single, at, max, options.keys_only, run);
        } else {
            counted = count_at(&state, interval, at);
            if counted.is_none() {
                walked += slice.count(&state, rest, at);
            }
        }
        let engine = slice.has_cold().then(|| state.engine.clone()).flatten();
        drop(state);

        let is_done = counted.is_some() || slice.next.is_none();
        if pin.is_none() && run.is_none() && (!is_done || engine.is_some()) {
            pin = shared.pins.pin(at);
            if pin.is_none() {
                return Ok(None);
            }
        }
        if wants_records {
            let is_small = kvs.len() + slice.found.len() <= SLICE_KEYS;
            slice.resolve(shared, engine, options.keys_only, is_small, &mut kvs)?;
        }
        match slice.next {
            Some(next) if !is_done => from = next,
            _ => break,
        }
        state = shared.state.read();
        if state.life != life {
            return Ok(None);
        }
    }
    let count = counted.unwrap_or_else(|| kvs.len() as i64 + walked);
    Ok(Some(RangeResult { kvs, count, revision: current }))
}

/// The number of keys at a revision, where it is found without a walk.
fn count_at(state: &State, interval: Interval<'_>, at: i64) -> Option<i64> {
    if interval.is_empty() {
        return Some(0);
    }
    let now = state.tree.count(interval) as i64;
    let steps_max = usize::try_from(now).unwrap_or(0).saturating_add(SLICE_KEYS);
    Some(now - state.changes.growth_since(at, interval, steps_max)?)
}

/// What one section under the lock found.
#[derive(Default)]
struct Slice {
    found: Vec<Found>,
    cold: Vec<Revision>,
    /// Where the next section goes on; `None` at the end of the range.
    next: Option<Vec<u8>>,
}

enum Found {
    Record(Bytes),
    /// To be fetched, in the order of `Slice::cold`.
    Cold,
    /// All that was asked for is in the index.
    Keys(KeyValue),
}

impl Slice {
    fn has_cold(&self) -> bool {
        !self.cold.is_empty()
    }

    /// Takes up to `max` records, looking at a bounded number of keys.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct of these would only rename them")]
    fn take(
        &mut self,
        state: &State,
        interval: Interval<'_>,
        is_single: bool,
        at: i64,
        max: usize,
        keys_only: bool,
        run: Option<&RunView<'_>>,
    ) {
        let mut visit = |key: KeyRef<'_>, entry: &super::index::Entry| {
            let found = match entry.at(at) {
                Visible::Nothing => return,
                Visible::Head if keys_only => Found::Keys(head_without_value(key, entry)),
                Visible::Head => {
                    let revision = entry.revision();
                    let cached = if entry.slot() == NO_SLOT { None } else { state.cache.get(entry.slot(), revision) };
                    self.found_at(revision, cached, run)
                }
                Visible::Older(revision) => self.found_at(revision, None, run),
            };
            self.found.push(found);
        };
        if is_single {
            if let Some(entry) = state.tree.get(interval.from) {
                visit(KeyRef::whole(interval.from), entry);
            }
            return;
        }
        let mut looked_at = 0;
        let mut next = None;
        let mut taken = 0;
        state.tree.scan(interval, &mut |key, entry| {
            if looked_at == SLICE_KEYS || taken == max {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            looked_at += 1;
            taken += usize::from(entry.at(at) != Visible::Nothing);
            visit(key, entry);
            ControlFlow::Continue(())
        });
        self.next = next;
    }

    fn found_at(&mut self, revision: Revision, cached: Option<&Bytes>, run: Option<&RunView<'_>>) -> Found {
        match cached.or_else(|| run.and_then(|run| run.record(revision))) {
            Some(record) => Found::Record(record.clone()),
            None => {
                self.cold.push(revision);
                Found::Cold
            }
        }
    }

    /// Counts a bounded number of keys.
    fn count(&mut self, state: &State, interval: Interval<'_>, at: i64) -> i64 {
        let (mut looked_at, mut count) = (0, 0);
        state.tree.scan(interval, &mut |key, entry| {
            if looked_at == SLICE_KEYS {
                self.next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            looked_at += 1;
            count += i64::from(entry.at(at) != Visible::Nothing);
            ControlFlow::Continue(())
        });
        count
    }

    /// Turns what was found into records, fetching what is not in memory.
    fn resolve(
        &mut self,
        shared: &Shared,
        engine: Option<Arc<dyn Engine>>,
        keys_only: bool,
        is_small: bool,
        kvs: &mut Vec<KeyValue>,
    ) -> Result<(), EngineError> {
        let fetched = match engine {
            Some(engine) => fetch(&*engine, &self.cold)?,
            None => Vec::new(),
        };
        if !fetched.is_empty() {
            warm(shared, &self.cold, &fetched, is_small);
        }
        let mut fetched = fetched.into_iter();
        kvs.reserve(self.found.len());
        for found in self.found.drain(..) {
            let record = match found {
                Found::Keys(kv) => {
                    kvs.push(kv);
                    continue;
                }
                Found::Record(record) => Some(record),
                Found::Cold => fetched.next(),
            };
            let record = record.ok_or_else(released)?;
            let mut kv = record::key_value(&record).map_err(|error| EngineError(error.to_string()))?;
            if keys_only {
                (kv.value, kv.lease) = (Bytes::new(), 0);
                kv.key = Bytes::copy_from_slice(&kv.key);
            }
            kvs.push(kv);
        }
        Ok(())
    }
}

/// A record without value and lease, from the index alone.
fn head_without_value(key: KeyRef<'_>, entry: &super::index::Entry) -> KeyValue {
    let (create_revision, version) = entry.head().map_or((0, 0), |head| (head.create, head.version));
    KeyValue {
        key: key.to_vec().into(),
        create_revision,
        mod_revision: entry.revision().main,
        version,
        ..KeyValue::default()
    }
}

/// Fetches records; every one of them must be there.
pub(super) fn fetch(engine: &dyn Engine, revisions: &[Revision]) -> Result<Vec<Bytes>, EngineError> {
    let keys: Vec<Bytes> = revisions.iter().map(|revision| Bytes::copy_from_slice(&revision.to_bytes())).collect();
    let records = engine.multi_get(Family::Revisions, &keys)?;
    let missing = |i: usize| EngineError(format!("revision {:?} is in the index but not stored", revisions[i]));
    records.into_iter().enumerate().map(|(i, record)| record.ok_or_else(|| missing(i))).collect()
}

/// Takes fetched records into memory if that delays nobody: a reader that would have to wait for
/// the lock leaves it. Of a long list only what fits is taken, or one list would throw out the rest.
fn warm(shared: &Shared, revisions: &[Revision], records: &[Bytes], is_small: bool) {
    let Some(mut state) = shared.state.try_write() else { return };
    let state = &mut *state;
    for (revision, record) in revisions.iter().zip(records) {
        if !is_small && !state.cache.has_room(record) {
            break;
        }
        let Ok(parts) = record::parse(record) else { return };
        let is_newest = state.tree.get(parts.key).is_some_and(|entry| {
            entry.is_live() && entry.revision() == *revision && state.cache.get(entry.slot(), *revision).is_none()
        });
        if is_newest {
            let slot = state.cache.reserve(*revision);
            state.cache.fill(slot, *revision, record.clone());
            state.tree.upsert(parts.key, |entry| entry.set_slot(slot));
        }
    }
    state.cache.evict();
}
