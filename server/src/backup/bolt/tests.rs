use proptest::prelude::*;

use super::reader::{Buckets, read};
use super::*;

type Bucket = (&'static str, Vec<(Vec<u8>, Vec<u8>)>);

struct Listed {
    names: Vec<&'static str>,
    buckets: Buckets,
    /// What the second listing leaves out.
    forgets: Option<&'static str>,
    listed: std::cell::RefCell<Vec<String>>,
}

impl Listed {
    fn new(buckets: &[Bucket]) -> Self {
        Self {
            names: buckets.iter().map(|(name, _)| *name).collect(),
            buckets: buckets.iter().map(|(name, pairs)| ((*name).to_owned(), pairs.clone())).collect(),
            forgets: None,
            listed: Default::default(),
        }
    }
}

impl Content for Listed {
    type Error = FormatError;

    fn buckets(&self) -> &[&'static str] {
        &self.names
    }

    fn list(&self, bucket: &str, put: Put<'_, FormatError>) -> Result<(), FormatError> {
        let again = self.listed.borrow().iter().any(|before| before == bucket);
        self.listed.borrow_mut().push(bucket.to_owned());
        if again && self.forgets == Some(bucket) {
            return Ok(());
        }
        self.buckets[bucket].iter().try_for_each(|(key, value)| put(key, value))
    }
}

fn write(content: &Listed) -> Result<Vec<u8>, FormatError> {
    let layout = Layout::of(content)?;
    let mut file = Vec::new();
    layout.write(content, &mut |pages| {
        assert!(pages.len().is_multiple_of(PAGE_BYTES));
        file.extend_from_slice(pages);
        Ok(())
    })?;
    assert_eq!(file.len() as u64, layout.bytes());
    Ok(file)
}

#[track_caller]
fn check(buckets: &[Bucket]) {
    let content = Listed::new(buckets);
    assert_eq!(read(&write(&content).unwrap()), content.buckets);
}

fn numbered(count: u32, value_bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..count).map(|i| (i.to_be_bytes().to_vec(), vec![i as u8; value_bytes])).collect()
}

#[test]
fn a_file_without_pairs_is_read_back() {
    check(&[]);
    check(&[("a", vec![]), ("b", vec![])]);
}

#[test]
fn a_small_file_is_so() {
    let file = write(&Listed::new(&[("b", vec![(b"k".to_vec(), b"value".to_vec())])])).unwrap();
    assert_eq!(file.len(), 5 * PAGE_BYTES);
    assert_eq!(file[..16], *b"\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0");
    assert_eq!(file[16..32], *b"\xed\xda\x0c\xed\x02\0\0\0\0\x10\0\0\0\0\0\0");
    let bucket = &file[3 * PAGE_BYTES..];
    assert_eq!(bucket[..16], *b"\x03\0\0\0\0\0\0\0\x02\0\x01\0\0\0\0\0");
    assert_eq!(bucket[16..38], *b"\0\0\0\0\x10\0\0\0\x01\0\0\0\x05\0\0\0kvalue");
}

#[test]
fn values_of_every_size_around_a_page_are_read_back() {
    for bytes in (0..40).chain(4_000..4_110).chain(8_150..8_200).chain([1_500_000]) {
        check(&[("a", numbered(1, bytes)), ("b", numbered(3, bytes))]);
    }
}

#[test]
fn trees_of_every_height_are_read_back() {
    // 204 pairs of this size fill a leaf, and 204 pointers a branch.
    for count in [1, 204, 205, 206, 408, 409, 41_615, 41_616, 41_617, 41_820, 41_821, 42_025, 85_000] {
        check(&[("a", numbered(count, 0))]);
    }
}

#[test]
fn keys_as_long_as_bbolt_takes_them_are_read_back() {
    let key = |i: u8, len: usize| ([vec![i], vec![b'x'; len - 1]].concat(), b"v".to_vec());
    for len in [2_000, 4_064, 4_065, KEY_BYTES_MAX] {
        check(&[("a", (0..9).map(|i| key(i, len)).collect())]);
    }
}

#[test]
fn what_bbolt_does_not_take_is_refused() {
    let refusal = |pairs| write(&Listed::new(&[("a", pairs)])).unwrap_err();
    assert_eq!(refusal(vec![(vec![], vec![])]), FormatError::EmptyKey);
    assert_eq!(refusal(vec![(vec![0; 32_769], vec![])]), FormatError::KeyTooLong(32_769));
    let pair = |key: &[u8]| (key.to_vec(), vec![]);
    assert_eq!(refusal(vec![pair(b"b"), pair(b"a")]), FormatError::OutOfOrder);
    assert_eq!(refusal(vec![pair(b"b"), pair(b"b")]), FormatError::OutOfOrder);
}

#[test]
fn a_content_that_changes_is_found() {
    let mut content = Listed::new(&[("a", numbered(300, 9)), ("b", numbered(300, 9))]);
    content.forgets = Some("a");
    assert_eq!(write(&content).unwrap_err(), FormatError::Changed);
}

#[test]
fn the_checksum_is_fnv1a() {
    assert_eq!(file::fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(file::fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(file::fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read(
        small in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..40), prop::collection::vec(any::<u8>(), 0..60), 0..600),
        large in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..2_000),
            (any::<u8>(), prop_oneof![0..50usize, 3_900..4_200usize, 0..30_000usize]), 0..40),
    ) {
        let small = small.into_iter().collect();
        let large = large.into_iter().map(|(key, (byte, len))| (key, vec![byte; len])).collect();
        check(&[("a", small), ("b", vec![]), ("c", large)]);
    }
}
