//! A disk in memory that forgets, tears, rots, fills up and stalls, all from one seed.

use std::io;
use std::sync::Arc;

use super::{Disk, DiskFile};

/// What survives a simulated crash: the medium that disks are mounted from, one at a time.
#[derive(Clone)]
pub struct SimMedium {
    _seed: u64,
}

impl SimMedium {
    /// Makes an empty medium; everything random on it follows from the seed.
    pub fn new(seed: u64) -> Self {
        Self { _seed: seed }
    }

    /// Gives access to the medium, and takes it from whoever had it before.
    pub fn mount(&self) -> SimDisk {
        SimDisk {}
    }

    /// Loses power: unsynced writes are lost, kept or torn, and the mounted disk is of no use any more.
    pub fn crash(&self) {}
}

/// A mounted [`SimMedium`].
pub struct SimDisk {}

impl Disk for SimDisk {
    fn create(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}
