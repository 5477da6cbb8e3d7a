//! A client with a stream of watches, which opens it again wherever it breaks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::{Client, RawWatch};
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;
use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use mainstay_proto::mvccpb::{Event, event::EventType};
use mainstay_tests::history::{Change, Received, Said, Watch};
use mainstay_tests::transactions::{key_range, key_value};

use super::watching::{Changes, Observed};
use crate::recorder::Recorder;

/// After this silence a watcher asks for a notice of progress.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it tries to reach a member. Most of them, one after the other, may be lost, or not be members yet.
const OPENED_WITHIN: Duration = Duration::from_millis(1500);
/// How often a watcher that may lag asks for such a notice right away.
const PROGRESS_ASKED: f64 = 0.2;
/// After so many silences in a row it turns to another member.
const PATIENCE: u32 = 2;
/// How often a response is a reason to change what is watched.
const CHANGED: f64 = 0.05;
/// How many watches a stream has at most.
const WATCHES_MAX: usize = 6;
/// Ids that clients pick; with 0 the server does, and comes by the others.
const IDS: [i64; 10] = [0, 0, 0, 0, 0, 1, 2, 3, 1000, -7];
/// The id in what is about all watches of a stream, or about none.
const NO_ID: i64 = -1;

/// A client that watches.
pub(super) struct Watcher {
    id: usize,
    client: Client,
    recorder: Recorder,
    observed: Observed,
    watches: Vec<Wanted>,
    /// The member that the next stream is opened at.
    member: usize,
    /// How long it takes at most to look at a response.
    pub(super) slowness: Duration,
    /// Whether it asks for further watches and cancels some, and how long it is slow; then it catches up.
    pub(super) changes: Option<Changes>,
}

/// A watch that is wanted until it is cancelled.
struct Wanted {
    watch: Watch,
    /// Its place in the history.
    place: usize,
    /// The first revision that was not delivered yet; 0 before the first opening of a watch that
    /// starts at present.
    next: i64,
}

/// The stream that is open.
struct Open {
    stream: RawWatch,
    /// Its place in the history.
    place: usize,
    /// Requests for watches that are not answered yet: for which watch, or for none where it is to be
    /// refused, and under which id.
    creating: VecDeque<(Option<usize>, i64)>,
    /// The watches by their ids on this stream.
    ids: BTreeMap<i64, usize>,
    cancelling: Option<i64>,
}

impl Watcher {
    pub(super) fn new(id: usize, client: Client, recorder: Recorder, observed: Observed) -> Self {
        let member = thread_rng().gen_range(0..client.endpoints().len());
        Self { id, client, recorder, observed, watches: Vec::new(), member, slowness: Duration::ZERO, changes: None }
    }

    /// Adds a watch; returns its place in the history.
    pub(super) fn want(&mut self, mut watch: Watch) -> usize {
        if let Some(changes) = self.changes.as_ref().filter(|_| !self.slowness.is_zero()) {
            watch.slow_until = changes.until;
        }
        let place = self.recorder.watch(watch.clone());
        self.watches.push(Wanted { next: watch.start, watch, place });
        place
    }

    pub(super) async fn run(mut self) {
        loop {
            let why = self.follow().await;
            let at = self.recorder.now();
            for wanted in &self.watches {
                self.recorder.received(wanted.place, Received::Broken { at, why: why.clone() });
            }
            let pause = Duration::from_millis(thread_rng().gen_range(20..300));
            tokio::time::sleep(pause).await;
        }
    }

    /// One stream, from its opening to its end; says why it ended.
    async fn follow(&mut self) -> String {
        // In turn, as a member that is gone is found out only after the client's timeout: who picks at random may
        // pick that one over and over.
        let member = self.member;
        self.member = (member + 1) % self.client.endpoints().len();
        let place = self.recorder.stream(self.id);
        let mut requests: VecDeque<(usize, i64)> = VecDeque::new();
        for wanted in &self.watches {
            let id = pick_id(|id| requests.iter().any(|(_, other)| *other == id));
            // Those that the server picks come last, so that none of them is one of the others.
            if id == 0 { requests.push_back((wanted.place, id)) } else { requests.push_front((wanted.place, id)) }
        }
        let (first, id) = requests.pop_front().expect("a watcher watches something");
        let request = RequestUnion::CreateRequest(self.request(first, id));
        self.recorder.said(place, Said::Create(id));
        let client = self.client.only(member).with_timeout(OPENED_WITHIN);
        let stream = client.watch_raw(WatchRequest { request_union: Some(request) }).await;
        let why = match stream {
            Ok(stream) => {
                let creating = VecDeque::from([(Some(first), id)]);
                let mut open = Open { stream, place, creating, ids: BTreeMap::new(), cancelling: None };
                self.go_on(&mut open, requests).await
            }
            Err(error) => error.to_string(),
        };
        self.recorder.said(place, Said::Over);
        why
    }

    async fn go_on(&mut self, open: &mut Open, requests: VecDeque<(usize, i64)>) -> String {
        for (place, id) in requests {
            if let Some(end) = self.create(open, place, id) {
                return end;
            }
        }
        // Some of the watches may lag at this moment, others not.
        if self.watches.len() > 1 && thread_rng().gen_bool(0.5) {
            self.ask_for_progress(open);
        }
        let mut silences = 0;
        loop {
            match tokio::time::timeout(SILENCE, open.stream.responses.message()).await {
                Ok(Ok(Some(response))) => {
                    silences = 0;
                    // A watcher that has only just begun, or is slow, lags at this moment: it may not be
                    // told to know everything.
                    let is_behind = response.created || !self.slowness.is_zero();
                    if is_behind && thread_rng().gen_bool(PROGRESS_ASKED) {
                        self.ask_for_progress(open);
                    }
                    if let Some(end) = self.take(open, response) {
                        return end;
                    }
                    if self.is_in_the_storm()
                        && thread_rng().gen_bool(CHANGED)
                        && let Some(end) = self.change(open)
                    {
                        return end;
                    }
                }
                Ok(Ok(None)) => return "the stream ended".to_owned(),
                Ok(Err(status)) => return status.message().to_owned(),
                Err(_elapsed) if silences < PATIENCE => {
                    silences += 1;
                    self.ask_for_progress(open);
                    if self.is_in_the_storm()
                        && let Some(end) = self.change(open)
                    {
                        return end;
                    }
                }
                Err(_elapsed) => return "no word for long".to_owned(),
            }
            if !self.slowness.is_zero() && self.is_in_the_storm() {
                let pause = thread_rng().gen_range(Duration::ZERO..self.slowness);
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn is_in_the_storm(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| self.recorder.now() < changes.until)
    }

    /// Asks for a further watch, for one that must be refused, or for the end of one; says why the stream
    /// is over, if it is.
    fn change(&mut self, open: &mut Open) -> Option<String> {
        match thread_rng().gen_range(0..4u32) {
            0 => {
                let taken: Vec<i64> = open.ids.keys().copied().filter(|id| *id != 0).collect();
                if let Some(id) = taken.choose(&mut thread_rng()) {
                    let request = RequestUnion::CreateRequest(self.request(self.watches[0].place, *id));
                    if self.say(open, request, Said::Create(*id)) {
                        open.creating.push_back((None, *id));
                    }
                }
            }
            1 => {
                let changes = self.changes.as_ref().filter(|_| self.watches.len() < WATCHES_MAX)?;
                let watch = changes.draw(self.id, &self.recorder);
                let place = self.want(watch);
                let id = pick_id(|id| open.is_taken(id));
                return self.create(open, place, id);
            }
            _ if open.cancelling.is_none() && self.watches.len() > 1 => {
                let ids: Vec<i64> = open.ids.keys().copied().collect();
                if let Some(id) = ids.choose(&mut thread_rng()) {
                    let request = RequestUnion::CancelRequest(WatchCancelRequest { watch_id: *id });
                    if self.say(open, request, Said::Cancel(*id)) {
                        open.cancelling = Some(*id);
                    }
                }
            }
            _ => {}
        }
        None
    }

    /// Asks for a watch; says why the stream is over, if it is.
    fn create(&self, open: &mut Open, place: usize, id: i64) -> Option<String> {
        let request = RequestUnion::CreateRequest(self.request(place, id));
        if !self.say(open, request, Said::Create(id)) {
            return Some("no word for long, and requests are not read".to_owned());
        }
        open.creating.push_back((Some(place), id));
        None
    }

    fn ask_for_progress(&self, open: &Open) {
        self.say(open, RequestUnion::ProgressRequest(WatchProgressRequest {}), Said::Progress);
    }

    /// Sends a request, unless the queue is full: then nobody reads it, the stream is as good as broken,
    /// and found to be.
    fn say(&self, open: &Open, request: RequestUnion, said: Said) -> bool {
        let is_sent = open.stream.requests.try_send(WatchRequest { request_union: Some(request) }).is_ok();
        if is_sent {
            self.recorder.said(open.place, said);
        }
        is_sent
    }

    fn request(&self, place: usize, id: i64) -> WatchCreateRequest {
        let Wanted { watch, next, .. } = self.wanted(place).expect("what is asked for is wanted");
        let range = key_range(&watch.span);
        let filter = |wanted: bool, filter: FilterType| wanted.then_some(filter as i32);
        WatchCreateRequest {
            key: range.key().clone(),
            range_end: range.range_end().clone(),
            start_revision: *next,
            prev_kv: watch.prev_kv,
            fragment: watch.fragment,
            progress_notify: true,
            filters: filter(watch.no_put, FilterType::Noput)
                .into_iter()
                .chain(filter(watch.no_delete, FilterType::Nodelete))
                .collect(),
            watch_id: id,
        }
    }

    fn wanted(&self, place: usize) -> Option<&Wanted> {
        self.watches.iter().find(|wanted| wanted.place == place)
    }

    fn wanted_mut(&mut self, place: usize) -> Option<&mut Wanted> {
        self.watches.iter_mut().find(|wanted| wanted.place == place)
    }

    /// Takes a response in; says why the stream is over, if it is.
    fn take(&mut self, open: &mut Open, response: WatchResponse) -> Option<String> {
        let (at, id) = (self.recorder.now(), response.watch_id);
        let revision = mainstay_client::revision(&response.header);
        if response.created {
            return self.answered(open, at, response);
        }
        if response.canceled {
            return self.ended(open, at, response);
        }
        if response.events.is_empty() {
            self.recorder.said(open.place, Said::Told(id));
            let told: Vec<usize> =
                open.ids.iter().filter(|(of, _)| id == NO_ID || id == **of).map(|(_, to)| *to).collect();
            for place in told {
                self.recorder.received(place, Received::Progress { at, revision });
                self.reached(place, revision);
            }
            return None;
        }
        self.recorder.said(open.place, Said::Events(id));
        // That it is for no watch is in the stream's record.
        let place = *open.ids.get(&id)?;
        let last = response.events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        let changes = response.events.into_iter().map(change).collect();
        self.recorder.received(place, Received::Events { at, revision, changes, fragment: response.fragment });
        // The rest of a revision is asked for again where the stream breaks within it.
        self.reached(place, if response.fragment { last - 1 } else { last });
        None
    }

    /// Takes the answer to a request for a watch.
    fn answered(&mut self, open: &mut Open, at: Duration, response: WatchResponse) -> Option<String> {
        let asked = open.creating.pop_front();
        if response.canceled {
            let why = response.cancel_reason;
            self.recorder.said(open.place, Said::Refused { id: response.watch_id, why: why.clone() });
            // Whether that is right is in the stream's record; who wants to watch tries again.
            return asked.is_none_or(|(wanted, _)| wanted.is_some()).then_some(format!("the stream ended: {why}"));
        }
        self.recorder.said(open.place, Said::Created(response.watch_id));
        let place = asked?.0?;
        open.ids.insert(response.watch_id, place);
        let revision = mainstay_client::revision(&response.header);
        let wanted = self.wanted_mut(place)?;
        let start = wanted.next;
        if start == 0 {
            wanted.next = revision + 1;
        }
        self.recorder.received(place, Received::Opened { at, start, revision });
        None
    }

    /// Takes the end of a watch.
    fn ended(&mut self, open: &mut Open, at: Duration, response: WatchResponse) -> Option<String> {
        let WatchResponse { watch_id: id, compact_revision, cancel_reason: why, .. } = response;
        self.recorder.said(open.place, Said::Cancelled { id, why: why.clone(), compact_revision });
        let is_asked = open.cancelling.take_if(|asked| *asked == id).is_some() && compact_revision == 0;
        let Some(place) = open.ids.remove(&id) else { return None };
        if compact_revision > 0 {
            let resumed = compact_revision;
            self.recorder.received(place, Received::Compacted { at, compact_revision, resumed });
            self.wanted_mut(place)?.next = resumed;
            // The old id stays in use, so it goes on under another one.
            let id = pick_id(|other| other == id || open.is_taken(other));
            return self.create(open, place, id);
        }
        if !is_asked {
            return Some(format!("the stream ended: {why}"));
        }
        self.recorder.received(place, Received::Cancelled { at });
        self.watches.retain(|wanted| wanted.place != place);
        None
    }

    fn reached(&mut self, place: usize, revision: i64) {
        if let Some(wanted) = self.wanted_mut(place) {
            wanted.next = wanted.next.max(revision + 1);
        }
        self.observed.reached(revision);
    }
}

impl Open {
    fn is_taken(&self, id: i64) -> bool {
        // One that the server has yet to pick may be any.
        self.ids.contains_key(&id) || self.creating.iter().any(|(_, asked)| *asked == id || *asked == 0)
    }
}

/// Picks an id that is not taken; 0 never is.
fn pick_id(is_taken: impl Fn(i64) -> bool) -> i64 {
    let id = *IDS.choose(&mut thread_rng()).expect("there are some");
    if is_taken(id) { 0 } else { id }
}

fn change(event: Event) -> Change {
    Change {
        deleted: event.r#type() == EventType::Delete,
        kv: event.kv.map(key_value).unwrap_or_default(),
        prev: event.prev_kv.map(key_value),
    }
}
