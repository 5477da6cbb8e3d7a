//! Removing compacted history in the background, slice by slice.
//!
//! A compaction moved the watermark; what it drops is found by walking the index (past the parts
//! that have no history) and removed from the engine in batches. Each compaction is a round of
//! its own: first its hash is taken, while all that it drops is still there, then it is removed.
//!
//! - **Invariant:** the revisions of a key are removed oldest first, and its last one, a tombstone,
//!   together with its entry in the family `index`: what a crash leaves behind never brings a deleted
//!   key back.
//! - **Invariant:** the family `index` never forgets a revision that is still stored: an entry is
//!   written there only while nothing waits for its removal (`checkpoint`), so that a restart finds
//!   the rest of an interrupted round again.

use std::collections::VecDeque;

use bytes::Bytes;

use super::hash::HashWalk;
use super::index::{Fate, Interest, Tree};
use super::store::released;
use super::write::stored_bytes;
use super::{Revision, Writer};
use crate::engine::layout::{self, meta};
use crate::engine::{Batch, Engine, EngineError, Family};
use crate::env::probe;
use crate::limits;

/// Revisions that one slice removes. Small in tests, like the other slices, so that much can come
/// between two of them.
const SLICE_REVISIONS: usize = if cfg!(test) { 3 } else { limits::COMPACTION_SLICE_REVISIONS };

/// Keys that one slice looks at.
const SLICE_KEYS: usize = if cfg!(test) { 7 } else { limits::COMPACTION_SLICE_KEYS };

/// Bytes of history that one slice hashes.
const SLICE_BYTES: usize = if cfg!(test) { 100 } else { limits::HASH_SLICE_BYTES };

/// What is left to do of compactions.
#[derive(Default)]
pub(super) struct Compaction {
    /// Compactions that have not ended, oldest first.
    rounds: VecDeque<Round>,
    phase: Phase,
    /// Out of the index, but not of the engine.
    graves: VecDeque<Grave>,
    /// Revisions that were removed from the engine since somebody asked.
    buried: u64,
}

struct Round {
    /// The compacted revision.
    at: i64,
    /// The compaction before it, where the hash is to be taken; a resumed round has lost the chance.
    before: Option<i64>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Waiting,
    Hashing(HashWalk),
    /// Walking the index from this key on.
    Sweeping(Vec<u8>),
    /// The index is swept; what was found is being buried.
    Ending,
}

enum Grave {
    Revision(Revision),
    /// The last revision of a key, with which its entry goes.
    Last(Revision, Bytes),
}

impl Compaction {
    /// Takes up what an earlier process left: history up to `finished` has been removed, up to
    /// `compacted` it should be. The index may still know removed revisions: it is pruned.
    pub(super) fn resume(tree: &mut Tree, finished: i64, compacted: i64) -> Self {
        let mut compaction = Self::default();
        if finished >= 0 {
            let mut removed = Vec::new();
            let mut cursor = Some(Vec::new());
            while let Some(from) = cursor {
                cursor = compaction.sweep(tree, &from, finished, &mut removed);
                removed.clear();
            }
            compaction.graves.retain(|grave| matches!(grave, Grave::Last(..)));
        }
        if finished < compacted {
            probe::reached("compaction-resumed");
            compaction.rounds.push_back(Round { at: compacted, before: None });
        }
        compaction
    }

    /// Adds committed compactions, each with the one before it.
    pub(super) fn schedule(&mut self, compactions: Vec<(i64, i64)>) {
        self.rounds.extend(compactions.into_iter().map(|(at, before)| Round { at, before: Some(before) }));
        // A later round removes what an earlier one would; only the earlier hash is lost, and more
        // hashes than these are not kept anyway. The first one is under way.
        while self.rounds.len() > limits::COMPACTION_HASHES {
            self.rounds.remove(1);
        }
    }

    /// Whether the engine holds nothing that the index has forgotten.
    fn is_buried(&self) -> bool {
        self.graves.is_empty()
    }

    /// Removes from the engine a slice of what is out of the index; returns how many bytes of
    /// records are left then.
    fn bury(&mut self, engine: &dyn Engine, retained: u64) -> Result<u64, EngineError> {
        let mut batch = Batch::default();
        let mut revisions = Vec::new();
        for grave in self.graves.drain(..self.graves.len().min(SLICE_REVISIONS)) {
            let (Grave::Revision(revision) | Grave::Last(revision, _)) = grave;
            revisions.push(Bytes::copy_from_slice(&revision.to_bytes()));
            if let Grave::Last(_, key) = grave {
                batch.delete(Family::Index, key);
            }
        }
        self.buried += revisions.len() as u64;
        // Some may be gone: after a crash they are looked for again.
        let records = engine.multi_get(Family::Revisions, &revisions)?;
        let bytes = records.iter().flatten().map(|record| stored_bytes(record)).sum();
        for revision in revisions {
            batch.delete(Family::Revisions, revision);
        }
        let retained = retained.saturating_sub(bytes);
        batch.put(Family::Meta, meta::RETAINED, layout::meta_i64(retained.cast_signed()));
        engine.write(batch)?;
        Ok(retained)
    }

    /// Takes what a compaction at `at` drops out of a slice of the index. Returns where to go on.
    fn sweep(&mut self, tree: &mut Tree, from: &[u8], at: i64, dead: &mut Vec<Revision>) -> Option<Vec<u8>> {
        tree.sweep(from, Interest::History, SLICE_KEYS, &mut |key, entry| {
            let is_gone = entry.has_history() && entry.compact(at, dead);
            let last = if is_gone { dead.pop() } else { None };
            self.graves.extend(dead.drain(..).map(Grave::Revision));
            match last {
                Some(last) => {
                    self.graves.push_back(Grave::Last(last, key.to_vec().into()));
                    Fate::Remove
                }
                None => Fate::Keep,
            }
        })
    }
}

impl Writer {
    /// Does a bounded piece of the removal of compacted history; whether there is more to do.
    pub fn compact_slice(&mut self) -> Result<bool, EngineError> {
        let engine = self.engine.clone().ok_or_else(released)?;
        let shared = self.shared.clone();
        if self.bury(&*engine)? {
            return Ok(true);
        }
        let compaction = &mut self.compaction;
        let Some(round) = compaction.rounds.front() else { return Ok(false) };
        let at = round.at;
        match &mut compaction.phase {
            Phase::Waiting => {
                probe::reached("compaction-begun");
                if shared.pins.allow_compaction(at) {
                    compaction.phase = match round.before {
                        Some(before) => Phase::Hashing(HashWalk::of_compaction(&shared, &*engine, at, before)?),
                        None => Phase::Sweeping(Vec::new()),
                    };
                }
            }
            Phase::Hashing(walk) => {
                if walk.step(&shared, &*engine, SLICE_BYTES)?
                    && let Phase::Hashing(walk) = std::mem::replace(&mut compaction.phase, Phase::Sweeping(Vec::new()))
                {
                    let mut hashes = shared.hashes.lock();
                    hashes.push_back(walk.finish());
                    while hashes.len() > limits::COMPACTION_HASHES {
                        hashes.pop_front();
                    }
                }
            }
            Phase::Sweeping(cursor) => {
                probe::reached("compaction-slice");
                let from = std::mem::take(cursor);
                let next = compaction.sweep(&mut shared.state.write().tree, &from, at, &mut Vec::new());
                match next {
                    Some(next) => compaction.phase = Phase::Sweeping(next),
                    None => compaction.phase = Phase::Ending,
                }
            }
            Phase::Ending => self.end_round(&*engine, at)?,
        }
        Ok(!self.compaction.rounds.is_empty() || !self.compaction.is_buried())
    }

    /// Removes from the engine a slice of what is out of the index; whether there was any.
    pub(super) fn bury(&mut self, engine: &dyn Engine) -> Result<bool, EngineError> {
        if self.compaction.is_buried() {
            return Ok(false);
        }
        self.shared.set_retained(self.compaction.bury(engine, self.shared.retained())?);
        Ok(true)
    }

    /// How many revisions [`Self::compact_slice`] removed since this was last asked.
    pub fn take_buried(&mut self) -> u64 {
        std::mem::take(&mut self.compaction.buried)
    }

    fn end_round(&mut self, engine: &dyn Engine, at: i64) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        batch.put(Family::Meta, meta::COMPACTION_FINISHED, layout::meta_i64(at));
        engine.write(batch)?;
        self.compaction.phase = Phase::Waiting;
        self.compaction.rounds.pop_front();
        self.shared.finished.send_replace(at);
        Ok(())
    }
}
