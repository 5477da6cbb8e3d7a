//! What can be judged of a request by itself, before it is replicated or read (pure).
//!
//! The checks and their order are etcd's, since a request with two faults is answered with the
//! first. Nothing here looks at the store.

use std::mem;

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{
    AlarmRequest, AlarmType, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::overlap;
use super::status::ApiError;
use crate::command::command;
use crate::limits::TXN_DEPTH_MAX;

/// Checks a range request.
pub fn range(request: &RangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err() {
        return Err(ApiError::InvalidSortOption);
    }
    Ok(())
}

/// Checks a range request that is to be answered in chunks.
pub fn range_stream(request: &RangeRequest) -> Result<(), ApiError> {
    range(request)?;
    let ascends_by_key =
        request.sort_target == SortTarget::Key as i32 && request.sort_order == SortOrder::Ascend as i32;
    if request.sort_order != SortOrder::None as i32 && !ascends_by_key {
        return Err(ApiError::StreamCustomSort);
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters.iter().any(|bound| *bound != 0) {
        return Err(ApiError::StreamRevisionFilter);
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &PutRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ApiError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ApiError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() { Err(ApiError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction: its operations, their number, and that no branch writes a key twice.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), ApiError> {
    txn_ops(request, max_ops, TXN_DEPTH_MAX)?;
    // After the number of operations is known to be bounded.
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

/// Checks an alarm request. etcd 3.7 dies of what is refused here.
pub fn alarm(request: &AlarmRequest) -> Result<(), ApiError> {
    let Ok(action) = AlarmAction::try_from(request.action) else {
        return Err(ApiError::UnknownAlarmAction);
    };
    if action == AlarmAction::Activate && AlarmType::try_from(request.alarm).is_err() {
        return Err(ApiError::UnknownAlarmType);
    }
    Ok(())
}

/// Checks the size of a command as it will stand in the log.
pub fn size(command: &command::Kind, max_request_bytes: usize) -> Result<(), ApiError> {
    let encoded = mem::size_of_val(&crate::command::VERSION) + command.encoded_len();
    if encoded > max_request_bytes { Err(ApiError::RequestTooLarge) } else { Ok(()) }
}

/// Whether every range of a read-only transaction may be answered from local state.
pub fn is_serializable(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

fn txn_ops(request: &TxnRequest, max_ops: usize, depth_left: usize) -> Result<(), ApiError> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(ApiError::TxnTooDeep);
    };
    let widest = request.compare.len().max(request.success.len()).max(request.failure.len());
    // What a transaction uses of the budget, the ones nested in it no longer have.
    let Some(max_nested) = max_ops.checked_sub(widest) else {
        return Err(ApiError::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    ops(request).try_for_each(|op| request_op(op, max_nested, depth_left))
}

fn request_op(op: &RequestOp, max_ops: usize, depth_left: usize) -> Result<(), ApiError> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => txn_ops(request, max_ops, depth_left),
        None => Err(ApiError::KeyNotFound),
    }
}

#[cfg(test)]
mod tests;
