//! What the clients saw, for the checks after the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A write of one client to a register of its own; its values count up.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: String,
    pub(crate) value: u64,
    /// The revision that acknowledged it; `None` while unknown, or for good.
    pub(crate) acknowledged: Option<i64>,
}

/// A linearizable read of a register.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) key: String,
    /// The last value that was acknowledged to its writer before the read began.
    pub(crate) at_least: u64,
    /// The last value that its writer had begun to write when the read ended.
    pub(crate) at_most: u64,
    pub(crate) value: u64,
    pub(crate) at: Duration,
}

/// An event as the watcher got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: i64,
    pub(crate) key: String,
    pub(crate) value: u64,
}

/// Everything that happened, in the order in which it was noticed.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) increments_acknowledged: u64,
    pub(crate) increments_unknown: u64,
    /// By register: the last value begun, and the last one acknowledged.
    pub(crate) progress: BTreeMap<String, (u64, u64)>,
}

/// The history, shared by the clients. They run on one thread and hold it only between two waits.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    /// Looks at the history, or adds to it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
