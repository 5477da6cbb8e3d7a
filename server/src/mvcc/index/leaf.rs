//! A leaf of the tree: a run of keys, the prefix that they share stored once, with their entries.

use super::entry::Entry;
use super::tree::{Fate, Interest, KeyRef};

/// Entries of a leaf before it is split. Small in tests, so that little trees are deep.
const ENTRIES_MAX: usize = if cfg!(test) { 6 } else { 64 };

/// Bytes of keys in a leaf before it is split.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// By how many entries a leaf grows: doubling would leave a quarter of the index empty.
const GROWTH: usize = 8;

/// Keys in order with their entries. Key `i` is `prefix`, then `suffixes[ends[i - 1]..ends[i]]`.
#[derive(Default)]
pub(super) struct Leaf {
    prefix: Box<[u8]>,
    suffixes: Vec<u8>,
    ends: Vec<u32>,
    entries: Vec<Entry>,
    tally: Tally,
}

/// How many entries of a leaf are of which sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) live: u32,
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
    /// A leaf of sorted keys, which lie one behind the other in `keys` and end at `ends`.
    pub(super) fn from_sorted(keys: &[u8], ends: &[u32], entries: Vec<Entry>) -> Self {
        let mut leaf = Self {
            suffixes: keys.to_vec(),
            ends: ends.to_vec(),
            tally: Tally::of_all(&entries),
            entries,
            ..Self::default()
        };
        leaf.tighten();
        leaf
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn live(&self) -> u32 {
        self.tally.live
    }

    pub(super) fn is_too_big(&self) -> bool {
        self.len() > ENTRIES_MAX || self.len() > 1 && self.key_bytes() > KEY_BYTES_MAX
    }

    /// Whether the two leaves make one that has some room left.
    pub(super) fn fits_with(&self, other: &Self) -> bool {
        self.len() + other.len() <= ENTRIES_MAX * 3 / 4 && self.key_bytes() + other.key_bytes() <= KEY_BYTES_MAX / 2
    }

    /// Bytes of the keys as if none were shared.
    fn key_bytes(&self) -> usize {
        self.suffixes.len() + self.prefix.len() * self.len()
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] as usize }
    }

    fn suffix(&self, i: usize) -> &[u8] {
        &self.suffixes[self.start(i)..self.ends[i] as usize]
    }

    pub(super) fn key(&self, i: usize) -> KeyRef<'_> {
        KeyRef::parts(&self.prefix, self.suffix(i))
    }

    pub(super) fn entry(&self, i: usize) -> &Entry {
        &self.entries[i]
    }

    /// The place of a key, or the place where it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(suffix) = key.strip_prefix(&*self.prefix) else {
            // All keys begin with the prefix, so all of them are on the same side.
            return Err(if key < &*self.prefix { 0 } else { self.len() });
        };
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            match self.suffix(middle).cmp(suffix) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    /// The number of live keys before a place.
    pub(super) fn live_before(&self, i: usize) -> u64 {
        self.entries[..i].iter().map(|entry| u64::from(entry.is_live())).sum()
    }

    /// Changes the entry of a key, a new one where there was none; also tells its place.
    pub(super) fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> (R, usize) {
        match self.find(key) {
            Ok(i) => (self.change(i, change), i),
            Err(i) => {
                let mut entry = Entry::default();
                let result = change(&mut entry);
                self.insert(i, key, entry);
                (result, i)
            }
        }
    }

    fn change<R>(&mut self, i: usize, change: impl FnOnce(&mut Entry) -> R) -> R {
        let entry = &mut self.entries[i];
        self.tally.subtract(Tally::of(entry));
        let result = change(entry);
        self.tally.add(Tally::of(entry));
        result
    }

    fn insert(&mut self, i: usize, key: &[u8], entry: Entry) {
        if self.entries.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            let shared = common(&self.prefix, key);
            self.shorten_prefix(shared);
        }
        let suffix = &key[self.prefix.len()..];
        let start = self.start(i);
        let end = self.suffixes.len();
        if self.suffixes.capacity() < end + suffix.len() {
            self.suffixes.reserve_exact(GROWTH * suffix.len());
        }
        self.suffixes.resize(end + suffix.len(), 0);
        self.suffixes.copy_within(start..end, start + suffix.len());
        self.suffixes[start..start + suffix.len()].copy_from_slice(suffix);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
            self.ends.reserve_exact(GROWTH);
        }
        let added = position(suffix.len());
        self.ends.insert(i, position(start));
        self.ends[i..].iter_mut().for_each(|end| *end += added);
        self.tally.add(Tally::of(&entry));
        self.entries.insert(i, entry);
    }

    /// Moves the end of the prefix back into the suffixes.
    fn shorten_prefix(&mut self, len: usize) {
        let moved = &self.prefix[len..];
        let mut suffixes = Vec::with_capacity(self.suffixes.len() + self.len() * moved.len());
        for i in 0..self.len() {
            suffixes.extend_from_slice(moved);
            suffixes.extend_from_slice(self.suffix(i));
        }
        let added = position(moved.len());
        let mut shift = 0;
        for end in &mut self.ends {
            shift += added;
            *end += shift;
        }
        self.suffixes = suffixes;
        self.prefix = self.prefix[..len].into();
    }

    /// Moves what all suffixes share into the prefix.
    fn tighten(&mut self) {
        let shared = match self.len() {
            0 => return,
            last => common(self.suffix(0), self.suffix(last - 1)),
        };
        if shared == 0 {
            return;
        }
        self.prefix = [&self.prefix, &self.suffix(0)[..shared]].concat().into();
        let mut suffixes = Vec::with_capacity(self.suffixes.len() - self.len() * shared);
        for i in 0..self.len() {
            suffixes.extend_from_slice(&self.suffix(i)[shared..]);
        }
        let removed = position(shared);
        let mut shift = 0;
        for end in &mut self.ends {
            shift += removed;
            *end -= shift;
        }
        self.suffixes = suffixes;
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
        let start = self.start(at);
        let mut right = Self {
            prefix: self.prefix.clone(),
            suffixes: self.suffixes.split_off(start),
            ends: self.ends.split_off(at),
            entries: self.entries.split_off(at),
            tally: Tally::default(),
        };
        right.ends.iter_mut().for_each(|end| *end -= position(start));
        right.tally = Tally::of_all(&right.entries);
        self.tally.subtract(right.tally);
        // What `split_off` leaves keeps the capacity of the whole.
        self.suffixes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.tighten();
        right.tighten();
        right
    }

    /// Takes the keys of the next leaf in.
    pub(super) fn append(&mut self, mut right: Self) {
        let shared = common(&self.prefix, &right.prefix);
        for leaf in [&mut *self, &mut right] {
            if leaf.prefix.len() > shared {
                leaf.shorten_prefix(shared);
            }
        }
        let start = position(self.suffixes.len());
        self.suffixes.extend_from_slice(&right.suffixes);
        self.ends.extend(right.ends.iter().map(|end| end + start));
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
        for i in from..self.len() {
            let entry = &mut self.entries[i];
            self.tally.subtract(Tally::of(entry));
            let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
            let suffix = &self.suffixes[start..self.ends[i] as usize];
            match visit(KeyRef::parts(&self.prefix, suffix), entry) {
                Fate::Keep => self.tally.add(Tally::of(entry)),
                Fate::Remove => removed.push(i),
            }
        }
        let visited = self.len() - from;
        if !removed.is_empty() {
            self.remove(&removed);
        }
        visited
    }

    /// Removes the entries at these places, whose tally is no longer counted.
    fn remove(&mut self, places: &[usize]) {
        let mut suffixes = Vec::with_capacity(self.suffixes.len());
        let mut ends = Vec::with_capacity(self.len() - places.len());
        let mut doomed = places.iter().copied().peekable();
        for i in 0..self.len() {
            if doomed.next_if_eq(&i).is_none() {
                suffixes.extend_from_slice(self.suffix(i));
                ends.push(position(suffixes.len()));
            }
        }
        let mut doomed = places.iter().copied().peekable();
        let mut i = 0;
        self.entries.retain(|_| {
            let is_doomed = doomed.next_if_eq(&i).is_some();
            i += 1;
            !is_doomed
        });
        (self.suffixes, self.ends) = (suffixes, ends);
    }

    /// Checks what holds between the parts.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.ends.len(), self.entries.len());
        assert!((1..self.len()).all(|i| self.suffix(i - 1) < self.suffix(i)), "keys rise");
        assert_eq!(self.ends.last().map_or(0, |end| *end as usize), self.suffixes.len());
        assert_eq!(self.tally, Tally::of_all(&self.entries));
        assert!(self.len() <= ENTRIES_MAX);
    }
}

/// The length of what two byte strings begin with alike.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A place in the suffixes of one leaf.
fn position(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the keys of a leaf are far below 4 GiB")
}
