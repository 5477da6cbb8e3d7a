//! The lock service.

use bytes::Bytes;
use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::range_request::SortOrder;
use mainstay_proto::etcdserverpb::{DeleteRangeRequest, RangeRequest, ResponseHeader};
use mainstay_proto::v3lockpb::lock_server::Lock;
use mainstay_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::caller::{Caller, answered};
use super::queue::{first_found, get, get_key, if_created, interrupted, one_of, put};
use super::session;
use crate::api::Services;
use crate::api::header::revision_of;
use crate::api::status::ApiError;
use crate::command::command::Kind;
use crate::env::probe;

#[tonic::async_trait]
impl Lock for Services {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let lease = self.session(&caller, request.lease).await?;
        let prefix = session::prefix(&request.name);
        let key = session::key(&prefix, lease);
        let header = self.acquire(&caller, &prefix, &key, lease).await?;
        Ok(Response::new(LockResponse { header, key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let request = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
        let response = answered(self.delete_range(caller.asks(request)).await)?;
        Ok(Response::new(UnlockResponse { header: response.header }))
    }
}

impl Services {
    /// Gets in line and waits until it is this key's turn; the header of what showed that.
    async fn acquire(
        &self,
        caller: &Caller,
        prefix: &Bytes,
        key: &Bytes,
        lease: i64,
    ) -> Result<Option<ResponseHeader>, Status> {
        let place = self.withdrawals.place().await.ok_or(ApiError::Stopped)?;
        let holder = get(one_of(prefix, SortOrder::Ascend));
        // Who holds it is asked along, so that a free lock takes one command.
        let txn = if_created(key, 0, vec![put(key, Bytes::new(), lease), holder.clone()], vec![get_key(key), holder]);
        let response = answered(self.txn(caller.asks(txn)).await)?;
        let mut created = revision_of(response.header);
        if !response.succeeded {
            // The same lease has asked before.
            created = first_found(&response.responses, 0).map_or(created, |own| own.create_revision);
        }
        if first_found(&response.responses, 1).is_none_or(|holder| holder.create_revision == created) {
            return Ok(response.header);
        }
        let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        let withdrawal = place.on_drop(Kind::DeleteRange(delete));
        // Where waiting fails the key is taken back, too.
        if !probe::broken("lock-without-waiting") {
            // Wrong where it is left out: the lock is given to whoever asks.
            self.until_first(caller, prefix, created - 1).await?;
        }
        let own = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let response = answered(self.range(caller.asks(own)).await).map_err(interrupted)?;
        withdrawal.forget();
        if response.kvs.is_empty() {
            return Err(ApiError::SessionExpired.into());
        }
        Ok(response.header)
    }
}
