//! Readers beside a writer that never stops: whatever happens between two sections of a read, it
//! answers as of one revision.

use super::*;

const KEYS: i64 = 60;

/// The writer's rule: revision `r` puts key `r % KEYS`, but every seventh deletes it. So what a range
/// holds at a revision follows from the number.
fn expected(at: i64) -> Vec<(String, i64)> {
    let newest = |key: i64| Some(at - (at - key).rem_euclid(KEYS)).filter(|revision| *revision >= 2);
    let live = (0..KEYS).filter_map(|key| newest(key).filter(|revision| !is_delete(*revision)).map(|r| (name(key), r)));
    live.collect()
}

fn is_delete(revision: i64) -> bool {
    revision % 7 == 0 && revision > KEYS + 1
}

fn name(key: i64) -> String {
    format!("key/{key:03}")
}

fn write(writer: &mut Writer) {
    let revision = writer.revision() + 1;
    let key = name(revision % KEYS);
    let mut txn = writer.begin();
    if is_delete(revision) {
        txn.delete_range(&KeyRange::single(bytes(&key)), false).unwrap();
        if txn.revision() == revision {
            return;
        }
    }
    txn.put(bytes(&key), bytes(&revision.to_string()), 0).unwrap();
}

fn check(store: &Store, back: i64, limit: i64) {
    let revision = if back == 0 { 0 } else { (store.revision() - back).max(1) };
    let options = RangeOptions { limit, ..at(revision) };
    let result = match store.range(&KeyRange::prefix("key/"), &options) {
        Err(ReadError::Compacted) => {
            assert!(revision > 0 && revision < store.compact_revision());
            return;
        }
        result => result.unwrap(),
    };
    let mut expected = expected(if revision == 0 { result.revision } else { revision });
    assert_eq!(result.count, expected.len() as i64);
    if limit > 0 {
        expected.truncate(limit as usize);
    }
    let found: Vec<(String, i64)> = result
        .kvs
        .iter()
        .map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), String::from_utf8_lossy(&kv.value).parse().unwrap()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn readers_see_whole_revisions_while_the_writer_goes_on() {
    let engine = MemHome::new().open().unwrap();
    // A little cache, so that records are evicted and fetched all the time.
    let mut writer = Writer::open(engine, 1_000).unwrap();
    let store = writer.store();
    std::thread::scope(|scope| {
        let readers = [1, 2, 3].map(|pace| {
            let store = store.clone();
            scope.spawn(move || {
                for round in 1..200 {
                    check(&store, round * pace % 150, round % 4 * 13);
                }
            })
        });
        let mut run = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            for _ in 0..5 {
                write(&mut writer);
            }
            writer.commit().unwrap();
            run += 1;
            if run % 20 == 0 {
                writer.compact(writer.revision() - run % 100).unwrap();
                writer.commit().unwrap();
            }
            writer.compact_slice().unwrap();
            writer.maybe_flush(false).unwrap();
        }
    });
    while writer.compact_slice().unwrap() {}
    check(&store, 0, 0);
    assert!(store.compaction_done(store.compact_revision()));
}
