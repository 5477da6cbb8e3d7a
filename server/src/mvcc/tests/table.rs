//! The rules of etcd, one by one.

use super::*;
use crate::engine::Family;
use crate::engine::layout::meta;
use crate::limits;

/// Runs a history on a store that has checkpointed key `k`, and crashes after each of its batches.
fn crash_after_each_batch(history: impl Fn(&mut Writer), check: impl Fn(&Store)) {
    for kept in 0.. {
        let home = MemHome::new();
        let mut writer = open(&home);
        put(&mut writer, "k", "old");
        writer.maybe_flush(true).unwrap();
        history(&mut writer);
        let total = home.crash_keeping(kept);
        let mut writer = open(&home);
        check(&writer.store());
        while writer.compact_slice().unwrap() {}
        check(&writer.store());
        if kept >= total {
            return;
        }
    }
}

/// Pinned: the index was checkpointed before the delete, the compaction had removed the tombstone.
#[test]
fn a_restart_in_the_middle_of_a_removal_does_not_join_two_lives_of_a_key() {
    let history = |writer: &mut Writer| {
        delete(writer, "k");
        put(writer, "other", "v");
        put(writer, "k", "new");
        put(writer, "k", "newer");
        compact(writer, 4);
    };
    crash_after_each_batch(history, |store| {
        let oldest = store.compact_revision().max(1);
        for revision in oldest..=store.revision() {
            let expected = match revision {
                1 => vec![],
                2 => vec!["k=old@2"],
                3 => vec![],
                4 => vec!["other=v@4"],
                5 => vec!["k=new@5", "other=v@4"],
                _ => vec!["k=newer@6", "other=v@4"],
            };
            assert_eq!(show(&store.range(&KeyRange::all(), &at(revision)).unwrap()), expected, "at {revision}");
        }
    });
}

/// Pinned: the tombstone was gone and the entry of the index was not.
#[test]
fn a_restart_in_the_middle_of_a_removal_does_not_bring_a_deleted_key_back() {
    for puts in 0..4 {
        let history = |writer: &mut Writer| {
            for _ in 0..puts {
                put(writer, "k", "old");
            }
            let revision = delete(writer, "k").unwrap();
            put(writer, "other", "v");
            compact(writer, revision + 1);
        };
        crash_after_each_batch(history, |store| {
            let is_deleted = store.revision() >= 3 + puts;
            assert_eq!(store.get_at(b"k", store.revision()).unwrap().is_none(), is_deleted);
        });
    }
}

#[test]
fn a_new_store_is_at_revision_one() {
    let mut writer = new_writer();
    let store = writer.store();
    assert_eq!((store.revision(), store.compact_revision(), writer.revision()), (1, -1, 1));
    assert_eq!(store.range(&KeyRange::all(), &at(0)).unwrap(), RangeResult { revision: 1, ..RangeResult::default() });
    assert_eq!(put(&mut writer, "k", "v"), 2);
    assert_eq!(delete(&mut writer, "absent"), None);
    assert_eq!(writer.revision(), 2);
}

#[test]
fn versions_count_from_each_creation() {
    let mut writer = new_writer();
    put(&mut writer, "k", "1");
    put(&mut writer, "k", "2");
    delete(&mut writer, "k");
    put(&mut writer, "k", "3");
    let store = writer.store();
    for (revision, expected) in [(2, Some((2, 1))), (3, Some((2, 2))), (4, None), (5, Some((5, 1)))] {
        let kv = store.get_at(b"k", revision).unwrap();
        assert_eq!(kv.map(|kv| (kv.create_revision, kv.version)), expected, "at {revision}");
    }
}

#[test]
fn one_transaction_is_one_revision_and_sees_itself() {
    let mut writer = new_writer();
    put(&mut writer, "a", "0");
    let mut txn = writer.begin();
    assert_eq!(txn.revision(), 2);
    txn.put(bytes("b"), bytes("1"), 0).unwrap();
    assert_eq!(txn.revision(), 3);
    txn.delete_range(&KeyRange::all(), false).unwrap();
    txn.put(bytes("a"), bytes("2"), 0).unwrap();
    assert_eq!(show(&txn.range(&KeyRange::all(), &at(0)).unwrap()), ["a=2@3"]);
    assert_eq!(txn.end(), Some(3));
    assert_eq!(show(&writer.store().range(&KeyRange::all(), &at(0)).unwrap()), ["a=0@2"]);
    let events = writer.commit().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].events.len(), 4);
    assert_eq!(show(&writer.store().range(&KeyRange::all(), &at(0)).unwrap()), ["a=2@3"]);
}

#[test]
fn a_key_deleted_and_put_again_in_one_transaction_survives_everything() {
    let home = MemHome::new();
    let mut writer = open(&home);
    put(&mut writer, "k", "old");
    let mut txn = writer.begin();
    txn.delete_range(&KeyRange::single("k"), false).unwrap();
    txn.put(bytes("k"), bytes("new"), 0).unwrap();
    txn.end();
    writer.commit().unwrap();
    let store = writer.store();
    let kv = store.get_at(b"k", 3).unwrap().unwrap();
    assert_eq!((kv.create_revision, kv.version), (3, 1));
    let hash = store.hash_kv(3).unwrap().hash;
    compact(&mut writer, 3);
    assert_eq!(show(&store.range(&KeyRange::all(), &at(3)).unwrap()), ["k=new@3"]);
    assert_eq!(store.hash_kv(3).unwrap().hash, hash);
    let history = store.events(3, 3, 1).unwrap();
    assert_eq!(history.revisions[0].events.len(), 1);
    assert_eq!(history.next, 4);
    writer.maybe_flush(true).unwrap();
    home.crash();
    let mut writer = open(&home);
    assert_eq!(show(&writer.store().range(&KeyRange::all(), &at(3)).unwrap()), ["k=new@3"]);
    put(&mut writer, "k", "newer");
    compact(&mut writer, 4);
    assert_eq!(show(&writer.store().range(&KeyRange::all(), &at(0)).unwrap()), ["k=newer@4"]);
}

#[test]
fn compaction_refuses_what_etcd_refuses() {
    let mut writer = new_writer();
    put(&mut writer, "k", "v");
    assert!(matches!(writer.compact(3), Err(ReadError::FutureRevision)));
    assert!(matches!(writer.compact(-1), Err(ReadError::Compacted)));
    compact(&mut writer, 0);
    assert_eq!(writer.store().compact_revision(), 0);
    assert!(matches!(writer.compact(0), Err(ReadError::Compacted)));
    compact(&mut writer, 2);
    let store = writer.store();
    assert!(matches!(store.range(&KeyRange::all(), &at(1)), Err(ReadError::Compacted)));
    assert!(store.range(&KeyRange::all(), &at(2)).is_ok());
    assert!(matches!(store.range(&KeyRange::all(), &at(3)), Err(ReadError::FutureRevision)));
    assert!(matches!(store.events(1, 9, 1), Err(ReadError::Compacted)));
}

#[test]
fn a_tombstone_at_the_compacted_revision_is_still_an_event() {
    let mut writer = new_writer();
    put(&mut writer, "k", "v");
    delete(&mut writer, "k");
    compact(&mut writer, 3);
    let history = writer.store().events(3, 9, usize::MAX).unwrap();
    assert_eq!(history.revisions[0].events[0].r#type, 1);
    assert_eq!(history.next, 4);
    put(&mut writer, "other", "v");
    compact(&mut writer, 4);
    assert_eq!(writer.store().events(4, 9, usize::MAX).unwrap().revisions.len(), 1);
}

#[test]
fn history_is_cut_between_revisions_only() {
    let mut writer = new_writer();
    put(&mut writer, "a", "1");
    let mut txn = writer.begin();
    txn.put(bytes("b"), bytes("1"), 0).unwrap();
    txn.put(bytes("c"), bytes("1"), 0).unwrap();
    txn.end();
    writer.commit().unwrap();
    put(&mut writer, "d", "1");
    let store = writer.store();
    for (from, max_bytes, expected, next) in [
        (1, 1, &[(2, 1)][..], 3),
        (3, 1, &[(3, 2)], 4),
        (3, usize::MAX, &[(3, 2), (4, 1)], 5),
        (5, 1, &[], 5),
        (9, 1, &[], 9),
    ] {
        let slice = store.events(from, i64::MAX - 1, max_bytes).unwrap();
        let found: Vec<_> = slice.revisions.iter().map(|events| (events.revision, events.events.len())).collect();
        assert_eq!((&found[..], slice.next), (expected, next), "from {from}");
    }
}

#[test]
fn leases_are_told_of_and_left_out_of_keys() {
    let mut writer = new_writer();
    let mut txn = writer.begin();
    assert_eq!(txn.put(bytes("k"), bytes("v"), 7).unwrap(), PutEffect { lease_before: 0, existed: false });
    assert_eq!(txn.put(bytes("k"), bytes("v"), 8).unwrap(), PutEffect { lease_before: 7, existed: true });
    let deleted = txn.delete_range(&KeyRange::single("k"), true).unwrap();
    assert_eq!((deleted[0].lease, deleted[0].prev.as_ref().unwrap().version), (8, 2));
    txn.put(bytes("k"), bytes("v"), 9).unwrap();
    txn.end();
    writer.commit().unwrap();
    let keys_only = RangeOptions { keys_only: true, ..at(0) };
    let found = writer.store().range(&KeyRange::all(), &keys_only).unwrap();
    assert_eq!((found.kvs[0].lease, found.kvs[0].value.len(), found.kvs[0].version), (0, 0, 1));
    assert_eq!(writer.store().get_at(b"k", 2).unwrap().unwrap().lease, 9);
}

#[test]
fn long_ranges_go_on_from_slice_to_slice() {
    let mut writer = new_writer();
    let total = 2_010;
    for i in 0..total {
        let mut txn = writer.begin();
        txn.put(format!("k{i:06}").into(), bytes("v"), 0).unwrap();
    }
    writer.commit().unwrap();
    let newest = writer.revision();
    delete(&mut writer, "k000003");
    let store = writer.store();
    for (revision, limit, expected, count) in [
        (0, 0, total - 1, total - 1),
        (newest, 0, total, total),
        (newest, 1500, 1500, total),
        (newest - 5, 10, 10, total - 5),
        (2, 0, 1, 1),
    ] {
        let options = RangeOptions { revision, limit, ..RangeOptions::default() };
        let result = store.range(&KeyRange::prefix("k"), &options).unwrap();
        assert_eq!((result.kvs.len(), result.count), (expected, count as i64), "{revision} {limit}");
        assert!(result.kvs.is_sorted_by(|a, b| a.key < b.key));
    }
}

#[test]
fn cold_records_are_fetched_and_warmed_within_the_budget() {
    let home = MemHome::new();
    let mut writer = open(&home);
    for i in 0..100 {
        put(&mut writer, &format!("k{i:02}"), "some value");
    }
    writer.maybe_flush(true).unwrap();
    let writer = Writer::open(home.open().unwrap(), 500).unwrap();
    let store = writer.store();
    assert_eq!(store.cached_bytes(), 0);
    assert_eq!(store.get_at(b"k07", 101).unwrap().unwrap().value, "some value");
    assert!(store.cached_bytes() > 0);
    assert_eq!(store.range(&KeyRange::all(), &at(0)).unwrap().kvs.len(), 100);
    assert!(store.cached_bytes() <= 500);
}

#[test]
fn a_read_ends_where_there_is_no_room() {
    let home = MemHome::new();
    let mut writer = open(&home);
    for i in 0..100 {
        put(&mut writer, &format!("k{i:02}"), "some value");
    }
    writer.maybe_flush(true).unwrap();
    // Cached or not, the same counts.
    for cache_bytes in [CACHE, 0] {
        let writer = Writer::open(home.open().unwrap(), cache_bytes).unwrap();
        writer.set_fetched_at_once(3);
        let store = writer.store();
        let told = std::cell::RefCell::new(Vec::new());
        let note = |bytes: u64| {
            told.borrow_mut().push(bytes);
            true
        };
        let whole = store.range_within(&KeyRange::all(), &at(0), &note).unwrap();
        assert_eq!(whole, store.range(&KeyRange::all(), &at(0)).unwrap());
        let told = told.into_inner();
        assert!(told.is_sorted() && told.len() > 10, "it is told on the way: {told:?}");
        let all = told[told.len() - 1];
        assert!(all > 100 * (limits::KEY_VALUE_BYTES + 13), "{all}");
        assert!(store.range_within(&KeyRange::all(), &at(0), &|bytes| bytes <= all).is_ok());
        let read_until = std::cell::Cell::new(0);
        let half = |bytes: u64| {
            read_until.set(bytes);
            bytes <= all / 2
        };
        let refused = store.range_within(&KeyRange::all(), &at(0), &half);
        assert!(matches!(refused, Err(ReadError::NoRoom)));
        assert!(read_until.get() < all * 2 / 3, "it went on to {} of {all}", read_until.get());
        let counted =
            store.range_within(&KeyRange::all(), &RangeOptions { count_only: true, ..at(0) }, &|bytes| bytes == 0);
        assert_eq!(counted.unwrap().count, 100, "who counts takes nothing");
    }
}

/// One transaction that wrote all of them, what was asked for first, or far apart.
#[test]
fn records_are_found_whether_they_lie_together_or_apart() {
    let home = MemHome::new();
    let mut writer = open(&home);
    for between in [0, 3, 50] {
        let mut txn = writer.begin();
        for key in 0..20 {
            txn.put(bytes(&format!("{between}/{:02}", 19 - key)), bytes(&format!("value {key}")), 0).unwrap();
            for other in 0..between {
                txn.put(bytes(&format!("other/{between}/{key}/{other}")), Bytes::new(), 0).unwrap();
            }
        }
        txn.end();
        writer.commit().unwrap();
    }
    writer.maybe_flush(true).unwrap();
    let store = Writer::open(home.open().unwrap(), 0).unwrap().store();
    for between in [0, 3, 50] {
        let found = store.range(&KeyRange::prefix(format!("{between}/")), &at(0)).unwrap();
        let found: Vec<(Bytes, Bytes)> = found.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
        let expected = |key: i32| (bytes(&format!("{between}/{key:02}")), bytes(&format!("value {}", 19 - key)));
        assert_eq!(found, (0..20).map(expected).collect::<Vec<_>>());
    }
}

/// However large the values are, of those that are not in memory no more is fetched than a few beyond the room.
#[test]
fn large_records_are_fetched_a_few_at_a_time() {
    let home = MemHome::new();
    let mut writer = open(&home);
    let value = "v".repeat(10_000);
    for i in 0..50 {
        put(&mut writer, &format!("k{i:02}"), &value);
    }
    writer.maybe_flush(true).unwrap();
    let store = Writer::open(home.open().unwrap(), 0).unwrap().store();
    let told = std::cell::Cell::new(0);
    let room = |bytes: u64| {
        told.set(bytes);
        bytes <= 15_000
    };
    let encoded = store.encoded_within(&KeyRange::all(), &at(0), &room);
    assert!(matches!(encoded, Err(ReadError::NoRoom)));
    assert!((15_000..30_000).contains(&told.get()), "{}", told.get());
}

#[test]
fn the_batch_of_a_run_carries_what_others_add() {
    let home = MemHome::new();
    let mut writer = open(&home);
    writer.batch().put(Family::Meta, meta::APPLIED, "five");
    writer.commit().unwrap();
    assert_eq!(writer.durable_applied(), None);
    assert!(writer.maybe_flush(true).unwrap());
    assert_eq!(writer.durable_applied().unwrap(), "five");
    home.crash();
    assert_eq!(open(&home).durable_applied().unwrap(), "five");
}

/// What a read comes past decides where it is made, so it must not be taken for less than it is.
#[test]
fn a_read_comes_past_what_it_returns_and_what_it_has_to_count() {
    let mut writer = open(&MemHome::new());
    for i in 0..20 {
        put(&mut writer, &format!("k{i:02}"), "v");
    }
    let old = writer.revision();
    let store = writer.store();
    let past = |options: RangeOptions| store.keys_on_the_way(&KeyRange::all(), &options);
    let (limit, counting) = (|limit| RangeOptions { limit, ..at(0) }, RangeOptions { count_only: true, ..at(0) });
    assert_eq!(store.keys_on_the_way(&KeyRange::single("k00"), &at(0)), 1);
    assert_eq!(past(at(0)), 20);
    assert_eq!(past(limit(5)), 5);
    assert_eq!(past(limit(50)), 20);
    assert_eq!(past(counting), 0);
    // The changes since are few enough to be taken back.
    assert_eq!(past(RangeOptions { revision: old, ..counting }), 0);
    assert_eq!(past(RangeOptions { revision: old, ..limit(5) }), 5);

    for i in 0..=limits::INDEX_CHANGES_MAX {
        put(&mut writer, &format!("new{i}"), "v");
    }
    // They are not any more: the keys are looked at one by one.
    let all = 21 + limits::INDEX_CHANGES_MAX as i64;
    assert_eq!(past(RangeOptions { revision: old, ..counting }), all);
    assert_eq!(past(RangeOptions { revision: old, ..limit(5) }), all);
    assert_eq!(past(counting), 0);
}
