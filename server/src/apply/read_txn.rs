use mainstay_proto::etcdserverpb::{RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse};
use mainstay_proto::etcdserverpb::{request_op, response_op};

use super::compare::all_hold;
use super::range_response;
use super::txn::range_refusal;
use super::view::{Pinned, View};
use crate::command::Refusal;
use crate::engine::EngineError;
use crate::mvcc::{ReadError, Room, Store};

/// Why a transaction that only reads was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadTxnError {
    /// It asks for a revision that is not there.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// There is no room for what it reads.
    #[error("there is no room for what is read")]
    NoRoom,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Whether a transaction has nothing but ranges in both its branches, and so needs no command.
pub fn is_read_only(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|operation| as_range(operation).is_some())
}

/// Executes a transaction that only reads, at one published revision, and returns that revision.
/// What is not a range in it is answered by nothing: see [`is_read_only`]. It reads no further than there is room.
pub fn read_txn(store: &Store, request: &TxnRequest, room: Room<'_>) -> Result<(TxnResponse, i64), ReadTxnError> {
    loop {
        let revision = store.revision();
        match answer(&mut Pinned::new(store, revision, room), request) {
            Ok(response) => return Ok((response, revision)),
            // The store moved on and was compacted beyond this revision, so there is a newer one to read.
            Err(Failure::Read(ReadError::Compacted)) if store.compact_revision() > revision => {}
            Err(Failure::Read(ReadError::Compacted)) => return Err(ReadTxnError::Refused(Refusal::Compacted)),
            Err(Failure::Read(ReadError::FutureRevision)) => {
                return Err(ReadTxnError::Refused(Refusal::FutureRevision));
            }
            Err(Failure::Read(ReadError::NoRoom)) => return Err(ReadTxnError::NoRoom),
            Err(Failure::Read(ReadError::Engine(error))) => return Err(ReadTxnError::Engine(error)),
            Err(Failure::Refused(refusal)) => return Err(ReadTxnError::Refused(refusal)),
        }
    }
}

enum Failure {
    Refused(Refusal),
    Read(ReadError),
}

fn answer(view: &mut Pinned<'_>, request: &TxnRequest) -> Result<TxnResponse, Failure> {
    let succeeded = all_hold(view, &request.compare).map_err(Failure::Read)?;
    let branch = if succeeded { &request.success } else { &request.failure };
    let compact_revision = view.compact_revision();
    for range in branch.iter().filter_map(as_range) {
        if let Some(refusal) = range_refusal(range, view.revision, compact_revision) {
            return Err(Failure::Refused(refusal));
        }
    }
    let mut responses = Vec::with_capacity(branch.len());
    for operation in branch {
        let response = match as_range(operation) {
            Some(request) => {
                let response = range_response(request, |range, options| view.range(range, options));
                Some(response_op::Response::ResponseRange(response.map_err(Failure::Read)?))
            }
            None => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse { header: None, succeeded, responses })
}

fn as_range(operation: &RequestOp) -> Option<&RangeRequest> {
    match &operation.request {
        Some(request_op::Request::RequestRange(request)) => Some(request),
        Some(
            request_op::Request::RequestPut(_)
            | request_op::Request::RequestDeleteRange(_)
            | request_op::Request::RequestTxn(_),
        )
        | None => None,
    }
}
