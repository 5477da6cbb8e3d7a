use bytes::Bytes;
use mainstay_proto::etcdserverpb::{PutRequest, PutResponse};
use parking_lot::RwLock;

use super::State;
use super::dispatch::{done, refused};
use crate::command::{Outcome, Refusal, outcome};
use crate::engine::EngineError;
use crate::env::probe;
use crate::lease::Leases;
use crate::mvcc::WriteTxn;

pub(super) fn apply(state: &mut State, request: &PutRequest) -> Result<Outcome, EngineError> {
    let mut txn = state.store.begin();
    let exists = if needs_key(request) { txn.get(&request.key)?.is_some() } else { true };
    if let Some(refusal) = refusal(request, &state.leases, exists) {
        txn.end();
        return Ok(refused(state, refusal));
    }
    let response = execute(&mut txn, &state.leases, request)?;
    txn.end();
    Ok(done(state, Some(outcome::Reply::Put(response))))
}

/// Whether the request may only change a key that exists.
pub(super) fn needs_key(request: &PutRequest) -> bool {
    request.ignore_value || request.ignore_lease
}

/// Why a put is refused; `exists` says whether there is the key that it needs.
pub(super) fn refusal(request: &PutRequest, leases: &RwLock<Leases>, exists: bool) -> Option<Refusal> {
    // Wrong where it is broken: a key is tied to a lease that is gone.
    let checks_lease = request.lease != 0 && !probe::broken("put-with-a-dead-lease");
    if checks_lease && !leases.read().exists(request.lease) {
        return Some(Refusal::LeaseNotFound);
    }
    // No key is empty; `api` has refused such a request with a text of its own.
    if !exists || request.key.is_empty() {
        return Some(Refusal::KeyNotFound);
    }
    None
}

/// Carries out a put that is not refused.
pub(super) fn execute(
    txn: &mut WriteTxn<'_>,
    leases: &RwLock<Leases>,
    request: &PutRequest,
) -> Result<PutResponse, EngineError> {
    let before = if request.prev_kv || needs_key(request) { txn.get(&request.key)? } else { None };
    let value = match &before {
        Some(before) if request.ignore_value => before.value.clone(),
        _ => request.value.clone(),
    };
    let lease = match &before {
        // Wrong where it is broken: the key is tied to no lease any more.
        Some(before) if request.ignore_lease && !probe::broken("ignored-lease-is-lost") => before.lease,
        _ => request.lease,
    };
    let effect = txn.put(request.key.clone(), value, lease)?;
    move_key(leases, &request.key, effect.lease_before, lease);
    Ok(PutResponse { header: None, prev_kv: before.filter(|_| request.prev_kv) })
}

/// Attaches a key to another lease; 0 is none.
fn move_key(leases: &RwLock<Leases>, key: &Bytes, from: i64, to: i64) {
    if from == to {
        return;
    }
    let mut leases = leases.write();
    // Wrong where it is broken: the end of the old lease takes away what belongs to the new one.
    if from != 0 && !(to != 0 && probe::broken("moved-key-keeps-old-lease")) {
        leases.detach(from, key);
    }
    if to != 0 {
        leases.attach(to, key);
    }
}
