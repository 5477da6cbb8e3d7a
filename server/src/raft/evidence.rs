//! What members hold against each other to see whether they have the same.

use mainstay_proto::mainstay::{CompactionHash, DigestsResponse, StateMark};

use crate::apply::{DIGEST_VERSION, DigestView};
use crate::mvcc::{HASH_VERSION, Store};

/// What one member can say of its state without reading it through.
#[derive(Clone)]
pub struct Evidence {
    digest: DigestView,
    store: Store,
}

impl Evidence {
    pub(super) fn new(digest: DigestView, store: Store) -> Self {
        Self { digest, store }
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
