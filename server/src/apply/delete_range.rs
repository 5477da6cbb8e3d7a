use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse};
use parking_lot::RwLock;

use super::State;
use super::dispatch::done;
use crate::command::{Outcome, outcome};
use crate::engine::EngineError;
use crate::env::probe;
use crate::lease::Leases;
use crate::mvcc::WriteTxn;

pub(super) fn apply(state: &mut State, request: &DeleteRangeRequest) -> Result<Outcome, EngineError> {
    let mut txn = state.store.begin();
    let response = execute(&mut txn, &state.leases, request)?;
    txn.end();
    Ok(done(state, Some(outcome::Reply::DeleteRange(response))))
}

/// Deletes the keys of a range and detaches them from their leases.
pub(super) fn execute(
    txn: &mut WriteTxn<'_>,
    leases: &RwLock<Leases>,
    request: &DeleteRangeRequest,
) -> Result<DeleteRangeResponse, EngineError> {
    let range = KeyRange::new(request.key.clone(), request.range_end.clone());
    let deleted = txn.delete_range(&range, request.prev_kv)?;
    // Wrong where it is broken: the end of the lease takes the key away again, whoever has put it since.
    if deleted.iter().any(|key| key.lease != 0) && !probe::broken("deleted-key-keeps-lease") {
        let mut leases = leases.write();
        for key in deleted.iter().filter(|key| key.lease != 0) {
            leases.detach(key.lease, &key.key);
        }
    }
    Ok(DeleteRangeResponse {
        header: None,
        deleted: deleted.len() as i64,
        prev_kvs: deleted.into_iter().filter_map(|key| key.prev).collect(),
    })
}
