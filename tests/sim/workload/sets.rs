//! A set that only grows: what was added once is in every later listing.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, Span, Step, Txn};

use super::Worker;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        if thread_rng().gen_bool(0.7) {
            let element = worker.fresh();
            worker.ask(Call::Txn(Txn::of(Step::put(format!("sets/{element}"), element)))).await;
        } else {
            worker.read(Span::prefix("sets/")).await;
        }
    }
}
