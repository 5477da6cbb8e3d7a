//! Failing, full and slow disks.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_raft_log::disk::sim::{Fault, SimLatency, SimMedium};
use mainstay_raft_log::{LogError, OpenError, Options, RaftLog};
use parking_lot::Mutex;
use support::{Content, append, block_on, open, record, small};

/// After a failed write or sync everything fails, in order, and nothing is tried again.
#[test]
fn a_failed_write_or_sync_is_final() {
    for fault in [Fault::Write, Fault::Sync] {
        let medium = SimMedium::new(1);
        block_on(async {
            let running = open(&medium, small()).unwrap();
            append(&running.log, vec![record(1, 1, 10)]).await.unwrap();
            // The segment after this one is ready by now.
            tokio::task::yield_now().await;
            medium.fail_after(fault, 0);
            let ends = Arc::new(Mutex::new(Vec::new()));
            for index in 2..5 {
                let ends = Arc::clone(&ends);
                running
                    .log
                    .append(vec![record(index, 1, 10)], Box::new(move |result| ends.lock().push((index, result))));
            }
            let vote = running.log.save_vote(Bytes::from_static(b"v")).await.unwrap_err();
            let operations = medium.operations();
            assert!(matches!(&vote, LogError::Io { operation, file, .. }
                if *operation == (if fault == Fault::Write { "write" } else { "sync" }) && file == "0000000001.log"));
            assert_eq!(*ends.lock(), [2, 3, 4].map(|index| (index, Err(vote.clone()))));

            assert_eq!(running.log.failed(), Some(vote.clone()));
            assert_eq!(append(&running.log, vec![record(5, 1, 10)]).await, Err(vote.clone()));
            assert_eq!(running.log.truncate_after(None).await, Err(vote.clone()));
            assert_eq!(running.log.purge(1, 1).await, Err(vote.clone()));
            assert_eq!(running.log.save_vote(Bytes::new()).await, Err(vote.clone()));
            assert_eq!(running.log.save_committed(Bytes::new()).await, Err(vote.clone()));
            assert_eq!(running.log.read(1, 2, 10), Err(vote.clone()));
            assert_eq!(running.log.term_of(1), Err(vote.clone()));
            assert_eq!(running.log.vote(), None);
            running.log.room().await;
            running.log.close().await;
            running.task.await.unwrap();
            assert_eq!(medium.operations(), operations, "nothing is retried");
        });
    }
}

/// A system that failed to sync takes the pages for clean. Who opens the log again reads them, and
/// must not take them for durable.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again() {
    for seed in 0..20 {
        let medium = SimMedium::new(seed);
        block_on(async {
            let running = open(&medium, small()).unwrap();
            append(&running.log, vec![record(1, 1, 700)]).await.unwrap();
            tokio::task::yield_now().await;
            medium.fail_after(Fault::Sync, 0);
            append(&running.log, vec![record(2, 1, 700)]).await.unwrap_err();
            running.kill(&medium).await;

            let running = open(&medium, small()).unwrap();
            let seen = Content::of(&running.log);
            assert_eq!(seen.records.len(), 2, "the cache still has it");
            append(&running.log, vec![record(3, 1, 700)]).await.unwrap();
            let seen = Content::of(&running.log);
            running.kill(&medium).await;
            medium.crash();

            let running = open(&medium, small()).unwrap();
            assert_eq!(Content::of(&running.log), seen);
            running.kill(&medium).await;
        });
    }
}

/// Room for two segments: the third finds none while the second still takes records.
#[test]
fn a_full_disk_is_reported_before_it_hurts() {
    let medium = SimMedium::new(1);
    medium.set_capacity(Some(2 * 16 * 1024 + 8192));
    block_on(async {
        let running = open(&medium, small()).unwrap();
        let mut index = 0;
        while running.log.warning().is_none() {
            index += 1;
            append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(matches!(running.log.warning(), Some(LogError::DiskFull(_))), "{:?}", running.log.warning());
        assert!(running.log.failed().is_none());
        // It goes on for nearly a segment.
        let warned = index;
        let failed = loop {
            index += 1;
            if let Err(error) = append(&running.log, vec![record(index, 1, 900)]).await {
                break error;
            }
        };
        assert!(index - warned > 8, "{warned} to {index}");
        assert!(matches!(failed, LogError::DiskFull(_)), "{failed}");
        assert_eq!(
            failed.to_string(),
            "the disk is full: no room for the raft log's next segment: failed to allocate unfinished: no storage space"
        );
        running.task.await.unwrap();
        assert_eq!(running.log.failed(), Some(failed));

        // With room it opens and goes on.
        medium.set_capacity(None);
        let running = open(&medium, small()).unwrap();
        assert_eq!(running.log.last(), Some((index - 1, 1)));
        append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
        running.kill(&medium).await;
    });
}

#[test]
fn room_that_comes_in_time_is_used() {
    // A purged segment makes room, or somebody else does.
    for purged in [true, false] {
        let medium = SimMedium::new(1);
        medium.set_capacity(Some(2 * 16 * 1024 + 8192));
        block_on(async {
            let running = open(&medium, small()).unwrap();
            let mut index = 0;
            while running.log.warning().is_none() {
                index += 1;
                append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
                tokio::task::yield_now().await;
            }
            if purged {
                running.log.purge(index - 1, 1).await.unwrap();
                tokio::task::yield_now().await;
                assert_eq!(running.log.warning(), None);
            } else {
                medium.set_capacity(None);
            }
            for next in index + 1..index + 20 {
                append(&running.log, vec![record(next, 1, 900)]).await.unwrap();
            }
            running.kill(&medium).await;
        });
    }
}

#[test]
fn a_full_disk_at_the_first_start_is_named() {
    let medium = SimMedium::new(1);
    medium.set_capacity(Some(10_000));
    let error = block_on(async { open(&medium, small()).map(|_| ()).unwrap_err() });
    assert!(matches!(error, OpenError::Log(LogError::DiskFull(_))), "{error}");
    medium.set_capacity(None);
    block_on(async { open(&medium, small()).unwrap().kill(&medium).await });
}

/// A segment that cannot be made ready for another reason than room stops the log at once.
#[test]
fn a_failure_of_making_a_segment_ready_is_final() {
    let medium = SimMedium::new(1);
    block_on(async {
        let (log, task) = RaftLog::open(Arc::new(medium.mount()), small()).unwrap();
        let task = tokio::spawn(task.run());
        medium.fail_after(Fault::SyncDir, 0);
        // The first batch asks for the segment after its own.
        append(&log, vec![record(1, 1, 1)]).await.unwrap();
        task.await.unwrap();
        assert!(matches!(log.failed(), Some(LogError::Io { .. })), "{:?}", log.failed());
    });
}

/// Two segments are of no use any more and the first cannot be put aside: were the second one, it would
/// leave a gap that the next opening takes for damage.
#[test]
fn a_purged_segment_that_cannot_go_keeps_the_later_ones() {
    // Renamed into a spare, or removed.
    for keep_recycled in [2, 0] {
        let options = || Options { keep_recycled, ..small() };
        let medium = SimMedium::new(1);
        block_on(async {
            let running = open(&medium, options()).unwrap();
            for index in 1..=55 {
                append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
            }
            tokio::task::yield_now().await; // the next segment is ready
            medium.fail_after(Fault::Name, 0);
            // In the middle of the third segment.
            running.log.purge(25, 1).await.unwrap();
            tokio::task::yield_now().await;
            let failure = running.log.failed();
            assert!(matches!(&failure, Some(LogError::Io { file, .. }) if file == "0000000001.log"), "{failure:?}");
            running.kill(&medium).await;
            for crash in [false, true] {
                if crash {
                    medium.crash();
                }
                let running = open(&medium, options()).unwrap();
                let held = Content::of(&running.log);
                assert_eq!(held.purged, Some((25, 1)));
                assert_eq!(held.records, (26..=55).map(|index| (index, record(index, 1, 900))).collect());
                running.kill(&medium).await;
            }
        });
    }
}

#[test]
fn an_owner_that_is_gone_fails_everyone() {
    let medium = SimMedium::new(1);
    block_on(async {
        let (log, task) = RaftLog::open(Arc::new(medium.mount()), small()).unwrap();
        let (sender, done) = tokio::sync::oneshot::channel();
        log.append(vec![record(1, 1, 1)], Box::new(move |result| sender.send(result).unwrap()));
        drop(task);
        assert_eq!(done.await.unwrap(), Err(LogError::OwnerGone));
        assert_eq!(log.save_vote(Bytes::new()).await, Err(LogError::OwnerGone));
        log.close().await;
    });
}

#[test]
fn the_inbox_is_bounded() {
    let medium = SimMedium::new(1);
    block_on(async {
        let running = open(&medium, Options { inbox_bytes: 1000, ..small() }).unwrap();
        let log = &running.log;
        log.append(vec![record(1, 1, 2000)], Box::new(|result| result.unwrap()));
        let refused = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&refused);
        log.append(vec![record(2, 1, 1)], Box::new(move |result| *seen.lock() = Some(result)));
        assert_eq!(*refused.lock(), Some(Err(LogError::Busy)));
        assert_eq!(log.last(), Some((1, 1)), "a refusal changes nothing");
        log.save_vote(Bytes::from_static(b"small changes are taken")).await.unwrap();
        log.room().await;
        append(log, vec![record(2, 1, 1)]).await.unwrap();
        running.kill(&medium).await;
    });
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let medium = SimMedium::new(1);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        let log = &running.log;
        append(log, vec![record(5, 1, 1)]).await.unwrap();
        let gap = append(log, vec![record(7, 1, 1)]).await;
        assert_eq!(gap, Err(LogError::NotConsecutive { expected: 6, found: 7 }));
        let gap = append(log, vec![record(6, 1, 1), record(6, 1, 1)]).await;
        assert_eq!(gap, Err(LogError::NotConsecutive { expected: 7, found: 6 }));
        let large = append(log, vec![record(6, 1, 12_000)]).await;
        assert!(matches!(large, Err(LogError::TooLarge { bytes: 12_000, .. })));
        assert!(matches!(log.save_vote(vec![0; 1025].into()).await, Err(LogError::TooLarge { .. })));
        assert_eq!(log.last(), Some((5, 1)));
        // The largest that is taken fits, whatever else the segment begins with.
        let Err(LogError::TooLarge { limit, .. }) = large else { unreachable!() };
        log.save_vote(vec![1; 1024].into()).await.unwrap();
        log.save_committed(vec![1; 1024].into()).await.unwrap();
        for index in 6..10 {
            append(log, vec![record(index, 1, limit as usize)]).await.unwrap();
            log.save_committed(vec![index as u8; 1024].into()).await.unwrap();
        }
        log.close().await;
        assert_eq!(append(log, Vec::new()).await, Err(LogError::Closed));
        running.task.await.unwrap();
        medium.crash();
        let running = open(&medium, small()).unwrap();
        assert_eq!(running.log.last(), Some((9, 1)));
        assert_eq!(running.log.committed().unwrap(), vec![9; 1024], "a clean end keeps the last one");
        running.kill(&medium).await;
    });
}

#[test]
fn options_out_of_bounds_are_refused() {
    for options in [
        Options { segment_bytes: 5000, ..small() },
        Options { segment_bytes: 8192, ..small() },
        Options { segment_bytes: 2 << 30, ..small() },
        Options { inbox_bytes: 0, ..small() },
    ] {
        let opened = RaftLog::open(Arc::new(SimMedium::new(1).mount()), options);
        assert!(matches!(opened.map(|_| ()), Err(OpenError::BadOption(_))));
    }
}

/// While one sync runs the next batch gathers, and takes a single sync, too.
#[test]
fn all_that_waits_shares_one_sync() {
    let medium = SimMedium::new(1);
    let delay = |milliseconds| Duration::from_millis(milliseconds)..=Duration::from_millis(milliseconds);
    block_on(async {
        let running = open(&medium, Options { segment_bytes: 1 << 20, ..small() }).unwrap();
        append(&running.log, vec![record(1, 1, 1)]).await.unwrap();
        medium.set_latency(SimLatency { sync: delay(20), ..SimLatency::default() });
        let before = medium.operations();
        let begun = Instant::now();
        for index in 2..202 {
            running.log.append(vec![record(index, 1, 1)], Box::new(|result| result.unwrap()));
            if index == 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(running.log.read(1, 300, usize::MAX).unwrap().len(), 201, "readable at once");
        append(&running.log, Vec::new()).await.unwrap();
        assert_eq!(medium.operations() - before, 4, "two writes, two syncs");
        assert!(begun.elapsed() >= Duration::from_millis(40));
        running.kill(&medium).await;
    });
}

/// A crash within a stalled sync finds the batch unsynced.
#[test]
fn a_stalled_sync_has_not_happened_yet() {
    let medium = SimMedium::new(1);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        append(&running.log, vec![record(1, 1, 1)]).await.unwrap();
        medium.stall_next_sync(Duration::from_secs(3600));
        let stalled = append(&running.log, vec![record(2, 1, 1)]);
        assert!(tokio::time::timeout(Duration::from_millis(20), stalled).await.is_err());
        assert_eq!(medium.unsynced_sectors().len(), 1);
        running.task.abort();
        running.task.await.ok();
        medium.crash_keeping(&mut |_| false);
        let running = open(&medium, small()).unwrap();
        assert_eq!(running.log.last(), Some((1, 1)));
        running.kill(&medium).await;
    });
}
