//! The same log on real files.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_raft_log::disk::real::RealDisk;
use mainstay_raft_log::{Disk, Observer, OpenError, Options, RaftLog};
use support::{Content, append, block_on, record};

#[derive(Default)]
struct Counts {
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    prepared: AtomicU64,
    recycled: AtomicU64,
}

impl Observer for Counts {
    fn wrote(&self, bytes: u64, _took: Duration) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn synced(&self, _took: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    fn prepared(&self, recycled: bool, _took: Duration) {
        self.prepared.fetch_add(1, Ordering::Relaxed);
        self.recycled.fetch_add(u64::from(recycled), Ordering::Relaxed);
    }
}

#[test]
fn records_survive_on_real_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("member/wal");
    let counts = Arc::new(Counts::default());
    let options = Options {
        segment_bytes: 256 * 1024,
        cache_bytes: 64 * 1024,
        identity: 5,
        observer: Some(Arc::<Counts>::clone(&counts)),
        ..Options::default()
    };
    let mut held = Content::default();
    for life in 0..3u64 {
        let disk = Arc::new(RealDisk::open(&path).unwrap());
        let (log, task) = RaftLog::open(disk, options.clone()).unwrap();
        let thread = task.spawn_thread();
        assert_eq!(Content::of(&log), held);
        block_on(async {
            let mut next = log.last().map_or(1, |(last, _)| last + 1);
            for _ in 0..40 {
                for _ in 0..25 {
                    log.append(vec![record(next, life, 700)], Box::new(|result| result.unwrap()));
                    next += 1;
                }
                log.room().await;
            }
            append(&log, Vec::new()).await.unwrap();
            log.save_vote(Bytes::from(format!("vote{life:04}"))).await.unwrap();
            log.truncate_after(Some(next - 10)).await.unwrap();
            log.purge(next - 900, life).await.unwrap();
            held = Content::of(&log);
            log.close().await;
        });
        thread.join().unwrap();
    }
    assert!(counts.written_bytes.load(Ordering::Relaxed) > 3 * 1000 * 700);
    assert!(counts.syncs.load(Ordering::Relaxed) >= 3 * 4);
    assert!(counts.prepared.load(Ordering::Relaxed) > 3);
    assert!(counts.recycled.load(Ordering::Relaxed) > 0);
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("lock")), (0o700, 0o600));
}

/// A device takes no sync, nor does a directory that is gone: whoever asks for one is told.
#[test]
fn what_is_not_to_be_synced_is_not() {
    for syncs in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wal");
        let disk = RealDisk::open(&path).unwrap();
        let disk = if syncs { disk } else { disk.without_sync() };
        std::os::unix::fs::symlink("/dev/null", path.join("device")).unwrap();
        assert_eq!(Disk::open(&disk, "device").unwrap().sync().is_err(), syncs);
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(disk.sync_dir().is_err(), syncs);
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = RealDisk::open(directory.path()).unwrap();
    let error = RealDisk::open(directory.path()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse(_)));
    assert_eq!(
        error.to_string(),
        format!("data directory {} is in use by another process", directory.path().display())
    );
    drop(first);
    RealDisk::open(directory.path()).unwrap();
}

#[test]
fn a_place_that_is_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(RealDisk::open(&path).map(|_| ()), Err(OpenError::Log(_))));
}

/// How fast it is; run with `--release --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn speed() {
    let directory = tempfile::tempdir_in(std::env::var("SPEED_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let counts = Arc::new(Counts::default());
    let options = Options { observer: Some(Arc::<Counts>::clone(&counts)), ..Options::default() };
    let open = || {
        let begun = std::time::Instant::now();
        let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
        let (log, task) = RaftLog::open(disk, options.clone()).unwrap();
        (log, task.spawn_thread(), begun.elapsed())
    };
    let (log, thread, took) = open();
    println!("open an empty directory: {took:?}");
    block_on(async {
        let begun = std::time::Instant::now();
        for index in 1..=2000 {
            append(&log, vec![record(index, 1, 300)]).await.unwrap();
        }
        println!("one at a time: {:?} each", begun.elapsed() / 2000);
        let begun = std::time::Instant::now();
        let (first, last) = (2001, 2001 + 190_000 - 1);
        for index in first..=last {
            log.append(vec![record(index, 1, 300)], Box::new(|result| result.unwrap()));
        }
        append(&log, Vec::new()).await.unwrap();
        println!("{} at once: {:?}, {} syncs", last - first + 1, begun.elapsed(), counts.syncs.load(Ordering::Relaxed));
        log.close().await;
    });
    thread.join().unwrap();
    let bytes: u64 =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let (log, thread, took) = open();
    println!("open {} MiB: {took:?}, last {:?}", bytes >> 20, log.last());
    let begun = std::time::Instant::now();
    let mut next = 1;
    while next <= log.last().unwrap().0 {
        next += log.read(next, u64::MAX, 1 << 20).unwrap().len() as u64;
    }
    println!("read {next} records: {:?}", begun.elapsed());
    block_on(log.close());
    thread.join().unwrap();
}
