mod forwarding;
mod gathering;
mod proposals;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::{MemberRefusal, MembersResponse};
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{RaftMetrics, ReadPolicy, ServerState};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::forwarding::{Forwarding, ForwardingOptions};
use self::gathering::{Gathering, Proposed};
use super::addresses::Addresses;
use super::codec;
use super::confirmation::Confirmation;
use super::envelope;
use super::members::{MemberChange, told_refusal};
use super::network::Client;
use super::peers::Peers;
use super::progress::ProgressView;
use super::read_index::ReadIndex;
use super::reconfigure::Reconfigure;
use super::removal::Removal;
use super::type_config::{Membership, Raft, TypeConfig, Vote};
use crate::apply::{FormatView, MemberView};
use crate::env::clock::{self, Instant};
use crate::env::probe;
use crate::env::transport;
use crate::lease::{Lessor, Remaining};
use crate::limits;
use crate::metrics::Metrics;

/// How long a call waits before it looks again for a leader, or asks again.
const RETRY_INTERVAL: Duration = Duration::from_millis(25);

/// A call that takes no longer does not look whether this member is removed meanwhile.
const PROMPT: Duration = Duration::from_millis(100);

/// Why a request could not be served now. A client may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request was under way.
    #[error("leader changed")]
    LeaderChanged,
    /// The request took longer than the request timeout.
    #[error("request timed out")]
    Timeout,
    /// The same, while the leader was lost.
    #[error("request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailure,
    /// The same, while this member was cut off from the leader or the quorum.
    #[error("request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    /// This member did not apply what it had to in time.
    #[error("request timed out, waiting for the applied index took too long")]
    TimeoutApplied,
    /// Too much is committed that is not applied yet, or too many proposals wait.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded command is larger than allowed.
    #[error("request is too large")]
    TooLarge,
    /// The request goes to the leader only, and this member does not lead.
    #[error("not leader")]
    NotLeader,
    /// Leases are looked after by the leader, and it just lost that duty.
    #[error("not a primary lessor")]
    NotPrimaryLessor,
    /// The server is stopping.
    #[error("server stopped")]
    Stopped,
}

/// What this member knows of consensus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The cluster.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// The leader, where one is known and was heard of lately.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Index of the last entry that was applied here.
    pub applied: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Whether this member joins a cluster and has not been told yet that it is a member, and of which kind; or is none
    /// any more.
    pub is_outside: bool,
}

/// What a member is to its cluster, as far as that decides what it serves; as in [`Status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Whether it is not known yet, or not any more, to be a member.
    pub is_outside: bool,
}

/// A member of the cluster, as this one knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// What the gateway needs to know of this member.
#[derive(Clone, Debug)]
pub(crate) struct GatewayOptions {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) election_timeout: Duration,
    pub(crate) request_bytes_max: usize,
    /// From how many proposals under way on they wait for each other.
    pub(crate) gather_from: usize,
    /// Whether the others were there before this member.
    pub(crate) joins: bool,
    /// The newest format that this release knows.
    pub(crate) newest_format: u32,
    /// Index of the last entry that the log held at the start. The first one, 0, is the list of first members.
    pub(crate) log_at_start: Option<u64>,
    pub(crate) removal: Removal,
}

/// The way to the replicated state for `api`, `http` and `leader`: propose, wait for a read, ask.
///
/// Every call ends within the request timeout, [`limits::REQUEST_TIMEOUT_BASE`] and two election timeouts.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    options: GatewayOptions,
    raft: Raft,
    /// What consensus publishes. Kept, since to ask for the channel anew counts a receiver in and out each time.
    published: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    published_server: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    members: MemberView,
    format: FormatView,
    addresses: Addresses,
    lessor: Lessor,
    metrics: Arc<Metrics>,
    peers: Arc<Peers>,
    confirmation: Arc<Confirmation>,
    reconfigure: Arc<Reconfigure>,
    removal: Removal,
    reads: ReadIndex,
    applied: ProgressView,
    proposals: Semaphore,
    gathering: Arc<Gathering<Proposed>>,
    forwarding: Arc<Forwarding>,
    /// The last term of which, as its leader, this member has applied an entry.
    covers_term: AtomicU64,
    /// When the leader of which term was last heard of. A leaf lock.
    contact: Mutex<Option<(u64, Instant)>>,
}

impl Gateway {
    /// Opens the way to a member's consensus; the handles are of the tasks that run the ReadIndex rounds, gather
    /// proposals, and pass them on.
    pub(crate) fn new(
        options: GatewayOptions,
        raft: Raft,
        (members, format, addresses): (MemberView, FormatView, Addresses),
        (peers, confirmation, reconfigure): (Arc<Peers>, Arc<Confirmation>, Arc<Reconfigure>),
        lessor: Lessor,
        metrics: Arc<Metrics>,
        applied: ProgressView,
    ) -> (Self, [JoinHandle<()>; 3]) {
        let (rounds_tx, rounds_rx) = watch::channel(None::<std::sync::Weak<Inner>>);
        let (reads, task) = ReadIndex::spawn(move || {
            let inner = rounds_rx.borrow().as_ref().and_then(std::sync::Weak::upgrade);
            async move {
                match inner {
                    Some(inner) => Gateway { inner }.round().await,
                    None => Err(Unavailable::Stopped),
                }
            }
        });
        let gathering = Arc::new(Gathering::new(options.gather_from));
        let gather = tokio::task::spawn({
            let (gathering, raft) = (gathering.clone(), raft.clone());
            async move { gathering.run(raft).await }
        });
        let forwarding_options = ForwardingOptions {
            cluster_id: options.cluster_id,
            member_id: options.member_id,
            election_timeout: options.election_timeout,
            gather_from: options.gather_from,
            removal: options.removal.clone(),
        };
        let forwarding = Forwarding::new(forwarding_options, raft.clone(), peers.clone(), metrics.clone());
        let forwarding = Arc::new(forwarding);
        let forward = tokio::task::spawn({
            let forwarding = forwarding.clone();
            async move { forwarding.run().await }
        });
        let inner = Arc::new(Inner {
            removal: options.removal.clone(),
            options,
            peers,
            confirmation,
            published: raft.metrics(),
            published_server: raft.server_metrics(),
            raft,
            members,
            format,
            addresses,
            reconfigure,
            lessor,
            metrics,
            reads,
            applied,
            proposals: Semaphore::new(limits::PROPOSALS_MAX),
            gathering,
            forwarding,
            covers_term: AtomicU64::new(0),
            contact: Mutex::default(),
        });
        rounds_tx.send_replace(Some(Arc::downgrade(&inner)));
        (Self { inner }, [task, gather, forward])
    }

    /// Waits until this member's state covers everything that was acknowledged before the call.
    pub async fn read_index(&self) -> Result<(), Unavailable> {
        if probe::broken("read-without-read-index") {
            // Wrong: a linearizable read is served from whatever this member has.
            return Ok(());
        }
        if self.leads_alone_in().is_some() {
            probe::reached("read-by-the-only-voter");
            return Ok(());
        }
        let term = self.leads_in();
        let covered = async {
            let index = self.inner.reads.wait().await?;
            if index > self.inner.applied.now() {
                probe::reached("read-index-waited");
                if probe::broken("read-before-applied") {
                    // Wrong: the read knows how far it must wait, and does not.
                    return Ok(());
                }
            }
            self.wait_applied(index).await
        };
        self.within_timeout(pin!(covered)).await?;
        self.covers(term);
        Ok(())
    }

    /// Notes that this member has applied what was committed before a term, if it still leads in it.
    fn covers(&self, term: Option<u64>) {
        if let Some(term) = term
            && self.inner.covers_term.load(Ordering::Acquire) != term
            && self.leads_in() == Some(term)
        {
            self.inner.covers_term.store(term, Ordering::Release);
        }
    }

    /// The term in which this member leads and is alone, and has applied what was committed before either: whatever is
    /// acknowledged from then on was applied here first. What another voter has shown to anybody lies in the log before
    /// the entry by which it went.
    ///
    /// What consensus publishes may be a moment old. So nobody else may be a member at all: a learner could have got its
    /// vote meanwhile, and show what is not applied here yet. One that is added has to be sent everything first, and can
    /// lead only after this one gave it its vote, which is published before any later vote.
    fn leads_alone_in(&self) -> Option<u64> {
        let term = self.inner.covers_term.load(Ordering::Acquire);
        let metrics = self.inner.published.borrow_watched();
        let leads_alone = term > 0
            && metrics.current_term == term
            && metrics.state == ServerState::Leader
            && is_only_member(metrics.membership_config.membership(), self.inner.options.member_id)
            && metrics.membership_config.log_id().as_ref().is_none_or(|set| set.index <= self.inner.applied.now());
        leads_alone.then_some(term)
    }

    /// Waits until this member has applied an entry of the log.
    pub async fn wait_for(&self, index: u64) -> Result<(), Unavailable> {
        if self.inner.applied.now() >= index {
            return Ok(());
        }
        self.within_timeout(pin!(self.wait_applied(index))).await
    }

    /// What this member knows of consensus right now.
    pub fn status(&self) -> Status {
        let metrics = self.inner.published.borrow_watched();
        let Role { is_learner, is_outside } = self.role_in(&metrics);
        Status {
            cluster_id: self.inner.options.cluster_id,
            member_id: self.inner.options.member_id,
            leader: self.leader_in(&metrics),
            term: metrics.current_term,
            committed: committed_in(&metrics),
            applied: self.inner.applied.now(),
            is_learner,
            is_outside,
        }
    }

    /// The cluster; as in [`Gateway::status`], as are the next ones, for who needs no more of it.
    pub fn cluster_id(&self) -> u64 {
        self.inner.options.cluster_id
    }

    /// This member.
    pub fn member_id(&self) -> u64 {
        self.inner.options.member_id
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.inner.published.borrow_watched().current_term
    }

    /// The leader, where one is known and was heard of lately.
    pub fn leader(&self) -> Option<u64> {
        self.leader_in(&self.inner.published.borrow_watched())
    }

    /// What this member is to its cluster.
    pub fn role(&self) -> Role {
        self.role_in(&self.inner.published.borrow_watched())
    }

    fn leader_in(&self, metrics: &RaftMetrics<TypeConfig>) -> Option<u64> {
        let id = self.inner.options.member_id;
        match metrics.current_leader {
            Some(leader) if leader == id => {
                // A sole voter is its own quorum, and nobody acknowledges anything to it.
                let alone = is_only_voter(metrics.membership_config.membership(), id);
                let acknowledged = metrics.last_quorum_acked.map(|at| openraft::Instant::elapsed(&*at));
                (alone || acknowledged.is_some_and(|ago| self.is_recent(ago))).then_some(leader)
            }
            Some(leader) => {
                self.heard_within(metrics.current_term, 2 * self.inner.options.election_timeout).then_some(leader)
            }
            None => None,
        }
    }

    fn role_in(&self, metrics: &RaftMetrics<TypeConfig>) -> Role {
        let id = self.inner.options.member_id;
        // A change is known as soon as it is in the log; where one is still to be made, what was applied counts.
        let learns = learner_in(metrics.membership_config.membership(), id);
        let learns = learns.or_else(|| learner_in(&self.inner.addresses.members(), id));
        Role { is_learner: learns == Some(true), is_outside: self.inner.options.joins && learns.is_none() }
    }

    /// Whether so much is committed that was not applied here yet that no more is taken.
    fn lags(&self) -> bool {
        let committed = committed_in(&self.inner.published.borrow_watched());
        committed > self.inner.applied.now() + limits::COMMIT_APPLY_GAP_MAX
    }

    /// Proposals of this member that are under way.
    pub fn pending(&self) -> u64 {
        (limits::PROPOSALS_MAX - self.inner.proposals.available_permits()) as u64
    }

    /// The members, as this one knows them.
    pub fn members(&self) -> Vec<Member> {
        let mut members = self.inner.addresses.members();
        // Before the first list of members is applied, it is in the log at best. Wrong where it is broken: a change
        // that is in the log alone may never be made.
        if members.nodes().next().is_none() || probe::broken("members-listed-before-committed") {
            members = Arc::new(self.inner.published.borrow_watched().membership_config.membership().clone());
        }
        members
            .nodes()
            .map(|(id, node)| {
                let published = self.inner.members.get(*id);
                let (name, client_urls) = published.map_or_else(Default::default, |it| (it.name, it.client_urls));
                Member { id: *id, name, peer_urls: node.peer_urls.clone(), client_urls, is_learner: node.learner }
            })
            .collect()
    }

    /// Changes the members, from any member, and returns when this one knows of it too.
    ///
    /// A timeout leaves open whether they are changed.
    pub async fn change_members(&self, change: MemberChange) -> Result<Result<(), MemberRefusal>, Unavailable> {
        let call = async {
            let request = change.to_wire(self.inner.options.cluster_id);
            let at = |client: Client| {
                let request = request.clone();
                async move { ask(client, |mut client| async move { client.change_members(request).await }).await }
            };
            let changed = self.on_leader(
                || self.change_members_here(&change),
                |client| async { at(client).await.map(|response| refused_or(response.index, told_refusal(&response))) },
            );
            match changed.await? {
                // Whoever is removed is sent no entry any more, not even that one.
                Ok(_) if change == MemberChange::Remove(self.inner.options.member_id) => Ok(Ok(())),
                Ok(index) => self.wait_applied(index).await.map(Ok),
                Err(refusal) => Ok(Err(refusal)),
            }
        };
        self.within_timeout(pin!(call)).await
    }

    /// Changes the members as the leader; the index of the entry.
    pub(crate) async fn change_members_here(
        &self,
        change: &MemberChange,
    ) -> Result<Result<u64, MemberRefusal>, Unavailable> {
        let MemberChange::Remove(id) = change else { return self.inner.reconfigure.change(change).await };
        // Where it is, nobody knows any more when it is removed.
        let removed = self.client(*id);
        let changed = self.inner.reconfigure.change(change).await;
        if let (Ok(Ok(_)), Ok(client)) = (&changed, removed) {
            self.tell_removed(*id, client);
        }
        changed
    }

    /// Tells a member that it was removed, so that it need not find out; whether it hears that is its own affair.
    fn tell_removed(&self, id: u64, client: Client) {
        if id == self.inner.options.member_id || !self.is_removed(id) {
            return;
        }
        let request = wire::RemovedRequest { cluster_id: self.inner.options.cluster_id, member_id: id };
        let tell = ask(client, move |mut client| async move { client.removed(request).await });
        let limit = self.inner.options.election_timeout;
        drop(tokio::spawn(async move {
            if !matches!(clock::timeout(limit, tell).await, Ok(Ok(_))) {
                tracing::info!(member = format!("{id:x}"), "a member that was removed was not told; it finds out");
            }
        }));
    }

    /// The members that this one has applied, for one that is to join.
    pub(crate) fn nodes(&self) -> MembersResponse {
        let members = self.inner.addresses.members();
        let nodes = members.nodes().map(|(id, node)| (*id, codec::node_to_wire(node)));
        let (cluster_id, format) = (self.inner.options.cluster_id, self.format());
        MembersResponse { cluster_id, nodes: nodes.collect(), format }
    }

    /// The format of the data, up to the last entry that was applied here.
    pub fn format(&self) -> u32 {
        self.inner.format.now()
    }

    /// The newest format that this release knows.
    pub fn newest_format(&self) -> u32 {
        self.inner.options.newest_format
    }

    /// Asks another member for the newest format that its release knows. One that is older than the question does not
    /// answer it.
    pub async fn newest_format_of(&self, id: u64) -> Result<u32, Unavailable> {
        let request = wire::ReleaseRequest { cluster_id: self.inner.options.cluster_id };
        let client = self.client(id)?;
        let asked = ask(client, |mut client| async move { client.release(request).await });
        let answer = clock::timeout(self.inner.options.election_timeout, asked).await;
        Ok(answer.unwrap_or(Err(Unavailable::Timeout))?.newest_format)
    }

    /// Whether a member was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        if probe::broken("removed-member-not-told") {
            // Wrong: who was removed is taken for a member, and may get votes.
            return false;
        }
        self.inner.members.is_removed(id)
    }

    /// Another member says that this one was removed.
    pub(super) fn was_removed(&self) {
        self.inner.removal.told_by_peer();
    }

    /// Whether the state covers what was in the log when this process started. An entry that is there
    /// alone may say of a member what the state does not say yet.
    pub(crate) fn remembers_all(&self) -> bool {
        self.inner.options.log_at_start.is_none_or(|last| last == 0 || self.inner.applied.now() >= last)
    }

    /// Whether this member has no memory: it has no entry and has never voted.
    pub(crate) fn is_fresh(&self) -> bool {
        let metrics = self.inner.published.borrow_watched();
        // As long as consensus has not begun, nothing of the log is published.
        let was_empty = self.inner.options.log_at_start.is_none();
        was_empty && metrics.last_log_index.is_none() && metrics.vote.leader_id.term == 0
    }

    /// Whether a member has taken part before: it published its name, or, seen from the leader, holds entries.
    pub(crate) fn is_known(&self, id: u64) -> bool {
        let metrics = self.inner.published.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|progress| progress.get(&id).cloned().flatten());
        // The first entry is the list of first members, which every one of them writes for itself.
        self.inner.members.get(id).is_some() || self.is_removed(id) || matched.is_some_and(|log_id| log_id.index > 0)
    }

    /// Asks another member what its state was made of at these entries, and what its compactions left.
    pub async fn digests_of(&self, id: u64, indexes: Vec<u64>) -> Result<wire::DigestsResponse, Unavailable> {
        let request = wire::DigestsRequest { cluster_id: self.inner.options.cluster_id, indexes };
        let client = self.client(id)?;
        let asked = ask(client, |mut client| async move { client.digests(request).await });
        clock::timeout(self.inner.options.election_timeout, asked).await.unwrap_or(Err(Unavailable::Timeout))
    }

    /// Renews a lease with the leader: its granted time to live in seconds, 0 where it is unknown or has ended.
    pub async fn lease_renew(&self, id: i64) -> Result<i64, Unavailable> {
        let renew = |client: Client| {
            let request = wire::LeaseRenewRequest { cluster_id: self.inner.options.cluster_id, id };
            async move { ask(client, |mut client| async move { client.lease_renew(request).await }).await }
        };
        let call = self.on_leader(
            || self.lease_renew_here(id),
            |client| async { renew(client).await.map(|response| response.ttl) },
        );
        self.within_timeout(pin!(call)).await
    }

    /// Asks the leader what is left of a lease; `None` where it is unknown.
    pub async fn lease_remaining(&self, id: i64) -> Result<Option<Remaining>, Unavailable> {
        let remaining = |client: Client| {
            let request = wire::LeaseRemainingRequest { cluster_id: self.inner.options.cluster_id, id };
            async move { ask(client, |mut client| async move { client.lease_remaining(request).await }).await }
        };
        let call = self.on_leader(
            || self.lease_remaining_here(id),
            |client| async {
                let response = remaining(client).await?;
                Ok((response.ttl >= 0).then_some(Remaining { ttl: response.ttl, granted_ttl: response.granted_ttl }))
            },
        );
        self.within_timeout(pin!(call)).await
    }

    /// Notes that the leader behind a vote is alive.
    pub(crate) fn heard_from(&self, vote: &Vote) {
        if vote.committed {
            *self.inner.contact.lock() = Some((vote.leader_id.term, clock::now()));
        }
    }

    /// Resolves when consensus has ended here, and nothing is answered any more.
    pub(crate) fn has_ended(&self) -> BoxFuture<'static, ()> {
        let mut metrics = self.inner.raft.server_metrics();
        async move { while metrics.changed().await.is_ok() {} }.boxed()
    }

    /// Joins a round of ReadIndex on this member as the leader.
    pub(crate) async fn read_index_here(&self) -> Result<u64, Unavailable> {
        self.inner.reads.wait().await
    }

    /// Renews a lease as its leader.
    ///
    /// A renewal is kept in memory, so it counts only if no other member leads by then: one that is
    /// elected later gives every lease its whole time again.
    pub(crate) async fn lease_renew_here(&self, id: i64) -> Result<i64, Unavailable> {
        let term = self.leads_in();
        let ttl = self.inner.lessor.renew(id).await.map_err(|_| Unavailable::NotPrimaryLessor)?;
        if probe::broken("renewal-by-a-deposed-leader") {
            // Wrong: the renewal is answered though another member may lead, who knows nothing of it.
            return Ok(ttl);
        }
        self.led_in(term).await?;
        if ttl > 0 {
            self.inner.metrics.lease.renewed_total.inc();
        }
        Ok(ttl)
    }

    /// Makes sure that nobody else led when this was called, given the term in which this member took itself for the
    /// leader before.
    async fn led_in(&self, term: Option<u64>) -> Result<(), Unavailable> {
        // Nobody else leads before this member has added a voter, or voted for somebody, and has published that.
        if term.is_some() && self.leads_alone_in() == term {
            probe::reached("renewal-by-the-only-voter");
            return Ok(());
        }
        let index = self.still_leads_in(term).await?;
        if index <= self.inner.applied.now() {
            self.covers(term);
        }
        Ok(())
    }

    /// Says what is left of a lease, as its leader. One that was deposed may not know of the lease.
    pub(crate) async fn lease_remaining_here(&self, id: i64) -> Result<Option<Remaining>, Unavailable> {
        // Wrong where it is broken: a leader that was deposed says what it remembers.
        if !probe::broken("remaining-by-a-deposed-leader") {
            let index = self.still_leads_in(self.leads_in()).await?;
            self.wait_applied(index).await?;
        }
        self.inner.lessor.remaining(id).await.map_err(|_| Unavailable::NotPrimaryLessor)
    }

    /// The term in which this member takes itself for the leader.
    fn leads_in(&self) -> Option<u64> {
        let metrics = self.inner.published_server.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id.term)
    }

    /// Asks a quorum whether this member leads in a term; what was committed by then.
    async fn still_leads_in(&self, term: Option<u64>) -> Result<u64, Unavailable> {
        let index = match self.inner.reads.wait().await {
            Err(Unavailable::LeaderChanged) => return Err(Unavailable::NotLeader),
            answer => answer?,
        };
        // The round may have been another leader's, of whom this member has learned meanwhile.
        if term.is_none() || self.leads_in() != term { Err(Unavailable::NotLeader) } else { Ok(index) }
    }

    /// One round of ReadIndex: here when leading, else at the leader; until there is an answer.
    async fn round(&self) -> Result<u64, Unavailable> {
        let server = &self.inner.metrics.server;
        let round = async {
            loop {
                let result = match self.reachable_leader() {
                    Some(leader) if leader == self.inner.options.member_id => self.confirm_leadership().await,
                    Some(leader) => self.read_index_at(leader).await,
                    None => Err(Unavailable::NotLeader),
                };
                match result {
                    Ok(index) => return Ok(index),
                    Err(Unavailable::Stopped) => return Err(Unavailable::Stopped),
                    // A round changes nothing: it can be tried again.
                    Err(error) => {
                        if error == Unavailable::LeaderChanged {
                            server.read_indexes_failed_total.inc();
                        }
                        clock::sleep(RETRY_INTERVAL).await;
                    }
                }
            }
        };
        let result = self.within_timeout(pin!(round)).await;
        if matches!(result, Err(error) if error != Unavailable::Stopped) {
            server.slow_read_indexes_total.inc();
        }
        result
    }

    async fn confirm_leadership(&self) -> Result<u64, Unavailable> {
        if probe::broken("read-index-without-quorum") {
            // Wrong: whoever takes itself for the leader says so, though another may lead in a later term.
            return Ok(self.status().committed);
        }
        if probe::broken("read-index-by-leader-lease") {
            // Wrong: a leader that was heard lately takes itself for the only one, though its clock may be slow, or
            // those of others fast.
            let lazily = self.inner.raft.get_read_linearizer(ReadPolicy::LeaseRead).await;
            return lazily.map(|read| read.read_log_id().index()).map_err(|_| Unavailable::LeaderChanged);
        }
        self.inner.confirmation.confirm().await
    }

    async fn read_index_at(&self, leader: u64) -> Result<u64, Unavailable> {
        let request = wire::ReadIndexRequest { cluster_id: self.inner.options.cluster_id };
        let client = self.client(leader)?;
        // A leader that is cut off keeps a round until its timeout; look for another one earlier.
        let call = ask(client, |mut client| async move { client.read_index(request).await });
        let answer = clock::timeout(2 * self.inner.options.election_timeout, call).await;
        let answer = answer.unwrap_or(Err(Unavailable::TimeoutConnectionLost));
        if answer.is_err() {
            self.inner.peers.turn(leader);
        }
        Ok(answer?.index)
    }

    /// Runs a call on the leader, wherever it is, again while there is none.
    async fn on_leader<T, H, A>(&self, here: impl Fn() -> H, at: impl Fn(Client) -> A) -> Result<T, Unavailable>
    where
        H: Future<Output = Result<T, Unavailable>>,
        A: Future<Output = Result<T, Unavailable>>,
    {
        loop {
            let result = match self.reachable_leader() {
                Some(leader) if leader == self.inner.options.member_id => here().await,
                Some(leader) => match self.client(leader) {
                    Ok(client) => at(client).await,
                    Err(error) => Err(error),
                },
                None => Err(Unavailable::NotLeader),
            };
            match result {
                Err(Unavailable::NotLeader | Unavailable::NotPrimaryLessor) => {
                    clock::sleep(RETRY_INTERVAL).await;
                }
                result => return result,
            }
        }
    }

    async fn wait_applied(&self, index: u64) -> Result<(), Unavailable> {
        self.inner.applied.reaches(index).await.map_err(|_| Unavailable::Stopped)
    }

    /// The call is pinned where it is made: what is handed on by value is kept in each future on its way, and a request
    /// is moved with all of it.
    async fn within_timeout<T>(
        &self,
        mut call: Pin<&mut impl Future<Output = Result<T, Unavailable>>>,
    ) -> Result<T, Unavailable> {
        let leader_before = self.leader();
        let prompt = clock::timeout(PROMPT, call.as_mut()).await;
        match prompt {
            Ok(result) => result,
            // Boxed, since hardly any comes here, and each would be as large.
            Err(_) => Box::pin(self.within_rest_of_timeout(call, leader_before)).await,
        }
    }

    async fn within_rest_of_timeout<T>(
        &self,
        call: Pin<&mut impl Future<Output = Result<T, Unavailable>>>,
        leader_before: Option<u64>,
    ) -> Result<T, Unavailable> {
        let limit = limits::REQUEST_TIMEOUT_BASE + 2 * self.inner.options.election_timeout - PROMPT;
        let call = async {
            tokio::select! {
                biased;
                result = call => result,
                // Whoever is removed is sent nothing any more: what is waited for does not come.
                () = self.inner.removal.takes_effect() => Err(Unavailable::Stopped),
            }
        };
        match clock::timeout(limit, call).await {
            Ok(result) => result,
            Err(_) => {
                probe::reached("request-timed-out");
                let leader = self.leader();
                Err(match (leader_before, leader) {
                    (Some(_), None) => Unavailable::TimeoutLeaderFailure,
                    (Some(before), Some(now)) if before != now => Unavailable::TimeoutLeaderFailure,
                    _ => Unavailable::Timeout,
                })
            }
        }
    }

    /// The leader, if a request to it has a fair chance: this member, or one that was heard of within
    /// half an election timeout. Waiting for the next one is better than an error whose meaning is open.
    fn reachable_leader(&self) -> Option<u64> {
        let metrics = self.inner.published.borrow_watched();
        let leader = metrics.current_leader?;
        let here = leader == self.inner.options.member_id;
        (here || self.heard_within(metrics.current_term, self.inner.options.election_timeout / 2)).then_some(leader)
    }

    pub(super) fn client(&self, id: u64) -> Result<Client, Unavailable> {
        let stored = self.inner.published.borrow_watched().membership_config.clone();
        // Before this member takes part nothing is published; what it has applied it knows.
        if stored.membership().nodes().next().is_none() {
            return self.inner.peers.client(id, &self.inner.addresses.members());
        }
        self.inner.peers.client(id, stored.membership())
    }

    /// Whether something so long ago still counts: within two election timeouts.
    fn is_recent(&self, ago: Duration) -> bool {
        ago <= 2 * self.inner.options.election_timeout
    }

    /// Whether the leader of a term was heard of so lately.
    fn heard_within(&self, term: u64, limit: Duration) -> bool {
        self.inner.contact.lock().is_some_and(|(of, at)| of == term && clock::elapsed(at) <= limit)
    }
}

/// Makes a call to another member; what it answers of its own is told apart from a lost connection.
async fn ask<T, F>(client: Client, call: impl FnOnce(Client) -> F) -> Result<T, Unavailable>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    match call(client).await {
        Ok(response) => Ok(response.into_inner()),
        // As good as a member that says it does not lead: the call can be made again.
        Err(status) if transport::never_sent(&status) => {
            probe::reached("peer-call-never-sent");
            Err(Unavailable::NotLeader)
        }
        Err(status) => {
            probe::reached("peer-call-failed");
            Err(unavailable_from_status(&status))
        }
    }
}

/// The reverse of [`super::peer::unavailable_to_status`]; everything else is a lost connection.
fn unavailable_from_status(status: &tonic::Status) -> Unavailable {
    // What changed on its way was refused, and can be sent again; as can what came to somebody else.
    if status.code() == tonic::Code::DataLoss || envelope::is_astray(status) {
        return Unavailable::NotLeader;
    }
    const KNOWN: [Unavailable; 8] = [
        Unavailable::NotLeader,
        Unavailable::NotPrimaryLessor,
        Unavailable::TooManyRequests,
        Unavailable::TooLarge,
        Unavailable::Timeout,
        Unavailable::TimeoutLeaderFailure,
        Unavailable::LeaderChanged,
        Unavailable::NoLeader,
    ];
    KNOWN.into_iter().find(|known| known.to_string() == status.message()).unwrap_or(Unavailable::TimeoutConnectionLost)
}

/// Whether there is nobody but a member, with a vote or without.
fn is_only_member(members: &Membership, id: u64) -> bool {
    is_only_voter(members, id) && members.nodes().all(|(other, _)| *other == id)
}

/// Whether a member is the only one with a vote, and no other is about to get one.
pub(super) fn is_only_voter(members: &Membership, id: u64) -> bool {
    matches!(members.get_joint_config().as_slice(), [voters] if voters.len() == 1 && voters.contains(&id))
}

/// Whether a member takes part without a vote until it is promoted; `None` where it is not among these.
fn learner_in(members: &Membership, id: u64) -> Option<bool> {
    members.get_node(&id).map(|node| node.learner)
}

/// Index of the last entry that is known to be committed.
fn committed_in(metrics: &RaftMetrics<TypeConfig>) -> u64 {
    metrics.cluster_committed.as_ref().map_or(0, |log_id| log_id.index)
}

/// How a change ended that the leader was asked for.
fn refused_or(index: u64, refusal: MemberRefusal) -> Result<u64, MemberRefusal> {
    if refusal == MemberRefusal::None { Ok(index) } else { Err(refusal) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::raft::peer::unavailable_to_status;
    use crate::raft::type_config::PeerNode;

    #[test]
    fn what_a_peer_answers_is_understood() {
        for error in [Unavailable::NotLeader, Unavailable::TooManyRequests, Unavailable::NotPrimaryLessor] {
            assert_eq!(unavailable_from_status(&unavailable_to_status(error)), error);
        }
        let reset = tonic::Status::unavailable("connection reset");
        assert_eq!(unavailable_from_status(&reset), Unavailable::TimeoutConnectionLost);
        let damaged = tonic::Status::data_loss("its checksum is not that of what was sent");
        assert_eq!(unavailable_from_status(&damaged), Unavailable::NotLeader);
    }

    #[test]
    fn who_is_about_to_share_the_vote_is_not_the_only_voter() {
        let nodes = || BTreeMap::from([1, 2].map(|id| (id, PeerNode::default())));
        let members = |configs: &[&[u64]]| {
            let configs = configs.iter().map(|voters| voters.iter().copied().collect::<BTreeSet<u64>>());
            Membership::new(configs.collect::<Vec<_>>(), nodes()).unwrap()
        };
        assert!(is_only_voter(&members(&[&[1]]), 1), "another one learns");
        assert!(!is_only_voter(&members(&[&[1]]), 2));
        assert!(!is_only_voter(&members(&[&[1, 2]]), 1));
        assert!(!is_only_voter(&members(&[&[1], &[1, 2]]), 1), "the other one gets a vote");
        assert!(!is_only_voter(&members(&[&[1], &[2]]), 1), "it hands its vote over");
        assert!(!is_only_voter(&Membership::default(), 1));
    }

    #[test]
    fn who_knows_of_no_members_yet_is_no_learner() {
        let nodes = BTreeMap::from([1, 2].map(|id| (id, PeerNode { learner: id == 2, ..PeerNode::default() })));
        let members = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        assert_eq!(learner_in(&Membership::default(), 1), None, "it is starting");
        assert_eq!(learner_in(&members, 1), Some(false), "it has a vote");
        assert_eq!(learner_in(&members, 2), Some(true));
        assert_eq!(learner_in(&members, 3), None, "it is none of the members");
    }

    #[test]
    fn who_has_a_learner_beside_it_is_not_the_only_member() {
        let members = |learners: &[u64]| {
            let ids = learners.iter().copied().chain([1]);
            let nodes =
                ids.map(|id| (id, PeerNode { learner: id != 1, ..PeerNode::default() })).collect::<BTreeMap<_, _>>();
            Membership::new(vec![BTreeSet::from([1])], nodes).unwrap()
        };
        assert!(is_only_member(&members(&[]), 1));
        assert!(!is_only_member(&members(&[2]), 1), "its promotion may be under way");
        assert!(is_only_voter(&members(&[2]), 1));
        assert!(!is_only_member(&members(&[]), 2));
    }
}
