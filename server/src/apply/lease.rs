use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::{
    LeaseCheckpointRequest, LeaseCheckpointResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse,
};

use super::State;
use super::dispatch::{done, refused};
use crate::command::{Outcome, Refusal, outcome};
use crate::engine::{EngineError, Family};
use crate::env::probe;
use crate::lease::{LeaseChange, LeaseRecord};
use crate::limits::LEASE_TTL_MAX;

/// Adds a lease. The id was chosen and the least time to live applied before proposing.
pub(super) fn grant(state: &mut State, request: &LeaseGrantRequest) -> Outcome {
    let (id, ttl) = (request.id, request.ttl);
    // 0 means "no lease" in a put, so no lease can have it; as in etcd.
    if id == 0 {
        return refused(state, Refusal::LeaseNotFound);
    }
    // Not refused before: an alarm is told first.
    if ttl > LEASE_TTL_MAX {
        return refused(state, Refusal::LeaseTtlTooLarge);
    }
    // Wrong where it is broken: the lease begins anew, without its keys.
    if state.leases.read().exists(id) && !probe::broken("lease-granted-twice") {
        return refused(state, Refusal::LeaseExists);
    }
    state.leases.write().insert(id, ttl, 0);
    store(state, LeaseRecord { id, ttl, remaining: 0 });
    state.lease_changes.push(LeaseChange::Granted { id, ttl });
    let response = LeaseGrantResponse { header: None, id, ttl, error: String::new() };
    done(state, Some(outcome::Reply::LeaseGrant(response)))
}

/// Takes a lease away, and its keys with it: all in one revision, in their order.
pub(super) fn revoke(state: &mut State, request: &LeaseRevokeRequest) -> Result<Outcome, EngineError> {
    let id = request.id;
    let Some(lease) = state.leases.write().remove(id) else {
        return Ok(refused(state, Refusal::LeaseNotFound));
    };
    let mut txn = state.store.begin();
    // Wrong where it is broken: the first key of a lease stays without it.
    let left = usize::from(!lease.keys.is_empty() && probe::broken("lease-revoke-leaves-key"));
    for key in lease.keys.into_iter().skip(left) {
        txn.delete_range(&KeyRange::single(key), false)?;
    }
    txn.end();
    state.store.batch().delete(Family::Leases, LeaseRecord::key(id));
    state.lease_changes.push(LeaseChange::Revoked { id });
    Ok(done(state, Some(outcome::Reply::LeaseRevoke(LeaseRevokeResponse { header: None }))))
}

/// Records what is left of leases, so that a new leader need not begin anew; unknown ones are passed over.
pub(super) fn checkpoint(state: &mut State, request: &LeaseCheckpointRequest) -> Outcome {
    for checkpoint in &request.checkpoints {
        let (id, remaining) = (checkpoint.id, checkpoint.remaining_ttl.max(0));
        let Some(ttl) = state.leases.write().checkpoint(id, remaining) else {
            continue;
        };
        store(state, LeaseRecord { id, ttl, remaining });
        state.lease_changes.push(LeaseChange::Checkpointed { id, remaining });
    }
    done(state, Some(outcome::Reply::LeaseCheckpoint(LeaseCheckpointResponse { header: None })))
}

fn store(state: &mut State, record: LeaseRecord) {
    state.store.batch().put(Family::Leases, LeaseRecord::key(record.id), record.value());
}
