//! Purged segments are written again, and what they held is never taken for new.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use mainstay_raft_log::Options;
use mainstay_raft_log::disk::sim::SimMedium;
use support::{Content, History, append, block_on, open, record, small};

fn names(medium: &SimMedium) -> Vec<String> {
    medium.files().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn purged_segments_become_spares_and_then_segments() {
    let medium = SimMedium::new(1);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        for index in 1..=60 {
            append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
        }
        assert_eq!(names(&medium), (1..=6).map(|sequence| format!("{sequence:010}.log")).collect::<Vec<_>>());
        // In the middle of the third segment: two are free. Five were full, so the mark opened the sixth.
        running.log.purge(25, 1).await.unwrap();
        tokio::task::yield_now().await;
        let logs = |range: std::ops::RangeInclusive<u32>| range.map(|sequence| format!("{sequence:010}.log"));
        let mut expected: Vec<_> =
            logs(3..=7).chain(["0000000001.spare".to_owned(), "0000000002.spare".to_owned()]).collect();
        expected.sort();
        assert_eq!(names(&medium), expected);
        // No more than the options keep.
        running.log.purge(50, 1).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(names(&medium).iter().filter(|name| name.ends_with(".spare")).count(), 2);
        for index in 61..=90 {
            append(&running.log, vec![record(index, 2, 900)]).await.unwrap();
        }
        assert_eq!(names(&medium).iter().filter(|name| name.ends_with(".spare")).count(), 0);
        let held = Content::of(&running.log);
        assert_eq!(held.records.len(), 40);
        running.kill(&medium).await;
        medium.crash();
        let running = open(&medium, small()).unwrap();
        assert_eq!(Content::of(&running.log), held);
        running.kill(&medium).await;
    });
}

/// The same records in the same places, life after life: only the sequence number tells them apart.
#[test]
fn old_records_are_never_taken_for_new() {
    for seed in support::seeds(20) {
        println!("SEED={seed}");
        let medium = SimMedium::new(seed);
        block_on(async {
            let mut held = Content::default();
            for _ in 0..12 {
                let running = open(&medium, Options { keep_recycled: 3, ..small() }).unwrap();
                let mut history = History::from(held);
                for _ in 0..6 {
                    let steps = [
                        support::Step::Append { sizes: vec![400; 12], new_term: false },
                        support::Step::Purge { kept: 2 },
                        support::Step::Yield,
                    ];
                    history.run(&running.log, &steps).await;
                }
                running.task.abort();
                running.task.await.ok();
                medium.crash();
                let running = open(&medium, Options { keep_recycled: 3, ..small() }).unwrap();
                held = Content::of(&running.log);
                history.check(&held);
                running.kill(&medium).await;
            }
        });
    }
}

#[test]
fn a_segment_that_is_being_read_is_not_written_again() {
    let medium = SimMedium::new(1);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        for index in 1..=20 {
            append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
        }
        let reading = running.log.clone();
        let before = reading.read(1, 5, usize::MAX).unwrap();
        // Reads race with purges and with what takes the segments' place.
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let log = running.log.clone();
                std::thread::spawn(move || {
                    for _ in 0..3000 {
                        let records = log.read(0, u64::MAX, 5000).expect("never anything half-written");
                        assert!(records.windows(2).all(|pair| pair[1].index == pair[0].index + 1));
                        assert!(records.iter().all(|found| *found == record(found.index, 1, 900)));
                    }
                })
            })
            .collect();
        for index in 21..=400 {
            append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
            running.log.purge(index - 15, 1).await.unwrap();
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(before, (1..5).map(|index| record(index, 1, 900)).collect::<Vec<_>>());
        running.kill(&medium).await;
    });
}

/// Somebody removed the segments but left the spares, whose sequence numbers come again.
#[test]
fn spares_without_segments_are_not_used() {
    let medium = SimMedium::new(1);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        for index in 1..=40 {
            append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
        }
        running.log.purge(30, 1).await.unwrap();
        tokio::task::yield_now().await;
        running.kill(&medium).await;
        for name in names(&medium).into_iter().filter(|name| name.ends_with(".log")) {
            medium.remove_file(&name);
        }
        assert!(!names(&medium).is_empty());
        let running = open(&medium, small()).unwrap();
        assert_eq!(Content::of(&running.log), Content::default());
        assert_eq!(names(&medium), ["0000000001.log"]);
        running.kill(&medium).await;
    });
}
