//! Files of the operating system.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Disk, DiskFile};
use crate::error::{LogError, OpenError};
use crate::task::LogTask;

/// The file whose lock tells other processes that the directory is in use.
const LOCK_NAME: &str = "lock";

/// A directory of the file system, held against other processes while it lives.
pub struct RealDisk {
    directory: PathBuf,
    /// Whether anything is made durable.
    syncs: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl RealDisk {
    /// Opens a directory, creating it where there is none.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let name = directory.display().to_string();
        let failed = |operation, error: io::Error| OpenError::Log(LogError::io(operation, &name, &error));
        create_directory(directory).map_err(|error| failed("create", error))?;
        let lock = options().create(true).truncate(false).open(directory.join(LOCK_NAME));
        let lock = lock.map_err(|error| failed("open the lock file of", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), syncs: true, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(name)),
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }

    /// The same disk, on which nothing is synced any more: a crash of the machine loses what was acknowledged. What a
    /// process wrote is there after its own crash.
    #[must_use]
    pub fn without_sync(self) -> Self {
        Self { syncs: false, ..self }
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile { file, syncs: self.syncs })
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(options().create_new(true).open(self.directory.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(options().open(self.directory.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.directory.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.directory)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.syncs { sync_directory(&self.directory) } else { Ok(()) }
    }
}

/// A directory of the file system that is only looked at, whoever holds it. Nothing in it can be changed.
pub struct LookedAt {
    directory: PathBuf,
}

impl LookedAt {
    /// Takes a directory. It is not touched yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }
}

impl Disk for LookedAt {
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile { file: File::open(self.directory.join(name))?, syncs: true }))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.directory)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

struct RealFile {
    file: File,
    syncs: bool,
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            // Not every file system can; then filling the file finds out.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }
}

impl LogTask {
    /// Runs the owner on a thread of its own, which ends when the log is closed or has failed.
    pub fn spawn_thread(self) -> JoinHandle<()> {
        let Self { writer, preparer } = self;
        spawn("raft-log", move || {
            let preparer = spawn("raft-log-next", move || block_on(preparer.run()));
            block_on(writer.run());
            // The writer is gone, so the preparer ends; its panic is this thread's.
            if let Err(panic) = preparer.join() {
                std::panic::resume_unwind(panic);
            }
        })
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.to_owned()).spawn(run).expect("the system has room for a thread")
}

/// A real disk never asks to wait, so no timer is needed.
fn block_on(task: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers needs nothing of the system").block_on(task);
}

/// Nobody but the owner reads what members tell each other.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Creates a directory and its parents, and makes every new name durable.
fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.and_then(|()| sync_directory(parent)),
    }
}

/// The names of the files in a directory, sorted.
fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // A name that is not even text is none of ours.
            names.extend(entry.file_name().into_string().ok().filter(|name| name != LOCK_NAME));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
