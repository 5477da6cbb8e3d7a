//! Which links are cut. A link may be cut for several reasons at once and is open when none is left.

use std::collections::BTreeMap;

use madsim::net::NetSim;
use madsim::task::NodeId;

/// The links of the world, by how many reasons each is cut for.
#[derive(Default)]
pub(crate) struct Links {
    cut: BTreeMap<(NodeId, NodeId), u32>,
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
}

/// All links between two groups of nodes, both ways.
pub(crate) fn between(ones: &[NodeId], others: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let pairs = ones.iter().flat_map(|one| others.iter().map(move |other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}
