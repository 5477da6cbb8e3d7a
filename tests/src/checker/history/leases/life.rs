//! What calls and the record say of each lease.

use std::collections::BTreeMap;

use crate::history::{Call, History, Operation, Outcome, Reply, Step, Txn};
use crate::model::{Causes, Truth};

/// What is known of one lease.
#[derive(Default)]
pub(super) struct Lease<'a> {
    /// Grants that may have happened.
    pub(super) grants: Vec<&'a Operation>,
    /// Renewals that may have happened.
    pub(super) renewals: Vec<&'a Operation>,
    /// Revocations that may have happened.
    pub(super) revokes: Vec<&'a Operation>,
    /// Questions that were answered.
    pub(super) questions: Vec<&'a Operation>,
    /// Calls that were refused because there was no such lease.
    pub(super) missed: Vec<&'a Operation>,
    /// The revision that removed its keys with no call to explain it.
    pub(super) expired: Option<i64>,
}

impl<'a> Lease<'a> {
    /// The grant, where it was answered.
    pub(super) fn granted(&self) -> Option<&'a Operation> {
        self.grants.first().copied().filter(|grant| seconds_told(grant).is_some())
    }

    /// Who was told that it is gone, or as good as gone.
    pub(super) fn told_gone(&self) -> impl Iterator<Item = &'a Operation> {
        let too_late = self.renewals.iter().copied().filter(|answer| seconds_told(answer) == Some(0));
        too_late.chain(self.told_gone_for_good())
    }

    /// Who was told that there is no such lease. One that comes too late to renew it was not: its end
    /// may not have been carried out, and a new leader lets it begin anew.
    pub(super) fn told_gone_for_good(&self) -> impl Iterator<Item = &'a Operation> {
        let questions = self.questions.iter().filter(|answer| seconds_told(answer).is_some_and(|ttl| ttl < 0));
        questions.chain(&self.missed).copied()
    }

    /// Who was told that it lives.
    pub(super) fn told_alive(&self) -> impl Iterator<Item = &'a Operation> {
        let renewals = self.renewals.iter().filter(|answer| keeps(answer));
        let questions = self.questions.iter().filter(|answer| seconds_told(answer).is_some_and(|ttl| ttl >= 0));
        renewals.chain(questions).copied()
    }

    /// Whether a key was tied to it right before a revision.
    pub(super) fn had_keys_before(&self, truth: &Truth, revision: i64, id: i64) -> bool {
        truth.knows_state(revision) && truth.versions.all(revision - 1).any(|kv| kv.lease == id)
    }
}

/// Whether a renewal was answered, and gave the lease its time again.
pub(super) fn keeps(renewal: &Operation) -> bool {
    seconds_told(renewal).is_some_and(|ttl| ttl > 0)
}

/// The seconds that an answer grants or says are left.
pub(super) fn seconds_told(operation: &Operation) -> Option<i64> {
    match operation.outcome {
        Outcome::Done(Reply::Lease { ttl } | Reply::Granted { ttl, .. } | Reply::LeaseKeys { ttl, .. }) => Some(ttl),
        _ => None,
    }
}

/// Gathers what is known of every lease.
pub(super) fn leases<'a>(history: &'a History, truth: &Truth, causes: &Causes) -> BTreeMap<i64, Lease<'a>> {
    let mut leases: BTreeMap<i64, Lease<'a>> = BTreeMap::new();
    for operation in &history.operations {
        match (&operation.call, &operation.outcome) {
            // The leader may have renewed it, and not been sure of its leadership then.
            (Call::LeaseKeepAlive { id }, _) => leases.entry(*id).or_default().renewals.push(operation),
            (call, Outcome::Refused(why)) => {
                if why.contains("requested lease not found")
                    && let Some(id) = only_lease(call)
                {
                    leases.entry(id).or_default().missed.push(operation);
                }
            }
            (Call::LeaseGrant { .. }, _) => {
                if let Some(id) = operation.granted() {
                    leases.entry(id).or_default().grants.push(operation);
                }
            }
            (Call::LeaseRevoke { id }, _) => leases.entry(*id).or_default().revokes.push(operation),
            (Call::LeaseTimeToLive { id } | Call::LeaseKeys { id }, _) => {
                leases.entry(*id).or_default().questions.push(operation);
            }
            _ => {}
        }
    }
    for (revision, id) in &causes.ends_lease {
        let is_unexplained = causes.possible.get(revision).is_none_or(Vec::is_empty);
        if is_unexplained && truth.knows_state(*revision) {
            leases.entry(*id).or_default().expired.get_or_insert(*revision);
        }
    }
    leases
}

/// The lease of a call that names only one.
fn only_lease(call: &Call) -> Option<i64> {
    match call {
        Call::LeaseRevoke { id } => Some(*id),
        Call::Txn(Txn { compares, then, otherwise, .. }) if compares.is_empty() && otherwise.is_empty() => {
            match then.as_slice() {
                [Step::Put { lease, .. }] => Some(*lease),
                _ => None,
            }
        }
        _ => None,
    }
}
