//! Reading a range at one revision.
//!
//! A long range takes the index in slices and lets the writer in between. That is correct because
//! the revision is fixed: what the writer adds meanwhile is newer, and what it could take away is
//! pinned as soon as the reader lets go of the lock for the first time. Records that are not in
//! memory are fetched from the engine after the lock was given up, a slice at a time.

mod cold;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::KeyRange;

use super::encoded::{self, EncodedKvs};
use super::index::{Entry, Interval, KeyRef, Visible};
use super::record::RecordError;
use super::store::{Pin, Shared, State, released};
use super::{KeyValue, Revision, record};
use crate::engine::{Engine, EngineError};
use crate::env::probe;
use crate::limits;

/// Keys of one section under the lock. Few in tests, so that short ranges go on from slice to slice.
const SLICE_KEYS: usize = if cfg!(test) { 7 } else { limits::INDEX_SLICE_KEYS };

/// Records of an answer that may take the place of others in memory: a longer list would throw out what is asked for
/// one by one.
const KEPT_RECORDS: usize = if cfg!(test) { 7 } else { 100 };

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

/// The same with the records in the encoding in which they leave.
#[derive(Clone, Debug, Default)]
pub struct EncodedResult {
    /// See [`RangeResult::kvs`].
    pub kvs: EncodedKvs,
    /// See [`RangeResult::count`].
    pub count: i64,
    /// See [`RangeResult::revision`].
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
    /// Who reads has no room for what it has read so far.
    #[error("there is no room for what is read")]
    NoRoom,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Is told how many bytes were read so far, and says whether there is room for them.
pub type Room<'a> = &'a dyn Fn(u64) -> bool;

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

/// Reads a range as readers see it, or as the writer's run does; no further than there is room.
pub(super) fn range(
    shared: &Shared,
    range: &KeyRange,
    options: &RangeOptions,
    run: Option<&RunView<'_>>,
    room: Option<Room<'_>>,
) -> Result<RangeResult, ReadError> {
    let (kvs, count, revision) = gather(shared, range, options, run, room)?;
    Ok(RangeResult { kvs, count, revision })
}

/// Reads a range as readers see it, in the encoding in which it leaves; no further than there is room.
pub(super) fn encoded_range(
    shared: &Shared,
    range: &KeyRange,
    options: &RangeOptions,
    room: Room<'_>,
) -> Result<EncodedResult, ReadError> {
    let (kvs, count, revision) = gather(shared, range, options, None, Some(room))?;
    Ok(EncodedResult { kvs, count, revision })
}

/// What a read makes of what it finds.
trait Gather: Default {
    /// What was found in the index alone, in order.
    type Heads: Default;

    /// Notes the newest version of a key without value and lease.
    fn note_head(heads: &mut Self::Heads, key: KeyRef<'_>, entry: &Entry);

    /// What all that was noted takes in an answer, about.
    fn taken_by_heads(heads: &Self::Heads) -> u64;

    /// Adds the oldest of what was noted.
    fn add_head(&mut self, heads: &mut Self::Heads);

    /// Adds a record.
    fn add_record(&mut self, record: Bytes, keys_only: bool) -> Result<(), RecordError>;

    /// How many were added.
    fn count(&self) -> usize;
}

impl Gather for Vec<KeyValue> {
    type Heads = VecDeque<KeyValue>;

    fn note_head(heads: &mut Self::Heads, key: KeyRef<'_>, entry: &Entry) {
        heads.push_back(head_without_value(key, entry));
    }

    fn taken_by_heads(heads: &Self::Heads) -> u64 {
        heads.iter().map(|kv| limits::KEY_VALUE_BYTES + kv.key.len() as u64).sum()
    }

    fn add_head(&mut self, heads: &mut Self::Heads) {
        self.extend(heads.pop_front());
    }

    fn add_record(&mut self, record: Bytes, keys_only: bool) -> Result<(), RecordError> {
        let kv = record::key_value(&record)?;
        self.push(if keys_only { without_value(kv) } else { kv });
        Ok(())
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// Fields of keys, one behind the other.
#[derive(Default)]
struct EncodedHeads {
    bytes: Vec<u8>,
    /// Where those end that were not added yet.
    ends: VecDeque<usize>,
    /// Where the next one begins.
    next: usize,
}

impl Gather for EncodedKvs {
    type Heads = EncodedHeads;

    fn note_head(heads: &mut Self::Heads, key: KeyRef<'_>, entry: &Entry) {
        encoded::put_key(&mut heads.bytes, key, entry);
        heads.ends.push_back(heads.bytes.len());
    }

    fn taken_by_heads(heads: &Self::Heads) -> u64 {
        heads.bytes.len() as u64
    }

    fn add_head(&mut self, heads: &mut Self::Heads) {
        if let Some(end) = heads.ends.pop_front() {
            self.add_fields(&heads.bytes[heads.next..end]);
            heads.next = end;
        }
    }

    fn add_record(&mut self, record: Bytes, keys_only: bool) -> Result<(), RecordError> {
        if keys_only {
            self.add_key_value(&without_value(record::key_value(&record)?));
            return Ok(());
        }
        EncodedKvs::add_record(self, record)
    }

    fn count(&self) -> usize {
        EncodedKvs::count(self)
    }
}

/// Leaves value and lease out.
fn without_value(kv: KeyValue) -> KeyValue {
    let key = Bytes::copy_from_slice(&kv.key); // or it would hold the whole record
    KeyValue { key, value: Bytes::new(), lease: 0, ..kv }
}

/// Reads a range: what was found, the number of keys in it, and the current revision.
fn gather<G: Gather>(
    shared: &Shared,
    range: &KeyRange,
    options: &RangeOptions,
    run: Option<&RunView<'_>>,
    room: Option<Room<'_>>,
) -> Result<(G, i64, i64), ReadError> {
    loop {
        match attempt(shared, range, options, run, room) {
            Ok(result) => return Ok(result),
            Err(Interrupted::Failed(error)) => return Err(error),
            Err(Interrupted::Overtaken) => {}
        }
    }
}

/// The number of published keys.
pub(super) fn key_count(shared: &Shared) -> u64 {
    let state = shared.state.read();
    let growth = state.changes.growth_since(state.published, Interval::ALL, usize::MAX).unwrap_or(0);
    state.tree.live().saturating_add_signed(-growth)
}

/// How many keys a read comes past, about: those of the range as it is now, or those up to its limit where the others are
/// counted without a walk.
pub(super) fn keys_on_the_way(shared: &Shared, range: &KeyRange, options: &RangeOptions) -> i64 {
    if range.is_single() {
        return 1;
    }
    let end = range.end_exclusive();
    let interval = Interval { from: range.key(), to: end.as_deref() };
    let state = shared.state.read();
    let all = state.tree.count(interval) as i64;
    let wanted = match options.limit {
        _ if options.count_only => 0,
        ..=0 => all,
        limit => limit.min(all),
    };
    let at = if options.revision <= 0 { state.published } else { options.revision };
    if wanted == all || count_at(&state, interval, at).is_some() { wanted } else { all }
}

/// Whether there is a key at a revision, which must be pinned or belong to a round of compaction that
/// has not begun to remove.
pub(super) fn is_empty_at(shared: &Shared, at: i64) -> bool {
    let mut from = Some(Vec::new());
    let mut is_empty = true;
    while let Some(start) = from.take().filter(|_| is_empty) {
        let mut looked_at = 0;
        shared.state.read().tree.scan(Interval { from: &start, to: None }, &mut |key, entry| {
            if looked_at == SLICE_KEYS {
                from = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            looked_at += 1;
            is_empty = entry.at(at) == Visible::Nothing;
            if is_empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    is_empty
}

/// Why an attempt to read did not end.
enum Interrupted {
    /// The state was replaced, or the newest revision compacted, between two sections: read again.
    Overtaken,
    Failed(ReadError),
}

impl From<EngineError> for Interrupted {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.into())
    }
}

/// Reads a range once.
fn attempt<G: Gather>(
    shared: &Shared,
    range: &KeyRange,
    options: &RangeOptions,
    run: Option<&RunView<'_>>,
    room: Option<Room<'_>>,
) -> Result<(G, i64, i64), Interrupted> {
    let state = shared.state.read();
    if state.engine.is_none() {
        return Err(released().into());
    }
    let (current, compacted) = run.map_or((state.published, state.compacted), |run| (run.revision, run.compacted));
    let mut at = if options.revision <= 0 { current } else { options.revision };
    if at > current {
        probe::reached("read-of-the-future");
        return Err(Interrupted::Failed(ReadError::FutureRevision));
    }
    if at < current && probe::broken("stale-revision-in-range") {
        // Wrong: who asks for an earlier revision gets the present one.
        at = current;
    }
    let is_boundary = options.revision > 0 && at == compacted && at < current;
    // Wrong where it is broken: what was compacted up to can still be read.
    if at < compacted || (is_boundary && probe::broken("compacted-revision-unreadable")) {
        probe::reached("read-of-the-compacted");
        return Err(Interrupted::Failed(ReadError::Compacted));
    }
    let reading = Reading { shared, options, run, at, room };
    let (kvs, count) = if range.is_single() {
        reading.single(state, range.key())?
    } else {
        let end = range.end_exclusive();
        reading.interval(state, Interval { from: range.key(), to: end.as_deref() })?
    };
    Ok((kvs, count, current))
}

/// A read under way.
struct Reading<'a> {
    shared: &'a Shared,
    options: &'a RangeOptions,
    run: Option<&'a RunView<'a>>,
    /// The revision that is read.
    at: i64,
    room: Option<Room<'a>>,
}

type StateGuard<'a> = parking_lot::RwLockReadGuard<'a, State>;

impl<'a> Reading<'a> {
    /// The record of one key, and how many there are.
    fn single<G: Gather>(&self, state: StateGuard<'a>, key: &[u8]) -> Result<(G, i64), Interrupted> {
        let mut slice = Slice::<G>::default();
        if let Some(entry) = state.tree.get(key) {
            self.visit(&state, KeyRef::whole(key), entry, &mut slice);
        }
        let engine = slice.engine_of(&state);
        drop(state);
        let _pin = if engine.is_some() { self.pin()? } else { None };
        let mut kvs = G::default();
        let count = slice.count;
        self.resolve(slice, engine, &mut kvs, &mut 0)?;
        Ok((kvs, count))
    }

    /// The records of an interval up to the limit, and how many there are without it.
    fn interval<G: Gather>(&self, mut state: StateGuard<'a>, interval: Interval<'_>) -> Result<(G, i64), Interrupted> {
        let life = state.life;
        let limit = usize::try_from(self.options.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut pin = None;
        let mut kvs = G::default();
        let mut read = 0;
        let mut walked = 0;
        let mut resumed_at: Option<Vec<u8>> = None;
        loop {
            let mut slice = Slice::<G>::default();
            let rest = Interval { from: resumed_at.as_deref().unwrap_or(interval.from), to: interval.to };
            let mut counted = None;
            if !self.options.count_only && kvs.count() < limit {
                self.take(&state, rest, limit - kvs.count(), &mut slice);
            }
            // At the end of the range all are counted. Before it, the number follows from the tree where
            // that is short; where it is not, the walk goes on.
            let has_all_records = self.options.count_only || kvs.count() + slice.found.len() >= limit;
            let is_at_end = slice.is_taken && slice.next.is_none();
            if has_all_records && !is_at_end {
                counted = count_at(&state, interval, self.at);
                if counted.is_none() && !slice.is_taken {
                    self.walk(&state, rest, &mut slice);
                }
            }
            let engine = slice.engine_of(&state);
            drop(state);

            let next = slice.next.take().filter(|_| counted.is_none());
            if pin.is_none() && (next.is_some() || engine.is_some()) {
                pin = self.pin()?;
            }
            walked += slice.count;
            self.resolve(slice, engine, &mut kvs, &mut read)?;
            if next.is_none() {
                return Ok((kvs, counted.unwrap_or(walked)));
            }
            probe::reached("range-read-in-slices");
            resumed_at = next;
            state = self.shared.state.read();
            if state.life != life {
                return Err(Interrupted::Overtaken);
            }
        }
    }

    /// Keeps the revision readable while the lock is not held. The writer's run has no need of it:
    /// whoever compacts is the writer.
    fn pin(&self) -> Result<Option<Pin<'_>>, Interrupted> {
        if self.run.is_some() {
            return Ok(None);
        }
        match self.shared.pins.pin(self.at) {
            Some(pin) => Ok(Some(pin)),
            None if self.options.revision <= 0 => Err(Interrupted::Overtaken),
            None => Err(Interrupted::Failed(ReadError::Compacted)),
        }
    }

    /// Takes up to `max` records, looking at a bounded number of keys.
    fn take<G: Gather>(&self, state: &State, interval: Interval<'_>, max: usize, slice: &mut Slice<G>) {
        slice.is_taken = true;
        let mut looked_at = 0;
        state.tree.scan(interval, &mut |key, entry| {
            if looked_at == SLICE_KEYS || slice.found.len() == max {
                slice.next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            looked_at += 1;
            self.visit(state, key, entry, slice);
            ControlFlow::Continue(())
        });
    }

    /// Counts a bounded number of keys.
    fn walk<G: Gather>(&self, state: &State, interval: Interval<'_>, slice: &mut Slice<G>) {
        let mut looked_at = 0;
        state.tree.scan(interval, &mut |key, entry| {
            if looked_at == SLICE_KEYS {
                slice.next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            looked_at += 1;
            slice.count += i64::from(entry.at(self.at) != Visible::Nothing);
            ControlFlow::Continue(())
        });
    }

    /// Takes what is visible of one key.
    fn visit<G: Gather>(&self, state: &State, key: KeyRef<'_>, entry: &Entry, slice: &mut Slice<G>) {
        let visible = entry.at(self.at);
        if visible == Visible::Nothing {
            return;
        }
        slice.count += 1;
        if self.options.count_only {
            return;
        }
        let (revision, cached) = match visible {
            Visible::Nothing => return,
            Visible::Head if self.options.keys_only => {
                G::note_head(&mut slice.heads, key, entry);
                slice.found.push(Found::Head);
                return;
            }
            Visible::Head => (entry.revision(), state.cache.get(entry.slot(), entry.revision())),
            Visible::Older(revision) => (revision, None),
        };
        match cached.or_else(|| self.run.and_then(|run| run.record(revision))) {
            Some(record) => slice.found.push(Found::Record(record.clone())),
            None => {
                slice.cold.push(revision);
                slice.found.push(Found::Cold);
            }
        }
    }

    /// Turns what was found into an answer, fetching what is not in memory. `read` counts the bytes.
    fn resolve<G: Gather>(
        &self,
        mut slice: Slice<G>,
        engine: Option<Arc<dyn Engine>>,
        kvs: &mut G,
        read: &mut u64,
    ) -> Result<(), Interrupted> {
        let mut fetched = Vec::new();
        if let Some(engine) = engine {
            fetched = self.fetch(&*engine, &slice.cold, read)?;
            let is_small = kvs.count() + slice.found.len() <= KEPT_RECORDS;
            warm(self.shared, &slice.cold, &fetched, is_small);
        }
        let found = slice.found.iter().map(|found| match found {
            Found::Record(record) => taken(record),
            Found::Head | Found::Cold => 0,
        });
        *read += found.sum::<u64>() + G::taken_by_heads(&slice.heads);
        self.has_room(*read)?;
        let mut fetched = fetched.into_iter();
        for found in slice.found {
            let record = match found {
                Found::Head => {
                    kvs.add_head(&mut slice.heads);
                    continue;
                }
                Found::Record(record) => Some(record),
                Found::Cold => fetched.next(),
            };
            let record = record.ok_or_else(released)?;
            kvs.add_record(record, self.options.keys_only).map_err(|error| EngineError(error.to_string()))?;
        }
        Ok(())
    }

    /// Ends the read where there is no room for what was read.
    fn has_room(&self, read: u64) -> Result<(), Interrupted> {
        match self.room {
            Some(room) if !room(read) => Err(Interrupted::Failed(ReadError::NoRoom)),
            _ => Ok(()),
        }
    }
}

/// What a record takes in an answer, about.
fn taken(record: &Bytes) -> u64 {
    limits::KEY_VALUE_BYTES + record.len() as u64
}

/// What one section under the lock found.
struct Slice<G: Gather> {
    found: Vec<Found>,
    /// What was found in the index alone.
    heads: G::Heads,
    /// Records that are not in memory.
    cold: Vec<Revision>,
    /// The keys that are visible.
    count: i64,
    /// Whether records were looked for.
    is_taken: bool,
    /// Where the next section goes on; `None` at the end of the range.
    next: Option<Vec<u8>>,
}

enum Found {
    Record(Bytes),
    /// To be fetched, in the order of `Slice::cold`.
    Cold,
    /// All that was asked for is in the index; in the order of `Slice::heads`.
    Head,
}

impl<G: Gather> Default for Slice<G> {
    fn default() -> Self {
        let heads = G::Heads::default();
        Self { found: Vec::new(), heads, cold: Vec::new(), count: 0, is_taken: false, next: None }
    }
}

impl<G: Gather> Slice<G> {
    /// The engine, if something has to be fetched from it.
    fn engine_of(&self, state: &State) -> Option<Arc<dyn Engine>> {
        if self.cold.is_empty() { None } else { state.engine.clone() }
    }
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

/// A record without value and lease, from the index alone.
fn head_without_value(key: KeyRef<'_>, entry: &Entry) -> KeyValue {
    let (create_revision, version) = entry.head().map_or((0, 0), |head| (head.create, head.version));
    KeyValue {
        key: key.to_vec().into(),
        create_revision,
        mod_revision: entry.revision().main,
        version,
        ..KeyValue::default()
    }
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
