//! A log on a simulated disk, its history, and what a crash may leave of it.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mainstay_raft_log::disk::sim::SimMedium;
use mainstay_raft_log::{LogError, OpenError, Options, RaftLog, Record};
use proptest::prelude::*;
use tokio::task::JoinHandle;

/// The seeds of a test. `SEED=n` tries that one alone, `SEEDS=n` so many times as many.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..count * number("SEEDS").unwrap_or(1),
    }
}

/// Runs a test on one thread, so that it is the same each time.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

/// Small segments and little memory, so that everything happens often.
pub(crate) fn small() -> Options {
    Options { segment_bytes: 16 * 1024, keep_recycled: 2, cache_bytes: 2048, identity: 77, ..Options::default() }
}

/// A running log.
pub(crate) struct Running {
    pub(crate) log: RaftLog,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn open(medium: &SimMedium, options: Options) -> Result<Running, OpenError> {
    let (log, task) = RaftLog::open(Arc::new(medium.mount()), options)?;
    Ok(Running { log, task: tokio::spawn(task.run()) })
}

impl Running {
    /// Ends the process without telling the log, and keeps what the disk has.
    pub(crate) async fn kill(self, medium: &SimMedium) {
        medium.kill();
        self.task.abort();
        self.task.await.ok();
    }
}

/// A payload that tells from when and where it is.
pub(crate) fn record(index: u64, term: u64, bytes: usize) -> Record {
    let pattern = format!("<{index}/{term}/{bytes}>");
    Record { index, term, payload: pattern.into_bytes().into_iter().cycle().take(bytes).collect::<Vec<_>>().into() }
}

fn refused(result: &Result<(), LogError>) -> bool {
    matches!(result, Err(LogError::Busy | LogError::TooLarge { .. } | LogError::NotConsecutive { .. }))
}

/// Appends and waits until it is durable.
pub(crate) async fn append(log: &RaftLog, records: Vec<Record>) -> Result<(), LogError> {
    let (sender, done) = tokio::sync::oneshot::channel();
    log.append(records, Box::new(move |result| sender.send(result).unwrap()));
    done.await.unwrap()
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) records: BTreeMap<u64, Record>,
    pub(crate) purged: Option<(u64, u64)>,
    pub(crate) vote: Option<Bytes>,
}

impl Content {
    pub(crate) fn of(log: &RaftLog) -> Self {
        let records = log.read(0, u64::MAX, usize::MAX).expect("what is there can be read");
        let content = Self {
            records: records.into_iter().map(|record| (record.index, record)).collect(),
            purged: log.purged(),
            vote: log.vote(),
        };
        assert_eq!(log.last(), content.last());
        assert_eq!(log.first_index(), content.records.keys().next().copied());
        for record in content.records.values() {
            assert_eq!(log.term_of(record.index), Ok(Some(record.term)));
        }
        content
    }

    pub(crate) fn last(&self) -> Option<(u64, u64)> {
        self.records.values().next_back().map(|record| (record.index, record.term)).or(self.purged)
    }
}

/// One thing to do with a log.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Appends so many records of so many bytes each.
    Append {
        sizes: Vec<usize>,
        new_term: bool,
    },
    /// Keeps this many of the last records less.
    Truncate {
        removed: u64,
    },
    /// Purges up to so many before the last, or beyond it.
    Purge {
        kept: i64,
    },
    Vote,
    Committed,
    /// Waits until all is durable.
    Settle,
    /// Lets the owner work for a moment.
    Yield,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8 => 0..300usize, 2 => 300..2000usize, 1 => 2000..8000usize];
    prop_oneof![
        12 => (prop::collection::vec(size, 1..5), prop::bool::weighted(0.1))
            .prop_map(|(sizes, new_term)| Step::Append { sizes, new_term }),
        2 => (0..12u64).prop_map(|removed| Step::Truncate { removed }),
        2 => (-1..12i64).prop_map(|kept| Step::Purge { kept }),
        2 => Just(Step::Vote),
        1 => Just(Step::Committed),
        3 => Just(Step::Settle),
        6 => Just(Step::Yield),
    ]
}

type Waiting = (usize, Pin<Box<dyn Future<Output = Result<(), LogError>>>>);

/// Does steps and remembers what the log held after each part of them.
pub(crate) struct History {
    /// Each state that the log went through, in order: a crash may leave any of them from the last acknowledged on.
    pub(crate) states: Vec<Content>,
    /// Which of the states were acknowledged by completions.
    acknowledged: Arc<AtomicUsize>,
    waiting: Vec<Waiting>,
    pub(crate) term: u64,
    votes: u64,
    committed: u64,
}

impl History {
    /// Goes on from what a log holds.
    pub(crate) fn from(content: Content) -> Self {
        let term = content.last().map_or(1, |(_, term)| term);
        let votes = content.vote.as_ref().map_or(0, |vote| u64::from_be_bytes(vote[..8].try_into().unwrap()));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        Self { states: vec![content], acknowledged, waiting: Vec::new(), term, votes, committed: 0 }
    }

    pub(crate) fn last(&self) -> &Content {
        self.states.last().unwrap()
    }

    fn then(&mut self, change: impl FnOnce(&mut Content)) -> usize {
        let mut next = self.last().clone();
        change(&mut next);
        self.states.push(next);
        self.states.len() - 1
    }

    pub(crate) async fn run(&mut self, log: &RaftLog, steps: &[Step]) {
        for step in steps {
            self.step(log, step).await;
            if log.failed().is_some() {
                break;
            }
        }
    }

    async fn step(&mut self, log: &RaftLog, step: &Step) {
        match step {
            Step::Append { sizes, new_term } => self.append(log, sizes, *new_term),
            Step::Truncate { removed } => {
                let Some((last, _)) = self.last().last() else {
                    return;
                };
                let keep = last.checked_sub(*removed);
                let state =
                    self.then(|content| content.records.retain(|index, _| keep.is_some_and(|keep| *index <= keep)));
                let log = log.clone();
                self.wait(state, async move { log.truncate_after(keep).await });
            }
            Step::Purge { kept } => {
                let (last, _) = self.last().last().unwrap_or((0, 0));
                let Some(up_to) = last.checked_add_signed(-kept) else {
                    return;
                };
                let first = self.last().records.keys().next().copied();
                let reached = self.last().purged.is_none_or(|(purged, _)| purged < up_to)
                    && first.is_none_or(|first| first <= up_to + 1);
                let term = self.last().records.get(&up_to).map_or(self.term, |record| record.term);
                let state = self.then(|content| {
                    if reached {
                        content.records.retain(|index, _| *index > up_to);
                        content.purged = Some((up_to, term));
                    }
                });
                let log = log.clone();
                self.wait(state, async move { log.purge(up_to, term).await });
            }
            Step::Vote => {
                self.votes += 1;
                let vote = Bytes::copy_from_slice(&self.votes.to_be_bytes());
                let state = self.then(|content| content.vote = Some(vote.clone()));
                let log = log.clone();
                self.wait(state, async move { log.save_vote(vote).await });
            }
            Step::Committed => {
                self.committed += 1;
                log.save_committed(Bytes::copy_from_slice(&self.committed.to_be_bytes())).await.ok();
            }
            Step::Settle => self.settle(log).await,
            Step::Yield => tokio::task::yield_now().await,
        }
    }

    fn append(&mut self, log: &RaftLog, sizes: &[usize], new_term: bool) {
        self.term += u64::from(new_term);
        let next = self.last().last().map_or(1, |(last, _)| last + 1);
        let mut records = Vec::new();
        for (index, size) in (next..).zip(sizes) {
            let record = record(index, self.term, *size);
            self.then(|content| drop(content.records.insert(index, record.clone())));
            records.push(record);
        }
        let state = self.states.len() - 1;
        let acknowledged = Arc::clone(&self.acknowledged);
        log.append(
            records,
            Box::new(move |result| {
                assert!(!refused(&result), "the test appends what can be taken: {result:?}");
                if result.is_ok() {
                    let before = acknowledged.swap(state, Ordering::Relaxed);
                    assert!(before < state, "completions come in order");
                }
            }),
        );
    }

    /// Makes the change now, and looks for its end later.
    fn wait(&mut self, state: usize, change: impl Future<Output = Result<(), LogError>> + 'static) {
        self.waiting.push((state, Box::pin(change)));
        self.poll();
    }

    fn poll(&mut self) {
        let acknowledged = &self.acknowledged;
        self.waiting.retain_mut(|(state, change)| {
            match change.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => {
                    if result.is_ok() {
                        acknowledged.fetch_max(*state, Ordering::Relaxed);
                    }
                    false
                }
                Poll::Pending => true,
            }
        });
    }

    pub(crate) async fn settle(&mut self, log: &RaftLog) {
        let state = self.states.len() - 1;
        let settled = append(log, Vec::new()).await.is_ok();
        self.poll();
        if settled {
            assert!(self.waiting.is_empty(), "what came before is done");
            self.acknowledged.fetch_max(state, Ordering::Relaxed);
        }
    }

    /// A clean end makes everything durable.
    pub(crate) fn settled_by_close(&mut self) {
        self.acknowledged.fetch_max(self.states.len() - 1, Ordering::Relaxed);
    }

    /// The first of the states that may be found.
    pub(crate) fn acknowledged(&mut self) -> usize {
        self.poll();
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Checks that what was found is a state that was reached, and none before the last acknowledged.
    #[track_caller]
    pub(crate) fn check(&mut self, found: &Content) {
        let acknowledged = self.acknowledged();
        if !self.states[acknowledged..].contains(found) {
            let summary = |content: &Content| {
                let first = content.records.keys().next();
                format!("first {first:?} last {:?} purged {:?} vote {:?}", content.last(), content.purged, content.vote)
            };
            for (nth, state) in self.states.iter().enumerate() {
                eprintln!("{nth}: {}", summary(state));
            }
            let earlier = self.states[..acknowledged].iter().rposition(|state| state == found);
            panic!(
                "found {}; acknowledged state {acknowledged}: {}; last {}: {}; it equals {earlier:?}",
                summary(found),
                summary(&self.states[acknowledged]),
                self.states.len() - 1,
                summary(self.last()),
            );
        }
    }
}

/// Steps that follow from a seed.
pub(crate) fn steps(seed: u64, count: usize) -> Vec<Step> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    prop::collection::vec(step(), count).new_tree(&mut runner).unwrap().current()
}
