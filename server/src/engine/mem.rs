//! The simulated engine: ordered maps that forget at a crash what was not flushed.
//!
//! [`MemHome`] plays the disk: it outlives the engines opened from it and holds what is durable.
//! A crash keeps any prefix of the batches that were not flushed, because the real engine may
//! have flushed by itself after each of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{
    Batch, BatchOperation, Checkpoint, Engine, EngineError, EngineHome, FAMILIES, Family, Staging, View, Visit,
};

/// The one file of a checkpoint.
const STATE_FILE: &str = "state";

type Maps = [BTreeMap<Bytes, Bytes>; FAMILIES.len()];

/// The place of simulated engines; a clone is the same place.
#[derive(Clone, Default)]
pub struct MemHome {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    /// What a crash leaves in any case.
    durable: Maps,
    /// Written since the last flush, oldest first.
    unflushed: Vec<Batch>,
    /// What the open engine shows. Shared with the scans that are under way.
    live: Arc<Maps>,
    /// Counts crashes and replacements: handles of an earlier life are dead.
    life: u64,
    /// Operations of which the next fails.
    faults: Vec<Fault>,
    /// Bytes that can still be written; no limit where there is none.
    room: Option<u64>,
    /// How often a flush in the background is found under way before it has ended.
    flush_takes: u32,
    /// The flush that is under way.
    flushing: Option<Flushing>,
}

/// A flush in the background.
struct Flushing {
    /// The oldest batches are in it.
    batches: usize,
    /// How often it will yet be found under way.
    left: u32,
}

/// A kind of operation to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A look-up or a scan.
    Read,
    /// Writing a batch. Nothing of it is kept.
    Write,
    /// Making durable. What was written stays as it was.
    Flush,
}

impl Disk {
    fn fail_if_asked(&mut self, fault: Fault) -> Result<(), EngineError> {
        match self.faults.iter().position(|asked| *asked == fault) {
            Some(place) => {
                self.faults.remove(place);
                Err(EngineError(format!("simulated I/O error: {fault:?}")))
            }
            None => Ok(()),
        }
    }

    fn take_room(&mut self, bytes: u64) -> Result<(), EngineError> {
        if let Some(room) = &mut self.room {
            *room =
                room.checked_sub(bytes).ok_or_else(|| EngineError("no space left on the simulated device".into()))?;
        }
        Ok(())
    }
}

impl MemHome {
    /// A place with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next operation of a kind fail, once. It may be asked for several times; it survives crashes.
    pub fn fail_next(&self, fault: Fault) {
        self.disk.lock().faults.push(fault);
    }

    /// Takes back what [`fail_next`](Self::fail_next) announced and has not happened yet.
    pub fn fail_no_more(&self) {
        self.disk.lock().faults.clear();
    }

    /// Leaves room for so many more bytes, or no limit; what finds no room fails until there is some again.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.disk.lock().room = bytes;
    }

    /// Lets a flush in the background be found under way so often before it has ended; at first it ends
    /// as it begins.
    pub fn set_flush_takes(&self, times: u32) {
        self.disk.lock().flush_takes = times;
    }

    /// Loses everything that was not flushed. Open engines are dead afterwards.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Loses what was not flushed but for the oldest `kept` batches, as if the engine had flushed by
    /// itself after them. Returns how many there were. Open engines are dead afterwards.
    pub fn crash_keeping(&self, kept: usize) -> usize {
        let mut disk = self.disk.lock();
        let unflushed = std::mem::take(&mut disk.unflushed);
        let count = unflushed.len();
        for batch in unflushed.into_iter().take(kept) {
            apply(&mut disk.durable, &batch);
        }
        disk.live = Arc::new(disk.durable.clone());
        disk.flushing = None;
        disk.life += 1;
        count
    }
}

impl EngineHome for MemHome {
    fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let life = self.disk.lock().life;
        Ok(Arc::new(MemEngine { home: self.clone(), life, unflushed_bytes: AtomicU64::new(0) }))
    }

    fn stage(&self) -> Result<Box<dyn Staging>, EngineError> {
        Ok(Box::new(MemStaging { home: self.clone(), received: Vec::new() }))
    }
}

struct MemEngine {
    home: MemHome,
    life: u64,
    unflushed_bytes: AtomicU64,
}

impl MemEngine {
    fn with_disk<R>(&self, act: impl FnOnce(&mut Disk) -> R) -> Result<R, EngineError> {
        self.try_with_disk(|disk| Ok(act(disk)))
    }

    fn try_with_disk<R>(&self, act: impl FnOnce(&mut Disk) -> Result<R, EngineError>) -> Result<R, EngineError> {
        let mut disk = self.home.disk.lock();
        if disk.life != self.life {
            return Err(EngineError("the simulated engine has crashed or was replaced".into()));
        }
        act(&mut disk)
    }

    fn snapshot(&self) -> Result<Arc<Maps>, EngineError> {
        self.with_disk(|disk| disk.live.clone())
    }
}

impl Engine for MemEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.try_with_disk(|disk| {
            disk.fail_if_asked(Fault::Read)?;
            Ok(disk.live[family as usize].get(key).cloned())
        })
    }

    fn multi_get(&self, family: Family, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.try_with_disk(|disk| {
            disk.fail_if_asked(Fault::Read)?;
            Ok(keys.iter().map(|key| disk.live[family as usize].get(key).cloned()).collect())
        })
    }

    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        let maps = self.try_with_disk(|disk| {
            disk.fail_if_asked(Fault::Read)?;
            Ok(disk.live.clone())
        })?;
        visit_range(&maps[family as usize], from, to, visit);
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let bytes = batch.operations.iter().map(operation_bytes).sum();
        self.try_with_disk(|disk| {
            disk.fail_if_asked(Fault::Write)?;
            disk.take_room(bytes)?;
            // Copies the maps only while a scan or a checkpoint holds them.
            apply(Arc::make_mut(&mut disk.live), &batch);
            disk.unflushed.push(batch);
            Ok(())
        })?;
        self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.try_with_disk(|disk| {
            disk.fail_if_asked(Fault::Flush)?;
            disk.flushing = None;
            for batch in std::mem::take(&mut disk.unflushed) {
                apply(&mut disk.durable, &batch);
            }
            Ok(())
        })?;
        self.unflushed_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn begin_flush(&self) -> Result<(), EngineError> {
        let takes = self.with_disk(|disk| {
            let takes = disk.flush_takes;
            disk.flushing = (takes > 0).then_some(Flushing { batches: disk.unflushed.len(), left: takes });
            takes
        })?;
        if takes == 0 {
            return self.flush();
        }
        self.unflushed_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn is_flushing(&self) -> Result<bool, EngineError> {
        self.try_with_disk(|disk| {
            let Some(flushing) = &mut disk.flushing else { return Ok(false) };
            if flushing.left > 0 {
                flushing.left -= 1;
                return Ok(true);
            }
            disk.fail_if_asked(Fault::Flush)?;
            let batches = disk.flushing.take().map_or(0, |flushing| flushing.batches);
            for batch in disk.unflushed.drain(..batches) {
                apply(&mut disk.durable, &batch);
            }
            Ok(false)
        })
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes.load(Ordering::Relaxed)
    }

    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        Ok(Box::new(MemView { engine: self, maps: self.snapshot()? }))
    }

    fn checkpoint(&self) -> Result<Arc<dyn Checkpoint>, EngineError> {
        Ok(Arc::new(MemCheckpoint { state: encode(&*self.snapshot()?) }))
    }

    fn reclaim(&self) -> Result<(), EngineError> {
        self.with_disk(|_| ())
    }

    fn size_bytes(&self) -> u64 {
        let sum = |maps: Arc<Maps>| maps.iter().flatten().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        self.snapshot().map_or(0, sum)
    }
}

/// The maps of one moment; what is written meanwhile goes into a copy of them.
struct MemView<'a> {
    engine: &'a MemEngine,
    maps: Arc<Maps>,
}

impl View for MemView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.try_with_disk(|disk| disk.fail_if_asked(Fault::Read))?;
        Ok(self.maps[family as usize].get(key).cloned())
    }

    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        self.engine.try_with_disk(|disk| disk.fail_if_asked(Fault::Read))?;
        visit_range(&self.maps[family as usize], from, to, visit);
        Ok(())
    }
}

fn visit_range(map: &BTreeMap<Bytes, Bytes>, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) {
    if is_empty(from, to) {
        return;
    }
    for (key, value) in map.range::<[u8], _>((from, to)) {
        if visit(key, value).is_break() {
            break;
        }
    }
}

struct MemCheckpoint {
    state: Bytes,
}

impl Checkpoint for MemCheckpoint {
    fn files(&self) -> Vec<(String, u64)> {
        vec![(STATE_FILE.into(), self.state.len() as u64)]
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, EngineError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if file != STATE_FILE || offset > self.state.len() {
            return Err(EngineError(format!("no byte {offset} in file {file} of the checkpoint")));
        }
        Ok(self.state.slice(offset..self.state.len().min(offset.saturating_add(len))))
    }
}

struct MemStaging {
    home: MemHome,
    received: Vec<u8>,
}

impl Staging for MemStaging {
    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        if file != STATE_FILE || offset != self.received.len() as u64 {
            return Err(EngineError(format!("unexpected bytes of file {file} at {offset}")));
        }
        self.received.extend_from_slice(data);
        Ok(())
    }

    fn commit(self: Box<Self>, own: Batch) -> Result<Arc<dyn Engine>, EngineError> {
        self.home.disk.lock().take_room(self.received.len() as u64)?;
        let mut maps =
            decode(self.received.into()).ok_or_else(|| EngineError("the received state is damaged".into()))?;
        apply(&mut maps, &own);
        {
            let mut disk = self.home.disk.lock();
            disk.unflushed.clear();
            disk.flushing = None;
            disk.durable.clone_from(&maps);
            disk.live = Arc::new(maps);
            disk.life += 1;
        }
        self.home.open()
    }
}

fn apply(maps: &mut Maps, batch: &Batch) {
    for operation in &batch.operations {
        match operation {
            BatchOperation::Put(family, key, value) => {
                maps[*family as usize].insert(key.clone(), value.clone());
            }
            BatchOperation::Delete(family, key) => {
                maps[*family as usize].remove(key);
            }
            BatchOperation::DeleteRange(family, from, to) => {
                if from < to {
                    let map = &mut maps[*family as usize];
                    let keys: Vec<Bytes> = map.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        map.remove(&key);
                    }
                }
            }
        }
    }
}

fn operation_bytes(operation: &BatchOperation) -> u64 {
    let bytes = match operation {
        BatchOperation::Put(_, key, value) => key.len() + value.len(),
        BatchOperation::Delete(_, key) => key.len(),
        BatchOperation::DeleteRange(_, from, to) => from.len() + to.len(),
    };
    bytes as u64
}

/// Whether no key can be between two bounds; an ordered map would panic on some of those.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

/// Per family: the number of its pairs, then each as length-prefixed key and value.
fn encode(maps: &Maps) -> Bytes {
    let mut bytes = BytesMut::new();
    for map in maps {
        bytes.put_u64(map.len() as u64);
        for part in map.iter().flat_map(|(key, value)| [key, value]) {
            bytes.put_u64(part.len() as u64);
            bytes.put_slice(part);
        }
    }
    bytes.freeze()
}

fn decode(mut bytes: Bytes) -> Option<Maps> {
    let mut maps = Maps::default();
    for map in &mut maps {
        for _ in 0..bytes.try_get_u64().ok()? {
            let key = decode_part(&mut bytes)?;
            map.insert(key, decode_part(&mut bytes)?);
        }
    }
    bytes.is_empty().then_some(maps)
}

fn decode_part(bytes: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(bytes.try_get_u64().ok()?).ok()?;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn put(engine: &dyn Engine, key: &'static str, value: &'static str) {
        let mut batch = Batch::default();
        batch.put(Family::Meta, key, value);
        engine.write(batch).unwrap();
    }

    fn get(engine: &dyn Engine, key: &str) -> Option<Bytes> {
        engine.get(Family::Meta, key.as_bytes()).unwrap()
    }

    #[test]
    fn a_crash_forgets_what_was_not_flushed() {
        let home = MemHome::new();
        let engine = home.open().unwrap();
        put(&*engine, "a", "1");
        assert!(engine.unflushed_bytes() > 0);
        engine.flush().unwrap();
        assert_eq!(engine.unflushed_bytes(), 0);
        put(&*engine, "b", "2");
        home.crash();
        assert!(engine.get(Family::Meta, b"a").is_err());
        let engine = home.open().unwrap();
        assert_eq!(get(&*engine, "a").unwrap(), "1");
        assert_eq!(get(&*engine, "b"), None);
    }

    #[test]
    fn a_crash_may_keep_a_prefix() {
        let home = MemHome::new();
        let engine = home.open().unwrap();
        for key in ["a", "b", "c"] {
            put(&*engine, key, "x");
        }
        assert_eq!(home.crash_keeping(2), 3);
        let engine = home.open().unwrap();
        assert!(get(&*engine, "b").is_some() && get(&*engine, "c").is_none());
    }

    #[test]
    fn a_flush_in_the_background_covers_what_was_there_when_it_began() {
        let home = MemHome::new();
        home.set_flush_takes(1);
        let engine = home.open().unwrap();
        put(&*engine, "a", "1");
        engine.begin_flush().unwrap();
        assert_eq!(engine.unflushed_bytes(), 0);
        put(&*engine, "b", "2");
        assert!(engine.is_flushing().unwrap());
        assert!(!engine.is_flushing().unwrap());
        home.crash();
        let engine = home.open().unwrap();
        assert_eq!(get(&*engine, "a").unwrap(), "1");
        assert_eq!(get(&*engine, "b"), None);
        put(&*engine, "c", "3");
        engine.begin_flush().unwrap();
        home.crash();
        assert_eq!(get(&*home.open().unwrap(), "c"), None, "it had not ended");
    }

    #[test]
    fn a_failure_happens_once_and_leaves_nothing_behind() {
        let home = MemHome::new();
        let engine = home.open().unwrap();
        put(&*engine, "a", "1");
        for fault in [Fault::Write, Fault::Flush, Fault::Read] {
            home.fail_next(fault);
        }
        let mut batch = Batch::default();
        batch.put(Family::Meta, "b", "2");
        engine.write(batch).unwrap_err();
        engine.flush().unwrap_err();
        engine.get(Family::Meta, b"a").unwrap_err();
        assert_eq!(get(&*engine, "b"), None);
        home.crash();
        assert_eq!(get(&*home.open().unwrap(), "a"), None, "a failed flush makes nothing durable");
    }

    #[test]
    fn a_full_disk_takes_no_more_until_there_is_room() {
        let home = MemHome::new();
        let engine = home.open().unwrap();
        home.set_room(Some(3));
        put(&*engine, "a", "1");
        let mut batch = Batch::default();
        batch.put(Family::Meta, "b", "2");
        engine.write(batch).unwrap_err();
        assert_eq!(get(&*engine, "b"), None);
        home.set_room(None);
        put(&*engine, "b", "2");
        assert!(get(&*engine, "b").is_some());
    }

    #[test]
    fn a_scan_sees_the_state_at_its_beginning() {
        let engine = MemHome::new().open().unwrap();
        put(&*engine, "a", "1");
        put(&*engine, "b", "1");
        let mut seen = Vec::new();
        engine
            .scan(Family::Meta, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
                put(&*engine, "b", "2");
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"1".to_vec())]);
    }

    #[test]
    fn a_checkpoint_replaces_another_state() {
        let source = MemHome::new().open().unwrap();
        put(&*source, "a", "1");
        let checkpoint = source.checkpoint().unwrap();
        let home = MemHome::new();
        let old = home.open().unwrap();
        put(&*old, "z", "9");
        let mut staging = home.stage().unwrap();
        for (file, size) in checkpoint.files() {
            for offset in 0..size {
                staging.write(&file, offset, &checkpoint.read(&file, offset, 1).unwrap()).unwrap();
            }
        }
        let engine = staging.commit(Batch::default()).unwrap();
        home.crash();
        assert!(engine.get(Family::Meta, b"a").is_err());
        let engine = home.open().unwrap();
        assert_eq!(get(&*engine, "a").unwrap(), "1");
        assert_eq!(get(&*engine, "z"), None);
    }

    #[test]
    fn what_belongs_to_the_receiver_wins_over_what_was_received() {
        let source = MemHome::new().open().unwrap();
        put(&*source, "identity", "sender");
        put(&*source, "a", "1");
        let home = MemHome::new();
        put(&*home.open().unwrap(), "identity", "receiver");
        let mut staging = home.stage().unwrap();
        let checkpoint = source.checkpoint().unwrap();
        let (file, size) = checkpoint.files().remove(0);
        staging.write(&file, 0, &checkpoint.read(&file, 0, size as usize).unwrap()).unwrap();
        let mut own = Batch::default();
        own.put(Family::Meta, "identity", "receiver");
        let engine = staging.commit(own).unwrap();
        assert_eq!(get(&*engine, "identity").unwrap(), "receiver");
        home.crash();
        let engine = home.open().unwrap();
        assert_eq!(get(&*engine, "identity").unwrap(), "receiver");
        assert_eq!(get(&*engine, "a").unwrap(), "1");
    }

    #[test]
    fn damage_of_a_received_state_is_found() {
        let home = MemHome::new();
        let mut staging = home.stage().unwrap();
        staging.write(STATE_FILE, 0, &[0, 1]).unwrap();
        assert!(staging.commit(Batch::default()).is_err());
    }
}
