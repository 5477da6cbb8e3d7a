//! Lists to which everybody appends: each reading of one must be a beginning of each longer one.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Compare, Comparison, Span, Step, Txn};

use super::Worker;

const KEYS: u32 = 2;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        let key = format!("list/{}", thread_rng().gen_range(0..KEYS));
        let Some((_, found)) = worker.read(Span::key(key.clone())).await else { continue };
        if thread_rng().gen_bool(0.3) {
            continue;
        }
        // Not filled up, for a list holds all of its elements.
        worker.written += 1;
        let element = format!("{}.{}", worker.id, worker.written);
        let (to, value) = match found.first() {
            Some(kv) => (Comparison::Value(kv.value.clone()), format!("{},{element}", kv.value)),
            None => (Comparison::Created(0), element),
        };
        let txn = Txn {
            compares: vec![Compare::equal(key.clone(), to)],
            then: vec![Step::put(key.clone(), value)],
            ..Txn::default()
        };
        worker.txn(txn).await;
    }
}
