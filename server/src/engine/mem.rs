//! The simulated engine: ordered maps that forget at a crash what was not flushed.
//!
//! [`MemHome`] plays the disk: it outlives the engines opened from it and holds what is durable.
//! A crash keeps any prefix of the batches that were not flushed, because the real engine may
//! have flushed by itself after each of them.
//!
//! A checkpoint has many small files, which are cut where the hash of a key says so: what did not change between two
//! checkpoints is in files that are the same in both, as with the real engine.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{
    Batch, BatchOperation, Checkpoint, Checksum, Engine, EngineError, EngineHome, FAMILIES, Family, StagedFile,
    Staging, View, Visit,
};

/// The file of a checkpoint that lists the others.
const MANIFEST: &str = "manifest";

/// How many keys are in a file of a checkpoint, about.
const FILE_KEYS: u32 = 32;

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
    /// What is being received.
    staged: BTreeMap<String, Incoming>,
}

/// A file that is being received.
struct Incoming {
    content: Vec<u8>,
    /// Noted when it is whole.
    checksum: Option<u64>,
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
        // What was not synced is torn.
        for file in disk.staged.values_mut().filter(|file| file.checksum.is_none()) {
            file.content.truncate(file.content.len() / 2);
        }
        count
    }

    /// The files that were received whole and wait for the others.
    pub fn staged(&self) -> Vec<StagedFile> {
        whole(&self.disk.lock().staged)
    }

    /// Turns a bit over in one of the files that were received whole, by any number; whether there is one.
    pub fn rot_staged(&self, number: u64) -> bool {
        let mut disk = self.disk.lock();
        let mut files: Vec<&mut Incoming> =
            disk.staged.values_mut().filter(|file| file.checksum.is_some() && !file.content.is_empty()).collect();
        if files.is_empty() {
            return false;
        }
        let (count, number) = (files.len(), number as usize);
        let content = &mut files[number % count].content;
        let place = number / count % content.len();
        content[place] ^= 1;
        true
    }
}

fn whole(staged: &BTreeMap<String, Incoming>) -> Vec<StagedFile> {
    let file = |(name, file): (&String, &Incoming)| {
        let size = file.content.len() as u64;
        file.checksum.map(|checksum| StagedFile { name: name.clone(), size, checksum })
    };
    staged.iter().filter_map(file).collect()
}

impl EngineHome for MemHome {
    fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let life = self.disk.lock().life;
        Ok(Arc::new(MemEngine { home: self.clone(), life, unflushed_bytes: AtomicU64::new(0) }))
    }

    fn stage(&self) -> Result<Box<dyn Staging>, EngineError> {
        let mut disk = self.disk.lock();
        disk.staged.retain(|_, file| file.checksum.is_some());
        Ok(Box::new(MemStaging { home: self.clone(), life: disk.life }))
    }

    fn unstage(&self) -> Result<bool, EngineError> {
        Ok(!std::mem::take(&mut self.disk.lock().staged).is_empty())
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
        Ok(Arc::new(MemCheckpoint { files: encode(&*self.snapshot()?) }))
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
    files: BTreeMap<String, Bytes>,
}

impl Checkpoint for MemCheckpoint {
    fn files(&self) -> Vec<(String, u64)> {
        self.files.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect()
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, EngineError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.files.get(file) {
            Some(content) if offset <= content.len() => {
                Ok(content.slice(offset..content.len().min(offset.saturating_add(len))))
            }
            _ => Err(EngineError(format!("no byte {offset} in file {file} of the checkpoint"))),
        }
    }

    fn known_checksum(&self, _file: &str) -> Option<u64> {
        // A name may stand for another content at another time.
        None
    }

    fn learn_checksum(&self, _file: &str, _checksum: u64) {}
}

struct MemStaging {
    home: MemHome,
    life: u64,
}

impl MemStaging {
    fn with_disk<R>(&self, act: impl FnOnce(&mut Disk) -> Result<R, EngineError>) -> Result<R, EngineError> {
        let mut disk = self.home.disk.lock();
        if disk.life != self.life {
            return Err(EngineError("the simulated engine has crashed or was replaced".into()));
        }
        act(&mut disk)
    }
}

impl Staging for MemStaging {
    fn whole(&self) -> Vec<StagedFile> {
        self.home.staged()
    }

    fn keep_only(&mut self, files: &[String]) -> Result<(), EngineError> {
        self.with_disk(|disk| {
            disk.staged.retain(|name, _| files.contains(name));
            Ok(())
        })
    }

    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        self.with_disk(|disk| {
            if disk.staged.iter().any(|(name, other)| name != file && other.checksum.is_none()) {
                return Err(EngineError(format!("file {file} comes before another file is whole")));
            }
            let received = disk.staged.get(file);
            let (length, whole) = received.map_or((0, false), |file| (file.content.len(), file.checksum.is_some()));
            if whole || offset != length as u64 {
                return Err(EngineError(format!("unexpected bytes of file {file} at {offset}")));
            }
            disk.take_room(data.len() as u64)?;
            let incoming = disk.staged.entry(file.to_owned());
            incoming
                .or_insert_with(|| Incoming { content: Vec::new(), checksum: None })
                .content
                .extend_from_slice(data);
            Ok(())
        })
    }

    fn finish(&mut self, file: &str, checksum: u64) -> Result<(), EngineError> {
        self.with_disk(|disk| match disk.staged.get_mut(file) {
            Some(incoming) if incoming.checksum.is_none() => {
                incoming.checksum = Some(checksum);
                Ok(())
            }
            _ => Err(EngineError(format!("file {file} is not being written"))),
        })
    }

    fn verify(&mut self, file: &str) -> Result<bool, EngineError> {
        self.with_disk(|disk| {
            let Some(incoming) = disk.staged.get(file) else { return Ok(false) };
            let is_same = incoming.checksum == Some(Checksum::of(&incoming.content));
            if !is_same {
                disk.staged.remove(file);
            }
            Ok(is_same)
        })
    }

    fn commit(self: Box<Self>, own: Batch) -> Result<Arc<dyn Engine>, EngineError> {
        let files = self.with_disk(|disk| Ok(std::mem::take(&mut disk.staged)))?;
        if let Some((name, _)) = files.iter().find(|(_, file)| file.checksum.is_none()) {
            return Err(EngineError(format!("file {name} is not whole")));
        }
        let mut maps = decode(files).ok_or_else(|| EngineError("the received state is damaged".into()))?;
        apply(&mut maps, &own);
        self.with_disk(|disk| {
            disk.unflushed.clear();
            disk.flushing = None;
            disk.durable.clone_from(&maps);
            disk.live = Arc::new(maps);
            disk.life += 1;
            Ok(())
        })?;
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

/// The files of a checkpoint: neighbouring pairs of a family in each, under the name of the first key, and a list.
fn encode(maps: &Maps) -> BTreeMap<String, Bytes> {
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    for (family, map) in maps.iter().enumerate() {
        let mut open: Option<(String, BytesMut)> = None;
        for (key, value) in map {
            let (_, content) = open.get_or_insert_with(|| {
                let name = key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                (format!("{family}-{name}"), BytesMut::from(&[family as u8][..]))
            });
            put_part(content, key);
            put_part(content, value);
            if crc32fast::hash(key).is_multiple_of(FILE_KEYS) {
                files.extend(open.take().map(|(name, content)| (name, content.freeze())));
            }
        }
        files.extend(open.map(|(name, content)| (name, content.freeze())));
    }
    let mut list = BytesMut::new();
    for (name, content) in &files {
        put_part(&mut list, name.as_bytes());
        list.put_u64(content.len() as u64);
    }
    files.insert(MANIFEST.to_owned(), list.freeze());
    files
}

fn put_part(bytes: &mut BytesMut, part: &[u8]) {
    bytes.put_u64(part.len() as u64);
    bytes.put_slice(part);
}

/// The state in the files of a checkpoint, where all that are listed are there with their sizes.
fn decode(files: BTreeMap<String, Incoming>) -> Option<Maps> {
    let mut files: BTreeMap<String, Bytes> =
        files.into_iter().map(|(name, file)| (name, file.content.into())).collect();
    let mut list = files.remove(MANIFEST)?;
    let mut maps = Maps::default();
    while !list.is_empty() {
        let name = String::from_utf8(decode_part(&mut list)?.into()).ok()?;
        let size = list.try_get_u64().ok()?;
        let mut content = files.remove(&name).filter(|content| content.len() as u64 == size)?;
        let map = maps.get_mut(usize::from(content.try_get_u8().ok()?))?;
        while !content.is_empty() {
            let key = decode_part(&mut content)?;
            map.insert(key, decode_part(&mut content)?);
        }
    }
    Some(maps)
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

    fn send(checkpoint: &dyn Checkpoint, staging: &mut dyn Staging, files: &[(String, u64)]) {
        for (file, size) in files {
            let content = checkpoint.read(file, 0, *size as usize).unwrap();
            // In two pieces, or in one that is empty.
            let (first, second) = content.split_at(content.len() / 2);
            staging.write(file, 0, first).unwrap();
            staging.write(file, first.len() as u64, second).unwrap();
            staging.finish(file, Checksum::of(&content)).unwrap();
        }
    }

    fn put_many(engine: &dyn Engine, keys: std::ops::Range<u32>) {
        for key in keys {
            let mut batch = Batch::default();
            batch.put(Family::Revisions, key.to_be_bytes().to_vec(), vec![7; 10]);
            engine.write(batch).unwrap();
        }
    }

    #[test]
    fn a_checkpoint_replaces_another_state() {
        let source = MemHome::new().open().unwrap();
        put(&*source, "a", "1");
        put_many(&*source, 0..500);
        let checkpoint = source.checkpoint().unwrap();
        let home = MemHome::new();
        let old = home.open().unwrap();
        put(&*old, "z", "9");
        let mut staging = home.stage().unwrap();
        send(&*checkpoint, &mut *staging, &checkpoint.files());
        let engine = staging.commit(Batch::default()).unwrap();
        assert_eq!(home.staged(), []);
        home.crash();
        assert!(engine.get(Family::Meta, b"a").is_err());
        let engine = home.open().unwrap();
        assert_eq!(get(&*engine, "a").unwrap(), "1");
        assert_eq!(get(&*engine, "z"), None);
        assert_eq!(engine.checkpoint().unwrap().files(), checkpoint.files());
    }

    #[test]
    fn most_files_stay_the_same_when_a_little_is_written() {
        let source = MemHome::new().open().unwrap();
        put_many(&*source, 0..1000);
        let first = source.checkpoint().unwrap();
        put_many(&*source, 1000..1010);
        let mut batch = Batch::default();
        batch.delete(Family::Revisions, 3u32.to_be_bytes().to_vec());
        source.write(batch).unwrap();
        let second = source.checkpoint().unwrap();
        let files = first.files();
        assert!(files.len() > 10, "{}", files.len());
        let content = |checkpoint: &dyn Checkpoint, name: &str| checkpoint.read(name, 0, usize::MAX).ok();
        let same = |(name, _): &&(String, u64)| content(&*first, name) == content(&*second, name);
        assert!(files.iter().filter(same).count() + 4 > files.len(), "the list, the deleted one's and the last one");
    }

    #[test]
    fn what_was_received_whole_outlives_a_crash_and_rot_is_found() {
        let source = MemHome::new().open().unwrap();
        put_many(&*source, 0..500);
        let checkpoint = source.checkpoint().unwrap();
        let files = checkpoint.files();
        let home = MemHome::new();
        assert!(!home.rot_staged(3), "there is nothing");
        let mut staging = home.stage().unwrap();
        send(&*checkpoint, &mut *staging, &files[..3]);
        staging.write(&files[3].0, 0, b"half of it").unwrap();
        assert!(staging.write(&files[4].0, 0, b"x").is_err() && staging.write(&files[0].0, 0, b"x").is_err());
        home.crash();
        assert!(staging.write(&files[3].0, 10, b"x").is_err(), "it is of an earlier life");
        let mut staging = home.stage().unwrap();
        assert_eq!(staging.whole().len(), 3);
        assert!(home.rot_staged(7 * 3 + 1));
        let verified: Vec<bool> = files[..3].iter().map(|(name, _)| staging.verify(name).unwrap()).collect();
        assert_eq!(verified, [true, false, true]);
        staging.keep_only(std::slice::from_ref(&files[2].0)).unwrap();
        assert_eq!(staging.whole().iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), [files[2].0.as_str()]);
        drop(staging);
        assert!(home.unstage().unwrap() && !home.unstage().unwrap());
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
        send(&*checkpoint, &mut *staging, &checkpoint.files());
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
        let source = MemHome::new().open().unwrap();
        put_many(&*source, 0..100);
        let checkpoint = source.checkpoint().unwrap();
        let home = MemHome::new();
        let mut staging = home.stage().unwrap();
        // One is missing.
        send(&*checkpoint, &mut *staging, &checkpoint.files()[1..]);
        assert!(staging.commit(Batch::default()).is_err());
        let mut staging = home.stage().unwrap();
        staging.write(MANIFEST, 0, &[0, 1]).unwrap();
        staging.finish(MANIFEST, 0).unwrap();
        assert!(staging.commit(Batch::default()).is_err());
        let mut staging = home.stage().unwrap();
        staging.write(MANIFEST, 0, &[]).unwrap();
        assert!(staging.commit(Batch::default()).is_err(), "it is not whole");
    }
}
