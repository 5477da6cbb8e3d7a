use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// What a command changed of a lease, for the leader's expirer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// The lease exists now.
    Granted {
        /// Its id.
        id: i64,
        /// Its time to live, in seconds.
        ttl: i64,
    },
    /// The lease and its keys are gone.
    Revoked {
        /// Its id.
        id: i64,
    },
    /// What is left of the lease was recorded, or, with 0, the record of it was cleared.
    Checkpointed {
        /// Its id.
        id: i64,
        /// Seconds that were left.
        remaining: i64,
    },
}

/// One lease as it is replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Seconds that were granted.
    pub ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 where there was none since the last renewal.
    pub remaining: i64,
    /// The keys that go when the lease goes, in order.
    pub keys: BTreeSet<Bytes>,
}

/// Every lease, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    by_id: BTreeMap<i64, Lease>,
}

impl Leases {
    /// Whether the lease exists.
    pub fn exists(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Returns a lease.
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// The leases in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    /// How many leases there are.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Adds a lease without keys; replaces one with the same id.
    pub fn insert(&mut self, id: i64, ttl: i64, remaining: i64) {
        self.by_id.insert(id, Lease { ttl, remaining, keys: BTreeSet::new() });
    }

    /// Takes a lease away and returns it.
    pub fn remove(&mut self, id: i64) -> Option<Lease> {
        self.by_id.remove(&id)
    }

    /// Records what is left of a lease and returns its granted time to live; `None` where it does not exist.
    pub fn checkpoint(&mut self, id: i64, remaining: i64) -> Option<i64> {
        let lease = self.by_id.get_mut(&id)?;
        lease.remaining = remaining;
        Some(lease.ttl)
    }

    /// Attaches a key. The key is copied: a slice of a request would keep the whole request in memory.
    pub fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id)
            && !lease.keys.contains(key)
        {
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }

    /// Detaches a key.
    pub fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_and_go_in_order() {
        let mut leases = Leases::default();
        leases.insert(7, 10, 0);
        for key in ["b", "a", "c", "a"] {
            leases.attach(7, key.as_bytes());
        }
        leases.detach(7, b"b");
        leases.detach(8, b"a");
        leases.attach(8, b"a");
        let lease = leases.remove(7).unwrap();
        assert_eq!(lease.keys.into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(leases, Leases::default());
    }

    #[test]
    fn a_checkpoint_needs_its_lease() {
        let mut leases = Leases::default();
        leases.insert(7, 10, 0);
        assert_eq!(leases.checkpoint(7, 4), Some(10));
        assert_eq!(leases.get(7).unwrap().remaining, 4);
        assert_eq!(leases.checkpoint(8, 4), None);
    }
}
