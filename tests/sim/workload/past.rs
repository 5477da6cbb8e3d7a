//! The past and its end: compactions, some of them physical, some of what is compacted already, and reads
//! at, just behind and just before what was compacted.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, Outcome, Reply, Span, Step, Txn};

use super::Worker;

const KEYS: u32 = 4;

pub(super) async fn run(mut worker: Worker) {
    // What was compacted last, as far as this client knows.
    let mut compacted = 0;
    while worker.goes_on().await {
        match thread_rng().gen_range(0..12u32) {
            0 => compacted = compact(&worker, compacted).await,
            1..=4 => read(&worker, compacted).await,
            5 => {
                let span = Span::key(format!("past/{}", thread_rng().gen_range(0..KEYS)));
                worker.ask(Call::Txn(Txn::of(Step::Delete { span, prev_kv: false }))).await;
            }
            _ => {
                let key = format!("past/{}", thread_rng().gen_range(0..KEYS));
                let value = worker.fresh();
                worker.ask(Call::Txn(Txn::of(Step::put(key, value)))).await;
            }
        }
    }
}

/// Compacts, now and then what is compacted already.
async fn compact(worker: &Worker, compacted: i64) -> i64 {
    // Not ahead of the observer, whose record must be whole.
    let present = worker.observed.revision();
    let revision = match thread_rng().gen_range(0..5u32) {
        0 => compacted - thread_rng().gen_range(0..3),
        _ => present - thread_rng().gen_range(0..40),
    };
    if revision < 1 {
        return compacted;
    }
    let physical = thread_rng().gen_bool(0.4);
    match worker.ask(Call::Compact { revision, physical }).await {
        Outcome::Done(Reply::Compacted { .. }) => compacted.max(revision),
        _ => compacted,
    }
}

/// Reads around the compacted revision.
async fn read(worker: &Worker, compacted: i64) {
    let mut range = Step::range(Span::prefix("past/"));
    if let Step::Range { revision, .. } = &mut range {
        *revision = (compacted + thread_rng().gen_range(-1..3)).max(0);
    }
    let mut txn = Txn::of(range.clone());
    if thread_rng().gen_bool(0.3) {
        // Within a transaction that writes nothing, too.
        txn.then.push(range);
    }
    worker.ask(Call::Txn(txn)).await;
}
