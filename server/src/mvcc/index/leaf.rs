//! A leaf of the tree: keys with their entries.

use super::entry::Entry;
use super::keys::{GROWTH, Keys};
use super::tree::{Fate, Interest, KeyRef};

/// Entries of a leaf before it is split. Small in tests, so that little trees are deep.
const ENTRIES_MAX: usize = if cfg!(test) { 6 } else { 64 };

/// Bytes of keys in a leaf before it is split.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// Keys in order with their entries.
#[derive(Default)]
pub(super) struct Leaf {
    keys: Keys,
    entries: Vec<Entry>,
    tally: Tally,
}

/// How many entries of a leaf are of which sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    live: u32,
    dirty: u32,
    with_history: u32,
}

impl Tally {
    fn of(entry: &Entry) -> Self {
        Self {
            live: u32::from(entry.is_live()),
            dirty: u32::from(entry.is_dirty()),
            with_history: u32::from(entry.has_history()),
        }
    }

    fn of_all(entries: &[Entry]) -> Self {
        let mut sum = Self::default();
        entries.iter().for_each(|entry| sum.add(Self::of(entry)));
        sum
    }

    fn add(&mut self, other: Self) {
        self.live += other.live;
        self.dirty += other.dirty;
        self.with_history += other.with_history;
    }

    fn subtract(&mut self, other: Self) {
        self.live -= other.live;
        self.dirty -= other.dirty;
        self.with_history -= other.with_history;
    }
}

impl Leaf {
    /// A leaf of as many keys as entries.
    pub(super) fn new(keys: Keys, entries: Vec<Entry>) -> Self {
        Self { keys, tally: Tally::of_all(&entries), entries }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn live(&self) -> u32 {
        self.tally.live
    }

    pub(super) fn is_too_big(&self) -> bool {
        self.len() > ENTRIES_MAX || self.len() > 1 && self.keys.bytes() > KEY_BYTES_MAX
    }

    /// Whether the two leaves make one that has some room left.
    pub(super) fn fits_with(&self, other: &Self) -> bool {
        self.len() + other.len() <= ENTRIES_MAX * 3 / 4 && self.keys.bytes() + other.keys.bytes() <= KEY_BYTES_MAX / 2
    }

    pub(super) fn key(&self, i: usize) -> KeyRef<'_> {
        self.keys.get(i)
    }

    pub(super) fn entry(&self, i: usize) -> &Entry {
        &self.entries[i]
    }

    /// The place of a key, or the place where it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.keys.find(key)
    }

    /// The number of live keys before a place.
    pub(super) fn live_before(&self, i: usize) -> u64 {
        self.entries[..i].iter().map(|entry| u64::from(entry.is_live())).sum()
    }

    /// Changes the entry of a key, a new one where there was none; also tells its place.
    pub(super) fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> (R, usize) {
        match self.find(key) {
            Ok(i) => {
                let entry = &mut self.entries[i];
                self.tally.subtract(Tally::of(entry));
                let result = change(entry);
                self.tally.add(Tally::of(entry));
                (result, i)
            }
            Err(i) => {
                let mut entry = Entry::default();
                let result = change(&mut entry);
                self.tally.add(Tally::of(&entry));
                self.keys.insert(i, key);
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(GROWTH);
                }
                self.entries.insert(i, entry);
                (result, i)
            }
        }
    }

    /// Splits off the right part. `inserted` is the place of the last insertion: keys that arrive in
    /// order leave full leaves behind.
    pub(super) fn split(&mut self, inserted: usize) -> Self {
        let last = self.len() - 1;
        let at = if inserted == last {
            last
        } else if inserted == 0 {
            1
        } else {
            self.len() / 2
        };
        let entries = self.entries.split_off(at);
        self.entries.shrink_to_fit(); // it keeps the room of the whole
        let right = Self::new(self.keys.split_off(at), entries);
        self.tally.subtract(right.tally);
        right
    }

    /// Takes the keys of the next leaf in.
    pub(super) fn append(&mut self, mut right: Self) {
        self.keys.append(right.keys);
        self.entries.append(&mut right.entries);
        self.tally.add(right.tally);
    }

    /// Whether a sweep has to look at the entries.
    pub(super) fn has(&self, interest: Interest) -> bool {
        match interest {
            Interest::Dirty => self.tally.dirty > 0,
            Interest::History => self.tally.with_history > 0,
        }
    }

    /// Visits the entries from a place on; those that are to be removed are. Returns how many were visited.
    pub(super) fn sweep(&mut self, from: usize, visit: &mut dyn FnMut(KeyRef<'_>, &mut Entry) -> Fate) -> usize {
        let mut removed = Vec::new();
        for (i, entry) in self.entries.iter_mut().enumerate().skip(from) {
            self.tally.subtract(Tally::of(entry));
            match visit(self.keys.get(i), entry) {
                Fate::Keep => self.tally.add(Tally::of(entry)),
                Fate::Remove => removed.push(i),
            }
        }
        let visited = self.len() - from;
        if !removed.is_empty() {
            self.keys.remove(&removed);
            let mut removed = removed.into_iter().peekable();
            let mut i = 0..;
            self.entries.retain(|_| i.next().is_none_or(|i| removed.next_if_eq(&i).is_none()));
        }
        visited
    }

    /// Checks what holds between the parts.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.keys.check();
        assert_eq!(self.keys.len(), self.entries.len());
        assert_eq!(self.tally, Tally::of_all(&self.entries));
        assert!(self.len() <= ENTRIES_MAX);
    }
}
