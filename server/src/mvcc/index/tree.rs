//! The ordered map of keys to entries: a B+tree whose nodes know how many live keys they hold, so
//! that counting an interval takes two descents.
//!
//! Every leaf is at the same depth. Entries are removed by sweeps only, which join what becomes
//! small with its left neighbour.

use std::ops::ControlFlow;

use super::entry::Entry;
use super::keys::{Keys, common};
use super::leaf::Leaf;

/// Children of a node before it is split. Small in tests, so that little trees are deep.
const CHILDREN_MAX: usize = if cfg!(test) { 4 } else { 64 };

/// Entries of a leaf that is built from sorted keys: a little room is left for new ones.
const BUILT_ENTRIES: usize = if cfg!(test) { 5 } else { 60 };

/// What looking past a leaf costs a sweep, in entries.
const SKIP_COST: usize = 4;

/// Keys in order with their entries.
pub(crate) struct Tree {
    root: Node,
    live: u64,
}

enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

struct Inner {
    /// `separators[i]` is above every key of child `i` and not above any key of child `i + 1`.
    separators: Keys,
    children: Vec<Child>,
}

struct Child {
    node: Node,
    live: u64,
}

/// The right part of a node that became too big.
struct Split {
    separator: Box<[u8]>,
    right: Child,
}

/// An interval of keys: from the first on, up to but not the second where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'a> {
    pub(crate) from: &'a [u8],
    pub(crate) to: Option<&'a [u8]>,
}

impl Interval<'_> {
    /// Every key.
    pub(crate) const ALL: Interval<'static> = Interval { from: b"", to: None };

    /// Whether a key is in the interval.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.from <= key && self.to.is_none_or(|to| key < to)
    }

    /// Whether no key can be in the interval.
    pub(crate) fn is_empty(&self) -> bool {
        self.to.is_some_and(|to| to <= self.from)
    }
}

/// A key in the tree, in two parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    prefix: &'a [u8],
    suffix: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// A key that is at hand as a whole.
    pub(crate) fn whole(key: &'a [u8]) -> Self {
        Self { prefix: b"", suffix: key }
    }

    /// A key of which the second part stands behind the first.
    pub(crate) fn parts(prefix: &'a [u8], suffix: &'a [u8]) -> Self {
        Self { prefix, suffix }
    }

    /// Copies the key.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }

    /// Its two parts.
    pub(crate) fn halves(self) -> [&'a [u8]; 2] {
        [self.prefix, self.suffix]
    }
}

/// What becomes of an entry that a sweep visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Remove,
}

/// What a sweep looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Entries that changed since the last index checkpoint.
    Dirty,
    /// Entries of which a compaction may remove something.
    History,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::Leaf(Box::default()), live: 0 }
    }
}

impl Tree {
    /// The number of live keys.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)].node,
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|i| leaf.entry(i)),
            }
        }
    }

    /// Changes the entry of a key, a new one where there was none.
    pub(crate) fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> R {
        let (result, growth, split) = self.root.update(key, change);
        self.live = self.live.saturating_add_signed(growth);
        if let Some(Split { separator, right }) = split {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Box::default()));
            let left = Child { node: left, live: self.live - right.live };
            let mut separators = Keys::default();
            separators.insert(0, &separator);
            self.root = Node::Inner(Box::new(Inner { separators, children: vec![left, right] }));
        }
        result
    }

    /// The number of live keys in an interval.
    pub(crate) fn count(&self, interval: Interval<'_>) -> u64 {
        if interval.is_empty() {
            return 0;
        }
        interval.to.map_or(self.live, |to| self.live_before(to)) - self.live_before(interval.from)
    }

    /// The number of live keys before a key.
    fn live_before(&self, key: &[u8]) -> u64 {
        let mut node = &self.root;
        let mut before = 0;
        loop {
            match node {
                Node::Inner(inner) => {
                    let i = inner.child_of(key);
                    before += inner.children[..i].iter().map(|child| child.live).sum::<u64>();
                    node = &inner.children[i].node;
                }
                Node::Leaf(leaf) => {
                    let (Ok(i) | Err(i)) = leaf.find(key);
                    return before + leaf.live_before(i);
                }
            }
        }
    }

    /// Visits the entries of an interval in order, until one visit breaks off.
    pub(crate) fn scan(&self, interval: Interval<'_>, visit: &mut dyn FnMut(KeyRef<'_>, &Entry) -> ControlFlow<()>) {
        if !interval.is_empty() {
            // Broken off or at the end, there is nothing more to do.
            let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
                self.root.scan(Some(interval.from), interval.to, visit);
        }
    }

    /// Visits the entries from a key on, past the leaves without anything of interest (the others are
    /// visited whole), until about `budget` entries were looked at. Returns where to go on.
    pub(crate) fn sweep(
        &mut self,
        from: &[u8],
        interest: Interest,
        budget: usize,
        visit: &mut dyn FnMut(KeyRef<'_>, &mut Entry) -> Fate,
    ) -> Option<Vec<u8>> {
        let mut sweep = Sweep { interest, budget, next: None, visit };
        self.live = self.root.sweep(Some(from), &mut sweep);
        let next = sweep.next;
        while let Node::Inner(inner) = &mut self.root {
            match inner.children.len() {
                0 => self.root = Node::Leaf(Box::default()),
                1 => self.root = inner.children.remove(0).node,
                _ => break,
            }
        }
        next
    }
}

/// A sweep under way.
struct Sweep<'a> {
    interest: Interest,
    budget: usize,
    next: Option<Vec<u8>>,
    visit: &'a mut dyn FnMut(KeyRef<'_>, &mut Entry) -> Fate,
}

impl Node {
    /// Changes an entry; returns also by how much the live keys grew, and what had to be split off.
    fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> (R, i64, Option<Split>) {
        match self {
            Self::Leaf(leaf) => {
                let before = leaf.live();
                let (result, place) = leaf.update(key, change);
                let growth = i64::from(leaf.live()) - i64::from(before);
                let split = leaf.is_too_big().then(|| {
                    let right = leaf.split(place);
                    let separator = separator(&leaf.key(leaf.len() - 1).to_vec(), &right.key(0).to_vec());
                    let live = u64::from(right.live());
                    Split { separator, right: Child { node: Self::Leaf(Box::new(right)), live } }
                });
                (result, growth, split)
            }
            Self::Inner(inner) => {
                let i = inner.child_of(key);
                let child = &mut inner.children[i];
                let (result, growth, split) = child.node.update(key, change);
                child.live = child.live.saturating_add_signed(growth);
                let Some(split) = split else { return (result, growth, None) };
                child.live -= split.right.live;
                inner.separators.insert(i, &split.separator);
                inner.children.insert(i + 1, split.right);
                (result, growth, inner.split(i + 1))
            }
        }
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(KeyRef<'_>, &Entry) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Self::Leaf(leaf) => {
                let place = |key| leaf.find(key).unwrap_or_else(|place| place);
                let (first, end) = (from.map_or(0, place), to.map_or(leaf.len(), place));
                (first..end).try_for_each(|i| visit(leaf.key(i), leaf.entry(i)))
            }
            Self::Inner(inner) => {
                let first = from.map_or(0, |from| inner.child_of(from));
                let last = to.map_or(inner.separators.len(), |to| inner.child_of(to));
                (first..=last).try_for_each(|i| {
                    let from = if i == first { from } else { None };
                    let to = if i == last { to } else { None };
                    inner.children[i].node.scan(from, to, visit)
                })
            }
        }
    }

    /// Goes on with a sweep; returns the number of live keys afterwards.
    fn sweep(&mut self, from: Option<&[u8]>, sweep: &mut Sweep<'_>) -> u64 {
        match self {
            Self::Leaf(leaf) => {
                let first = from.map_or(0, |from| leaf.find(from).unwrap_or_else(|place| place));
                if first == leaf.len() || !leaf.has(sweep.interest) {
                    sweep.budget = sweep.budget.saturating_sub(SKIP_COST);
                } else if sweep.budget == 0 {
                    sweep.next = Some(leaf.key(first).to_vec());
                } else {
                    sweep.budget = sweep.budget.saturating_sub(leaf.sweep(first, sweep.visit));
                }
                u64::from(leaf.live())
            }
            Self::Inner(inner) => {
                inner.sweep(from, sweep);
                inner.children.iter().map(|child| child.live).sum()
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.len() == 0,
            Self::Inner(inner) => inner.children.is_empty(),
        }
    }
}

impl Inner {
    /// The child that a key belongs to.
    fn child_of(&self, key: &[u8]) -> usize {
        // A key that equals a separator belongs behind it.
        self.separators.find(key).map_or_else(|i| i, |i| i + 1)
    }

    /// Splits the right part off if the node is too big; `inserted` is the place of the new child.
    fn split(&mut self, inserted: usize) -> Option<Split> {
        if self.children.len() <= CHILDREN_MAX {
            return None;
        }
        let is_last = inserted == self.children.len() - 1;
        let at = if is_last { inserted } else { self.children.len() / 2 };
        let children = self.children.split_off(at);
        let separators = self.separators.split_off(at);
        let separator = self.separators.get(at - 1).to_vec().into();
        self.separators.remove(&[at - 1]);
        let live = children.iter().map(|child| child.live).sum();
        let right = Child { node: Node::Inner(Box::new(Self { separators, children })), live };
        Some(Split { separator, right })
    }

    /// Goes on with a sweep, and tidies up behind it.
    fn sweep(&mut self, from: Option<&[u8]>, sweep: &mut Sweep<'_>) {
        let first = from.map_or(0, |from| self.child_of(from));
        let mut i = first;
        let mut from = from;
        while i < self.children.len() && sweep.next.is_none() {
            let child = &mut self.children[i];
            child.live = child.node.sweep(from.take(), sweep);
            if child.node.is_empty() {
                self.remove_child(i);
            } else if !self.join_with_left(i) {
                i += 1;
            }
        }
    }

    fn remove_child(&mut self, i: usize) {
        self.children.remove(i);
        if self.separators.len() > 0 {
            // The gap goes to the left neighbour, or for the first child to the right one.
            self.separators.remove(&[i.saturating_sub(1)]);
        }
    }

    /// Joins a child with its left neighbour where the two make one; whether it did.
    fn join_with_left(&mut self, i: usize) -> bool {
        let Some(left) = i.checked_sub(1) else { return false };
        let fits = match (&self.children[left].node, &self.children[i].node) {
            (Node::Leaf(a), Node::Leaf(b)) => a.fits_with(b),
            (Node::Inner(a), Node::Inner(b)) => a.children.len() + b.children.len() <= CHILDREN_MAX * 3 / 4,
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => false,
        };
        if !fits {
            return false;
        }
        let right = self.children.remove(i);
        let separator = self.separators.get(left).to_vec();
        self.separators.remove(&[left]);
        let left = &mut self.children[left];
        left.live += right.live;
        match (&mut left.node, right.node) {
            (Node::Leaf(a), Node::Leaf(b)) => a.append(*b),
            (Node::Inner(a), Node::Inner(b)) => {
                a.separators.insert(a.separators.len(), &separator);
                a.separators.append(b.separators);
                a.children.extend(b.children);
            }
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
                unreachable!("every leaf is at the same depth")
            }
        }
        true
    }
}

/// The shortest key that is above one and not above the other.
fn separator(left: &[u8], right: &[u8]) -> Box<[u8]> {
    right[..=common(left, right)].into()
}

/// Builds a tree from keys in order.
#[derive(Default)]
pub(crate) struct Builder {
    /// The leaf that is being gathered.
    keys: Vec<u8>,
    ends: Vec<u32>,
    entries: Vec<Entry>,
    /// The finished ones, each with what separates it from the one before.
    leaves: Vec<(Box<[u8]>, Child)>,
    last_key: Vec<u8>,
    separator: Box<[u8]>,
}

impl Builder {
    /// Adds a key, which must be above all others; whether it was.
    #[must_use]
    pub(crate) fn push(&mut self, key: &[u8], entry: Entry) -> bool {
        let is_first = self.entries.is_empty() && self.leaves.is_empty();
        if !is_first && *key <= *self.last_key {
            return false;
        }
        if self.entries.len() == BUILT_ENTRIES {
            self.end_leaf();
            self.separator = separator(&self.last_key, key);
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.keys.extend_from_slice(key);
        self.ends.push(u32::try_from(self.keys.len()).expect("the keys of a leaf are far below 4 GiB"));
        self.entries.push(entry);
        true
    }

    /// Adds the keys of another builder, which must be above all of these; whether they were.
    #[must_use]
    pub(crate) fn append(&mut self, mut right: Self) -> bool {
        let Some(first) = right.first_key() else { return true };
        if self.entries.is_empty() {
            *self = right;
            return true;
        }
        if *first <= *self.last_key {
            return false;
        }
        self.end_leaf();
        let between = separator(&self.last_key, &first);
        match right.leaves.first_mut() {
            Some((before, _)) => *before = between,
            None => right.separator = between,
        }
        self.leaves.append(&mut right.leaves);
        *self = Self { leaves: std::mem::take(&mut self.leaves), ..right };
        true
    }

    fn first_key(&self) -> Option<Vec<u8>> {
        match self.leaves.first() {
            Some((_, Child { node: Node::Leaf(leaf), .. })) => Some(leaf.key(0).to_vec()),
            _ => self.ends.first().map(|end| self.keys[..*end as usize].to_vec()),
        }
    }

    fn end_leaf(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.shrink_to_fit();
        let leaf = Leaf::new(Keys::from_sorted(&self.keys, &self.ends), entries);
        self.keys.clear();
        self.ends.clear();
        self.entries.reserve_exact(BUILT_ENTRIES);
        let live = u64::from(leaf.live());
        let child = Child { node: Node::Leaf(Box::new(leaf)), live };
        self.leaves.push((std::mem::take(&mut self.separator), child));
    }

    /// The tree of the keys.
    pub(crate) fn finish(mut self) -> Tree {
        self.end_leaf();
        let mut level = self.leaves;
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len().div_ceil(CHILDREN_MAX));
            let mut nodes = level.into_iter().peekable();
            while let Some((before, child)) = nodes.next() {
                let mut inner = Inner { separators: Keys::default(), children: vec![child] };
                while inner.children.len() < CHILDREN_MAX
                    && let Some((separator, child)) = nodes.next()
                {
                    inner.separators.insert(inner.separators.len(), &separator);
                    inner.children.push(child);
                }
                let live = inner.children.iter().map(|child| child.live).sum();
                above.push((before, Child { node: Node::Inner(Box::new(inner)), live }));
            }
            level = above;
        }
        level.pop().map_or_else(Tree::default, |(_, child)| Tree { root: child.node, live: child.live })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::super::super::Revision;
    use super::super::super::tests::cases;
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>),
        /// Deletes the first live key from one on.
        Delete(Vec<u8>),
        /// Removes the dead keys from one on, looking at so many.
        Sweep(Vec<u8>, usize),
        Count(Vec<u8>, Option<Vec<u8>>),
        Rebuild,
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0u16..300).prop_map(|n| format!("/registry/pods/{n:03}").into_bytes()),
            (0u16..300).prop_map(|n| format!("/registry/leases/{n:x}").into_bytes()),
            prop::collection::vec(0u8..3, 0..4),
            prop::collection::vec(any::<u8>(), 1..9),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => key().prop_map(Step::Put),
            3 => key().prop_map(Step::Delete),
            2 => (key(), 0usize..40).prop_map(|(key, budget)| Step::Sweep(key, budget)),
            2 => (key(), prop::option::of(key())).prop_map(|(from, to)| Step::Count(from, to)),
            1 => Just(Step::Rebuild),
        ]
    }

    /// The tree and what it should hold: key → whether it is live.
    #[derive(Default)]
    struct World {
        tree: Tree,
        model: BTreeMap<Vec<u8>, bool>,
        revision: i64,
    }

    impl World {
        fn apply(&mut self, step: &Step) {
            self.revision += 1;
            let revision = Revision { main: self.revision, sub: 0 };
            match step {
                Step::Put(key) => {
                    self.tree.upsert(key, |entry| entry.put(revision, revision.main, 1, 0));
                    self.model.insert(key.clone(), true);
                }
                Step::Delete(from) => {
                    let mut live = self.model.range_mut(from.clone()..).filter(|(_, is_live)| **is_live);
                    if let Some((key, is_live)) = live.next() {
                        self.tree.upsert(key, |entry| entry.delete(revision));
                        *is_live = false;
                    }
                }
                Step::Sweep(from, budget) => {
                    let next = self.tree.sweep(from, Interest::History, *budget, &mut |_, entry| {
                        if entry.is_live() { Fate::Keep } else { Fate::Remove }
                    });
                    let swept = |key: &Vec<u8>| key >= from && next.as_ref().is_none_or(|next| key < next);
                    self.model.retain(|key, is_live| *is_live || !swept(key));
                }
                Step::Count(from, to) => {
                    let interval = Interval { from, to: to.as_deref() };
                    let expected = self.model.iter().filter(|(key, is_live)| **is_live && interval.contains(key));
                    assert_eq!(self.tree.count(interval), expected.count() as u64);
                    let mut found = Vec::new();
                    self.tree.scan(interval, &mut |key, _| {
                        found.push(key.to_vec());
                        ControlFlow::Continue(())
                    });
                    assert!(found.iter().eq(self.model.keys().filter(|key| interval.contains(key))));
                }
                Step::Rebuild => {
                    // In two parts, of which either may be empty.
                    let mut parts = [Builder::default(), Builder::default()];
                    let cut = usize::try_from(self.revision).unwrap() % (self.model.len() + 1);
                    for (place, (key, is_live)) in self.model.iter().enumerate() {
                        let live = is_live.then_some((self.revision, 1, 0));
                        let part = &mut parts[usize::from(place >= cut)];
                        assert!(part.push(key, Entry::restored(revision, live, Vec::new())));
                    }
                    let [mut whole, rest] = parts;
                    assert!(whole.append(rest));
                    self.tree = whole.finish();
                }
            }
        }

        fn check(&self) {
            assert_eq!(check_node(&self.tree.root, Bound::Unbounded, Bound::Unbounded).1, self.tree.live);
            let mut found = Vec::new();
            self.tree.scan(Interval::ALL, &mut |key, entry| {
                found.push((key.to_vec(), entry.is_live()));
                ControlFlow::Continue(())
            });
            assert!(found.iter().map(|(key, live)| (key, live)).eq(&self.model));
            assert_eq!(self.tree.live(), self.model.values().filter(|is_live| **is_live).count() as u64);
            for (key, is_live) in &self.model {
                assert_eq!(self.tree.get(key).map(Entry::is_live), Some(*is_live));
            }
        }
    }

    /// Checks a node whose keys must be between two bounds; returns its depth and live keys.
    fn check_node(node: &Node, from: Bound<&[u8]>, to: Bound<&[u8]>) -> (usize, u64) {
        match node {
            Node::Leaf(leaf) => {
                leaf.check();
                for i in 0..leaf.len() {
                    let key = leaf.key(i).to_vec();
                    assert!(matches!(from, Bound::Included(from) if from <= &*key) || from == Bound::Unbounded);
                    assert!(matches!(to, Bound::Excluded(to) if &*key < to) || to == Bound::Unbounded);
                }
                (0, u64::from(leaf.live()))
            }
            Node::Inner(inner) => {
                inner.separators.check();
                assert_eq!(inner.children.len(), inner.separators.len() + 1);
                assert!(inner.children.len() <= CHILDREN_MAX);
                let mut total = 0;
                let mut depths = Vec::new();
                for (i, child) in inner.children.iter().enumerate() {
                    let separators: Vec<_> =
                        (0..inner.separators.len()).map(|i| inner.separators.get(i).to_vec()).collect();
                    let from = if i == 0 { from } else { Bound::Included(&*separators[i - 1]) };
                    let to = separators.get(i).map_or(to, |separator| Bound::Excluded(&**separator));
                    let (depth, live) = check_node(&child.node, from, to);
                    assert_eq!(live, child.live);
                    assert!(!child.node.is_empty());
                    depths.push(depth);
                    total += live;
                }
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                (depths[0] + 1, total)
            }
        }
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn the_tree_equals_an_ordered_map(steps in prop::collection::vec(step(), 1..300)) {
            let mut world = World::default();
            for step in &steps {
                world.apply(step);
            }
            world.check();
        }

        #[test]
        fn a_tree_that_is_swept_empty_serves_on(keys in prop::collection::btree_set(key(), 0..200)) {
            let mut world = World::default();
            for round in 0..2 {
                for key in &keys {
                    world.apply(&Step::Put(key.clone()));
                }
                world.check();
                for _ in &keys {
                    world.apply(&Step::Delete(Vec::new()));
                    if round == 0 {
                        world.apply(&Step::Sweep(Vec::new(), 7));
                    }
                }
                world.apply(&Step::Sweep(Vec::new(), usize::MAX));
                world.check();
                prop_assert!(world.model.is_empty());
            }
        }
    }

    #[test]
    fn keys_in_order_fill_their_leaves() {
        let mut tree = Tree::default();
        for i in 0..600 {
            let revision = Revision { main: i + 1, sub: 0 };
            tree.upsert(format!("{i:04}").as_bytes(), |entry| entry.put(revision, 1, 1, 0));
        }
        fn leaves(node: &Node) -> usize {
            match node {
                Node::Leaf(_) => 1,
                Node::Inner(inner) => inner.children.iter().map(|child| leaves(&child.node)).sum(),
            }
        }
        assert_eq!(leaves(&tree.root), 100);
    }

    #[test]
    fn a_builder_takes_keys_in_order_only() {
        let mut builder = Builder::default();
        assert!(builder.push(b"", Entry::default()) && builder.push(b"b", Entry::default()));
        assert!(!builder.push(b"b", Entry::default()) && !builder.push(b"a", Entry::default()));
    }
}
