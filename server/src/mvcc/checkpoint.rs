//! Writing the changed entries of the index to the engine, so that a start loads keys and not
//! history.
//!
//! Each changed key is written once per checkpoint, however often it changed, in slices between
//! runs. The family `index` is then as of several moments at once; that is harmless, because a
//! start applies `revisions` from `indexed_revision` on to it, and an entry ignores what it has.

use super::Writer;
use super::index::{Fate, Interest, encode_entry};
use super::store::released;
use crate::engine::layout::{self, meta};
use crate::engine::{Batch, Engine, EngineError, Family};
use crate::env::probe;
use crate::limits;

/// Entries that one slice looks at. Few in tests, so that much can come between two slices.
const SLICE_KEYS: usize = if cfg!(test) { 7 } else { limits::CHECKPOINT_SLICE_KEYS };

/// Unflushed bytes at which a flush is due. Few in tests.
const DUE_BYTES: u64 = if cfg!(test) { 500 } else { limits::FLUSH_BYTES };
use bytes::Bytes;

/// The state of the index checkpoint and the flush that follows it.
pub(super) struct Checkpoint {
    phase: Phase,
    /// Unflushed bytes at which a flush is due.
    due_bytes: u64,
    /// The applied position that the last completed flush covers.
    durable_applied: Option<Bytes>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// Writing entries from a key on; `revision` will be covered.
    Writing { revision: i64, cursor: Vec<u8> },
    /// The engine flushes a state that holds this applied position.
    Flushing { applied: Option<Bytes> },
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { phase: Phase::Idle, due_bytes: DUE_BYTES, durable_applied: None }
    }
}

impl Checkpoint {
    /// The state of a store that was just opened again, with the applied position that it holds.
    pub(super) fn reopened(&self, applied: Option<Bytes>) -> Self {
        Self { phase: Phase::Idle, due_bytes: self.due_bytes, durable_applied: applied }
    }
}

impl Writer {
    /// Goes on with making the state durable where that is due, or does all of it when forced.
    /// To be called between runs; each call without force does a bounded piece of work.
    ///
    /// True when everything that was written before the call is durable now. A flush in the
    /// background, under load, is never that: ask [`Writer::durable_applied`] how far it got.
    pub fn maybe_flush(&mut self, force: bool) -> Result<bool, EngineError> {
        if !self.run.is_empty() {
            return Ok(false); // the index is ahead of the engine: after the commit
        }
        let engine = self.engine.clone().ok_or_else(released)?;
        if force {
            return self.flush_all(&*engine);
        }
        match &self.checkpoint.phase {
            Phase::Idle => {
                if engine.unflushed_bytes() >= self.checkpoint.due_bytes {
                    self.checkpoint.phase = Phase::Writing { revision: self.run.revision, cursor: Vec::new() };
                }
                Ok(false)
            }
            Phase::Writing { .. } => {
                if !self.write_slice(&*engine)? {
                    return Ok(false);
                }
                let applied = engine.get(Family::Meta, meta::APPLIED)?;
                engine.begin_flush()?;
                self.checkpoint.phase = Phase::Flushing { applied };
                self.end_flush(&*engine)
            }
            Phase::Flushing { .. } => self.end_flush(&*engine),
        }
    }

    /// Sets how many bytes may wait to be flushed; at first [`limits::FLUSH_BYTES`].
    pub fn set_flush_bytes(&mut self, bytes: u64) {
        self.checkpoint.due_bytes = bytes;
    }

    /// The applied position ([`meta::APPLIED`]) up to which everything is known to be durable, as
    /// it was written; `None` where there is none.
    pub fn durable_applied(&self) -> Option<Bytes> {
        if probe::broken("durable-ahead-of-flush") {
            // Wrong: what was written counts as durable, so the log that would restore it may be purged.
            return self.engine.as_ref().and_then(|engine| engine.get(Family::Meta, meta::APPLIED).ok()?);
        }
        self.checkpoint.durable_applied.clone()
    }

    fn flush_all(&mut self, engine: &dyn Engine) -> Result<bool, EngineError> {
        self.checkpoint.phase = Phase::Writing { revision: self.run.revision, cursor: Vec::new() };
        while !self.write_slice(engine)? {}
        let applied = engine.get(Family::Meta, meta::APPLIED)?;
        engine.flush()?;
        probe::reached("store-flushed-whole");
        self.checkpoint = self.checkpoint.reopened(applied);
        Ok(true)
    }

    /// Looks whether a flush has ended; true when nothing was written since it began.
    fn end_flush(&mut self, engine: &dyn Engine) -> Result<bool, EngineError> {
        if engine.is_flushing()? {
            return Ok(false);
        }
        if let Phase::Flushing { applied } = std::mem::take(&mut self.checkpoint.phase) {
            probe::reached("store-flushed-in-background");
            let now = engine.get(Family::Meta, meta::APPLIED)?;
            // Wrong where it is broken: what was written while the flush went on counts as durable.
            let covers_later = now != applied && probe::broken("flush-covers-what-came-during-it");
            self.checkpoint.durable_applied = if covers_later { now } else { applied };
        }
        Ok(engine.unflushed_bytes() == 0)
    }

    /// Writes a slice of the changed entries; whether it was the last.
    fn write_slice(&mut self, engine: &dyn Engine) -> Result<bool, EngineError> {
        // An entry no longer knows its removed revisions: they have to go first.
        if matches!(self.checkpoint.phase, Phase::Writing { .. }) && self.bury(engine)? {
            return Ok(false);
        }
        let Phase::Writing { revision, cursor } = &mut self.checkpoint.phase else { return Ok(true) };
        let mut batch = Batch::default();
        let next = self.shared.state.write().tree.sweep(cursor, Interest::Dirty, SLICE_KEYS, &mut |key, entry| {
            if entry.is_dirty() {
                batch.put(Family::Index, key.to_vec(), encode_entry(entry));
                entry.set_dirty(false);
            }
            Fate::Keep
        });
        let is_last = next.is_none();
        match next {
            Some(next) => *cursor = next,
            None => batch.put(Family::Meta, meta::INDEXED_REVISION, layout::meta_i64(*revision)),
        }
        if !batch.is_empty() {
            engine.write(batch)?;
        }
        Ok(is_last)
    }
}
