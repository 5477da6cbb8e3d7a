use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use mainstay_proto::KeyRange;

use crate::watch::WatcherKey;

/// Half-open intervals of keys with the watchers of each: an AVL tree ordered by (start, end).
///
/// Every node knows the greatest end below it, so that a search leaves out each subtree that
/// ends before the key: it follows one path for the start, and one for each interval found.
#[derive(Default)]
pub(super) struct IntervalTree {
    root: Link,
}

/// Where an interval ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere; greater than every key.
    Never,
}

type Link = Option<Box<Node>>;

struct Node {
    start: Bytes,
    end: End,
    watchers: BTreeSet<WatcherKey>,
    /// The greatest end of this node and of those below it.
    end_max: End,
    height: u8,
    left: Link,
    right: Link,
}

impl End {
    pub(super) fn of(range: &KeyRange) -> Self {
        range.end_exclusive().map_or(Self::Never, Self::Before)
    }

    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Never => true,
        }
    }
}

impl IntervalTree {
    pub(super) fn insert(&mut self, start: Bytes, end: End, watcher: WatcherKey) {
        self.root = Some(insert(self.root.take(), start, end, watcher));
    }

    pub(super) fn remove(&mut self, start: &Bytes, end: &End, watcher: WatcherKey) {
        self.root = remove(self.root.take(), start, end, watcher);
    }

    /// Visits the watchers of every interval that holds the key.
    pub(super) fn visit(&self, key: &[u8], visit: &mut dyn FnMut(WatcherKey)) {
        visit_node(&self.root, key, &mut |node| {
            for watcher in &node.watchers {
                visit(*watcher);
            }
        });
    }
}

/// Calls `hit` for each node whose interval holds the key.
fn visit_node<'a>(mut link: &'a Link, key: &[u8], hit: &mut dyn FnMut(&'a Node)) {
    while let Some(node) = link {
        if !node.end_max.is_after(key) {
            return;
        }
        visit_node(&node.left, key, hit);
        if node.start.as_ref() > key {
            return;
        }
        if node.end.is_after(key) {
            hit(node);
        }
        link = &node.right;
    }
}

impl Node {
    fn compare(&self, start: &Bytes, end: &End) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    /// Derives what a node knows of its children.
    fn update(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        self.end_max = [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|child| &child.end_max)
            .chain([&self.end])
            .max()
            .cloned()
            .unwrap_or(End::Never);
    }
}

fn height(link: &Link) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

fn insert(link: Link, start: Bytes, end: End, watcher: WatcherKey) -> Box<Node> {
    let Some(mut node) = link else {
        let watchers = BTreeSet::from([watcher]);
        return Box::new(Node { start, end_max: end.clone(), end, watchers, height: 1, left: None, right: None });
    };
    match node.compare(&start, &end) {
        Ordering::Equal => {
            node.watchers.insert(watcher);
            return node;
        }
        Ordering::Less => node.left = Some(insert(node.left.take(), start, end, watcher)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), start, end, watcher)),
    }
    balance(node)
}

fn remove(link: Link, start: &Bytes, end: &End, watcher: WatcherKey) -> Link {
    let mut node = link?;
    match node.compare(start, end) {
        Ordering::Less => node.left = remove(node.left.take(), start, end, watcher),
        Ordering::Greater => node.right = remove(node.right.take(), start, end, watcher),
        Ordering::Equal => {
            node.watchers.remove(&watcher);
            if node.watchers.is_empty() {
                return join(node.left, node.right);
            }
        }
    }
    Some(balance(node))
}

/// Puts two subtrees of a removed node together.
fn join(left: Link, right: Link) -> Link {
    let Some(right) = right else { return left };
    let (rest, mut first) = take_first(right);
    first.left = left;
    first.right = rest;
    Some(balance(first))
}

/// Takes the leftmost node out of a subtree.
fn take_first(mut node: Box<Node>) -> (Link, Box<Node>) {
    match node.left.take() {
        None => (node.right.take(), node),
        Some(left) => {
            let (rest, first) = take_first(left);
            node.left = rest;
            (Some(balance(node)), first)
        }
    }
}

/// Makes the heights below a node differ by one at most; they differ by two at most before.
fn balance(mut node: Box<Node>) -> Box<Node> {
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        node.left =
            node.left.map(|child| if height(&child.right) > height(&child.left) { rotate_left(child) } else { child });
        return rotate_right(node);
    }
    if right > left + 1 {
        node.right = node
            .right
            .map(|child| if height(&child.left) > height(&child.right) { rotate_right(child) } else { child });
        return rotate_left(node);
    }
    node.update();
    node
}

fn rotate_left(mut node: Box<Node>) -> Box<Node> {
    let mut top = node.right.take().expect("the higher side is not empty");
    node.right = top.left.take();
    node.update();
    top.left = Some(node);
    top.update();
    top
}

fn rotate_right(mut node: Box<Node>) -> Box<Node> {
    let mut top = node.left.take().expect("the higher side is not empty");
    node.left = top.right.take();
    node.update();
    top.right = Some(node);
    top.update();
    top
}

#[cfg(test)]
impl IntervalTree {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Asserts order, balance and the greatest ends.
    pub(super) fn check(&self) {
        fn check(link: &Link) -> Option<End> {
            let node = link.as_ref()?;
            assert!(!node.watchers.is_empty());
            assert!(height(&node.left).abs_diff(height(&node.right)) <= 1);
            assert_eq!(node.height, 1 + height(&node.left).max(height(&node.right)));
            if let Some(left) = &node.left {
                assert_eq!(node.compare(&left.start, &left.end), Ordering::Less);
            }
            if let Some(right) = &node.right {
                assert_eq!(node.compare(&right.start, &right.end), Ordering::Greater);
            }
            let end_max = check(&node.left).max(check(&node.right)).max(Some(node.end.clone()));
            assert_eq!(end_max.as_ref(), Some(&node.end_max));
            end_max
        }
        check(&self.root);
    }

    /// Counts the nodes that a search of a key looks at.
    pub(super) fn steps(&self, key: &[u8]) -> usize {
        fn steps(link: &Link, key: &[u8]) -> usize {
            let Some(node) = link else { return 0 };
            if !node.end_max.is_after(key) {
                return 1;
            }
            let right = if node.start.as_ref() > key { 0 } else { steps(&node.right, key) };
            1 + steps(&node.left, key) + right
        }
        steps(&self.root, key)
    }
}
