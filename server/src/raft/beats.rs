//! When this member last sent something to another one, to tell whether it is late with its heartbeats.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::clock::{self, Instant};

/// Clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beats(
    /// A leaf lock.
    Arc<Mutex<State>>,
);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    streams: usize,
}

impl Beats {
    /// Notes that entries, or that there are none, were handed over to be sent.
    pub(crate) fn sent(&self) {
        self.0.lock().last = Some(clock::now());
    }

    /// A stream to a peer is open until what is returned is dropped.
    pub(crate) fn open(&self) -> Open {
        self.0.lock().streams += 1;
        Open(self.clone())
    }

    /// When something was sent last; `None` where nobody is reached, which is nothing to be late for.
    pub(crate) fn last(&self) -> Option<Instant> {
        let state = self.0.lock();
        state.last.filter(|_| state.streams > 0)
    }
}

/// An open stream.
pub(crate) struct Open(Beats);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.lock().streams -= 1;
    }
}
