//! Clients that watch: the observer, whose record every check rests on, and others with every
//! option, some of them slow, all of which go on where they were after a break.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::{Client, ClientOptions, RawWatch};
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;
use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use mainstay_proto::mvccpb::{Event, event::EventType};
use mainstay_tests::history::{Change, Received, Span, Watch};

use crate::perform::{key_range, key_value};
use crate::recorder::Recorder;

/// After this silence a watcher asks for a notice of progress.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a watcher that may lag asks for such a notice right away.
const PROGRESS_ASKED: f64 = 0.2;
/// After so many silences in a row it turns to another member.
const PATIENCE: u32 = 2;

/// Up to which revision the observer has seen everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed(Arc<AtomicI64>);

impl Observed {
    /// The revision.
    pub(crate) fn revision(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Watches all keys from the first revision on, for as long as it is let. The watch is in the history
/// when this returns; the future is the watching.
pub(crate) fn observe(
    id: usize,
    client: Client,
    recorder: Recorder,
    observed: Observed,
) -> impl Future<Output = ()> + Send + 'static {
    let everything = Span { from: "\0".to_owned(), to: Some("\x7f".to_owned()) };
    let watch = Watch { prev_kv: true, ..plain(id, everything, 1) };
    Watcher::new(client, recorder, watch, observed).run()
}

/// Watches something, in some manner, for as long as it is let.
pub(crate) async fn watch(id: usize, client: Client, recorder: Recorder, observed: Observed, slow_until: Duration) {
    let (watch, client, slowness) = {
        let dice = &mut thread_rng();
        let prefixes = ["r/", "t/", "/registry/pods/", "lease/", "bank/", "sets/"];
        let span = match dice.gen_range(0..8u32) {
            0 => Span::key("r/0"),
            1 => Span { from: "b".to_owned(), to: Some("s".to_owned()) },
            _ => Span::prefix(prefixes.choose(dice).expect("there are some")),
        };
        let start = match dice.gen_range(0..3u32) {
            0 => 0,
            1 => 1,
            _ => dice.gen_range(1..=observed.revision().max(1) + 5),
        };
        let watch = Watch {
            prev_kv: dice.gen_bool(0.5),
            no_put: dice.gen_bool(0.1),
            no_delete: dice.gen_bool(0.2),
            fragment: dice.gen_bool(0.3),
            ..plain(id, span, start)
        };
        let client =
            client.with_options(ClientOptions { require_leader: dice.gen_bool(0.5), ..ClientOptions::default() });
        let slowness = Duration::from_millis(*[0, 0, 200, 3000].choose(dice).expect("there are some"));
        (watch, client, slowness)
    };
    let watcher = Watcher::new(client, recorder, watch, Observed::default());
    Watcher { slowness, slow_until, ..watcher }.run().await;
}

fn plain(client: usize, span: Span, start: i64) -> Watch {
    Watch {
        client,
        span,
        start,
        prev_kv: false,
        no_put: false,
        no_delete: false,
        fragment: false,
        received: Vec::new(),
    }
}

struct Watcher {
    client: Client,
    recorder: Recorder,
    watch: Watch,
    /// Its place in the history.
    place: usize,
    /// The first revision that was not delivered yet; 0 before the first opening of a watch that
    /// starts at present.
    next: i64,
    observed: Observed,
    /// How long it takes at most to look at a response.
    slowness: Duration,
    /// Until when it is slow; then it catches up.
    slow_until: Duration,
}

impl Watcher {
    fn new(client: Client, recorder: Recorder, watch: Watch, observed: Observed) -> Self {
        let place = recorder.watch(watch.clone());
        let next = watch.start;
        let (slowness, slow_until) = (Duration::ZERO, Duration::ZERO);
        Self { client, recorder, watch, place, next, observed, slowness, slow_until }
    }

    async fn run(mut self) {
        loop {
            let why = self.follow().await;
            self.note(Received::Broken { at: self.recorder.now(), why });
            let pause = Duration::from_millis(thread_rng().gen_range(20..300));
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, received: Received) {
        self.recorder.received(self.place, received);
    }

    /// One stream, from its opening to its end; says why it ended.
    async fn follow(&mut self) -> String {
        let member = thread_rng().gen_range(0..self.client.endpoints().len());
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(self.request())) };
        let mut stream = match self.client.only(member).watch_raw(first).await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let mut silences = 0;
        loop {
            match tokio::time::timeout(SILENCE, stream.responses.message()).await {
                Ok(Ok(Some(response))) => {
                    silences = 0;
                    // A watcher that has only just begun, or is slow, lags at this moment: it may not be
                    // told to know everything.
                    let is_behind = response.created || !self.slowness.is_zero();
                    if is_behind && thread_rng().gen_bool(PROGRESS_ASKED) {
                        ask_for_progress(&stream);
                    }
                    if let Some(end) = self.take(response) {
                        return end;
                    }
                }
                Ok(Ok(None)) => return "the stream ended".to_owned(),
                Ok(Err(status)) => return status.message().to_owned(),
                Err(_elapsed) if silences < PATIENCE => {
                    silences += 1;
                    ask_for_progress(&stream);
                }
                Err(_elapsed) => return "no word for long".to_owned(),
            }
            if !self.slowness.is_zero() && self.recorder.now() < self.slow_until {
                let pause = thread_rng().gen_range(Duration::ZERO..self.slowness);
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn request(&self) -> WatchCreateRequest {
        let range = key_range(&self.watch.span);
        let filter = |wanted: bool, filter: FilterType| wanted.then_some(filter as i32);
        WatchCreateRequest {
            key: range.key().clone(),
            range_end: range.range_end().clone(),
            start_revision: self.next,
            prev_kv: self.watch.prev_kv,
            fragment: self.watch.fragment,
            progress_notify: true,
            filters: filter(self.watch.no_put, FilterType::Noput)
                .into_iter()
                .chain(filter(self.watch.no_delete, FilterType::Nodelete))
                .collect(),
            ..WatchCreateRequest::default()
        }
    }

    /// Takes a response in; says why the stream is over, if it is.
    fn take(&mut self, response: WatchResponse) -> Option<String> {
        let at = self.recorder.now();
        let revision = mainstay_client::revision(&response.header);
        if response.canceled {
            if response.compact_revision == 0 {
                return Some(response.cancel_reason);
            }
            self.next = response.compact_revision;
            let (compact_revision, resumed) = (response.compact_revision, self.next);
            self.note(Received::Compacted { at, compact_revision, resumed });
            return Some("compacted".to_owned());
        }
        if response.created {
            self.note(Received::Opened { at, start: self.next, revision });
            if self.next == 0 {
                self.next = revision + 1;
            }
            return None;
        }
        if response.events.is_empty() {
            self.note(Received::Progress { at, revision });
            self.reached(revision);
            return None;
        }
        let last = response.events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        let changes = response.events.into_iter().map(change).collect();
        self.note(Received::Events { at, revision, changes, fragment: response.fragment });
        // The rest of a revision is asked for again where the stream breaks within it.
        self.reached(if response.fragment { last - 1 } else { last });
        None
    }

    fn reached(&mut self, revision: i64) {
        self.next = self.next.max(revision + 1);
        self.observed.0.fetch_max(revision, Ordering::Relaxed);
    }
}

fn ask_for_progress(stream: &RawWatch) {
    let request = WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
    // A full queue means that nobody reads it: the stream is as good as broken, and found to be.
    drop(stream.requests.try_send(request));
}

fn change(event: Event) -> Change {
    Change {
        deleted: event.r#type() == EventType::Delete,
        kv: event.kv.map(key_value).unwrap_or_default(),
        prev: event.prev_kv.map(key_value),
    }
}
