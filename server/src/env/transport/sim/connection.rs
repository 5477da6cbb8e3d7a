//! One simulated connection: messages in order, each way, until it ends or breaks.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use http_body::Frame;
use http_body_util::BodyExt;
use madsim::net::{Receiver, Sender};
use madsim::task::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use super::link;

/// How long a connection lasts on which something was lost: until TCP's and HTTP/2's keep-alive of a real one find out.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Pieces of a body that travel in one message at most: the one of a small call, and its end.
const PIECES_MAX: usize = 2;

/// The first part of a request or a response.
#[derive(Clone)]
pub(super) enum Head {
    /// With the node that asks.
    Request(NodeId, http::request::Parts),
    Response(http::response::Parts),
}

/// A part of a body.
#[derive(Clone)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

/// What was ready to be sent at one time: a call that is small travels whole.
#[derive(Clone, Default)]
pub(super) struct Message {
    pub(super) head: Option<Head>,
    pub(super) pieces: VecDeque<Piece>,
    /// Nothing follows.
    pub(super) ends: bool,
    /// Does not arrive before this moment of the world.
    due: Option<Instant>,
    /// Its place in the window, until it was read.
    place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Message {
    /// How much data it has.
    fn bytes(&self) -> usize {
        let data = |piece: &Piece| if let Piece::Data(data) = piece { data.len() } else { 0 };
        self.pieces.iter().map(data).sum()
    }
}

/// What travels.
enum Wire {
    Message(Message),
    Reset,
}

/// The sending half of a connection, and whether the whole is broken.
pub(super) struct Line {
    sender: Sender,
    from: NodeId,
    /// Who is called knows it from the first message on.
    to: OnceLock<NodeId>,
    broken: AtomicBool,
    /// Whether what travels has checksums: a bit of it may turn over.
    may_be_damaged: AtomicBool,
    /// Whether what travels are commands that are passed on.
    forwards: AtomicBool,
    /// Whether something was too large to arrive: nothing that is sent after it does.
    is_stuck: AtomicBool,
    /// Who reads the other half.
    reader: AtomicWaker,
    window: Arc<Semaphore>,
}

impl Line {
    pub(super) fn new(sender: Sender, from: NodeId) -> Arc<Self> {
        Arc::new(Self {
            sender,
            from,
            to: OnceLock::new(),
            broken: AtomicBool::new(false),
            may_be_damaged: AtomicBool::new(false),
            forwards: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            window: Arc::new(Semaphore::new(link::window())),
        })
    }

    /// Notes who is at the other end, once that is known.
    pub(super) fn leads_to(&self, node: NodeId) {
        // It never changes.
        self.to.set(node).ok();
    }

    /// Notes that what travels has checksums.
    pub(super) fn has_checksums(&self) {
        self.may_be_damaged.store(true, Ordering::Relaxed);
    }

    /// Notes that what travels are commands that are passed on.
    pub(super) fn forwards(&self) {
        self.forwards.store(true, Ordering::Relaxed);
    }

    fn conditions<T>(&self, look: impl FnOnce(&link::LinkConditions) -> T) -> Option<T> {
        link::on_link(self.from, *self.to.get()?, look)
    }

    /// Waits for a place in the window.
    async fn place(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        self.window.clone().acquire_owned().await.ok().map(Arc::new)
    }

    pub(super) async fn send(&self, mut message: Message) -> io::Result<()> {
        if message.place.is_none() {
            message.place = self.place().await;
        }
        let may_be_damaged = self.may_be_damaged.load(Ordering::Relaxed);
        let forwards = self.forwards.load(Ordering::Relaxed);
        let fate = self.conditions(|conditions| {
            message.due = conditions.delay.as_ref().map(|delay| Instant::now() + link::draw(delay));
            let reset = link::happens(conditions.reset);
            let flip = may_be_damaged && link::happens(conditions.flip);
            let too_large = conditions.largest.is_some_and(|largest| message.bytes() > largest);
            (reset, flip || (forwards && link::happens(conditions.flip_forwarded)), too_large)
        });
        let (reset, flip, too_large) = fate.unwrap_or_default();
        if too_large || self.is_stuck.load(Ordering::Relaxed) {
            self.is_stuck.store(true, Ordering::Relaxed);
            // As who waits for an answer to its keep-alive.
            madsim::time::sleep(KEEP_ALIVE).await;
            self.break_off();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if flip {
            turn_a_bit(&mut message.pieces);
        }
        if reset {
            // Whoever is at the other end learns of it when the message would have arrived.
            self.sender.send(Box::new(Wire::Reset)).await.ok();
            self.break_off();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.sender.send(Box::new(Wire::Message(message))).await
    }

    /// Whether a repeatable request is to arrive twice.
    pub(super) fn duplicates(&self) -> bool {
        self.conditions(|conditions| link::happens(conditions.duplicate)).unwrap_or(false)
    }

    /// Resolves when the other end is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
        self.reader.wake();
    }
}

/// The receiving half of a connection.
pub(super) struct Reader {
    receiver: Receiver,
    line: Arc<Line>,
    /// A message that is not due yet; those behind it wait too.
    held: Option<(Message, madsim::time::Sleep)>,
}

impl Reader {
    pub(super) fn new(receiver: Receiver, line: Arc<Line>) -> Self {
        Self { receiver, line, held: None }
    }

    /// The next message; `None` when the connection is gone.
    pub(super) async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.line.reader.register(context.waker());
        if self.line.broken.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        if self.held.is_none() {
            let Some(Ok(payload)) = ready!(self.receiver.poll_next_unpin(context)) else {
                return Poll::Ready(None);
            };
            match payload.downcast::<Wire>().map(|wire| *wire) {
                Ok(Wire::Message(message)) => match message.due {
                    Some(due) if due > Instant::now() => {
                        self.held = Some((message, madsim::time::sleep_until(due)));
                    }
                    _ => return Poll::Ready(Some(message)),
                },
                Ok(Wire::Reset) | Err(_) => {
                    self.line.break_off();
                    return Poll::Ready(None);
                }
            }
        }
        if let Some((_, sleep)) = &mut self.held {
            ready!(sleep.poll_unpin(context));
        }
        Poll::Ready(self.held.take().map(|(message, _)| message))
    }
}

/// Takes from a body what is ready, into a message that begins with a head.
pub(super) fn begin<B>(head: Head, body: &mut B) -> Message
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut message = Message { head: Some(head), ..Message::default() };
    take_ready(body, &mut message);
    message
}

/// Copies the rest of a body to the other side.
pub(super) async fn copy_rest<B>(mut body: B, line: Arc<Line>) -> io::Result<()>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    loop {
        // What comes next is made when there is room for it, and not before.
        let mut message = Message { place: line.place().await, ..Message::default() };
        match body.frame().await {
            Some(Ok(frame)) => message.pieces.extend(piece(frame)),
            Some(Err(_)) => return Ok(()), // dropped without an end: the reader sees a reset
            None => message.ends = true,
        }
        if !message.ends {
            take_ready(&mut body, &mut message);
        }
        let ends = message.ends;
        line.send(message).await?;
        if ends {
            return Ok(());
        }
    }
}

fn take_ready<B>(body: &mut B, message: &mut Message)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    while message.pieces.len() < PIECES_MAX {
        match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => message.pieces.extend(piece(frame)),
            Some(None) => {
                message.ends = true;
                return;
            }
            // An error is found again by who copies the rest.
            Some(Some(Err(_))) | None => return,
        }
    }
}

/// Turns over one bit of the data.
fn turn_a_bit(pieces: &mut VecDeque<Piece>) {
    for piece in pieces {
        if let Piece::Data(data) = piece
            && !data.is_empty()
        {
            let mut bytes = data.to_vec();
            let bit = link::one_of(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            *data = bytes.into();
            return;
        }
    }
}

fn piece(frame: Frame<Bytes>) -> Option<Piece> {
    match frame.into_data() {
        Ok(data) => Some(Piece::Data(data)),
        Err(frame) => frame.into_trailers().ok().map(Piece::Trailers),
    }
}

/// A body that arrives. It holds the sending half too: dropping it closes both.
pub(super) struct Incoming {
    reader: Reader,
    pieces: VecDeque<Piece>,
    ends: bool,
    /// The window's place of what is being read.
    place: Option<Arc<OwnedSemaphorePermit>>,
    /// Who copies the other way, for the side that asks.
    _copying: Option<super::AbortOnDrop>,
}

impl Incoming {
    /// The body behind a first message.
    pub(super) fn new(first: Message, reader: Reader, copying: Option<super::AbortOnDrop>) -> Self {
        Self { reader, pieces: first.pieces, ends: first.ends, place: first.place, _copying: copying }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(match piece {
                    Piece::Data(data) => Frame::data(data),
                    Piece::Trailers(trailers) => Frame::trailers(trailers),
                })));
            }
            self.place = None;
            if self.ends {
                return Poll::Ready(None);
            }
            match ready!(self.reader.poll_next(context)) {
                Some(message) => {
                    self.pieces = message.pieces;
                    self.ends = message.ends;
                    self.place = message.place;
                }
                None => {
                    self.ends = true;
                    return Poll::Ready(Some(Err(Status::unavailable("connection reset"))));
                }
            }
        }
    }
}
