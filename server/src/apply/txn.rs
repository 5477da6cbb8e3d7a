use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    request_op, response_op,
};
use parking_lot::RwLock;

use super::State;
use super::compare::all_hold;
use super::dispatch::{done, refused};
use super::view::{Pinned, View, engine_error};
use super::{delete_range, put, range_response};
use crate::command::{Outcome, Refusal, outcome};
use crate::engine::EngineError;
use crate::env::probe;
use crate::lease::Leases;
use crate::mvcc::{ReadError, WriteTxn};

/// Carries out a transaction in three steps: which branches are taken, whether anything on them is
/// refused, and only then the operations. So a refused transaction has written nothing.
pub(super) fn apply(state: &mut State, request: &TxnRequest) -> Result<Outcome, EngineError> {
    let mut plan = None;
    if probe::broken("txn-compares-published-state") {
        // Wrong: the compares do not see what the commands before it in the same run wrote.
        let store = state.store();
        let room = |_: u64| true;
        let mut published = Pinned::new(&store, store.revision(), &room);
        plan = Some(Plan::new(&mut published, request).map_err(engine_error)?);
    }
    let mut txn = state.store.begin();
    let plan = plan.map_or_else(|| Plan::new(&mut txn, request).map_err(engine_error), Ok)?;
    let refusal = Check { txn: &mut txn, leases: &state.leases, writes: Vec::new() }.refusal(&plan)?;
    if let Some(refusal) = refusal {
        probe::reached("txn-refused");
        if probe::broken("refused-txn-writes") {
            // Wrong: the client is told that nothing happened.
            execute(&mut txn, &state.leases, &plan)?;
        }
        txn.end();
        return Ok(refused(state, refusal));
    }
    let response = execute(&mut txn, &state.leases, &plan)?;
    txn.end();
    Ok(done(state, Some(outcome::Reply::Txn(response))))
}

/// A transaction with its compares answered: what is left to do.
pub(super) struct Plan<'a> {
    succeeded: bool,
    operations: Vec<Operation<'a>>,
}

enum Operation<'a> {
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    DeleteRange(&'a DeleteRangeRequest),
    Txn(Plan<'a>),
    /// Nothing was asked. `api` refuses this; here it is answered by nothing.
    Nothing,
}

impl<'a> Plan<'a> {
    /// Answers the compares, also those of nested transactions on the way, before anything is written.
    pub(super) fn new(view: &mut impl View, request: &'a TxnRequest) -> Result<Self, ReadError> {
        let succeeded = all_hold(view, &request.compare)?;
        let branch = if succeeded { &request.success } else { &request.failure };
        let operations = branch.iter().map(|operation| Operation::new(view, operation)).collect::<Result<_, _>>()?;
        Ok(Self { succeeded, operations })
    }
}

impl<'a> Operation<'a> {
    fn new(view: &mut impl View, operation: &'a RequestOp) -> Result<Self, ReadError> {
        Ok(match &operation.request {
            Some(request_op::Request::RequestRange(request)) => Self::Range(request),
            Some(request_op::Request::RequestPut(request)) => Self::Put(request),
            Some(request_op::Request::RequestDeleteRange(request)) => Self::DeleteRange(request),
            Some(request_op::Request::RequestTxn(request)) => Self::Txn(Plan::new(view, request)?),
            None => Self::Nothing,
        })
    }
}

/// Why a range inside a transaction is refused.
///
/// Unlike a plain range, one below 0 does not mean the latest revision but one that was compacted, as
/// in etcd (below -1 before the first compaction, when the compacted revision is -1).
pub(super) fn range_refusal(request: &RangeRequest, revision: i64, compact_revision: i64) -> Option<Refusal> {
    match request.revision {
        0 => None,
        asked if asked > revision => Some(Refusal::FutureRevision),
        asked if asked < compact_revision => Some(Refusal::Compacted),
        _ => None,
    }
}

/// The walk along the taken branches that finds what must be refused before anything is written.
struct Check<'a, 'b, 'txn> {
    txn: &'a mut WriteTxn<'txn>,
    leases: &'a RwLock<Leases>,
    /// What the operations so far will have done, in their order.
    writes: Vec<Write<'b>>,
}

enum Write<'b> {
    Put(&'b Bytes),
    Delete(KeyRange),
}

impl<'b> Check<'_, 'b, '_> {
    fn refusal(&mut self, plan: &Plan<'b>) -> Result<Option<Refusal>, EngineError> {
        for operation in &plan.operations {
            let refusal = match operation {
                Operation::Range(request) => range_refusal(request, self.txn.revision(), self.txn.compact_revision()),
                Operation::Put(request) => {
                    let exists = if put::needs_key(request) { self.exists(&request.key)? } else { true };
                    self.writes.push(Write::Put(&request.key));
                    put::refusal(request, self.leases, exists)
                }
                Operation::DeleteRange(request) => {
                    let range = KeyRange::new(request.key.clone(), request.range_end.clone());
                    self.writes.push(Write::Delete(range));
                    None
                }
                Operation::Txn(nested) => self.refusal(nested)?,
                Operation::Nothing => None,
            };
            if refusal.is_some() {
                return Ok(refusal);
            }
        }
        Ok(None)
    }

    /// Whether a key will exist when its turn comes. etcd asks only whether it exists now, and dies of
    /// a key that the same transaction has deleted by then.
    fn exists(&mut self, key: &Bytes) -> Result<bool, EngineError> {
        for write in self.writes.iter().rev() {
            match write {
                Write::Put(put) if *put == key => return Ok(true),
                Write::Delete(range) if range.contains(key) => return Ok(false),
                Write::Put(_) | Write::Delete(_) => {}
            }
        }
        Ok(self.txn.get(key)?.is_some())
    }
}

/// Runs the operations in order; each sees the writes of those before it.
fn execute(txn: &mut WriteTxn<'_>, leases: &RwLock<Leases>, plan: &Plan<'_>) -> Result<TxnResponse, EngineError> {
    let mut responses = Vec::with_capacity(plan.operations.len());
    for operation in &plan.operations {
        let response = match operation {
            Operation::Range(request) => {
                let response = range_response(request, |range, options| View::range(txn, range, options));
                Some(response_op::Response::ResponseRange(response.map_err(engine_error)?))
            }
            Operation::Put(request) => {
                let mut response = put::execute(txn, leases, request)?;
                response.header = header(txn);
                Some(response_op::Response::ResponsePut(response))
            }
            Operation::DeleteRange(request) => {
                let mut response = delete_range::execute(txn, leases, request)?;
                response.header = header(txn);
                Some(response_op::Response::ResponseDeleteRange(response))
            }
            Operation::Txn(nested) => {
                let mut response = execute(txn, leases, nested)?;
                // Present, but without even a revision: so does etcd.
                response.header = Some(ResponseHeader::default());
                Some(response_op::Response::ResponseTxn(response))
            }
            Operation::Nothing => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse { header: None, succeeded: plan.succeeded, responses })
}

/// The header of an operation's response: the revision after it, and nothing else.
fn header(txn: &WriteTxn<'_>) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: txn.revision(), ..ResponseHeader::default() })
}
