//! The owner of the leases' deadlines: knows when each lease ends, and ends it.
//!
//! One task with a bounded inbox, behind the `Lessor` handle. It keeps deadlines only while this member
//! leads; otherwise every question is answered with `NotPrimary`. What it decides takes effect only as
//! a command, proposed for the term in which it was decided: a leader that was deposed meanwhile cannot
//! end a lease that the new one has renewed.
//!
//! - **Invariant:** a lease that was renewed is not revoked before its granted time has passed again:
//!   a renewal after the end is answered with 0, one before it moves the deadline first
//!   (`tests::a_renewed_lease_stays`).
//! - **Invariant:** a renewal is answered only when no checkpoint is left that would end the lease
//!   early under the next leader (`tests::a_renewal_waits_until_its_checkpoint_is_cleared`).
//! - Where many leases end together, one follows the other as fast as the group takes them, and never more than
//!   [`limits::LEASE_REVOKES_UNDER_WAY`] are under way, so that clients' writes have their turn
//!   (`tests::leases_that_end_together_do_not_wait_for_rounds`).
//! - The inbox is read while proposals are under way, so the state machine, which reports every
//!   change here, never waits for itself.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use mainstay_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::deadlines::{Deadlines, Renewal};
use crate::command::{Outcome, Refusal, command};
use crate::env::clock::{self, Instant};
use crate::env::probe;
use crate::lease::{LeaseChange, LeaseView, LessorMessage, NotPrimary};
use crate::limits;
use crate::raft::Unavailable;

/// How often leases that ran out are looked for; as in etcd.
const ROUND: Duration = Duration::from_millis(500);

/// Proposes a command as the leader of a term; fails where this member no longer leads in that term.
pub type ProposeAsLeader =
    Arc<dyn Fn(u64, command::Kind) -> BoxFuture<'static, Result<Outcome, Unavailable>> + Send + Sync>;

/// How an expirer behaves.
#[derive(Clone, Copy, Debug)]
pub struct ExpirerOptions {
    /// What every lease gets on top when a term begins: the election timeout at least.
    pub extension: Duration,
    /// How often the remaining time of long leases is recorded.
    pub checkpoint_interval: Duration,
}

impl ExpirerOptions {
    /// The behaviour for an election timeout; all else as in etcd.
    pub fn new(election_timeout: Duration) -> Self {
        Self { extension: election_timeout, checkpoint_interval: Duration::from_secs(300) }
    }
}

/// Starts the expirer. It ends at [`LessorMessage::Stop`], or when every `Lessor` is gone.
pub fn spawn(
    inbox: mpsc::Receiver<LessorMessage>,
    leases: LeaseView,
    propose: ProposeAsLeader,
    options: ExpirerOptions,
) -> JoinHandle<()> {
    tokio::spawn(run(inbox, Expirer { leases, propose, options, primary: None }))
}

struct Expirer {
    leases: LeaseView,
    propose: ProposeAsLeader,
    options: ExpirerOptions,
    /// `None` while this member does not lead.
    primary: Option<Primary>,
}

/// What is known during one term of leadership. Dropping it forgets proposals that are under way;
/// those who wait for them learn that this member is not primary.
struct Primary {
    term: u64,
    deadlines: Deadlines,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Revocations among them.
    revoking: usize,
    /// Revocations that failed since the last round.
    failed: usize,
    /// Whether a checkpoint is among them. One at a time, so that a renewal's clearing cannot
    /// overtake the checkpoint that it clears.
    checkpointing: bool,
    /// Renewals that wait for their turn to clear a checkpoint.
    clearings: Vec<Clearing>,
}

/// A renewal that is answered when the lease's checkpoint is cleared.
struct Clearing {
    id: i64,
    ttl: i64,
    reply: oneshot::Sender<Result<i64, NotPrimary>>,
}

/// A proposal that has come to its end.
enum Ended {
    Revocation { id: i64, result: Result<Outcome, Unavailable> },
    Checkpoint { clearings: Vec<Clearing>, result: Result<Outcome, Unavailable> },
}

async fn run(mut inbox: mpsc::Receiver<LessorMessage>, mut expirer: Expirer) {
    let mut next_round = std::pin::pin!(clock::sleep_until(clock::now()));
    let mut messages = Vec::new();
    loop {
        // Rounds are rare and proposals bounded, so neither starves the inbox, which may be full at all times.
        tokio::select! {
            biased;
            () = &mut next_round => {
                next_round.set(clock::sleep(ROUND));
                expirer.round();
            }
            ended = next_ended(&mut expirer.primary) => expirer.ended(ended),
            count = inbox.recv_many(&mut messages, limits::LESSOR_TOGETHER) => {
                if count == 0 {
                    return;
                }
                let now = clock::now();
                for message in messages.drain(..) {
                    if matches!(message, LessorMessage::Stop) {
                        return;
                    }
                    expirer.receive(now, message);
                }
            }
        }
    }
}

/// The next proposal that comes to its end; waits for ever where none is under way.
async fn next_ended(primary: &mut Option<Primary>) -> Ended {
    if let Some(primary) = primary
        && let Some(ended) = primary.under_way.next().await
    {
        return ended;
    }
    std::future::pending().await
}

impl Expirer {
    fn receive(&mut self, now: Instant, message: LessorMessage) {
        match message {
            LessorMessage::Renew { id, reply } => self.renew(now, id, reply),
            LessorMessage::Remaining { id, reply } => {
                let primary = self.primary.as_ref().ok_or(NotPrimary);
                answer(reply, primary.map(|primary| primary.deadlines.remaining(now, id)));
            }
            LessorMessage::Order { reply } => {
                let primary = self.primary.as_ref().ok_or(NotPrimary);
                answer(reply, primary.map(|primary| primary.deadlines.order()));
            }
            LessorMessage::Changed(changes) => self.changed(now, &changes),
            LessorMessage::Leadership { leading: true, term } => self.lead(now, term),
            LessorMessage::Leadership { leading: false, term } => {
                if self.primary.take().is_some() {
                    info!(term, "no longer looks after leases");
                }
            }
            LessorMessage::Stop => {}
        }
    }

    fn lead(&mut self, now: Instant, term: u64) {
        if self.primary.as_ref().is_some_and(|primary| primary.term == term) {
            return;
        }
        let mut terms = self.leases.terms();
        if !terms.is_empty() && probe::broken("forget-lease-on-leader-change") {
            // Wrong: a new leader knows only the leases that were granted in its own term.
            terms.clear();
        }
        info!(term, leases = terms.len(), "looks after leases");
        let deadlines = Deadlines::new(now, terms, self.options.extension, self.options.checkpoint_interval);
        self.primary = Some(Primary {
            term,
            deadlines,
            under_way: FuturesUnordered::new(),
            revoking: 0,
            failed: 0,
            checkpointing: false,
            clearings: Vec::new(),
        });
    }

    fn changed(&mut self, now: Instant, changes: &[LeaseChange]) {
        let Some(primary) = &mut self.primary else { return };
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl } => primary.deadlines.granted(now, id, ttl),
                LeaseChange::Revoked { id } => primary.deadlines.forget(id),
                // That one was cleared is known when its proposal ends; a report may be older than that.
                LeaseChange::Checkpointed { remaining: 0, .. } => {}
                LeaseChange::Checkpointed { id, .. } => primary.deadlines.checkpointed(id),
            }
        }
    }

    fn renew(&mut self, now: Instant, id: i64, reply: oneshot::Sender<Result<i64, NotPrimary>>) {
        let Some(primary) = &mut self.primary else {
            return answer(reply, Err(NotPrimary));
        };
        match primary.deadlines.renew(now, id) {
            // etcd waits for the revocation and then answers the same.
            Renewal::Ended => {
                probe::reached("lease-renewed-too-late");
                answer(reply, Ok(0));
            }
            Renewal::Renewed { ttl } => {
                probe::reached("lease-renewed");
                answer(reply, Ok(ttl));
            }
            Renewal::Checkpointed { ttl } => {
                probe::reached("lease-renewal-clears-checkpoint");
                primary.clearings.push(Clearing { id, ttl, reply });
                self.checkpoint(Vec::new());
            }
        }
    }

    /// Proposes to revoke what ran out, and to record what is left of the rest.
    fn round(&mut self) {
        let now = clock::now();
        let Some(primary) = &mut self.primary else { return };
        let failed = std::mem::take(&mut primary.failed);
        if failed > 0 {
            warn!(failed, "leases ran out, but could not be revoked; they will be tried again");
        }
        revoke_expired(primary, &self.propose, now);
        if !primary.checkpointing {
            let due = primary.deadlines.take_checkpoints(now, limits::LEASE_CHECKPOINTS_PER_COMMAND);
            self.checkpoint(due);
        }
    }

    /// Proposes checkpoints, and the clearing of those that renewals wait for, unless that is under way.
    fn checkpoint(&mut self, mut checkpoints: Vec<LeaseCheckpoint>) {
        let Some(primary) = &mut self.primary else { return };
        if primary.checkpointing || (checkpoints.is_empty() && primary.clearings.is_empty()) {
            return;
        }
        probe::reached("lease-checkpoint-proposed");
        let count = primary.clearings.len().min(limits::LEASE_CHECKPOINTS_PER_COMMAND);
        let clearings: Vec<_> = primary.clearings.drain(..count).collect();
        // Last, so that a lease that is in both is cleared.
        checkpoints.extend(clearings.iter().map(|clearing| LeaseCheckpoint { id: clearing.id, remaining_ttl: 0 }));
        let proposal =
            (self.propose)(primary.term, command::Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
        primary.under_way.push(Box::pin(async move { Ended::Checkpoint { clearings, result: proposal.await } }));
        primary.checkpointing = true;
    }

    fn ended(&mut self, ended: Ended) {
        let Some(primary) = &mut self.primary else { return };
        match ended {
            Ended::Revocation { id, result } => {
                primary.revoking -= 1;
                debug!(id, ?result, "lease ran out");
                if is_gone(&result) {
                    primary.deadlines.revoked(id);
                } else {
                    probe::reached("lease-revocation-failed");
                    primary.failed += 1;
                    primary.deadlines.not_revoked(clock::now(), id);
                }
                // The others that ran out need not wait for the next round, unless they would fail as well. Not one by
                // one: those that are proposed together share a write of the log.
                if primary.failed == 0 && primary.revoking <= limits::LEASE_REVOKES_UNDER_WAY / 2 {
                    revoke_expired(primary, &self.propose, clock::now());
                }
            }
            Ended::Checkpoint { clearings, result } => {
                primary.checkpointing = false;
                if let Err(error) = &result {
                    warn!(%error, "remaining time of leases was not recorded");
                }
                for Clearing { id, ttl, reply } in clearings {
                    if result.is_ok() {
                        primary.deadlines.cleared(id);
                    }
                    answer(reply, if result.is_ok() { Ok(ttl) } else { Err(NotPrimary) });
                }
                self.checkpoint(Vec::new());
            }
        }
    }
}

/// Proposes to revoke what ran out, as far as there is room.
fn revoke_expired(primary: &mut Primary, propose: &ProposeAsLeader, now: Instant) {
    let room = limits::LEASE_REVOKES_UNDER_WAY.saturating_sub(primary.revoking);
    for id in primary.deadlines.take_expired(now, room) {
        probe::reached("lease-expired");
        let revoke = command::Kind::LeaseRevoke(LeaseRevokeRequest { id });
        let proposal = propose(primary.term, revoke);
        primary.under_way.push(Box::pin(async move { Ended::Revocation { id, result: proposal.await } }));
        primary.revoking += 1;
    }
}

/// Whether a lease does not exist any more after its revocation was proposed.
fn is_gone(result: &Result<Outcome, Unavailable>) -> bool {
    match result.as_ref().map(Outcome::refusal) {
        Ok(Refusal::None | Refusal::LeaseNotFound) => true,
        // An alarm forbids it for now.
        Ok(_) | Err(_) => false,
    }
}

/// Answers who may have stopped waiting.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    reply.send(value).ok();
}
