//! Writes what a store shall hold before something happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use mainstay_client::{Client, Error};

use super::session::Session;
use crate::keyspace::{key, value};
use crate::load::{Budget, Pace, Worker, drive};

/// Writes in flight.
const WRITERS: usize = 64;
/// How long one may take: a server that gets gigabytes at once may have to wait for its disk.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// What is written: one put a value, key after key, and again from the first one on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    /// The number of the first key.
    pub(super) first: u64,
    /// How many keys there are.
    pub(super) keys: u64,
    /// How many values are written to them.
    pub(super) count: u64,
    /// Bytes of a value. Each is different, so that old revisions of a key, which lie beside each other,
    /// do not compress.
    pub(super) value_size: usize,
    /// Where the values come from.
    pub(super) seed: u64,
}

impl Fill {
    /// Writes it all, as fast as it goes.
    pub(super) async fn write(self, session: &Session) -> anyhow::Result<()> {
        let next = Arc::new(AtomicU64::new(0));
        let writer = |number: usize| {
            let client = session.client(number).with_timeout(WRITE_MAX);
            Writer { client, fill: self, next: next.clone() }
        };
        let writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
        let measured = drive(writers, Pace { budget: Budget::Total(self.count), rate: 0 }).await;
        ensure!(
            measured.errors.is_empty(),
            "filling the store, {} of {} values: {:?}",
            measured.operations,
            self.count,
            measured.errors
        );
        Ok(())
    }
}

struct Writer {
    client: Client,
    fill: Fill,
    /// What all the writers have begun. Each value is written once, whoever is faster.
    next: Arc<AtomicU64>,
}

impl Worker for Writer {
    async fn step(&mut self) -> Result<u64, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Fill { first, keys, value_size, seed, .. } = self.fill;
        self.client.put(key(first + number % keys), value(seed, first + number, value_size)).await?;
        Ok(1)
    }
}
