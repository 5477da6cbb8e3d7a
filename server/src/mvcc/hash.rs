//! Hashes of the history, equal to etcd's for the same history.
//!
//! CRC-32C over `key`, then over each revision in order: 8 bytes main, `_`, 8 bytes sub, `t` for a
//! tombstone, then the record as etcd stores it. Left out are revisions above the asked one, and of
//! those up to the last compaction what is not visible at the asked one. The walk is logical: it
//! makes no difference how far a compaction has got with removing.

use std::ops::{Bound, ControlFlow};

use super::index::Visible;
use super::read::ReadError;
use super::store::{Shared, State};
use super::{Revision, backend, read, record};
use crate::engine::{Engine, EngineError, Family};
use crate::limits;

/// The way in which hashes are made; 0 is that of the releases that do not say. Members compare the hashes of their
/// compactions only where it is the same, so whatever changes the hash of the same history needs another one.
pub const HASH_VERSION: u32 = 0;

/// The hash of the history up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// The compaction that the hash takes into account; -1 before the first.
    pub compact_revision: i64,
    /// The revision that was hashed.
    pub hash_revision: i64,
    /// The current revision.
    pub revision: i64,
}

/// Hashes the history up to a revision, 0 for the current one.
pub(super) fn hash_kv(shared: &Shared, revision: i64) -> Result<HashKv, ReadError> {
    loop {
        let (engine, current, compacted, life) = {
            let state = shared.state.read();
            let engine = state.engine.clone().ok_or_else(super::store::released)?;
            (engine, state.published, state.compacted, state.life)
        };
        let stored = shared.hashes.lock().iter().find(|hash| hash.hash_revision == revision).copied();
        if let Some(hash) = stored {
            return Ok(HashKv { revision: current, ..hash });
        }
        if revision > 0 && revision < compacted {
            return Err(ReadError::Compacted);
        }
        if revision > current {
            return Err(ReadError::FutureRevision);
        }
        let at = if revision == 0 { current } else { revision };
        // Both the asked revision and the compacted one are looked up in the index on the way.
        let Some(_pin) = shared.pins.pin(compacted) else { continue };
        let mut walk = HashWalk::new(shared, at, compacted);
        while !walk.step(shared, &*engine, limits::HASH_SLICE_BYTES)? {}
        // A snapshot that took the place of the state meanwhile was asked about the old history.
        if shared.state.read().life == life {
            return Ok(HashKv { revision: current, ..walk.finish() });
        }
    }
}

/// A hash that is being taken, slice by slice. The compacted revision must be pinned, or its
/// removal not have begun.
pub(super) struct HashWalk {
    crc: u32,
    next: Revision,
    at: i64,
    compacted: i64,
    /// A revision up to `compacted` counts if it is the version of its key that is visible here.
    visible_at: i64,
}

impl HashWalk {
    /// Begins a hash of the history up to `at`, of which `compacted` has been compacted.
    pub(super) fn new(shared: &Shared, at: i64, compacted: i64) -> Self {
        // etcd's rule "skip what compaction would drop" has an exception where it would drop
        // everything: then it hashes whatever is left, which is what the last compaction kept.
        let visible_at = if read::is_empty_at(shared, at) { compacted } else { at };
        Self { crc: crc32c::crc32c(b"key"), next: Revision::default(), at, compacted, visible_at }
    }

    /// Begins the hash that a compaction at `at` takes, of a history of which `compacted` was compacted before.
    ///
    /// etcd's compaction keeps the tombstones of its own revision, so with one of them it would not drop
    /// everything, and the exception does not hold.
    pub(super) fn of_compaction(
        shared: &Shared,
        engine: &dyn Engine,
        at: i64,
        compacted: i64,
    ) -> Result<Self, EngineError> {
        let mut walk = Self::new(shared, at, compacted);
        let (from, to) = (Revision::first_of(at).to_bytes(), Revision::first_of(at + 1).to_bytes());
        engine.scan(Family::Revisions, Bound::Included(&from), Bound::Excluded(&to), &mut |_, value| {
            if record::is_delete(value).unwrap_or(false) {
                walk.visible_at = at;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(walk)
    }

    /// Hashes about `max_bytes` more; whether that was the end.
    pub(super) fn step(&mut self, shared: &Shared, engine: &dyn Engine, max_bytes: usize) -> Result<bool, EngineError> {
        // Up to the compacted revision the index has its say, beyond it everything counts.
        let asks_index = self.next.main <= self.compacted;
        let last = if asks_index { self.compacted.min(self.at) } else { self.at };
        if last < self.next.main {
            return Ok(true);
        }
        let mut rows: Vec<(Revision, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        let mut crc = self.crc;
        let mut failure = None;
        engine.scan(
            Family::Revisions,
            Bound::Included(&self.next.to_bytes()),
            Bound::Excluded(&Revision::first_of(last + 1).to_bytes()),
            &mut |key, value| {
                let Some(revision) = Revision::from_bytes(key) else {
                    failure = Some(EngineError(format!("not a revision: {key:?}")));
                    return ControlFlow::Break(());
                };
                if bytes >= max_bytes {
                    next = Some(revision);
                    return ControlFlow::Break(());
                }
                bytes += key.len() + value.len();
                if asks_index {
                    rows.push((revision, value.to_vec()));
                } else {
                    crc = append(crc, revision, value);
                }
                ControlFlow::Continue(())
            },
        )?;
        if let Some(error) = failure {
            return Err(error);
        }
        if asks_index {
            let state = shared.state.read();
            rows.retain(|(revision, value)| is_visible(&state, *revision, value, self.visible_at));
            drop(state);
            crc = rows.iter().fold(crc, |crc, (revision, value)| append(crc, *revision, value));
        }
        self.crc = crc;
        self.next = next.unwrap_or(Revision::first_of(last + 1));
        Ok(next.is_none() && last == self.at)
    }

    /// The hash; `revision` in it is the hashed one.
    pub(super) fn finish(self) -> HashKv {
        HashKv { hash: self.crc, compact_revision: self.compacted, hash_revision: self.at, revision: self.at }
    }
}

/// Whether a stored revision is the version of its key that is visible at `at`. A tombstone never
/// is: etcd leaves the one at the compacted revision out on purpose.
fn is_visible(state: &State, revision: Revision, value: &[u8], at: i64) -> bool {
    let Ok(parts) = record::parse(value) else { return true };
    state.tree.get(parts.key).is_some_and(|entry| match entry.at(at) {
        Visible::Nothing => false,
        Visible::Head => entry.revision() == revision,
        Visible::Older(older) => older == revision,
    })
}

/// Hashes one revision as etcd's backend holds it.
fn append(crc: u32, revision: Revision, value: &[u8]) -> u32 {
    let (key, len) = backend::key(revision, record::is_delete(value).unwrap_or(false));
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &key[..len]), record::wire(value))
}

/// Hashes everything that is stored and replicated.
pub(super) fn hash_all(engine: &dyn Engine) -> Result<u32, EngineError> {
    let mut crc = 0;
    for (name, family) in [("key", Family::Revisions), ("lease", Family::Leases), ("auth", Family::Auth)] {
        crc = crc32c::crc32c_append(crc, name.as_bytes());
        engine.scan(family, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
            ControlFlow::Continue(())
        })?;
    }
    Ok(crc)
}
