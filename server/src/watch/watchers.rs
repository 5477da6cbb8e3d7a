//! Every watcher of this member, where it stands, and what moves it (synchronous, no clock).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;
use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::bounds::Bounds;
use super::catch_up::{CatchUp, Plan};
use super::delivery::{Events, Kept, Recorded, header, revision_of};
use super::group::Group;
use super::mailbox::{Full, Mailbox};
use super::matching::{self, Filter, Gathered, Hit};
use super::recent::Recent;
use super::stats::{self, WatchStats};
use super::{StreamKey, WatcherKey};
use crate::env::clock::Instant;
use crate::env::probe;
use crate::limits;
use crate::mvcc::{EventSlice, ReadError, RevisionEvents, Store};

/// The id in responses that are about no watcher of the stream, or about all of them.
const NO_ID: i64 = -1;

const RANGE_IS_EMPTY: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// All watchers and streams.
pub(super) struct Watchers {
    store: Store,
    progress_interval: Duration,
    bounds: Bounds,
    stats: Arc<WatchStats>,
    /// The last published revision that synced watchers were told.
    current: i64,
    streams: BTreeMap<StreamKey, Stream>,
    watchers: BTreeMap<WatcherKey, Watcher>,
    next_watcher: u64,
    /// The synced watchers.
    synced: Group,
    catch_up: CatchUp,
    recent: Recent,
    /// For the encodings of events.
    kept: Kept,
    lagging: usize,
    /// Streams for which there was no room because of others of their clients, and how much was wanted.
    short: BTreeMap<StreamKey, usize>,
    /// When to look after them.
    short_until: Option<Instant>,
    /// When watchers that want progress notices are due for one.
    notices: BTreeSet<(Instant, WatcherKey)>,
    /// When to read the store again after it failed.
    retry_at: Option<Instant>,
}

struct Stream {
    mailbox: Mailbox,
    /// The ids in use; without a watcher where it ended by compaction. Such an id stays in use until
    /// the client cancels it, as in etcd.
    ids: BTreeMap<i64, Option<WatcherKey>>,
    /// Where to begin to look for a free id.
    next_id: i64,
    /// Lagging watchers for which there was no room.
    parked: BTreeSet<WatcherKey>,
    /// The newest revision that a notice told. The hub may not have been told of it yet.
    noticed: i64,
}

struct Watcher {
    stream: StreamKey,
    id: i64,
    range: KeyRange,
    /// The start that was asked for; 0 for none.
    start: i64,
    /// It was told everything below. While it is synced, everything up to the current revision as well.
    next: i64,
    filter: Filter,
    prev_kv: bool,
    fragment: bool,
    /// When the next progress notice is due, where any are wanted.
    notice_due: Option<Instant>,
    /// Whether it was sent events since its last notice was due.
    was_sent_events: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the group: hears of revisions as they are published.
    Synced,
    /// Waits to be told history.
    Waiting,
    /// Is being told history together with others.
    Travelling,
    /// Waits for room in its stream's mailbox.
    Parked,
}

impl Watchers {
    pub(super) fn new(store: Store, progress_interval: Duration, bounds: Bounds, stats: Arc<WatchStats>) -> Self {
        let kept = Kept::new(bounds.recent_bytes);
        Self {
            current: store.revision(),
            store,
            progress_interval,
            bounds,
            stats,
            streams: BTreeMap::new(),
            watchers: BTreeMap::new(),
            next_watcher: 0,
            synced: Group::default(),
            catch_up: CatchUp::new(bounds),
            recent: Recent::new(bounds, kept.clone()),
            kept,
            lagging: 0,
            short: BTreeMap::new(),
            short_until: None,
            notices: BTreeSet::new(),
            retry_at: None,
        }
    }

    // ---- streams

    pub(super) fn open(&mut self, key: StreamKey, mailbox: Mailbox) {
        // Its end may have been told before its beginning.
        if mailbox.is_closed() {
            return;
        }
        stats::add(&self.stats.streams, 1);
        let stream = Stream { mailbox, ids: BTreeMap::new(), next_id: 0, parked: BTreeSet::new(), noticed: 0 };
        self.streams.insert(key, stream);
    }

    pub(super) fn close(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let watchers: Vec<WatcherKey> = stream.ids.values().copied().flatten().collect();
        // Wrong where it is broken: they stay, and nobody hears them.
        for watcher in watchers.into_iter().filter(|_| !probe::broken("watches-outlive-their-stream")) {
            self.remove(watcher);
        }
        self.streams.remove(&key);
        self.short.remove(&key);
        stats::subtract(&self.stats.streams, 1);
    }

    /// Lets those go on for which there was no room.
    pub(super) fn drained(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        self.short.remove(&key);
        for key in std::mem::take(&mut stream.parked) {
            self.wait(key);
        }
    }

    // ---- requests

    pub(super) fn create(&mut self, stream_key: StreamKey, request: WatchCreateRequest, now: Instant) {
        let revision = self.revision();
        let Some(stream) = self.streams.get_mut(&stream_key) else { return };
        let key = if request.key.is_empty() { b"\0"[..].into() } else { request.key };
        let range = KeyRange::new(key, request.range_end);
        // In etcd's order.
        if request.start_revision < 0 {
            return stream.post(refused(COMPACTED, revision));
        }
        if range.is_empty() {
            return stream.post(refused(RANGE_IS_EMPTY, revision));
        }
        let Some(id) = stream.claim_id(request.watch_id) else {
            return stream.post(refused(DUPLICATE_ID, revision));
        };
        stream.post(WatchResponse {
            header: header(revision),
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        });

        let mut start = request.start_revision;
        if start != 0 && probe::broken("watch-resume-skips-one") {
            // Wrong: the start is taken for the last revision that the client knows.
            start += 1;
        }
        let compacted = self.store.compact_revision();
        // Wrong where it is broken: the compacted revision itself counts as gone.
        let is_wrongly_gone = start == compacted && probe::broken("watch-from-compacted-refused");
        if start != 0 && (start < compacted || is_wrongly_gone) {
            return stream.end_compacted(id, compacted);
        }
        let key = WatcherKey(self.next_watcher);
        self.next_watcher += 1;
        stream.ids.insert(id, Some(key));
        stream.mailbox.set_watchers(stream.ids.len());
        let unwanted = |kind: FilterType| request.filters.contains(&(kind as i32));
        let watcher = Watcher {
            stream: stream_key,
            id,
            range,
            start,
            next: if start == 0 { revision + 1 } else { start },
            filter: Filter { puts: !unwanted(FilterType::Noput), deletes: !unwanted(FilterType::Nodelete) },
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            notice_due: request.progress_notify.then(|| now + interval(self.progress_interval, key)),
            was_sent_events: false,
            place: Place::Synced,
        };
        self.add(key, watcher);
    }

    /// Answers a request that must not create a watcher.
    pub(super) fn refuse(&mut self, stream: StreamKey, reason: &str) {
        let revision = self.revision();
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.post(refused(reason, revision));
        }
    }

    pub(super) fn cancel(&mut self, stream: StreamKey, id: i64) {
        let revision = self.revision();
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        let Some(watcher) = stream.ids.get(&id).copied() else { return };
        stream.post(WatchResponse {
            header: header(revision),
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        });
        stream.ids.remove(&id);
        stream.mailbox.set_watchers(stream.ids.len());
        // Wrong where it is broken: the answer is sent, and the watcher goes on.
        if let Some(key) = watcher.filter(|_| !probe::broken("cancelled-watch-goes-on")) {
            self.remove(key);
        }
    }

    /// Tells a stream the revision up to which it knows everything, if it does; otherwise nothing.
    pub(super) fn progress(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        // Watchers that ended by compaction do not count. In etcd they stop progress until cancelled.
        let mut watchers = stream.ids.values().flatten().peekable();
        if stream.ids.len() > 1 && probe::broken("progress-of-one-counts-for-all") {
            // Wrong: one watcher that was told everything speaks for all of the stream.
            if watchers.any(|key| self.watchers[key].is_up_to_date(self.current)) {
                stream.post_progress(NO_ID, self.current);
            }
            return;
        }
        if watchers.peek().is_some() && watchers.all(|key| self.watchers[key].is_up_to_date(self.current)) {
            stream.post_progress(NO_ID, self.current);
        }
    }

    // ---- events

    /// Tells the synced watchers of the next revisions.
    pub(super) fn publish(&mut self, batch: Vec<Arc<RevisionEvents>>) {
        // Known already where the store was replaced, or was ahead, before they were published.
        let batch = batch.into_iter().filter(|events| events.revision > self.current);
        let batch: Vec<Arc<Recorded>> = batch.map(|events| Recorded::new(events, self.kept.clone())).collect();
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return };
        if first.revision() != self.current + 1 {
            tracing::debug!(from = self.current, to = first.revision(), "revisions were not published");
            return self.replaced(last.revision());
        }
        self.current = last.revision();

        let mut hits = Vec::new();
        for (place, recorded) in batch.iter().enumerate() {
            matching::find(&self.synced, place, recorded, &mut hits);
            self.recent.push(Arc::clone(recorded));
        }
        hits.sort_unstable();
        let limit = self.bounds.message_bytes;
        for hits in hits.chunk_by(|a, b| a.watcher == b.watcher) {
            let key = hits[0].watcher;
            if let Err(next) = self.tell(key, &batch, hits, limit, Told::Live) {
                self.park(key, next);
            }
        }
    }

    /// The store holds another state than was published: everyone looks for what they missed.
    pub(super) fn restored(&mut self) {
        self.replaced(self.store.revision());
    }

    fn replaced(&mut self, current: i64) {
        probe::reached("watch-store-replaced");
        let missed = self.current + 1;
        self.current = current;
        self.retry_at = None;
        self.recent.clear();
        self.disband();
        let synced = self.watchers.iter().filter(|(_, watcher)| watcher.place == Place::Synced);
        let behind: Vec<(WatcherKey, i64)> = synced
            .map(|(key, watcher)| (*key, watcher.next.max(missed)))
            // Those who start later hear of nothing old. Wrong where it is broken: nobody looks for what was missed.
            .filter(|(_, next)| *next <= current && !probe::broken("watch-misses-snapshot"))
            .collect();
        for (key, next) in behind {
            self.set_next(key, next);
            self.wait(key);
        }
    }

    // ---- history

    /// Whether [`Watchers::step`] has anything to do.
    pub(super) fn is_busy(&self) -> bool {
        let near = self.recent_from();
        self.catch_up.has_slice()
            || self.catch_up.has_waiting_from(near)
            || self.catch_up.position().is_some_and(|position| position >= near)
    }

    /// Gets lagging watchers further, by a bounded amount of work.
    pub(super) fn step(&mut self) {
        self.end_compacted();
        self.step_near();
        self.step_far();
    }

    /// Decides what to read of the store for those that lag far behind.
    pub(super) fn plan(&mut self, now: Instant) -> Option<Plan> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.catch_up.plan(self.recent_from() - 1, self.slice_bytes())
    }

    /// Takes what was read for a plan.
    pub(super) fn read(&mut self, plan: Plan, slice: Result<EventSlice, ReadError>, now: Instant) {
        let is_void = match &slice {
            Ok(_) => false,
            Err(ReadError::Compacted) => {
                self.end_compacted();
                plan.from < self.store.compact_revision()
            }
            Err(error) => {
                // While a snapshot takes its place the store cannot be read.
                tracing::debug!(%error, "history cannot be read now");
                false
            }
        };
        probe::reached("watch-history-read");
        if !self.catch_up.read(plan, slice.ok(), &self.kept) && !is_void {
            probe::reached("watch-history-unreadable");
            self.retry_at = Some(now + limits::CATCH_UP_RETRY);
        }
    }

    /// Cancels the lagging watchers whose next revision is gone.
    fn end_compacted(&mut self) {
        let compacted = self.store.compact_revision();
        if self.catch_up.position().is_some_and(|position| position < compacted) {
            self.disband();
        }
        while let Some(key) = self.catch_up.take_waiting_below(compacted) {
            let watcher = &self.watchers[&key];
            let (stream, id) = (watcher.stream, watcher.id);
            self.remove(key);
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.end_compacted(id, compacted);
            }
        }
    }

    /// Lets everyone who travels wait where they are.
    fn disband(&mut self) {
        let (position, members) = self.catch_up.dissolve();
        for key in members {
            self.set_next(key, position);
            self.wait(key);
        }
    }

    /// Gets those further that lag no more than memory reaches back.
    fn step_near(&mut self) {
        let mut events = 0;
        while events < self.bounds.step_events {
            let Some(key) = self.catch_up.take_waiting_from(self.recent_from()) else { return };
            let watcher = &self.watchers[&key];
            let limit = self.message_bytes(watcher, self.slice_bytes());
            let mut next = watcher.next;
            let mut gathered = Gathered::default();
            for recorded in self.recent.from(next) {
                if gathered.bytes >= limit || events >= self.bounds.step_events {
                    break;
                }
                events += recorded.revision_events.events.len();
                next = recorded.revision() + 1;
                if let Some(part) = matching::part_of(recorded, &watcher.range, watcher.filter(Told::History)) {
                    gathered.add(part);
                }
            }
            events += 1;
            match self.send(key, gathered, Told::History) {
                Err(next) => self.park(key, next),
                Ok(()) => {
                    probe::reached("watch-caught-up-in-memory");
                    // Wrong where it is broken: the first revision that is published after the lag counts as told.
                    let skipped = i64::from(probe::broken("drop-event-at-hand-over"));
                    self.set_next(key, next + skipped);
                    self.sync_or_wait(key);
                }
            }
        }
    }

    /// Gets those further that travel through the store's history.
    fn step_far(&mut self) {
        if self.catch_up.position().is_some_and(|position| position >= self.recent_from()) {
            return self.disband();
        }
        if !self.catch_up.has_slice() {
            return;
        }
        let watchers = &mut self.watchers;
        let stage = self.catch_up.travel(|key| {
            let watcher = watchers.get_mut(&key).expect("who waits is a watcher");
            watcher.place = Place::Travelling;
            watcher.range.clone()
        });
        for hits in stage.hits.chunk_by(|a, b| a.watcher == b.watcher) {
            let (key, limit) = (hits[0].watcher, self.slice_bytes());
            if let Err(next) = self.tell(key, &stage.revisions, hits, limit, Told::History) {
                self.park(key, next);
            }
        }
    }

    /// Tells a watcher what its hits in a batch are, in messages of about `limit` bytes. Where there is
    /// no room, returns the first revision that was not told.
    fn tell(
        &mut self,
        key: WatcherKey,
        batch: &[Arc<Recorded>],
        hits: &[Hit],
        limit: usize,
        told: Told,
    ) -> Result<(), i64> {
        // Each is looked up once: this is what an event costs for each of its watchers.
        let Some(watcher) = self.watchers.get_mut(&key) else { return Ok(()) };
        let Some(stream) = self.streams.get(&watcher.stream) else { return Ok(()) };
        let limit = stream.mailbox.message_bytes(limit);
        let mut next = watcher.next;
        if let (Told::Live, Some(first)) = (told, batch.first())
            && next > first.revision()
            && probe::broken("future-watch-hears-the-present")
        {
            // Wrong: who asked for what is yet to come is told what happens now.
            next = first.revision();
        }
        let mut way = Way { short: &mut self.short, current: self.current, least: self.bounds.mailbox_bytes_min };
        let mut gathered = Gathered::default();
        for part in matching::parts(batch, hits, watcher.filter(told), next) {
            if gathered.bytes >= limit {
                way.send(watcher, stream, std::mem::take(&mut gathered), told)?;
            }
            gathered.add(part);
        }
        way.send(watcher, stream, gathered, told)
    }

    fn send(&mut self, key: WatcherKey, gathered: Gathered, told: Told) -> Result<(), i64> {
        let Some(watcher) = self.watchers.get_mut(&key) else { return Ok(()) };
        let Some(stream) = self.streams.get(&watcher.stream) else { return Ok(()) };
        let mut way = Way { short: &mut self.short, current: self.current, least: self.bounds.mailbox_bytes_min };
        way.send(watcher, stream, gathered, told)
    }

    // ---- time

    /// When [`Watchers::tick`] has something to do next.
    pub(super) fn due(&mut self, now: Instant) -> Option<Instant> {
        let until = self.short_until.unwrap_or(now + limits::CATCH_UP_RETRY);
        self.short_until = (!self.short.is_empty()).then_some(until);
        let notice = self.notices.first().map(|(due, _)| *due);
        notice.into_iter().chain(self.retry_at).chain(self.short_until).min()
    }

    /// Sends the progress notices that are due, and looks after streams that are short of room.
    pub(super) fn tick(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| now < *at);
        if self.short_until.is_some_and(|at| at <= now) {
            self.short_until = None;
            self.look_for_room();
        }
        while let Some((_, key)) = self.notices.first().copied().filter(|(due, _)| *due <= now) {
            self.notices.pop_first();
            let Some(watcher) = self.watchers.get_mut(&key) else { continue };
            let was_sent_events = std::mem::take(&mut watcher.was_sent_events);
            let due = now + interval(self.progress_interval, key);
            watcher.notice_due = Some(due);
            self.notices.insert((due, key));
            if let Some(stream) = self.streams.get_mut(&watcher.stream)
                && !was_sent_events
                && watcher.is_up_to_date(self.current)
                && stream.mailbox.has_room(0)
            {
                stream.post_progress(watcher.id, self.current);
            }
        }
    }

    /// Lets those go on for whose streams there is room now, since others have read.
    fn look_for_room(&mut self) {
        let has_room =
            |key: &StreamKey, bytes: usize| self.streams.get(key).is_none_or(|stream| stream.mailbox.has_room(bytes));
        let short = self.short.iter().filter(|entry| has_room(entry.0, *entry.1));
        let with_room: Vec<StreamKey> = short.map(|(key, _)| *key).collect();
        for key in with_room {
            self.drained(key);
        }
    }

    // ---- places

    fn add(&mut self, key: WatcherKey, watcher: Watcher) {
        stats::add(&self.stats.watchers, 1);
        self.notices.extend(watcher.notice_due.map(|due| (due, key)));
        if watcher.next > self.current {
            self.synced.insert(&watcher.range, key);
            self.watchers.insert(key, watcher);
        } else {
            self.watchers.insert(key, watcher);
            self.wait(key);
        }
    }

    fn remove(&mut self, key: WatcherKey) {
        self.move_to(key, Place::Synced);
        let Some(watcher) = self.watchers.remove(&key) else { return };
        self.synced.remove(&watcher.range, key);
        if let Some(due) = watcher.notice_due {
            self.notices.remove(&(due, key));
        }
        stats::subtract(&self.stats.watchers, 1);
    }

    /// Lets a watcher wait to be told history from its next revision on.
    fn wait(&mut self, key: WatcherKey) {
        self.move_to(key, Place::Waiting);
    }

    /// Lets a watcher wait for room in its stream's mailbox, and then for history from `next` on.
    fn park(&mut self, key: WatcherKey, next: i64) {
        self.set_next(key, next);
        self.move_to(key, Place::Parked);
    }

    /// Ends the lag of a watcher that was told everything.
    fn sync_or_wait(&mut self, key: WatcherKey) {
        let is_told_all = self.watchers.get(&key).is_some_and(|watcher| watcher.next > self.current);
        self.move_to(key, if is_told_all { Place::Synced } else { Place::Waiting });
    }

    fn set_next(&mut self, key: WatcherKey, next: i64) {
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.next = next;
        }
    }

    /// Moves a watcher from where it is. One that waits is found by its next revision: who changes that
    /// has taken it out before.
    fn move_to(&mut self, key: WatcherKey, to: Place) {
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        let from = std::mem::replace(&mut watcher.place, to);
        let (range, next) = (&watcher.range, watcher.next);
        let stream = self.streams.get_mut(&watcher.stream);
        match from {
            Place::Synced => self.synced.remove(range, key),
            Place::Waiting => self.catch_up.forget(next, key),
            Place::Travelling => self.catch_up.leave(range, key),
            Place::Parked => {}
        }
        match to {
            Place::Synced => self.synced.insert(range, key),
            Place::Waiting => self.catch_up.wait(next, key),
            Place::Travelling | Place::Parked => {}
        }
        if let Some(stream) = stream {
            if to == Place::Parked {
                stream.parked.insert(key);
            } else {
                stream.parked.remove(&key);
            }
        }
        match (from == Place::Synced, to == Place::Synced) {
            (true, false) => {
                self.lagging += 1;
                stats::add(&self.stats.slow_watchers, 1);
            }
            (false, true) => {
                self.lagging -= 1;
                stats::subtract(&self.stats.slow_watchers, 1);
            }
            (true, true) | (false, false) => {}
        }
    }

    // ---- bounds

    /// The present revision, which the hub may not have been told of yet.
    fn revision(&self) -> i64 {
        self.store.revision().max(self.current)
    }

    /// The revision from which history is in memory.
    fn recent_from(&self) -> i64 {
        self.recent.first().unwrap_or(self.current + 1)
    }

    /// The size of messages for a watcher that are up to `limit` otherwise.
    fn message_bytes(&self, watcher: &Watcher, limit: usize) -> usize {
        self.streams.get(&watcher.stream).map_or(limit, |stream| stream.mailbox.message_bytes(limit))
    }

    /// Bytes of history that one watcher is told at once: the more lag, the less each.
    fn slice_bytes(&self) -> usize {
        let share = self.bounds.catch_up_bytes / self.lagging.max(1);
        share.clamp(self.bounds.slice_bytes_min, self.bounds.slice_bytes_max)
    }
}

impl Stream {
    /// Finds the id for a new watcher: the one that is asked for, or the next free one for 0.
    fn claim_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.ids.contains_key(&asked)).then_some(asked);
        }
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Some(id)
    }

    fn post(&mut self, response: WatchResponse) {
        self.noticed = self.noticed.max(revision_of(&response));
        self.mailbox.post(response);
    }

    /// Tells that everything up to a revision was told, unless that would go back in time.
    fn post_progress(&mut self, id: i64, revision: i64) {
        if revision >= self.noticed {
            probe::reached("watch-progress-told");
            self.post(WatchResponse { header: header(revision), watch_id: id, ..WatchResponse::default() });
        }
    }

    /// Tells that a watcher has ended by compaction.
    fn end_compacted(&mut self, id: i64, compacted: i64) {
        probe::reached("watch-canceled-by-compaction");
        self.ids.insert(id, None);
        self.post(WatchResponse {
            header: header(0),
            watch_id: id,
            canceled: true,
            compact_revision: compacted,
            ..WatchResponse::default()
        });
    }
}

impl Watcher {
    /// Whether it was told everything up to the current revision, and that is not before its start.
    fn is_up_to_date(&self, current: i64) -> bool {
        // Wrong where it is broken: who lags is told to know what is still to be told.
        let is_told_all = self.place == Place::Synced || probe::broken("notice-ahead-of-events");
        is_told_all && self.start <= current
    }

    /// The events that it wants.
    fn filter(&self, told: Told) -> Filter {
        if matches!(told, Told::History) && probe::broken("filter-ignored-in-catch-up") {
            // Wrong: history is told without the filter.
            return Filter { puts: true, deletes: true };
        }
        self.filter
    }
}

/// What is needed besides a watcher and its stream to tell it events.
struct Way<'a> {
    short: &'a mut BTreeMap<StreamKey, usize>,
    current: i64,
    /// See [`Bounds::mailbox_bytes_min`].
    least: usize,
}

impl Way<'_> {
    /// Tells a watcher what was gathered. Where there is no room, returns the first revision of it.
    fn send(&mut self, watcher: &mut Watcher, stream: &Stream, gathered: Gathered, told: Told) -> Result<(), i64> {
        let (Some(first), Some(last)) = (gathered.first_revision(), gathered.last_revision()) else { return Ok(()) };
        let events = Events {
            id: watcher.id,
            revision: match told {
                Told::Live => last,
                Told::History => self.current,
            },
            prev_kv: watcher.prev_kv,
            fragment: watcher.fragment,
            parts: gathered.parts,
            count: gathered.count,
            bytes: gathered.bytes,
        };
        // Of several revisions fewer may fit.
        let wanted = if events.parts.len() == 1 { events.bytes } else { events.bytes.min(self.least) };
        if let Err(full) = stream.mailbox.offer(events) {
            probe::reached("watch-mailbox-full");
            if full == Full::Elsewhere {
                self.short.insert(watcher.stream, wanted);
            }
            // Wrong where it is broken: what finds no room counts as told.
            if !probe::broken("full-mailbox-drops-events") {
                return Err(first);
            }
        }
        watcher.was_sent_events = true;
        Ok(())
    }
}

/// How a watcher comes to hear of events, which decides the revision in the header.
#[derive(Clone, Copy)]
enum Told {
    Live,
    History,
}

fn refused(reason: &str, revision: i64) -> WatchResponse {
    WatchResponse {
        header: header(revision),
        watch_id: NO_ID,
        created: true,
        canceled: true,
        cancel_reason: reason.to_owned(),
        ..WatchResponse::default()
    }
}

/// The time between two progress notices of a watcher: up to a tenth longer, so that they do not come
/// all at once, and always the same for one watcher.
fn interval(progress_interval: Duration, key: WatcherKey) -> Duration {
    const STEPS: u64 = 1_000;
    // Spreads successive keys far apart (the golden ratio of 2^64).
    let step = (key.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % (STEPS + 1);
    progress_interval + progress_interval.mul_f64(step as f64 / (10 * STEPS) as f64)
}
