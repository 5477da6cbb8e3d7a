//! What happens to messages between two nodes, beyond madsim's own latency, loss and clogging.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use madsim::rand::{Rng, thread_rng};
use madsim::task::NodeId;

/// The conditions on a link in one direction. Everything is drawn from the simulation's own randomness.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkConditions {
    /// A message is under way for at least so long. Those of one connection stay in order.
    pub delay: Option<Range<Duration>>,
    /// How probably a message breaks its connection instead of arriving: both ends see a reset.
    pub reset: f64,
    /// How probably a peer request that changes nothing when repeated arrives once more, later.
    pub duplicate: f64,
    /// How probably an attempt to connect is refused.
    pub refuse: f64,
    /// How probably an attempt to connect gets no answer until its timeout.
    pub ignore: f64,
    /// How probably a bit of a message turns over, where messages and their answers have checksums.
    pub flip: f64,
    /// The same for the batches of commands that are passed on, whose answers are left alone.
    pub flip_forwarded: f64,
    /// The bytes of the largest message that arrives. A larger one never does, nor what follows on its connection, which
    /// breaks after a while: what a way does whose packets have to be smaller than its ends were told.
    pub largest: Option<usize>,
}

/// Messages on their way, or waiting for their reader, before the sender waits, too, where nothing else is
/// set.
const WINDOW_MESSAGES: usize = 16;

#[derive(Default)]
struct Links {
    conditions: BTreeMap<(NodeId, NodeId), LinkConditions>,
    /// Where an address leads instead, for who connects from now on.
    detours: BTreeMap<SocketAddr, SocketAddr>,
    /// Which node answers at an address.
    listeners: BTreeMap<SocketAddr, NodeId>,
    /// What each connection lets wait, where it is set.
    window: Option<usize>,
}

thread_local! {
    static LINKS: RefCell<Links> = RefCell::default();
}

/// Sets the conditions on the link from one node to another; those of the way back are their own.
pub fn set_link(from: NodeId, to: NodeId, conditions: LinkConditions) {
    LINKS.with_borrow_mut(|links| links.conditions.insert((from, to), conditions));
}

/// Makes every link good again. Clogs of madsim's network are not touched.
pub fn clear_links() {
    LINKS.with_borrow_mut(|links| links.conditions.clear());
}

/// Has an address lead to another one, as a name that is out of date or an address that was given anew, or no more.
/// Connections that are there stay.
pub fn set_detour(from: SocketAddr, to: Option<SocketAddr>) {
    LINKS.with_borrow_mut(|links| match to {
        Some(to) => {
            links.detours.insert(from, to);
        }
        None => {
            links.detours.remove(&from);
        }
    });
}

/// Has every address lead to itself again.
pub fn clear_detours() {
    LINKS.with_borrow_mut(|links| links.detours.clear());
}

/// Where an address leads now.
pub(super) fn led_to(address: SocketAddr) -> SocketAddr {
    LINKS.with_borrow(|links| links.detours.get(&address).copied().unwrap_or(address))
}

/// Sets how many messages of a connection to come may wait each way before their sender waits, too: what a
/// window does in HTTP/2, counted more coarsely. At least one.
pub fn set_window(messages: usize) {
    LINKS.with_borrow_mut(|links| links.window = Some(messages.max(1)));
}

/// How many messages of a connection may wait each way.
pub(super) fn window() -> usize {
    LINKS.with_borrow(|links| links.window.unwrap_or(WINDOW_MESSAGES))
}

/// Looks at the conditions from one node to another, if there are any.
pub(super) fn on_link<T>(from: NodeId, to: NodeId, look: impl FnOnce(&LinkConditions) -> T) -> Option<T> {
    LINKS.with_borrow(|links| links.conditions.get(&(from, to)).map(look))
}

/// Whether something happens that has this probability.
pub(super) fn happens(probability: f64) -> bool {
    probability > 0.0 && thread_rng().gen_bool(probability.min(1.0))
}

/// One of so many, of which there are some.
pub(super) fn one_of(count: usize) -> usize {
    thread_rng().gen_range(0..count)
}

/// A duration out of a range.
pub(super) fn draw(range: &Range<Duration>) -> Duration {
    if range.is_empty() { range.start } else { thread_rng().gen_range(range.clone()) }
}

/// The node that answers at an address.
pub(super) fn listener(address: SocketAddr) -> Option<NodeId> {
    LINKS.with_borrow(|links| links.listeners.get(&address).copied())
}

/// Notes for as long as it lives that a node answers at an address.
pub(super) struct Listening {
    address: SocketAddr,
}

impl Listening {
    pub(super) fn at(address: SocketAddr) -> Self {
        LINKS.with_borrow_mut(|links| links.listeners.insert(address, madsim::plugin::node()));
        Self { address }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The thread may be ending.
        LINKS.try_with(|links| links.borrow_mut().listeners.remove(&self.address)).ok();
    }
}
