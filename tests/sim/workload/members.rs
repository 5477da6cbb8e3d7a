//! Questions who the members are, to one that agrees with the others and to one that says what it knows.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, MemberCall};

use super::Worker;

pub(super) async fn run(worker: Worker) {
    while worker.goes_on().await {
        let linearizable = thread_rng().gen_bool(0.7);
        worker.ask(Call::Member(MemberCall::List { linearizable })).await;
    }
}
