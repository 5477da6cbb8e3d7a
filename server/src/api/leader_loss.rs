//! Tells streams that require a leader when there has been none for too long.
//!
//! Requests are refused at once while no leader is known, but a stream is dear to open again, so
//! it is ended only after [`ROUNDS`] election timeouts without a leader, as in etcd. One task
//! looks for all streams.

use std::future::{self, Future};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

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
            let mut rounds_without = 0;
            while !loss.is_closed() {
                tokio::time::sleep(election_timeout).await;
                rounds_without = if has_leader() { 0 } else { rounds_without + 1 };
                if rounds_without >= ROUNDS {
                    loss.send_modify(|count| *count += 1);
                    rounds_without = 0;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(1000);

    fn start(leader: &Arc<AtomicBool>) -> LeaderLoss {
        let leader = Arc::clone(leader);
        LeaderLoss::spawn_with(move || leader.load(Ordering::Relaxed), TIMEOUT).0
    }

    #[cfg(not(madsim))]
    #[tokio::test(start_paused = true)]
    async fn streams_end_after_three_rounds_without_a_leader() {
        let leader = Arc::new(AtomicBool::new(true));
        let loss = start(&leader);
        let lost = loss.lost();
        tokio::pin!(lost);
        assert!(tokio::time::timeout(TIMEOUT * 10, &mut lost).await.is_err());
        leader.store(false, Ordering::Relaxed);
        assert!(tokio::time::timeout(TIMEOUT * 2, &mut lost).await.is_err());
        leader.store(true, Ordering::Relaxed);
        assert!(tokio::time::timeout(TIMEOUT * 10, &mut lost).await.is_err());
        leader.store(false, Ordering::Relaxed);
        assert!(tokio::time::timeout(TIMEOUT * 4, &mut lost).await.is_ok());
    }

    #[cfg(not(madsim))]
    #[tokio::test(start_paused = true)]
    async fn an_earlier_loss_does_not_end_a_later_stream() {
        let leader = Arc::new(AtomicBool::new(false));
        let loss = start(&leader);
        loss.lost().await;
        leader.store(true, Ordering::Relaxed);
        assert!(tokio::time::timeout(TIMEOUT * 10, loss.lost()).await.is_err());
    }
}
