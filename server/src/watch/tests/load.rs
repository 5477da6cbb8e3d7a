//! Slow streams, long histories, many watchers, and a store that goes away.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::world::{World, drain, run};
use crate::admission::Identity;
use crate::engine::mem::MemHome;
use crate::engine::{Batch, Checkpoint, Engine, EngineError, EngineHome, Family, View, Visit};
use crate::limits;
use crate::mvcc::Writer;
use crate::watch::bounds::Bounds;

/// With few revisions in memory, so that history is read from the store.
const FORGETFUL: Bounds = Bounds { recent_revisions: 1, ..Bounds::STANDARD };

fn everything(start_revision: i64) -> WatchCreateRequest {
    let key = Bytes::from_static(b"\0");
    WatchCreateRequest { range_end: key.clone(), key, start_revision, ..WatchCreateRequest::default() }
}

fn revisions(responses: &[WatchResponse]) -> Vec<i64> {
    let events = responses.iter().flat_map(|response| &response.events);
    events.map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

#[test]
fn a_slow_stream_stalls_nobody() {
    run(async {
        const WRITES: i64 = 3_000;
        let mut world = World::new(Bounds::STANDARD);
        let (mut slow, mut fast) = (world.hub.open_stream().await, world.hub.open_stream().await);
        slow.create(everything(0)).await;
        fast.create(everything(0)).await;
        drain(&mut fast, 1).await;
        for revision in 2..2 + WRITES {
            world.put("k", vec![b'v'; 10_000]);
            world.commit().await;
            let responses = drain(&mut fast, 1).await;
            assert_eq!(revisions(&responses), [revision]);
        }
        let stats = world.hub.stats();
        assert_eq!(stats.slow_watchers.load(Ordering::Relaxed), 1);
        assert_eq!(stats.pending_events.load(Ordering::Relaxed), limits::WATCH_MAILBOX as u64);
        let responses = drain(&mut slow, usize::MAX).await;
        assert_eq!(revisions(&responses), (2..2 + WRITES).collect::<Vec<_>>());
        assert_eq!(stats.slow_watchers.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn what_waits_for_a_stream_is_bounded_in_bytes() {
    run(async {
        let mut world = World::new(Bounds::STANDARD);
        let mut slow = world.hub.open_stream().await;
        slow.create(everything(0)).await;
        drain(&mut slow, 1).await;
        for _ in 0..20 {
            world.put("k", vec![b'v'; 1 << 20]);
            world.commit().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let fitting = (limits::WATCH_MAILBOX_BYTES >> 20) - 1; // the fourth is a little above
        assert_eq!(world.hub.stats().pending_events.load(Ordering::Relaxed), fitting as u64);
        let responses = drain(&mut slow, usize::MAX).await;
        assert_eq!(revisions(&responses), (2..22).collect::<Vec<_>>());
    });
}

/// One event is a message for each of them: with room for few of these, all others would be sent back to history by
/// every event, and each time they are let go on again.
#[test]
fn an_event_fits_for_every_watcher_of_a_stream() {
    run(async {
        const WATCHERS: usize = 1_000;
        let mut world = World::new(Bounds::STANDARD);
        let mut stream = world.hub.open_stream().await;
        for _ in 0..WATCHERS {
            stream.create(everything(0)).await;
            drain(&mut stream, 1).await;
        }
        for _ in 0..limits::WATCH_MAILBOX_PER_WATCHER {
            world.put("k", "v");
            world.commit().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let stats = world.hub.stats();
        let waiting = limits::WATCH_MAILBOX_PER_WATCHER * WATCHERS;
        assert_eq!(stats.slow_watchers.load(Ordering::Relaxed), 0);
        assert_eq!(stats.pending_events.load(Ordering::Relaxed), waiting as u64);
        // There is a bound nevertheless, and what did not fit comes later.
        world.put("k", "v");
        world.commit().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(world.hub.stats().slow_watchers.load(Ordering::Relaxed), WATCHERS as u64);
        let events = drain(&mut stream, usize::MAX).await.iter().map(|response| response.events.len()).sum::<usize>();
        assert_eq!(events, waiting + WATCHERS);
    });
}

/// What is published while the hub has no time for it comes in one response, each revision whole.
#[test]
fn what_was_published_together_is_told_together() {
    run(async {
        const WRITES: i64 = limits::HUB_REVISIONS_TOGETHER as i64 + 5;
        let mut world = World::new(Bounds::STANDARD);
        let mut stream = world.hub.open_stream().await;
        stream.create(everything(0)).await;
        drain(&mut stream, 1).await;
        for _ in 0..WRITES {
            world.put("a", "v");
            let events = world.writer.commit().unwrap();
            world.hub.publish(events).await;
        }
        stream.request_progress().await;
        let responses = drain(&mut stream, usize::MAX).await;
        assert_eq!(revisions(&responses), (2..2 + WRITES).collect::<Vec<_>>());
        let sizes: Vec<usize> = responses.iter().map(|response| response.events.len()).collect();
        assert_eq!(sizes, [limits::HUB_REVISIONS_TOGETHER, 5, 0], "the last one tells the progress");
        assert_eq!(responses[2].header.unwrap().revision, 1 + WRITES);
    });
}

/// An event is encoded once for all who want it in the same form.
#[test]
fn watchers_share_the_bytes_of_an_event() {
    run(async {
        let mut world = World::new(Bounds::STANDARD);
        let mut stream = world.hub.open_stream().await;
        for prev_kv in [false, true, false, true] {
            stream.create(WatchCreateRequest { prev_kv, ..everything(0) }).await;
            drain(&mut stream, 1).await;
        }
        for value in ["first", "second"] {
            world.put("k", value);
            world.commit().await;
        }
        let mut told = Vec::new();
        for _ in 0..8 {
            stream.arrival().await.unwrap();
            told.push(stream.take_spliced().await.unwrap().unwrap());
        }
        let event = |place: usize| told[place].events()[0].as_ptr();
        // There is nothing before the event that made the key.
        assert!((1..4).all(|place| event(place) == event(0)));
        assert_eq!((event(4), event(5)), (event(6), event(7)));
        assert_ne!(event(4), event(5));
        let values = told.into_iter().skip(4).map(|response| {
            let event = response.into_response().events.remove(0);
            (event.kv.unwrap().value, event.prev_kv.map(|kv| kv.value))
        });
        let (value, before) = (Bytes::from("second"), Some(Bytes::from("first")));
        let expected = [None, before.clone(), None, before].map(|before| (value.clone(), before));
        assert_eq!(values.collect::<Vec<_>>(), expected);
    });
}

fn client(name: &str) -> Arc<Identity> {
    Arc::new(Identity::User(name.to_owned()))
}

#[test]
fn many_slow_streams_share_what_their_client_may_have() {
    run(async {
        const STREAMS: usize = 100;
        const WRITES: i64 = 300;
        const BYTES: usize = 10_000;
        let bounds = Bounds { waiting_bytes: 4 << 20, ..FORGETFUL };
        let mut world = World::new(bounds);
        let (slow, fast) = (client("slow"), client("fast"));
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = world.hub.open_stream_of(Some(&slow)).await;
            stream.create(everything(0)).await;
            drain(&mut stream, 1).await;
            streams.push(stream);
        }
        let mut other = world.hub.open_stream_of(Some(&fast)).await;
        other.create(everything(0)).await;
        drain(&mut other, 1).await;
        for revision in 2..2 + WRITES {
            world.put("k", vec![b'v'; BYTES]);
            world.commit().await;
            assert_eq!(revisions(&drain(&mut other, 1).await), [revision], "another client is not in the way");
        }
        let waiting = world.hub.stats().pending_events.load(Ordering::Relaxed) as usize;
        let allowed = (2 << 20) + STREAMS * limits::WATCH_MAILBOX_BYTES_MIN;
        assert!(waiting >= STREAMS && waiting * BYTES <= allowed, "{waiting} events wait");
        for stream in &mut streams {
            assert_eq!(revisions(&drain(stream, usize::MAX).await), (2..2 + WRITES).collect::<Vec<_>>());
        }
    });
}

#[test]
fn who_is_short_of_room_goes_on_once_others_of_its_client_have_read() {
    run(async {
        let bounds = Bounds { waiting_bytes: 100_000, ..Bounds::STANDARD };
        let mut world = World::new(bounds);
        let who = client("alice");
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = world.hub.open_stream_of(Some(&who)).await;
            stream.create(everything(0)).await;
            drain(&mut stream, 1).await;
            streams.push(stream);
        }
        world.put("k", vec![b'v'; 60_000]);
        world.commit().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.hub.stats().pending_events.load(Ordering::Relaxed), 2, "a third would be too much");
        let mut last = streams.pop().unwrap();
        assert!(drain(&mut last, 1).await.is_empty());
        for stream in &mut streams {
            assert_eq!(revisions(&drain(stream, 2).await), [2]);
        }
        tokio::time::sleep(2 * limits::CATCH_UP_RETRY).await;
        assert_eq!(revisions(&drain(&mut last, 1).await), [2]);
    });
}

#[test]
fn requests_wait_while_answers_wait() {
    run(async {
        let world = World::new(Bounds::STANDARD);
        let mut stream = world.hub.open_stream().await;
        for _ in 0..limits::WATCH_ANSWERS {
            assert!(stream.takes_requests());
            stream.create(everything(0)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!stream.takes_requests());
        drain(&mut stream, 1).await;
        assert!(stream.takes_requests());
    });
}

#[test]
fn a_long_journey_stalls_nobody() {
    run(async {
        let mut world = World::new(Bounds { step_events: 1, ..FORGETFUL });
        let (mut far, mut synced) = (world.hub.open_stream().await, world.hub.open_stream().await);
        for _ in 0..5_000 {
            world.put("k", "v");
        }
        world.commit().await;
        synced.create(everything(0)).await;
        drain(&mut synced, 1).await;
        far.create(everything(2)).await;
        drain(&mut far, 1).await;
        world.put("k", "v");
        world.commit().await;
        synced.arrival().await.unwrap();
        let told = synced.take().await.unwrap().unwrap();
        assert_eq!(revisions(&[told]), [5_002]);
        assert_eq!(world.hub.stats().slow_watchers.load(Ordering::Relaxed), 1, "the other is still on its way");
        let responses = drain(&mut far, usize::MAX).await;
        assert_eq!(revisions(&responses), (2..=5_002).collect::<Vec<_>>());
    });
}

#[test]
fn history_is_read_once_for_all_who_lag() {
    run(async {
        const WATCHERS: usize = 300;
        const WRITES: i64 = 1_000;
        let engine = Arc::new(Counting { engine: MemHome::new().open().unwrap(), scans: AtomicUsize::new(0) });
        let slices = Bounds { slice_bytes_min: 10_000, slice_bytes_max: 10_000, ..FORGETFUL };
        let mut world = World::on(Writer::open(engine.clone(), 1 << 20).unwrap(), slices);
        for _ in 0..WRITES {
            world.put("k", vec![b'v'; 100]);
        }
        world.commit().await;
        let mut streams = Vec::new();
        for place in 0..WATCHERS {
            let stream = world.hub.open_stream().await;
            stream.create(everything(2 + place as i64)).await;
            streams.push(stream);
        }
        let before = engine.scans.load(Ordering::Relaxed);
        for (place, stream) in streams.iter_mut().enumerate() {
            let responses = drain(stream, usize::MAX).await;
            assert_eq!(revisions(&responses), (2 + place as i64..2 + WRITES).collect::<Vec<_>>());
        }
        // Each slice has about 70 revisions: one journey is 15 scans, and 300 alone would be 4,300. Whoever
        // came too late for one journey shares the next; how many there are is up to the scheduler.
        let scans = engine.scans.load(Ordering::Relaxed) - before;
        assert!(scans <= 10 * WRITES as usize / 50, "{scans} scans");
    });
}

#[test]
fn while_the_store_is_away_watchers_wait() {
    run(async {
        let home = MemHome::new();
        let mut world = World::on(Writer::open(home.open().unwrap(), 1 << 20).unwrap(), FORGETFUL);
        let (mut live, mut past) = (world.hub.open_stream().await, world.hub.open_stream().await);
        live.create(WatchCreateRequest { prev_kv: true, ..everything(0) }).await;
        drain(&mut live, 1).await;
        for _ in 0..3 {
            world.put("k", "v");
            world.commit().await;
        }
        drain(&mut live, 2).await;
        world.writer.maybe_flush(true).unwrap();
        world.writer.release();
        past.create(everything(2)).await;
        drain(&mut past, 1).await;

        let mut away = Duration::ZERO;
        while world.hub.stats().slow_watchers.load(Ordering::Relaxed) == 1 && away < Duration::from_secs(5) {
            away += limits::CATCH_UP_RETRY;
            tokio::time::sleep(limits::CATCH_UP_RETRY).await;
        }
        assert_eq!(away, Duration::from_secs(5), "it still lags");
        let writer = &mut world.writer;
        let (told, ()) = tokio::join!(drain_patiently(&mut live), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            writer.reopen(home.open().unwrap()).unwrap();
        });
        assert_eq!(revisions(std::slice::from_ref(&told)), [4]);
        assert_eq!(told.events[0].prev_kv.as_ref().unwrap().mod_revision, 3);
        world.hub.restored().await;
        let responses = drain(&mut past, usize::MAX).await;
        assert_eq!(revisions(&responses), [2, 3, 4]);
    });
}

async fn drain_patiently(stream: &mut crate::watch::WatchStream) -> WatchResponse {
    stream.arrival().await.unwrap();
    stream.take().await.unwrap().unwrap()
}

/// An engine that counts how often history is read.
struct Counting {
    engine: Arc<dyn Engine>,
    scans: AtomicUsize,
}

impl Engine for Counting {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(family, key)
    }

    fn multi_get(&self, family: Family, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.engine.multi_get(family, keys)
    }

    fn scan(&self, family: Family, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: Visit<'_>) -> Result<(), EngineError> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.engine.scan(family, from, to, visit)
    }

    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        self.engine.write(batch)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.engine.flush()
    }

    fn unflushed_bytes(&self) -> u64 {
        self.engine.unflushed_bytes()
    }

    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        self.engine.view()
    }

    fn checkpoint(&self) -> Result<Arc<dyn Checkpoint>, EngineError> {
        self.engine.checkpoint()
    }

    fn reclaim(&self) -> Result<(), EngineError> {
        self.engine.reclaim()
    }

    fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }
}
