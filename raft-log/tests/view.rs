//! Looking at a log that somebody else has open.

#![cfg(not(madsim))] // it needs threads
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mainstay_raft_log::disk::real::{LookedAt, RealDisk};
use mainstay_raft_log::{LogError, LogView, Options, RaftLog, Record};
use support::{Content, append, block_on, record};

#[derive(Debug)]
struct Failed(#[expect(dead_code, reason = "shown where a test fails")] LogError);

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self(error)
    }
}

impl From<Infallible> for Failed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, cache_bytes: 4096, identity: 5, ..Options::default() }
}

fn look(path: &Path) -> (Option<Bytes>, Vec<Record>) {
    let view = LogView::open(&LookedAt::new(path)).unwrap();
    let mut records = Vec::new();
    view.records(|record| -> Result<(), Failed> {
        records.push(record);
        Ok(())
    })
    .unwrap();
    (view.committed(), records)
}

#[test]
fn a_view_shows_what_was_durable_while_it_is_written_on() {
    const LAST: u64 = 4_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wal");
    let disk = Arc::new(RealDisk::open(&path).unwrap());
    let (log, task) = RaftLog::open(disk, options()).unwrap();
    let thread = task.spawn_thread();
    let durable = Arc::new(AtomicU64::new(0));
    let writer = std::thread::spawn({
        let (log, durable) = (log.clone(), durable.clone());
        move || {
            block_on(async {
                let mut next = 1;
                while next <= LAST {
                    let end = next + 1 + next % 7;
                    let records = (next..end).map(|index| record(index, 1, 60 + index as usize % 900)).collect();
                    append(&log, records).await.unwrap();
                    durable.store(end - 1, Ordering::Release);
                    next = end;
                }
                log.save_committed(Bytes::from_static(b"so far")).await.unwrap();
            });
        }
    });
    let mut views = 0;
    loop {
        let at_least = durable.load(Ordering::Acquire);
        let (_, records) = look(&path);
        assert!(records.len() as u64 >= at_least, "{} of {at_least}", records.len());
        for (index, found) in (1..).zip(&records) {
            assert_eq!(*found, record(index, 1, 60 + index as usize % 900));
        }
        views += 1;
        if at_least >= LAST {
            break;
        }
    }
    assert!(views > 1);
    writer.join().unwrap();
    let held = Content::of(&log);
    let (committed, records) = look(&path);
    assert!(records.iter().eq(held.records.values()));
    // It is written with the next batch, at the latest when the log is closed.
    block_on(log.close());
    thread.join().unwrap();
    let (committed_at_the_end, _) = look(&path);
    assert!(committed.is_none_or(|committed| committed == "so far"));
    assert_eq!(committed_at_the_end, Some(Bytes::from_static(b"so far")));
}

#[test]
fn what_was_removed_and_what_is_torn_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert_eq!(look(path), (None, Vec::new()), "an empty directory is an empty log");
    let (log, task) = RaftLog::open(Arc::new(RealDisk::open(path).unwrap()), options()).unwrap();
    let thread = task.spawn_thread();
    block_on(async {
        append(&log, (1..=20).map(|index| record(index, 1, 100)).collect()).await.unwrap();
        log.truncate_after(Some(15)).await.unwrap();
        log.purge(3, 1).await.unwrap();
        append(&log, vec![record(16, 2, 3_000)]).await.unwrap();
    });
    let shown: Vec<_> = look(path).1.into_iter().map(|record| (record.index, record.term)).collect();
    let expected: Vec<_> = (4..=15).map(|index| (index, 1)).chain([(16, 2)]).collect();
    assert_eq!(shown, expected);

    // The last sector of the last batch is not there yet.
    let segment = path.join("0000000001.log");
    let bytes = std::fs::read(&segment).unwrap();
    let last = bytes.chunks(512).rposition(|sector| sector.iter().any(|byte| *byte != 0)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[0; 512], last as u64 * 512).unwrap();
    assert_eq!(look(path).1.len(), 12);
    file.write_all_at(&bytes[last * 512..][..512], last as u64 * 512).unwrap();
    assert_eq!(look(path).1.len(), 13);

    block_on(log.close());
    thread.join().unwrap();
}

#[test]
fn a_view_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in ["unfinished", "0000000001.spare"] {
        std::fs::write(path.join(name), b"left over").unwrap();
    }
    look(path);
    let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0000000001.spare", "unfinished"]);
    assert!(LogView::open(&LookedAt::new(&path.join("missing"))).is_err());
}
