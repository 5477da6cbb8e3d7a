//! The pools of one member, and the way in: who finds no room waits here.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::sync::{Semaphore, oneshot};

use super::hold::Hold;
use super::ledger::{Ledger, Ticket};
use super::memory::Pressure;
use super::{Identity, Origin};
use crate::env::{clock, probe};
use crate::limits;
use crate::metrics::Metrics;

/// What a request is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Work: takes of the pool, and is refused first.
    Ordinary,
    /// Makes room: finds some where there is none for ordinary requests, but can wait while the server is overloaded.
    Relief,
    /// Keeps the cluster and its leases alive, or is how an operator sees and ends what is wrong: always goes on.
    Control,
}

/// There is no room, or no time, for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests")]
pub struct Refused;

/// Waits until there is room.
pub type Entering = Pin<Box<dyn Future<Output = Result<(), Refused>> + Send>>;

/// How large the pools are.
#[derive(Clone, Copy, Debug)]
pub struct GateOptions {
    /// Bytes for ordinary requests.
    pub pool: u64,
    /// Bytes for all others, before they take of the pool.
    pub reserve: u64,
    /// Where the sum is a promise, so that it is worth a look at what an answer is going to take: how many reads may go on
    /// aside at once.
    pub long_reads: Option<usize>,
}

/// How full the pools are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateNumbers {
    /// Bytes taken of the pool.
    pub held: u64,
    /// Bytes of the pool as it is now.
    pub pool: u64,
    /// Bytes taken of the reserve.
    pub reserve_held: u64,
    /// Requests that wait.
    pub waiting: u64,
}

/// The way in for requests. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<Inner>>);

pub(super) struct Inner {
    /// A leaf lock, held for a look into the books.
    desks: Mutex<Desks>,
    is_overloaded: AtomicBool,
    pressure: AtomicU8,
    options: GateOptions,
    /// Turns to read for long.
    turns: Option<Arc<Semaphore>>,
    refused: Refusals,
}

/// Counters, looked up once.
struct Refusals {
    room: IntCounter,
    overload: IntCounter,
    memory: IntCounter,
}

struct Desks {
    ordinary: Desk,
    reserve: Desk,
}

struct Desk {
    ledger: Ledger,
    waiters: BTreeMap<Ticket, oneshot::Sender<()>>,
}

/// Of what something was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Ordinary,
    Reserve,
}

impl Gate {
    /// A gate with pools of this size.
    pub fn new(options: GateOptions, metrics: &Metrics) -> Self {
        let desk = |bytes| Desk { ledger: Ledger::new(bytes), waiters: BTreeMap::new() };
        let refused = |reason: &str| metrics.server.requests_refused.with_label_values(&[reason]);
        Self(Some(Arc::new(Inner {
            desks: Mutex::new(Desks { ordinary: desk(options.pool), reserve: desk(options.reserve) }),
            is_overloaded: AtomicBool::new(false),
            pressure: AtomicU8::new(Pressure::None as u8),
            options,
            turns: options.long_reads.map(|turns| Arc::new(Semaphore::new(turns))),
            refused: Refusals { room: refused("room"), overload: refused("overload"), memory: refused("memory") },
        })))
    }

    /// A gate that lets everything through: `--admission=false`.
    pub fn open() -> Self {
        Self(None)
    }

    /// Lets a request in, or says what it has to wait for first. It holds `bytes` from then on.
    ///
    /// # Errors
    /// When there is no time for it, or it would never fit.
    pub fn enter(&self, traffic: Traffic, origin: &Origin, bytes: u64) -> Result<(Hold, Option<Entering>), Refused> {
        let Some(inner) = &self.0 else { return Ok((Hold::default(), None)) };
        if traffic != Traffic::Control && inner.is_overloaded.load(Ordering::Relaxed) {
            inner.refused.overload.inc();
            return Err(Refused);
        }
        let copies = if origin.is_json { limits::JSON_COPIES } else { limits::READ_COPIES };
        let hold = Hold::new(inner.clone(), origin.caller.clone(), traffic, copies);
        let entering = hold.charge(bytes)?;
        Ok((hold, entering))
    }

    /// Lets a request in that does not wait.
    ///
    /// # Errors
    /// When there is no room or no time for it.
    pub fn enter_now(&self, traffic: Traffic, origin: &Origin, bytes: u64) -> Result<Hold, Refused> {
        match self.enter(traffic, origin, bytes)? {
            (hold, None) => Ok(hold),
            (_, Some(_)) => {
                if let Some(inner) = &self.0 {
                    inner.refused.room.inc();
                }
                Err(Refused)
            }
        }
    }

    /// Tells whether the server is too late with what it has to do.
    pub(super) fn set_overloaded(&self, is_overloaded: bool) {
        if let Some(inner) = &self.0 {
            inner.is_overloaded.store(is_overloaded, Ordering::Relaxed);
        }
    }

    /// Tells how much memory is left, and how large the pool may be therefore.
    pub(super) fn set_pressure(&self, pressure: Pressure, pool: u64) {
        let Some(inner) = &self.0 else { return };
        inner.pressure.store(pressure as u8, Ordering::Relaxed);
        let woken = {
            let mut desks = inner.desks.lock();
            desks.ordinary.ledger.set_capacity(pool.min(inner.options.pool));
            desks.ordinary.grant()
        };
        wake(woken);
    }

    /// Refuses what makes the store larger where there is no memory for it.
    ///
    /// # Errors
    /// When there is none.
    pub fn lets_grow(&self, grows: impl FnOnce() -> bool) -> Result<(), Refused> {
        self.within(Pressure::High, grows)
    }

    /// The same for leases, which go on for longer: they are small, and clients live by them.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn lets_grant(&self) -> Result<(), Refused> {
        self.within(Pressure::Highest, || true)
    }

    fn within(&self, limit: Pressure, grows: impl FnOnce() -> bool) -> Result<(), Refused> {
        let Some(inner) = &self.0 else { return Ok(()) };
        if inner.pressure.load(Ordering::Relaxed) < limit as u8 || !grows() {
            return Ok(());
        }
        inner.refused.memory.inc();
        Err(Refused)
    }

    /// How full it is.
    pub fn numbers(&self) -> GateNumbers {
        let Some(inner) = &self.0 else { return GateNumbers::default() };
        let desks = inner.desks.lock();
        let Desks { ordinary, reserve } = &*desks;
        GateNumbers {
            held: ordinary.ledger.held(),
            pool: ordinary.ledger.capacity(),
            reserve_held: reserve.ledger.held(),
            waiting: (ordinary.ledger.waiting() + reserve.ledger.waiting()) as u64,
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.0.as_ref().map(|inner| inner.options)).finish()
    }
}

impl Traffic {
    /// The pools that it may take of, in this order.
    fn pools(self) -> &'static [Pool] {
        match self {
            Traffic::Ordinary => &[Pool::Ordinary],
            Traffic::Relief | Traffic::Control => &[Pool::Reserve, Pool::Ordinary],
        }
    }

    /// The pool that it waits for.
    pub(super) fn pool(self) -> Pool {
        self.pools()[0]
    }
}

impl Inner {
    pub(super) fn is_strict(&self) -> bool {
        self.turns.is_some()
    }

    pub(super) fn turns(&self) -> Option<Arc<Semaphore>> {
        self.turns.clone()
    }

    /// Takes something at once, of the first pool that has room.
    pub(super) fn take_now(&self, traffic: Traffic, who: &Arc<Identity>, bytes: u64) -> Option<Pool> {
        let mut desks = self.desks.lock();
        traffic.pools().iter().copied().find(|pool| desks.desk(*pool).ledger.take(who, bytes))
    }

    /// Takes some more for what is under way.
    pub(super) fn grow(&self, who: &Arc<Identity>, bytes: u64) -> bool {
        self.desks.lock().ordinary.ledger.grow(who, bytes)
    }

    /// The most that anybody ever gets of a pool.
    pub(super) fn most(&self, pool: Pool) -> u64 {
        self.desks.lock().desk(pool).ledger.most()
    }

    /// Counts a request that finds no room.
    pub(super) fn refuse(&self) -> Refused {
        probe::reached("request-refused-for-room");
        self.refused.room.inc();
        Refused
    }

    /// Takes something of a pool as soon as there is room, for as long as the limit says. Whoever goes away while it
    /// waits has taken nothing.
    pub(super) async fn take(
        &self,
        pool: Pool,
        who: &Arc<Identity>,
        bytes: u64,
        limit: Option<Duration>,
    ) -> Result<(), Refused> {
        let (ticket, granted) = {
            let mut desks = self.desks.lock();
            let desk = desks.desk(pool);
            if desk.ledger.take(who, bytes) {
                return Ok(());
            }
            let (sender, granted) = oneshot::channel();
            let ticket = desk.ledger.queue(who, bytes);
            desk.waiters.insert(ticket, sender);
            (ticket, granted)
        };
        probe::reached("request-waited-for-room");
        let mut queued = Queued { inner: self, pool, who, bytes, ticket, is_over: false };
        match limit {
            // Whether it was granted in the last moment the books know.
            Some(limit) => drop(clock::timeout(limit, granted).await),
            None => drop(granted.await),
        }
        if queued.leave() { Ok(()) } else { Err(self.refuse()) }
    }

    /// Gives back what was taken, to whoever waits for it.
    pub(super) fn give_back(&self, pool: Pool, who: &Identity, bytes: u64) {
        // Wrong where it is broken: what requests took is never there again.
        if bytes == 0 || probe::broken("admission-never-released") {
            return;
        }
        let woken = {
            let mut desks = self.desks.lock();
            let desk = desks.desk(pool);
            desk.ledger.give_back(who, bytes);
            desk.grant()
        };
        wake(woken);
    }
}

impl Desks {
    fn desk(&mut self, pool: Pool) -> &mut Desk {
        match pool {
            Pool::Ordinary => &mut self.ordinary,
            Pool::Reserve => &mut self.reserve,
        }
    }
}

impl Desk {
    /// Gives to those who wait; whom to wake.
    fn grant(&mut self) -> Vec<oneshot::Sender<()>> {
        let tickets = self.ledger.grant();
        tickets.into_iter().filter_map(|ticket| self.waiters.remove(&ticket)).collect()
    }
}

/// Outside of the lock: who is woken may look into the books at once.
fn wake(waiters: Vec<oneshot::Sender<()>>) {
    for waiter in waiters {
        // Who went away in this moment gives back what it got.
        waiter.send(()).ok();
    }
}

/// Somebody in the queue.
struct Queued<'a> {
    inner: &'a Inner,
    pool: Pool,
    who: &'a Arc<Identity>,
    bytes: u64,
    ticket: Ticket,
    is_over: bool,
}

impl Queued<'_> {
    /// Leaves the queue; whether it got what it waited for.
    fn leave(&mut self) -> bool {
        self.is_over = true;
        let woken = {
            let mut desks = self.inner.desks.lock();
            let desk = desks.desk(self.pool);
            desk.waiters.remove(&self.ticket);
            if !desk.ledger.give_up(self.who, self.ticket) {
                return true;
            }
            // Others may have waited behind it.
            desk.grant()
        };
        wake(woken);
        false
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.leave() {
            self.inner.give_back(self.pool, self.who, self.bytes);
        }
    }
}
