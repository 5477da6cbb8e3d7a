//! What one request has taken of the pools, until it is over and its answer has left.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;
use tokio::sync::OwnedSemaphorePermit;

use super::Identity;
use super::gate::{Entering, Inner, Pool, Refused, Traffic};
use crate::env::blocking;
use crate::limits;

/// Pieces of an answer below this size are not worth an entry of their own.
const CARRIED_MIN: usize = 4096;

/// What a request holds. Clones are the same; the last one gives everything back. Without a gate it is nothing, and
/// may be as much as it likes.
#[derive(Clone, Default)]
pub struct Hold {
    holding: Option<Arc<Holding>>,
    /// So many times less than usual what is read is in memory.
    spared: u64,
}

struct Holding {
    gate: Arc<Inner>,
    who: Arc<Identity>,
    traffic: Traffic,
    /// How often what is read is in memory until it has left, where that is made as a whole.
    copies: u64,
    /// For the request itself, by pool.
    ordinary: AtomicU64,
    reserve: AtomicU64,
    /// For the message of a stream that was read last; of the pool.
    message: AtomicU64,
    /// For the answer, as far as it is known; of the pool.
    answer: AtomicU64,
}

impl Hold {
    pub(super) fn new(gate: Arc<Inner>, who: Arc<Identity>, traffic: Traffic, copies: u64) -> Self {
        let [ordinary, reserve, message, answer] = [(); 4].map(|()| AtomicU64::new(0));
        let holding = Holding { gate, who, traffic, copies, ordinary, reserve, message, answer };
        Self { holding: Some(Arc::new(holding)), spared: 0 }
    }

    /// That of a request with these extensions.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Who asks, where that matters.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.holding.as_ref().map(|holding| &holding.who)
    }

    /// Whether it is worth a look at what an answer is going to take, though that costs.
    pub fn is_strict(&self) -> bool {
        self.holding.as_ref().is_some_and(|holding| holding.gate.is_strict())
    }

    /// Whether anybody counts.
    pub fn counts(&self) -> bool {
        self.holding.is_some()
    }

    /// Takes something for the request itself, or says what it has to wait for.
    ///
    /// # Errors
    /// When it would never fit.
    pub(super) fn charge(&self, bytes: u64) -> Result<Option<Entering>, Refused> {
        let Some(holding) = self.holding.as_ref().filter(|_| bytes > 0) else { return Ok(None) };
        if let Some(pool) = holding.gate.take_now(holding.traffic, &holding.who, bytes) {
            let purpose = if pool == Pool::Ordinary { &holding.ordinary } else { &holding.reserve };
            purpose.fetch_add(bytes, Ordering::Relaxed);
            return Ok(None);
        }
        let pool = holding.traffic.pool();
        if bytes > holding.gate.most(pool) {
            return Err(holding.gate.refuse());
        }
        let purpose: Purpose = match pool {
            Pool::Ordinary => Holding::ordinary,
            Pool::Reserve => Holding::reserve,
        };
        Ok(Some(entering(holding.clone(), pool, bytes, purpose)))
    }

    /// Takes something for a message of the request that begins to come in. In a stream it takes the place of the
    /// message before.
    ///
    /// # Errors
    /// When it would never fit.
    pub fn message(&self, len: usize, is_stream: bool) -> Result<Option<Entering>, Refused> {
        let bytes = limits::WRITE_COPIES * len as u64;
        if !is_stream {
            return if bytes <= limits::MESSAGE_FREE_BYTES { Ok(None) } else { self.charge(bytes) };
        }
        let Some(holding) = &self.holding else { return Ok(None) };
        holding.release(&holding.message);
        if bytes <= limits::MESSAGE_FREE_BYTES {
            return Ok(None);
        }
        if holding.gate.take_now(Traffic::Ordinary, &holding.who, bytes).is_some() {
            holding.message.fetch_add(bytes, Ordering::Relaxed);
            return Ok(None);
        }
        if bytes > holding.gate.most(Pool::Ordinary) {
            return Err(holding.gate.refuse());
        }
        Ok(Some(entering(holding.clone(), Pool::Ordinary, bytes, Holding::message)))
    }

    /// The same hold, for an answer that is made piece by piece of what is read, while it leaves: that is in memory once
    /// less.
    #[must_use]
    pub fn in_pieces(&self) -> Self {
        Self { spared: 1, ..self.clone() }
    }

    /// Lets the answer grow to so many bytes of what was read; `false` where there is no room.
    pub fn reads(&self, bytes: u64) -> bool {
        let Some(holding) = &self.holding else { return true };
        self.answer_of(self.copies(holding).saturating_mul(bytes))
    }

    /// How often what is read is in memory until it has left.
    fn copies(&self, holding: &Holding) -> u64 {
        holding.copies.saturating_sub(self.spared)
    }

    /// Lets the answer take so many bytes in all; `false` where there is no room.
    pub fn answer_of(&self, bytes: u64) -> bool {
        let Some(holding) = &self.holding else { return true };
        let more = bytes.saturating_sub(holding.answer.load(Ordering::Relaxed));
        let fits = more == 0 || holding.gate.grow(&holding.who, more);
        if fits {
            holding.answer.fetch_add(more, Ordering::Relaxed);
        }
        fits
    }

    /// Forgets the answer, as far as it has not left.
    pub fn forget_answer(&self) {
        if let Some(holding) = &self.holding {
            holding.release(&holding.answer);
        }
    }

    /// Waits for room for so many bytes of what is read, for an answer that has to begin anew because there was none.
    ///
    /// # Errors
    /// When there is none in time, or never.
    pub async fn make_room(&self, bytes: u64) -> Result<(), Refused> {
        let Some(holding) = &self.holding else { return Ok(()) };
        holding.release(&holding.answer);
        let bytes = self.copies(holding).saturating_mul(bytes);
        if bytes > holding.gate.most(Pool::Ordinary) {
            return Err(holding.gate.refuse());
        }
        holding.take_for_answer(bytes, Some(limits::ADMISSION_WAIT)).await
    }

    /// Waits, for as long as it takes, until there is room for a piece of an answer that goes on as its client reads.
    /// One that is larger than half of the pool is taken for as large.
    pub async fn wait_for(&self, bytes: u64) {
        let Some(holding) = &self.holding else { return };
        let bytes = bytes.min(holding.gate.most(Pool::Ordinary) / 2);
        // Without a limit it is never refused.
        holding.take_for_answer(bytes, None).await.ok();
    }

    /// Takes something that may outlive the request; `None` where there is no room.
    pub fn part(&self, bytes: u64) -> Option<Part> {
        let Some(holding) = &self.holding else { return Some(Part::default()) };
        if holding.gate.take_now(Traffic::Ordinary, &holding.who, bytes).is_none() {
            holding.gate.refuse();
            return None;
        }
        Some(Part { of: Some((holding.gate.clone(), holding.who.clone())), bytes })
    }

    /// Waits for a turn to read for long, in the order in which they come. Who has one waits for no room, so that it ends.
    pub async fn turn(&self) -> Turn {
        match self.holding.as_ref().and_then(|holding| holding.gate.turns()) {
            // It is never closed.
            Some(turns) => Turn { _permit: turns.acquire_owned().await.ok() },
            None => Turn::default(),
        }
    }

    /// Lets a piece of the answer take along what was taken for it: it is given back when the piece has left, which is
    /// later than when the answer is made.
    pub fn carry(&self, piece: Bytes) -> Bytes {
        let Some(holding) = self.holding.as_ref().filter(|_| piece.len() >= CARRIED_MIN) else { return piece };
        let bytes = holding.take_out_of_answer(piece.len() as u64);
        if bytes == 0 {
            return piece;
        }
        let part = Part { of: Some((holding.gate.clone(), holding.who.clone())), bytes };
        Bytes::from_owner(Carried { piece, _part: part })
    }
}

/// One of the purposes for which a request holds something.
type Purpose = fn(&Holding) -> &AtomicU64;

/// Takes something for a purpose as soon as there is room.
fn entering(holding: Arc<Holding>, pool: Pool, bytes: u64, purpose: Purpose) -> Entering {
    Box::pin(async move {
        holding.gate.take(pool, &holding.who, bytes, Some(limits::ADMISSION_WAIT)).await?;
        purpose(&holding).fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    })
}

impl Holding {
    fn ordinary(&self) -> &AtomicU64 {
        &self.ordinary
    }

    fn reserve(&self) -> &AtomicU64 {
        &self.reserve
    }

    fn message(&self) -> &AtomicU64 {
        &self.message
    }

    /// Takes so much, or as much as there is, out of what is held for the answer.
    fn take_out_of_answer(&self, wanted: u64) -> u64 {
        let mut held = self.answer.load(Ordering::Relaxed);
        loop {
            let left = held.saturating_sub(wanted);
            match self.answer.compare_exchange_weak(held, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return held - left,
                Err(now) => held = now,
            }
        }
    }

    async fn take_for_answer(&self, bytes: u64, limit: Option<Duration>) -> Result<(), Refused> {
        if bytes > 0 {
            self.gate.take(Pool::Ordinary, &self.who, bytes, limit).await?;
            self.answer.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives back what was taken of the pool for one purpose.
    fn release(&self, purpose: &AtomicU64) {
        self.gate.give_back(Pool::Ordinary, &self.who, purpose.swap(0, Ordering::Relaxed));
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let held = [&self.ordinary, &self.message, &self.answer].map(|bytes| bytes.load(Ordering::Relaxed));
        self.gate.give_back(Pool::Ordinary, &self.who, held.iter().sum());
        self.gate.give_back(Pool::Reserve, &self.who, self.reserve.load(Ordering::Relaxed));
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.identity()).finish()
    }
}

/// Something that was taken of the pool and is given back by itself.
#[derive(Default)]
pub struct Part {
    of: Option<(Arc<Inner>, Arc<Identity>)>,
    bytes: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some((gate, who)) = &self.of {
            gate.give_back(Pool::Ordinary, who, self.bytes);
        }
    }
}

/// A turn to read for long: what that takes besides what is read is counted by their number.
#[derive(Debug, Default)]
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Reads on a thread that nobody else waits for. The turn is over when that is done, which may be later than when its
    /// request has gone.
    pub async fn aside<T: Send + 'static>(self, read: impl FnOnce() -> T + Send + 'static) -> T {
        blocking(move || {
            let _turn = self;
            read()
        })
        .await
    }
}

/// A piece of an answer with what was taken for it.
struct Carried {
    piece: Bytes,
    _part: Part,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}
