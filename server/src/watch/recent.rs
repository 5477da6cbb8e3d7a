use std::collections::VecDeque;
use std::sync::Arc;

use super::delivery::Recorded;
use crate::limits;

/// The newest published revisions without a gap, for watchers that lag only a little.
#[derive(Default)]
pub(super) struct Recent {
    revisions: VecDeque<(Arc<Recorded>, usize)>,
    bytes: usize,
}

impl Recent {
    /// Adds the next revision; the oldest ones give way.
    pub(super) fn push(&mut self, recorded: Arc<Recorded>) {
        let bytes = recorded.bytes();
        self.bytes += bytes;
        self.revisions.push_back((recorded, bytes));
        while self.bytes > limits::HUB_RECENT_BYTES || self.revisions.len() > limits::HUB_RECENT_REVISIONS {
            let Some((_, bytes)) = self.revisions.pop_front() else { return };
            self.bytes -= bytes;
        }
    }

    /// The oldest revision that is here.
    pub(super) fn first(&self) -> Option<i64> {
        self.revisions.front().map(|(recorded, _)| recorded.revision())
    }

    /// The revisions from one on.
    pub(super) fn from(&self, revision: i64) -> impl Iterator<Item = &Arc<Recorded>> {
        let start = self.revisions.partition_point(|(recorded, _)| recorded.revision() < revision);
        self.revisions.range(start..).map(|(recorded, _)| recorded)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
