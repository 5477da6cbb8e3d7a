//! What this member answers its peers: the `Peer` service.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt};
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::peer_server::{Peer, PeerServer};
use openraft::SnapshotMeta;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest};
use prost::Message;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::checksum;
use super::codec::{self, CodecError};
use super::confirmation;
use super::envelope::Addressee;
use super::evidence::Evidence;
use super::gateway::{Gateway, Unavailable};
use super::members::MemberChange;
use super::passed_on::{AnswerStream, PassedOn};
use super::receiving::{self, Arrival, Receiving};
use super::removal::REMOVED;
use super::snapshot::{Snapshot, SnapshotData};
use super::type_config::{Raft, TypeConfig, Vote};
use crate::admission::Gate;
use crate::engine::layout::{self, NewerFormat};
use crate::env::probe;
use crate::limits;
use crate::metrics::{Metrics, PeerMetrics};

/// The service of one member.
pub(crate) struct PeerService {
    raft: Raft,
    gateway: Gateway,
    evidence: Evidence,
    receiving: Arc<Receiving>,
    passed_on: Arc<PassedOn>,
    metrics: Arc<Metrics>,
}

impl PeerService {
    /// Wraps the service for a router.
    pub(crate) fn server(
        raft: Raft,
        gateway: Gateway,
        evidence: Evidence,
        receiving: Arc<Receiving>,
        admission: Gate,
        metrics: Arc<Metrics>,
    ) -> InterceptedService<PeerServer<Self>, Addressee> {
        let passed_on = Arc::new(PassedOn::new(gateway.clone(), admission, metrics.clone()));
        let addressee = Addressee::new(gateway.member_id());
        let server = PeerServer::new(Self { raft, gateway, evidence, receiving, passed_on, metrics })
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES);
        InterceptedService::new(server, addressee)
    }

    /// Refuses members of another cluster: their log must never meet ours.
    fn same_cluster(&self, cluster_id: u64) -> Result<(), Status> {
        same_cluster(&self.gateway, cluster_id)
    }

    /// Refuses what arrived as something else than was sent; earlier releases send no checksum.
    fn not_damaged(&self, sent: Option<u32>, found: u32) -> Result<(), Status> {
        if sent.is_none_or(|sent| sent == found) {
            return Ok(());
        }
        self.metrics.network.checksum_failures.inc();
        tracing::warn!(error = %CodecError::Checksum, "refused what a peer says of a snapshot");
        Err(Status::data_loss(CodecError::Checksum.to_string()))
    }

    /// This member's vote, where it is of a later term than a leader's, who then leads no more.
    fn later_vote(&self, leader: &Vote) -> Option<Vote> {
        let own = self.raft.metrics().borrow_watched().vote;
        (own.leader_id.term > leader.leader_id.term).then_some(own)
    }

    /// Ends this member, which needs a state that it cannot take over; what it has stays as it is.
    async fn cannot_go_on(&self, newer: NewerFormat) -> Status {
        let reason = format!("the leader sends a state instead of entries: {newer}");
        let status = Status::failed_precondition(&reason);
        // Where that fails, it has ended already.
        drop(self.raft.with_state_machine(|machine| Box::pin(async move { machine.fail(reason) })).await);
        status
    }

    /// Refuses the vote of a member that was removed, which may not know it yet.
    fn not_removed(&self, vote: Option<wire::Vote>) -> Result<(), Status> {
        match vote {
            Some(vote) if self.gateway.is_removed(vote.node_id) => {
                probe::reached("removed-member-told");
                Err(Status::failed_precondition(REMOVED))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses members of another cluster.
pub(super) fn same_cluster(gateway: &Gateway, cluster_id: u64) -> Result<(), Status> {
    let ours = gateway.status().cluster_id;
    if cluster_id == ours {
        return Ok(());
    }
    tracing::warn!(
        local_cluster_id = format!("{ours:x}"),
        remote_cluster_id = format!("{cluster_id:x}"),
        "request cluster ID mismatch"
    );
    Err(Status::failed_precondition("etcdserver: cluster ID mismatch"))
}

fn malformed(error: CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// Why a forwarded call failed, in a form that the forwarding member can take apart again.
pub(crate) fn unavailable_to_status(error: Unavailable) -> Status {
    Status::new(
        match error {
            Unavailable::NotLeader | Unavailable::NotPrimaryLessor => tonic::Code::FailedPrecondition,
            Unavailable::TooManyRequests | Unavailable::TooLarge => tonic::Code::ResourceExhausted,
            _ => tonic::Code::Unavailable,
        },
        error.to_string(),
    )
}

fn append_response(result: StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
    use wire::append_response::Result;
    let (result, log_id, vote) = match result {
        Ok(log_id) => (Result::Success, log_id, None),
        Err(StreamAppendError::Conflict(log_id)) => {
            probe::reached("append-conflict");
            // Wrong where it is broken: the leader counts entries that are not here.
            let told = if probe::broken("conflict-told-as-success") { Result::Success } else { Result::Conflict };
            (told, Some(log_id), None)
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            probe::reached("append-from-old-leader");
            (Result::HigherVote, None, Some(vote))
        }
    };
    let response = wire::AppendResponse {
        result: result.into(),
        log_id: log_id.as_ref().map(codec::log_id_to_wire),
        vote: vote.as_ref().map(codec::vote_to_wire),
        crc32: None,
    };
    wire::AppendResponse { crc32: Some(checksum::of_response(&response)), ..response }
}

fn snapshot_response(vote: &Vote) -> wire::SnapshotResponse {
    let response = wire::SnapshotResponse { vote: Some(codec::vote_to_wire(vote)), crc32: None };
    wire::SnapshotResponse { crc32: Some(checksum::of_snapshot_response(&response)), ..response }
}

fn vote_request(request: &wire::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let vote = request.vote.ok_or_else(|| malformed(CodecError::Missing("vote")))?;
    let last_log_id = request.last_log_id.as_ref().map(codec::log_id_from_wire);
    let mut message = VoteRequest::new(codec::vote_from_wire(&vote), last_log_id);
    message.leadership_transfer = request.leadership_transfer;
    Ok(message)
}

fn vote_response(response: &openraft::raft::VoteResponse<TypeConfig>) -> Response<wire::VoteResponse> {
    Response::new(wire::VoteResponse {
        vote: Some(codec::vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(codec::log_id_to_wire),
    })
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<wire::AppendResponse, Status>> + Send>>;
    type ForwardManyStream = AnswerStream;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let gateway = self.gateway.clone();
        let ours = gateway.status().cluster_id;
        let has_checksums = request.metadata().contains_key(checksum::SENT);
        // The stream ends at the first message that is not ours or not well-formed; the sender
        // learns it from the missing answer and starts anew.
        let metrics = self.metrics.clone();
        // Who sends is known from the first message on.
        let sender = Arc::new(OnceLock::<Arc<PeerMetrics>>::new());
        let answered = sender.clone();
        let requests = tokio_stream::StreamExt::map_while(request.into_inner(), move |message| {
            let Ok(message) = message else {
                if let Some(sender) = sender.get() {
                    sender.received_failures.inc();
                }
                return None;
            };
            if message.cluster_id != ours {
                tracing::warn!(remote_cluster_id = format!("{:x}", message.cluster_id), "request cluster ID mismatch");
                return None;
            }
            let bytes = message.encoded_len() as u64;
            // As the message says, which may be what changed.
            let from = message.vote.map_or(0, |vote| vote.node_id);
            let request = codec::append_from_wire(message, has_checksums)
                .inspect_err(|error| {
                    match error {
                        CodecError::Gap { .. } => probe::reached("append-with-a-gap"),
                        CodecError::Checksum => {
                            probe::reached("append-damaged");
                            metrics.network.checksum_failures.inc();
                        }
                        _ => {}
                    }
                    tracing::warn!("remote-peer-id" = format!("{from:x}"), %error, "refused entries from a peer");
                })
                .ok()?;
            gateway.heard_from(&request.vote);
            let sender = sender.get_or_init(|| metrics.network.peer(request.vote.leader_id.voted_for));
            sender.received_bytes.inc_by(bytes);
            Some(request)
        });
        let responses = self.raft.stream_append(Box::pin(requests));
        let responses = responses.map(move |result| {
            let response = append_response(result.map_err(stopped)?);
            if let Some(sender) = answered.get() {
                sender.sent_bytes.inc_by(response.encoded_len() as u64);
            }
            Ok(response)
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        self.not_removed(request.vote)?;
        let response = self.raft.vote(vote_request(&request)?).await.map_err(stopped)?;
        if !response.vote_granted {
            probe::reached("vote-refused");
        }
        Ok(vote_response(&response))
    }

    async fn pre_vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        self.not_removed(request.vote)?;
        let response = self.raft.pre_vote(vote_request(&request)?).await.map_err(stopped)?;
        if !response.vote_granted {
            probe::reached("pre-vote-refused");
        }
        Ok(vote_response(&response))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        let from = request.from.ok_or_else(|| malformed(CodecError::Missing("vote")))?;
        let last_log_id = request.last_log_id.as_ref().map(codec::log_id_from_wire);
        let message = TransferLeaderRequest::new(codec::vote_from_wire(&from), request.to, last_log_id);
        let answer = self.raft.handle_transfer_leader(message).await.map_err(stopped)?;
        answer.map_err(|error| Status::failed_precondition(error.to_string()))?;
        probe::reached("leader-transferred");
        Ok(Response::new(wire::TransferLeaderResponse {}))
    }

    async fn snapshot_kept(
        &self,
        request: Request<wire::SnapshotKeptRequest>,
    ) -> Result<Response<wire::SnapshotKeptResponse>, Status> {
        let request = request.into_inner();
        self.not_damaged(request.crc32, checksum::of_kept_request(&request))?;
        self.same_cluster(request.cluster_id)?;
        let vote = codec::vote_from_wire(&request.vote.ok_or_else(|| malformed(CodecError::Missing("vote")))?);
        let mut response = wire::SnapshotKeptResponse::default();
        // A leader of the past is told so when it begins to send, and makes nobody give up.
        if self.later_vote(&vote).is_none() {
            response.files = self.receiving.enter(vote.leader_id.term).await?.kept().await?;
        }
        response.crc32 = Some(checksum::of_kept_response(&response));
        Ok(Response::new(response))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotPart>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let head = match parts.message().await?.and_then(|part| part.part) {
            Some(wire::snapshot_part::Part::Head(head)) => head,
            _ => return Err(Status::invalid_argument("a snapshot begins with its head")),
        };
        self.not_damaged(head.crc32, checksum::of_head(&head))?;
        self.same_cluster(head.cluster_id)?;
        if let Err(newer) = layout::check_format(head.format, self.gateway.newest_format()) {
            return Err(self.cannot_go_on(newer).await);
        }
        let vote = codec::vote_from_wire(&head.vote.ok_or_else(|| malformed(CodecError::Missing("vote")))?);
        if let Some(later) = self.later_vote(&vote) {
            return Ok(Response::new(snapshot_response(&later)));
        }
        let meta = SnapshotMeta {
            last_log_id: head.last_log_id.as_ref().map(codec::log_id_from_wire),
            last_membership: codec::stored_membership_from_wire(head.membership.unwrap_or_default())
                .map_err(malformed)?,
        };
        let turn = self.receiving.enter(vote.leader_id.term).await?;
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        if index <= self.gateway.status().applied {
            // It came before, and the answer was lost: consensus says so, and looks at nothing else.
            probe::reached("snapshot-not-needed");
            let known = Snapshot { meta, snapshot: SnapshotData::Position };
            let response = self.raft.install_full_snapshot(vote, known).await.map_err(stopped)?;
            return Ok(Response::new(snapshot_response(&response.vote)));
        }
        self.receiving.brings(index);
        let sender = self.metrics.network.peer(vote.leader_id.voted_for);
        let travel = sender.snapshots_received.begin();
        let mut arrival = Arrival::begin(vote.leader_id.voted_for, &sender, &head.files);
        let staged = receiving::receive(turn, head.files, parts, &mut arrival).await?;
        let took = arrival.ends();
        travel.arrived(took);
        self.metrics.disk.snap_db_save_total_duration_seconds.observe(took.as_secs_f64());
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(staged) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(snapshot_response(&response.vote)))
    }

    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<wire::ForwardResponse>, Status> {
        self.passed_on.alone(request.into_inner()).await.map(Response::new)
    }

    async fn forward_many(
        &self,
        request: Request<Streaming<wire::ForwardBatch>>,
    ) -> Result<Response<Self::ForwardManyStream>, Status> {
        Ok(Response::new(self.passed_on.stream(request.into_inner())))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        self.same_cluster(request.into_inner().cluster_id)?;
        let index = self.gateway.read_index_here().await.map_err(unavailable_to_status)?;
        Ok(Response::new(wire::ReadIndexResponse { index }))
    }

    async fn term(&self, request: Request<wire::TermRequest>) -> Result<Response<wire::TermResponse>, Status> {
        self.same_cluster(request.into_inner().cluster_id)?;
        let term = confirmation::term(&self.raft).await.map_err(unavailable_to_status)?;
        Ok(Response::new(wire::TermResponse { term }))
    }

    async fn lease_renew(
        &self,
        request: Request<wire::LeaseRenewRequest>,
    ) -> Result<Response<wire::LeaseRenewResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        let ttl = self.gateway.lease_renew_here(request.id).await.map_err(unavailable_to_status)?;
        Ok(Response::new(wire::LeaseRenewResponse { ttl }))
    }

    async fn member_known(
        &self,
        request: Request<wire::MemberKnownRequest>,
    ) -> Result<Response<wire::MemberKnownResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        let known = self.gateway.is_known(request.member_id);
        if !known && !self.gateway.remembers_all() {
            return Err(Status::unavailable("this member has not applied yet what it finds in its log"));
        }
        let removed = self.gateway.is_removed(request.member_id);
        let (fresh, answered_by) = (self.gateway.is_fresh(), self.gateway.member_id());
        Ok(Response::new(wire::MemberKnownResponse { known, fresh, removed, answered_by }))
    }

    async fn members(&self, _: Request<wire::MembersRequest>) -> Result<Response<wire::MembersResponse>, Status> {
        // Who joins would take the place of an earlier member at its address for its own, and not come away from it.
        self.gateway.read_index().await.map_err(unavailable_to_status)?;
        Ok(Response::new(self.gateway.nodes()))
    }

    async fn digests(&self, request: Request<wire::DigestsRequest>) -> Result<Response<wire::DigestsResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        Ok(Response::new(self.evidence.at(&request.indexes)))
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Result<Response<wire::ReleaseResponse>, Status> {
        self.same_cluster(request.into_inner().cluster_id)?;
        Ok(Response::new(wire::ReleaseResponse { newest_format: self.gateway.newest_format() }))
    }

    async fn removed(&self, request: Request<wire::RemovedRequest>) -> Result<Response<wire::RemovedResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        // At the same address there may be another by now.
        if request.member_id == self.gateway.status().member_id {
            self.gateway.was_removed();
        }
        Ok(Response::new(wire::RemovedResponse {}))
    }

    async fn change_members(
        &self,
        request: Request<wire::ChangeMembersRequest>,
    ) -> Result<Response<wire::ChangeMembersResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        let change = MemberChange::from_wire(request).ok_or_else(|| malformed(CodecError::Missing("change")))?;
        let changed = self.gateway.change_members_here(&change).await.map_err(unavailable_to_status)?;
        Ok(Response::new(match changed {
            Ok(index) => wire::ChangeMembersResponse { index, ..wire::ChangeMembersResponse::default() },
            Err(refusal) => wire::ChangeMembersResponse { index: 0, refusal: refusal.into() },
        }))
    }

    async fn lease_remaining(
        &self,
        request: Request<wire::LeaseRemainingRequest>,
    ) -> Result<Response<wire::LeaseRemainingResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(request.cluster_id)?;
        let remaining = self.gateway.lease_remaining_here(request.id).await.map_err(unavailable_to_status)?;
        Ok(Response::new(match remaining {
            Some(remaining) => wire::LeaseRemainingResponse { ttl: remaining.ttl, granted_ttl: remaining.granted_ttl },
            None => wire::LeaseRemainingResponse { ttl: -1, granted_ttl: 0 },
        }))
    }
}
