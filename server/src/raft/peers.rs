use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::gateway::Unavailable;
use super::network::{Client, Link};
use super::type_config::Membership;
use crate::env::transport::Dialer;

/// The connections over which this member asks others on its clients' behalf.
pub(crate) struct Peers {
    /// This member.
    own: u64,
    dialer: Dialer,
    connect_timeout: Duration,
    /// By member id. A leaf lock, never held across a wait.
    known: Mutex<BTreeMap<u64, Known>>,
}

/// How a member is asked.
#[derive(Default)]
struct Known {
    /// Which of its URLs is in use, counted on and on.
    turn: usize,
    /// The connection, with the URL that it was made for.
    link: Option<(String, Link)>,
}

impl Peers {
    pub(crate) fn new(own: u64, dialer: Dialer, connect_timeout: Duration) -> Self {
        Self { own, dialer, connect_timeout, known: Mutex::default() }
    }

    /// The connection to a member, at the address that it has now.
    pub(crate) fn client(&self, id: u64, members: &Membership) -> Result<Client, Unavailable> {
        // A member that has just started may know its leader before the entry with the addresses.
        let urls = &members.get_node(&id).ok_or(Unavailable::NotLeader)?.peer_urls;
        let mut known = self.known.lock();
        let known = known.entry(id).or_default();
        let url = urls.get(known.turn % urls.len().max(1)).ok_or(Unavailable::NotLeader)?;
        if let Some((of, link)) = &known.link
            && of == url
            && !link.went_astray()
        {
            return Ok(link.client.clone());
        }
        let channel = self.dialer.connect(url, self.connect_timeout).map_err(|_| Unavailable::TimeoutConnectionLost)?;
        let (_, link) = known.link.insert((url.clone(), Link::new(channel, self.own, id)));
        Ok(link.client.clone())
    }

    /// Turns to the next of a member's URLs: at this one it did not answer.
    pub(crate) fn turn(&self, id: u64) {
        let mut known = self.known.lock();
        let known = known.entry(id).or_default();
        known.turn = known.turn.wrapping_add(1);
    }
}
