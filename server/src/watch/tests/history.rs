//! Whatever is written, watched, read slowly and compacted: every watcher is told its history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;
use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use mainstay_proto::mvccpb::event::EventType;
use proptest::prelude::*;

use super::world::{World, drain, run};
use crate::admission::Identity;
use crate::limits;
use crate::mvcc::{Event, KeyValue};
use crate::watch::WatchStream;
use crate::watch::bounds::Bounds;

const KEYS: [&str; 6] = ["a", "aa", "b", "bb", "c", "d"];
const STREAMS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// One run of transactions; each puts or deletes keys.
    Write(Vec<BTreeMap<usize, bool>>),
    /// Nothing is published until the next of these.
    Hold,
    Publish,
    /// Publishes the oldest half of what is held back.
    PublishHalf,
    /// What was held back may still be published later, though it is known by then.
    Restored {
        forgets: bool,
    },
    Compact {
        back: i64,
    },
    Watch {
        stream: usize,
        watch: Watch,
    },
    Cancel {
        stream: usize,
        place: usize,
    },
    Progress {
        stream: usize,
    },
    Read {
        stream: usize,
        count: usize,
    },
    Close {
        stream: usize,
    },
    Settle,
}

#[derive(Clone, Debug)]
struct Watch {
    range: (usize, Option<usize>),
    start: Start,
    puts: bool,
    deletes: bool,
    prev_kv: bool,
    fragment: bool,
}

#[derive(Clone, Debug)]
enum Start {
    Now,
    Back(i64),
    Ahead(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let txn = proptest::collection::btree_map(0..KEYS.len(), prop::bool::weighted(0.7), 1..4);
    let stream = 0..STREAMS;
    prop_oneof![
        8 => proptest::collection::vec(txn, 1..6).prop_map(Step::Write),
        1 => Just(Step::Hold),
        2 => Just(Step::Publish),
        2 => Just(Step::PublishHalf),
        1 => any::<bool>().prop_map(|forgets| Step::Restored { forgets }),
        1 => (0i64..12).prop_map(|back| Step::Compact { back }),
        5 => (stream.clone(), watch()).prop_map(|(stream, watch)| Step::Watch { stream, watch }),
        1 => (stream.clone(), 0..4usize).prop_map(|(stream, place)| Step::Cancel { stream, place }),
        3 => stream.clone().prop_map(|stream| Step::Progress { stream }),
        6 => (stream.clone(), 1..6usize).prop_map(|(stream, count)| Step::Read { stream, count }),
        1 => stream.prop_map(|stream| Step::Close { stream }),
        4 => Just(Step::Settle),
    ]
}

fn watch() -> impl Strategy<Value = Watch> {
    let start = prop_oneof![
        2 => Just(Start::Now),
        3 => (0i64..30).prop_map(Start::Back),
        1 => (1i64..8).prop_map(Start::Ahead),
    ];
    let often = || prop::bool::weighted(0.8);
    (0..KEYS.len(), prop::option::of(0..=KEYS.len()), start, often(), often(), any::<bool>(), any::<bool>()).prop_map(
        |(first, end, start, puts, deletes, prev_kv, fragment)| Watch {
            range: (first, end.filter(|end| *end > first)),
            start,
            puts,
            deletes,
            prev_kv,
            fragment,
        },
    )
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let tiny = (1..4usize, 50..400usize, 1..20usize, 1..5usize, 1..4_000usize);
    let tiny = tiny.prop_map(|(messages, bytes, recent, steps, waiting)| Bounds {
        mailbox_messages: messages,
        mailbox_messages_per_watcher: 0,
        mailbox_bytes: bytes,
        mailbox_bytes_min: bytes.min(40),
        waiting_bytes: waiting,
        message_bytes: bytes / 2,
        recent_revisions: recent,
        catch_up_bytes: 500,
        slice_bytes_min: 40,
        slice_bytes_max: 300,
        step_events: steps,
        step_hits: steps,
        ..Bounds::STANDARD
    });
    prop_oneof![1 => Just(Bounds::STANDARD), 6 => tiny]
}

/// A stream, and what it has to be sent.
struct Client {
    stream: WatchStream,
    /// Asked for and not answered, in order.
    asked: VecDeque<(WatchCreateRequest, Watch)>,
    watchers: BTreeMap<i64, Told>,
    canceling: Vec<i64>,
    /// The newest revision that a notice told.
    noticed: i64,
}

/// What a watcher was told.
struct Told {
    range: KeyRange,
    watch: Watch,
    start: i64,
    /// It was told everything below.
    next: i64,
    fragments: Vec<Event>,
}

#[derive(Default)]
struct Model {
    /// The events of each revision.
    history: BTreeMap<i64, Vec<Event>>,
    compacted: i64,
}

impl Model {
    fn before(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        let events = self.history.range(..revision).rev().flat_map(|(_, events)| events);
        let kv = events.filter_map(|event| event.kv.as_ref()).find(|kv| kv.key == key)?;
        (kv.version > 0).then(|| kv.clone())
    }

    /// The first revision from `next` on of which a watcher is told, with the events.
    fn due(&self, told: &Told) -> Option<(i64, Vec<Event>)> {
        self.history.range(told.next..).find_map(|(revision, events)| {
            let events = events.iter().filter(|event| {
                let wanted =
                    if event.r#type == EventType::Delete as i32 { told.watch.deletes } else { told.watch.puts };
                wanted && told.range.contains(&event.kv.as_ref().unwrap().key)
            });
            let events: Vec<Event> = events.cloned().collect();
            (!events.is_empty()).then_some((*revision, events))
        })
    }
}

impl Client {
    fn check(&mut self, model: &Model, response: WatchResponse) {
        let revision = response.header.unwrap().revision;
        let id = response.watch_id;
        if response.events.is_empty() && response.compact_revision == 0 {
            assert!(revision >= self.noticed, "notices go back in time");
            self.noticed = revision;
        }
        if response.created {
            assert!(!response.canceled, "{response:?}");
            let (request, watch) = self.asked.pop_front().unwrap();
            let start = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
            let range = KeyRange::new(request.key, request.range_end);
            let told = Told { range, watch, start, next: start, fragments: Vec::new() };
            assert!(self.watchers.insert(id, told).is_none(), "id {id} is used twice");
        } else if response.canceled && response.compact_revision != 0 {
            let told = self.watchers.remove(&id).unwrap();
            assert_eq!((revision, response.cancel_reason.as_str()), (0, ""));
            assert!(response.compact_revision <= model.compacted);
            assert!(told.next < response.compact_revision, "what it was told next was not compacted");
        } else if response.canceled {
            let place = self.canceling.iter().position(|canceling| *canceling == id).unwrap();
            self.canceling.remove(place);
            self.watchers.remove(&id);
        } else if response.events.is_empty() {
            assert_eq!(id, -1);
            for told in self.watchers.values_mut() {
                assert!(told.start <= revision || matches!(told.watch.start, Start::Now));
                assert!(model.due(told).is_none_or(|(due, _)| due > revision), "progress ahead of events");
                told.next = told.next.max(revision + 1);
            }
        } else {
            let told = self.watchers.get_mut(&id).unwrap();
            assert!(told.fragments.is_empty() || told.watch.fragment);
            told.fragments.extend(response.events);
            if !response.fragment {
                let events = std::mem::take(&mut told.fragments);
                told.check(model, revision, &events);
            }
        }
    }
}

impl Told {
    fn check(&mut self, model: &Model, header: i64, events: &[Event]) {
        let revision_of = |event: &Event| event.kv.as_ref().unwrap().mod_revision;
        for events in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            let (revision, expected) = model.due(self).expect("nothing is due");
            let told: Vec<Event> = events.iter().map(|event| Event { prev_kv: None, ..event.clone() }).collect();
            assert_eq!(told, expected);
            assert!(header >= revision);
            for event in events {
                let key = &event.kv.as_ref().unwrap().key;
                let before = if self.watch.prev_kv { model.before(key, revision) } else { None };
                if event.prev_kv.is_none() && revision - 1 < model.compacted {
                    continue;
                }
                assert_eq!(event.prev_kv, before, "before {revision}");
            }
            self.next = revision + 1;
        }
    }
}

struct Scene {
    world: World,
    model: Model,
    clients: Vec<Client>,
}

impl Scene {
    async fn open(world: &World) -> Client {
        let stream = world.hub.open_stream_of(Some(&Arc::new(Identity::Local))).await;
        Client { stream, asked: VecDeque::new(), watchers: BTreeMap::new(), canceling: Vec::new(), noticed: 0 }
    }

    async fn take(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            Step::Write(txns) => {
                for txn in txns {
                    let mut write = world.writer.begin();
                    for (key, is_put) in txn {
                        if is_put {
                            let value = Bytes::from(vec![b'v'; 10 * key]);
                            write.put(KEYS[key].into(), value, 0).unwrap();
                        } else {
                            write.delete_range(&KeyRange::single(KEYS[key]), false).unwrap();
                        }
                    }
                    write.end();
                }
                let held = world.held.len();
                let committed = world.writer.commit().unwrap();
                world.held.extend(committed);
                for events in &world.held[held..] {
                    self.model.history.insert(events.revision, events.events.clone());
                }
                if !world.holds {
                    world.publish().await;
                }
            }
            Step::Hold => world.holds = true,
            Step::Publish => {
                world.holds = false;
                world.publish().await;
            }
            Step::PublishHalf => {
                let later = world.held.split_off(world.held.len().div_ceil(2));
                world.publish().await;
                world.held = later;
            }
            Step::Restored { forgets } => {
                if forgets {
                    world.held.clear();
                }
                world.hub.restored().await;
            }
            Step::Compact { back } => {
                let revision = world.writer.revision() - back;
                if world.writer.compact(revision).is_ok() {
                    let committed = world.writer.commit().unwrap();
                    assert!(committed.is_empty());
                    while world.writer.compact_slice().unwrap() {}
                    self.model.compacted = revision;
                }
            }
            Step::Watch { stream, watch } => {
                let client = &mut self.clients[stream];
                let current = world.writer.revision();
                let unwanted = [(watch.puts, FilterType::Noput), (watch.deletes, FilterType::Nodelete)];
                let request = WatchCreateRequest {
                    key: KEYS[watch.range.0].into(),
                    range_end: match watch.range.1 {
                        None => Bytes::new(),
                        Some(end) => KEYS.get(end).map_or("\0", |key| key).into(),
                    },
                    start_revision: match watch.start {
                        Start::Now => 0,
                        Start::Back(back) => (current - back).max(1),
                        Start::Ahead(ahead) => current + ahead,
                    },
                    filters: unwanted.iter().filter(|(wanted, _)| !wanted).map(|(_, kind)| *kind as i32).collect(),
                    prev_kv: watch.prev_kv,
                    fragment: watch.fragment,
                    ..WatchCreateRequest::default()
                };
                client.asked.push_back((request.clone(), watch));
                client.stream.create(request).await;
            }
            Step::Cancel { stream, place } => {
                let client = &mut self.clients[stream];
                let id = client.watchers.keys().nth(place).copied();
                if let Some(id) = id.filter(|id| !client.canceling.contains(id)) {
                    client.canceling.push(id);
                    client.stream.cancel(id).await;
                }
            }
            Step::Progress { stream } => self.clients[stream].stream.request_progress().await,
            Step::Read { stream, count } => self.read(stream, count).await,
            Step::Close { stream } => self.clients[stream] = Self::open(&self.world).await,
            Step::Settle => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }

    async fn read(&mut self, stream: usize, count: usize) {
        for response in drain(&mut self.clients[stream].stream, count).await {
            self.clients[stream].check(&self.model, response);
        }
    }
}

async fn scene(bounds: Bounds, steps: Vec<Step>) {
    let world = World::new(bounds);
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        clients.push(Scene::open(&world).await);
    }
    let model = Model { compacted: -1, ..Model::default() };
    let mut scene = Scene { world, model, clients };
    for step in steps {
        scene.take(step).await;
    }
    scene.take(Step::Publish).await;
    // What was forgotten after the last publication is told only now.
    scene.take(Step::Restored { forgets: true }).await;
    // Who is short of room goes on some time after others have read.
    for _ in 0..1_000 {
        for stream in 0..STREAMS {
            scene.read(stream, usize::MAX).await;
        }
        if scene.world.stats().contains("slow=0 pending=0") {
            break;
        }
        tokio::time::sleep(limits::CATCH_UP_RETRY).await;
    }
    for stream in 0..STREAMS {
        scene.read(stream, usize::MAX).await;
        let client = &scene.clients[stream];
        assert!(client.asked.is_empty() && client.canceling.is_empty());
        for (id, told) in &client.watchers {
            assert_eq!(scene.model.due(told), None, "watcher {id} was not told all");
        }
    }
    let watchers: usize = scene.clients.iter().map(|client| client.watchers.len()).sum();
    assert!(scene.world.stats().starts_with(&format!("streams={STREAMS} watchers={watchers} slow=0 pending=0")));
    assert!(!scene.world.task.is_finished());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn watchers_are_told_the_history(
        bounds in bounds(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        run(scene(bounds, steps));
    }
}
