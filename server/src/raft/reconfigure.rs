//! Changes of the members, carried out by the leader: those that are asked for, and its chores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_proto::etcdserverpb::AlarmType;
use mainstay_proto::mainstay::MemberRefusal;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};

use super::confirmation::Confirmation;
use super::gateway::Unavailable;
use super::members::{MemberChange, MemberRules, Plan, Situation};
use super::type_config::{LogId, Raft};
use crate::apply::{AlarmView, MemberView};
use crate::env::clock;
use crate::env::probe;

/// Pause before a change is tried again that found another one under way.
const RETRY_INTERVAL: Duration = Duration::from_millis(25);

/// The one place of a member that changes the members, where it leads.
pub(crate) struct Reconfigure {
    raft: Raft,
    confirmation: Arc<Confirmation>,
    published: MemberView,
    alarms: AlarmView,
    rules: MemberRules,
    /// Who did not answer for this long is taken for down.
    silence: Duration,
    /// One at a time: each is judged on what the one before it left.
    turn: tokio::sync::Mutex<()>,
}

/// How a step ended that was not refused.
enum Step {
    Done(u64),
    /// Another change is under way, or this leader has not committed anything yet.
    Busy,
}

impl Reconfigure {
    pub(crate) fn new(
        raft: Raft,
        confirmation: Arc<Confirmation>,
        (published, alarms): (MemberView, AlarmView),
        rules: MemberRules,
        election_timeout: Duration,
    ) -> Self {
        Self {
            raft,
            confirmation,
            published,
            alarms,
            rules,
            silence: 2 * election_timeout,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Changes the members, as the leader; the index of the entry, or why it was refused.
    pub(crate) async fn change(&self, change: &MemberChange) -> Result<Result<u64, MemberRefusal>, Unavailable> {
        loop {
            {
                let _turn = self.turn.lock().await;
                let (plan, before) = match self.look(|situation| situation.plan(change))? {
                    (Ok(plan), before) => (plan, before),
                    (Err(refusal), before) if !self.is_settled(refusal, before).await? => {
                        tracing::debug!(?change, ?refusal, "the members may be others meanwhile");
                        continue;
                    }
                    (Err(refusal), _) => {
                        tracing::warn!(?change, ?refusal, "rejecting a change of the members");
                        return Ok(Err(refusal));
                    }
                };
                if let Step::Done(index) = self.carry_out(plan, before).await? {
                    tracing::info!(?change, index, "changed the members");
                    return Ok(Ok(index));
                }
            }
            clock::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Does what is to be done without being asked, for as long as the task runs.
    pub(crate) async fn chores(&self, interval: Duration) {
        loop {
            clock::sleep(interval).await;
            let _turn = self.turn.lock().await;
            let Ok((Some(plan), before)) = self.look(|situation| situation.chore()) else { continue };
            let what = plan.to_string();
            match self.carry_out(plan, before).await {
                Ok(Step::Done(index)) => {
                    probe::reached("membership-chore-done");
                    tracing::info!(what, index, "changed the members");
                }
                Ok(Step::Busy) => {}
                Err(error) => tracing::debug!(what, %error, "the members are not changed yet"),
            }
        }
    }

    /// Looks at what this leader knows of the members, and where in the log they were set.
    fn look<T>(&self, judge: impl FnOnce(&Situation<'_>) -> T) -> Result<(T, Option<LogId>), Unavailable> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Err(Unavailable::NotLeader);
        }
        let stored = &metrics.membership_config;
        let heard = metrics.heartbeat.iter().flatten();
        let heard = heard.filter(|(_, at)| at.is_some_and(|at| openraft::Instant::elapsed(&*at) <= self.silence));
        let matched = metrics.replication.iter().flatten();
        let situation = Situation {
            membership: stored.membership(),
            leader: metrics.id,
            started: stored.nodes().map(|(id, _)| *id).filter(|id| self.published.get(*id).is_some()).collect(),
            active: heard.map(|(id, _)| *id).chain([metrics.id]).collect::<BTreeSet<u64>>(),
            matched: matched.filter_map(|(id, log_id)| Some((*id, log_id.as_ref()?.index))).collect::<BTreeMap<_, _>>(),
            last: metrics.last_log_index.unwrap_or(0),
            removed: self.published.removed().into_iter().collect(),
            corrupt: self.alarms.named(AlarmType::Corrupt),
            // Wrong where it is broken: a change may cost the quorum.
            rules: MemberRules { strict: self.rules.strict && !probe::broken("strict-check-skipped"), ..self.rules },
        };
        Ok((judge(&situation), *stored.log_id()))
    }

    /// Whether a refusal still holds. What it was judged on may be a change that never gets committed, or this member
    /// may have been deposed since. How healthy the cluster is it judges by itself, as etcd does.
    async fn is_settled(&self, refusal: MemberRefusal, before: Option<LogId>) -> Result<bool, Unavailable> {
        use MemberRefusal::{LearnerNotReady, NotEnoughStarted, Unhealthy};
        // Wrong where it is broken: the refusal says what may never be so.
        if matches!(refusal, Unhealthy | NotEnoughStarted | LearnerNotReady)
            || probe::broken("refused-by-the-uncommitted")
        {
            return Ok(true);
        }
        match self.confirmation.confirm().await {
            Ok(committed) => {
                let is_committed = before.is_none_or(|before| before.index <= committed);
                if !is_committed || self.last_change() != before {
                    clock::sleep(RETRY_INTERVAL).await;
                    return Ok(false);
                }
                Ok(true)
            }
            Err(Unavailable::Stopped) => Err(Unavailable::Stopped),
            Err(_) => Err(Unavailable::NotLeader),
        }
    }

    /// Hands a plan to openraft; `before` is the entry that set the members on which it was made.
    async fn carry_out(&self, plan: Plan, before: Option<LogId>) -> Result<Step, Unavailable> {
        use RaftError::{APIError, Fatal};
        // openraft would refuse it as well, and complain.
        let committed = self.raft.metrics().borrow_watched().cluster_committed;
        if before.is_some_and(|before| committed.is_none_or(|committed| committed.index < before.index)) {
            return Ok(Step::Busy);
        }
        // Whoever is removed is no learner either.
        match self.raft.change_membership(plan, false).await {
            Ok(response) => Ok(Step::Done(response.log_id.index)),
            Err(APIError(ClientWriteError::ForwardToLeader(_))) if self.last_change() == before => {
                Err(Unavailable::NotLeader)
            }
            Err(APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(_)))) => {
                Ok(Step::Busy) // it was removed meanwhile: look again
            }
            Err(APIError(ClientWriteError::ChangeMembershipError(_))) => Ok(Step::Busy),
            // A part of it is in the log, and the next leader may complete it.
            Err(APIError(_)) => Err(Unavailable::TimeoutLeaderFailure),
            Err(Fatal(_)) => Err(Unavailable::Stopped),
        }
    }

    fn last_change(&self) -> Option<LogId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        *metrics.membership_config.log_id()
    }
}
