//! Reads single keys.

use mainstay_client::{Client, Error, Range};

use super::session::Session;
use crate::keyspace::Chooser;
use crate::load::Worker;
use crate::options::Options;

pub(super) fn workers(session: &Session, options: &Options, serializable: bool) -> Vec<Getter> {
    let clients = options.clients;
    let getter = |client: usize| Getter {
        client: session.client(client),
        chooser: Chooser::new(options.seed, client as u64, clients as u64, options.keys, options.sequential),
        serializable,
    };
    (0..clients).map(getter).collect()
}

/// Clients that read the first `keys` keys at random, linearizably.
pub(super) fn at_random(session: &Session, clients: usize, keys: u64, seed: u64) -> Vec<Getter> {
    let getter = |client: usize| Getter {
        client: session.client(client),
        // The seed of no writer, so that the reads do not follow the writes from key to key.
        chooser: Chooser::new(seed, (clients + client) as u64, clients as u64, keys, false),
        serializable: false,
    };
    (0..clients).map(getter).collect()
}

pub(super) struct Getter {
    client: Client,
    chooser: Chooser,
    serializable: bool,
}

impl Worker for Getter {
    async fn step(&mut self) -> Result<u64, Error> {
        let mut range = Range::key(self.chooser.next_key());
        if self.serializable {
            range = range.serializable();
        }
        match self.client.range(range).await?.kvs.len() {
            1 => Ok(1),
            // A server that answers fast because it has lost the keys shall not win.
            _ => Err(Error::Malformed("a key that was written is not there")),
        }
    }
}
