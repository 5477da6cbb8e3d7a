//! Invariants of a run, one per file, each held against what clients and watchers wrote down.
//!
//! Each file has a `check` that is a pure function of a [`History`], and says in its error which
//! operation or event breaks the invariant and what was due. [`CHECKERS`] lists them, [`check_all`]
//! runs them in that order. Most need the [`Truth`], the record of what was committed; those that do
//! not look at revisions (`linearizable.rs`, `lists.rs`, `sets.rs`) do not believe it either.

pub mod campaigns;
pub mod compaction;
pub mod durable;
pub mod elections;
pub mod exactly_once_effects;
pub mod headers;
pub mod lease_keys;
pub mod leases;
pub mod linearizable;
pub mod lists;
pub mod liveness;
pub mod locks;
pub mod membership;
pub mod permissions;
pub mod realtime;
pub mod reflections;
pub mod refusals;
pub mod revisions;
#[cfg(test)]
mod sample;
pub mod serializable;
pub mod sessions;
pub mod sets;
mod space;
mod text;
pub mod watch_atomic;
pub mod watch_opened;
pub mod watch_ordered;
pub mod watch_progress;
pub mod watch_reliable;
pub mod watch_resumed;
pub mod watch_streams;
mod window;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::history::History;
use crate::model::Truth;

/// What the checkers of time allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// How long after the last disturbance the cluster serves everybody again.
    pub recovery: Duration,
    /// How much longer than its time a lease may last where the cluster is disturbed and recovers.
    pub lease_overtime: Duration,
    /// The shortest time to live that is granted, in seconds; who asks for less gets that.
    pub lease_ttl_min: i64,
    /// What every lease gets on top of its time when another member begins to lead.
    pub lease_extension: Duration,
}

impl Bounds {
    /// Bounds for a cluster with an election timeout of a second that serves again so long after the
    /// last disturbance.
    pub fn of(recovery: Duration) -> Self {
        let (lease_overtime, lease_extension) = (Duration::from_secs(6), Duration::from_secs(1));
        Self { recovery, lease_overtime, lease_ttl_min: 2, lease_extension }
    }
}

/// A check, with what it needs besides the history.
pub type Check = fn(&History, &Truth, &Bounds) -> Result<(), String>;

/// Every checker by its file's name. What others follow from stands before them: a record that is
/// wrong by itself makes every comparison with it wrong.
pub const CHECKERS: [(&str, Check); 28] = [
    ("elections", |history, _, _| elections::check(history)),
    ("membership", |history, _, _| membership::check(history)),
    ("watch_streams", |history, _, bounds| watch_streams::check(history, bounds.recovery)),
    ("watch_ordered", |history, _, _| watch_ordered::check(history)),
    ("watch_atomic", |history, _, _| watch_atomic::check(history)),
    ("watch_resumed", |history, _, _| watch_resumed::check(history)),
    ("revisions", |history, truth, _| revisions::check(history, truth)),
    ("durable", |history, truth, _| durable::check(history, truth)),
    ("exactly_once_effects", |history, truth, _| exactly_once_effects::check(history, truth)),
    ("serializable", |history, truth, _| serializable::check(history, truth)),
    ("refusals", refusals::check),
    ("realtime", |history, truth, _| realtime::check(history, truth)),
    ("headers", |history, _, _| headers::check(history)),
    ("sessions", |history, _, _| sessions::check(history)),
    ("watch_progress", |history, truth, _| watch_progress::check(history, truth)),
    ("watch_reliable", |history, truth, _| watch_reliable::check(history, truth)),
    ("reflections", |history, _, _| reflections::check(history)),
    ("leases", leases::check),
    ("lease_keys", |history, truth, _| lease_keys::check(history, truth)),
    ("locks", |history, truth, _| locks::check(history, truth)),
    ("campaigns", |history, truth, _| campaigns::check(history, truth)),
    ("permissions", |history, truth, bounds| permissions::check(history, truth, bounds.recovery)),
    ("compaction", |history, _, _| compaction::check(history)),
    ("lists", |history, _, _| lists::check(history)),
    ("sets", |history, _, _| sets::check(history)),
    ("linearizable", |history, _, _| linearizable::check(history)),
    ("watch_opened", |history, _, bounds| watch_opened::check(history, bounds.recovery)),
    ("liveness", |history, truth, bounds| liveness::check(history, truth, bounds.recovery)),
];

/// Those that ask nothing of the end of a run, nor of what must be served by then.
pub const WITHOUT_END: [&str; 10] = [
    "elections",
    "membership",
    "watch_ordered",
    "watch_atomic",
    "headers",
    "sessions",
    "reflections",
    "lists",
    "sets",
    "linearizable",
];

/// Runs every checker; returns the file's name of the first that found something, and what. The
/// cluster is to serve again so long after the last disturbance.
pub fn check_all(history: &History, recovery: Duration) -> Option<(&'static str, String)> {
    first_found(history, recovery, |_| true)
}

/// The same for a run at whose end nobody could say what the store holds, by those that need not know it.
pub fn check_without_end(history: &History, recovery: Duration) -> Option<(&'static str, String)> {
    first_found(history, recovery, |name| WITHOUT_END.contains(&name))
}

fn first_found(history: &History, recovery: Duration, is_run: fn(&str) -> bool) -> Option<(&'static str, String)> {
    let truth = Truth::of(history);
    let bounds = Bounds::of(recovery);
    let mut run = CHECKERS.iter().filter(|(name, _)| is_run(name));
    run.find_map(|(name, check)| Some((*name, check(history, &truth, &bounds).err()?)))
}
