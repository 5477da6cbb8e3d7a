//! How long proposals take, stage by stage. What each stage is stands in the page of this room.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::local::LocalHistogram;
use prometheus::{Histogram, HistogramVec};

/// The stages that a proposal goes through. All exist from the start.
pub struct Stages {
    /// Of this member as the leader.
    pub proposed: Histogram,
    flushed: Histogram,
    replicated: Histogram,
    applied: Histogram,
    /// Of this member as the leader.
    pub replied: Histogram,
    /// All at once, where another member leads.
    pub forwarded: Histogram,
}

impl Stages {
    pub(super) fn new(family: &HistogramVec) -> Stages {
        let of = |stage: &str| family.with_label_values(&[stage]);
        Stages {
            proposed: of("proposed"),
            flushed: of("flushed"),
            replicated: of("replicated"),
            applied: of("applied"),
            replied: of("replied"),
            forwarded: of("forwarded"),
        }
    }

    /// The stages that run by run are counted, by one owner.
    pub fn of_log(&self) -> LogStages {
        LogStages([&self.flushed, &self.replicated, &self.applied].map(|stage| Mutex::new(stage.local())))
    }
}

/// The stages between a place in the log and the store. Counting is plain arithmetic; what was counted shows once it is
/// published.
pub struct LogStages(
    /// Never locked: whoever counts owns them. They are shared by nobody, but a part of what has to be shareable.
    [Mutex<LocalHistogram>; 3],
);

impl LogStages {
    /// Counts one proposal.
    pub fn count(&mut self, flushed: Duration, replicated: Duration, applied: Duration) {
        for (stage, took) in self.0.iter_mut().zip([flushed, replicated, applied]) {
            stage.get_mut().observe(took.as_secs_f64());
        }
    }

    /// Shows what was counted.
    pub fn publish(&mut self) {
        for stage in &mut self.0 {
            stage.get_mut().flush();
        }
    }
}
