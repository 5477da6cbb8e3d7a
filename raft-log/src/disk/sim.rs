//! A disk in memory that forgets, tears, rots, fills up and stalls, all from one seed.
//!
//! A [`SimMedium`] is what survives: it is mounted, crashed and mounted again. It keeps for every
//! file what is durable and, in order, what was written since the last sync; a crash decides
//! sector by sector what of the latter is found again. Names behave alike: each creation, rename
//! and removal since the last sync of the directory is found again, or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Disk, DiskFile, Operation};
use crate::probe;

/// What a crash keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;

/// What survives a simulated crash. Clones are the same medium.
#[derive(Clone)]
pub struct SimMedium {
    inner: Arc<Mutex<Medium>>,
}

/// A mounted [`SimMedium`]; of no use any more once it was crashed, killed or mounted again.
pub struct SimDisk {
    inner: Arc<Mutex<Medium>>,
    mount: u64,
}

/// How long operations take, drawn from ranges.
#[derive(Clone, Debug)]
pub struct SimLatency {
    /// Writing a batch.
    pub write: RangeInclusive<Duration>,
    /// Syncing a batch.
    pub sync: RangeInclusive<Duration>,
    /// Between the end of a sync and its acknowledgement.
    pub acknowledge: RangeInclusive<Duration>,
    /// Making a segment ready.
    pub prepare: RangeInclusive<Duration>,
}

impl Default for SimLatency {
    fn default() -> Self {
        let none = || Duration::ZERO..=Duration::ZERO;
        Self { write: none(), sync: none(), acknowledge: none(), prepare: none() }
    }
}

/// A sector of which a crash decides whether it is found as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsyncedSector {
    /// The file's name, empty if it was removed meanwhile.
    pub file: String,
    /// Which of the unsynced writes to this file it belongs to, oldest first.
    pub write: usize,
    /// Its number in the file.
    pub sector: u64,
}

/// A kind of operation to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Syncing a file. What it should have made durable is then taken for clean: it can be read
    /// until the next crash, and no later sync makes it durable.
    Sync,
    /// Creating, opening, renaming, removing or listing.
    Name,
    /// Syncing the directory.
    SyncDir,
}

#[derive(Clone)]
struct Medium {
    random: SplitMix64,
    mount: u64,
    next_node: u64,
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    capacity_bytes: Option<u64>,
    latency: SimLatency,
    stall: Option<Duration>,
    /// Operations that change something; reads are not counted.
    operations: u64,
    power_fails_at: Option<u64>,
    /// Per kind how many succeed before one fails.
    faults: BTreeMap<Fault, u64>,
    /// The same for whoever mounts it next.
    faults_after_mount: BTreeMap<Fault, u64>,
}

/// The content of one file, whatever its name.
#[derive(Clone, Default)]
struct Node {
    durable: Vec<u8>,
    /// Sectors that a failed sync left in the cache for clean.
    adrift: BTreeMap<u64, Vec<u8>>,
    unsynced: Vec<Write>,
    size: u64,
    /// Room that was reserved.
    reserved: u64,
    handles: usize,
}

#[derive(Clone)]
struct Write {
    offset: u64,
    data: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Rename(String, String),
    Remove(String),
}

impl SimMedium {
    /// Makes an empty medium; everything random on it follows from the seed.
    pub fn new(seed: u64) -> Self {
        let medium = Medium {
            random: SplitMix64(seed),
            mount: 0,
            next_node: 0,
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            capacity_bytes: None,
            latency: SimLatency::default(),
            stall: None,
            operations: 0,
            power_fails_at: None,
            faults: BTreeMap::new(),
            faults_after_mount: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(medium)) }
    }

    /// Copies the medium as it is now, unmounted: to try several fates from one moment.
    pub fn fork(&self) -> Self {
        let mut medium = self.inner.lock().clone();
        medium.nodes.values_mut().for_each(|node| node.handles = 0);
        medium.unmount();
        Self { inner: Arc::new(Mutex::new(medium)) }
    }

    /// Gives access to the medium, and takes it from whoever had it before.
    pub fn mount(&self) -> SimDisk {
        let mut medium = self.inner.lock();
        let mount = medium.unmount();
        medium.faults = std::mem::take(&mut medium.faults_after_mount);
        drop(medium);
        SimDisk { mount, inner: Arc::clone(&self.inner) }
    }

    /// Ends the process that has it mounted; what was written stays readable, what was not synced stays unsynced.
    pub fn kill(&self) {
        self.inner.lock().unmount();
    }

    /// Loses power. Of what was not synced, each crash draws whether all, nothing, the older part
    /// or any part is found again, and how much of it.
    pub fn crash(&self) {
        let mut medium = self.inner.lock();
        let mut random = SplitMix64(medium.random.next());
        let kept = match random.below(4) {
            0 => 0,
            1 => 256,
            _ => 1 + random.below(255),
        };
        let cut = (random.below(3) == 0).then(|| random.below(8) as usize);
        medium.crash(&mut |sector| match (sector, cut) {
            (Some(sector), Some(cut)) if sector.write != cut => sector.write < cut,
            _ => random.below(256) < kept,
        });
    }

    /// Loses power; the caller decides for each unsynced sector whether it is found as written, and
    /// for each unsynced change of a name (`None`), in their order.
    pub fn crash_keeping(&self, keep: &mut dyn FnMut(Option<&UnsyncedSector>) -> bool) {
        self.inner.lock().crash(keep);
    }

    /// The sectors that a crash now would decide on, in the order in which it would.
    pub fn unsynced_sectors(&self) -> Vec<UnsyncedSector> {
        self.inner.lock().unsynced_sectors()
    }

    /// Makes power fail before the operation after so many more that change something: it and all
    /// later ones fail without effect. Follow it with a crash.
    pub fn fail_power_after(&self, operations: u64) {
        let mut medium = self.inner.lock();
        medium.power_fails_at = Some(medium.operations + operations);
    }

    /// Returns how many operations changed something so far.
    pub fn operations(&self) -> u64 {
        self.inner.lock().operations
    }

    /// Fails one operation of a kind, after so many that succeed.
    pub fn fail_after(&self, fault: Fault, successes: u64) {
        self.inner.lock().faults.insert(fault, successes);
    }

    /// The same for whoever mounts it next, from then on.
    pub fn fail_after_mount(&self, fault: Fault, successes: u64) {
        self.inner.lock().faults_after_mount.insert(fault, successes);
    }

    /// Takes back what [`fail_after`](Self::fail_after), [`fail_after_mount`](Self::fail_after_mount), [`fail_power_after`](Self::fail_power_after) and
    /// [`stall_next_sync`](Self::stall_next_sync) announced and has not happened yet.
    pub fn fail_no_more(&self) {
        let mut medium = self.inner.lock();
        medium.faults.clear();
        medium.faults_after_mount.clear();
        medium.power_fails_at = None;
        medium.stall = None;
    }

    /// Bounds the room for all files, or lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.lock().capacity_bytes = bytes;
    }

    /// Sets how long operations take from now on.
    pub fn set_latency(&self, latency: SimLatency) {
        self.inner.lock().latency = latency;
    }

    /// Makes the next sync take this long.
    pub fn stall_next_sync(&self, duration: Duration) {
        self.inner.lock().stall = Some(duration);
    }

    /// Returns the files and their sizes in bytes, by name.
    pub fn files(&self) -> Vec<(String, u64)> {
        let medium = self.inner.lock();
        medium.names.iter().map(|(name, node)| (name.clone(), medium.nodes[node].size)).collect()
    }

    /// Returns a file's content as it would be read now.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let medium = self.inner.lock();
        let node = &medium.nodes[medium.names.get(name)?];
        let mut content = vec![0; node.size as usize];
        node.read(0, &mut content);
        Some(content)
    }

    /// Replaces bytes of a file durably, past every check: rot, or somebody's editor.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) {
        let mut medium = self.inner.lock();
        let node = medium.names.get(name).copied().expect("the file exists");
        let node = medium.nodes.get_mut(&node).expect("names lead to nodes");
        node.persist_all();
        let offset = offset as usize;
        node.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Turns one bit of a file over, durably.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        let content = self.content(name).expect("the file exists");
        let byte = (bit / 8) as usize;
        self.overwrite(name, bit / 8, &[content[byte] ^ (1 << (bit % 8))]);
    }

    /// Turns a random bit over in a random file that the filter takes; returns which.
    pub fn rot(&self, filter: impl Fn(&str) -> bool) -> Option<(String, u64)> {
        let files: Vec<_> = self.files().into_iter().filter(|(name, size)| *size > 0 && filter(name)).collect();
        let (name, bit) = {
            let mut medium = self.inner.lock();
            let (name, size) = files.get(medium.random.below(files.len().max(1) as u64) as usize)?;
            (name.clone(), medium.random.below(size * 8))
        };
        self.flip_bit(&name, bit);
        Some((name, bit))
    }

    /// Removes a file durably.
    pub fn remove_file(&self, name: &str) {
        let mut medium = self.inner.lock();
        medium.names.remove(name);
        medium.durable_names.remove(name);
        medium.collect();
    }
}

impl Medium {
    /// Ends the present mount and returns the number of the next one.
    fn unmount(&mut self) -> u64 {
        self.mount += 1;
        self.power_fails_at = None;
        self.faults.clear();
        self.stall = None;
        self.mount
    }

    fn unsynced_sectors(&self) -> Vec<UnsyncedSector> {
        let mut sectors = Vec::new();
        for (id, node) in &self.nodes {
            let file =
                self.names.iter().find(|(_, named)| *named == id).map_or(String::new(), |(name, _)| name.clone());
            for (write, unsynced) in node.unsynced.iter().enumerate() {
                let first = unsynced.offset / SECTOR_BYTES as u64;
                let count = (unsynced.data.len() / SECTOR_BYTES) as u64;
                sectors.extend((first..first + count).map(|sector| UnsyncedSector {
                    file: file.clone(),
                    write,
                    sector,
                }));
            }
        }
        sectors
    }

    fn crash(&mut self, keep: &mut dyn FnMut(Option<&UnsyncedSector>) -> bool) {
        self.unmount();
        for change in std::mem::take(&mut self.name_changes) {
            if keep(None) {
                change.apply(&mut self.durable_names);
            }
        }
        let mut fates = self.unsynced_sectors().into_iter();
        for node in self.nodes.values_mut() {
            for write in std::mem::take(&mut node.unsynced) {
                for (nth, sector) in write.data.chunks(SECTOR_BYTES).enumerate() {
                    if keep(fates.next().as_ref()) {
                        node.persist(write.offset + (nth * SECTOR_BYTES) as u64, sector);
                    }
                }
            }
            node.adrift.clear();
            node.size = node.durable.len() as u64;
        }
        self.names = self.durable_names.clone();
        self.collect();
    }

    /// Forgets the content that neither a name nor a handle leads to.
    fn collect(&mut self) {
        let set = |change: &NameChange| match change {
            NameChange::Set(_, node) => Some(*node),
            NameChange::Rename(..) | NameChange::Remove(_) => None,
        };
        let pending = self.name_changes.iter().filter_map(set);
        let named: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().chain(pending).collect();
        self.nodes.retain(|id, node| node.handles > 0 || named.contains(id));
    }

    /// Admits an operation that changes something.
    fn change(&mut self, mount: u64, fault: Fault) -> io::Result<()> {
        if self.power_fails_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("the power is off"));
        }
        self.admit(mount, fault)?;
        self.operations += 1;
        Ok(())
    }

    fn admit(&mut self, mount: u64, fault: Fault) -> io::Result<()> {
        if mount != self.mount {
            return Err(io::Error::other("the disk is not mounted any more"));
        }
        match self.faults.get_mut(&fault) {
            Some(0) => {
                self.faults.remove(&fault);
                match fault {
                    Fault::Read => probe::reached("disk-read-failed"),
                    Fault::Write => probe::reached("disk-write-failed"),
                    Fault::Sync => probe::reached("disk-sync-failed"),
                    Fault::Name => probe::reached("disk-name-failed"),
                    Fault::SyncDir => probe::reached("disk-directory-sync-failed"),
                }
                Err(io::Error::other("a fault was injected"))
            }
            Some(successes) => {
                *successes -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a handle keeps its node")
    }

    fn check_room(&self, id: u64, size: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity_bytes else {
            return Ok(());
        };
        let others = self.nodes.iter().filter(|(other, _)| **other != id);
        let taken: u64 = others.map(|(_, node)| node.size.max(node.reserved)).sum();
        if taken + size > capacity { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Node {
    fn persist(&mut self, offset: u64, data: &[u8]) {
        let (offset, end) = (offset as usize, offset as usize + data.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[offset..end].copy_from_slice(data);
    }

    fn persist_all(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            let sectors =
                write.offset / SECTOR_BYTES as u64..(write.offset + write.data.len() as u64) / SECTOR_BYTES as u64;
            if !self.adrift.is_empty() {
                self.adrift.retain(|sector, _| !sectors.contains(sector));
            }
            self.persist(write.offset, &write.data);
        }
    }

    /// A sync failed: the system forgets that the pages are dirty.
    fn set_adrift(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            let first = write.offset / SECTOR_BYTES as u64;
            self.adrift.extend((first..).zip(write.data.chunks(SECTOR_BYTES).map(<[u8]>::to_vec)));
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) {
        let end = (offset as usize + buffer.len()).min(self.durable.len());
        buffer.fill(0);
        if (offset as usize) < end {
            buffer[..end - offset as usize].copy_from_slice(&self.durable[offset as usize..end]);
        }
        let adrift = self.adrift.iter().map(|(sector, data)| (sector * SECTOR_BYTES as u64, data));
        let unsynced = self.unsynced.iter().map(|write| (write.offset, &write.data));
        for (begin, data) in adrift.chain(unsynced) {
            overlay(offset, buffer, begin, data);
        }
    }
}

/// Copies what of the data, which begins at `begin`, lies within the buffer, which begins at `offset`.
fn overlay(offset: u64, buffer: &mut [u8], begin: u64, data: &[u8]) {
    let from = begin.max(offset);
    let to = (begin + data.len() as u64).min(offset + buffer.len() as u64);
    if from < to {
        let source = &data[(from - begin) as usize..(to - begin) as usize];
        buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
    }
}

impl NameChange {
    /// Without effect where an earlier change, which it rests on, was lost.
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, node) => drop(names.insert(name, node)),
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(&from) {
                    names.insert(to, node);
                }
            }
            Self::Remove(name) => drop(names.remove(&name)),
        }
    }
}

impl SimDisk {
    fn handle(&self, medium: &mut Medium, node: u64) -> Arc<dyn DiskFile> {
        medium.node(node).handles += 1;
        Arc::new(SimFile { inner: Arc::clone(&self.inner), mount: self.mount, node })
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut medium = self.inner.lock();
        medium.change(self.mount, Fault::Name)?;
        if medium.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        medium.next_node += 1;
        let node = medium.next_node;
        medium.nodes.insert(node, Node::default());
        medium.names.insert(name.to_owned(), node);
        medium.name_changes.push(NameChange::Set(name.to_owned(), node));
        Ok(self.handle(&mut medium, node))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut medium = self.inner.lock();
        medium.admit(self.mount, Fault::Name)?;
        let node = *medium.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&mut medium, node))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut medium = self.inner.lock();
        medium.change(self.mount, Fault::Name)?;
        let node = medium.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        medium.names.insert(to.to_owned(), node);
        medium.name_changes.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        medium.collect();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut medium = self.inner.lock();
        medium.change(self.mount, Fault::Name)?;
        medium.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        medium.name_changes.push(NameChange::Remove(name.to_owned()));
        medium.collect();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut medium = self.inner.lock();
        medium.admit(self.mount, Fault::Name)?;
        Ok(medium.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut medium = self.inner.lock();
        medium.change(self.mount, Fault::SyncDir)?;
        medium.durable_names = medium.names.clone();
        medium.name_changes.clear();
        medium.collect();
        Ok(())
    }

    fn delay(&self, operation: Operation) -> Duration {
        let mut medium = self.inner.lock();
        let range = match operation {
            Operation::Write => medium.latency.write.clone(),
            Operation::Sync => medium.latency.sync.clone(),
            Operation::Acknowledge => medium.latency.acknowledge.clone(),
            Operation::Prepare => medium.latency.prepare.clone(),
        };
        let stall = if operation == Operation::Sync { medium.stall.take() } else { None };
        stall.unwrap_or_else(|| medium.random.between(&range))
    }
}

struct SimFile {
    inner: Arc<Mutex<Medium>>,
    mount: u64,
    node: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut medium = self.inner.lock();
        medium.node(self.node).handles -= 1;
        medium.collect();
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.inner.lock().node(self.node).size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut medium = self.inner.lock();
        medium.admit(self.mount, Fault::Read)?;
        let node = medium.node(self.node);
        if offset + buffer.len() as u64 > node.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        node.read(offset, buffer);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let whole = |bytes: u64| bytes.is_multiple_of(SECTOR_BYTES as u64);
        assert!(whole(offset) && whole(data.len() as u64), "writes are made of whole sectors");
        let mut medium = self.inner.lock();
        medium.change(self.mount, Fault::Write)?;
        let size = medium.node(self.node).size.max(offset + data.len() as u64);
        medium.check_room(self.node, size)?;
        let node = medium.node(self.node);
        node.size = size;
        node.unsynced.push(Write { offset, data: data.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut medium = self.inner.lock();
        match medium.change(self.mount, Fault::Sync) {
            Ok(()) => {
                let node = medium.node(self.node);
                node.persist_all();
                // A size that was reached by what is adrift now is not on disk.
                node.size = node.size.max(node.durable.len() as u64);
                Ok(())
            }
            Err(error) => {
                // Without power nothing happened; a failed sync on a living system forgets.
                if medium.mount == self.mount && medium.power_fails_at.is_none_or(|at| medium.operations < at) {
                    medium.node(self.node).set_adrift();
                }
                Err(error)
            }
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut medium = self.inner.lock();
        medium.change(self.mount, Fault::Write)?;
        medium.check_room(self.node, bytes)?;
        let node = medium.node(self.node);
        node.reserved = node.reserved.max(bytes);
        Ok(())
    }
}

/// A small generator whose numbers follow from its seed alone.
#[derive(Clone)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn between(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let span = range.end().saturating_sub(*range.start()).as_nanos() as u64;
        if span == 0 { *range.start() } else { *range.start() + Duration::from_nanos(self.below(span + 1)) }
    }
}
