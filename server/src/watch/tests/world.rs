//! A store, a hub and streams, driven by a script; what streams receive is written down.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;
use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use mainstay_proto::mvccpb::event::EventType;
use tokio::task::JoinHandle;

use crate::engine::EngineHome;
use crate::engine::mem::MemHome;
use crate::mvcc::{RevisionEvents, Writer};
use crate::watch::bounds::Bounds;
use crate::watch::{Hub, HubOptions, WatchStream, WatchStreamEnd};

pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
pub(super) const MAX_RESPONSE_BYTES: usize = 2 * 1024 * 1024;

/// Time that passes only once nobody has anything to do.
const IDLE: Duration = Duration::from_micros(10);

pub(super) struct World {
    pub(super) writer: Writer,
    pub(super) hub: Hub,
    pub(super) task: JoinHandle<()>,
    /// Committed, but not published yet.
    pub(super) held: Vec<Arc<RevisionEvents>>,
    pub(super) holds: bool,
    streams: BTreeMap<String, WatchStream>,
    transcript: String,
}

/// Runs a future on one thread, on paused time.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(future)
}

/// Runs a script and returns what the streams received.
pub(super) fn play(script: &str) -> String {
    run(async {
        let mut world = World::new(Bounds::STANDARD);
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            world.line(line).await;
        }
        world.transcript
    })
}

impl World {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self::on(Writer::open(MemHome::new().open().unwrap(), 1 << 20).unwrap(), bounds)
    }

    pub(super) fn on(writer: Writer, bounds: Bounds) -> Self {
        let options = HubOptions { progress_interval: PROGRESS_INTERVAL, max_response_bytes: MAX_RESPONSE_BYTES };
        let (hub, task) = Hub::spawn(writer.store(), options, bounds);
        let (held, streams) = (Vec::new(), BTreeMap::new());
        Self { writer, hub, task, held, holds: false, streams, transcript: String::new() }
    }

    /// Writes what was begun, and publishes it unless that is held back.
    pub(super) async fn commit(&mut self) {
        self.held.extend(self.writer.commit().unwrap());
        if !self.holds {
            self.publish().await;
        }
    }

    pub(super) async fn publish(&mut self) {
        self.hub.publish(std::mem::take(&mut self.held)).await;
        // The hub has its turn, so that it does not find this together with what is published next.
        tokio::task::yield_now().await;
    }

    pub(super) fn put(&mut self, key: &str, value: impl Into<Bytes>) {
        let mut txn = self.writer.begin();
        txn.put(Bytes::copy_from_slice(key.as_bytes()), value.into(), 0).unwrap();
        txn.end();
    }

    async fn line(&mut self, line: &str) {
        writeln!(self.transcript, "> {line}").unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["txn", ..] => {
                self.txn(line.trim_start_matches("txn"));
                self.commit().await;
            }
            ["put", ..] | ["del", ..] => {
                self.txn(line);
                self.commit().await;
            }
            ["compact", revision] => {
                self.writer.compact(revision.parse().unwrap()).unwrap();
                self.commit().await;
            }
            ["hold"] => self.holds = true,
            ["publish"] => {
                self.holds = false;
                self.publish().await;
            }
            ["restored"] => {
                self.holds = false;
                self.held.clear();
                self.hub.restored().await;
            }
            ["sleep", seconds] => tokio::time::sleep(Duration::from_secs_f64(seconds.parse().unwrap())).await,
            ["cancel", stream, id] => self.stream(stream).await.cancel(id.parse().unwrap()).await,
            ["progress", stream] => self.stream(stream).await.request_progress().await,
            ["refuse", stream, ..] => self.stream(stream).await.refuse("not allowed".to_owned()).await,
            ["watch", stream, range, ref options @ ..] => {
                let request = create_request(range, options);
                self.stream(stream).await.create(request).await;
            }
            ["close", stream] => drop(self.streams.remove(stream)),
            ["stop"] => self.hub.stop().await,
            ["slow"] => {} // nobody reads for the time being
            ["stats"] => {
                tokio::time::sleep(IDLE).await;
                writeln!(self.transcript, "  {}", self.stats()).unwrap();
            }
            _ => panic!("not understood: {line}"),
        }
        if !matches!(words[0], "slow" | "hold" | "stats") && words.last() != Some(&"unread") {
            self.read().await;
        }
    }

    fn txn(&mut self, operations: &str) {
        let mut txn = self.writer.begin();
        for operation in operations.split(';') {
            match operation.split_whitespace().collect::<Vec<_>>()[..] {
                ["put", key, value, ..] => {
                    let value = match value.strip_prefix("KiB=") {
                        Some(kib) => vec![b'x'; kib.parse::<usize>().unwrap() << 10],
                        None => value.as_bytes().to_vec(),
                    };
                    txn.put(range(key).key().clone(), value.into(), 0).unwrap();
                }
                ["del", keys, ..] => {
                    txn.delete_range(&range(keys), false).unwrap();
                }
                _ => panic!("not understood: {operation}"),
            }
        }
        txn.end();
    }

    async fn stream(&mut self, name: &str) -> &mut WatchStream {
        if !self.streams.contains_key(name) {
            let stream = self.hub.open_stream().await;
            self.streams.insert(name.to_owned(), stream);
        }
        self.streams.get_mut(name).unwrap()
    }

    /// Writes down what every stream has received.
    async fn read(&mut self) {
        let mut ended = Vec::new();
        for (name, stream) in &mut self.streams {
            let mut responses = Vec::new();
            let end = drain_into(&mut responses, stream, usize::MAX).await;
            for response in responses {
                writeln!(self.transcript, "  {name} {}", show(&response)).unwrap();
            }
            if let Err(end) = end {
                writeln!(self.transcript, "  {name} {end}").unwrap();
                ended.push(name.clone());
            }
        }
        for name in ended {
            self.streams.remove(&name);
        }
    }

    pub(super) fn stats(&self) -> String {
        use std::sync::atomic::Ordering::Relaxed;
        let stats = self.hub.stats();
        format!(
            "streams={} watchers={} slow={} pending={} events={}",
            stats.streams.load(Relaxed),
            stats.watchers.load(Relaxed),
            stats.slow_watchers.load(Relaxed),
            stats.pending_events.load(Relaxed),
            stats.events_total.load(Relaxed)
        )
    }
}

/// Takes up to so many responses, as long as any come.
pub(super) async fn drain(stream: &mut WatchStream, count: usize) -> Vec<WatchResponse> {
    let mut responses = Vec::new();
    drain_into(&mut responses, stream, count).await.expect("the stream goes on");
    responses
}

async fn drain_into(
    responses: &mut Vec<WatchResponse>,
    stream: &mut WatchStream,
    count: usize,
) -> Result<(), WatchStreamEnd> {
    while responses.len() < count {
        match tokio::time::timeout(IDLE, stream.arrival()).await {
            Err(_) => break,
            Ok(arrival) => arrival?,
        }
        responses.extend(stream.take().await?);
    }
    Ok(())
}

/// `a` is a key, `a..c` an interval, `a..` every key from `a` on; `''` is empty.
fn range(text: &str) -> KeyRange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.replace("''", "").replace("\\0", "\0").as_bytes());
    match text.split_once("..") {
        None => KeyRange::new(bytes(text), Bytes::new()),
        Some((key, "")) => KeyRange::from_key(bytes(key)),
        Some((key, end)) => KeyRange::new(bytes(key), bytes(end)),
    }
}

fn create_request(keys: &str, options: &[&str]) -> WatchCreateRequest {
    let range = range(keys);
    let mut request =
        WatchCreateRequest { key: range.key().clone(), range_end: range.range_end().clone(), ..Default::default() };
    for option in options {
        match option.split_once('=') {
            None => match *option {
                "prev" => request.prev_kv = true,
                "fragment" => request.fragment = true,
                "notify" => request.progress_notify = true,
                "noput" => request.filters.push(FilterType::Noput as i32),
                "nodelete" => request.filters.push(FilterType::Nodelete as i32),
                "unread" => {}
                _ => panic!("not understood: {option}"),
            },
            Some(("from", revision)) => request.start_revision = revision.parse().unwrap(),
            Some(("id", id)) => request.watch_id = id.parse().unwrap(),
            Some(_) => panic!("not understood: {option}"),
        }
    }
    request
}

fn show(response: &WatchResponse) -> String {
    let mut text = format!("id={} rev={}", response.watch_id, response.header.unwrap().revision);
    for (is_set, word) in
        [(response.created, " created"), (response.canceled, " canceled"), (response.fragment, " fragment")]
    {
        if is_set {
            text.push_str(word);
        }
    }
    if response.compact_revision != 0 {
        write!(text, " compact={}", response.compact_revision).unwrap();
    }
    if !response.cancel_reason.is_empty() {
        write!(text, " reason={:?}", response.cancel_reason).unwrap();
    }
    for event in &response.events {
        let kv = event.kv.as_ref().unwrap();
        let kind = if event.r#type == EventType::Delete as i32 { "DELETE" } else { "PUT" };
        write!(text, " [{kind} {}@{}", kv.key.escape_ascii(), kv.mod_revision).unwrap();
        if let Some(prev) = &event.prev_kv {
            write!(text, " prev={}", prev.mod_revision).unwrap();
        }
        text.push(']');
    }
    text
}
