use std::collections::VecDeque;
use std::sync::Arc;

use super::bounds::Bounds;
use super::delivery::{Kept, Recorded};

/// The newest revisions, whose encodings are not let go of: they are being told.
const TOLD_NOW: usize = 16;

/// How many revisions are looked at for each that comes, where encodings take much.
const FORGOTTEN_AT_ONCE: usize = 32;

/// The newest published revisions without a gap, for watchers that lag only a little.
pub(super) struct Recent {
    bounds: Bounds,
    revisions: VecDeque<(Arc<Recorded>, usize)>,
    bytes: usize,
    kept: Kept,
    /// Which of them lets go of its encodings next.
    hand: usize,
}

impl Recent {
    pub(super) fn new(bounds: Bounds, kept: Kept) -> Self {
        Self { bounds, revisions: VecDeque::new(), bytes: 0, kept, hand: 0 }
    }

    /// Adds the next revision; the oldest ones give way.
    pub(super) fn push(&mut self, recorded: Arc<Recorded>) {
        let bytes = recorded.bytes();
        self.bytes += bytes;
        self.revisions.push_back((recorded, bytes));
        while self.bytes > self.bounds.recent_bytes || self.revisions.len() > self.bounds.recent_revisions {
            let Some((_, bytes)) = self.revisions.pop_front() else { return };
            self.bytes -= bytes;
            self.hand = self.hand.saturating_sub(1);
        }
        self.forget_old();
    }

    /// Lets go of encodings where they take much, from the oldest on, so that there is room for those of what comes.
    fn forget_old(&mut self) {
        let old = self.revisions.len().saturating_sub(TOLD_NOW);
        for _ in 0..FORGOTTEN_AT_ONCE.min(old) {
            if !self.kept.is_half_full() {
                return;
            }
            // Those that lag may have had some of the oldest encoded again.
            if self.hand >= old {
                self.hand = 0;
            }
            self.revisions[self.hand].0.forget_encoded();
            self.hand += 1;
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
        *self = Self::new(self.bounds, self.kept.clone());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mvcc::{Event, KeyValue, RevisionEvents};
    use crate::watch::delivery::Form;

    #[test]
    fn the_newest_are_kept_encoded() {
        const BYTES: usize = 1_000;
        const REVISIONS: i64 = 1_000;
        let kept = Kept::new(100 * BYTES);
        let mut recent = Recent::new(Bounds::STANDARD, kept.clone());
        let encoded = Bytes::from(vec![0; BYTES]);
        for revision in 1..=REVISIONS {
            let event = Event { kv: Some(KeyValue::default()), ..Event::default() };
            let events = RevisionEvents { revision, events: vec![event] };
            let recorded = Recorded::new(Arc::new(events), kept.clone());
            recent.push(Arc::clone(&recorded));
            recorded.keep_encoded(0, Form::Plain, &encoded);
            assert!(recorded.encoded(0, Form::Plain).is_some(), "there is room for {revision}");
            // Somebody who lags is told of the oldest ones again and again.
            recent.revisions[0].0.keep_encoded(0, Form::WithPrevious, &encoded);
            let newest = recent.from(revision - TOLD_NOW as i64 + 1);
            assert!(newest.take(TOLD_NOW).all(|recorded| recorded.encoded(0, Form::Plain).is_some()));
        }
        assert_eq!(recent.first(), Some(1));
        assert!(kept.bytes() <= 60 * BYTES, "{}", kept.bytes());
        drop(recent);
        assert_eq!(kept.bytes(), 0);
    }
}
