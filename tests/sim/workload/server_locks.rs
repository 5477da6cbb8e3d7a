//! Locks that the server holds, with writes that are fenced by the key that it answers with.

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, HeldCall, HeldReply, Outcome, Reply, Span};

use super::Worker;
use super::locks::work;

const LOCKS: u32 = 2;
/// Seconds that a lease lives; nobody renews it.
const TTL: i64 = 4;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        hold(&mut worker).await;
    }
}

async fn hold(worker: &mut Worker) {
    let name = format!("s{}", thread_rng().gen_range(0..LOCKS));
    let lease = worker.fresh_lease();
    if !matches!(worker.ask(Call::LeaseGrant { id: lease, ttl: TTL }).await, Outcome::Done(_)) {
        return;
    }
    let call = HeldCall::Lock { name: format!("lock/{name}"), lease };
    let Outcome::Done(Reply::Held(HeldReply::Held { key, .. })) = worker.held(call, patience()).await else {
        return;
    };
    let Some((_, keys)) = worker.read(Span::key(key.clone())).await else { return };
    if let Some(kv) = keys.first() {
        work(worker, &name, &key, kv.created).await;
    }
    match thread_rng().gen_range(0..10u32) {
        0..=5 => drop(worker.held(HeldCall::Unlock { key }, Duration::from_secs(5)).await),
        6..=7 => drop(worker.ask(Call::LeaseRevoke { id: lease }).await),
        _ => {}
    }
}

/// How long somebody waits for a turn: now and then not long enough.
pub(super) fn patience() -> Duration {
    let millis = if thread_rng().gen_bool(0.3) { 100..1500 } else { 5000..8000 };
    Duration::from_millis(thread_rng().gen_range(millis))
}
