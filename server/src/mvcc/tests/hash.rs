//! HashKV against a straightforward computation, and across compactions.

use super::*;

#[test]
fn the_hash_of_an_empty_store_is_that_of_the_name() {
    let store = new_writer().store();
    let hash = store.hash_kv(0).unwrap();
    assert_eq!(hash, HashKv { hash: crc32c::crc32c(b"key"), compact_revision: -1, hash_revision: 1, revision: 1 });
}

#[test]
fn the_hash_is_over_revisions_and_etcds_records() {
    let mut writer = new_writer();
    put(&mut writer, "k", "v");
    delete(&mut writer, "k");
    let mut expected = b"key".to_vec();
    expected.extend(b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x01v");
    assert_eq!(writer.store().hash_kv(2).unwrap().hash, crc32c::crc32c(&expected));
    expected.extend(b"\0\0\0\0\0\0\0\x03_\0\0\0\0\0\0\0\0t\x0a\x01k");
    assert_eq!(writer.store().hash_kv(0).unwrap().hash, crc32c::crc32c(&expected));
}

#[test]
fn a_compaction_keeps_the_hash_it_was_taken_at() {
    let home = MemHome::new();
    let mut writer = open(&home);
    for i in 0..10 {
        put(&mut writer, &format!("k{}", i % 3), "v");
    }
    let store = writer.store();
    let before = store.hash_kv(6).unwrap();
    let newest = store.hash_kv(0).unwrap();
    compact(&mut writer, 6);
    assert_eq!(store.hash_kv(6).unwrap(), before);
    assert_eq!(before.compact_revision, -1);
    let now = store.hash_kv(0).unwrap();
    assert_eq!((now.compact_revision, now.hash_revision), (6, 11));
    assert_ne!(now.hash, newest.hash);
    // The cached hash of an older compaction outlives the next one; other revisions are gone.
    compact(&mut writer, 8);
    assert_eq!(store.hash_kv(6).unwrap().hash, before.hash);
    assert_eq!(store.hash_kv(8).unwrap().compact_revision, 6);
    assert!(matches!(store.hash_kv(7), Err(ReadError::Compacted)));
    assert!(matches!(store.hash_kv(12), Err(ReadError::FutureRevision)));
}

/// What etcd 3.7.1 answers.
#[test]
fn the_tombstones_of_a_compaction_are_something_that_it_keeps() {
    let mut writer = new_writer();
    put(&mut writer, "a", "1");
    put(&mut writer, "b", "1");
    compact(&mut writer, 3);
    let mut txn = writer.begin();
    txn.delete_range(&KeyRange::all(), false).unwrap();
    txn.end();
    writer.commit().unwrap();
    let store = writer.store();
    let live = store.hash_kv(4).unwrap();
    compact(&mut writer, 4);
    let hash = store.hash_kv(4).unwrap();
    assert_eq!((hash.hash, hash.compact_revision), (842_926_332, 3));
    // Asked before, etcd leaves the tombstones out, and has nothing to keep.
    assert_ne!(live.hash, hash.hash);
}

#[test]
fn it_makes_no_difference_how_far_removal_got() {
    let mut writer = new_writer();
    for i in 0..10 {
        put(&mut writer, &format!("k{}", i % 3), "v");
    }
    delete(&mut writer, "k1");
    let store = writer.store();
    writer.compact(9).unwrap();
    writer.commit().unwrap();
    let logical: Vec<u32> = (10..=12).map(|at| store.hash_kv(at).unwrap().hash).collect();
    while writer.compact_slice().unwrap() {}
    let physical: Vec<u32> = (10..=12).map(|at| store.hash_kv(at).unwrap().hash).collect();
    assert_eq!(logical, physical);
}

#[test]
fn ten_hashes_are_kept() {
    let mut writer = new_writer();
    for i in 0..12 {
        put(&mut writer, "k", "v");
        compact(&mut writer, i + 2);
    }
    let store = writer.store();
    assert!(matches!(store.hash_kv(3), Err(ReadError::Compacted)));
    assert_eq!(store.hash_kv(4).unwrap().compact_revision, 3);
}
