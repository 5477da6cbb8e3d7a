//! Which watchers a key concerns (pure).
//!
//! Watchers of one key stand in an ordered map, watchers of intervals in an [`IntervalTree`];
//! finding those of a key costs O(log n + what is found), and watchers of the same range share
//! one place.

mod interval_tree;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_proto::KeyRange;

use super::WatcherKey;
use interval_tree::{End, IntervalTree};

/// A set of watchers, each with the range that it watches.
#[derive(Default)]
pub(super) struct Group {
    /// Watchers of a single key.
    singles: BTreeMap<Bytes, BTreeSet<WatcherKey>>,
    /// Watchers of intervals.
    intervals: IntervalTree,
}

impl Group {
    /// Adds a watcher; adding it twice changes nothing.
    pub(super) fn insert(&mut self, range: &KeyRange, watcher: WatcherKey) {
        if range.is_single() {
            self.singles.entry(range.key().clone()).or_default().insert(watcher);
        } else {
            self.intervals.insert(range.key().clone(), End::of(range), watcher);
        }
    }

    /// Removes a watcher that was added with this range.
    pub(super) fn remove(&mut self, range: &KeyRange, watcher: WatcherKey) {
        if !range.is_single() {
            self.intervals.remove(range.key(), &End::of(range), watcher);
            return;
        }
        if let Some(watchers) = self.singles.get_mut(range.key()) {
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.singles.remove(range.key());
            }
        }
    }

    /// Visits every watcher of a key, each once.
    pub(super) fn visit(&self, key: &[u8], visit: &mut dyn FnMut(WatcherKey)) {
        for watcher in self.singles.get(key).into_iter().flatten() {
            visit(*watcher);
        }
        self.intervals.visit(key, visit);
    }

    /// Whether nobody is in the group.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.intervals.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(group: &Group, key: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        group.visit(key, &mut |watcher| found.push(watcher.0));
        found.sort_unstable();
        found
    }

    fn range(key: &[u8], end: &[u8]) -> KeyRange {
        KeyRange::new(Bytes::copy_from_slice(key), Bytes::copy_from_slice(end))
    }

    #[test]
    fn every_form_of_a_range_is_found() {
        let mut group = Group::default();
        let ranges =
            [range(b"b", b""), range(b"a", b"c"), range(b"b", b"\0"), range(b"\0", b"\0"), range(b"b", b"b\0")];
        for (id, range) in ranges.iter().enumerate() {
            group.insert(range, WatcherKey(id as u64));
        }
        assert_eq!(found(&group, b"b"), [0, 1, 2, 3, 4]);
        assert_eq!(found(&group, b"b\0"), [1, 2, 3]);
        assert_eq!(found(&group, b"a"), [1, 3]);
        assert_eq!(found(&group, b"c"), [2, 3]);
        assert_eq!(found(&group, b"\xff"), [2, 3]);
        for (id, range) in ranges.iter().enumerate() {
            group.remove(range, WatcherKey(id as u64));
        }
        assert!(group.is_empty());
    }

    /// Keys of one to three letters out of three, and the byte 0 among them.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)], 1..4)
    }

    proptest! {
        #[test]
        fn a_group_finds_what_a_search_of_all_ranges_finds(
            watchers in proptest::collection::vec((key(), prop_oneof![Just(vec![]), Just(vec![0u8]), key()]), 0..80),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
            probes in proptest::collection::vec(key(), 1..20),
        ) {
            let mut group = Group::default();
            let mut model = BTreeMap::new();
            for (id, (key, end)) in watchers.iter().enumerate() {
                let range = range(key, end);
                if range.is_empty() {
                    continue;
                }
                group.insert(&range, WatcherKey(id as u64));
                group.intervals.check();
                model.insert(id as u64, range);
            }
            for index in removed {
                if watchers.is_empty() {
                    break;
                }
                let id = index.index(watchers.len()) as u64;
                if let Some(range) = model.remove(&id) {
                    group.remove(&range, WatcherKey(id));
                    group.intervals.check();
                }
            }
            for probe in probes {
                let expected: Vec<u64> =
                    model.iter().filter(|(_, range)| range.contains(&probe)).map(|(id, _)| *id).collect();
                prop_assert_eq!(found(&group, &probe), expected);
            }
        }
    }

    #[test]
    fn ten_thousand_ranges_cost_a_key_few_steps() {
        let mut group = Group::default();
        for id in 0..10_000u64 {
            let prefix = format!("/registry/{id:05}/");
            group.insert(&KeyRange::prefix(prefix), WatcherKey(id));
        }
        assert_eq!(found(&group, b"/registry/07777/x"), [7777]);
        assert!(group.intervals.steps(b"/registry/07777/x") <= 4 * 14);
        assert!(group.intervals.steps(b"/") <= 4 * 14);
    }
}
