//! What a disk was given to write, from /sys.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{major, minor, syncfs};

/// What the kernel counts in, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// The block device below a folder. It is counted as a whole: what others write meanwhile counts, too, and so
/// do the file system's journal and metadata, which no process is charged for.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Any folder of the file system.
    folder: PathBuf,
    /// The device's counters.
    stat: PathBuf,
}

impl Disk {
    /// The disk of a folder. `None` where there is none the kernel counts for: in memory, over a network, or
    /// where the file system is spread over several.
    pub fn of(folder: &Path) -> Option<Self> {
        let device = fs::metadata(folder).ok()?.dev();
        let stat = PathBuf::from(format!("/sys/dev/block/{}:{}/stat", major(device), minor(device)));
        stat.exists().then(|| Self { folder: folder.to_owned(), stat })
    }

    /// Bytes written since the machine was started. Writes out first what waits in memory: it counts for what
    /// came before.
    pub async fn written_bytes(&self) -> anyhow::Result<u64> {
        let Self { folder, stat } = self.clone();
        let count = move || -> io::Result<Option<u64>> {
            syncfs(File::open(folder)?)?;
            Ok(sectors_written(&fs::read_to_string(stat)?))
        };
        let sectors = tokio::task::spawn_blocking(count).await?.context("asking what the disk has written")?;
        Ok(sectors.context("the disk's counters are not as expected")? * SECTOR_BYTES)
    }
}

/// The seventh of the numbers.
fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_ascii_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn sectors_are_found_by_their_place() {
        let stat = " 2541554   195824 150170186  3517342  3520818   412968 345928464   802603        0   437316\n";
        assert_eq!(sectors_written(stat), Some(345_928_464));
        assert_eq!(sectors_written("1 2 3"), None);
    }

    #[tokio::test]
    async fn what_is_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in memory has no disk, and nothing can be shown.
        let Some(disk) = Disk::of(folder.path()) else { return };
        let before = disk.written_bytes().await.unwrap();
        let mut file = File::create(folder.path().join("file")).unwrap();
        file.write_all(&crate::keyspace::value(1, 0, 4 << 20)).unwrap();
        assert!(disk.written_bytes().await.unwrap() - before >= 4 << 20);
    }

    #[test]
    fn no_disk_is_no_error() {
        assert!(Disk::of(Path::new("/no/such/folder")).is_none());
        assert!(Disk::of(Path::new("/proc")).is_none());
    }
}
