//! Few keys that everybody writes: whatever a search for a linear order can find is found here.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, Compare, Comparison, Span, Step, Txn};

use super::Worker;

/// Few enough that clients meet.
const KEYS: u32 = 3;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        let key = format!("r/{}", thread_rng().gen_range(0..KEYS));
        match thread_rng().gen_range(0..10u32) {
            0..=3 => {
                let value = worker.fresh();
                let prev_kv = thread_rng().gen_bool(0.3);
                let step = Step::Put { key, value, lease: 0, prev_kv };
                worker.ask(Call::Txn(Txn::of(step))).await;
            }
            4..=6 => {
                worker.read(Span::key(key)).await;
            }
            7 => {
                let prev_kv = thread_rng().gen_bool(0.5);
                worker.ask(Call::Txn(Txn::of(Step::Delete { span: Span::key(key), prev_kv }))).await;
            }
            8 => write_and_look(&mut worker, key).await,
            _ => swap(&mut worker, key).await,
        }
    }
}

/// Writes by one member, and reads from what that member has.
async fn write_and_look(worker: &mut Worker, key: String) {
    let member = thread_rng().gen_range(0..worker.client.endpoints().len());
    let put = Txn::of(Step::put(key.clone(), worker.fresh()));
    worker.ask_one(member, Call::Txn(put)).await;
    let look = Txn { serializable: true, ..Txn::of(Step::range(Span::key(key))) };
    worker.ask_one(member, Call::Txn(look)).await;
}

/// Replaces what it read, if that is still there.
async fn swap(worker: &mut Worker, key: String) {
    let Some((_, found)) = worker.read(Span::key(key.clone())).await else { return };
    let Some(found) = found.first() else { return };
    let value = worker.fresh();
    let txn = Txn {
        compares: vec![Compare::equal(key.clone(), Comparison::Value(found.value.clone()))],
        then: vec![Step::put(key.clone(), value)],
        otherwise: vec![Step::range(Span::key(key))],
        serializable: false,
    };
    worker.txn(txn).await;
}
