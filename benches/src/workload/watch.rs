//! Delivers each write to many watches.
//!
//! Every watch is on the whole prefix, so each put makes as many events as there are watches. An
//! event's latency counts from the moment its put was sent, which stands in the value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use mainstay_client::proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_client::proto::etcdserverpb::{WatchRequest, WatchResponse};
use mainstay_client::{Client, Error, RawWatch, Watch};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::session::Session;
use crate::keyspace::{Chooser, PREFIX, value};
use crate::latency::Recorder;
use crate::load::{Measured, Pace, Worker, drive};
use crate::options::Options;

/// How long a stream may be silent, after the last put, before what is missing counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes at the front of a value that hold the time.
const STAMP_BYTES: usize = 8;

/// The open watches, and the writers that feed them.
pub(super) struct Fan {
    streams: Vec<Stream>,
    writers: Vec<Writer>,
    /// What the times in the values count from.
    epoch: Instant,
}

impl Fan {
    /// Opens all the watches and waits until each is created.
    pub(super) async fn open(session: &Session, options: &Options) -> anyhow::Result<Self> {
        let epoch = Instant::now();
        let mut streams = Vec::with_capacity(options.watch_streams);
        for stream in 0..options.watch_streams {
            let watches = share(options.watchers, options.watch_streams, stream);
            let opened = Stream::open(&session.client(stream), watches, options.prev_kv).await;
            streams.push(opened.with_context(|| format!("opening stream {stream} with {watches} watches"))?);
        }
        let clients = options.clients;
        let writer = |client: usize| Writer {
            client: session.client(client),
            chooser: Chooser::new(options.seed, client as u64, clients as u64, options.keys, options.sequential),
            value: value(options.seed, client as u64, options.value_size.max(STAMP_BYTES)),
            epoch,
        };
        Ok(Self { streams, writers: (0..clients).map(writer).collect(), epoch })
    }

    /// Writes, and receives until every watch has seen every write.
    pub(super) async fn drive(self, pace: Pace) -> Measured {
        let start = Instant::now();
        let recorder = Arc::new(Recorder::default());
        let (put_count, known) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for (number, stream) in self.streams.into_iter().enumerate() {
            tasks.spawn(stream.receive(number, self.epoch, recorder.clone(), known.clone()));
        }
        let puts = drive(self.writers, pace).await;
        put_count.send_replace(Some(puts.operations));
        let mut errors: BTreeMap<String, u64> = puts.errors;
        let (mut events, mut last) = (0, start);
        while let Some(outcome) = tasks.join_next().await {
            let received = outcome.expect("a receiver does not panic");
            events += received.events;
            last = last.max(received.last);
            if let Some((text, count)) = received.missing {
                *errors.entry(text).or_default() += count;
            }
        }
        Measured {
            operations: puts.operations,
            items: events,
            elapsed: last.max(start + puts.elapsed) - start,
            latency: recorder.summary(),
            errors,
        }
    }
}

/// How many of `total` things the `number`-th of `parts` gets, so that all are given out.
fn share(total: usize, parts: usize, number: usize) -> usize {
    total / parts + usize::from(number < total % parts)
}

/// Writes the time into each value.
struct Writer {
    client: Client,
    chooser: Chooser,
    value: Bytes,
    epoch: Instant,
}

impl Worker for Writer {
    async fn step(&mut self) -> Result<u64, Error> {
        let mut stamped = BytesMut::from(&self.value[..]);
        stamped[..STAMP_BYTES].copy_from_slice(&stamp(self.epoch.elapsed()));
        self.client.put(self.chooser.next_key(), stamped.freeze()).await?;
        Ok(1)
    }
}

fn stamp(time: Duration) -> [u8; STAMP_BYTES] {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_be_bytes()
}

fn read_stamp(value: &[u8]) -> Option<Duration> {
    Some(Duration::from_nanos(u64::from_be_bytes(value.first_chunk().copied()?)))
}

/// One gRPC stream with some watches.
struct Stream {
    raw: RawWatch,
    watches: u64,
    /// Whether each event shall say what the key held before.
    prev_kv: bool,
}

/// What one stream has seen.
struct Received {
    events: u64,
    /// How many of them did not say what the key held before, though they should.
    without_prev_kv: u64,
    last: Instant,
    /// Why events are missing, and how many.
    missing: Option<(String, u64)>,
}

impl Stream {
    async fn open(client: &Client, watches: usize, prev_kv: bool) -> anyhow::Result<Self> {
        let watch = || if prev_kv { Watch::prefix(PREFIX).prev_kv() } else { Watch::prefix(PREFIX) };
        let create = || WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch().into())) };
        let mut raw = client.watch_raw(create()).await?;
        // One after the other: etcd stops reading requests while nobody takes its responses.
        for number in 0..watches {
            if number > 0 {
                raw.requests.send(create()).await.context("the stream was closed")?;
            }
            match raw.responses.message().await? {
                Some(WatchResponse { created: true, canceled: false, .. }) => {}
                Some(other) => bail!("not the creation of a watch: {other:?}"),
                None => bail!("the stream ended"),
            }
        }
        ensure!(watches > 0, "a stream without watches");
        Ok(Self { raw, watches: watches as u64, prev_kv })
    }

    /// Receives until each watch has seen as many events as there were puts, once that is known.
    async fn receive(
        mut self,
        number: usize,
        epoch: Instant,
        recorder: Arc<Recorder>,
        mut put_count: watch::Receiver<Option<u64>>,
    ) -> Received {
        let mut received = Received { events: 0, without_prev_kv: 0, last: epoch, missing: None };
        loop {
            let expected = put_count.borrow_and_update().map(|puts| puts * self.watches);
            if expected.is_some_and(|expected| received.events >= expected) {
                // A server that is fast because it leaves something out shall not win.
                let short = received.without_prev_kv;
                received.missing = (short > 0).then(|| ("events without what the key held before".to_owned(), short));
                return received;
            }
            let text = tokio::select! {
                biased;
                // First what has come: that there is an end to it can wait.
                message = timeout(SILENCE_MAX, self.raw.responses.message()) => match message {
                    Ok(Ok(Some(response))) => {
                        received.take(&response, number, epoch, &recorder, self.prev_kv);
                        continue;
                    }
                    Ok(Ok(None)) => "the stream of events ended".to_owned(),
                    Ok(Err(status)) => Error::of(status).to_string(),
                    // Silent because the writers are: slow, or stuck in an error.
                    Err(_elapsed) if expected.is_none() => continue,
                    Err(_elapsed) => "events that did not come".to_owned(),
                },
                Ok(()) = put_count.changed() => continue,
            };
            let missing = expected.map_or(1, |expected| expected - received.events);
            received.missing = Some((text, missing));
            return received;
        }
    }
}

impl Received {
    fn take(&mut self, response: &WatchResponse, stream: usize, epoch: Instant, recorder: &Recorder, prev_kv: bool) {
        let now = epoch.elapsed();
        for event in &response.events {
            let Some(kv) = event.kv.as_ref() else { continue };
            self.without_prev_kv += u64::from(prev_kv && event.prev_kv.is_none());
            if let Some(sent) = read_stamp(&kv.value) {
                recorder.record(stream, now.saturating_sub(sent));
            }
            self.events += 1;
        }
        self.last = epoch + now;
    }
}

#[cfg(test)]
mod tests {
    use mainstay_client::{Event, KeyValue};

    use super::*;

    #[test]
    fn all_watches_are_given_out() {
        for (total, parts) in [(100, 10), (7, 3), (3, 3), (1000, 7)] {
            let shares: Vec<usize> = (0..parts).map(|number| share(total, parts, number)).collect();
            assert_eq!(shares.iter().sum::<usize>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[tokio::test]
    async fn an_event_without_what_was_before_is_noticed_where_it_was_asked_for() {
        let kv = || Some(KeyValue { value: Bytes::copy_from_slice(&stamp(Duration::ZERO)), ..KeyValue::default() });
        let whole = Event { kv: kv(), prev_kv: kv(), ..Event::default() };
        let short = Event { prev_kv: None, ..whole.clone() };
        let response = WatchResponse { events: vec![whole, short], ..WatchResponse::default() };
        for (prev_kv, expected) in [(true, 1), (false, 0)] {
            let epoch = Instant::now();
            let mut received = Received { events: 0, without_prev_kv: 0, last: epoch, missing: None };
            received.take(&response, 0, epoch, &Recorder::default(), prev_kv);
            assert_eq!((received.events, received.without_prev_kv), (2, expected));
        }
    }

    #[test]
    fn a_stamp_survives_the_value() {
        let time = Duration::from_nanos(123_456_789_012);
        assert_eq!(read_stamp(&[&stamp(time)[..], b"the rest"].concat()), Some(time));
        assert_eq!(read_stamp(b"short"), None);
    }
}
