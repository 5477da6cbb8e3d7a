//! A log file that is put aside when it is full: the rotation that etcd has from lumberjack.
//!
//! Where a line would make `etcd.log` larger than it may be, the file becomes `etcd-2026-11-21T09-00-00.000.log` and a
//! new one is begun. What was put aside is compressed where that is asked for, and removed where it is too much or too
//! old. That may take seconds, so that a thread of its own does it and no line waits.
//!
//! A rotation loses no line. Where the file cannot be put aside, it grows on; lumberjack drops lines then, and those
//! that are longer than a file may be.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::config::LogRotation;

/// When a file was put aside, in its name.
const TIME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// The end of the name of a compressed file.
const COMPRESSED: &str = ".gz";

/// The mode of the first log file; later ones have that of the one before.
const OWNER_ONLY: u32 = 0o600;

/// Tells the time; tests have their own.
type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The end of a log file, and what was put aside of it.
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    file: File,
    bytes: u64,
    /// Whether the file could not be put aside the last time; that is told once.
    stuck: bool,
    backups: Backups,
    cleaner: Cleaner,
    now: Clock,
}

impl RotatingFile {
    /// Opens the file, or makes it and its folder; what a former process left aside is cleared up.
    pub(super) fn open(path: &Path, rotation: LogRotation) -> io::Result<Self> {
        Self::open_with_clock(path, rotation, Arc::new(SystemTime::now))
    }

    fn open_with_clock(path: &Path, rotation: LogRotation, now: Clock) -> io::Result<Self> {
        let backups = Backups::of(path, rotation)?;
        fs::create_dir_all(&backups.folder)?;
        let file = append_to(path, OWNER_ONLY)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file and cannot be rotated"));
        }
        let cleaner = Cleaner::start(backups.clone(), Arc::clone(&now))?;
        cleaner.wake();
        let (path, max_bytes, bytes) = (path.to_owned(), rotation.max_bytes, metadata.len());
        Ok(Self { path, max_bytes, file, bytes, stuck: false, backups, cleaner, now })
    }

    /// Writes a line, whole and into one file.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let len = line.len() as u64;
        // A line that is longer than a file may be gets one to itself.
        if self.bytes > 0 && self.bytes.saturating_add(len) > self.max_bytes {
            match self.rotate() {
                Ok(()) => self.stuck = false,
                Err(error) if !self.stuck => {
                    self.stuck = true;
                    // Not into the log, which is being written.
                    let text = format!("{}: cannot rotate the log file, it grows on: {error}\n", self.path.display());
                    io::stderr().write_all(text.as_bytes()).ok();
                }
                Err(_) => {}
            }
        }
        self.file.write_all(line)?;
        self.bytes += len;
        Ok(())
    }

    /// Puts the file aside and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let old = match fs::metadata(&self.path) {
            Ok(old) => Some(old),
            // Somebody else has put it aside.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if old.is_some() {
            let backup = self.backups.path_at((self.now)())?;
            if backup.try_exists()? {
                // The second within a millisecond would replace the first; a later line will find another name.
                return Ok(());
            }
            fs::rename(&self.path, backup)?;
        }
        let file = append_to(&self.path, old.as_ref().map_or(OWNER_ONLY, mode))?;
        if let Some(old) = &old {
            keep_owner(&file, old);
        }
        // Not always zero: somebody else may have begun it meanwhile.
        self.bytes = file.metadata()?.len();
        self.file = file;
        self.cleaner.wake();
        Ok(())
    }
}

fn append_to(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o777
}

/// Gives a new file to who had the old one. Only root can give files away, and without that it is ours.
fn keep_owner(file: &File, old: &Metadata) {
    fchown(file, Some(old.uid()), Some(old.gid())).ok();
}

/// The files that were put aside, which are known by their names.
#[derive(Clone)]
struct Backups {
    folder: PathBuf,
    /// What stands before the time in a name: `etcd-`.
    prefix: String,
    /// What stands behind it: `.log`.
    suffix: String,
    zone: TimeZone,
    rotation: LogRotation,
}

impl Backups {
    fn of(path: &Path, rotation: LogRotation) -> io::Result<Self> {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not the name of a file"));
        };
        let (stem, suffix) = name.split_at(name.rfind('.').unwrap_or(name.len()));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self {
            folder: folder.to_owned(),
            prefix: format!("{stem}-"),
            suffix: suffix.to_owned(),
            zone: if rotation.local_time { TimeZone::system() } else { TimeZone::UTC },
            rotation,
        })
    }

    /// Where a file goes that is put aside at this time.
    fn path_at(&self, time: SystemTime) -> io::Result<PathBuf> {
        let time = Timestamp::try_from(time).map_err(io::Error::other)?;
        let time = self.zone.to_datetime(time).strftime(TIME_FORMAT).to_string();
        Ok(self.folder.join(format!("{}{time}{}", self.prefix, self.suffix)))
    }

    /// When a file was put aside; `None` where its name is none of ours.
    fn time_of(&self, name: &str) -> Option<Timestamp> {
        let rest = name.strip_prefix(self.prefix.as_str())?;
        let suffix = self.suffix.as_str();
        let plain = rest.strip_suffix(suffix);
        let compressed = rest.strip_suffix(COMPRESSED).and_then(|rest| rest.strip_suffix(suffix));
        let time = [plain, compressed].into_iter().flatten().find_map(parse_time)?;
        self.zone.to_timestamp(time).ok()
    }

    fn newest_first(&self) -> io::Result<Vec<(Timestamp, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(time) = self.time_of(&name)
                && entry.file_type()?.is_file()
            {
                found.push((time, name));
            }
        }
        found.sort_unstable();
        found.reverse();
        Ok(found)
    }

    /// Removes what is too much or too old, and compresses the rest if that is asked for. Goes on where something of
    /// that fails, and returns the first failure.
    fn clean_up(&self, now: SystemTime) -> io::Result<()> {
        let LogRotation { max_age, max_backups, compress, .. } = self.rotation;
        if max_age.is_none() && max_backups.is_none() && !compress {
            return Ok(());
        }
        let oldest = max_age.and_then(|age| now.checked_sub(age)).and_then(|time| Timestamp::try_from(time).ok());
        let mut result = Ok(());
        // With and without the ending of a compressed one it is the same file: a compression that was cut off
        // leaves both.
        let mut counted = BTreeSet::new();
        for (time, name) in self.newest_first()? {
            let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
            counted.insert(plain.to_owned());
            let too_much = max_backups.is_some_and(|max| counted.len() > max);
            let too_old = oldest.is_some_and(|oldest| time < oldest);
            let done = if too_much || too_old {
                fs::remove_file(self.folder.join(&name))
            } else if compress && plain == name {
                compress_file(&self.folder.join(&name))
            } else {
                Ok(())
            };
            result = result.and(done);
        }
        result
    }
}

/// Reads a time in the form in which it is written, and in no other.
fn parse_time(text: &str) -> Option<DateTime> {
    let time = DateTime::strptime(TIME_FORMAT, text).ok()?;
    (time.strftime(TIME_FORMAT).to_string() == text).then_some(time)
}

/// Puts a compressed file in the place of one.
fn compress_file(path: &Path) -> io::Result<()> {
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(COMPRESSED);
    let compressed = PathBuf::from(compressed);
    match write_compressed(path, &compressed) {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            fs::remove_file(&compressed).ok();
            Err(error)
        }
    }
}

fn write_compressed(path: &Path, compressed: &Path) -> io::Result<()> {
    let mut plain = File::open(path)?;
    let metadata = plain.metadata()?;
    // One that is there is half of one: the process ended over it.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode(&metadata)).open(compressed)?;
    keep_owner(&file, &metadata);
    let mut encoder = GzEncoder::new(file, Compression::default());
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish().map(drop)
}

/// The thread that clears up what was put aside. Dropping this waits for it.
struct Cleaner {
    /// `None` once it is to end.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    fn start(backups: Backups, now: Clock) -> io::Result<Self> {
        let (wake, woken) = mpsc::sync_channel(1);
        let clean_up = move || {
            for () in woken {
                if let Err(error) = backups.clean_up(now()) {
                    tracing::warn!(%error, "failed to clear up old log files");
                }
            }
        };
        let thread = thread::Builder::new().name("log-backups".to_owned()).spawn(clean_up)?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full means that it will look again in any case, and closed that it has panicked, which was logged.
            wake.try_send(()).ok();
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests;
