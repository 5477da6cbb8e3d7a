//! A set that only grows: what was added once is in every later listing.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, Span, Step, Txn};

use super::Worker;

/// Elements that are added in one transaction where a set is to be large: a listing of some of these, as a
/// stream, is longer than what a connection lets wait.
const MANY: usize = 10;
/// Bytes of an element of those at most.
const LARGE: usize = 3000;

pub(super) async fn run(mut worker: Worker) {
    if thread_rng().gen_bool(0.3) {
        for _ in 0..6 {
            add_many(&mut worker).await;
        }
    }
    while worker.goes_on().await {
        if thread_rng().gen_bool(0.7) {
            let element = worker.fresh();
            worker.ask(Call::Txn(Txn::of(Step::put(format!("sets/{element}"), element)))).await;
        } else {
            worker.read(Span::prefix("sets/")).await;
        }
    }
}

async fn add_many(worker: &mut Worker) {
    let mut then = Vec::new();
    for _ in 0..MANY {
        worker.written += 1;
        let element = format!("{}.{}", worker.id, worker.written);
        let padding = "x".repeat(thread_rng().gen_range(0..LARGE));
        then.push(Step::put(format!("sets/{element}"), element + &padding));
    }
    worker.ask(Call::Txn(Txn { then, ..Txn::default() })).await;
}
