//! The ordered map of keys to entries, which knows how many live keys are in any interval.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::entry::Entry;

/// Keys in order with their entries.
#[derive(Default)]
pub(crate) struct Tree {
    entries: BTreeMap<Box<[u8]>, Entry>,
}

/// An interval of keys: from the first on, up to but not the second where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'a> {
    pub(crate) from: &'a [u8],
    pub(crate) to: Option<&'a [u8]>,
}

impl Interval<'_> {
    /// Whether a key is in the interval.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.from <= key && self.to.is_none_or(|to| key < to)
    }
}

/// A key in the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a>(&'a [u8]);

impl<'a> KeyRef<'a> {
    /// A key that is at hand as a whole.
    pub(crate) fn whole(key: &'a [u8]) -> Self {
        Self(key)
    }

    /// Copies the key.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// What becomes of an entry that a sweep visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Remove,
}

impl Tree {
    /// The number of live keys.
    pub(crate) fn live(&self) -> u64 {
        self.entries.values().filter(|entry| entry.is_live()).count() as u64
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Changes the entry of a key, a new one where there was none.
    pub(crate) fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> R {
        if let Some(entry) = self.entries.get_mut(key) {
            return change(entry);
        }
        change(self.entries.entry(key.into()).or_default())
    }

    /// The number of live keys in an interval.
    pub(crate) fn count(&self, interval: Interval<'_>) -> u64 {
        let mut count = 0;
        self.scan(interval, &mut |_, entry| {
            count += u64::from(entry.is_live());
            ControlFlow::Continue(())
        });
        count
    }

    /// Visits the entries of an interval in order.
    pub(crate) fn scan(&self, interval: Interval<'_>, visit: &mut dyn FnMut(KeyRef<'_>, &Entry) -> ControlFlow<()>) {
        if interval.to.is_some_and(|to| to <= interval.from) {
            return;
        }
        let to = interval.to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, entry) in self.entries.range::<[u8], _>((Bound::Included(interval.from), to)) {
            if visit(KeyRef(key), entry).is_break() {
                return;
            }
        }
    }

    /// Visits from a key on the entries that have history or are dirty, and perhaps others, until
    /// about `budget` keys were looked at. Returns where to go on.
    pub(crate) fn sweep(
        &mut self,
        from: &[u8],
        budget: usize,
        visit: &mut dyn FnMut(KeyRef<'_>, &mut Entry) -> Fate,
    ) -> Option<Vec<u8>> {
        let mut removed = Vec::new();
        let mut next = None;
        for (i, (key, entry)) in
            self.entries.range_mut::<[u8], _>((Bound::Included(from), Bound::Unbounded)).enumerate()
        {
            if i >= budget {
                next = Some(key.to_vec());
                break;
            }
            if visit(KeyRef(key), entry) == Fate::Remove {
                removed.push(key.clone());
            }
        }
        for key in removed {
            self.entries.remove(&key);
        }
        next
    }

    /// Adds a key behind all others.
    pub(crate) fn push(&mut self, key: &[u8], entry: Entry) {
        self.entries.insert(key.into(), entry);
    }
}
