use std::future;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;
use mainstay_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest, WatchCreateRequest,
    request_op, response_op,
};
use mainstay_proto::mvccpb::KeyValue;
use mainstay_proto::mvccpb::event::EventType;
use tonic::Status;

use super::caller::{Caller, answered};
use crate::api::Services;
use crate::api::header::revision_of;
use crate::api::status::ApiError;
use crate::env::probe;
use crate::watch::WatchStreamEnd;

impl Services {
    /// Waits until no key below a prefix is left that was created at a revision or before it.
    ///
    /// Waits for the newest of them, so that whoever waits is woken when its turn comes, and not with all others.
    pub(super) async fn until_first(&self, caller: &Caller, prefix: &Bytes, created: i64) -> Result<(), Status> {
        loop {
            let request = RangeRequest { max_create_revision: created, ..one_of(prefix, SortOrder::Descend) };
            let mut response = answered(self.range(caller.asks(request)).await).map_err(interrupted)?;
            let Some(last) = response.kvs.pop() else { return Ok(()) };
            self.until_deleted(last.key, revision_of(response.header)).await?;
            if probe::broken("turn-never-comes") {
                // Wrong: whoever is woken sleeps on.
                future::pending::<()>().await;
            }
            if probe::broken("turn-comes-after-one-ahead") {
                // Wrong: whoever was just before it may have gone away while it waited, too.
                return Ok(());
            }
        }
    }

    /// Waits until a key is deleted, at a revision or later.
    async fn until_deleted(&self, key: Bytes, from: i64) -> Result<(), Status> {
        let mut watches = self.hub.open_stream().await;
        let filters = vec![FilterType::Noput.into()];
        watches.create(WatchCreateRequest { key, start_revision: from, filters, ..Default::default() }).await;
        loop {
            watches.arrival().await.map_err(ended)?;
            while let Some(response) = watches.take().await.map_err(ended)? {
                if response.canceled {
                    // What came between reading and watching was compacted meanwhile.
                    return Err(ApiError::Compacted.raw());
                }
                if response.events.iter().any(|event| event.r#type() == EventType::Delete) {
                    return Ok(());
                }
            }
        }
    }
}

/// Why waiting came to an end before its time.
pub(super) fn ended(end: WatchStreamEnd) -> Status {
    match end {
        WatchStreamEnd::Stopped => ApiError::Stopped.into(),
        WatchStreamEnd::Unreadable => ApiError::Timeout.into(),
    }
}

/// What is said to whoever waits in a queue where waiting fails. This member may have found out meanwhile that it has no
/// vote; who is told that it serves nobody takes it that nothing was done, and asks another one for the same.
pub(super) fn interrupted(status: Status) -> Status {
    let declined = Status::from(ApiError::NotSupportedForLearner);
    if status.message() == declined.message() { ApiError::TimeoutConnectionLost.into() } else { status }
}

/// Asks for the key below a prefix that was created first (ascending) or last (descending).
pub(super) fn one_of(prefix: &Bytes, order: SortOrder) -> RangeRequest {
    let range = KeyRange::prefix(prefix.clone());
    RangeRequest {
        key: range.key().clone(),
        range_end: range.range_end().clone(),
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

/// A transaction on the condition that a key was created at a revision; 0 where it must not exist.
pub(super) fn if_created(key: &Bytes, revision: i64, then: Vec<RequestOp>, otherwise: Vec<RequestOp>) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    };
    TxnRequest { compare: vec![compare], success: then, failure: otherwise }
}

pub(super) fn put(key: &Bytes, value: Bytes, lease: i64) -> RequestOp {
    let request = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(request)) }
}

pub(super) fn get(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

pub(super) fn get_key(key: &Bytes) -> RequestOp {
    get(RangeRequest { key: key.clone(), ..RangeRequest::default() })
}

pub(super) fn delete(key: &Bytes) -> RequestOp {
    let request = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(request)) }
}

/// The first key that a read inside a transaction found.
pub(super) fn first_found(responses: &[ResponseOp], place: usize) -> Option<&KeyValue> {
    match responses.get(place)?.response.as_ref()? {
        response_op::Response::ResponseRange(response) => response.kvs.first(),
        response_op::Response::ResponsePut(_)
        | response_op::Response::ResponseDeleteRange(_)
        | response_op::Response::ResponseTxn(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_is_not_told_that_nothing_was_done() {
        let told = |error: ApiError| interrupted(answered::<()>(Err(error.into())).unwrap_err()).message().to_owned();
        let lost = "etcdserver: request timed out, possibly due to connection lost";
        assert_eq!(told(ApiError::NotSupportedForLearner), lost);
        assert_eq!(told(ApiError::LeaseNotFound), "etcdserver: requested lease not found");
    }
}
