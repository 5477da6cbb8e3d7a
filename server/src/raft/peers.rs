use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_proto::mainstay::peer_client::PeerClient;
use parking_lot::Mutex;

use super::gateway::Unavailable;
use super::network::peer_client;
use super::type_config::Membership;
use crate::env::transport::{Dialer, PeerChannel};

/// The connections over which this member asks others on its clients' behalf.
pub(crate) struct Peers {
    dialer: Dialer,
    connect_timeout: Duration,
    /// By member id, with the URL that each was made for. A leaf lock, never held across a wait.
    clients: Mutex<BTreeMap<u64, (String, PeerClient<PeerChannel>)>>,
}

impl Peers {
    pub(crate) fn new(dialer: Dialer, connect_timeout: Duration) -> Self {
        Self { dialer, connect_timeout, clients: Mutex::default() }
    }

    /// The connection to a member, at the address that it has now.
    pub(crate) fn client(&self, id: u64, members: &Membership) -> Result<PeerClient<PeerChannel>, Unavailable> {
        // A member that has just started may know its leader before the entry with the addresses.
        let url = members.get_node(&id).and_then(|node| node.peer_urls.first()).ok_or(Unavailable::NotLeader)?;
        let mut clients = self.clients.lock();
        match clients.get(&id) {
            Some((known, client)) if known == url => Ok(client.clone()),
            _ => {
                let channel =
                    self.dialer.connect(url, self.connect_timeout).map_err(|_| Unavailable::TimeoutConnectionLost)?;
                let client = peer_client(channel);
                clients.insert(id, (url.clone(), client.clone()));
                Ok(client)
            }
        }
    }
}
