//! Leases. They live longer than a run, but for those that have a step to themselves.

use mainstay_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::Planner;
use crate::step::Step;
use crate::symbols::Symbol;

/// Ids that scripts choose.
const IDS: i64 = 8;
/// The least time to live that outlives a run, in seconds.
const LONG: i64 = 1000;
/// The greatest that etcd grants.
const LONGEST: i64 = 9_000_000_000;

impl Planner {
    pub(super) fn grant(&mut self, client: usize) -> Step {
        let id = match self.dice.below(20) {
            0..=3 => 0,
            4 => *self.dice.pick(&[-1, i64::MIN, i64::MAX]),
            _ => self.dice.between(1, IDS),
        };
        self.picked_leases += i64::from(id == 0);
        let ttl = match self.dice.below(20) {
            0 => *self.dice.pick(&[LONGEST, LONGEST + 1, i64::MAX]),
            // No two alike: they are listed by what is left of them.
            _ => LONG + 60 * self.dice.between(0, 10_000),
        };
        Step::call(client, "Lease.LeaseGrant", &LeaseGrantRequest { id, ttl })
    }

    pub(super) fn revoke(&mut self, client: usize) -> Step {
        Step::call(client, "Lease.LeaseRevoke", &LeaseRevokeRequest { id: self.lease() })
    }

    pub(super) fn renew(&mut self, client: usize) -> Step {
        Step::call(client, "Lease.LeaseKeepAlive", &LeaseKeepAliveRequest { id: self.lease() })
    }

    pub(super) fn time_to_live(&mut self, client: usize) -> Step {
        let request = LeaseTimeToLiveRequest { id: self.lease(), keys: self.dice.chance(70) };
        Step::call(client, "Lease.LeaseTimeToLive", &request)
    }

    pub(super) fn leases(&mut self, client: usize) -> Step {
        Step::call(client, "Lease.LeaseLeases", &LeaseLeasesRequest {})
    }

    pub(super) fn expire(&mut self, client: usize) -> Step {
        let (id, ttl) = (self.dice.between(1, IDS), *self.dice.pick(&[1, 1, 0, -5]));
        let mut step = Step::special(client, "Expire", &format!("ID: {id} TTL: {ttl}")).expect("it has these fields");
        let keys = (0..self.dice.below(4)).map(|_| self.keys.key(&mut self.dice)).map(prost_reflect::Value::Bytes);
        step.request.set_field_by_name("keys", prost_reflect::Value::List(keys.collect()));
        step
    }

    /// A lease for a key. Ids that the servers picked differ, and with them the hashes of what is stored.
    pub(super) fn attached_lease(&mut self) -> i64 {
        if self.mix.hashes { self.dice.between(0, IDS + 1) } else { self.lease() }
    }

    /// A lease that is likely there.
    pub(super) fn lease(&mut self) -> i64 {
        match self.dice.below(12) {
            0 => 0,
            1 => *self.dice.pick(&[-1, 99, i64::MAX]),
            2 | 3 if self.picked_leases > 0 => {
                Symbol::Lease(self.dice.between(0, self.picked_leases.min(20) - 1)).number()
            }
            _ => self.dice.between(1, IDS),
        }
    }
}
