use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::Leases;

/// A read handle to the leases of this member.
///
/// It shows the leases as of the last applied command, which may be ahead of the published revision by
/// the run that is being applied; what it shows is committed in any case.
///
/// Inside is a lock with one writer, `apply`. It is a leaf: nothing else is taken under it, nothing
/// awaited, and the longest thing done under it is a copy of all ids.
#[derive(Clone, Debug)]
pub struct LeaseView {
    leases: Arc<RwLock<Leases>>,
}

/// The times of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerm {
    /// The lease.
    pub id: i64,
    /// Seconds that were granted.
    pub ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 where there was none since the last renewal.
    pub remaining: i64,
}

impl LeaseView {
    /// Looks into leases that their owner shares.
    pub fn new(leases: Arc<RwLock<Leases>>) -> Self {
        Self { leases }
    }

    /// Whether the lease exists.
    pub fn exists(&self, id: i64) -> bool {
        self.leases.read().exists(id)
    }

    /// Seconds that were granted to a lease; `None` where it does not exist.
    pub fn granted_ttl(&self, id: i64) -> Option<i64> {
        self.leases.read().get(id).map(|lease| lease.ttl)
    }

    /// The keys attached to a lease, in order; none where it does not exist.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.leases.read().get(id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The ids of all leases, in their order.
    pub fn all(&self) -> Vec<i64> {
        self.leases.read().iter().map(|(id, _)| id).collect()
    }

    /// The times of all leases, in the order of their ids.
    pub fn terms(&self) -> Vec<LeaseTerm> {
        let leases = self.leases.read();
        leases.iter().map(|(id, lease)| LeaseTerm { id, ttl: lease.ttl, remaining: lease.remaining }).collect()
    }

    /// How many leases there are.
    pub fn count(&self) -> usize {
        self.leases.read().count()
    }
}
