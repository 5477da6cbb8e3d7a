//! Leases that are to end at one time, and the deletions of their keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use mainstay_client::proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_client::proto::etcdserverpb::{WatchRequest, WatchResponse};
use mainstay_client::{Client, Error, EventType, KeepAlive, KeyRange, Put, RawWatch, Watch};
use tokio::time::{Instant, timeout_at};

use super::super::session::Session;
use crate::keyspace::key;
use crate::load::Worker;

/// Bytes of the value of a key with a lease.
const VALUE: &[u8] = &[b'v'; 64];

/// How long leases live.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// So many seconds.
    Seconds(i64),
    /// Until a time, and up to a second longer.
    Until(Instant),
}

impl Life {
    /// The time to live of a lease that is granted now.
    fn ttl(self, now: Instant) -> i64 {
        match self {
            Self::Seconds(seconds) => seconds,
            Self::Until(end) => {
                let left = end.saturating_duration_since(now);
                i64::try_from(left.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(left.subsec_nanos() > 0))
            }
        }
    }
}

/// A lease that was granted, with one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) id: i64,
    /// The number of its key.
    pub(super) number: u64,
    /// It cannot end before.
    pub(super) earliest: Instant,
    /// It was to end now: its time counted from when it was known to be granted.
    pub(super) due: Instant,
}

/// Grants leases, each with a key.
pub(super) struct Granter {
    client: Client,
    life: Life,
    next: Arc<AtomicU64>,
    granted: Arc<Mutex<Vec<Granted>>>,
}

/// Clients that grant leases for the keys from a number on. What they granted comes into the list.
pub(super) fn granters(
    session: &Session,
    clients: usize,
    life: Life,
    first: u64,
) -> (Vec<Granter>, Arc<Mutex<Vec<Granted>>>) {
    let (next, granted) = (Arc::new(AtomicU64::new(first)), Arc::default());
    let granter = |client: usize| Granter {
        client: session.client(client),
        life,
        next: next.clone(),
        granted: Arc::clone(&granted),
    };
    ((0..clients).map(granter).collect(), granted)
}

impl Worker for Granter {
    async fn step(&mut self) -> Result<u64, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let ttl = self.life.ttl(asked);
        let answer = self.client.lease_grant(ttl).await?;
        let answered = Instant::now();
        if answer.ttl != ttl {
            return Err(Error::Malformed("a lease of another time than was asked for"));
        }
        let time = Duration::from_secs(ttl.unsigned_abs());
        self.client.put_with(Put::new(key(number), VALUE).lease(answer.id)).await?;
        let granted = Granted { id: answer.id, number, earliest: asked + time, due: answered + time };
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).push(granted);
        Ok(1)
    }
}

/// Renews leases, all in turn, over a stream of its own.
pub(super) struct Renewer {
    keep_alive: KeepAlive,
    ids: Arc<Vec<i64>>,
    next: Arc<AtomicU64>,
}

pub(super) fn renewers(session: &Session, clients: usize, ids: Vec<i64>) -> Vec<Renewer> {
    let (ids, next) = (Arc::new(ids), Arc::new(AtomicU64::new(0)));
    let renewer = |client: usize| Renewer {
        keep_alive: session.client(client).keep_alive(0),
        ids: ids.clone(),
        next: next.clone(),
    };
    (0..clients).map(renewer).collect()
}

impl Worker for Renewer {
    async fn step(&mut self) -> Result<u64, Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.ids.len() as u64;
        self.keep_alive.turn_to(self.ids[turn as usize]);
        self.keep_alive.renew().await?;
        Ok(1)
    }
}

/// A watch that hears of deletions.
pub(super) struct Deletions {
    raw: RawWatch,
    first: u64,
    /// When the key of which number was deleted.
    at: Vec<Option<Instant>>,
    seen: u64,
    wrong: BTreeMap<String, u64>,
}

/// What a watch heard of.
pub(super) struct Heard {
    /// When the key of which number was deleted, counted from the first one.
    pub(super) at: Vec<Option<Instant>>,
    /// What should not have come.
    pub(super) wrong: BTreeMap<String, u64>,
}

impl Deletions {
    /// Watches so many keys from a number on.
    pub(super) async fn open(client: &Client, first: u64, count: u64) -> anyhow::Result<Self> {
        let watch = Watch::of(&KeyRange::new(key(first), key(first + count))).without_puts();
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch.into())) };
        let mut raw = client.watch_raw(create).await.context("watching the keys")?;
        let created = raw.responses.message().await?;
        ensure!(created.is_some_and(|response| response.created && !response.canceled), "the watch was not created");
        let places = usize::try_from(count)?;
        Ok(Self { raw, first, at: vec![None; places], seen: 0, wrong: BTreeMap::new() })
    }

    /// Receives until each key was deleted, or the time is over.
    pub(super) async fn receive(mut self, deadline: Instant) -> Heard {
        while self.seen < self.at.len() as u64 {
            match timeout_at(deadline, self.raw.responses.message()).await {
                Ok(Ok(Some(response))) => self.take(&response),
                Ok(Ok(None)) => {
                    self.note("the stream of events ended".to_owned());
                    break;
                }
                Ok(Err(status)) => {
                    self.note(Error::of(status).to_string());
                    break;
                }
                Err(_elapsed) => break,
            }
        }
        Heard { at: self.at, wrong: self.wrong }
    }

    fn take(&mut self, response: &WatchResponse) {
        let now = Instant::now();
        if response.canceled {
            self.note(format!("the watch was cancelled: {}", response.cancel_reason));
        }
        for event in &response.events {
            let number = event.kv.as_ref().and_then(|kv| number_of(&kv.key));
            let place = number.and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
            let is_delete = event.r#type == EventType::Delete as i32;
            match place.and_then(|place| self.at.get_mut(place)).filter(|_| is_delete) {
                Some(at) if at.is_none() => {
                    *at = Some(now);
                    self.seen += 1;
                }
                Some(_) => self.note("a key was deleted twice".to_owned()),
                None => self.note("an event that no lease makes".to_owned()),
            }
        }
    }

    fn note(&mut self, text: String) {
        *self.wrong.entry(text).or_default() += 1;
    }
}

/// The number of a key.
fn number_of(key: &[u8]) -> Option<u64> {
    let digits = key.strip_prefix(crate::keyspace::PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_number() {
        assert_eq!((number_of(&key(0)), number_of(&key(123_456))), (Some(0), Some(123_456)));
        assert_eq!((number_of(b"ready?"), number_of(b"/mainstay-bench/x")), (None, None));
    }

    #[test]
    fn leases_that_are_granted_one_after_the_other_end_within_a_second() {
        let now = Instant::now();
        let end = now + Duration::from_secs(10);
        for (millis, ttl) in [(0, 10), (1, 10), (999, 10), (1_000, 9), (1_500, 9), (9_999, 1)] {
            let granted = now + Duration::from_millis(millis);
            assert_eq!(Life::Until(end).ttl(granted), ttl, "after {millis} ms");
            let over = granted + Duration::from_secs(ttl as u64) - end;
            assert!(over < Duration::from_secs(1), "{over:?}");
        }
        assert_eq!(Life::Until(end).ttl(end), 0);
        assert_eq!(Life::Seconds(60).ttl(now), 60);
    }
}
