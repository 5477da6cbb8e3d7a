//! Power failures: every acknowledged change is found again, and what is found was once there.
//!
//! A failing test has printed its seed last: `SEED=n cargo test -p mainstay-raft-log --test crash` repeats
//! it, `SEEDS=20` tries twenty times as many.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use mainstay_raft_log::OpenError;
use mainstay_raft_log::disk::sim::SimMedium;
use support::{Content, History, Step, append, block_on, open, record, seeds, small, steps};

/// Runs steps until power fails before the operation with this number, or to the end.
async fn run_until(medium: &SimMedium, history: &mut History, steps: &[Step], operations: Option<u64>) {
    let running = open(medium, small()).unwrap();
    if let Some(operations) = operations {
        medium.fail_power_after(operations);
    }
    history.run(&running.log, steps).await;
    // What is still under way gets as far as it gets.
    history.settle(&running.log).await;
    running.task.abort();
    running.task.await.ok();
}

/// Opens after a crash and checks what is there.
async fn check_reopened(medium: &SimMedium, history: &mut History) -> Content {
    let running = open(medium, small()).unwrap_or_else(|error| panic!("a crash is no damage: {error}"));
    let found = Content::of(&running.log);
    history.check(&found);
    running.kill(medium).await;
    found
}

fn script(seed: u64) -> Vec<Step> {
    steps(seed, 60)
}

#[test]
fn power_may_fail_before_any_operation() {
    for seed in seeds(4) {
        println!("SEED={seed}");
        let steps = script(seed);
        let whole = SimMedium::new(seed);
        block_on(run_until(&whole, &mut History::from(Content::default()), &steps, None));
        for operations in 0..whole.operations() {
            for fate in 0..6 {
                let medium = SimMedium::new(seed << 32 | operations << 8 | fate);
                let mut history = History::from(Content::default());
                block_on(async {
                    run_until(&medium, &mut history, &steps, Some(operations)).await;
                    medium.crash();
                    check_reopened(&medium, &mut history).await;
                });
            }
        }
    }
}

/// Every subset of the unsynced sectors where they are few, many where they are more.
#[test]
fn any_part_of_an_unsynced_batch_may_be_kept() {
    const ALL_BELOW: usize = 9;
    const SAMPLES: u64 = 1 << ALL_BELOW;
    for seed in seeds(2) {
        println!("SEED={seed}");
        let steps = script(seed);
        let whole = SimMedium::new(seed);
        block_on(run_until(&whole, &mut History::from(Content::default()), &steps, None));
        for operations in 0..whole.operations() {
            let medium = SimMedium::new(seed);
            let mut history = History::from(Content::default());
            block_on(run_until(&medium, &mut history, &steps, Some(operations)));
            let unsynced = medium.unsynced_sectors();
            // Filling a new file leaves many that are all alike.
            if unsynced.is_empty() || unsynced.iter().all(|sector| sector.file == "unfinished") {
                continue;
            }
            let all = unsynced.len() < ALL_BELOW;
            let subsets = if all { 1 << unsynced.len() } else { SAMPLES };
            for subset in 0..subsets {
                let medium = medium.fork();
                let bits = if all { subset } else { scrambled(subset) };
                let mut nth = 0;
                medium.crash_keeping(&mut |sector| {
                    nth += u32::from(sector.is_some());
                    sector.is_none() || bits.rotate_right(nth) & 1 == 1
                });
                block_on(check_reopened(&medium, &mut history));
            }
        }
    }
}

fn scrambled(number: u64) -> u64 {
    let mixed = (number ^ (number << 21)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Life after life on one disk, with crashes, kills, clean ends and crashes while opening.
#[test]
fn many_lives() {
    for seed in seeds(60) {
        println!("SEED={seed}");
        let medium = SimMedium::new(seed);
        block_on(async {
            let mut held = Content::default();
            for life in 0..12u64 {
                held = one_life(&medium, seed * 100 + life, held).await;
            }
        });
    }
}

async fn one_life(medium: &SimMedium, seed: u64, held: Content) -> Content {
    let mut history = History::from(held);
    let mut draw = scrambled(seed + 1);
    let mut below = |bound: u64| {
        draw = scrambled(draw);
        draw % bound
    };
    let running = open(medium, small()).unwrap();
    assert_eq!(&Content::of(&running.log), history.last());
    if below(3) > 0 {
        medium.fail_power_after(below(80));
    }
    history.run(&running.log, &script(seed)).await;
    if below(3) == 0 {
        running.log.close().await;
        if running.log.failed().is_none() {
            history.settled_by_close();
        }
    }
    running.task.abort();
    running.task.await.ok();
    // A kill leaves what was written readable and unsynced; power may fail later, or while opening.
    match below(4) {
        0 => medium.kill(),
        _ => medium.crash(),
    }
    for _ in 0..below(3) {
        let disk = medium.mount();
        medium.fail_power_after(below(6));
        match mainstay_raft_log::RaftLog::open(std::sync::Arc::new(disk), small()) {
            Ok(_) | Err(OpenError::Log(_)) => {}
            Err(error) => panic!("a crash is no damage: {error}"),
        }
        medium.crash();
    }
    let running = open(medium, small()).unwrap_or_else(|error| panic!("seed {seed}: a crash is no damage: {error}"));
    let found = Content::of(&running.log);
    history.check(&found);
    // What was found once is durable, whatever it was before.
    running.task.abort();
    running.task.await.ok();
    medium.crash();
    let running = open(medium, small()).unwrap();
    assert_eq!(Content::of(&running.log), found);
    running.task.abort();
    running.task.await.ok();
    medium.kill();
    found
}

/// Two attempts at the same batch, each torn so that together they would make a whole one.
#[test]
fn two_torn_batches_never_make_one() {
    // With its frame such a record fills a sector.
    const PAYLOAD_BYTES: usize = 488 - 25;
    let medium = SimMedium::new(0);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        append(&running.log, vec![record(1, 1, PAYLOAD_BYTES)]).await.unwrap();
        running.kill(&medium).await;
        for (term, kept) in [(2, [1, 3]), (3, [0, 2])] {
            let running = open(&medium, small()).unwrap();
            assert_eq!(running.log.last(), Some((1, 1)));
            let records = (2..6).map(|index| record(index, term, PAYLOAD_BYTES)).collect();
            medium.stall_next_sync(std::time::Duration::from_secs(3600));
            running.log.append(records, Box::new(|_| ()));
            while medium.unsynced_sectors().len() < 4 {
                tokio::task::yield_now().await;
            }
            running.task.abort();
            running.task.await.ok();
            let first = medium.unsynced_sectors()[0].sector;
            medium.crash_keeping(&mut |sector| sector.is_some_and(|sector| kept.contains(&(sector.sector - first))));
        }
        let running = open(&medium, small()).unwrap();
        assert_eq!(running.log.last(), Some((1, 1)));
        running.kill(&medium).await;
    });
}
