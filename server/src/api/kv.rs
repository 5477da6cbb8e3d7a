//! Keys and values.

use std::iter;

use futures_util::stream;
use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::Services;
use super::access::{Credentials, Permit};
use super::header::{header, revision_of};
use super::propose::Applied;
use super::range_chunks::RangeChunks;
use super::spans::Stage;
use super::status::{self, ApiError};
use super::validate;
use crate::apply::{self, ReadTxnError, range_response};
use crate::auth::{Auth, Right};
use crate::command::Caller;
use crate::command::command::Kind;
use crate::command::outcome::Reply;
use crate::env::clock;
use crate::metrics::Operation;
use crate::space;

#[tonic::async_trait]
impl Kv for Services {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let request = request.into_inner();
        if !request.serializable && self.gateway.status().is_learner {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        validate::range(&request)?;
        let stage = call.stage(&request);
        self.measured(Operation::RANGE, self.read_range(&credentials, &request, &stage)).await.map(Response::new)
    }

    type RangeStreamStream = BoxStream<RangeStreamResponse>;

    async fn range_stream(&self, request: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        validate::range_stream(&request)?;
        if !request.serializable {
            self.gateway.read_index().await?;
        }
        let permit = self.permit_range(&credentials, &request).await?;
        self.metrics.mvcc.range_total.inc();
        let mut chunks = RangeChunks::new(request, self.limits.max_request_bytes);
        let (store, gateway, access) = (self.store.clone(), self.gateway.clone(), self.access.clone());
        let mut ended = false;
        // A chunk is read when the transport has room for it, so a slow client holds one at most. It holds no
        // revision either: a compaction in between refuses the next chunk, as in etcd.
        let responses = iter::from_fn(move || {
            if ended {
                return None;
            }
            let chunk = chunks.next(|range, options| store.range(range, options));
            // Asked for each chunk, so that no more is sent once users or roles have changed; etcd asks at the end.
            if let Err(error) = access.confirm(&permit) {
                ended = true;
                return Some(Err(error.into()));
            }
            let chunk = chunk.transpose()?;
            Some(chunk.map_err(Status::from).map(|mut response| {
                if response.header.is_some() {
                    response.header = Some(header(&gateway, revision_of(response.header)));
                }
                RangeStreamResponse { range_response: Some(response) }
            }))
        });
        Ok(Response::new(Box::pin(stream::iter(responses))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let request = request.into_inner();
        self.check_quota(space::put_cost(&request), |value_len| apply::put_grows(&request, value_len)).await?;
        validate::put(&request)?;
        let stage = call.stage(&request);
        let Applied { revision, reply: Some(Reply::Put(mut response)) } =
            stage.proposal(self.propose(&credentials, Kind::Put(request))).await?
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
        let request = request.into_inner();
        validate::delete_range(&request)?;
        let stage = call.stage(&request);
        let Applied { revision, reply: Some(Reply::DeleteRange(mut response)) } =
            stage.proposal(self.propose(&credentials, Kind::DeleteRange(request))).await?
        else {
            return Err(status::foreign_outcome());
        };
        response.header = Some(self.header(revision));
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        let request = request.into_inner();
        self.check_quota(space::txn_cost(&request), |value_len| apply::txn_grows(&request, value_len)).await?;
        validate::txn(&request, self.limits.max_txn_ops)?;
        let stage = call.stage(&request);
        let (mut response, revision) = if apply::is_read_only(&request) {
            self.measured(Operation::READ_ONLY_TXN, self.read_txn(&credentials, &request, &stage)).await?
        } else {
            let Applied { revision, reply: Some(Reply::Txn(response)) } =
                stage.proposal(self.propose(&credentials, Kind::Txn(request))).await?
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
        let applied = stage.proposal(self.propose(&credentials, Kind::Compaction(request))).await?;
        if request.physical {
            // Also ends when the client waits no longer.
            if !self.store.wait_compaction_done(request.revision).await {
                return Err(ApiError::Stopped.into());
            }
        }
        Ok(Response::new(CompactionResponse { header: Some(self.header(applied.revision)) }))
    }
}

impl Services {
    async fn read_range(
        &self,
        credentials: &Credentials,
        request: &RangeRequest,
        stage: &Stage,
    ) -> Result<RangeResponse, Status> {
        if !request.serializable {
            self.gateway.read_index().await?;
            stage.agreed();
        }
        let permit = self.permit_range(credentials, request).await?;
        let began = clock::now();
        let response = range_response(request, |range, options| self.store.range(range, options));
        self.metrics.mvcc.range_total.inc();
        self.metrics.server.range_duration_seconds.observe(response.is_ok(), clock::elapsed(began));
        self.access.confirm(&permit)?;
        let mut response = response?;
        response.header = Some(self.header(revision_of(response.header)));
        Ok(response)
    }

    async fn read_txn(
        &self,
        credentials: &Credentials,
        request: &TxnRequest,
        stage: &Stage,
    ) -> Result<(TxnResponse, i64), Status> {
        if !validate::is_serializable(request) {
            self.gateway.read_index().await?;
            stage.agreed();
        }
        let judge = |auth: &Auth, caller: &Caller| apply::check_read_txn(auth, caller, request);
        let permit = self.access.permit(credentials, judge).await?;
        let read = apply::read_txn(&self.store, request);
        self.access.confirm(&permit)?;
        let read = read.map_err(read_txn_status)?;
        apply::count_txn(&self.metrics, &read.0);
        Ok(read)
    }

    /// Counts how long a read takes, waiting for the leader included, and tells of one that takes long; as in etcd.
    async fn measured<T>(
        &self,
        operation: Operation,
        read: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let began = clock::now();
        let result = read.await;
        let (took, server) = (clock::elapsed(began), &self.metrics.server);
        server.request_duration_seconds.observe(operation, result.is_ok(), took);
        server.applied_in(operation, took, self.slow_apply);
        result
    }

    async fn permit_range(&self, credentials: &Credentials, request: &RangeRequest) -> Result<Permit, ApiError> {
        let judge = |auth: &Auth, caller: &Caller| auth.check(caller, Right::Read, &request.key, &request.range_end);
        self.access.permit(credentials, judge).await
    }
}

fn read_txn_status(error: ReadTxnError) -> Status {
    match error {
        ReadTxnError::Refused(refusal) => status::refused(refusal).map_or_else(status::foreign_outcome, Status::from),
        ReadTxnError::Engine(error) => status::engine(&error),
    }
}
