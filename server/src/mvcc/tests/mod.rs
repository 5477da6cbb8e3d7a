//! Tests of the store as a whole.

mod concurrent;
mod hash;
mod model;
mod property;
#[cfg(not(madsim))]
mod rocks;
mod table;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use super::*;
use crate::engine::layout::meta;
use crate::engine::mem::MemHome;
use crate::engine::{Batch, Engine, EngineHome, Family};

/// The same cases in every run; others with `PROPTEST_RNG_SEED=…`, more with `PROPTEST_CASES=…`.
pub(super) fn cases(count: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { count };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..given }
}

const CACHE: u64 = 1 << 20;

fn open(home: &MemHome) -> Writer {
    let engine: Arc<dyn Engine> = home.open().unwrap();
    Writer::open(engine, CACHE).unwrap()
}

fn new_writer() -> Writer {
    open(&MemHome::new())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Puts a key in a transaction of its own.
fn put(writer: &mut Writer, key: &str, value: &str) -> i64 {
    let mut txn = writer.begin();
    txn.put(bytes(key), bytes(value), 0).unwrap();
    let revision = txn.end().unwrap();
    writer.commit().unwrap();
    revision
}

/// Deletes a key in a transaction of its own.
fn delete(writer: &mut Writer, key: &str) -> Option<i64> {
    let mut txn = writer.begin();
    txn.delete_range(&KeyRange::single(bytes(key)), false).unwrap();
    let revision = txn.end();
    writer.commit().unwrap();
    revision
}

/// Compacts, and removes everything that this drops.
fn compact(writer: &mut Writer, revision: i64) {
    writer.compact(revision).unwrap();
    writer.commit().unwrap();
    while writer.compact_slice().unwrap() {}
}

/// Bytes of all records in an engine, with their keys.
fn stored_bytes(engine: &dyn Engine) -> u64 {
    let mut sum = 0;
    let mut visit = |key: &[u8], record: &[u8]| {
        sum += (key.len() + record.len()) as u64;
        ControlFlow::Continue(())
    };
    engine.scan(Family::Revisions, Bound::Unbounded, Bound::Unbounded, &mut visit).unwrap();
    sum
}

#[test]
fn a_store_that_was_not_counted_is_counted_when_it_is_opened() {
    let home = MemHome::new();
    let mut writer = open(&home);
    put(&mut writer, "a", "1");
    put(&mut writer, "a", "22");
    let counted = writer.store().retained_bytes();
    assert_eq!(counted, stored_bytes(&**writer.engine()));
    let mut batch = Batch::default();
    batch.delete(Family::Meta, meta::RETAINED);
    writer.engine().write(batch).unwrap();
    writer.engine().flush().unwrap();
    drop(writer);
    let mut writer = open(&home);
    assert_eq!(writer.store().retained_bytes(), counted);
    compact(&mut writer, 3);
    assert_eq!(writer.store().retained_bytes(), stored_bytes(&**writer.engine()));
    assert!(writer.store().retained_bytes() < counted);
}

/// The records of a range as `key=value@mod`, in order.
fn show(result: &RangeResult) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    result.kvs.iter().map(|kv| format!("{}={}@{}", text(&kv.key), text(&kv.value), kv.mod_revision)).collect()
}

fn at(revision: i64) -> RangeOptions {
    RangeOptions { revision, ..RangeOptions::default() }
}
