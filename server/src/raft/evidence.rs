//! What members hold against each other to see whether they have the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mainstay_proto::mainstay::{CompactionHash, DigestsResponse, StateMark};

use crate::apply::{DIGEST_VERSION, DigestView};
use crate::mvcc::{HASH_VERSION, Store};

/// What one member can say of its state without reading it through.
#[derive(Clone)]
pub struct Evidence {
    digest: DigestView,
    store: Store,
    doubt: Doubt,
}

/// Whether this member's own state is in doubt. The alarm that says so is on its way then, and may be for long.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt {
    /// The last term in which it found so as the leader.
    term: Arc<AtomicU64>,
    /// It found so when it was started, and was not named yet.
    at_start: Arc<AtomicBool>,
}

impl Doubt {
    fn arises(&self, term: u64) {
        self.term.fetch_max(term, Ordering::AcqRel);
    }

    /// Whether what this member sends as the leader of a term is in doubt.
    pub(super) fn is_in(&self, term: u64) -> bool {
        self.at_start.load(Ordering::Acquire) || self.term.load(Ordering::Acquire) >= term
    }
}

impl Evidence {
    pub(super) fn new(digest: DigestView, store: Store) -> Self {
        Self { digest, store, doubt: Doubt::default() }
    }

    /// This member leads in a term, and differs from the others: from now on nobody gets its state from it.
    pub fn doubt_own(&self, term: u64) {
        self.doubt.arises(term);
    }

    /// It differed when it was started: until the alarm says so nobody gets its state from it, in whichever term.
    pub fn doubt_own_until_named(&self, is_unnamed: bool) {
        self.doubt.at_start.store(is_unnamed, Ordering::Release);
    }

    pub(super) fn doubt(&self) -> Doubt {
        self.doubt.clone()
    }

    /// What the state was made of, at entries behind this one.
    pub fn since(&self, index: u64) -> DigestsResponse {
        self.with(self.digest.since(index))
    }

    /// What the state was made of, at those of these entries that are known.
    pub(super) fn at(&self, indexes: &[u64]) -> DigestsResponse {
        self.with(self.digest.at(indexes))
    }

    fn with(&self, marks: Vec<StateMark>) -> DigestsResponse {
        let hashes = self.store.compaction_hashes().into_iter();
        let hashes = hashes.map(|it| CompactionHash {
            revision: it.hash_revision,
            compacted: it.compact_revision,
            hash: it.hash,
        });
        DigestsResponse { marks, hashes: hashes.collect(), digest_version: DIGEST_VERSION, hash_version: HASH_VERSION }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_ends_with_its_term() {
        let doubt = Doubt::default();
        assert!(!doubt.is_in(1));
        doubt.clone().arises(3);
        assert!(doubt.is_in(3));
        assert!(!doubt.is_in(4), "whoever leads again has been compared again, or is");
        doubt.at_start.store(true, Ordering::Release);
        assert!(doubt.clone().is_in(4), "in any term");
        doubt.at_start.store(false, Ordering::Release);
        assert!(doubt.is_in(3) && !doubt.is_in(4), "the alarm says it now");
    }
}
