//! How far this member has applied the log, and who waits until it is somewhere.
//!
//! Whoever waits knows the entry that it waits for, and is woken when that one is applied. A watch channel would wake all
//! of them with each run, to look and to wait again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The state machine's end: tells how far it is. When it is gone nobody waits any more.
pub(crate) struct Progress(Arc<Shared>);

/// The end of those who look, and wait.
#[derive(Clone)]
pub(crate) struct ProgressView(Arc<Shared>);

/// The state machine is gone: it gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

#[derive(Default)]
struct Shared {
    applied: AtomicU64,
    /// A leaf lock.
    waiters: Mutex<Waiters>,
}

/// The entry that is waited for, and a number of its own for each who waits.
type Ticket = (u64, u64);

#[derive(Default)]
struct Waiters {
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    last: u64,
    has_ended: bool,
}

impl Progress {
    pub(crate) fn new() -> (Self, ProgressView) {
        let shared = Arc::<Shared>::default();
        (Self(shared.clone()), ProgressView(shared))
    }

    /// Readers see everything up to this entry.
    pub(crate) fn is_at(&self, index: u64) {
        let there = {
            let mut waiters = self.0.waiters.lock();
            // Within the lock: who looks and finds too little is among those who wait before the next look here.
            self.0.applied.store(index, Ordering::Release);
            let beyond = waiters.waiting.split_off(&(index.saturating_add(1), 0));
            std::mem::replace(&mut waiters.waiting, beyond)
        };
        for waiter in there.into_values() {
            // Who gave up in this moment needs it no more.
            waiter.send(()).ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let waiting = {
            let mut waiters = self.0.waiters.lock();
            waiters.has_ended = true;
            std::mem::take(&mut waiters.waiting)
        };
        drop(waiting);
    }
}

impl ProgressView {
    /// Index of the last entry that readers can see.
    pub(crate) fn now(&self) -> u64 {
        self.0.applied.load(Ordering::Acquire)
    }

    /// Waits until readers can see an entry.
    ///
    /// # Errors
    /// When that will never be.
    pub(crate) async fn reaches(&self, index: u64) -> Result<(), Ended> {
        if self.now() >= index {
            return Ok(());
        }
        let (sender, there) = oneshot::channel();
        let ticket = {
            let mut waiters = self.0.waiters.lock();
            if self.now() >= index {
                return Ok(());
            }
            if waiters.has_ended {
                return Err(Ended);
            }
            waiters.last += 1;
            let ticket = (index, waiters.last);
            waiters.waiting.insert(ticket, sender);
            ticket
        };
        let mut waiting = Waiting { shared: &self.0, ticket, is_over: false };
        let told = there.await;
        waiting.is_over = true;
        told.map_err(|_| Ended)
    }
}

/// Somebody who waits, and leaves nothing behind where it gives up.
struct Waiting<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.waiters.lock().waiting.remove(&self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn waiting(view: &ProgressView) -> usize {
        view.0.waiters.lock().waiting.len()
    }

    #[test]
    fn only_those_are_woken_whose_entry_is_applied() {
        let (progress, view) = Progress::new();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut near = pin!(view.reaches(3));
        let mut far = pin!(view.reaches(10));
        assert!(near.as_mut().poll(&mut context).is_pending() && far.as_mut().poll(&mut context).is_pending());
        progress.is_at(2);
        assert_eq!((view.now(), woken.0.load(Ordering::SeqCst)), (2, 0));
        progress.is_at(7);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "the other one has to wait on");
        assert_eq!(near.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        assert!(far.as_mut().poll(&mut context).is_pending());
        progress.is_at(10);
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
        assert_eq!(far.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        assert_eq!(waiting(&view), 0);
        // What is applied already is not waited for.
        assert_eq!(pin!(view.reaches(10)).poll(&mut context), Poll::Ready(Ok(())));
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let (_progress, view) = Progress::new();
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut given_up = pin!(view.reaches(1));
            assert!(given_up.as_mut().poll(&mut context).is_pending());
            assert_eq!(waiting(&view), 1);
        }
        assert_eq!(waiting(&view), 0);
    }

    #[test]
    fn nobody_waits_for_what_has_ended() {
        let (progress, view) = Progress::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut before = pin!(view.reaches(1));
        assert!(before.as_mut().poll(&mut context).is_pending());
        drop(progress);
        assert_eq!(before.as_mut().poll(&mut context), Poll::Ready(Err(Ended)));
        assert_eq!(pin!(view.reaches(1)).poll(&mut context), Poll::Ready(Err(Ended)));
        assert_eq!(pin!(view.reaches(0)).poll(&mut context), Poll::Ready(Ok(())));
    }
}
