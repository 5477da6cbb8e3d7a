use tokio::sync::{mpsc, oneshot};

use super::LeaseChange;
use crate::limits;

/// What is left of a lease, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Seconds left, rounded down.
    pub ttl: i64,
    /// Seconds that were granted.
    pub granted_ttl: i64,
}

/// This member does not look after the leases: it does not lead, or stopped leading meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a primary lessor")]
pub struct NotPrimary;

/// The way to the owner of the leases' deadlines, the leader's expirer.
///
/// Its inbox is bounded; who sends waits while it is full.
#[derive(Clone, Debug)]
pub struct Lessor {
    tx: mpsc::Sender<LessorMessage>,
}

/// What the expirer is told and asked.
#[derive(Debug)]
pub enum LessorMessage {
    /// Gives a lease its whole time to live again.
    Renew {
        /// The lease.
        id: i64,
        /// Receives the granted time to live; 0 where the lease is unknown or has ended.
        reply: oneshot::Sender<Result<i64, NotPrimary>>,
    },
    /// Asks what is left of a lease.
    Remaining {
        /// The lease.
        id: i64,
        /// Receives it; `None` where the lease is unknown.
        reply: oneshot::Sender<Result<Option<Remaining>, NotPrimary>>,
    },
    /// Asks for the ids of all leases by the time that is left of them.
    Order {
        /// Receives them, the one that ends next first.
        reply: oneshot::Sender<Result<Vec<i64>, NotPrimary>>,
    },
    /// Leases changed, in this order.
    Changed(Vec<LeaseChange>),
    /// This member began or ceased to lead.
    Leadership {
        /// Whether it leads.
        leading: bool,
        /// The term in which it does.
        term: u64,
    },
    /// The node is stopping.
    Stop,
}

impl Lessor {
    /// Makes a handle and the inbox behind it, for `lease_expirer::spawn`.
    pub fn channel() -> (Self, mpsc::Receiver<LessorMessage>) {
        let (tx, rx) = mpsc::channel(limits::LESSOR_INBOX);
        (Self { tx }, rx)
    }

    /// Renews a lease and returns its granted time to live in seconds, 0 where it is unknown or has ended.
    pub async fn renew(&self, id: i64) -> Result<i64, NotPrimary> {
        self.ask(|reply| LessorMessage::Renew { id, reply }).await
    }

    /// Returns what is left of a lease; `None` where it is unknown.
    pub async fn remaining(&self, id: i64) -> Result<Option<Remaining>, NotPrimary> {
        self.ask(|reply| LessorMessage::Remaining { id, reply }).await
    }

    /// Returns the ids of all leases, the one that ends next first.
    pub async fn order(&self) -> Result<Vec<i64>, NotPrimary> {
        self.ask(|reply| LessorMessage::Order { reply }).await
    }

    /// Tells what a run of commands changed; the state machine calls this in log order.
    pub async fn changed(&self, changes: Vec<LeaseChange>) {
        if !changes.is_empty() {
            self.tell(LessorMessage::Changed(changes)).await;
        }
    }

    /// Tells whether this member leads. `leading` should be told only once this member has applied
    /// everything that was committed before its term: earlier, a revocation by its predecessor may
    /// still be ahead of what the lease view shows.
    pub async fn leadership(&self, leading: bool, term: u64) {
        self.tell(LessorMessage::Leadership { leading, term }).await;
    }

    /// Ends the expirer. Needed because what it proposes through holds a handle to it.
    pub async fn stop(&self) {
        self.tell(LessorMessage::Stop).await;
    }

    async fn tell(&self, message: LessorMessage) {
        // An expirer that has ended has nothing left to be told.
        self.tx.send(message).await.ok();
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, NotPrimary>>) -> LessorMessage,
    ) -> Result<T, NotPrimary> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).await;
        answer.await.unwrap_or(Err(NotPrimary))
    }
}
