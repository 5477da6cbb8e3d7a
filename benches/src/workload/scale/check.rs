//! Clients that write what they can tell again, and look at every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_client::proto::etcdserverpb::RangeRequest;
use mainstay_client::{Client, Error, Put, Range, Txn};
use tokio::time::sleep;

use super::super::session::Session;
use crate::keyspace::{Chooser, PREFIX, key, value};
use crate::load::Worker;

/// How long a request may take: a server that gets gigabytes at once may have to wait for its disk.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// How often a write is tried that is refused: a server that is short of memory or late refuses in order to live.
const ATTEMPTS_MAX: u32 = 100;
/// How long a refused write rests.
const REST: Duration = Duration::from_millis(100);
/// Bytes of values in a transaction; etcd allows 1.5 MiB for a request.
const TXN_BYTES_MAX: usize = 1 << 20;
/// A prime above any number of keys, so that its multiples go through all of them.
const SCATTER: u128 = 2_654_435_761;

/// Keys with values that follow from the seed and the key's number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    /// How many keys there are.
    pub(super) keys: u64,
    /// Bytes of a value.
    pub(super) value_size: usize,
    /// Where the values come from.
    pub(super) seed: u64,
}

impl Contents {
    /// The number of the key that is written `place`-th: far from the one before it, as where many write at once.
    fn scattered(&self, place: u64) -> u64 {
        (u128::from(place) * SCATTER % u128::from(self.keys)) as u64
    }

    /// Whether the scattered numbers are all the numbers.
    pub(super) fn can_scatter(keys: u64) -> bool {
        keys > 0 && !u128::from(keys).is_multiple_of(SCATTER)
    }

    /// How many values go into one transaction.
    pub(super) fn batch(&self, most: u64) -> u64 {
        let fits = (TXN_BYTES_MAX / self.value_size.max(1)).max(1) as u64;
        fits.min(most)
    }
}

/// Writes them all, each once, several in a transaction.
pub(super) struct Loader {
    client: Client,
    contents: Contents,
    batch: u64,
    shared: Arc<Progress>,
}

/// What all loaders have done.
#[derive(Debug, Default)]
pub(super) struct Progress {
    begun: AtomicU64,
    refused: AtomicU64,
}

impl Progress {
    /// How many writes were refused, and tried again.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

pub(super) fn loaders(
    session: &Session,
    clients: usize,
    contents: Contents,
    batch: u64,
) -> (Vec<Loader>, Arc<Progress>) {
    let shared = Arc::new(Progress::default());
    let loader = |number: usize| Loader {
        client: session.client(number).with_timeout(REQUEST_MAX),
        contents,
        batch,
        shared: shared.clone(),
    };
    ((0..clients).map(loader).collect(), shared)
}

impl Worker for Loader {
    async fn step(&mut self) -> Result<u64, Error> {
        let Contents { keys, value_size, seed } = self.contents;
        let first = self.shared.begun.fetch_add(self.batch, Ordering::Relaxed);
        let places = first..keys.min(first + self.batch);
        let count = places.end.saturating_sub(first);
        let puts = places.map(|place| self.contents.scattered(place));
        let puts = puts.map(|number| Put::new(key(number), value(seed, number, value_size)));
        let txn = puts.fold(Txn::new(), Txn::then);
        let mut attempt = 1;
        loop {
            match self.client.txn(txn.clone()).await {
                Ok(answer) if answer.succeeded && answer.responses.len() as u64 == count => return Ok(count),
                Ok(_) => {
                    return Err(Error::Malformed("a transaction without conditions that did not do all it should"));
                }
                // A server that is gone does not come back by being asked.
                Err(error) if matches!(error, Error::NotSent(_) | Error::Broken(_)) => return Err(error),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error),
                // It writes the same once more, so it does not matter whether it took effect.
                Err(_) => {
                    attempt += 1;
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    sleep(REST).await;
                }
            }
        }
    }
}

/// Reads keys at random, and compares their values.
pub(super) struct Reader {
    client: Client,
    contents: Contents,
    chooser: Chooser,
}

pub(super) fn readers(session: &Session, clients: usize, contents: Contents) -> Vec<Reader> {
    let reader = |number: usize| Reader {
        client: session.client(number).with_timeout(REQUEST_MAX),
        contents,
        chooser: Chooser::new(contents.seed, number as u64, clients as u64, contents.keys, false),
    };
    (0..clients).map(reader).collect()
}

impl Worker for Reader {
    async fn step(&mut self) -> Result<u64, Error> {
        let number = self.chooser.next_number();
        let Contents { value_size, seed, .. } = self.contents;
        match self.client.get(key(number)).await? {
            Some(kv) if kv.value == value(seed, number, value_size) => Ok(1),
            Some(_) => Err(Error::Malformed("a value that nobody wrote to this key")),
            None => Err(Error::Malformed("a key that was written is not there")),
        }
    }
}

/// Lists pages that begin at random keys, with the count of what follows, as kube-apiserver does.
pub(super) struct Pager {
    client: Client,
    contents: Contents,
    chooser: Chooser,
    page: i64,
}

pub(super) fn pagers(session: &Session, clients: usize, contents: Contents, page: i64) -> Vec<Pager> {
    let pager = |number: usize| Pager {
        client: session.client(number).with_timeout(REQUEST_MAX),
        contents,
        // The seed of no reader, so that these are other keys.
        chooser: Chooser::new(contents.seed, (clients + number) as u64, clients as u64, contents.keys, false),
        page,
    };
    (0..clients).map(pager).collect()
}

impl Worker for Pager {
    async fn step(&mut self) -> Result<u64, Error> {
        let first = self.chooser.next_number();
        let mut request = RangeRequest::from(Range::prefix(PREFIX));
        request.key = key(first);
        request.limit = self.page;
        let answer = self.client.range(request).await?;
        let Contents { keys, value_size, seed } = self.contents;
        let left = keys - first;
        let expected = left.min(self.page.unsigned_abs());
        if answer.kvs.len() as u64 != expected || answer.count as u64 != left || answer.more != (expected < left) {
            return Err(Error::Malformed("a page that is not complete, or not counted right"));
        }
        for (number, kv) in (first..).zip(&answer.kvs) {
            if kv.key != key(number) || kv.value.len() != value_size {
                return Err(Error::Malformed("a page with other keys than were written"));
            }
        }
        match answer.kvs.first() {
            Some(kv) if kv.value == value(seed, first, value_size) => Ok(expected),
            Some(_) | None => Err(Error::Malformed("a page with a value that nobody wrote")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_written_once_and_neighbours_are_not_written_together() {
        for keys in [1, 2, 7, 1_000, 4_096, 99_999] {
            assert!(Contents::can_scatter(keys));
            let contents = Contents { keys, value_size: 1, seed: 1 };
            let mut numbers: Vec<u64> = (0..keys).map(|place| contents.scattered(place)).collect();
            if keys == 99_999 {
                assert!(numbers.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1));
            }
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..keys));
        }
        assert!(!Contents::can_scatter(0) && !Contents::can_scatter(2 * SCATTER as u64));
    }

    #[test]
    fn a_transaction_stays_below_what_etcd_takes() {
        let batch = |value_size, most| Contents { keys: 1, value_size, seed: 1 }.batch(most);
        assert_eq!((batch(2_000, 100), batch(100_000, 100), batch(1_000_000, 100)), (100, 10, 1));
        assert_eq!((batch(0, 50), batch(10_000_000, 50)), (50, 1));
    }
}
