//! Where members are reached now: openraft keeps the address with which a connection was opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::type_config::Membership;

/// The peer URLs of all members, as of the last change that was applied here. Clones see the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    urls: Arc<ArcSwap<BTreeMap<u64, Arc<[String]>>>>,
}

impl Addresses {
    /// Takes over the addresses of a membership.
    pub(super) fn set(&self, membership: &Membership) {
        let urls = membership.nodes().map(|(id, node)| (*id, node.peer_urls.clone().into()));
        self.urls.store(Arc::new(urls.collect()));
    }

    /// Where a member is reached; `None` for one that is not known here.
    pub(super) fn of(&self, id: u64) -> Option<Arc<[String]>> {
        self.urls.load().get(&id).cloned()
    }
}
