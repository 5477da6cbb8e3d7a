//! Tells streams that require a leader when there has been none for too long.
//!
//! Requests are refused at once while no leader is known, but a stream is dear to open again, so
//! it is ended only after [`ROUNDS`] election timeouts without a leader, as in etcd. One task
//! looks for all streams.

use std::future::{self, Future};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::env::clock;
use crate::raft::Gateway;

/// Election timeouts without a leader after which streams are ended; as in etcd.
const ROUNDS: u32 = 3;

/// A handle to the task that looks for a leader; every stream takes a part of it.
#[derive(Clone, Debug)]
pub struct LeaderLoss {
    losses: watch::Receiver<u64>,
}

impl LeaderLoss {
    /// Begins to look for a leader once in every election timeout. The task ends by itself once
    /// nobody holds a handle any more.
    pub fn spawn(gateway: Gateway, election_timeout: Duration) -> (Self, JoinHandle<()>) {
        Self::spawn_with(move || gateway.status().leader.is_some(), election_timeout)
    }

    fn spawn_with(
        has_leader: impl Fn() -> bool + Send + 'static,
        election_timeout: Duration,
    ) -> (Self, JoinHandle<()>) {
        let (loss, losses) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut rounds = Rounds::default();
            while !loss.is_closed() {
                clock::sleep(election_timeout).await;
                if rounds.are_over(has_leader()) {
                    loss.send_modify(|count| *count += 1);
                }
            }
        });
        (Self { losses }, task)
    }

    /// Resolves when the leader is lost from now on; never where the task has ended.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        async move {
            if losses.changed().await.is_err() {
                future::pending::<()>().await;
            }
        }
    }
}

/// Counts looks for a leader that found none.
#[derive(Default)]
struct Rounds {
    without_leader: u32,
}

impl Rounds {
    /// Takes what the last look found; true once for every [`ROUNDS`] in a row without a leader.
    fn are_over(&mut self, has_leader: bool) -> bool {
        self.without_leader = if has_leader { 0 } else { self.without_leader + 1 };
        let over = self.without_leader == ROUNDS;
        if over {
            self.without_leader = 0;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn only_rounds_in_a_row_count() {
        let mut rounds = Rounds::default();
        let looks = [false, false, true, false, false, false, false, false, false, true];
        let over = looks.map(|has_leader| rounds.are_over(has_leader));
        assert_eq!(over, [false, false, false, false, false, true, false, false, true, false]);
    }

    #[tokio::test]
    async fn an_earlier_loss_does_not_end_a_later_stream() {
        let leader = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&leader);
        let (loss, task) = LeaderLoss::spawn_with(move || seen.load(Ordering::Relaxed), Duration::from_millis(1));
        loss.lost().await;
        leader.store(true, Ordering::Relaxed);
        let later = loss.lost();
        drop(loss);
        assert!(tokio::time::timeout(Duration::from_millis(20), later).await.is_err());
        // Nobody holds a handle any more.
        task.await.unwrap();
    }
}
