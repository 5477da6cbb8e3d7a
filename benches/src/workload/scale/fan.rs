//! Watchers over a number of streams, and what each of them has seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use mainstay_client::proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_client::proto::etcdserverpb::{WatchRequest, WatchResponse};
use mainstay_client::{Client, Error, RawWatch, Watch};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::keyspace::PREFIX;
use crate::latency::Recorder;

/// How long opening all watchers of a stream may take.
const OPEN_MAX: Duration = Duration::from_secs(300);
/// How long nothing may come of what is waited for before it counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Bytes at the front of a value that hold the number of its event.
const NUMBER_BYTES: usize = 8;

/// A number of watchers, of which the first ones watch the same prefix and each other one a prefix of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) total: u64,
    pub(super) on_prefix: u64,
    pub(super) streams: usize,
}

impl Plan {
    /// What a watcher watches.
    pub(super) fn prefix(&self, watcher: u64) -> Bytes {
        if watcher < self.on_prefix {
            Bytes::from(format!("{PREFIX}all/"))
        } else {
            Bytes::from(format!("{PREFIX}own/{watcher:012}/"))
        }
    }

    /// A key that a watcher hears of.
    pub(super) fn key(&self, watcher: u64) -> Bytes {
        [&self.prefix(watcher)[..], b"key"].concat().into()
    }

    /// The watchers of a stream.
    fn watchers(self, stream: usize) -> impl Iterator<Item = u64> {
        (stream as u64..self.total).step_by(self.streams)
    }
}

/// A value that tells the number of its event.
pub(super) fn numbered(event: u64, size: usize) -> Bytes {
    let mut value = BytesMut::zeroed(size.max(NUMBER_BYTES));
    value[..NUMBER_BYTES].copy_from_slice(&event.to_be_bytes());
    value.freeze()
}

fn number_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// How far events have come.
pub(super) struct Board {
    epoch: Instant,
    events: Vec<Spread>,
    /// One permit whenever an event has reached all that it should.
    reached: Notify,
    wrong: Mutex<BTreeMap<String, u64>>,
}

/// How far one event has come.
#[derive(Default)]
struct Spread {
    /// How many watchers it has to reach.
    wanted: AtomicU64,
    /// When it was sent, in microseconds from the epoch.
    sent_us: AtomicU64,
    seen: AtomicU64,
    last_us: AtomicU64,
}

impl Board {
    pub(super) fn new(events: usize) -> Self {
        let events = (0..events).map(|_| Spread::default()).collect();
        Self { epoch: Instant::now(), events, reached: Notify::new(), wrong: Mutex::default() }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// An event is sent now, and should reach so many watchers.
    pub(super) fn send(&self, event: u64, wanted: u64) {
        let spread = &self.events[event as usize];
        spread.wanted.store(wanted, Ordering::SeqCst);
        spread.sent_us.store(self.now_us(), Ordering::SeqCst);
    }

    /// A watcher has seen an event.
    fn see(&self, event: u64, recorder: &Recorder, stream: usize) {
        let now = self.now_us();
        let Some(spread) = usize::try_from(event).ok().and_then(|event| self.events.get(event)) else {
            return self.note("an event that nobody sent".to_owned());
        };
        recorder.record(stream, Duration::from_micros(now.saturating_sub(spread.sent_us.load(Ordering::SeqCst))));
        spread.last_us.fetch_max(now, Ordering::SeqCst);
        if spread.seen.fetch_add(1, Ordering::SeqCst) + 1 == spread.wanted.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    /// Waits until an event has reached all, and returns how long that took.
    pub(super) async fn wait(&self, event: u64) -> anyhow::Result<Duration> {
        let spread = &self.events[event as usize];
        let mut seen_before = 0;
        loop {
            let (seen, wanted) = (spread.seen.load(Ordering::SeqCst), spread.wanted.load(Ordering::SeqCst));
            if seen >= wanted {
                let (last, sent) = (spread.last_us.load(Ordering::SeqCst), spread.sent_us.load(Ordering::SeqCst));
                return Ok(Duration::from_micros(last.saturating_sub(sent)));
            }
            // A permit may be another event's: look again. Silence is when nobody has seen anything of it for long.
            if timeout(SILENCE_MAX, self.reached.notified()).await.is_err() {
                ensure!(seen > seen_before, "event {event} came to {seen} of {wanted} watchers");
                seen_before = seen;
            }
        }
    }

    pub(super) fn note(&self, text: String) {
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner).entry(text).or_default() += 1;
    }

    /// What should not have come.
    pub(super) fn wrong(&self) -> BTreeMap<String, u64> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One stream with its watchers.
pub(super) struct Stream {
    raw: RawWatch,
    number: usize,
    /// By the ids that the server gave them.
    watchers: BTreeMap<i64, Watcher>,
}

struct Watcher {
    number: u64,
    prefix: Bytes,
    events: u64,
    /// The revision of its last event.
    revision: i64,
}

/// How many events a watcher has seen.
pub(super) type Count = (u64, u64);

impl Stream {
    /// Opens a stream with its watchers.
    pub(super) async fn open(client: &Client, plan: Plan, number: usize) -> anyhow::Result<Self> {
        let opening = Self::create_all(client, plan, number);
        let opened = timeout(OPEN_MAX, opening).await.context("it takes too long").flatten();
        opened.with_context(|| format!("opening watch stream {number}"))
    }

    async fn create_all(client: &Client, plan: Plan, number: usize) -> anyhow::Result<Self> {
        let create = |watcher: u64| {
            let watch = Watch::prefix(plan.prefix(watcher));
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch.into())) }
        };
        let mut numbers = plan.watchers(number);
        let first = numbers.next().context("a stream without watchers")?;
        let mut raw = client.watch_raw(create(first)).await?;
        let mut watchers = BTreeMap::new();
        let mut next = Some(first);
        // One after the other: etcd stops reading requests while nobody takes its responses.
        while let Some(watcher) = next {
            let id = match raw.responses.message().await? {
                Some(WatchResponse { created: true, canceled: false, watch_id, .. }) => watch_id,
                Some(other) => bail!("not the creation of a watch: {other:?}"),
                None => bail!("the stream ended"),
            };
            let new = Watcher { number: watcher, prefix: plan.prefix(watcher), events: 0, revision: 0 };
            ensure!(watchers.insert(id, new).is_none(), "two watches have the id {id}");
            next = numbers.next();
            if let Some(watcher) = next {
                raw.requests.send(create(watcher)).await.context("the stream was closed")?;
            }
        }
        Ok(Self { raw, number, watchers })
    }

    /// Receives until it is told to stop, or the stream ends. Returns what each watcher has seen.
    pub(super) async fn receive(
        mut self,
        board: &Board,
        recorder: &Recorder,
        mut stop: watch::Receiver<bool>,
    ) -> Vec<Count> {
        loop {
            tokio::select! {
                biased;
                // First what has come: that there is an end to it can wait.
                message = self.raw.responses.message() => match message {
                    Ok(Some(response)) => self.take(&response, board, recorder),
                    Ok(None) => {
                        board.note("the stream of events ended".to_owned());
                        break;
                    }
                    Err(status) => {
                        board.note(Error::of(status).to_string());
                        break;
                    }
                },
                _ = stop.changed() => break,
            }
        }
        self.watchers.values().map(|watcher| (watcher.number, watcher.events)).collect()
    }

    fn take(&mut self, response: &WatchResponse, board: &Board, recorder: &Recorder) {
        if response.canceled {
            board.note(format!("a watch was cancelled: {}", response.cancel_reason));
        }
        let Some(watcher) = self.watchers.get_mut(&response.watch_id) else {
            return board.note("a response to no watch".to_owned());
        };
        for kv in response.events.iter().filter_map(|event| event.kv.as_ref()) {
            if !kv.key.starts_with(&watcher.prefix) {
                board.note("an event that the watch does not ask for".to_owned());
            } else if kv.mod_revision <= watcher.revision {
                board.note("an event that came before, or after a newer one".to_owned());
            } else if let Some(event) = number_of(&kv.value) {
                board.see(event, recorder, self.number);
            } else {
                board.note("a value that nobody wrote".to_owned());
            }
            watcher.revision = watcher.revision.max(kv.mod_revision);
            watcher.events += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_watcher_is_on_one_stream() {
        let plan = Plan { total: 10, on_prefix: 3, streams: 4 };
        let mut all: Vec<u64> = (0..4).flat_map(|stream| plan.watchers(stream)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10));
        assert_eq!(plan.watchers(1).collect::<Vec<_>>(), [1, 5, 9]);
        assert_eq!((plan.prefix(0), plan.prefix(2)), (plan.prefix(1), plan.prefix(1)));
        assert_ne!(plan.prefix(3), plan.prefix(4));
        assert!((0..10).all(|watcher| plan.key(watcher).starts_with(&plan.prefix(watcher))));
    }

    #[test]
    fn a_value_tells_its_event() {
        assert_eq!(number_of(&numbered(77, 256)), Some(77));
        assert_eq!((numbered(1, 0).len(), number_of(b"short")), (8, None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_waited_for_until_all_have_seen_it() {
        let (board, recorder) = (Board::new(2), Recorder::default());
        board.send(0, 2);
        board.see(0, &recorder, 0);
        let missing = board.wait(0).await.unwrap_err().to_string();
        assert_eq!(missing, "event 0 came to 1 of 2 watchers");
        tokio::time::advance(Duration::from_secs(1)).await;
        board.see(0, &recorder, 1);
        assert!(board.wait(0).await.unwrap() >= Duration::from_secs(1));
        board.see(7, &recorder, 0);
        assert_eq!(board.wrong(), BTreeMap::from([("an event that nobody sent".to_owned(), 1)]));
        assert_eq!(recorder.summary().count, 2);
    }
}
