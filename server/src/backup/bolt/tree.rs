use super::node::{Kind, Node};
use super::{FormatError, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Gets each page of a tree with its number, numbers rising.
pub(super) type Emit<'a, E> = &'a mut dyn FnMut(u64, &Node) -> Result<(), E>;

/// Builds the tree of one bucket from its pairs in order, and holds no more than one page of each level.
///
/// A page is given away when the next element does not fit into it; the one above it then learns of it.
/// bbolt wants two children at least in a branch, so a branch that is given away keeps its last element
/// back for the next one.
pub(super) struct Tree<'a, E> {
    /// The leaf, then the branches above it.
    levels: Vec<Node>,
    last_key: Vec<u8>,
    next_page: u64,
    emit: Emit<'a, E>,
}

impl<'a, E: From<FormatError>> Tree<'a, E> {
    /// Begins a tree whose first page has this number.
    pub(super) fn new(first_page: u64, emit: Emit<'a, E>) -> Self {
        Self { levels: vec![Node::new(Kind::Leaf)], last_key: Vec::new(), next_page: first_page, emit }
    }

    /// Adds a pair; keys rise.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], flags: u64) -> Result<(), E> {
        if key.is_empty() {
            return Err(FormatError::EmptyKey.into());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(FormatError::KeyTooLong(key.len()).into());
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(FormatError::ValueTooLong(value.len()).into());
        }
        if key <= self.last_key.as_slice() {
            return Err(FormatError::OutOfOrder.into());
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        if self.levels[0].len() > 0 && self.levels[0].is_full_for(key.len() + value.len()) {
            self.give_away(0)?;
        }
        self.levels[0].push(key, value, flags);
        Ok(())
    }

    /// Gives the rest away. Returns the number of the root page and the next free one.
    pub(super) fn finish(mut self) -> Result<(u64, u64), E> {
        let top = |tree: &Self| tree.levels.len() - 1;
        let mut level = 0;
        while level < top(&self) {
            self.give_away(level)?;
            level += 1;
        }
        let root = self.emit(level)?;
        Ok((root, self.next_page))
    }

    /// Gives a page away and points to it from the level above.
    fn give_away(&mut self, level: usize) -> Result<(), E> {
        let key = self.levels[level].first_key().to_vec();
        let page = self.emit(level)?;
        self.levels[level].clear();
        let above = level + 1;
        if above == self.levels.len() {
            self.levels.push(Node::new(Kind::Branch));
        }
        // With fewer than three elements there would be one left in the page, or none kept back.
        if self.levels[above].len() > 2 && self.levels[above].is_full_for(key.len()) {
            let kept = self.levels[above].pop();
            self.give_away(above)?;
            if let Some((key, page)) = kept {
                self.levels[above].push(&key, &[], page);
            }
        }
        self.levels[above].push(&key, &[], page);
        Ok(())
    }

    fn emit(&mut self, level: usize) -> Result<u64, E> {
        let node = &self.levels[level];
        let page = self.next_page;
        self.next_page += node.pages();
        (self.emit)(page, node)?;
        Ok(page)
    }
}
