//! Writes keys.

use bytes::Bytes;
use mainstay_client::{Client, Error};

use super::session::Session;
use crate::keyspace::{Chooser, value};
use crate::load::Worker;
use crate::options::Options;

pub(super) fn workers(session: &Session, options: &Options) -> Vec<Putter> {
    let clients = options.clients;
    let putter = |client: usize| Putter {
        client: session.client(client),
        chooser: Chooser::new(options.seed, client as u64, clients as u64, options.keys, options.sequential),
        value: value(options.seed, client as u64, options.value_size),
    };
    (0..clients).map(putter).collect()
}

/// Clients that write the first `keys` keys at random.
pub(super) fn at_random(session: &Session, clients: usize, keys: u64, value_size: usize, seed: u64) -> Vec<Putter> {
    let putter = |client: usize| Putter {
        client: session.client(client),
        chooser: Chooser::new(seed, client as u64, clients as u64, keys, false),
        value: value(seed, client as u64, value_size),
    };
    (0..clients).map(putter).collect()
}

pub(super) struct Putter {
    client: Client,
    chooser: Chooser,
    value: Bytes,
}

impl Worker for Putter {
    async fn step(&mut self) -> Result<u64, Error> {
        self.client.put(self.chooser.next_key(), self.value.clone()).await?;
        Ok(1)
    }
}
