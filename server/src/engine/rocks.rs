//! The real engine: RocksDB with its own write-ahead log switched off.
//!
//! The raft log is the write-ahead log: a write here is durable at the next flush, and all families
//! are flushed together, so that what a crash leaves is the state at one applied index.
//!
//! On disk, `<home>` holds numbered generations (`000001/`, …) and the file `CURRENT` with the number of
//! the one that is in use. A checkpoint is received into `incoming/`. When it is there whole it is renamed to the next
//! number, tried, and becomes current by one atomic rename of `CURRENT`; a generation that `CURRENT` does not name is a
//! leftover and removed at open. Generations without a `CURRENT` are refused: which of them counts is not ours to guess.
//! Beside it, `FORMAT` says which format the data have, and is looked at before all else.
//!
//! `incoming/` outlives the process, so that a transfer that broke off goes on. A file counts as whole when it has a line
//! in `incoming/received`, which is written when the file and its name are synced; all other files there are removed
//! before anything more is received.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBCompressionType, ErrorKind,
    FlushOptions, LogLevel, Options, ReadOptions, WaitForCompactOptions, WriteBatch, WriteBufferManager, WriteOptions,
    properties,
};

use super::{
    Batch, BatchOperation, Checkpoint, Checksum, Engine, EngineError, EngineHome, FAMILIES, Family, StagedFile,
    Staging, View, Visit, layout,
};
use crate::limits;

/// Memory of one memtable, where it is not limited. Flushes are asked for before one is full (`mvcc`); only where more is
/// written than they take away do [`WRITE_BUFFERS`] of them fill, and who writes waits until one is gone: the smaller
/// they are the sooner. With four of 256 MiB and a flush that took all of them at 64 MiB/s that was 16 s, in which
/// requests timed out.
const WRITE_BUFFER_BYTES: usize = 64 * 1024 * 1024;

/// Files that are kept open.
const OPEN_FILES: i32 = 1024;

/// The same where the memory is limited, at least: what is known of an open file is in it.
const OPEN_FILES_FEW: i32 = 128;

/// Where the memory is limited, a file may be open for so many bytes that blocks may take. What is known of one is some
/// kilobytes (its index is among the blocks), and who has to open it first reads three times for one record.
const BYTES_PER_OPEN_FILE: usize = 256 * 1024;

/// Memtables of a family before who writes has to wait.
const WRITE_BUFFERS: usize = 4;

/// What background work may write a second at most, flushes and compactions together. It begins with half of it; then
/// RocksDB's limiter tunes itself (`util/rate_limiter.cc`), never below a twentieth, which is 64 MiB/s. It goes up by a
/// twentieth at a time while work waits for the limit in nine of ten of its shares, and down where that is fewer than
/// half. So flushes keep up with what is written, while one compaction alone, which waits less often as it also reads
/// and merges, leaves the disk to the raft log; a fast disk and idle processors let it climb, too. RocksDB slows writers
/// down, before it stops them, to the limit as it begins.
///
/// One run of each, with `mainstay-bench`: puts of 64 KiB to one member (5.2 GB; * 3.9 GB), and puts while 0.7 GB are
/// defragmented under a thousand puts and gets a second. Before that their p99 was 1.9 to 3.1 ms.
///
/// | limit, MiB/s | puts a second | p99 | p99.9 | p99 of puts while defragmenting |
/// |---|--:|--:|--:|--:|
/// | 64, and memtables of 256 MiB | 648 | 2505 ms | 4538 ms | 5.7 ms |
/// | 64 | 953 | 440 ms | 679 ms | 6.8 ms |
/// | 256 | 2961* | 205 ms | 241 ms | 16.8 ms |
/// | 32 to 640 | 2109 | 313 ms | 1016 ms | 5.1 to 6.1 ms |
/// | 64 to 1280 | 2198* | 352 ms | 841 ms | 4.8 ms |
const BACKGROUND_BYTES_PER_SECOND_MAX: i64 = 1280 * 1024 * 1024;

/// How often it may write its share, in microseconds: an fsync of the log waits for a whole one.
const BACKGROUND_REFILL_MICROS: i64 = 1_000;

/// What it may leave to the system before that writes it, for the same reason.
const BACKGROUND_UNSYNCED_BYTES: u64 = 64 * 1024;

/// How large a file of the store becomes, for the same reason: when one is finished or removed, the file system's journal
/// is written, and an fsync of the log waits for that. While 0.7 GB were defragmented at 64 MiB/s under a thousand puts a
/// second, with files of 64 MiB and shares of 5 ms, the 99th percentile of puts was 7.5 ms, and with these 3.5 ms (2.2
/// without); on later days 5.5 to 6.8 ms.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// How many neighbouring keys are looked at to tell whether a file is worth compacting.
const DELETION_WINDOW: usize = 4096;

/// Bytes that a long walk reads at once.
const WALK_READAHEAD_BYTES: usize = 1024 * 1024;

/// The same where memory is limited: at least so much, and at most such a part of what blocks may take, as each of many
/// walks reads ahead in every file that it comes past.
const WALK_READAHEAD_BYTES_LEAST: usize = 16 * 1024;
const WALK_READAHEAD_PART: usize = 4096;

/// A family that takes less on disk is not worth being cut into parts.
const CUT_BYTES_MIN: u64 = 256 * 1024;

/// How often the keys between which a cut has to be are halved: enough for keys that differ in their last bytes.
const CUT_STEPS: usize = 64;

/// For how long the sizes of the files are taken as they were last found: finding them lists a folder.
const SIZE_LIFETIME: Duration = Duration::from_secs(1);

/// Names the generation in use.
const CURRENT: &str = "CURRENT";

/// Says which format the data have, in decimal. A release that wrote none knew the first alone.
const FORMAT: &str = "FORMAT";

/// The folder of what is being received.
const INCOMING: &str = "incoming";
/// In it, the folder of the files.
const FILES: &str = "files";
/// In it, the list of the files that are whole.
const RECEIVED: &str = "received";

/// What the names of the files end with that never change once they are written.
const IMMUTABLE: &str = ".sst";

/// Bytes of a file that are read at once for its checksum.
const CHECKSUM_READ_BYTES: usize = 1024 * 1024;

/// How long nothing more is said of damage: who reads the same again finds the same.
const DAMAGE_PERIOD: Duration = Duration::from_secs(60);

/// Says that a file holds something else than was written to it. Whoever reads it is told, too, but may be anybody.
fn report_damage(error: &rocksdb::Error) {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock();
    if said.is_none_or(|at| at.elapsed() >= DAMAGE_PERIOD) {
        *said = Some(Instant::now());
        tracing::error!(%error, "the store is damaged; `mainstay rebuild` gets its content from the other members");
    }
}

impl From<rocksdb::Error> for EngineError {
    fn from(error: rocksdb::Error) -> Self {
        if error.kind() == ErrorKind::Corruption {
            report_damage(&error);
        }
        Self(error.to_string())
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> EngineError {
    EngineError(format!("{action} {}: {error}", path.display()))
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Revisions => "revisions",
        Family::Index => "index",
        Family::Leases => "leases",
        Family::Auth => "auth",
        Family::Members => "members",
        Family::Meta => "meta",
    }
}

/// The folder below which the engine lives.
#[derive(Clone, Debug)]
pub struct RocksHome {
    root: PathBuf,
    memory: Memory,
}

/// What the engine may take of the memory.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// For blocks that were read.
    blocks: usize,
    /// For what was written and not flushed, which is a part of the former; `None` for whatever it takes.
    unflushed: Option<usize>,
}

/// The first and the last key of a family.
type Ends = (Vec<u8>, Vec<u8>);

impl RocksHome {
    /// The engine of a data directory; see [`super::directory`]. Nothing is touched yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), memory: Memory { blocks: limits::BLOCK_CACHE_BYTES as usize, unflushed: None } }
    }

    /// Lets blocks that were read take so many bytes, and of those what was written and not flushed so many.
    #[must_use]
    pub fn with_memory(mut self, blocks: u64, unflushed: Option<u64>) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        self.memory = Memory { blocks: size(blocks), unflushed: unflushed.map(size) };
        self
    }

    fn generation(&self, number: u64) -> PathBuf {
        self.root.join(format!("{number:06}"))
    }

    /// The generation in use; `None` where nothing is yet.
    fn current(&self) -> Result<Option<u64>, EngineError> {
        let path = self.root.join(CURRENT);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let number = text.trim().parse().ok().filter(|number| self.generation(*number).is_dir());
                let refusal = || EngineError(format!("{} names no generation: {text:?}", path.display()));
                number.ok_or_else(refusal).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for found in self.folders()? {
                    // An empty one is what a crash in `create` leaves.
                    if fs::read_dir(&found).is_ok_and(|mut files| files.next().is_some()) {
                        return Err(EngineError(format!("{} is missing beside {}", path.display(), found.display())));
                    }
                }
                Ok(None)
            }
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// Refuses what a newer release wrote.
    fn check_format(&self) -> Result<(), EngineError> {
        let path = self.root.join(FORMAT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let named = text.trim().parse::<u32>();
        let found = named.map_err(|_| EngineError(format!("{} names no format: {text:?}", path.display())))?;
        let checked = layout::check_format(found, layout::FORMAT);
        checked.map_err(|newer| EngineError(format!("{}: {newer}", self.root.display())))
    }

    /// Makes the first generation, an empty one.
    fn create(&self) -> Result<u64, EngineError> {
        let first = self.generation(1);
        fs::create_dir_all(&first)
            .and_then(|()| sync_directory(&self.root))
            .map_err(|error| failed("create", &first, &error))?;
        self.set_current(1)?;
        Ok(1)
    }

    fn folders(&self) -> Result<Vec<PathBuf>, EngineError> {
        let list = || -> io::Result<Vec<PathBuf>> {
            let entries = fs::read_dir(&self.root)?.collect::<io::Result<Vec<_>>>()?;
            Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
        };
        list().map_err(|error| failed("list", &self.root, &error))
    }

    /// Makes a generation the one in use, atomically and durably.
    fn set_current(&self, number: u64) -> Result<(), EngineError> {
        self.put_number(CURRENT, number)
    }

    /// Puts a file with a number in the place of the one of that name, atomically and durably.
    fn put_number(&self, name: &str, number: u64) -> Result<(), EngineError> {
        let path = self.root.join(name);
        let fresh = self.root.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            fs::write(&fresh, format!("{number}\n"))?;
            fs::File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, &path)?;
            sync_directory(&self.root)
        };
        write().map_err(|error| failed("write", &path, &error))
    }

    /// Removes every folder that is not in use: a crash may have left some.
    fn clean(&self, current: u64) -> Result<(), EngineError> {
        let used = [self.generation(current), self.root.join(INCOMING)];
        for folder in self.folders()?.iter().filter(|folder| !used.contains(folder)) {
            fs::remove_dir_all(folder).map_err(|error| failed("remove", folder, &error))?;
        }
        Ok(())
    }

    /// The number of the generation in use; an error where nothing was ever opened.
    fn opened(&self) -> Result<u64, EngineError> {
        self.current()?.ok_or_else(|| EngineError(format!("{} was never opened", self.root.display())))
    }

    fn open_generation(&self, number: u64) -> Result<Arc<dyn Engine>, EngineError> {
        Ok(Arc::new(RocksEngine::open(self.clone(), number)?))
    }
}

impl EngineHome for RocksHome {
    fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        self.check_format()?;
        create_directory(&self.root).map_err(|error| failed("create", &self.root, &error))?;
        let current = match self.current()? {
            Some(current) => current,
            None => self.create()?,
        };
        self.clean(current)?;
        self.open_generation(current)
    }

    fn stage(&self) -> Result<Box<dyn Staging>, EngineError> {
        self.opened()?;
        let folder = self.root.join(INCOMING);
        let files = folder.join(FILES);
        create_directory(&files).map_err(|error| failed("create", &files, &error))?;
        let mut whole = read_received(&folder)?;
        whole.retain(|name, file| {
            fs::metadata(files.join(name)).is_ok_and(|found| found.is_file() && found.len() == file.size)
        });
        for entry in fs::read_dir(&files).map_err(|error| failed("list", &files, &error))? {
            let entry = entry.map_err(|error| failed("list", &files, &error))?;
            if entry.file_name().to_str().is_none_or(|name| !whole.contains_key(name)) {
                remove(&entry.path())?;
            }
        }
        let received = write_received(&folder, &whole)?;
        Ok(Box::new(RocksStaging { home: self.clone(), folder, files, open: None, whole, received }))
    }

    fn unstage(&self) -> Result<bool, EngineError> {
        let folder = self.root.join(INCOMING);
        let found = fs::read_dir(folder.join(FILES)).is_ok_and(|mut entries| entries.next().is_some());
        remove(&folder)?;
        Ok(found)
    }
}

/// Removes a file, or a folder with all that is in it; nothing there is fine.
fn remove(path: &Path) -> Result<(), EngineError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Creates a folder and those above it, durably.
fn create_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(path)?;
    missing
        .iter()
        .filter_map(|created| created.parent())
        .try_for_each(|parent| sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }))
}

/// Makes the names in a folder durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Refuses names that leave the folder, or that the list of files cannot hold: they come from another member.
fn check_name(file: &str) -> Result<(), EngineError> {
    if file.is_empty() || file.contains(['/', '\\', '\0', '\n']) || file == "." || file == ".." {
        return Err(EngineError(format!("checkpoint file name {file:?}")));
    }
    Ok(())
}

/// A line of the list of files that are whole, with a checksum of its own in front.
fn received_line(file: &StagedFile) -> String {
    let text = format!("{:016x} {} {}", file.checksum, file.size, file.name);
    format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes()))
}

/// The file of a line; `None` where a crash has left a part of one.
fn parse_received(line: &str) -> Option<StagedFile> {
    let (sum, text) = line.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(text.as_bytes()) {
        return None;
    }
    let (checksum, rest) = text.split_once(' ')?;
    let (size, name) = rest.split_once(' ')?;
    let checksum = u64::from_str_radix(checksum, 16).ok()?;
    Some(StagedFile { name: name.to_owned(), size: size.parse().ok()?, checksum })
}

/// Reads the list of files that are whole. Of two lines about one file the later one counts.
fn read_received(folder: &Path) -> Result<BTreeMap<String, StagedFile>, EngineError> {
    let path = folder.join(RECEIVED);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed("read", &path, &error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let files = text.lines().filter_map(parse_received).filter(|file| check_name(&file.name).is_ok());
    Ok(files.map(|file| (file.name.clone(), file)).collect())
}

/// Writes the list of files that are whole anew, durably, and leaves it open at its end.
fn write_received(folder: &Path, whole: &BTreeMap<String, StagedFile>) -> Result<fs::File, EngineError> {
    use std::io::Write as _;
    let (path, fresh) = (folder.join(RECEIVED), folder.join("received.new"));
    let write = || -> io::Result<fs::File> {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(whole.values().map(received_line).collect::<String>().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        sync_directory(folder)?;
        Ok(file)
    };
    write().map_err(|error| failed("write", &path, &error))
}

/// Reads a file whole for its checksum.
fn checksum_of(path: &Path) -> io::Result<u64> {
    use std::io::Read as _;
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; CHECKSUM_READ_BYTES];
    let mut checksum = Checksum::default();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum.value()),
            read => checksum.add(&buffer[..read]),
        }
    }
}

/// A checkpoint on its way in.
struct RocksStaging {
    home: RocksHome,
    folder: PathBuf,
    files: PathBuf,
    /// The file that is being written; files come one after the other.
    open: Option<(String, fs::File)>,
    whole: BTreeMap<String, StagedFile>,
    /// The list of the files that are whole, open at its end.
    received: fs::File,
}

impl Staging for RocksStaging {
    fn whole(&self) -> Vec<StagedFile> {
        self.whole.values().cloned().collect()
    }

    fn keep_only(&mut self, files: &[String]) -> Result<(), EngineError> {
        let dropped: Vec<String> = self.whole.keys().filter(|name| !files.contains(name)).cloned().collect();
        if dropped.is_empty() {
            return Ok(());
        }
        self.whole.retain(|name, _| !dropped.contains(name));
        // First from the list: what stands there is there.
        self.received = write_received(&self.folder, &self.whole)?;
        dropped.iter().try_for_each(|name| remove(&self.files.join(name)))
    }

    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        use std::os::unix::fs::FileExt;
        check_name(file)?;
        let path = self.files.join(file);
        if self.whole.contains_key(file) {
            return Err(EngineError(format!("{} is whole already", path.display())));
        }
        if self.open.is_none() {
            let created = fs::File::create(&path).map_err(|error| failed("create", &path, &error))?;
            self.open = Some((file.to_owned(), created));
        }
        match &self.open {
            Some((name, open)) if name == file => {
                open.write_all_at(data, offset).map_err(|error| failed("write", &path, &error))
            }
            _ => Err(EngineError(format!("{} comes before another file is whole", path.display()))),
        }
    }

    fn finish(&mut self, file: &str, checksum: u64) -> Result<(), EngineError> {
        use std::io::Write as _;
        let path = self.files.join(file);
        let Some((_, open)) = self.open.take_if(|(name, _)| name.as_str() == file) else {
            return Err(EngineError(format!("{} is not being written", path.display())));
        };
        let finish = || -> io::Result<u64> {
            open.sync_all()?;
            sync_directory(&self.files)?;
            Ok(open.metadata()?.len())
        };
        let size = finish().map_err(|error| failed("sync", &path, &error))?;
        let staged = StagedFile { name: file.to_owned(), size, checksum };
        self.received
            .write_all(received_line(&staged).as_bytes())
            .and_then(|()| self.received.sync_all())
            .map_err(|error| failed("write", &self.folder.join(RECEIVED), &error))?;
        self.whole.insert(file.to_owned(), staged);
        Ok(())
    }

    fn verify(&mut self, file: &str) -> Result<bool, EngineError> {
        let Some(noted) = self.whole.get(file) else { return Ok(false) };
        if checksum_of(&self.files.join(file)).is_ok_and(|found| found == noted.checksum) {
            return Ok(true);
        }
        let others: Vec<String> = self.whole.keys().filter(|name| *name != file).cloned().collect();
        self.keep_only(&others)?;
        Ok(false)
    }

    fn commit(self: Box<Self>, own: Batch) -> Result<Arc<dyn Engine>, EngineError> {
        if let Some((name, _)) = &self.open {
            return Err(EngineError(format!("{} is not whole", self.files.join(name).display())));
        }
        let home = &self.home;
        let number = home.opened()? + 1;
        let generation = home.generation(number);
        // From here on it is a generation, and no crash takes it for files to go on with.
        remove(&generation)?;
        fs::rename(&self.files, &generation)
            .and_then(|()| sync_directory(&home.root))
            .map_err(|error| failed("rename", &self.files, &error))?;
        remove(&self.folder)?;
        // Opened before it counts: what cannot be opened leaves the old state in service.
        let try_out = || -> Result<Arc<dyn Engine>, EngineError> {
            let engine = home.open_generation(number)?;
            engine.write(own)?;
            engine.flush()?;
            Ok(engine)
        };
        let engine = try_out().inspect_err(|_| {
            // What cannot be removed now goes at the next open.
            fs::remove_dir_all(&generation).ok();
        })?;
        home.set_current(number)?;
        home.clean(number)?;
        Ok(engine)
    }
}

/// An open RocksDB.
struct RocksEngine {
    db: DB,
    home: RocksHome,
    directory: PathBuf,
    checkpoints: PathBuf,
    checkpoint_count: AtomicU64,
    /// The checksums of files that were read for a checkpoint. Shared with the checkpoints.
    checksums: Arc<Mutex<BTreeMap<String, u64>>>,
    unflushed: AtomicU64,
    /// Bytes of the files, and when they were counted.
    size_of_files: Mutex<Option<(Instant, u64)>>,
}

fn database_options(cache: &Cache, memory: Memory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_max_background_jobs(2);
    options.set_auto_tuned_ratelimiter(BACKGROUND_BYTES_PER_SECOND_MAX, BACKGROUND_REFILL_MICROS, 10);
    options.set_bytes_per_sync(BACKGROUND_UNSYNCED_BYTES);
    options.set_max_open_files(OPEN_FILES);
    options.set_skip_stats_update_on_db_open(true);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    if let Some(unflushed) = memory.unflushed {
        options.set_max_open_files(open_files(memory.blocks));
        // A flush takes all families along, whoever began it, so that it may begin at any time.
        let manager = WriteBufferManager::new_write_buffer_manager_with_cache(unflushed, false, cache.clone());
        options.set_write_buffer_manager(&manager);
    }
    options
}

/// How many files are kept open where blocks may take so many bytes: the larger the store that is served with them.
fn open_files(blocks: usize) -> i32 {
    i32::try_from(blocks / BYTES_PER_OPEN_FILE).unwrap_or(OPEN_FILES).clamp(OPEN_FILES_FEW, OPEN_FILES)
}

/// Bytes that a long walk reads at once.
fn readahead(memory: Memory) -> usize {
    match memory.unflushed {
        Some(_) => (memory.blocks / WALK_READAHEAD_PART).clamp(WALK_READAHEAD_BYTES_LEAST, WALK_READAHEAD_BYTES),
        None => WALK_READAHEAD_BYTES,
    }
}

fn family_options(cache: &Cache, memory: Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    if memory.unflushed.is_some() {
        // Otherwise they are beside the cache, and there are more of them the larger the store is.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    }
    table.set_block_size(4 * 1024);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(memory.unflushed.map_or(WRITE_BUFFER_BYTES, |bytes| bytes / WRITE_BUFFERS));
    options.set_max_write_buffer_number(WRITE_BUFFERS as i32);
    // Compacted history lies together: where half of a stretch was deleted, it is worth rewriting.
    options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_WINDOW / 2, 0.5);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(512 * 1024 * 1024);
    options
}

impl RocksEngine {
    fn open(home: RocksHome, number: u64) -> Result<Self, EngineError> {
        let (directory, checkpoints) = (home.generation(number), home.root.join("checkpoints"));
        let memory = home.memory;
        let cache = Cache::new_lru_cache(memory.blocks);
        let options = |family| ColumnFamilyDescriptor::new(family_name(family), family_options(&cache, memory));
        let db = DB::open_cf_descriptors(&database_options(&cache, memory), &directory, FAMILIES.map(options))?;
        Ok(Self {
            db,
            home,
            directory,
            checkpoints,
            checkpoint_count: AtomicU64::new(0),
            checksums: Arc::default(),
            unflushed: AtomicU64::new(0),
            size_of_files: Mutex::new(None),
        })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, EngineError> {
        let name = family_name(family);
        self.db.cf_handle(name).ok_or_else(|| EngineError(format!("no family {name:?}")))
    }

    fn flush_with(&self, wait: bool) -> Result<(), EngineError> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        let families = FAMILIES.iter().map(|family| self.family(*family)).collect::<Result<Vec<_>, _>>()?;
        self.unflushed.store(0, Ordering::Relaxed);
        self.db.flush_cfs_opt(&families, &options)?;
        Ok(())
    }

    /// The same reading for a long way, which must not drive out what other readers need.
    fn walking(&self, mut options: ReadOptions) -> ReadOptions {
        options.fill_cache(false);
        options.set_readahead_size(readahead(self.home.memory));
        options
    }

    fn scan_with(
        &self,
        mut options: ReadOptions,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        match to {
            Bound::Excluded(key) => options.set_iterate_upper_bound(key),
            Bound::Included(key) => options.set_iterate_upper_bound([key, b"\0"].concat()),
            Bound::Unbounded => {}
        }
        // The smallest key after an excluded one is that key and a zero byte.
        let start = match from {
            Bound::Included(key) => key.to_vec(),
            Bound::Excluded(key) => [key, b"\0"].concat(),
            Bound::Unbounded => Vec::new(),
        };
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        iterator.seek(&start);
        while let Some((key, value)) = iterator.item() {
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status()?;
        Ok(())
    }

    /// The first and the last key of a family.
    fn ends(&self, family: Family) -> Result<Option<Ends>, EngineError> {
        let mut iterator = self.db.raw_iterator_cf(self.family(family)?);
        iterator.seek_to_first();
        let first = iterator.key().map(<[u8]>::to_vec);
        iterator.seek_to_last();
        let last = iterator.key().map(<[u8]>::to_vec);
        iterator.status()?;
        Ok(first.zip(last))
    }

    /// Bytes that the keys from the first up to the second take on disk, about.
    fn bytes_between(&self, family: Family, from: &[u8], to: &[u8]) -> Result<u64, EngineError> {
        let ranges = [rocksdb::Range::new(from, to)];
        Ok(self.db.get_approximate_sizes_cf(self.family(family)?, &ranges).first().copied().unwrap_or(0))
    }

    fn property(&self, family: Family, name: &str) -> Result<u64, EngineError> {
        Ok(self.db.property_int_value_cf(self.family(family)?, name)?.unwrap_or(0))
    }

    /// Compacts a whole family. RocksDB's call for that returns nothing, so what may have failed is looked for where it
    /// leaves a trace. What began by itself meanwhile and failed does so, too, and is as bad.
    fn compact(&self, family: Family, options: &CompactOptions) -> Result<(), EngineError> {
        let failed_before = self.failed_jobs()?;
        self.db.compact_range_cf_opt(self.family(family)?, None::<&[u8]>, None::<&[u8]>, options);
        let reason = match self.lasting_failure() {
            Some(error) => EngineError::from(error).0,
            None if self.failed_jobs()? > failed_before => format!("see {}", self.directory.join("LOG").display()),
            None => return Ok(()),
        };
        Err(EngineError(format!("compaction of the family {:?} failed: {reason}", family_name(family))))
    }

    /// How many flushes and compactions have failed since this was opened.
    fn failed_jobs(&self) -> Result<u64, EngineError> {
        // All are counted at the family that RocksDB itself adds.
        Ok(self.db.property_int_value(properties::BACKGROUND_ERRORS)?.unwrap_or(0))
    }

    /// What RocksDB failed with and has not recovered from; it may then begin nothing more that could fail and count.
    fn lasting_failure(&self) -> Option<rocksdb::Error> {
        let mut options = WaitForCompactOptions::default();
        options.set_timeout(1); // nothing is waited for
        self.db.wait_for_compact(&options).err().filter(|error| error.kind() != ErrorKind::TimedOut)
    }
}

impl Engine for RocksEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.db.get_pinned_cf(self.family(family)?, key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn multi_get(&self, family: Family, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let values = self.db.batched_multi_get_cf(self.family(family)?, keys, false);
        values.into_iter().map(|value| Ok(value?.map(|value| Bytes::copy_from_slice(&value)))).collect()
    }

    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        self.scan_with(ReadOptions::default(), family, from, to, visit)
    }

    fn walk(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        self.scan_with(self.walking(ReadOptions::default()), family, from, to, visit)
    }

    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut writes = WriteBatch::default();
        let mut families = [None; FAMILIES.len()];
        let mut handle = |family: Family| -> Result<&ColumnFamily, EngineError> {
            match families[family as usize] {
                Some(known) => Ok(known),
                None => Ok(*families[family as usize].insert(self.family(family)?)),
            }
        };
        for operation in &batch.operations {
            match operation {
                BatchOperation::Put(family, key, value) => writes.put_cf(handle(*family)?, key, value),
                BatchOperation::Delete(family, key) => writes.delete_cf(handle(*family)?, key),
                BatchOperation::DeleteRange(family, from, to) => writes.delete_range_cf(handle(*family)?, from, to),
            }
        }
        let bytes = writes.size_in_bytes() as u64;
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(writes, &options)?;
        self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.flush_with(true)
    }

    fn begin_flush(&self) -> Result<(), EngineError> {
        self.flush_with(false)
    }

    fn is_flushing(&self) -> Result<bool, EngineError> {
        for family in FAMILIES {
            if self.property(family, "rocksdb.num-immutable-mem-table")? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        Ok(Box::new(RocksView { engine: self, snapshot: self.db.snapshot() }))
    }

    fn cuts(&self, family: Family, parts: usize) -> Result<Vec<Bytes>, EngineError> {
        let Some((first, last)) = self.ends(family)? else { return Ok(Vec::new()) };
        let whole = self.bytes_between(family, &first, &last)?;
        if whole < CUT_BYTES_MIN {
            return Ok(Vec::new());
        }
        let mut cuts: Vec<Bytes> = Vec::new();
        for part in 1..parts as u64 {
            let wanted = whole / parts as u64 * part;
            let (mut low, mut high) = (first.clone(), last.clone());
            for _ in 0..CUT_STEPS {
                let middle = middle(&low, &high);
                if middle <= low || middle >= high {
                    break;
                }
                if self.bytes_between(family, &first, &middle)? < wanted { low = middle } else { high = middle }
            }
            if cuts.last().is_none_or(|cut| *cut < high) {
                cuts.push(high.into());
            }
        }
        Ok(cuts)
    }

    fn checkpoint(&self) -> Result<Arc<dyn Checkpoint>, EngineError> {
        // With the log off, what is not flushed would not be in it.
        self.flush_with(true)?;
        fs::create_dir_all(&self.checkpoints).map_err(|error| failed("create", &self.checkpoints, &error))?;
        let directory = loop {
            let number = self.checkpoint_count.fetch_add(1, Ordering::Relaxed);
            let directory = self.checkpoints.join(format!("{number:06}"));
            if !directory.exists() {
                break directory;
            }
        };
        rocksdb::checkpoint::Checkpoint::new(&self.db)?.create_checkpoint(&directory)?;
        // From here on it is removed whatever happens.
        let mut checkpoint = RocksCheckpoint { directory, files: Vec::new(), checksums: self.checksums.clone() };
        checkpoint.find_files()?;
        let is_there = |name: &String| checkpoint.files.iter().any(|(file, _)| file == name);
        self.checksums.lock().retain(|name, _| is_there(name));
        Ok(Arc::new(checkpoint))
    }

    fn declare_format(&self, format: u32) -> Result<(), EngineError> {
        let declared = fs::read_to_string(self.home.root.join(FORMAT));
        if declared.is_ok_and(|text| text.trim().parse::<u32>() == Ok(format)) {
            return Ok(());
        }
        self.home.put_number(FORMAT, u64::from(format))
    }

    fn reclaim(&self) -> Result<(), EngineError> {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        for family in FAMILIES {
            self.compact(family, &options)?;
        }
        *self.size_of_files.lock() = None;
        Ok(())
    }

    fn retire(&self) {
        // Otherwise it could make files in a folder that is being removed.
        self.db.cancel_all_background_work(true);
    }

    fn size_bytes(&self) -> u64 {
        let mut known = self.size_of_files.lock();
        let files = match *known {
            Some((found, size)) if found.elapsed() < SIZE_LIFETIME => size,
            _ => {
                let size = directory_bytes(&self.directory);
                *known = Some((Instant::now(), size));
                size
            }
        };
        files + self.unflushed_bytes()
    }
}

/// A key in the middle between two, as if keys were numbers; not between them where there is none so short.
fn middle(low: &[u8], high: &[u8]) -> Vec<u8> {
    let shared = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut digits = [0; 8];
        let rest = &key[shared..];
        let len = rest.len().min(digits.len());
        digits[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(digits)
    };
    let middle = u64::midpoint(number(low), number(high));
    [&low[..shared], &middle.to_be_bytes()[..]].concat()
}

/// What RocksDB keeps readable of one moment.
struct RocksView<'a> {
    engine: &'a RocksEngine,
    snapshot: rocksdb::Snapshot<'a>,
}

impl RocksView<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl View for RocksView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.engine.db.get_pinned_cf_opt(self.engine.family(family)?, key, &self.options())?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        self.engine.scan_with(self.engine.walking(self.options()), family, from, to, visit)
    }
}

/// Bytes of the files of a folder; what vanishes meanwhile counts nothing.
fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Hard links to the files of one moment.
struct RocksCheckpoint {
    directory: PathBuf,
    files: Vec<(String, u64)>,
    checksums: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl RocksCheckpoint {
    fn find_files(&mut self) -> Result<(), EngineError> {
        for entry in fs::read_dir(&self.directory).map_err(|error| failed("list", &self.directory, &error))? {
            let entry = entry.map_err(|error| failed("list", &self.directory, &error))?;
            let size = entry.metadata().map_err(|error| failed("stat", &entry.path(), &error))?.len();
            self.files.push((entry.file_name().to_string_lossy().into_owned(), size));
        }
        self.files.sort();
        Ok(())
    }
}

impl Checkpoint for RocksCheckpoint {
    fn files(&self) -> Vec<(String, u64)> {
        self.files.clone()
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, EngineError> {
        use std::os::unix::fs::FileExt;
        let path = self.directory.join(file);
        let read = || -> io::Result<Vec<u8>> {
            let open = fs::File::open(&path)?;
            let mut data = vec![0; len];
            let mut filled = 0;
            while filled < len {
                match open.read_at(&mut data[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            data.truncate(filled);
            Ok(data)
        };
        Ok(read().map_err(|error| failed("read", &path, &error))?.into())
    }

    fn known_checksum(&self, file: &str) -> Option<u64> {
        self.checksums.lock().get(file).copied()
    }

    fn learn_checksum(&self, file: &str, checksum: u64) {
        // The others have one name in every checkpoint, and another content.
        if file.ends_with(IMMUTABLE) {
            self.checksums.lock().insert(file.to_owned(), checksum);
        }
    }
}

impl Drop for RocksCheckpoint {
    fn drop(&mut self) {
        // Left over, it is removed at the next open.
        fs::remove_dir_all(&self.directory).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &Arc<dyn Engine>, family: Family, key: &'static str, value: &'static str) {
        let mut batch = Batch::default();
        batch.put(family, key, value);
        engine.write(batch).unwrap();
    }

    fn keys(engine: &Arc<dyn Engine>, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Vec<String> {
        let mut found = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            found.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        };
        engine.scan(Family::Revisions, from, to, &mut visit).unwrap();
        found
    }

    #[test]
    fn what_is_flushed_is_there_after_reopening() {
        let root = tempfile::tempdir().unwrap();
        let home = RocksHome::new(root.path().join("db"));
        let engine = home.open().unwrap();
        put(&engine, Family::Meta, "k", "v");
        put(&engine, Family::Revisions, "a", "1");
        assert!(engine.unflushed_bytes() > 0);
        engine.flush().unwrap();
        assert_eq!(engine.unflushed_bytes(), 0);
        drop(engine);
        let engine = home.open().unwrap();
        assert_eq!(engine.get(Family::Meta, b"k").unwrap().unwrap(), "v");
        assert_eq!(engine.get(Family::Index, b"k").unwrap(), None);
        let keys = [Bytes::from("a"), Bytes::from("b")];
        assert_eq!(engine.multi_get(Family::Revisions, &keys).unwrap(), [Some(Bytes::from("1")), None]);
    }

    #[test]
    fn a_scan_keeps_to_its_bounds() {
        let root = tempfile::tempdir().unwrap();
        let engine = RocksHome::new(root.path()).open().unwrap();
        for key in ["a", "b", "c", "d"] {
            put(&engine, Family::Revisions, key, "");
        }
        assert_eq!(keys(&engine, Bound::Unbounded, Bound::Unbounded), ["a", "b", "c", "d"]);
        assert_eq!(keys(&engine, Bound::Excluded(b"a"), Bound::Included(b"c")), ["b", "c"]);
        assert_eq!(keys(&engine, Bound::Included(b"b"), Bound::Excluded(b"d")), ["b", "c"]);
        let mut batch = Batch::default();
        batch.delete_range(Family::Revisions, "b", "d");
        batch.delete(Family::Revisions, "a");
        engine.write(batch).unwrap();
        assert_eq!(keys(&engine, Bound::Unbounded, Bound::Unbounded), ["d"]);
    }

    #[test]
    fn a_family_is_cut_into_parts_of_about_equal_size() {
        let root = tempfile::tempdir().unwrap();
        let engine = RocksHome::new(root.path()).open().unwrap();
        assert!(engine.cuts(Family::Index, 4).unwrap().is_empty(), "there is nothing");
        let mut batch = Batch::default();
        for number in 0..40_000u64 {
            // What repeats would be compressed away.
            let value = Checksum::of(&number.to_be_bytes()).to_be_bytes();
            batch.put(Family::Index, format!("/registry/pods/{number:016}"), value.repeat(2));
        }
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        let cuts = engine.cuts(Family::Index, 4).unwrap();
        assert_eq!(cuts.len(), 3);
        let mut counts = [0_usize; 4];
        let mut visit = |key: &[u8], _: &[u8]| {
            counts[cuts.iter().filter(|cut| ***cut <= *key).count()] += 1;
            ControlFlow::Continue(())
        };
        engine.scan(Family::Index, Bound::Unbounded, Bound::Unbounded, &mut visit).unwrap();
        assert_eq!(counts.iter().sum::<usize>(), 40_000);
        assert!(counts.iter().all(|count| (7_000..13_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_middle_of_two_keys_is_between_them() {
        assert_eq!(middle(b"a", b"c"), b"b\0\0\0\0\0\0\0");
        let pairs: [(&[u8], &[u8]); 4] = [(b"key/1", b"key/2"), (b"", b"\xff"), (b"k", b"k/9"), (b"k1", b"k10000")];
        for (low, high) in pairs {
            let middle = middle(low, high);
            assert!(low < &middle[..] && &middle[..] < high, "{low:?} {middle:?} {high:?}");
        }
        assert!(middle(b"k", b"k\0") >= b"k\0".to_vec(), "there is none");
    }

    /// Sends a file; its checksum.
    fn copy_file(checkpoint: &dyn Checkpoint, staging: &mut dyn Staging, name: &str, size: u64) -> u64 {
        let (mut offset, mut checksum) = (0, Checksum::default());
        loop {
            let data = checkpoint.read(name, offset, 1000).unwrap();
            staging.write(name, offset, &data).unwrap();
            checksum.add(&data);
            offset += data.len() as u64;
            if offset >= size {
                break;
            }
        }
        staging.finish(name, checksum.value()).unwrap();
        checksum.value()
    }

    fn copy(checkpoint: &dyn Checkpoint, staging: &mut dyn Staging) {
        for (name, size) in checkpoint.files() {
            copy_file(checkpoint, staging, &name, size);
        }
    }

    #[test]
    fn a_checkpoint_replaces_the_state_of_another_home_and_only_once_it_is_whole() {
        let (from_root, to_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = RocksHome::new(from_root.path()).open().unwrap();
        put(&from, Family::Revisions, "new", "1");
        let checkpoint = from.checkpoint().unwrap();
        put(&from, Family::Revisions, "later", "1");

        let home = RocksHome::new(to_root.path());
        let old = home.open().unwrap();
        put(&old, Family::Revisions, "old", "1");
        old.flush().unwrap();
        drop(home.stage().unwrap()); // given up: the old state stays
        assert_eq!(keys(&old, Bound::Unbounded, Bound::Unbounded), ["old"]);

        let mut staging = home.stage().unwrap();
        copy(&*checkpoint, &mut *staging);
        drop(old);
        let new = staging.commit(Batch::default()).unwrap();
        assert_eq!(keys(&new, Bound::Unbounded, Bound::Unbounded), ["new"]);
        drop(new);
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), ["new"]);
    }

    fn copy_folder(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            if path.is_dir() {
                fs::create_dir(&to).unwrap();
                copy_folder(&path, &to);
            } else {
                fs::copy(path, to).unwrap();
            }
        }
    }

    #[test]
    fn what_belongs_to_the_receiver_wins_over_what_was_received() {
        let (from_root, to_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = RocksHome::new(from_root.path()).open().unwrap();
        put(&from, Family::Meta, "identity", "sender");
        put(&from, Family::Revisions, "new", "1");
        let home = RocksHome::new(to_root.path());
        drop(home.open().unwrap());
        let mut staging = home.stage().unwrap();
        copy(&*from.checkpoint().unwrap(), &mut *staging);
        let mut own = Batch::default();
        own.put(Family::Meta, "identity", "receiver");
        let engine = staging.commit(own).unwrap();
        let identity = |engine: &Arc<dyn Engine>| engine.get(Family::Meta, b"identity").unwrap().unwrap();
        assert_eq!(identity(&engine), "receiver");
        // What the files hold while it is open is what a crash leaves.
        let crashed = tempfile::tempdir().unwrap();
        copy_folder(to_root.path(), crashed.path());
        let engine = RocksHome::new(crashed.path()).open().unwrap();
        assert_eq!(identity(&engine), "receiver");
        assert_eq!(keys(&engine, Bound::Unbounded, Bound::Unbounded), ["new"]);
    }

    /// A home with one flushed key, and the names of its folders.
    fn home_with_state(root: &Path) -> RocksHome {
        let home = RocksHome::new(root.join("member").join("db"));
        let engine = home.open().unwrap();
        put(&engine, Family::Revisions, "old", "1");
        engine.flush().unwrap();
        home
    }

    fn folders(home: &RocksHome) -> Vec<String> {
        let mut names: Vec<String> = home
            .folders()
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_crash_before_the_switch_leaves_the_old_state() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let mut staging = home.stage().unwrap();
        staging.write("MANIFEST-000001", 0, b"half").unwrap();
        // The process dies: nothing is tidied up. What is being received is a folder of its own until it is whole.
        std::mem::forget(staging);
        fs::create_dir(home.generation(2)).unwrap();
        fs::write(home.generation(2).join("CURRENT"), "MANIFEST-000001\n").unwrap();
        fs::write(home.root.join("CURRENT.new"), "2\n").unwrap();
        assert_eq!(folders(&home), ["000001", "000002", "incoming"]);
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), ["old"]);
        assert_eq!(folders(&home), ["000001", "incoming"]);
    }

    /// A store with several files, and one without anything.
    fn several_files_and_a_receiver(root: &Path) -> (Arc<dyn Engine>, RocksHome) {
        let from = RocksHome::new(root.join("from")).open().unwrap();
        for key in ["a", "b"] {
            put(&from, Family::Revisions, key, "1");
            from.flush().unwrap();
        }
        let home = RocksHome::new(root.join("to"));
        drop(home.open().unwrap());
        (from, home)
    }

    #[test]
    fn what_was_received_whole_is_there_after_a_crash_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let (from, home) = several_files_and_a_receiver(root.path());
        let checkpoint = from.checkpoint().unwrap();
        let files = checkpoint.files();
        assert!(files.len() > 4, "{files:?}");
        let mut staging = home.stage().unwrap();
        for (name, size) in &files[..2] {
            copy_file(&*checkpoint, &mut *staging, name, *size);
        }
        staging.write(&files[2].0, 0, b"half of it").unwrap();
        // One comes after the other, and none twice.
        assert!(staging.write(&files[3].0, 0, b"x").is_err());
        assert!(staging.write(&files[0].0, 0, b"x").is_err());
        assert!(staging.finish(&files[3].0, 0).is_err());
        let whole = staging.whole();
        std::mem::forget(staging);

        // A line that was not written to its end.
        let list = home.root.join(INCOMING).join(RECEIVED);
        let mut text = fs::read_to_string(&list).unwrap();
        assert_eq!(text.lines().count(), 2);
        text.push_str(&received_line(&StagedFile { name: files[2].0.clone(), size: 10, checksum: 7 })[..20]);
        fs::write(&list, text).unwrap();
        drop(home.open().unwrap());
        let mut staging = home.stage().unwrap();
        assert_eq!(staging.whole(), whole);
        assert!(!home.root.join(INCOMING).join(FILES).join(&files[2].0).exists(), "the half one is removed");
        for (name, _) in &files[..2] {
            assert!(staging.verify(name).unwrap(), "{name}");
        }
        // The rest, and it is a store.
        for (name, size) in &files[2..] {
            copy_file(&*checkpoint, &mut *staging, name, *size);
        }
        let new = staging.commit(Batch::default()).unwrap();
        assert_eq!(keys(&new, Bound::Unbounded, Bound::Unbounded), ["a", "b"]);
        assert_eq!(folders(&home), ["000002"]);
        assert!(home.stage().unwrap().whole().is_empty(), "what was installed is staged no more");
    }

    #[test]
    fn a_staged_file_that_rots_or_vanishes_or_is_of_no_use_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (from, home) = several_files_and_a_receiver(root.path());
        let checkpoint = from.checkpoint().unwrap();
        let mut staging = home.stage().unwrap();
        copy(&*checkpoint, &mut *staging);
        let mut files: Vec<String> = staging.whole().into_iter().map(|file| file.name).collect();
        let path = |name: &String| home.root.join(INCOMING).join(FILES).join(name);
        let rotten = files.remove(files.iter().position(|name| fs::metadata(path(name)).unwrap().len() > 0).unwrap());
        let mut content = fs::read(path(&rotten)).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(path(&rotten), content).unwrap();
        assert!(!staging.verify(&rotten).unwrap());
        assert!(!path(&rotten).exists() && staging.verify(&files[0]).unwrap());
        assert!(!staging.verify("absent").unwrap());
        fs::remove_file(path(&files[0])).unwrap();
        drop(staging);
        let mut staging = home.stage().unwrap();
        let names = |staging: &dyn Staging| staging.whole().into_iter().map(|file| file.name).collect::<Vec<_>>();
        assert_eq!(names(&*staging), files[1..]);
        staging.keep_only(&files[2..3]).unwrap();
        assert_eq!(names(&*staging), files[2..3]);
        assert!(!path(&files[1]).exists() && path(&files[2]).exists());
        drop(staging);
        assert_eq!(names(&*home.stage().unwrap()), files[2..3]);
        assert!(home.unstage().unwrap() && !home.unstage().unwrap());
        assert_eq!(names(&*home.stage().unwrap()), [""; 0]);
    }

    #[test]
    fn files_of_two_checkpoints_are_the_same_as_far_as_nothing_was_written() {
        let root = tempfile::tempdir().unwrap();
        let (from, _) = several_files_and_a_receiver(root.path());
        let first = from.checkpoint().unwrap();
        let tables = |checkpoint: &dyn Checkpoint| -> Vec<String> {
            checkpoint.files().into_iter().map(|(name, _)| name).filter(|name| name.ends_with(IMMUTABLE)).collect()
        };
        for (name, size) in first.files() {
            assert_eq!(first.known_checksum(&name), None);
            first.learn_checksum(&name, Checksum::of(&first.read(&name, 0, size as usize).unwrap()));
        }
        put(&from, Family::Revisions, "c", "1");
        let second = from.checkpoint().unwrap();
        let kept: Vec<String> = tables(&*second).into_iter().filter(|name| tables(&*first).contains(name)).collect();
        assert!(kept.len() >= 2, "{kept:?}");
        for name in kept {
            let content = second.read(&name, 0, usize::try_from(size_of(&*second, &name)).unwrap()).unwrap();
            assert_eq!(second.known_checksum(&name), Some(Checksum::of(&content)), "{name}");
        }
        assert_eq!(second.known_checksum("CURRENT"), None, "each checkpoint has its own");
    }

    fn size_of(checkpoint: &dyn Checkpoint, name: &str) -> u64 {
        checkpoint.files().into_iter().find(|(file, _)| file == name).unwrap().1
    }

    #[test]
    fn a_crash_after_the_switch_leaves_the_new_state() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let second = RocksEngine::open(home.clone(), 2).unwrap();
        drop(second);
        home.set_current(2).unwrap();
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), Vec::<String>::new());
        assert_eq!(folders(&home), ["000002"]);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_opened_leaves_the_old_state() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let mut staging = home.stage().unwrap();
        staging.write("CURRENT", 0, b"MANIFEST-000009\n").unwrap();
        staging.finish("CURRENT", Checksum::of(b"MANIFEST-000009\n")).unwrap();
        assert!(staging.commit(Batch::default()).is_err());
        assert_eq!(folders(&home), ["000001"], "nothing of it is left to go on with");
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), ["old"]);
        let mut staging = home.stage().unwrap();
        staging.write("CURRENT", 0, b"MANIFEST").unwrap();
        assert!(staging.commit(Batch::default()).is_err(), "a file is not whole");
    }

    #[test]
    fn a_home_that_does_not_say_which_generation_counts_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let current = home.root.join(CURRENT);
        for text in ["x\n", "", "2\n", "-1\n"] {
            fs::write(&current, text).unwrap();
            assert!(home.open().is_err(), "{text:?}");
        }
        fs::remove_file(&current).unwrap();
        let error = home.open().err().unwrap();
        assert!(error.to_string().contains("CURRENT is missing"), "{error}");
        fs::write(&current, "1\n").unwrap();
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), ["old"]);
    }

    /// Every file below a folder, with its content.
    fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(contents(&path));
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        found
    }

    #[test]
    fn a_format_that_is_not_known_is_refused_and_nothing_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let newer = layout::FORMAT + 1;
        home.open().unwrap().declare_format(newer).unwrap();
        // A crash left this behind, which an open removes.
        fs::create_dir(home.root.join("000002")).unwrap();
        fs::write(home.root.join("000002").join("half"), "").unwrap();
        let before = contents(root.path());
        let error = home.open().err().unwrap().to_string();
        assert!(error.contains(&format!("format {newer}")), "{error}");
        assert!(error.contains(&format!("knows {} at most", layout::FORMAT)), "{error}");
        assert!(error.contains(&home.root.display().to_string()), "{error}");
        assert_eq!(contents(root.path()), before);
        for text in ["", "one\n", "-1\n"] {
            fs::write(home.root.join(FORMAT), text).unwrap();
            let error = home.open().err().unwrap().to_string();
            assert!(error.contains("names no format"), "{error}");
        }
        // As of a release that did not declare it.
        fs::remove_file(home.root.join(FORMAT)).unwrap();
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), ["old"]);
    }

    #[test]
    fn a_format_that_is_declared_is_the_one_that_counts() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let engine = home.open().unwrap();
        for format in [layout::FIRST_FORMAT, layout::FORMAT, layout::FORMAT] {
            engine.declare_format(format).unwrap();
            assert_eq!(fs::read_to_string(home.root.join(FORMAT)).unwrap(), format!("{format}\n"));
        }
        drop(engine);
        assert_eq!(keys(&home.open().unwrap(), Bound::Unbounded, Bound::Unbounded), ["old"]);
    }

    #[test]
    fn a_checkpoint_is_as_of_its_moment_and_gives_its_space_back() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let engine = home.open().unwrap();
        let checkpoint = engine.checkpoint().unwrap();
        let directory = home.root.join("checkpoints").join("000000");
        assert!(directory.exists());
        let (name, size) = checkpoint.files().into_iter().find(|(name, _)| name.ends_with(".sst")).unwrap();
        assert_eq!(checkpoint.read(&name, size - 8, 100).unwrap().len(), 8);
        assert!(checkpoint.read("absent", 0, 1).is_err());
        drop(checkpoint);
        assert!(!directory.exists());
    }

    #[test]
    fn a_flush_in_the_background_ends() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let engine = home.open().unwrap();
        put(&engine, Family::Meta, "k", "v");
        engine.begin_flush().unwrap();
        assert_eq!(engine.unflushed_bytes(), 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        while engine.is_flushing().unwrap() {
            assert!(Instant::now() < deadline, "the flush does not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn with_more_memory_more_files_stay_open() {
        const MIB: usize = 1024 * 1024;
        for (blocks, files) in [(0, 128), (10 * MIB, 128), (100 * MIB, 400), (506 * MIB, 1_024), (usize::MAX, 1_024)] {
            assert_eq!(open_files(blocks), files, "{blocks} bytes of blocks");
        }
    }

    #[test]
    fn with_more_memory_walks_read_further_ahead() {
        const KIB: usize = 1024;
        for (blocks, ahead) in [(0, 16), (22 << 20, 16), (502 << 20, 125), (8 << 30, 1024)] {
            assert_eq!(readahead(Memory { blocks, unflushed: Some(1) }) / KIB, ahead, "{blocks} bytes of blocks");
        }
        assert_eq!(readahead(Memory { blocks: 1, unflushed: None }), WALK_READAHEAD_BYTES);
    }

    #[test]
    fn what_is_written_keeps_to_the_memory_that_there_is() {
        let root = tempfile::tempdir().unwrap();
        let home = RocksHome::new(root.path()).with_memory(4 << 20, Some(1 << 20));
        let number = home.create().unwrap();
        let engine = RocksEngine::open(home.clone(), number).unwrap();
        for i in 0..256u32 {
            let mut batch = Batch::default();
            batch.put(Family::Revisions, i.to_be_bytes().to_vec(), vec![7; 64 << 10]);
            batch.put(Family::Meta, "newest", i.to_be_bytes().to_vec());
            engine.write(batch).unwrap();
            let taken = engine.property(Family::Revisions, "rocksdb.cur-size-all-mem-tables").unwrap();
            assert!(taken < 4 << 20, "{taken} bytes after {i} writes");
        }
        assert_eq!(engine.get(Family::Meta, b"newest").unwrap().unwrap(), 255u32.to_be_bytes()[..]);
        for i in 0..256u32 {
            assert_eq!(engine.get(Family::Revisions, &i.to_be_bytes()).unwrap().unwrap().len(), 64 << 10);
        }
    }

    #[test]
    fn space_is_given_back() {
        let root = tempfile::tempdir().unwrap();
        let engine = RocksHome::new(root.path()).open().unwrap();
        let mut batch = Batch::default();
        for i in 0..2000u32 {
            let noise: Vec<u8> =
                (0..1000u32).map(|j| (i.wrapping_mul(2654435761) >> (j % 24)) as u8 ^ j as u8).collect();
            batch.put(Family::Revisions, i.to_be_bytes().to_vec(), noise);
        }
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        engine.reclaim().unwrap();
        let before = engine.size_bytes();
        let mut batch = Batch::default();
        for i in 0..2000u32 {
            batch.delete(Family::Revisions, i.to_be_bytes().to_vec());
        }
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        engine.reclaim().unwrap();
        let after = engine.size_bytes();
        assert!(after < before / 2, "{before} {after}");
    }

    /// RocksDB's own call for it returns nothing.
    #[test]
    fn space_that_cannot_be_given_back_is_told() {
        let root = tempfile::tempdir().unwrap();
        let home = home_with_state(root.path());
        let engine = home.open().unwrap();
        for entry in fs::read_dir(home.generation(1)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sst") {
                use std::os::unix::fs::FileExt;
                // The records are what a file begins with.
                fs::File::options().write(true).open(path).unwrap().write_all_at(&[0xff; 8], 0).unwrap();
            }
        }
        let error = engine.reclaim().unwrap_err().to_string();
        assert!(
            error.contains("compaction of the family \"revisions\" failed") && error.contains("Corruption"),
            "{error}"
        );
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let home = RocksHome::new(root.path());
        home.open().unwrap();
        let mut staging = home.stage().unwrap();
        for name in ["../x", "/etc/x", "..", "", "a\0b", "a\nb"] {
            assert!(staging.write(name, 0, b"x").is_err(), "{name:?}");
        }
    }
}
