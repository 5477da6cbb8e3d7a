use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Truth;
use crate::history::{Call, History, Operation, Outcome, Reply, Step, StepReply, Txn};

/// Which calls made which revisions. Calls are named by their place in the history.
///
/// Values are never written twice, so a put says which call it is of. Removals do not: they are
/// compared with what every call that may have made them would have removed.
#[derive(Clone, Debug, Default)]
pub struct Causes {
    /// By revision: the transactions that were told that they made it. One each, or it is a violation.
    pub acknowledged: BTreeMap<i64, Vec<usize>>,
    /// By revision that no transaction was told of: the calls that may have made it, each of which
    /// made one revision at the most.
    pub possible: BTreeMap<i64, Vec<usize>>,
    /// By revision that no transaction was told of: the lease whose keys, all and no others, it removed.
    pub ends_lease: BTreeMap<i64, i64>,
    /// By value: the calls that may put it.
    writers: HashMap<String, Vec<usize>>,
}

impl Causes {
    /// Finds the causes of every revision.
    pub fn of(history: &History, truth: &Truth) -> Self {
        let mut causes = Self::default();
        let mut removers = Vec::new();
        // By key: the calls that may have written its value anew as it was.
        let mut keepers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, operation) in history.operations.iter().enumerate() {
            match (&operation.call, &operation.outcome) {
                (Call::Txn(txn), outcome) => {
                    each_put(txn, &mut |value| causes.writers.entry(value.to_owned()).or_default().push(place));
                    match outcome {
                        Outcome::Done(Reply::Txn { revision, steps, .. }) if wrote(steps) => {
                            causes.acknowledged.entry(*revision).or_default().push(place);
                        }
                        Outcome::Unknown(_) => {
                            if may_delete(txn) {
                                removers.push(place);
                            }
                            each_kept(txn, &mut |key| keepers.entry(key).or_default().push(place));
                        }
                        _ => {}
                    }
                }
                (Call::LeaseRevoke { .. }, Outcome::Done(_) | Outcome::Unknown(_)) => removers.push(place),
                _ => {}
            }
        }
        for (revision, commit) in &truth.commits {
            if causes.acknowledged.contains_key(revision) {
                continue;
            }
            if let Some(lease) = ended_lease(truth, *revision) {
                causes.ends_lease.insert(*revision, lease);
            }
            let put = commit.changes.iter().find(|change| !change.deleted);
            let candidates = match put {
                Some(put) => causes.writers_of(&put.kv.value),
                None => &removers,
            };
            let kept = put.and_then(|put| keepers.get(put.kv.key.as_str())).into_iter().flatten();
            let candidates: BTreeSet<usize> = candidates.iter().chain(kept).copied().collect();
            let possible = candidates.into_iter().filter(|place| {
                let operation = &history.operations[*place];
                operation.began <= commit.at && causes.may_have_made(operation, truth, *revision)
            });
            let possible = possible.collect();
            causes.possible.insert(*revision, possible);
        }
        causes
    }

    /// The calls that put a value, or would have.
    pub fn writers_of(&self, value: &str) -> &[usize] {
        self.writers.get(value).map_or(&[], Vec::as_slice)
    }

    fn may_have_made(&self, operation: &Operation, truth: &Truth, revision: i64) -> bool {
        match (&operation.call, &operation.outcome) {
            // What is not known is not held against anybody.
            (Call::Txn(txn), Outcome::Unknown(_)) => truth.is_effect(revision, txn).unwrap_or(true),
            (Call::LeaseRevoke { id }, outcome) => {
                let in_time = match outcome {
                    Outcome::Done(Reply::Revoked { revision: told }) => revision <= *told,
                    outcome => matches!(outcome, Outcome::Unknown(_)),
                };
                let ends = self.ends_lease.get(&revision);
                in_time && (ends == Some(id) || !truth.knows_state(revision))
            }
            _ => false,
        }
    }
}

/// The lease that a revision may be the end of: it removes all keys of it, in their order.
fn ended_lease(truth: &Truth, revision: i64) -> Option<i64> {
    if !truth.knows_state(revision) {
        return None;
    }
    let changes = truth.changes(revision);
    let lease = truth.versions.get(&changes.first()?.kv.key, revision - 1)?.lease;
    let keys = || truth.versions.all(revision - 1).filter(|kv| kv.lease == lease);
    let is_end = lease != 0
        && changes.iter().all(|change| change.deleted)
        && keys().count() == changes.len()
        && keys().zip(changes).all(|(kv, change)| kv.key == change.kv.key);
    is_end.then_some(lease)
}

/// Whether an answer tells of a write.
pub fn wrote(steps: &[StepReply]) -> bool {
    steps.iter().any(|step| match step {
        StepReply::Put { .. } => true,
        StepReply::Delete { deleted, .. } => *deleted > 0,
        StepReply::Range { .. } => false,
        StepReply::Txn { steps, .. } => wrote(steps),
    })
}

/// A put that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written<'a> {
    /// The key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
    /// The lease that was asked for.
    pub lease: i64,
}

/// The puts that an answered transaction did.
pub fn written<'a>(txn: &'a Txn, succeeded: bool, steps: &[StepReply]) -> Vec<Written<'a>> {
    let mut found = Vec::new();
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    for (step, reply) in branch.iter().zip(steps) {
        match (step, reply) {
            // A value that was left as it is is not in the call.
            (Step::Put { key, value, lease, .. } | Step::Amend { key, value, lease, ignore_value: false, .. }, _) => {
                found.push(Written { key, value, lease: *lease })
            }
            (Step::Txn(txn), StepReply::Txn { succeeded, steps }) => found.extend(written(txn, *succeeded, steps)),
            _ => {}
        }
    }
    found
}

/// How many keys an answered transaction says it removed.
pub fn deletes(steps: &[StepReply]) -> i64 {
    let of = |step: &StepReply| match step {
        StepReply::Delete { deleted, .. } => *deleted,
        StepReply::Txn { steps, .. } => deletes(steps),
        StepReply::Put { .. } | StepReply::Range { .. } => 0,
    };
    steps.iter().map(of).sum()
}

fn each_put<'a>(txn: &'a Txn, found: &mut dyn FnMut(&'a str)) {
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Put { value, .. } => found(value),
            Step::Amend { value, ignore_value, .. } => {
                if !ignore_value {
                    found(value);
                }
            }
            Step::Txn(txn) => each_put(txn, found),
            Step::Delete { .. } | Step::Range { .. } => {}
        }
    }
}

fn may_delete(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).any(|step| match step {
        Step::Delete { .. } => true,
        Step::Txn(txn) => may_delete(txn),
        Step::Put { .. } | Step::Amend { .. } | Step::Range { .. } => false,
    })
}

/// The keys whose value a transaction may write anew as it is: what they hold then names another call.
fn each_kept<'a>(txn: &'a Txn, found: &mut dyn FnMut(&'a str)) {
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Amend { key, ignore_value: true, .. } => found(key),
            Step::Txn(txn) => each_kept(txn, found),
            Step::Put { .. } | Step::Amend { .. } | Step::Delete { .. } | Step::Range { .. } => {}
        }
    }
}
