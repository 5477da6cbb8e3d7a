//! Reads a file back, and fails on whatever bbolt would not accept.

use std::collections::{BTreeMap, BTreeSet};

use super::PAGE_BYTES;
use super::file::fnv1a;

/// The pairs of each bucket.
pub(in super::super) type Buckets = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// Reads all of a file.
pub(in super::super) fn read(file: &[u8]) -> Buckets {
    let mut reader = Reader { file, seen: BTreeSet::from([0, 1, 2]) };
    let (first, second) = (reader.meta(0), reader.meta(1));
    assert_eq!(first[..8], second[..8], "both metas lead to the same tree");
    assert!(first[8] > second[8], "the transaction decides which one counts");
    let [root, sequence, freelist, pages] = first[4..8] else { unreachable!() };
    assert_eq!((sequence, freelist, pages), (0, 2, (file.len() / PAGE_BYTES) as u64));
    assert_eq!(reader.head(freelist), (0x10, 0, 0), "an empty freelist");
    let mut buckets = Buckets::new();
    for (flags, name, value) in reader.pairs(root) {
        assert_eq!((flags, value.len()), (1, 16), "a bucket");
        let pairs = reader.pairs(u64::from_le_bytes(value[..8].try_into().unwrap()));
        let pairs = pairs.into_iter().map(|(flags, key, value)| {
            assert_eq!(flags, 0);
            (key, value)
        });
        buckets.insert(String::from_utf8(name).unwrap(), pairs.collect());
    }
    assert_eq!(reader.seen.len() as u64, pages, "every page is in use");
    buckets
}

type Pair = (u32, Vec<u8>, Vec<u8>);

struct Reader<'a> {
    file: &'a [u8],
    /// Pages that were met.
    seen: BTreeSet<u64>,
}

impl Reader<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.file[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.file[at..at + 8].try_into().unwrap())
    }

    /// Kind, number of elements, number of further pages.
    fn head(&self, page: u64) -> (u16, usize, u64) {
        let at = page as usize * PAGE_BYTES;
        assert_eq!(self.u64(at), page, "a page knows its number");
        let word = |at: usize| u16::from_le_bytes(self.file[at..at + 2].try_into().unwrap());
        (word(at + 8), word(at + 10).into(), self.u32(at + 12).into())
    }

    /// Magic, version, page size, flags, root, sequence, freelist, pages, transaction.
    fn meta(&self, page: u64) -> [u64; 9] {
        assert_eq!(self.head(page), (0x04, 0, 0));
        let at = page as usize * PAGE_BYTES + 16;
        assert_eq!(self.u64(at + 56), fnv1a(&self.file[at..at + 56]), "the checksum");
        let short = |i: usize| u64::from(self.u32(at + 4 * i));
        let long = |i: usize| self.u64(at + 16 + 8 * i);
        let meta = [short(0), short(1), short(2), short(3), long(0), long(1), long(2), long(3), long(4)];
        assert_eq!(meta[..4], [0xed0c_daed, 2, 4096, 0]);
        meta
    }

    /// The pairs below a page, in order.
    fn pairs(&mut self, page: u64) -> Vec<Pair> {
        let (kind, elements, more) = self.head(page);
        for page in page..=page + more {
            assert!(self.seen.insert(page), "page {page} is in use twice");
        }
        let start = page as usize * PAGE_BYTES;
        let end = start + (1 + more as usize) * PAGE_BYTES;
        let mut pairs: Vec<Pair> = Vec::new();
        let mut used = start + 16 + 16 * elements;
        for i in 0..elements {
            let at = start + 16 + 16 * i;
            let offset = if kind == 2 { self.u32(at + 4) } else { self.u32(at) };
            assert_eq!(at + offset as usize, used, "data stands in the order of the elements");
            let mut take = |len: u32| {
                let taken = self.file[used..used + len as usize].to_vec();
                used += len as usize;
                taken
            };
            if kind == 2 {
                let (key, value) = (take(self.u32(at + 8)), take(self.u32(at + 12)));
                assert!(!key.is_empty());
                pairs.push((self.u32(at), key, value));
            } else {
                assert_eq!(kind, 1);
                assert!(elements >= 2, "a branch has two children at least");
                let key = take(self.u32(at + 4));
                let below = self.pairs(self.u64(at + 8));
                assert_eq!(below[0].1, key, "a branch knows the first key below it");
                pairs.extend(below);
            }
        }
        assert!(used <= end && end - used < PAGE_BYTES, "no page too many or too few");
        assert!(pairs.iter().is_sorted_by(|a, b| a.1 < b.1), "keys rise");
        pairs
    }
}
