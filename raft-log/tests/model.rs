//! Random operations against a plain map, across clean restarts and kills.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use mainstay_raft_log::disk::sim::SimMedium;
use proptest::prelude::*;
use support::{Content, History, Step, block_on, open, small, step};

#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Drop,
    Kill,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Close), Just(End::Drop), Just(End::Kill)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equals_a_plain_map(lives in prop::collection::vec((prop::collection::vec(step(), 0..60), end()), 1..5)) {
        block_on(run(lives));
    }
}

async fn run(lives: Vec<(Vec<Step>, End)>) {
    let medium = SimMedium::new(0);
    let mut held = Content::default();
    for (steps, end) in lives {
        let running = open(&medium, small()).unwrap();
        assert_eq!(Content::of(&running.log), held);
        let mut history = History::from(held);
        for step in steps {
            history.run(&running.log, &[step]).await;
            let mut seen = Content::of(&running.log);
            // The vote shows when it is durable, everything else at once.
            seen.vote.clone_from(&history.last().vote);
            assert_eq!(&seen, history.last());
            check_reads(&running.log, history.last());
        }
        if matches!(end, End::Kill) {
            history.settle(&running.log).await;
        }
        held = history.last().clone();
        match end {
            End::Close => {
                running.log.close().await;
                running.task.await.unwrap();
            }
            End::Drop => {
                drop(running.log);
                drop(history);
                running.task.await.unwrap();
            }
            End::Kill => running.kill(&medium).await,
        }
    }
}

fn check_reads(log: &mainstay_raft_log::RaftLog, content: &Content) {
    let Some((last, _)) = content.last() else {
        return;
    };
    for from in [last.saturating_sub(7), last, last + 1] {
        let expected: Vec<_> = content.records.range(from..from + 5).map(|(_, record)| record.clone()).collect();
        assert_eq!(log.read(from, from + 5, usize::MAX).unwrap(), expected);
        for limit in [0, 700] {
            let some = log.read(from, from + 5, limit).unwrap();
            assert_eq!(some, expected[..some.len()]);
            assert_eq!(some.is_empty(), expected.is_empty());
            let taken: usize = some.iter().map(|record| record.payload.len()).sum();
            assert!(some.len() <= 1 || taken <= limit);
            assert!(expected.get(some.len()).is_none_or(|next| taken + next.payload.len() > limit));
        }
    }
}
