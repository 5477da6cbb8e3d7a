use super::PAGE_BYTES;

/// Bytes of a page's header.
pub(super) const HEADER_BYTES: usize = 16;

/// Bytes of an element, of either kind.
const ELEMENT_BYTES: usize = 16;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Points to the pages below it.
    Branch = 0x01,
    /// Holds pairs.
    Leaf = 0x02,
    /// Says where everything begins.
    Meta = 0x04,
    /// Lists the pages that are not in use.
    Freelist = 0x10,
}

/// A page that is being filled.
#[derive(Debug)]
pub(super) struct Node {
    kind: Kind,
    elements: Vec<Element>,
    /// The keys, each with its value behind it.
    data: Vec<u8>,
}

#[derive(Debug)]
struct Element {
    key_len: usize,
    value_len: usize,
    /// The flags of a pair, or the page that is pointed to.
    word: u64,
}

impl Node {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, elements: Vec::new(), data: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Adds a pair, or, with an empty value, a pointer to a page.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8], word: u64) {
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        self.elements.push(Element { key_len: key.len(), value_len: value.len(), word });
    }

    /// Whether so many bytes more would not fit into the first page.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        self.bytes() + ELEMENT_BYTES + bytes > PAGE_BYTES
    }

    /// The key of the first element; empty where there is none.
    pub(super) fn first_key(&self) -> &[u8] {
        self.elements.first().map_or(&[], |first| &self.data[..first.key_len])
    }

    /// Takes the last element out.
    pub(super) fn pop(&mut self) -> Option<(Vec<u8>, u64)> {
        let last = self.elements.pop()?;
        let key = self.data.split_off(self.data.len() - last.key_len - last.value_len);
        Some((key, last.word))
    }

    /// Pages that the node takes.
    pub(super) fn pages(&self) -> u64 {
        self.bytes().div_ceil(PAGE_BYTES) as u64
    }

    fn bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    /// Writes the node behind what is in `out`, whole pages.
    pub(super) fn encode(&self, id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&header(id, self.kind, self.elements.len(), self.pages()));
        let mut data_at = HEADER_BYTES + self.elements.len() * ELEMENT_BYTES;
        for (i, element) in self.elements.iter().enumerate() {
            let offset = (data_at - HEADER_BYTES - i * ELEMENT_BYTES) as u32;
            let key_len = element.key_len as u32;
            if self.kind == Kind::Branch {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&key_len.to_le_bytes());
                out.extend_from_slice(&element.word.to_le_bytes());
            } else {
                for word in [element.word as u32, offset, key_len, element.value_len as u32] {
                    out.extend_from_slice(&word.to_le_bytes());
                }
            }
            data_at += element.key_len + element.value_len;
        }
        out.extend_from_slice(&self.data);
        out.resize(start + self.pages() as usize * PAGE_BYTES, 0);
    }

    /// Empties the node, to be filled anew.
    pub(super) fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
        // One large value must not stay in memory for the rest of the file.
        self.data.shrink_to(4 * PAGE_BYTES);
    }
}

/// The first bytes of a page.
pub(super) fn header(id: u64, kind: Kind, elements: usize, pages: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&id.to_le_bytes());
    header[8..10].copy_from_slice(&(kind as u16).to_le_bytes());
    header[10..12].copy_from_slice(&(elements as u16).to_le_bytes());
    header[12..].copy_from_slice(&((pages - 1) as u32).to_le_bytes());
    header
}
