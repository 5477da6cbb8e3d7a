//! Opening: the index from the family `index`, then from the history that it does not cover.

use std::ops::{Bound, ControlFlow};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::{iter, thread};

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::compact::Compaction;
use super::index::{Builder, Cache, Changes, Tree, decode_entry};
use super::store::{Shared, State};
use super::write::{Run, stored_bytes};
use super::{Revision, Writer, record};
use crate::engine::layout::{self, meta};
use crate::engine::{Engine, EngineError, Family};
use crate::env::{probe, processors};
use crate::limits;

/// Parts of the index that are loaded at the same time, at most.
const LOADERS_MAX: usize = 8;

/// Why a store cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is stored cannot be right.
    #[error("the data is damaged: {0}")]
    Damaged(String),
}

/// What an engine held.
struct Loaded {
    tree: Tree,
    revision: i64,
    compacted: i64,
    finished: i64,
    retained: u64,
}

impl Writer {
    /// Opens the store in an engine, and loads its index. Records are kept in memory up to
    /// `cache_bytes`.
    pub fn open(engine: Arc<dyn Engine>, cache_bytes: u64) -> Result<Self, OpenError> {
        let mut writer = Self {
            shared: Arc::new(Shared::new(State::released(cache_bytes))),
            engine: None,
            cache_bytes,
            run: Run::new(1, -1),
            compaction: Compaction::default(),
            checkpoint: Checkpoint::default(),
        };
        writer.reopen(engine)?;
        Ok(writer)
    }

    /// Gives up the engine, so that its home can replace it. Reads fail until [`Writer::reopen`].
    pub fn release(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.retire();
        }
        self.run = Run::new(1, -1);
        self.compaction = Compaction::default();
        self.checkpoint = self.checkpoint.reopened(None);
        self.shared.hashes.lock().clear();
        let cache_bytes = self.cache_bytes;
        self.shared.publish(|state| {
            let life = state.life + 1;
            let (published, compacted) = (state.published, state.compacted);
            *state = State { life, published, compacted, ..State::released(cache_bytes) };
        });
    }

    /// Loads another engine in the place of the present one. Handles to read see its state.
    pub fn reopen(&mut self, engine: Arc<dyn Engine>) -> Result<(), OpenError> {
        let mut loaded = load(&*engine)?;
        let applied = engine.get(Family::Meta, meta::APPLIED)?;
        self.compaction = Compaction::resume(&mut loaded.tree, loaded.finished, loaded.compacted);
        self.checkpoint = self.checkpoint.reopened(applied);
        self.run = Run::new(loaded.revision, loaded.compacted);
        self.engine = Some(engine.clone());
        self.shared.hashes.lock().clear();
        self.shared.finished.send_replace(loaded.finished);
        self.shared.set_retained(loaded.retained);
        let cache_bytes = self.cache_bytes;
        self.shared.publish(|state| {
            *state = State {
                engine: Some(engine),
                tree: loaded.tree,
                cache: Cache::new(cache_bytes),
                changes: Changes::new(loaded.revision, limits::INDEX_CHANGES_MAX),
                published: loaded.revision,
                compacted: loaded.compacted,
                life: state.life + 1,
            };
        });
        Ok(())
    }
}

fn load(engine: &dyn Engine) -> Result<Loaded, OpenError> {
    let compacted = meta_i64(engine, meta::COMPACTED)?.unwrap_or(-1);
    let finished = meta_i64(engine, meta::COMPACTION_FINISHED)?.unwrap_or(-1);
    let indexed = meta_i64(engine, meta::INDEXED_REVISION)?.unwrap_or(0);
    let stored = meta_i64(engine, meta::REVISION)?.unwrap_or(1);
    let mut tree = load_index(engine)?;
    let last = replay(engine, &mut tree, indexed)?;
    for (name, value) in [("last record", last), ("index", indexed), ("compaction", compacted), ("removal", finished)] {
        if value > stored {
            return Err(OpenError::Damaged(format!("the {name} is of revision {value}, the store of {stored}")));
        }
    }
    let retained = match meta_i64(engine, meta::RETAINED)? {
        Some(bytes) => bytes.cast_unsigned(),
        None => count_bytes(engine)?,
    };
    Ok(Loaded { tree, revision: stored, compacted, finished, retained })
}

/// Loads the index: several parts of it at the same time, where there are processors for them.
fn load_index(engine: &dyn Engine) -> Result<Tree, OpenError> {
    match processors().min(LOADERS_MAX) {
        1 => load_parts(engine, &[]),
        loaders => load_parts(engine, &engine.cuts(Family::Index, loaders)?),
    }
}

/// Loads the index in the parts into which these keys cut it.
fn load_parts(engine: &dyn Engine, cuts: &[Bytes]) -> Result<Tree, OpenError> {
    let from = iter::once(Bound::Unbounded).chain(cuts.iter().map(|cut| Bound::Included(&cut[..])));
    let to = cuts.iter().map(|cut| Bound::Excluded(&cut[..])).chain(iter::once(Bound::Unbounded));
    let parts = thread::scope(|scope| -> Result<Vec<Builder>, OpenError> {
        let mut ranges = from.zip(to);
        let first = ranges.next();
        let loaders: Vec<_> = ranges.map(|(from, to)| scope.spawn(move || load_part(engine, from, to))).collect();
        let mut parts = Vec::with_capacity(cuts.len() + 1);
        if let Some((from, to)) = first {
            parts.push(load_part(engine, from, to)?);
        }
        for loader in loaders {
            parts.push(loader.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(parts)
    })?;
    let mut whole = Builder::default();
    for part in parts {
        if !whole.append(part) {
            return Err(OpenError::Damaged("the index is not in the order of its keys".into()));
        }
    }
    Ok(whole.finish())
}

fn load_part(engine: &dyn Engine, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Builder, OpenError> {
    let mut builder = Builder::default();
    let mut failure = None;
    engine.walk(Family::Index, from, to, &mut |key, value| {
        if decode_entry(value).is_some_and(|entry| builder.push(key, entry)) {
            return ControlFlow::Continue(());
        }
        failure = Some(OpenError::Damaged(format!("the index entry of key {:?}", String::from_utf8_lossy(key))));
        ControlFlow::Break(())
    })?;
    failure.map_or(Ok(builder), Err)
}

/// Counts the bytes of all records, where an older release did not.
fn count_bytes(engine: &dyn Engine) -> Result<u64, OpenError> {
    let mut bytes = 0;
    engine.scan(Family::Revisions, Bound::Unbounded, Bound::Unbounded, &mut |_, record| {
        bytes += stored_bytes(record);
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}

/// Adds the history after a revision to the index; returns the revision of the last record.
fn replay(engine: &dyn Engine, tree: &mut Tree, after: i64) -> Result<i64, OpenError> {
    let from = Revision::first_of(after + 1).to_bytes();
    let mut last = 0;
    let mut failure = None;
    engine.scan(Family::Revisions, Bound::Included(&from), Bound::Unbounded, &mut |key, value| {
        let (Some(revision), Ok(parts)) = (Revision::from_bytes(key), record::parse(value)) else {
            failure = Some(OpenError::Damaged(format!("the record at {key:?}")));
            return ControlFlow::Break(());
        };
        tree.upsert(parts.key, |entry| {
            if entry.revision() >= revision {
                return; // a checkpoint that was not completed had it
            }
            if parts.is_delete {
                // Wrong where it is broken: what was deleted after the last index checkpoint lives again.
                if !probe::broken("index-misses-tombstone") {
                    entry.delete(revision);
                }
            } else {
                // The stored index may be older than a compaction that has removed history after it. A
                // key that lives on but was created later was deleted in between: the tombstone is gone,
                // and with it everything before it, since the oldest goes first.
                if entry.head().is_some_and(|head| head.create != parts.create_revision) {
                    entry.start_over();
                }
                entry.put(revision, parts.create_revision, parts.version, parts.lease);
            }
        });
        last = revision.main;
        ControlFlow::Continue(())
    })?;
    if last > 0 {
        probe::reached("index-replayed");
    }
    failure.map_or(Ok(last), Err)
}

fn meta_i64(engine: &dyn Engine, key: &[u8]) -> Result<Option<i64>, OpenError> {
    let Some(bytes) = engine.get(Family::Meta, key)? else { return Ok(None) };
    let damaged = || OpenError::Damaged(format!("{} is {bytes:?}", String::from_utf8_lossy(key)));
    layout::decode_meta_i64(&bytes).map(Some).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::super::index::Interval;
    use super::*;
    use crate::engine::EngineHome;
    use crate::engine::mem::MemHome;

    /// Keys with what the index knows of them, in order.
    fn listed(tree: &Tree) -> Vec<String> {
        let mut listed = Vec::new();
        tree.scan(Interval::ALL, &mut |key, entry| {
            listed.push(format!("{:?} {entry:?}", key.to_vec()));
            ControlFlow::Continue(())
        });
        listed
    }

    #[test]
    fn an_index_that_is_loaded_in_parts_is_the_same() {
        let home = MemHome::new();
        let mut writer = Writer::open(home.open().unwrap(), 1 << 20).unwrap();
        for i in 0..700 {
            let mut txn = writer.begin();
            txn.put(format!("key/{:03}", i * 7 % 500).into(), "value".into(), i % 3).unwrap();
            txn.end();
            writer.commit().unwrap();
        }
        writer.maybe_flush(true).unwrap();
        let engine = home.open().unwrap();
        let whole = load_parts(&*engine, &[]).unwrap();
        assert_eq!(whole.live(), 500);
        for cuts in [&["key/250"][..], &["a", "key/0", "key/001", "key/002", "key/3", "z"], &["a"], &["z"]] {
            let cuts: Vec<Bytes> = cuts.iter().map(|cut| Bytes::from(*cut)).collect();
            let parts = load_parts(&*engine, &cuts).unwrap();
            assert_eq!(listed(&parts), listed(&whole), "{cuts:?}");
            assert_eq!(parts.live(), whole.live());
            let some = Interval { from: b"key/100", to: Some(b"key/400") };
            assert_eq!(parts.count(some), 300, "{cuts:?}");
            assert!((0..500).all(|i| parts.get(format!("key/{i:03}").as_bytes()).is_some()));
        }
    }

    #[test]
    fn damage_is_found_in_every_part() {
        let engine = MemHome::new().open().unwrap();
        let mut batch = crate::engine::Batch::default();
        batch.put(Family::Index, "m", "no entry");
        engine.write(batch).unwrap();
        let none: &[&'static str] = &[];
        for cuts in [none, &["a"], &["z"], &["a", "z"]] {
            let cuts: Vec<Bytes> = cuts.iter().map(|cut| Bytes::from(*cut)).collect();
            assert!(matches!(load_parts(&*engine, &cuts), Err(OpenError::Damaged(what)) if what.contains("\"m\"")));
        }
    }
}
