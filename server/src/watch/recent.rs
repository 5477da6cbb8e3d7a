use std::collections::VecDeque;
use std::sync::Arc;

use super::bounds::Bounds;
use super::delivery::Recorded;

/// The newest published revisions without a gap, for watchers that lag only a little.
pub(super) struct Recent {
    bounds: Bounds,
    revisions: VecDeque<(Arc<Recorded>, usize)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, revisions: VecDeque::new(), bytes: 0 }
    }

    /// Adds the next revision; the oldest ones give way.
    pub(super) fn push(&mut self, recorded: Arc<Recorded>) {
        let bytes = recorded.bytes();
        self.bytes += bytes;
        self.revisions.push_back((recorded, bytes));
        while self.bytes > self.bounds.recent_bytes || self.revisions.len() > self.bounds.recent_revisions {
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
        *self = Self::new(self.bounds);
    }
}
