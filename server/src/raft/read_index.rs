//! One quorum round for all linearizable reads that wait.
//!
//! A round asks "who leads, and how far is everything committed that was acknowledged before?".
//! A read that arrives while a round is under way must not share it, for the round may have begun
//! before a write that the reader already knows of; it joins the next one.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use super::gateway::Unavailable;
use crate::env::probe;
use crate::limits;

/// What a round answers: the index that a reader's state must have reached.
type Reply = oneshot::Sender<Result<u64, Unavailable>>;

/// The handle to the owner of the rounds.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    inbox: mpsc::Sender<Reply>,
}

impl ReadIndex {
    /// Starts the owner; `round` runs one round.
    pub(crate) fn spawn<F, R>(round: F) -> (Self, tokio::task::JoinHandle<()>)
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = Result<u64, Unavailable>> + Send + 'static,
    {
        let (inbox, waiting) = mpsc::channel(limits::READ_INDEX_INBOX);
        (Self { inbox }, tokio::task::spawn(run(waiting, round)))
    }

    /// Waits for a round that begins after this call.
    pub(crate) async fn wait(&self) -> Result<u64, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(reply).await.map_err(|_| Unavailable::Stopped)?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }
}

async fn run<F, R>(mut waiting: mpsc::Receiver<Reply>, round: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<u64, Unavailable>>,
{
    let mut replies = Vec::new();
    while waiting.recv_many(&mut replies, limits::READ_INDEX_INBOX).await > 0 {
        replies.retain(|reply: &Reply| !reply.is_closed());
        if replies.is_empty() {
            continue; // everybody gave up meanwhile
        }
        if replies.len() > 1 {
            probe::reached("read-index-shared");
        }
        let result = round().await;
        if probe::broken("read-joins-running-round") {
            // Wrong: who came while the round was under way gets its answer, which may be older than the question.
            while let Ok(late) = waiting.try_recv() {
                replies.push(late);
            }
        }
        for reply in replies.drain(..) {
            // A reader that gave up needs no answer.
            reply.send(result).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn reads_that_wait_share_a_round_and_later_ones_get_a_new_one() {
        let rounds = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (counter, entry) = (rounds.clone(), gate.clone());
        let (reads, _task) = ReadIndex::spawn(move || {
            let (counter, entry) = (counter.clone(), entry.clone());
            async move {
                let round = counter.fetch_add(1, Ordering::SeqCst) + 1;
                entry.acquire().await.unwrap().forget();
                Ok(round)
            }
        });
        let first = tokio::spawn({
            let reads = reads.clone();
            async move { reads.wait().await }
        });
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let late: Vec<_> = (0..10)
            .map(|_| {
                tokio::spawn({
                    let reads = reads.clone();
                    async move { reads.wait().await }
                })
            })
            .collect();
        while reads.inbox.capacity() > limits::READ_INDEX_INBOX - 10 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(1));
        for read in late {
            assert_eq!(read.await.unwrap(), Ok(2), "a read must not share a round that began before it");
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }
}
