use super::node::{HEADER_BYTES, Kind, header};
use super::tree::Tree;
use super::{FormatError, PAGE_BYTES};

/// What the meta pages begin with.
const MAGIC: u32 = 0xED0C_DAED;

/// The version of the format.
const VERSION: u32 = 2;

const FREELIST_PAGE: u64 = 2;
const FIRST_FREE_PAGE: u64 = 3;

/// Marks a pair of the root bucket as a bucket.
const BUCKET_FLAG: u64 = 1;

/// The transaction of the second meta page; the first one's is one more, so that it counts.
const TRANSACTION: u64 = 1;

/// Takes the pairs of a bucket, keys rising.
pub(in super::super) type Put<'a, E> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), E>;

/// Takes some pages.
pub(in super::super) type Write<'a, E> = &'a mut dyn FnMut(&[u8]) -> Result<(), E>;

/// What a file holds. It is listed twice, and must be the same both times.
pub(in super::super) trait Content {
    /// Why listing fails.
    type Error: From<FormatError>;

    /// The names of the buckets, in their order.
    fn buckets(&self) -> &[&'static str];

    /// Lists the pairs of a bucket.
    fn list(&self, bucket: &str, put: Put<'_, Self::Error>) -> Result<(), Self::Error>;
}

/// Where everything in a file stands: what the first pass finds out.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Layout {
    /// The root page of each bucket.
    roots: Vec<u64>,
    /// The root page of the root bucket.
    root: u64,
    /// The number of pages.
    pages: u64,
}

impl Layout {
    /// Goes through the content and finds the place of everything.
    pub(in super::super) fn of<C: Content>(content: &C) -> Result<Self, C::Error> {
        Self::walk(content, &mut |_| Ok(()), false)
    }

    /// The size of the file.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }

    /// Goes through the content once more and writes the file, some whole pages at a time.
    pub(in super::super) fn write<C: Content>(&self, content: &C, write: Write<'_, C::Error>) -> Result<(), C::Error> {
        write(&self.meta(0, TRANSACTION + 1))?;
        write(&self.meta(1, TRANSACTION))?;
        let mut freelist = header(FREELIST_PAGE, Kind::Freelist, 0, 1).to_vec();
        freelist.resize(PAGE_BYTES, 0);
        write(&freelist)?;
        if Self::walk(content, write, true)? != *self {
            return Err(FormatError::Changed.into());
        }
        Ok(())
    }

    fn walk<C: Content>(content: &C, write: Write<'_, C::Error>, writes: bool) -> Result<Self, C::Error> {
        let mut pages = Vec::new();
        let mut emit = |id: u64, node: &super::node::Node| {
            if !writes {
                return Ok(());
            }
            pages.clear();
            node.encode(id, &mut pages);
            write(&pages)
        };
        let mut roots = Vec::new();
        let mut next = FIRST_FREE_PAGE;
        for bucket in content.buckets() {
            let mut tree = Tree::new(next, &mut emit);
            content.list(bucket, &mut |key, value| tree.put(key, value, 0))?;
            let (root, free) = tree.finish()?;
            roots.push(root);
            next = free;
        }
        let mut tree = Tree::new(next, &mut emit);
        for (bucket, root) in content.buckets().iter().zip(&roots) {
            let mut value = [0; 16]; // the page and a sequence that etcd does not use
            value[..8].copy_from_slice(&root.to_le_bytes());
            tree.put(bucket.as_bytes(), &value, BUCKET_FLAG)?;
        }
        let (root, pages) = tree.finish()?;
        Ok(Self { roots, root, pages })
    }

    fn meta(&self, page: u64, transaction: u64) -> Vec<u8> {
        let mut bytes = header(page, Kind::Meta, 0, 1).to_vec();
        for word in [MAGIC, VERSION, PAGE_BYTES as u32, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.root, 0, FREELIST_PAGE, self.pages, transaction] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let checksum = fnv1a(&bytes[HEADER_BYTES..]);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.resize(PAGE_BYTES, 0);
        bytes
    }
}

/// The 64-bit FNV-1a hash.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
