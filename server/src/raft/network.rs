//! openraft's messages to one peer, as calls of its `Peer` service.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use mainstay_proto::etcdserverpb::AlarmType;
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::peer_client::PeerClient;
use openraft::OptionalSend;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::addresses::Addresses;
use super::checksum;
use super::codec::{self, CodecError};
use super::departures::Departure;
use super::envelope::{self, Envelope, Route, Seldom};
use super::evidence::Doubt;
use super::removal::{REMOVED, Removal};
use super::sending::{NotSent, Sending};
use super::snapshot::{Snapshot, SnapshotData};
use super::standstill::Voice;
use super::throttle::Throttle;
use super::type_config::{PeerNode, TypeConfig, Vote};
use crate::apply::{AlarmView, FormatView};
use crate::env::clock::{self, Instant};
use crate::env::transport::{Dialer, PeerChannel};
use crate::env::{blocking, probe};
use crate::limits;
use crate::metrics::{Metrics, PeerMetrics};

type RpcError = RPCError<TypeConfig>;

/// Pause before entries are sent again to a peer that could not be reached, or was not to be. openraft makes its own pause
/// where it hands a request out, which nobody asks for where the connection is refused: it would try again at once, for
/// ever.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Makes the connections of one member to its peers.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) cluster_id: u64,
    /// A peer that does not answer for this long is taken for unreachable.
    pub(crate) rpc_timeout: Duration,
    pub(crate) dialer: Dialer,
    /// Where members are now.
    pub(crate) addresses: Addresses,
    /// Is told where a peer says that this member was removed.
    pub(crate) removal: Removal,
    /// Whether nothing is to be sent of what a leader sends but entries; is told of snapshots.
    pub(crate) voice: Voice,
    /// Whether calls went astray lately, of which is told.
    pub(crate) astray: Seldom,
    /// Whether a snapshot was not sent lately, of which is told.
    pub(crate) withheld: Seldom,
    /// This member, and whether its state is in doubt.
    pub(crate) own: u64,
    pub(crate) alarms: AlarmView,
    pub(crate) doubt: Doubt,
    /// The format of what this member sends.
    pub(crate) format: FormatView,
    /// How fast snapshots are sent, to all together.
    pub(crate) throttle: Throttle,
    pub(crate) metrics: Arc<Metrics>,
}

impl Network {
    fn connection(&self, target: u64, node: &PeerNode) -> Connection {
        let urls = node.peer_urls.clone().into();
        let peer = self.metrics.network.peer(target);
        Connection { network: self.clone(), target, urls, link: None, url: 0, failed_at: None, peer }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    // One connection for each purpose: a snapshot or a large batch must not hold up a heartbeat.
    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Connection {
        self.connection(target, node)
    }
}

/// The way to one peer, for one purpose.
pub(crate) struct Connection {
    network: Network,
    target: u64,
    /// The peer's URLs, as far as is known.
    urls: Arc<[String]>,
    link: Option<Link>,
    /// Which of the peer's URLs is in use.
    url: usize,
    /// When the last attempt to send entries failed, if it did.
    failed_at: Option<Instant>,
    peer: Arc<PeerMetrics>,
}

impl Connection {
    /// The client, connected to the peer's present URL.
    fn client(&mut self) -> Result<Client, RpcError> {
        // A member that moved is not found where it was when this connection was made.
        if let Some(now) = self.network.addresses.of(self.target)
            && now != self.urls
        {
            (self.urls, self.link, self.url) = (now, None, 0);
        }
        if let Some(link) = &self.link
            && !link.went_astray()
        {
            return Ok(link.client.clone());
        }
        let urls = &self.urls;
        let Some(url) = urls.get(self.url % urls.len().max(1)) else {
            return Err(unreachable(format!("member {:x} has no peer URL", self.target)));
        };
        let channel = self.network.dialer.connect(url, self.network.rpc_timeout).map_err(unreachable)?;
        let link = self.link.insert(Link::new(channel, self.network.own, self.target));
        Ok(link.client.clone())
    }

    /// After a failure the next attempt goes to the peer's next URL, where it has several.
    fn failed(&mut self, status: &Status) -> RpcError {
        if status.message() == REMOVED {
            self.network.removal.told_by_peer();
        }
        if envelope::is_astray(status) && self.network.astray.may_be_said() {
            tracing::warn!(
                "remote-peer-id" = format!("{:x}", self.target),
                reason = status.message(),
                "request sent was ignored by remote peer due to member ID mismatch"
            );
        }
        self.peer.sent_failures.inc();
        if self.urls.len() > 1 {
            self.link = None;
            self.url += 1;
        }
        unreachable(status)
    }

    async fn call<T, F>(&mut self, call: impl FnOnce(Client) -> F, limit: Duration) -> Result<T, RpcError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let client = self.client()?;
        match clock::timeout(limit, call(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.failed(&Status::deadline_exceeded("no answer in time"))),
        }
    }

    /// Sends a snapshot, and has the peer install it.
    async fn send_snapshot(
        &mut self,
        head: wire::SnapshotHead,
        departure: &mut Departure,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        let (peer, client) = (self.peer.clone(), self.client()?);
        let (travel, began) = (peer.snapshots_sent.begin(), clock::now());
        let (throttle, target) = (self.network.throttle.clone(), self.target);
        let passage = self.network.voice.snapshot();
        let sending = Sending { departure, throttle: &throttle, peer: &peer, target, passage: &passage };
        let response = sending.send(client, head).await.map_err(|reason| {
            // openraft tries again, and says nothing of it.
            tracing::warn!("remote-peer-id" = format!("{target:x}"), %reason, "failed to send a snapshot");
            match reason {
                NotSent::Peer(status) => self.failed(&status),
                NotSent::Checkpoint(reason) => unreachable(reason),
            }
        })?;
        let vote = response.vote.ok_or_else(|| unreachable("snapshot response without a vote"))?;
        departure.has_arrived();
        probe::reached("snapshot-sent");
        let took = clock::elapsed(began);
        travel.arrived(took);
        self.network.metrics.disk.backend_snapshot_duration_seconds.observe(took.as_secs_f64());
        Ok(SnapshotResponse::new(codec::vote_from_wire(&vote)))
    }

    fn vote_message(&self, request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
        wire::VoteRequest {
            cluster_id: self.network.cluster_id,
            vote: Some(codec::vote_to_wire(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(codec::log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
        }
    }
}

/// A client of the peer service that says whom its calls are for.
pub(crate) type Client = PeerClient<Route<PeerChannel>>;

/// A connection to a member, until it turns out to lead to another one.
pub(super) struct Link {
    pub(super) client: Client,
    envelope: Envelope,
}

impl Link {
    /// Over this channel, from one member to another.
    pub(super) fn new(channel: PeerChannel, own: u64, target: u64) -> Self {
        let envelope = Envelope::between(own, target);
        Self { client: peer_client(channel, envelope.clone()), envelope }
    }

    /// Whether it is known to lead to another member: a new one has to be made.
    pub(super) fn went_astray(&self) -> bool {
        self.envelope.went_astray()
    }
}

/// Such a client with the limits that members agree on.
pub(crate) fn peer_client(channel: PeerChannel, envelope: Envelope) -> Client {
    PeerClient::new(Route::new(channel, envelope))
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES)
}

fn unreachable(reason: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

fn vote_response(response: wire::VoteResponse, asked: &Vote) -> Result<VoteResponse<TypeConfig>, RpcError> {
    let vote = response.vote.ok_or_else(|| unreachable("vote response without a vote"))?;
    let last_log_id = response.last_log_id.as_ref().map(codec::log_id_from_wire);
    if !response.granted && probe::broken("refused-vote-counts") {
        // Wrong: an answer is taken for consent, so a member with an old log can win.
        return Ok(VoteResponse::new(*asked, last_log_id, true));
    }
    Ok(VoteResponse::new(codec::vote_from_wire(&vote), last_log_id, response.granted))
}

/// Whether an answer changed on its way; one of an earlier release does not show it.
fn is_damaged(response: &wire::AppendResponse) -> bool {
    response.crc32.is_some_and(|sent| sent != checksum::of_response(response))
}

fn append_result(response: wire::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    let log_id = response.log_id.as_ref().map(codec::log_id_from_wire);
    // What only a newer release answers must not pass for success, which is the first of them.
    let result = wire::append_response::Result::try_from(response.result);
    Ok(match result.map_err(|_| unreachable(format!("append response of kind {}", response.result)))? {
        wire::append_response::Result::Success => Ok(log_id),
        wire::append_response::Result::Conflict => {
            Err(StreamAppendError::Conflict(log_id.ok_or_else(|| unreachable("conflict without an entry"))?))
        }
        wire::append_response::Result::HigherVote => {
            let vote = response.vote.ok_or_else(|| unreachable("higher vote without a vote"))?;
            Err(StreamAppendError::HigherVote(codec::vote_from_wire(&vote)))
        }
    })
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let input = futures_util::stream::iter([request]);
        let mut output = RaftNetworkV2::stream_append(self, input, option).await?;
        match output.next().await {
            Some(result) => Ok(result?.into()),
            None => Err(unreachable("append stream ended without an answer")),
        }
    }

    /// Sends requests as they come and returns answers as they come: many are under way at once.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> futures_util::future::BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        async move {
            let cluster_id = self.network.cluster_id;
            let limit = self.network.rpc_timeout;
            let mut input = input.peekable();
            if self.network.voice.is_silent() {
                // Entries may have become able to get through; all else is a sign of life and nothing more.
                let has_entries = Pin::new(&mut input).peek().await.is_some_and(|first| !first.entries.is_empty());
                if !has_entries && self.network.voice.is_silent() {
                    clock::sleep(RETRY_INTERVAL).await;
                    return Err(unreachable("this leader is silent, as it gets nothing committed"));
                }
            }
            if let Some(at) = self.failed_at {
                clock::sleep(RETRY_INTERVAL.saturating_sub(clock::elapsed(at))).await;
            }
            // The times at which requests were handed over and not answered yet, oldest first.
            let (sent_tx, sent_rx) = mpsc::unbounded_channel();
            let peer = self.peer.clone();
            let requests = input.map(move |request| {
                // Received for as long as the answers are read; after that nobody asks.
                sent_tx.send(clock::now()).ok();
                let message = codec::append_to_wire(cluster_id, request);
                peer.sent_bytes.inc_by(message.encoded_len() as u64);
                message
            });
            let mut requests = tonic::Request::new(requests);
            requests.metadata_mut().insert(checksum::SENT, MetadataValue::from_static("crc32"));
            let opened = self.call(|mut client| async move { client.append(requests).await }, limit).await;
            self.failed_at = opened.is_err().then(clock::now);
            let responses = opened?;
            let peer = self.peer.clone();
            let (target, damaged) = (self.target, self.network.metrics.network.checksum_failures.clone());
            let state = Answers { responses, sent: sent_rx, waiting: VecDeque::new(), limit, target, peer, damaged };
            Ok(futures_util::stream::unfold(Some(state), Answers::next).boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = self.vote_message(&request);
        self.peer.sent_bytes.inc_by(message.encoded_len() as u64);
        let call = self.call(|mut client| async move { client.vote(message).await }, option.soft_ttl());
        vote_response(call.await?, &request.vote)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = self.vote_message(&request);
        self.peer.sent_bytes.inc_by(message.encoded_len() as u64);
        let call = self.call(|mut client| async move { client.pre_vote(message).await }, option.soft_ttl());
        vote_response(call.await?, &request.vote)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let is_named = self.network.alarms.is_raised_by(self.network.own, AlarmType::Corrupt);
        if is_named || self.network.doubt.is_in(vote.leader_id.term) {
            // Whoever gets it would have what this member has.
            if self.network.withheld.may_be_said() {
                let reason = "this member differs from the others, or may";
                tracing::warn!("remote-peer-id" = format!("{:x}", self.target), reason, "a snapshot is not sent");
            }
            return Err(unreachable("the state of this member is in doubt").into());
        }
        let SnapshotData::Checkpoint(mut departure) = snapshot.snapshot else {
            return Err(unreachable("the snapshot has no content").into());
        };
        // The format is read after the snapshot was made: it may have been raised meanwhile, which does no harm.
        let head = wire::SnapshotHead {
            cluster_id: self.network.cluster_id,
            vote: Some(codec::vote_to_wire(&vote)),
            last_log_id: snapshot.meta.last_log_id.as_ref().map(codec::log_id_to_wire),
            membership: Some(codec::stored_membership_to_wire(&snapshot.meta.last_membership)),
            files: Vec::new(),
            format: self.network.format.now(),
            crc32: None,
        };
        let outcome = {
            let transfer = std::pin::pin!(self.send_snapshot(head, &mut departure));
            match futures_util::future::select(transfer, std::pin::pin!(cancel)).await {
                futures_util::future::Either::Left((response, _)) => response.map_err(StreamingError::from),
                futures_util::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
            }
        };
        // With the last who sends it, its files go.
        blocking(move || drop(departure)).await;
        outcome
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = wire::TransferLeaderRequest {
            cluster_id: self.network.cluster_id,
            from: Some(codec::vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(codec::log_id_to_wire),
        };
        self.call(|mut client| async move { client.transfer_leader(message).await }, option.soft_ttl()).await?;
        Ok(Ok(()))
    }
}

/// The answers of one append stream, with a watch over how long the peer has been silent.
struct Answers {
    responses: tonic::Streaming<wire::AppendResponse>,
    sent: mpsc::UnboundedReceiver<Instant>,
    waiting: VecDeque<Instant>,
    limit: Duration,
    target: u64,
    peer: Arc<PeerMetrics>,
    /// Counts answers that changed on their way.
    damaged: IntCounter,
}

type Answer = Result<StreamAppendResult<TypeConfig>, RpcError>;

impl Answers {
    /// Counts what was handed over. Before an answer is taken into account, too: it may be here before its request is
    /// counted, and that would then be waited for though it is answered.
    fn count_sent(&mut self) {
        while let Ok(sent) = self.sent.try_recv() {
            self.waiting.push_back(sent);
        }
    }

    /// Ends the stream with an error, from which openraft looks anew at what the peer lacks.
    fn failed(self, reason: impl ToString) -> (Answer, Option<Self>) {
        self.peer.sent_failures.inc();
        (Err(unreachable(reason)), None)
    }

    async fn next(state: Option<Self>) -> Option<(Answer, Option<Self>)> {
        let mut state = state?;
        loop {
            state.count_sent();
            // With nothing sent there is nothing to wait for; look again when there may be.
            let since = state.waiting.front().copied().unwrap_or_else(clock::now);
            let left = state.limit.saturating_sub(clock::elapsed(since));
            let answered = clock::timeout(left, state.responses.next()).await;
            state.count_sent();
            match answered {
                Ok(Some(Ok(response))) if is_damaged(&response) => {
                    state.damaged.inc();
                    let (from, error) = (format!("{:x}", state.target), CodecError::Checksum);
                    tracing::warn!("remote-peer-id" = from, %error, "refused an answer from a peer");
                    return Some(state.failed(error));
                }
                Ok(Some(Ok(response))) => {
                    state.waiting.pop_front();
                    state.peer.received_bytes.inc_by(response.encoded_len() as u64);
                    let answer = append_result(response);
                    // A conflict or a higher vote ends the stream: openraft starts another one.
                    let goes_on = matches!(answer, Ok(Ok(_)));
                    return Some((answer, goes_on.then_some(state)));
                }
                Ok(Some(Err(status))) => return Some(state.failed(status)),
                // The peer refuses a request by ending the stream.
                Ok(None) if !state.waiting.is_empty() => return Some(state.failed("the peer ended the stream")),
                Ok(None) => return None,
                Err(_) if state.waiting.front().is_some_and(|sent| clock::elapsed(*sent) >= state.limit) => {
                    return Some(state.failed("the peer does not answer"));
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_known_is_no_success() {
        let answer = |result| {
            let log_id = Some(wire::LogId { term: 1, index: 7 });
            append_result(wire::AppendResponse { result, log_id, vote: None, crc32: None })
        };
        assert!(matches!(answer(0), Ok(Ok(Some(_)))));
        assert!(matches!(answer(1), Ok(Err(StreamAppendError::Conflict(_)))));
        for unknown in [3, -1] {
            assert!(matches!(answer(unknown), Err(RPCError::Unreachable(_))), "{unknown}");
        }
    }
}
