//! Which keys came and went lately, so that the number of keys at a recent revision follows from
//! the present one.

use std::collections::VecDeque;

use super::tree::Interval;

/// The last creations and deletions, oldest first.
pub(crate) struct Changes {
    queue: VecDeque<Change>,
    /// Every change after this revision is in the queue.
    complete_after: i64,
    max: usize,
}

struct Change {
    main: i64,
    key: Box<[u8]>,
    is_creation: bool,
}

impl Changes {
    /// Remembers up to `max` changes from a revision on.
    pub(crate) fn new(revision: i64, max: usize) -> Self {
        Self { queue: VecDeque::new(), complete_after: revision, max }
    }

    pub(crate) fn push(&mut self, main: i64, key: &[u8], is_creation: bool) {
        self.queue.push_back(Change { main, key: key.into(), is_creation });
    }

    /// Forgets the oldest beyond the bound, but nothing that is not published: readers count
    /// at the published revision, and the tree is ahead of it.
    pub(crate) fn trim(&mut self, published: i64) {
        while self.queue.len() > self.max {
            match self.queue.front() {
                Some(oldest) if oldest.main <= published => {
                    self.complete_after = oldest.main;
                    self.queue.pop_front();
                }
                _ => break,
            }
        }
    }

    /// By how much the number of keys in an interval grew since a revision. `None` where that is
    /// not known, or takes more than `steps_max` steps to find.
    pub(crate) fn growth_since(&self, revision: i64, interval: Interval<'_>, steps_max: usize) -> Option<i64> {
        if revision < self.complete_after {
            return None;
        }
        let first = self.queue.partition_point(|change| change.main <= revision);
        if self.queue.len() - first > steps_max {
            return None;
        }
        let changes = self.queue.range(first..).filter(|change| interval.contains(&change.key));
        Some(changes.map(|change| if change.is_creation { 1 } else { -1 }).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth() {
        let mut changes = Changes::new(1, 3);
        changes.push(2, b"a", true);
        changes.push(3, b"b", true);
        changes.push(4, b"a", false);
        changes.push(5, b"c", true);
        let all = Interval { from: b"", to: None };
        let a = Interval { from: b"a", to: Some(b"b") };
        for (revision, interval, steps, growth) in [
            (1, all, 9, Some(2)),
            (1, a, 9, Some(0)),
            (2, a, 9, Some(-1)),
            (3, all, 9, Some(0)),
            (3, all, 1, None),
            (5, all, 0, Some(0)),
            (0, all, 9, None),
        ] {
            assert_eq!(changes.growth_since(revision, interval, steps), growth, "{revision}");
        }
        changes.trim(1);
        assert_eq!(changes.growth_since(1, all, 9), Some(2));
        changes.trim(9);
        assert_eq!(changes.growth_since(1, all, 9), None);
        assert_eq!(changes.growth_since(2, all, 9), Some(1));
    }
}
