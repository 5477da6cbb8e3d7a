//! The task that owns the watchers, and the handle to it.

use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_proto::etcdserverpb::WatchCreateRequest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::StreamKey;
use super::allowance::Allowances;
use super::bounds::Bounds;
use super::catch_up::Plan;
use super::mailbox::{Mailbox, Signal, mailbox};
use super::stats::WatchStats;
use super::stream::WatchStream;
use super::watchers::Watchers;
use crate::admission::Identity;
use crate::env::clock::Instant;
use crate::env::{self, clock};
use crate::limits;
use crate::mvcc::{EventSlice, ReadError, RevisionEvents, Store};

/// A handle to the owner of all watchers.
#[derive(Clone)]
pub struct Hub {
    inbox: mpsc::Sender<HubMessage>,
    signals: mpsc::UnboundedSender<Signal>,
    next_stream: Arc<AtomicU64>,
    store: Store,
    options: HubOptions,
    bounds: Bounds,
    allowances: Arc<Allowances>,
    stats: Arc<WatchStats>,
}

/// What the configuration says of watching.
#[derive(Clone, Copy, Debug)]
pub struct HubOptions {
    /// `--watch-progress-notify-interval`; not zero.
    pub progress_interval: Duration,
    /// Bytes from which a response is split for a watcher that wants fragments:
    /// `--max-request-bytes` and [`limits::GRPC_OVERHEAD_BYTES`].
    pub max_response_bytes: usize,
}

/// What the hub is told; it waits in one queue, so that answers fit what was published before.
pub(super) enum HubMessage {
    Publish(Vec<Arc<RevisionEvents>>),
    Restored,
    Open { stream: StreamKey, mailbox: Mailbox },
    Create { stream: StreamKey, request: WatchCreateRequest },
    Refuse { stream: StreamKey, reason: String },
    Cancel { stream: StreamKey, id: i64 },
    Progress { stream: StreamKey },
    Stop,
}

impl Hub {
    /// Starts the owner task. It ends when [`Hub::stop`] is called or no handle and no stream is left.
    ///
    /// # Panics
    /// If the interval of progress notices is zero.
    pub fn spawn(store: Store, options: HubOptions, bounds: Bounds) -> (Self, JoinHandle<()>) {
        assert!(!options.progress_interval.is_zero(), "progress notices need an interval");
        let (inbox, messages) = mpsc::channel(limits::HUB_INBOX);
        let (signals, signalled) = mpsc::unbounded_channel();
        let stats = Arc::new(WatchStats::default());
        let watchers = Watchers::new(store.clone(), options.progress_interval, bounds, Arc::clone(&stats));
        let task = tokio::spawn(run(watchers, store.clone(), messages, signalled));
        let allowances = Allowances::new(bounds.waiting_bytes);
        (Self { inbox, signals, next_stream: Arc::default(), store, options, bounds, allowances, stats }, task)
    }

    /// Tells the events of the next revisions, in order, after they can be read. Waits while too much
    /// waits to be told already.
    pub async fn publish(&self, events: Vec<Arc<RevisionEvents>>) {
        if !events.is_empty() {
            self.send(HubMessage::Publish(events)).await;
        }
    }

    /// Tells that a snapshot has replaced the store: what watchers missed is read from it.
    pub async fn restored(&self) {
        self.send(HubMessage::Restored).await;
    }

    /// Opens a stream of the server's own. It ends when it is dropped.
    pub async fn open_stream(&self) -> WatchStream {
        self.open_stream_of(None).await
    }

    /// Opens a stream of a client, where it matters whose it is. It ends when it is dropped.
    pub async fn open_stream_of(&self, who: Option<&Arc<Identity>>) -> WatchStream {
        let stream = StreamKey(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let allowance = who.map(|who| self.allowances.of(who));
        let stats = Arc::clone(&self.stats);
        let (mailbox, reader) = mailbox(stream, self.signals.clone(), self.bounds, allowance, stats);
        self.send(HubMessage::Open { stream, mailbox }).await;
        WatchStream::new(stream, self.clone(), reader)
    }

    /// Ends the task and with it every stream.
    pub async fn stop(&self) {
        self.send(HubMessage::Stop).await;
    }

    /// What the metrics tell.
    pub fn stats(&self) -> &Arc<WatchStats> {
        &self.stats
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn max_response_bytes(&self) -> usize {
        self.options.max_response_bytes.min(self.bounds.fragment_bytes)
    }

    pub(super) async fn send(&self, message: HubMessage) {
        if self.inbox.send(message).await.is_err() {
            // Streams learn it from their mailboxes, the node from the task's handle.
            tracing::debug!("the watch hub has ended");
        }
    }
}

/// A read of the store that is under way.
type Reading = Pin<Box<dyn Future<Output = (Plan, Result<EventSlice, ReadError>)> + Send>>;

async fn run(
    mut watchers: Watchers,
    store: Store,
    mut messages: mpsc::Receiver<HubMessage>,
    mut signals: mpsc::UnboundedReceiver<Signal>,
) {
    let mut reading: Option<Reading> = None;
    loop {
        if reading.is_none() {
            reading = watchers.plan(clock::now()).map(|plan| read(store.clone(), plan));
        }
        let is_busy = watchers.is_busy();
        let due = watchers.due(clock::now());
        tokio::select! {
            // Messages come last because there may always be another one; the others are few. History
            // has its turn after each of them.
            biased;
            Some(signal) = signals.recv() => match signal {
                Signal::Drained(stream) => watchers.drained(stream),
                Signal::Closed(stream) => watchers.close(stream),
            },
            (plan, slice) = finished(&mut reading) => {
                reading = None;
                watchers.read(plan, slice, clock::now());
            }
            () = until(due) => watchers.tick(clock::now()),
            message = messages.recv() => {
                let Some(message) = message else { return };
                if !handle(&mut watchers, message, &mut messages) {
                    return;
                }
            }
            () = tokio::task::yield_now(), if is_busy => {}
        }
        if watchers.is_busy() {
            watchers.step();
        }
    }
}

/// Does what a message says; whether the hub goes on.
fn handle(watchers: &mut Watchers, message: HubMessage, messages: &mut mpsc::Receiver<HubMessage>) -> bool {
    match message {
        HubMessage::Publish(mut events) => {
            let behind = gather(&mut events, messages);
            watchers.publish(events);
            return behind.is_none_or(|message| handle(watchers, message, messages));
        }
        HubMessage::Restored => watchers.restored(),
        HubMessage::Open { stream, mailbox } => watchers.open(stream, mailbox),
        HubMessage::Create { stream, request } => watchers.create(stream, request, clock::now()),
        HubMessage::Refuse { stream, reason } => watchers.refuse(stream, &reason),
        HubMessage::Cancel { stream, id } => watchers.cancel(stream, id),
        HubMessage::Progress { stream } => watchers.progress(stream),
        HubMessage::Stop => return false,
    }
    true
}

/// Adds what was published meanwhile: the further the hub is behind, the fewer messages it makes of as many events.
/// Returns the first message that is something else, or does not go on where this one ends.
fn gather(events: &mut Vec<Arc<RevisionEvents>>, messages: &mut mpsc::Receiver<HubMessage>) -> Option<HubMessage> {
    while events.len() < limits::HUB_REVISIONS_TOGETHER {
        match messages.try_recv() {
            Ok(HubMessage::Publish(more)) if goes_on(events, &more) => events.extend(more),
            Ok(message) => return Some(message),
            // Where it is closed, that is found out by waiting for the next one.
            Err(_) => return None,
        }
    }
    None
}

/// Whether no revision is left out between two publications.
fn goes_on(events: &[Arc<RevisionEvents>], more: &[Arc<RevisionEvents>]) -> bool {
    events.last().zip(more.first()).is_some_and(|(last, first)| last.revision + 1 == first.revision)
}

fn read(store: Store, plan: Plan) -> Reading {
    Box::pin(async move {
        let slice = env::blocking(move || store.events(plan.from, plan.to, plan.max_bytes)).await;
        (plan, slice)
    })
}

/// Waits for a read to finish; for ever where there is none.
async fn finished(reading: &mut Option<Reading>) -> (Plan, Result<EventSlice, ReadError>) {
    match reading {
        Some(reading) => reading.await,
        None => future::pending().await,
    }
}

/// Waits until a time; for ever where there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => clock::sleep_until(due).await,
        None => future::pending().await,
    }
}
