//! Who leads, as this member sees it, and handing the leadership over.

use std::time::Duration;

use futures_util::Stream;
use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};

use super::type_config::{Raft, TypeConfig};
use crate::env::clock;
use crate::limits;

/// What one member takes for true about the leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadershipView {
    /// The member whose view it is.
    pub member_id: u64,
    /// Its term.
    pub term: u64,
    /// Whether it takes itself for the leader of that term.
    pub leads: bool,
    /// The leader of that term, where it knows one.
    pub leader: Option<u64>,
}

/// Why the leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This member does not lead.
    #[error("not leader")]
    NotLeader,
    /// The other has no vote, or is no member.
    #[error("the new leader has to be a voting member")]
    NotVoter,
    /// The other did not take over in time; it may still.
    #[error("the new leader did not take over in time")]
    Timeout,
    /// The server is stopping.
    #[error("server stopped")]
    Stopped,
}

/// A handle to the leadership of one member's consensus.
#[derive(Clone)]
pub struct Leadership {
    raft: Raft,
    election_timeout: Duration,
}

impl Leadership {
    pub(super) fn new(raft: Raft, election_timeout: Duration) -> Self {
        Self { raft, election_timeout }
    }

    /// The present view.
    pub fn view(&self) -> LeadershipView {
        view(&self.raft.server_metrics().borrow_watched())
    }

    /// Whether this member has a vote, as far as it knows, and no change of the votes is under way.
    pub fn has_vote(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        matches!(&configs[..], [votes] if votes.contains(&metrics.id))
    }

    /// Who has a vote, as far as this member knows; in a change, who had one and who will.
    pub fn voters(&self) -> Vec<u64> {
        self.raft.server_metrics().borrow_watched().membership_config.voter_ids().collect()
    }

    /// The voter that has most of the log, as far as this leader knows, of those that suit, answer, and are not far
    /// behind: a hand-over cannot be taken back, and whoever does not take over leaves the cluster without a leader.
    pub fn heir(&self, suits: impl Fn(u64) -> bool) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = |id: &u64| matched_in(&metrics, *id);
        let comes = |id: &u64| {
            let heard = metrics.heartbeat.iter().flatten().find(|(of, _)| *of == id);
            let answers = heard
                .and_then(|(_, at)| *at)
                .is_some_and(|at| openraft::Instant::elapsed(&*at) <= self.election_timeout);
            answers && matched(id).is_some_and(|matched| matched + limits::COMMIT_APPLY_GAP_MAX >= last)
        };
        let others = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id && suits(*id));
        others.filter(comes).max_by_key(matched)
    }

    /// Whether this member asks for votes when it hears of no leader.
    pub fn stand_for_election(&self, stands: bool) {
        self.raft.runtime_config().elect(stands);
    }

    /// The present view and then every later one; views that follow each other faster than they are
    /// read are left out. Ends with consensus.
    pub fn views(&self) -> impl Stream<Item = LeadershipView> + Send + 'static {
        futures_util::stream::unfold((self.raft.server_metrics(), None), |(mut metrics, last)| async move {
            loop {
                let now = view(&metrics.borrow_and_update());
                if last != Some(now) {
                    return Some((now, (metrics, Some(now))));
                }
                metrics.changed().await.ok()?;
            }
        })
    }

    /// Hands the leadership to another voter and waits until it was seen to lead.
    ///
    /// # Errors
    /// When this member does not lead, or the other did not take over within two election timeouts.
    pub async fn transfer(&self, to: u64) -> Result<(), TransferError> {
        let mut metrics = self.raft.server_metrics();
        {
            let metrics = metrics.borrow_watched();
            if !view(&metrics).leads {
                return Err(TransferError::NotLeader);
            }
            if !metrics.membership_config.voter_ids().any(|voter| voter == to) {
                return Err(TransferError::NotVoter);
            }
            if metrics.id == to {
                return Ok(());
            }
        }
        tracing::info!(transferee = format!("{to:x}"), "leadership transfer starting");
        self.raft.trigger().transfer_leader(to).await.map_err(|_| TransferError::Stopped)?;
        let taken_over = async {
            while metrics.borrow_and_update().current_leader != Some(to) {
                metrics.changed().await.map_err(|_| TransferError::Stopped)?;
            }
            Ok(())
        };
        clock::timeout(2 * self.election_timeout, taken_over).await.unwrap_or(Err(TransferError::Timeout))
    }
}

/// Up to which entry this leader knows another member to have the log.
pub(super) fn matched_in(metrics: &RaftMetrics<TypeConfig>, id: u64) -> Option<u64> {
    metrics.replication.as_ref()?.get(&id)?.map(|log_id| log_id.index)
}

fn view(metrics: &openraft::metrics::RaftServerMetrics<TypeConfig>) -> LeadershipView {
    LeadershipView {
        member_id: metrics.id,
        term: metrics.vote.leader_id.term,
        leads: metrics.state == ServerState::Leader,
        leader: metrics.current_leader,
    }
}
