//! What a run tells the driver that started it: one line of JSON.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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
    /// How often each marked place of the code was reached; the driver's to fill.
    pub(crate) reached: BTreeMap<String, u64>,
    /// The faults of the schedule, one line each; their place is the number by which one is left out.
    pub(crate) schedule: Vec<String>,
    /// The checksum of everything that was traced, in hexadecimal; the driver's to fill.
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

/// What a run told before its end, and whom.
struct Begun {
    report: Option<Report>,
    tell: Option<fn(&Report)>,
}

static BEGUN: Mutex<Begun> = Mutex::new(Begun { report: None, tell: None });

/// Tells what is known before the first fault: size and schedule. It is what remains of a run that
/// panics or never ends, and what its schedule is shrunk by.
pub(crate) fn begun(report: &Report) {
    let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    begun.report = Some(report.clone());
    if let Some(tell) = begun.tell {
        tell(report);
    }
}

/// Has what [`begun`] is given told at once.
pub(crate) fn on_begun(tell: fn(&Report)) {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner).tell = Some(tell);
}

/// What [`begun`] was given.
pub(crate) fn what_begun() -> Option<Report> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner).report.clone()
}
