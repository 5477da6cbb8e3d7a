//! The election service.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::range_request::SortOrder;
use mainstay_proto::etcdserverpb::{ResponseHeader, TxnRequest};
use mainstay_proto::v3electionpb::election_server::Election;
use mainstay_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::caller::{Caller, answered};
use super::observe::Observation;
use super::queue::{delete, first_found, get_key, if_created, one_of, put};
use super::session;
use crate::api::Services;
use crate::api::header::revision_of;
use crate::api::status::ApiError;
use crate::command::command::Kind;

/// The election service; its streams outlive the call that began them, so they share the services.
pub(in crate::api) struct Elections(pub(in crate::api) Arc<Services>);

#[tonic::async_trait]
impl Election for Elections {
    async fn campaign(&self, request: Request<CampaignRequest>) -> Result<Response<CampaignResponse>, Status> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::of(request);
        let lease = self.0.session(&caller, lease).await?;
        let prefix = session::prefix(&name);
        let key = session::key(&prefix, lease);
        let place = self.0.withdrawals.place().await.ok_or(ApiError::Stopped)?;
        let txn = if_created(&key, 0, vec![put(&key, value.clone(), lease)], vec![get_key(&key)]);
        let response = answered(self.0.txn(caller.asks(txn)).await)?;
        let mut rev = revision_of(response.header);
        let own = first_found(&response.responses, 0).filter(|_| !response.succeeded);
        rev = own.map_or(rev, |own| own.create_revision);
        let withdrawal = place.on_drop(Kind::Txn(resignation(&key, rev)));
        // The same lease has asked before; it may want to say something else now.
        if own.is_some_and(|own| own.value != value) {
            self.0.proclaim_as(&caller, &key, rev, lease, value).await?;
        }
        let waited = self.0.until_first(&caller, &prefix, rev - 1).await;
        // Unlike a lock, a candidacy outlives a wait that failed; only who goes away withdraws it. As in etcd.
        withdrawal.forget();
        waited?;
        let leader = Some(LeaderKey { name, key, rev, lease });
        Ok(Response::new(CampaignResponse { header: response.header, leader }))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let leader = request.leader.ok_or(ApiError::ElectionLeaderMissing)?;
        let lease = self.0.session(&caller, leader.lease).await?;
        let header = self.0.proclaim_as(&caller, &leader.key, leader.rev, lease, request.value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let first = one_of(&session::prefix(&request.name), SortOrder::Ascend);
        let mut response = answered(self.0.range(caller.asks(first)).await)?;
        let kv = Some(response.kvs.pop().ok_or(ApiError::ElectionNoLeader)?);
        Ok(Response::new(LeaderResponse { header: response.header, kv }))
    }

    type ObserveStream = BoxStream<LeaderResponse>;

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let (caller, request) = Caller::of(request);
        let observation = Observation::begin(Arc::clone(&self.0), caller, session::prefix(&request.name));
        // As in etcd, whatever goes wrong ends the stream without an error.
        let leaders = stream::unfold(observation, |mut observation| async move {
            let leader = observation.next().await?;
            Some((Ok(leader), observation))
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let leader = request.leader.ok_or(ApiError::ElectionLeaderMissing)?;
        // It is not needed, but etcd grants one here, too.
        self.0.session(&caller, leader.lease).await?;
        let response = answered(self.0.txn(caller.asks(resignation(&leader.key, leader.rev))).await)?;
        Ok(Response::new(ResignResponse { header: response.header }))
    }
}

impl Services {
    async fn proclaim_as(
        &self,
        caller: &Caller,
        key: &Bytes,
        rev: i64,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let txn = if_created(key, rev, vec![put(key, value, lease)], Vec::new());
        let response = answered(self.txn(caller.asks(txn)).await)?;
        if !response.succeeded {
            return Err(ApiError::ElectionNotLeader.into());
        }
        Ok(response.header)
    }
}

fn resignation(key: &Bytes, rev: i64) -> TxnRequest {
    if_created(key, rev, vec![delete(key)], Vec::new())
}
