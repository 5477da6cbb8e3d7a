//! Who the members are and where they are reached, by what was applied here: openraft keeps the address with which a
//! connection was opened, and tells of changes that are not committed and may never be.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::type_config::Membership;
use crate::env::probe;

/// The peer URLs of all members, as of the last change that was applied here. Clones see the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    urls: Arc<ArcSwap<BTreeMap<u64, Arc<[String]>>>>,
    members: Arc<ArcSwap<Membership>>,
}

impl Addresses {
    /// Takes over the addresses of a membership.
    pub(super) fn set(&self, membership: &Membership) {
        if probe::broken("members-stay-where-they-were") && !self.urls.load().is_empty() {
            // Wrong: a member that moved is looked for where it was.
            self.members.store(Arc::new(membership.clone()));
            return;
        }
        let urls = membership.nodes().map(|(id, node)| (*id, node.peer_urls.clone().into()));
        self.urls.store(Arc::new(urls.collect()));
        self.members.store(Arc::new(membership.clone()));
    }

    /// Who the members are, by the last change that was applied here; empty before the first.
    pub(super) fn members(&self) -> Arc<Membership> {
        self.members.load_full()
    }

    /// Where a member is reached; `None` for one that is not known here.
    pub(super) fn of(&self, id: u64) -> Option<Arc<[String]>> {
        self.urls.load().get(&id).cloned()
    }
}
