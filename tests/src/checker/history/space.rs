//! What a quota was used up by, at most.

use crate::history::{Call, History, Step, Txn};
use crate::model::Truth;

/// More than a record has besides its key and its value.
const RECORD_BYTES: u64 = 100;
/// What the server reckons for a key besides its bytes and its value's, and for a lease; as etcd does.
const KEY_COST: u64 = 256;
const LEASE_COST: u64 = 64;

/// A quota, and at most how much of it was used at any time.
pub(super) struct Space {
    pub(super) quota: u64,
    /// By revision, rising: at most so many bytes were written up to it. Nothing is taken off for what was compacted.
    written: Vec<(i64, u64)>,
    /// At most so much was reckoned for any call.
    dearest: u64,
}

impl Space {
    /// `None` where there is no quota that a run may use up.
    pub(super) fn of(history: &History, truth: &Truth) -> Option<Self> {
        let quota = history.quota?;
        let mut sum = 0;
        let mut written = Vec::new();
        for (revision, commit) in &truth.commits {
            for change in &commit.changes {
                sum += RECORD_BYTES + (change.kv.key.len() + change.kv.value.len()) as u64;
            }
            written.push((*revision, sum));
        }
        let dearest = history.operations.iter().map(|operation| cost(&operation.call)).max().unwrap_or(0);
        Some(Self { quota, written, dearest })
    }

    /// At most how much was used or asked for up to a revision. An alarm stands longer than what raised it, and of
    /// what raised it there is no trace but the call: it was refused.
    pub(super) fn asked_for(&self, revision: i64) -> u64 {
        let behind = self.written.partition_point(|(written, _)| *written <= revision);
        self.written[..behind].last().map_or(0, |(_, sum)| *sum) + self.dearest
    }
}

/// At most how much the server reckons for a call; 0 for one that takes no room, which is never refused for space.
pub(super) fn cost(call: &Call) -> u64 {
    match call {
        Call::Txn(txn) => txn_cost(txn),
        Call::LeaseGrant { .. } => LEASE_COST,
        // Whoever takes part brings a lease, so that none has to be granted for it.
        Call::Held(held) => held.effects().iter().map(txn_cost).sum(),
        Call::Compact { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseRevoke { .. }
        | Call::LeaseTimeToLive { .. }
        | Call::LeaseKeys { .. }
        | Call::Auth(_)
        | Call::Member(_) => 0,
    }
}

/// The server takes the dearer branch; the sum of both is no less.
fn txn_cost(txn: &Txn) -> u64 {
    let steps = txn.then.iter().chain(&txn.otherwise);
    let of = |step: &Step| match step {
        Step::Put { key, value, .. } | Step::Amend { key, value, .. } => KEY_COST + (key.len() + value.len()) as u64,
        Step::Txn(txn) => txn_cost(txn),
        Step::Delete { .. } | Step::Range { .. } => 0,
    };
    steps.map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, get, put};
    use super::*;
    use crate::history::{Candidate, HeldCall};

    #[test]
    fn what_puts_or_grants_takes_room() {
        let nested = Txn { otherwise: vec![Step::Txn(Box::new(put("a", "12")))], ..Txn::default() };
        let leader = || Candidate { name: "e".into(), key: "e/7".into(), created: 2, lease: 7 };
        let proclaim = HeldCall::Proclaim { leader: leader(), value: "1".into() };
        for (call, expected) in [
            (Call::Txn(put("a", "1")), 258),
            (Call::Txn(nested), 259),
            (Call::LeaseGrant { id: 7, ttl: 3 }, 64),
            (Call::Held(HeldCall::Lock { name: "l".into(), lease: 7 }), 259),
            (Call::Held(proclaim), 260),
            (Call::Held(HeldCall::Resign { leader: leader() }), 0),
            (Call::Held(HeldCall::Unlock { key: "l/7".into() }), 0),
            (Call::Txn(get("a")), 0),
            (Call::Txn(delete("a")), 0),
            (Call::LeaseRevoke { id: 7 }, 0),
            (Call::Compact { revision: 2, physical: false }, 0),
        ] {
            assert_eq!(cost(&call), expected, "{call:?}");
        }
    }

    #[test]
    fn what_was_written_and_what_was_asked_for_is_summed_up() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "12345"));
        sample.txn(1, delete("a"));
        sample.refused(1, Call::Txn(put("b", &"x".repeat(1000))), "no space");
        let mut history = sample.end();
        let truth = Truth::of(&history);
        assert!(Space::of(&history, &truth).is_none());
        history.quota = Some(5000);
        let space = Space::of(&history, &truth).unwrap();
        let asked: Vec<u64> = (1..4).map(|revision| space.asked_for(revision)).collect();
        assert_eq!(asked, [1257, 1257 + 106, 1257 + 207]);
    }
}
