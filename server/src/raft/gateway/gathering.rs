//! Proposals under load: gathered, and handed to consensus together.
//!
//! What one proposal costs beyond its bytes (a turn of consensus, a write and a sync of the log, a run of the state
//! machine, and waking whoever waits) a batch costs once. The disk is quick enough to sync every handful, so that
//! batches do not come about by themselves. So where many proposals are under way, the next batch waits until it is a
//! fair part of them, and for a moment at most; where few are, nothing waits. Clients that wait for answers come in
//! again as a batch: batches and answers keep each other large.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use openraft::error::{ClientWriteError, Fatal};
use openraft::raft::WriteResult;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Unavailable;
use crate::env::{clock, probe};
use crate::raft::type_config::{Applied, EncodedCommand, LogId, Raft, TypeConfig};

/// A batch waits until it is one of so many parts of all that is under way.
const PARTS: usize = 4;
/// How long it waits for that, for each `PATIENT_FOR` proposals under way: who is one of many waits for long anyway.
const PATIENCE: Duration = Duration::from_millis(1);
const PATIENT_FOR: usize = 250;
const PATIENCE_MAX: Duration = Duration::from_millis(5);

/// What became of a proposal: the entry's place, and what came of it there.
pub(super) type Answer = Result<(LogId, Applied), ClientWriteError<TypeConfig>>;

/// The proposals that wait for their batch. A leaf lock.
pub(super) struct Gathering {
    /// From how many on under way a proposal waits for others.
    from: usize,
    under_way: AtomicUsize,
    /// `None` once nobody takes them any more.
    waiting: Mutex<Option<Vec<Waiting>>>,
    came: Notify,
    enough: Notify,
}

struct Waiting {
    command: EncodedCommand,
    reply: oneshot::Sender<Result<Answer, Unavailable>>,
}

/// A proposal that is under way, until it is dropped.
pub(super) struct UnderWay<'a>(&'a Gathering);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The end of who takes the proposals: whoever waits is told.
struct End<'a>(&'a Gathering);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.waiting.lock() = None;
    }
}

impl Gathering {
    pub(super) fn new(from: usize) -> Self {
        Self {
            from,
            under_way: AtomicUsize::new(0),
            waiting: Mutex::new(Some(Vec::new())),
            came: Notify::new(),
            enough: Notify::new(),
        }
    }

    /// Counts a proposal; whether it should wait for others.
    pub(super) fn begin(&self) -> (UnderWay<'_>, bool) {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        (UnderWay(self), before + 1 >= self.from)
    }

    /// Proposes a command with others. Whoever gives up leaves open whether it takes effect.
    pub(super) async fn propose(&self, command: EncodedCommand) -> Result<Answer, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let gathered = {
            let mut waiting = self.waiting.lock();
            let waiting = waiting.as_mut().ok_or(Unavailable::Stopped)?;
            waiting.push(Waiting { command, reply });
            waiting.len()
        };
        if gathered == 1 {
            self.came.notify_one();
        }
        if self.suffices(gathered) {
            self.enough.notify_one();
        }
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    fn gathered(&self) -> usize {
        self.waiting.lock().as_ref().map_or(0, Vec::len)
    }

    fn suffices(&self, gathered: usize) -> bool {
        gathered * PARTS >= self.under_way.load(Ordering::Relaxed)
    }

    fn patience(&self) -> Duration {
        let times = self.under_way.load(Ordering::Relaxed) / PATIENT_FOR;
        (PATIENCE.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))).clamp(PATIENCE, PATIENCE_MAX)
    }

    /// Hands batches to consensus, and their answers to who waits for them, until it is dropped.
    pub(super) async fn run(&self, raft: Raft) {
        let _end = End(self);
        let mut answers: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.came.notified() => {}
                Some(()) = answers.next() => continue,
            }
            let mut patience = Box::pin(clock::sleep(self.patience()));
            while !self.suffices(self.gathered()) {
                probe::reached("proposals-gathered");
                tokio::select! {
                    biased;
                    // It may be of the batch before.
                    () = self.enough.notified() => {}
                    () = &mut patience => break,
                    Some(()) = answers.next() => {}
                }
            }
            let mut batch = self.waiting.lock().as_mut().map(std::mem::take).unwrap_or_default();
            // Whoever gave up before anything happened need not be served.
            batch.retain(|waiting| !waiting.reply.is_closed());
            if batch.is_empty() {
                continue;
            }
            let (commands, replies): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.command, waiting.reply)).unzip();
            match raft.client_write_many(commands).await {
                Ok(outcomes) => answers.push(Box::pin(deliver(outcomes, replies))),
                Err(_) => replies.into_iter().for_each(|reply| drop(reply.send(Err(Unavailable::Stopped)))),
            }
        }
    }
}

type Reply = oneshot::Sender<Result<Answer, Unavailable>>;
type Outcomes = BoxStream<'static, Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>>;

/// Answers come in the order of the proposals; of those of one run all are there with the first.
async fn deliver(mut outcomes: Outcomes, replies: Vec<Reply>) {
    for reply in replies {
        let answer = match outcomes.next().await {
            Some(Ok(outcome)) => Ok(outcome.map(|response| (response.log_id, response.response))),
            Some(Err(_)) | None => Err(Unavailable::Stopped),
        };
        // Who waited may have given up.
        reply.send(answer).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_do_not_wait_for_others() {
        let gathering = Gathering::new(3);
        let first = gathering.begin();
        let second = gathering.begin();
        assert!(!first.1 && !second.1);
        assert!(gathering.begin().1);
        drop(first);
        assert!(!gathering.begin().1, "two of the three are over");
        drop(second);
        assert_eq!(gathering.under_way.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_waits_is_told_that_nobody_takes_it() {
        let gathering = Gathering::new(1);
        let proposal = gathering.propose(EncodedCommand(bytes::Bytes::from_static(b"command")));
        let end = async {
            tokio::task::yield_now().await;
            drop(End(&gathering));
        };
        let (answer, ()) = tokio::join!(proposal, end);
        assert_eq!(answer.err(), Some(Unavailable::Stopped));
        let late = gathering.propose(EncodedCommand(bytes::Bytes::from_static(b"command"))).await;
        assert_eq!(late.err(), Some(Unavailable::Stopped));
    }

    #[test]
    fn a_batch_is_a_fair_part_of_what_is_under_way() {
        let gathering = Gathering::new(1);
        let under_way: Vec<_> = (0..100).map(|_| gathering.begin()).collect();
        assert!(!gathering.suffices(24));
        assert!(gathering.suffices(25));
        assert_eq!(gathering.patience(), PATIENCE);
        let more: Vec<_> = (0..900).map(|_| gathering.begin()).collect();
        assert_eq!(gathering.patience(), 4 * PATIENCE);
        drop((under_way, more));
        assert!(gathering.suffices(0));
    }
}
