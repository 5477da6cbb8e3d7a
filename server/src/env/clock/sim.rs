//! Clocks that differ: one for each simulated node, over the one time of the world.
//!
//! A node's clock shows `shown + (world - since) * rate`. It starts with the world's time at rate 1;
//! changing the rate or jumping moves that anchor, never the clock backwards. It survives the node's
//! restart, as a machine's clock survives a process.
//!
//! Timers are the world's. A sleeper sets one for the moment at which its clock will show the
//! deadline as things stand; when its clock is changed it is woken, looks again, and sets another.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use madsim::task::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

thread_local! {
    // A simulation has one thread; tests that run beside each other have one each.
    static CLOCKS: RefCell<BTreeMap<NodeId, NodeClock>> = const { RefCell::new(BTreeMap::new()) };
    /// Whether any clock was ever changed: before that, each shows the world's time.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Registered sleepers before the first search for those that are gone.
const SLEEPERS_BEFORE_SEARCH: usize = 256;

struct NodeClock {
    /// The moment of the world from which on the rate holds, and what the clock showed then.
    since: Instant,
    shown: Instant,
    rate: f64,
    sleepers: Vec<Weak<Sleeper>>,
    /// Size at which the list is next searched for sleepers that are gone.
    search_at: usize,
}

impl NodeClock {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, shown: now, rate: 1.0, sleepers: Vec::new(), search_at: SLEEPERS_BEFORE_SEARCH }
    }

    fn is_plain(&self) -> bool {
        self.rate == 1.0 && self.since == self.shown
    }

    /// What the clock shows at a moment of the world.
    fn at(&self, world: Instant) -> Instant {
        if self.is_plain() {
            return world;
        }
        self.shown + world.saturating_duration_since(self.since).mul_f64(self.rate)
    }

    /// The moment of the world at which the clock will show this, as things stand.
    fn when(&self, shown: Instant) -> Instant {
        if self.is_plain() {
            return shown;
        }
        // Rounded up: a timer must not fire before its deadline is shown.
        let left = shown.saturating_duration_since(self.shown).div_f64(self.rate);
        self.since + left + Duration::from_nanos(1)
    }

    /// Moves the anchor to the present moment and hands over who has to look again.
    fn change(&mut self, act: impl FnOnce(&mut Self)) -> Vec<Arc<Sleeper>> {
        let world = Instant::now();
        self.shown = self.at(world);
        self.since = world;
        act(self);
        CHANGED.set(true);
        self.sleepers.retain(|sleeper| sleeper.strong_count() > 0);
        self.sleepers.iter().filter_map(Weak::upgrade).collect()
    }

    fn register(&mut self, sleeper: &Arc<Sleeper>) {
        if self.sleepers.len() >= self.search_at {
            self.sleepers.retain(|sleeper| sleeper.strong_count() > 0);
            self.search_at = SLEEPERS_BEFORE_SEARCH.max(2 * self.sleepers.len());
        }
        self.sleepers.push(Arc::downgrade(sleeper));
    }
}

fn with_clock<T>(node: NodeId, act: impl FnOnce(&mut NodeClock) -> T) -> T {
    CLOCKS.with_borrow_mut(|clocks| act(clocks.entry(node).or_insert_with(NodeClock::new)))
}

fn change(node: NodeId, act: impl FnOnce(&mut NodeClock)) {
    // Outside of the borrow: who is woken may drop other sleepers.
    for sleeper in with_clock(node, |clock| clock.change(act)) {
        sleeper.look_again();
    }
}

/// Lets a node's clock run `rate` times as fast as the world, from now on.
///
/// # Panics
/// When the rate is not a positive number: no clock runs backwards or stands still.
pub fn set_rate(node: NodeId, rate: f64) {
    assert!(rate.is_finite() && rate > 0.0, "a clock's rate is a positive number, not {rate}");
    change(node, |clock| clock.rate = rate);
}

/// Moves a node's clock forward at once.
pub fn jump(node: NodeId, forward: Duration) {
    change(node, |clock| clock.shown += forward);
}

/// Makes every clock show the world's time again, as at the beginning of a simulation.
///
/// For the start of another simulation on the same thread; within one, clocks would go backwards.
pub fn reset() {
    CLOCKS.with_borrow_mut(BTreeMap::clear);
    CHANGED.set(false);
}

/// The present moment on the clock of the node whose task this is.
#[inline]
pub fn now() -> Instant {
    let world = Instant::now();
    if CHANGED.get() { with_clock(madsim::plugin::node(), |clock| clock.at(world)) } else { world }
}

/// Waits for a time on the clock of the node whose task this is.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Waits until the clock of the node whose task this is shows a moment.
pub fn sleep_until(deadline: Instant) -> Sleep {
    let node = madsim::plugin::node();
    // As in tokio, whose timers know whole milliseconds: without it a loop of short sleeps would
    // keep the simulated world at one moment.
    let least = with_clock(node, |clock| clock.at(Instant::now() + Duration::from_millis(1)));
    Sleep { node, deadline: deadline.max(least), sleeper: None }
}

/// Runs a future for no longer than a time on the clock of the node whose task this is.
///
/// # Errors
/// When the time ran out first.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(move |context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(context).map(|()| Err(Elapsed))
    })
    .await
}

/// The time ran out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

/// A wait for a moment on a node's clock.
#[must_use = "futures do nothing unless they are polled"]
pub struct Sleep {
    node: NodeId,
    deadline: Instant,
    /// `None` before the first poll.
    sleeper: Option<Arc<Sleeper>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (node, deadline) = (self.node, self.deadline);
        let world = Instant::now();
        let Some(wake_at) = with_clock(node, |clock| (clock.at(world) < deadline).then(|| clock.when(deadline))) else {
            return Poll::Ready(());
        };
        let sleeper = self.sleeper.get_or_insert_with(|| {
            let sleeper = Arc::new(Sleeper::default());
            with_clock(node, |clock| clock.register(&sleeper));
            sleeper
        });
        if sleeper.needs_timer(context.waker(), wake_at) {
            // The world's own sleep sets a timer with every poll and never takes one back; this
            // one is polled once, with a waker that outlives neither the wait nor its task.
            let mut timer = madsim::time::sleep_until(wake_at);
            if Pin::new(&mut timer).poll(&mut Context::from_waker(&Waker::from(sleeper.clone()))).is_ready() {
                sleeper.look_again();
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(sleeper) = &self.sleeper {
            sleeper.state.lock().task = None;
        }
    }
}

/// What a timer and a changed clock wake.
#[derive(Default)]
struct Sleeper {
    state: Mutex<SleeperState>,
}

#[derive(Default)]
struct SleeperState {
    task: Option<Waker>,
    /// The earliest timer that is set.
    timer: Option<Instant>,
}

impl Sleeper {
    /// Notes who sleeps; whether a timer for this moment is to be set.
    fn needs_timer(&self, task: &Waker, wake_at: Instant) -> bool {
        let mut state = self.state.lock();
        match &mut state.task {
            Some(known) => known.clone_from(task),
            unknown => *unknown = Some(task.clone()),
        }
        let needed = state.timer.is_none_or(|timer| wake_at < timer);
        if needed {
            state.timer = Some(wake_at);
        }
        needed
    }

    fn look_again(&self) {
        let task = self.state.lock().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.state.lock().timer = None;
        self.look_again();
    }
}
