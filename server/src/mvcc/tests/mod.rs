//! Tests of the store as a whole.

mod concurrent;
mod hash;
mod model;
mod property;
#[cfg(not(madsim))]
mod rocks;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use super::*;
use crate::engine::mem::MemHome;
use crate::engine::{Engine, EngineHome};

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

/// The records of a range as `key=value@mod`, in order.
fn show(result: &RangeResult) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    result.kvs.iter().map(|kv| format!("{}={}@{}", text(&kv.key), text(&kv.value), kv.mod_revision)).collect()
}

fn at(revision: i64) -> RangeOptions {
    RangeOptions { revision, ..RangeOptions::default() }
}
