//! Keys of one node in order, packed: what they begin with alike stands once, and the rest of them lies
//! in one piece of memory, so that a search touches few cache lines.

use super::tree::KeyRef;

/// By how many keys the room grows: doubling would leave a quarter of the index empty.
pub(super) const GROWTH: usize = 8;

/// Keys in order. Key `i` is `prefix`, then `suffixes[ends[i - 1]..ends[i]]`.
#[derive(Default)]
pub(super) struct Keys {
    prefix: Box<[u8]>,
    suffixes: Vec<u8>,
    ends: Vec<u32>,
    /// The first bytes of each suffix, by which a search finds its way without the suffixes.
    heads: Vec<u32>,
}

impl Keys {
    /// Keys that lie in order, one behind the other, in `keys` and end at `ends`.
    pub(super) fn from_sorted(keys: &[u8], ends: &[u32]) -> Self {
        let mut packed = Self { suffixes: keys.to_vec(), ends: ends.to_vec(), ..Self::default() };
        packed.tighten();
        packed
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the keys as if none were shared.
    pub(super) fn bytes(&self) -> usize {
        self.suffixes.len() + self.prefix.len() * self.len()
    }

    pub(super) fn get(&self, i: usize) -> KeyRef<'_> {
        KeyRef::parts(&self.prefix, self.suffix(i))
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] as usize }
    }

    fn suffix(&self, i: usize) -> &[u8] {
        &self.suffixes[self.start(i)..self.ends[i] as usize]
    }

    /// The place of a key, or the place where it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(suffix) = key.strip_prefix(&*self.prefix) else {
            // All keys begin with the prefix, so all of them are on the same side.
            return Err(if key < &*self.prefix { 0 } else { self.len() });
        };
        // Where the first bytes differ they decide; where they do not, the whole suffixes do.
        let head = head(suffix);
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            let order = self.heads[middle].cmp(&head).then_with(|| self.suffix(middle).cmp(suffix));
            match order {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    /// Adds a key at the place where it belongs.
    pub(super) fn insert(&mut self, i: usize, key: &[u8]) {
        if self.ends.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            let shared = common(&self.prefix, key);
            self.shorten_prefix(shared);
        }
        let suffix = &key[self.prefix.len()..];
        let (start, end) = (self.start(i), self.suffixes.len());
        if self.suffixes.capacity() < end + suffix.len() {
            self.suffixes.reserve_exact(GROWTH * suffix.len());
        }
        self.suffixes.resize(end + suffix.len(), 0);
        self.suffixes.copy_within(start..end, start + suffix.len());
        self.suffixes[start..start + suffix.len()].copy_from_slice(suffix);
        if self.ends.len() == self.ends.capacity() {
            self.ends.reserve_exact(GROWTH);
            self.heads.reserve_exact(GROWTH);
        }
        let added = position(suffix.len());
        self.ends.insert(i, position(start));
        self.ends[i..].iter_mut().for_each(|end| *end += added);
        self.heads.insert(i, head(suffix));
    }

    /// Takes the keys from a place on out.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let mut right = Self {
            prefix: self.prefix.clone(),
            suffixes: self.suffixes.split_off(start),
            ends: self.ends.split_off(at),
            heads: self.heads.split_off(at),
        };
        right.ends.iter_mut().for_each(|end| *end -= position(start));
        // What `split_off` leaves keeps the room of the whole.
        self.suffixes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.heads.shrink_to_fit();
        self.tighten();
        right.tighten();
        right
    }

    /// Adds keys that are all above these.
    pub(super) fn append(&mut self, mut right: Self) {
        if right.ends.is_empty() {
            return;
        }
        if self.ends.is_empty() {
            *self = right;
            return;
        }
        let shared = common(&self.prefix, &right.prefix);
        self.shorten_prefix(shared);
        right.shorten_prefix(shared);
        let start = position(self.suffixes.len());
        self.suffixes.extend_from_slice(&right.suffixes);
        self.ends.extend(right.ends.iter().map(|end| end + start));
        self.heads.append(&mut right.heads);
    }

    /// Removes the keys at these places, which rise.
    pub(super) fn remove(&mut self, places: &[usize]) {
        let mut kept = Self { prefix: std::mem::take(&mut self.prefix), ..Self::default() };
        let mut doomed = places.iter().copied().peekable();
        for i in 0..self.len() {
            if doomed.next_if_eq(&i).is_none() {
                kept.suffixes.extend_from_slice(self.suffix(i));
                kept.ends.push(position(kept.suffixes.len()));
                kept.heads.push(self.heads[i]);
            }
        }
        *self = kept;
    }

    /// Moves the end of the prefix back into the suffixes.
    fn shorten_prefix(&mut self, len: usize) {
        let moved = &self.prefix[len..];
        if moved.is_empty() {
            return;
        }
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
        self.find_heads();
    }

    /// Moves what all suffixes share into the prefix.
    fn tighten(&mut self) {
        let shared = match self.len() {
            0 => 0,
            len => common(self.suffix(0), self.suffix(len - 1)),
        };
        if shared > 0 {
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
        self.find_heads();
    }

    fn find_heads(&mut self) {
        let mut heads = std::mem::take(&mut self.heads);
        heads.clear();
        heads.reserve_exact(self.len());
        heads.extend((0..self.len()).map(|i| head(self.suffix(i))));
        self.heads = heads;
    }

    /// Checks what holds between the parts.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!((1..self.len()).all(|i| self.suffix(i - 1) < self.suffix(i)), "keys rise");
        assert_eq!(self.ends.last().map_or(0, |end| *end as usize), self.suffixes.len());
        assert!((0..self.len()).map(|i| head(self.suffix(i))).eq(self.heads.iter().copied()));
    }
}

/// The first bytes as a number that sorts like them.
fn head(suffix: &[u8]) -> u32 {
    match suffix.first_chunk() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 4];
            bytes[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(bytes)
        }
    }
}

/// The length of what two byte strings begin with alike.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A place in the suffixes of one node.
fn position(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the keys of a node are far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::tests::cases;
    use super::*;

    fn packed(keys: &[&[u8]]) -> Keys {
        let mut packed = Keys::default();
        for key in keys {
            let place = packed.find(key).unwrap_err();
            packed.insert(place, key);
        }
        packed
    }

    fn listed(keys: &Keys) -> Vec<Vec<u8>> {
        (0..keys.len()).map(|i| keys.get(i).to_vec()).collect()
    }

    #[test]
    fn keys_that_end_early_sort_first() {
        let sorted: [&[u8]; 7] = [b"", b"\0", b"\0\0", b"a", b"a\0\0\0\0\0", b"aaaaa", b"b"];
        let mut reversed = sorted;
        reversed.reverse();
        let keys = packed(&reversed);
        keys.check();
        assert_eq!(listed(&keys), sorted);
        assert!(sorted.iter().enumerate().all(|(i, key)| keys.find(key) == Ok(i)));
    }

    #[test]
    fn the_shared_part_stands_once() {
        let mut keys = packed(&[b"/registry/pods/a", b"/registry/pods/b", b"/registry/services/c"]);
        assert_eq!(&*keys.prefix, b"/registry/");
        let right = keys.split_off(2);
        assert_eq!((&*keys.prefix, &*right.prefix), (&b"/registry/pods/"[..], &b"/registry/services/c"[..]));
        keys.append(right);
        assert_eq!(&*keys.prefix, b"/registry/");
        keys.check();
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn they_behave_as_a_sorted_list(
            keys in prop::collection::btree_set(prop::collection::vec(0u8..3, 0..7), 1..30),
            order: prop::sample::Index, at: prop::sample::Index,
            doomed in prop::collection::vec(any::<bool>(), 30),
        ) {
            let sorted: Vec<Vec<u8>> = keys.into_iter().collect();
            let mut inserted: Vec<&[u8]> = sorted.iter().map(Vec::as_slice).collect();
            inserted.rotate_left(order.index(sorted.len()));
            let mut packed = packed(&inserted);
            packed.check();
            prop_assert_eq!(listed(&packed), sorted.clone());

            let at = at.index(sorted.len() + 1);
            let right = packed.split_off(at);
            packed.check();
            right.check();
            prop_assert_eq!(listed(&packed), sorted[..at].to_vec());
            prop_assert_eq!(listed(&right), sorted[at..].to_vec());
            packed.append(right);
            packed.check();
            prop_assert_eq!(listed(&packed), sorted.clone());

            let places: Vec<usize> = (0..sorted.len()).filter(|i| doomed[*i]).collect();
            packed.remove(&places);
            packed.check();
            let kept: Vec<_> = sorted.iter().enumerate().filter(|(i, _)| !doomed[*i]).map(|(_, key)| key.clone()).collect();
            prop_assert_eq!(listed(&packed), kept);
        }
    }
}
