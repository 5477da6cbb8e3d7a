//! What one run tells the driver that started it: one line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a run did and found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// How many members the world had.
    pub(crate) members: usize,
    /// How long the world lived, on its own clock.
    pub(crate) simulated_seconds: f64,
    /// How many calls of each kind were checked, by kind and outcome.
    pub(crate) operations: BTreeMap<String, u64>,
    /// How many faults of each kind took place.
    pub(crate) faults: BTreeMap<String, u64>,
    /// How often each marked place of the code was reached.
    pub(crate) reached: BTreeMap<String, u64>,
    /// The faults of the schedule, one line each; their place is the number by which one is left out.
    pub(crate) schedule: Vec<String>,
    /// The checksum of everything that was traced, in hexadecimal.
    pub(crate) trace: String,
    /// The store's last revision.
    pub(crate) revision: i64,
    /// What was violated; `None` for a run that passed.
    pub(crate) violation: Option<Violation>,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Violation {
    /// The checker that found it; its file's name.
    pub(crate) checker: String,
    /// What it found.
    pub(crate) text: String,
}
