//! Proposals under load: gathered, and handed on together, to consensus here or to the leader elsewhere.
//!
//! What one proposal costs beyond its bytes (a turn of consensus, a write and a sync of the log, a run of the state
//! machine, and waking whoever waits; a message to the leader) a batch costs once. The disk is quick enough to sync every
//! handful, so that batches do not come about by themselves. So where many proposals are under way, the next batch waits
//! until it is a fair part of them, and for a moment at most; where few are, nothing waits. Clients that wait for answers
//! come in again as a batch: batches and answers keep each other large.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Fuse, FuturesUnordered, StreamExt};
use openraft::error::{ClientWriteError, Fatal};
use openraft::raft::WriteResult;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Unavailable;
use crate::env::{clock, probe};
use crate::limits;
use crate::raft::type_config::{Applied, EncodedCommand, LogId, Raft, TypeConfig};

/// A batch waits until it is one of so many parts of all that is under way.
const PARTS: usize = 4;
/// How long it waits for that, for each `PATIENT_FOR` proposals under way: who is one of many waits for long anyway.
const PATIENCE: Duration = Duration::from_millis(1);
const PATIENT_FOR: usize = 250;
const PATIENCE_MAX: Duration = Duration::from_millis(5);

/// What became of a proposal: the entry's place, and what came of it there.
pub(super) type Answer = Result<(LogId, Applied), ClientWriteError<TypeConfig>>;

/// The proposals that wait for their batch, in the order in which they came. One task takes them. A leaf lock.
pub(super) struct Gathering<W> {
    /// From how many on under way a proposal waits for others.
    from: usize,
    under_way: AtomicUsize,
    waiting: Mutex<Waiting<W>>,
    came: Notify,
    enough: Notify,
}

struct Waiting<W> {
    all: Vec<W>,
    /// How many proposals that are.
    proposals: usize,
    /// Whether nobody takes them any more.
    has_ended: bool,
}

/// Proposals that are under way, until it is dropped.
pub(super) struct UnderWay<'a>(&'a AtomicUsize, usize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// The end of who takes the proposals: whoever waits is told.
pub(super) struct End<'a, W>(pub(super) &'a Gathering<W>);

impl<W> Drop for End<'_, W> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.has_ended = true;
        waiting.all.clear();
    }
}

impl<W> Gathering<W> {
    pub(super) fn new(from: usize) -> Self {
        Self {
            from,
            under_way: AtomicUsize::new(0),
            waiting: Mutex::new(Waiting { all: Vec::new(), proposals: 0, has_ended: false }),
            came: Notify::new(),
            enough: Notify::new(),
        }
    }

    /// Counts so many proposals; whether they should wait for others.
    pub(super) fn begin(&self, count: usize) -> (UnderWay<'_>, bool) {
        let before = self.under_way.fetch_add(count, Ordering::Relaxed);
        (UnderWay(&self.under_way, count), before + count >= self.from)
    }

    /// Puts so many proposals into the next batch, as one.
    ///
    /// # Errors
    /// When as much waits as may be under way: whoever takes batches is held up.
    pub(super) fn push(&self, one: W, count: usize) -> Result<(), Unavailable> {
        let (is_first, gathered) = {
            let mut waiting = self.waiting.lock();
            if waiting.has_ended {
                return Err(Unavailable::Stopped);
            }
            if waiting.proposals >= limits::PROPOSALS_MAX {
                return Err(Unavailable::TooManyRequests);
            }
            waiting.all.push(one);
            waiting.proposals += count;
            (waiting.all.len() == 1, waiting.proposals)
        };
        if is_first {
            self.came.notify_one();
        }
        if self.suffices(gathered) {
            self.enough.notify_one();
        }
        Ok(())
    }

    fn gathered(&self) -> usize {
        self.waiting.lock().proposals
    }

    fn suffices(&self, gathered: usize) -> bool {
        let under_way = self.under_way.load(Ordering::Relaxed);
        under_way < self.from || gathered * PARTS >= under_way
    }

    fn patience(&self) -> Duration {
        let times = self.under_way.load(Ordering::Relaxed) / PATIENT_FOR;
        (PATIENCE.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))).clamp(PATIENCE, PATIENCE_MAX)
    }

    /// Waits until there is something at all.
    pub(super) async fn has_some(&self) {
        while self.gathered() == 0 {
            self.came.notified().await;
        }
    }

    /// Waits until a batch is together, for [`Self::take`].
    pub(super) async fn is_together(&self) {
        self.has_some().await;
        if self.suffices(self.gathered()) {
            return;
        }
        let mut patience = pin!(clock::sleep(self.patience()));
        while !self.suffices(self.gathered()) {
            probe::reached("proposals-gathered");
            tokio::select! {
                biased;
                // It may be of the batch before.
                () = self.enough.notified() => {}
                () = &mut patience => return,
            }
        }
    }

    /// Takes all that waits.
    pub(super) fn take(&self) -> Vec<W> {
        let mut waiting = self.waiting.lock();
        waiting.proposals = 0;
        std::mem::take(&mut waiting.all)
    }
}

/// What waits to be proposed here, and who is told what came of it.
pub(super) enum Proposed {
    /// A command of a client, or one that another member passed on by itself.
    One(EncodedCommand, oneshot::Sender<Result<Answer, Unavailable>>),
    /// Those that another member passed on together: answered together, they are one message to it again.
    Several(Vec<EncodedCommand>, oneshot::Sender<Vec<Result<Answer, Unavailable>>>),
}

impl Proposed {
    fn is_given_up(&self) -> bool {
        match self {
            Self::One(_, reply) => reply.is_closed(),
            Self::Several(_, reply) => reply.is_closed(),
        }
    }
}

impl Gathering<Proposed> {
    /// Proposes a command with others. Whoever gives up leaves open whether it takes effect.
    pub(super) async fn propose(&self, command: EncodedCommand) -> Result<Answer, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.push(Proposed::One(command, reply), 1)?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    /// Proposes several commands together, and with others; what became of each, in order.
    pub(super) async fn propose_together(&self, commands: Vec<EncodedCommand>) -> Vec<Result<Answer, Unavailable>> {
        let count = commands.len();
        let none =
            |error: Unavailable| -> Vec<Result<Answer, Unavailable>> { (0..count).map(|_| Err(error)).collect() };
        let (reply, answers) = oneshot::channel();
        if let Err(full) = self.push(Proposed::Several(commands, reply), count) {
            return none(full);
        }
        answers.await.unwrap_or_else(|_| none(Unavailable::Stopped))
    }

    /// Hands batches to consensus, and their answers to who waits for them, until it is dropped.
    pub(super) async fn run(&self, raft: Raft) {
        let _end = End(self);
        let mut answers: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut together = pin!(self.is_together());
        loop {
            tokio::select! {
                biased;
                () = &mut together => together.set(self.is_together()),
                Some(()) = answers.next() => continue,
            }
            let mut commands = Vec::new();
            let mut replies = Vec::new();
            // Whoever gave up before anything happened need not be served.
            for proposed in self.take().into_iter().filter(|proposed| !proposed.is_given_up()) {
                match proposed {
                    Proposed::One(command, reply) => {
                        commands.push(command);
                        replies.push(Reply::One(reply));
                    }
                    Proposed::Several(several, reply) => {
                        replies.push(Reply::Several(several.len(), reply));
                        commands.extend(several);
                    }
                }
            }
            if commands.is_empty() {
                continue;
            }
            match raft.client_write_many(commands).await {
                Ok(outcomes) => answers.push(deliver(outcomes, replies).boxed()),
                // Where consensus has ended nobody is answered, which tells them so.
                Err(_) => drop(replies),
            }
        }
    }
}

/// Who waits for the next answers, for one or for so many.
enum Reply {
    One(oneshot::Sender<Result<Answer, Unavailable>>),
    Several(usize, oneshot::Sender<Vec<Result<Answer, Unavailable>>>),
}

type Outcomes = BoxStream<'static, Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>>;

/// Answers come in the order of the proposals; of those of one run all are there with the first.
async fn deliver(outcomes: Outcomes, replies: Vec<Reply>) {
    // Where consensus ends there are fewer of them than replies, and openraft's stream is not to be asked after its end.
    let mut outcomes = outcomes.fuse();
    for reply in replies {
        // Who waited may have given up.
        match reply {
            Reply::One(reply) => drop(reply.send(next_of(&mut outcomes).await)),
            Reply::Several(count, reply) => {
                let mut answers = Vec::with_capacity(count);
                for _ in 0..count {
                    answers.push(next_of(&mut outcomes).await);
                }
                drop(reply.send(answers));
            }
        }
    }
}

async fn next_of(outcomes: &mut Fuse<Outcomes>) -> Result<Answer, Unavailable> {
    match outcomes.next().await {
        Some(Ok(outcome)) => Ok(outcome.map(|response| (response.log_id, response.response))),
        Some(Err(_)) | None => Err(Unavailable::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_do_not_wait_for_others() {
        let gathering = Gathering::<()>::new(3);
        let first = gathering.begin(1);
        let second = gathering.begin(1);
        assert!(!first.1 && !second.1);
        assert!(gathering.suffices(0), "where few are under way nothing waits");
        assert!(gathering.begin(1).1);
        drop(first);
        assert!(!gathering.begin(1).1, "two of the three are over");
        assert!(gathering.begin(2).1);
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

    #[tokio::test]
    async fn where_consensus_ends_everybody_is_told() {
        let ends =
            futures_util::stream::unfold(Some(()), |last| async move { last.map(|()| (Err(Fatal::Stopped), None)) });
        let (one, told_one) = oneshot::channel();
        let (several, told_several) = oneshot::channel();
        deliver(ends.boxed(), vec![Reply::One(one), Reply::Several(2, several)]).await;
        assert_eq!(told_one.await.unwrap().err(), Some(Unavailable::Stopped));
        let told: Vec<_> = told_several.await.unwrap().into_iter().map(Result::err).collect();
        assert_eq!(told, [Some(Unavailable::Stopped); 2]);
    }

    #[test]
    fn a_batch_is_a_fair_part_of_what_is_under_way() {
        let gathering = Gathering::<()>::new(1);
        let under_way = gathering.begin(100);
        assert!(!gathering.suffices(24));
        assert!(gathering.suffices(25));
        assert_eq!(gathering.patience(), PATIENCE);
        let more: Vec<_> = (0..900).map(|_| gathering.begin(1)).collect();
        assert_eq!(gathering.patience(), 4 * PATIENCE);
        drop((under_way, more));
        assert!(gathering.suffices(0));
    }

    #[test]
    fn what_waits_is_bounded_and_taken_in_order() {
        let gathering = Gathering::new(1);
        let _under_way = gathering.begin(limits::PROPOSALS_MAX);
        assert!(gathering.has_some().now_or_never().is_none());
        for number in 1..limits::PROPOSALS_MAX {
            assert_eq!(gathering.push(number, 1), Ok(()));
        }
        assert_eq!(gathering.push(limits::PROPOSALS_MAX, 10), Ok(()), "some that came together");
        assert_eq!(gathering.push(0, 1), Err(Unavailable::TooManyRequests));
        assert_eq!(gathering.gathered(), limits::PROPOSALS_MAX + 9);
        assert!(gathering.has_some().now_or_never().is_some());
        assert!(gathering.take().into_iter().eq(1..=limits::PROPOSALS_MAX));
        assert!(gathering.has_some().now_or_never().is_none());
    }
}
