//! Keys and values.

use std::cell::Cell;
use std::pin::{Pin, pin};

use futures_util::stream;
use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::access::{Credentials, Permit};
use super::admission::{room_for_deletion, room_for_txn, within_room, within_room_aside};
use super::edge::{ListAnswer, TakesPieces};
use super::header::{header, revision_of};
use super::propose::Applied;
use super::range_chunks::RangeChunks;
use super::spans::Stage;
use super::status::{self, ApiError};
use super::validate;
use super::{Access, Services};
use crate::admission::{Hold, Refused};
use crate::apply::{self, EncodedRange, ReadTxnError, encoded_range, is_plain_list, range_response};
use crate::auth::{Auth, Right};
use crate::command::Caller;
use crate::command::command::Kind;
use crate::command::outcome::Reply;
use crate::env::clock;
use crate::limits;
use crate::metrics::Operation;
use crate::mvcc::{ReadError, Room, Store};
use crate::raft::Gateway;
use crate::space;

#[tonic::async_trait]
impl Kv for Services {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let hold = Hold::of(request.extensions());
        let takes_pieces = request.extensions().get::<TakesPieces>().is_some();
        let request = request.into_inner();
        if !request.serializable && self.gateway.role().is_learner {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        validate::range(&request)?;
        let stage = call.stage(&request);
        let in_pieces = takes_pieces && is_plain_list(&request);
        let read = self.read_range(&credentials, &hold, &request, in_pieces, &stage);
        match self.measured(Operation::RANGE, pin!(read)).await? {
            RangeAnswer::Message(message) => Ok(Response::new(message)),
            RangeAnswer::List(list) => {
                let mut response = Response::new(RangeResponse::default());
                response.extensions_mut().insert(list);
                Ok(response)
            }
        }
    }

    type RangeStreamStream = BoxStream<RangeStreamResponse>;

    async fn range_stream(&self, request: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (credentials, hold) = (Credentials::of(&request), Hold::of(request.extensions()));
        let request = request.into_inner();
        validate::range_stream(&request)?;
        if !request.serializable {
            self.gateway.read_index().await?;
        }
        let permit = self.permit_range(&credentials, &request).await?;
        self.metrics.mvcc.range_total.inc();
        let chunked = Chunked {
            chunks: RangeChunks::new(request, self.limits.max_request_bytes),
            store: self.store.clone(),
            gateway: self.gateway.clone(),
            access: self.access.clone(),
            permit,
            hold,
            has_ended: false,
        };
        // A chunk is read when the transport has room for it, so a slow client holds one at most. It holds no
        // revision either: a compaction in between refuses the next chunk, as in etcd.
        let responses = stream::unfold(chunked, |mut chunked| async move {
            let response = chunked.next().await?;
            Some((response, chunked))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let request = request.into_inner();
        self.check_space(space::put_cost(&request), |value_len| apply::put_grows(&request, value_len)).await?;
        validate::put(&request)?;
        let stage = call.stage(&request);
        let Applied { revision, reply: Some(Reply::Put(mut response)) } =
            stage.proposal(pin!(self.propose(&credentials, Kind::Put(request)))).await?
        else {
            return Err(status::foreign_outcome());
        };
        response.header = Some(self.header(revision));
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let hold = Hold::of(request.extensions());
        let request = request.into_inner();
        validate::delete_range(&request)?;
        room_for_deletion(&self.store, &hold, &request).await?;
        let stage = call.stage(&request);
        let Applied { revision, reply: Some(Reply::DeleteRange(mut response)) } =
            stage.proposal(pin!(self.propose(&credentials, Kind::DeleteRange(request)))).await?
        else {
            return Err(status::foreign_outcome());
        };
        response.header = Some(self.header(revision));
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let hold = Hold::of(request.extensions());
        let request = request.into_inner();
        self.check_space(space::txn_cost(&request), |value_len| apply::txn_grows(&request, value_len)).await?;
        validate::txn(&request, self.limits.max_txn_ops)?;
        let stage = call.stage(&request);
        let (mut response, revision) = if apply::is_read_only(&request) {
            let read = self.read_txn(&credentials, &hold, &request, &stage);
            self.measured(Operation::READ_ONLY_TXN, pin!(read)).await?
        } else {
            room_for_txn(&self.store, &hold, &request).await?;
            let Applied { revision, reply: Some(Reply::Txn(response)) } =
                stage.proposal(pin!(self.propose(&credentials, Kind::Txn(request)))).await?
            else {
                return Err(status::foreign_outcome());
            };
            (response, revision)
        };
        response.header = Some(self.header(revision));
        Ok(Response::new(response))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let request = request.into_inner();
        let stage = call.stage(&request);
        let applied = stage.proposal(pin!(self.propose(&credentials, Kind::Compaction(request)))).await?;
        if request.physical {
            // Also ends when the client waits no longer.
            if !self.store.wait_compaction_done(request.revision).await {
                return Err(ApiError::Stopped.into());
            }
        }
        Ok(Response::new(CompactionResponse { header: Some(self.header(applied.revision)) }))
    }
}

/// What a range has found.
enum Found {
    Message(RangeResponse),
    /// To leave as it is stored.
    List(EncodedRange),
}

/// The answer to a range.
enum RangeAnswer {
    Message(RangeResponse),
    /// To be encoded while it leaves.
    List(ListAnswer),
}

/// A streamed range that is under way.
struct Chunked {
    chunks: RangeChunks,
    store: Store,
    gateway: Gateway,
    access: Access,
    permit: Permit,
    hold: Hold,
    has_ended: bool,
}

impl Chunked {
    async fn next(&mut self) -> Option<Result<RangeStreamResponse, Status>> {
        if self.has_ended {
            return None;
        }
        let chunk = self.read().await;
        // Asked for each chunk, so that no more is sent once users or roles have changed; etcd asks at the end.
        if let Err(error) = self.access.confirm(&self.permit) {
            self.has_ended = true;
            return Some(Err(error.into()));
        }
        let chunk = chunk.transpose()?;
        Some(chunk.map_err(Status::from).map(|mut response| {
            if response.header.is_some() {
                response.header = Some(header(&self.gateway, revision_of(response.header)));
            }
            RangeStreamResponse { range_response: Some(response) }
        }))
    }

    /// Reads the next chunk: a smaller one where it is too large or there is no room for it, and a single key when there
    /// is room again.
    async fn read(&mut self) -> Result<Option<RangeResponse>, ReadError> {
        // The chunk before is encoded, and holds what it takes itself.
        self.hold.forget_answer();
        loop {
            let (wanted, most) = (Cell::new(0), self.chunks.bytes_max());
            let read = {
                let room = |bytes: u64| {
                    wanted.set(bytes);
                    bytes <= most && self.hold.reads(bytes)
                };
                self.chunks.next(|range, options| self.store.range_within(range, options, &room))
            };
            if !matches!(read, Err(ReadError::NoRoom)) {
                return read;
            }
            self.hold.forget_answer();
            if !self.chunks.halve()
                && let Err(Refused) = self.hold.make_room(2 * wanted.get()).await
            {
                self.has_ended = true;
                return Err(ReadError::NoRoom);
            }
        }
    }
}

impl Services {
    async fn read_range(
        &self,
        credentials: &Credentials,
        hold: &Hold,
        request: &RangeRequest,
        in_pieces: bool,
        stage: &Stage,
    ) -> Result<RangeAnswer, Status> {
        if !request.serializable {
            self.gateway.read_index().await?;
            stage.agreed();
        }
        let permit = self.permit_range(credentials, request).await?;
        let began = clock::now();
        let hold = if in_pieces { hold.in_pieces() } else { hold.clone() };
        let aside = || {
            let (store, wanted) = (self.store.clone(), request.clone());
            move |room: Room<'_>| find(&store, &wanted, in_pieces, room)
        };
        let found = if self.is_long(request) {
            within_room_aside(&hold, aside()).await
        } else {
            within_room(&hold, |room: Room<'_>| find(&self.store, request, in_pieces, room), aside).await
        };
        self.metrics.mvcc.range_total.inc();
        self.metrics.server.range_duration_seconds.observe(found.is_ok(), clock::elapsed(began));
        self.access.confirm(&permit)?;
        match found? {
            Found::Message(mut message) => {
                message.header = Some(self.header(revision_of(message.header)));
                Ok(RangeAnswer::Message(message))
            }
            Found::List(list) => ListAnswer::new(self.header(list.revision), list).map(RangeAnswer::List),
        }
    }

    async fn read_txn(
        &self,
        credentials: &Credentials,
        hold: &Hold,
        request: &TxnRequest,
        stage: &Stage,
    ) -> Result<(TxnResponse, i64), Status> {
        if !validate::is_serializable(request) {
            self.gateway.read_index().await?;
            stage.agreed();
        }
        let judge = |auth: &Auth, caller: &Caller| apply::check_read_txn(auth, caller, request);
        let permit = self.access.permit(credentials, judge).await?;
        let aside = || {
            let (store, request) = (self.store.clone(), request.clone());
            move |room: Room<'_>| answer_txn(&store, &request, room)
        };
        let read = within_room(hold, |room: Room<'_>| answer_txn(&self.store, request, room), aside).await;
        self.access.confirm(&permit)?;
        let read = read?.map_err(read_txn_status)?;
        apply::count_txn(&self.metrics, &read.0);
        Ok(read)
    }

    /// Counts how long a read takes, waiting for the leader included, and tells of one that takes long; as in etcd.
    async fn measured<T>(
        &self,
        operation: Operation,
        read: Pin<&mut impl Future<Output = Result<T, Status>>>,
    ) -> Result<T, Status> {
        let began = clock::now();
        let result = read.await;
        let (took, server) = (clock::elapsed(began), &self.metrics.server);
        server.request_duration_seconds.observe(operation, result.is_ok(), took);
        server.applied_in(operation, took, self.slow_apply);
        result
    }

    /// Whether a read takes so long that others should not wait for it. What is wrong with it is told when it is made.
    fn is_long(&self, request: &RangeRequest) -> bool {
        // One key: most reads are of this kind, and need no look at the index.
        if request.range_end.is_empty() {
            return false;
        }
        let (range, options) = apply::what_is_read(request);
        self.store.keys_on_the_way(&range, &options) > limits::RANGE_ASIDE_KEYS
    }

    async fn permit_range(&self, credentials: &Credentials, request: &RangeRequest) -> Result<Permit, ApiError> {
        let judge = |auth: &Auth, caller: &Caller| auth.check(caller, Right::Read, &request.key, &request.range_end);
        self.access.permit(credentials, judge).await
    }
}

/// Reads what a range asks for.
fn find(store: &Store, request: &RangeRequest, in_pieces: bool, room: Room<'_>) -> Result<Found, ReadError> {
    if in_pieces {
        encoded_range(request, |range, options| store.encoded_within(range, options, room)).map(Found::List)
    } else {
        range_response(request, |range, options| store.range_within(range, options, room)).map(Found::Message)
    }
}

/// Answers a transaction that only reads.
fn answer_txn(
    store: &Store,
    request: &TxnRequest,
    room: Room<'_>,
) -> Result<Result<(TxnResponse, i64), ReadTxnError>, ReadError> {
    match apply::read_txn(store, request, room) {
        Err(ReadTxnError::NoRoom) => Err(ReadError::NoRoom),
        read => Ok(read),
    }
}

fn read_txn_status(error: ReadTxnError) -> Status {
    match error {
        ReadTxnError::Refused(refusal) => status::refused(refusal).map_or_else(status::foreign_outcome, Status::from),
        ReadTxnError::NoRoom => ApiError::TooManyRequests.into(),
        ReadTxnError::Engine(error) => status::engine(&error),
    }
}
