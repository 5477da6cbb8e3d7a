//! Which links are cut, and which are bad. A link may be so for several reasons at once, and is
//! whole when none is left.

use std::collections::BTreeMap;

use madsim::net::NetSim;
use madsim::task::NodeId;
use mainstay_server::env::transport::{LinkConditions, clear_links, set_link};

/// The links of the world that are not as they should be.
#[derive(Default)]
pub(crate) struct Links {
    /// By how many reasons each is cut for.
    cut: BTreeMap<(NodeId, NodeId), u32>,
    /// By fault, what it does to which.
    bad: BTreeMap<usize, (Vec<(NodeId, NodeId)>, LinkConditions)>,
}

impl Links {
    /// Cuts links, each in the direction given.
    pub(crate) fn cut(&mut self, links: &[(NodeId, NodeId)]) {
        for link in links {
            let reasons = self.cut.entry(*link).or_default();
            *reasons += 1;
            if *reasons == 1 {
                NetSim::current().clog_link(link.0, link.1);
            }
        }
    }

    /// Takes back what [`cut`](Self::cut) did to the same links.
    pub(crate) fn mend(&mut self, links: &[(NodeId, NodeId)]) {
        for link in links {
            let Some(reasons) = self.cut.get_mut(link) else { continue };
            *reasons -= 1;
            if *reasons == 0 {
                self.cut.remove(link);
                NetSim::current().unclog_link(link.0, link.1);
            }
        }
    }

    /// Makes links bad because of a fault.
    pub(crate) fn spoil(&mut self, fault: usize, links: Vec<(NodeId, NodeId)>, conditions: LinkConditions) {
        self.bad.insert(fault, (links, conditions));
        self.apply();
    }

    /// Takes back what a fault did.
    pub(crate) fn restore(&mut self, fault: usize) {
        self.bad.remove(&fault);
        self.apply();
    }

    /// Every link is as bad as the worst that is done to it.
    fn apply(&self) {
        let mut worst: BTreeMap<(NodeId, NodeId), LinkConditions> = BTreeMap::new();
        for (links, conditions) in self.bad.values() {
            for link in links {
                let so_far = worst.entry(*link).or_default();
                *so_far = LinkConditions {
                    delay: conditions.delay.clone().or(so_far.delay.take()),
                    reset: so_far.reset.max(conditions.reset),
                    duplicate: so_far.duplicate.max(conditions.duplicate),
                    refuse: so_far.refuse.max(conditions.refuse),
                    ignore: so_far.ignore.max(conditions.ignore),
                    flip: so_far.flip.max(conditions.flip),
                    flip_forwarded: so_far.flip_forwarded.max(conditions.flip_forwarded),
                    largest: conditions.largest.into_iter().chain(so_far.largest).min(),
                };
            }
        }
        clear_links();
        for ((from, to), conditions) in worst {
            set_link(from, to, conditions);
        }
    }
}

/// All links between two groups of nodes, both ways.
pub(crate) fn between(ones: &[NodeId], others: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let pairs = ones.iter().flat_map(|one| others.iter().map(move |other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}
