//! That this member was removed from its cluster, wherever it learns that from.

use std::time::Duration;

use tokio::sync::watch;

use crate::env::clock;

/// What a member that was removed is told by the others, and says itself; etcd's words.
pub const REMOVED: &str = "the member has been permanently removed from the cluster";

/// How long a member that was removed still answers: whoever asked for it may have asked this member.
const GRACE: Duration = Duration::from_millis(500);

/// Remembers for one member that it was removed. Clones remember the same.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    own: u64,
    told: watch::Sender<bool>,
}

impl Removal {
    pub(super) fn of(own: u64) -> Self {
        Self { own, told: watch::Sender::new(false) }
    }

    /// These members were removed.
    pub(super) fn removed(&self, ids: &[u64]) {
        if ids.contains(&self.own) {
            self.told.send_replace(true);
        }
    }

    /// Another member says that this one was removed.
    pub(super) fn told_by_peer(&self) {
        self.told.send_replace(true);
    }

    /// Resolves when this member is to end because it was removed.
    pub(super) async fn takes_effect(&self) {
        self.learned().await;
        clock::sleep(GRACE).await;
    }

    /// Resolves once this member knows that it was removed.
    async fn learned(&self) {
        let mut told = self.told.subscribe();
        // This very value keeps the channel open.
        told.wait_for(|told| *told).await.map(drop).unwrap_or_default();
    }
}
