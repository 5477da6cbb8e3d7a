//! What waits for one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mainstay_proto::etcdserverpb::WatchResponse;
use tokio::sync::mpsc;

use super::StreamKey;
use super::allowance::Allowance;
use super::bounds::Bounds;
use super::delivery::{Delivery, Events};
use super::stats::{self, WatchStats};
use crate::env::probe;
use crate::limits;

/// The hub's end of a stream's mailbox.
///
/// Events are taken while there is room. Answers are always taken: a stream stops reading requests
/// while too many answers wait ([`MailboxReader::takes_requests`]), so they are bounded too.
pub(super) struct Mailbox {
    sender: mpsc::UnboundedSender<Delivery>,
    level: Arc<Level>,
}

/// The stream's end of its mailbox. Dropping it closes the stream.
pub(super) struct MailboxReader {
    receiver: mpsc::UnboundedReceiver<Delivery>,
    level: Arc<Level>,
    stream: StreamKey,
    signals: mpsc::UnboundedSender<Signal>,
    /// Bytes of the message that was taken last: it is in memory until the next one is asked for.
    in_hand: usize,
}

/// What a stream tells the hub besides its requests. At most two of them are under way for each
/// stream, so their queue is bounded by the number of streams and telling never waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// There is room again in a mailbox in which something did not fit.
    Drained(StreamKey),
    /// The stream has ended.
    Closed(StreamKey),
}

/// There was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The stream will tell when there is.
    Here,
    /// Nothing waits here, but other streams of the client have taken all that it may have. Nobody tells when they
    /// have read.
    Elsewhere,
}

/// How full a mailbox is.
struct Level {
    bounds: Bounds,
    /// Where it matters whose stream it is.
    allowance: Option<Allowance>,
    /// The stream's watchers.
    watchers: AtomicUsize,
    /// Messages with events.
    messages: AtomicUsize,
    bytes: AtomicUsize,
    notices: AtomicUsize,
    /// Something did not fit since the stream last told of room.
    starved: AtomicBool,
    stats: Arc<WatchStats>,
}

/// Makes the mailbox of a stream.
pub(super) fn mailbox(
    stream: StreamKey,
    signals: mpsc::UnboundedSender<Signal>,
    bounds: Bounds,
    allowance: Option<Allowance>,
    stats: Arc<WatchStats>,
) -> (Mailbox, MailboxReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let level = Arc::new(Level {
        bounds,
        allowance,
        watchers: AtomicUsize::new(0),
        messages: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        notices: AtomicUsize::new(0),
        starved: AtomicBool::new(false),
        stats,
    });
    (Mailbox { sender, level: Arc::clone(&level) }, MailboxReader { receiver, level, stream, signals, in_hand: 0 })
}

impl Mailbox {
    /// Adds an answer or a notice.
    pub(super) fn post(&self, response: WatchResponse) {
        self.level.notices.fetch_add(1, Ordering::SeqCst);
        self.send(Delivery::Notice(response));
    }

    /// Adds events if there is room. Whatever their size they fit where no others wait, and the client has anything left.
    pub(super) fn offer(&self, events: Events) -> Result<(), Full> {
        if !self.level.has_room(events.bytes) {
            self.level.starved.store(true, Ordering::SeqCst);
            // The stream may have taken the last message just before it could see the mark.
            if !self.level.has_room(events.bytes) {
                let is_empty = self.level.messages.load(Ordering::SeqCst) == 0;
                return Err(if is_empty { Full::Elsewhere } else { Full::Here });
            }
        }
        self.level.messages.fetch_add(1, Ordering::SeqCst);
        self.level.bytes.fetch_add(events.bytes, Ordering::SeqCst);
        if let Some(allowance) = &self.level.allowance {
            allowance.take(events.bytes);
        }
        stats::add(&self.level.stats.pending_events, events.count);
        stats::add(&self.level.stats.pending_messages, 1);
        stats::add(&self.level.stats.events_total, events.count);
        self.send(Delivery::Events(events));
        Ok(())
    }

    /// How many watchers the stream has now: the more there are, the more messages may wait.
    pub(super) fn set_watchers(&self, count: usize) {
        self.level.watchers.store(count, Ordering::SeqCst);
    }

    /// Whether a message of this size would fit.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.level.has_room(bytes)
    }

    /// The size for messages that are up to `limit` otherwise: smaller where not much may wait, so that they fit.
    pub(super) fn message_bytes(&self, limit: usize) -> usize {
        let bytes_max = self.level.bytes_max();
        if bytes_max < self.level.bounds.mailbox_bytes { limit.min((bytes_max / 2).max(1)) } else { limit }
    }

    /// Whether the stream has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn send(&self, delivery: Delivery) {
        if let Err(mpsc::error::SendError(delivery)) = self.sender.send(delivery) {
            // The stream has just ended; its signal is on its way.
            self.level.lost(&delivery);
        }
    }
}

impl Level {
    fn has_room(&self, bytes: usize) -> bool {
        let messages = self.messages.load(Ordering::SeqCst);
        let waiting = self.bytes.load(Ordering::SeqCst);
        // Wrong where it is broken: whoever is slow is sent everything nevertheless.
        (messages == 0 && self.is_allowed(bytes))
            || probe::broken("mailbox-without-bounds")
            || (messages < self.messages_max() && waiting + bytes <= self.bytes_max())
    }

    /// Whether the client may have another message for a stream that has none.
    fn is_allowed(&self, bytes: usize) -> bool {
        bytes <= self.bounds.mailbox_bytes_min || self.allowance.as_ref().is_none_or(|allowance| allowance.left() > 0)
    }

    /// How many messages with events may wait here.
    fn messages_max(&self) -> usize {
        let bounds = &self.bounds;
        bounds.mailbox_messages.max(bounds.mailbox_messages_per_watcher * self.watchers.load(Ordering::SeqCst))
    }

    /// What may wait here, with other streams of the client in mind.
    fn bytes_max(&self) -> usize {
        let bounds = &self.bounds;
        let part = self.allowance.as_ref().map_or(usize::MAX, Allowance::for_one_stream);
        part.max(bounds.mailbox_bytes_min).min(bounds.mailbox_bytes)
    }

    fn is_half_empty(&self) -> bool {
        self.messages.load(Ordering::SeqCst) <= self.messages_max() / 2
            && self.bytes.load(Ordering::SeqCst) <= self.bytes_max() / 2
    }

    /// Takes note that nobody will read a message.
    fn lost(&self, delivery: &Delivery) {
        if let (Some(allowance), Delivery::Events(events)) = (&self.allowance, delivery) {
            allowance.give_back(events.bytes);
        }
        self.taken(delivery);
    }

    /// Takes note that a message waits no more. Whoever took it has it of the client's allowance until it is put down.
    fn taken(&self, delivery: &Delivery) {
        match delivery {
            Delivery::Notice(_) => {
                self.notices.fetch_sub(1, Ordering::SeqCst);
            }
            Delivery::Events(events) => {
                // The bytes go first: `messages == 0` then means that none are left.
                self.bytes.fetch_sub(events.bytes, Ordering::SeqCst);
                self.messages.fetch_sub(1, Ordering::SeqCst);
                stats::subtract(&self.stats.pending_events, events.count);
                stats::subtract(&self.stats.pending_messages, 1);
            }
        }
    }
}

impl MailboxReader {
    /// Takes the next message; `None` once the hub has ended. Loses nothing when dropped.
    pub(super) async fn recv(&mut self) -> Option<Delivery> {
        self.put_down();
        let delivery = self.receiver.recv().await?;
        Some(self.pick_up(delivery))
    }

    /// Takes the next message if one waits.
    pub(super) fn try_recv(&mut self) -> Option<Delivery> {
        self.put_down();
        let delivery = self.receiver.try_recv().ok()?;
        Some(self.pick_up(delivery))
    }

    /// Whether few enough answers wait to ask for more of them.
    pub(super) fn takes_requests(&self) -> bool {
        self.level.notices.load(Ordering::SeqCst) < limits::WATCH_ANSWERS
    }

    fn pick_up(&mut self, delivery: Delivery) -> Delivery {
        self.level.taken(&delivery);
        if let Delivery::Events(events) = &delivery {
            self.in_hand = events.bytes;
        }
        // The mark is looked at first, as it is rarely there; whoever makes it looks for room again afterwards.
        let level = &self.level;
        if level.starved.load(Ordering::SeqCst) && level.is_half_empty() && level.starved.swap(false, Ordering::SeqCst)
        {
            self.signal(Signal::Drained(self.stream));
        }
        delivery
    }

    fn put_down(&mut self) {
        let bytes = std::mem::take(&mut self.in_hand);
        if let Some(allowance) = self.level.allowance.as_ref().filter(|_| bytes > 0) {
            allowance.give_back(bytes);
        }
    }

    fn signal(&self, signal: Signal) {
        if self.signals.send(signal).is_err() {
            tracing::debug!(stream = self.stream.0, "the watch hub has ended");
        }
    }
}

impl Drop for MailboxReader {
    fn drop(&mut self) {
        self.put_down();
        self.receiver.close();
        while let Ok(delivery) = self.receiver.try_recv() {
            self.level.lost(&delivery);
        }
        self.signal(Signal::Closed(self.stream));
    }
}
