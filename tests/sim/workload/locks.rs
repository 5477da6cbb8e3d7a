//! Locks as etcd's own recipe makes them: a key tied to a lease, the oldest one holds. What is
//! written under the lock is fenced by the lock's own key, as its documentation asks for.

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, Compare, Comparison, Outcome, Span, Step, Txn};

use super::Worker;

const LOCKS: u32 = 2;
/// How often a waiting client looks whether it is its turn.
const LOOKS: u32 = 12;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        hold(&mut worker).await;
    }
}

async fn hold(worker: &mut Worker) {
    let name = thread_rng().gen_range(0..LOCKS);
    let id = (worker.id as i64 + 1) * 1_000_000 + worker.written as i64;
    worker.written += 1;
    if !matches!(worker.ask(Call::LeaseGrant { id, ttl: 4 }).await, Outcome::Done(_)) {
        return;
    }
    let key = format!("lock/{name}/{id}");
    let create = Txn {
        compares: vec![Compare::equal(key.clone(), Comparison::Created(0))],
        then: vec![Step::Put { key: key.clone(), value: worker.fresh(), lease: id, prev_kv: false }],
        ..Txn::default()
    };
    let Some((created, true, _)) = worker.txn(create).await else { return };
    for _ in 0..LOOKS {
        let Some((_, keys)) = worker.read(Span::prefix(&format!("lock/{name}/"))).await else { break };
        let oldest = keys.iter().min_by_key(|kv| kv.created);
        if oldest.is_none_or(|kv| kv.created > created) {
            return; // the own key is gone: the lease has run out
        }
        if oldest.is_some_and(|kv| kv.created == created) {
            work(worker, &name.to_string(), &key, created).await;
            break;
        }
        worker.ask(Call::LeaseKeepAlive { id }).await;
        tokio::time::sleep(Duration::from_millis(thread_rng().gen_range(100..500))).await;
    }
    if thread_rng().gen_bool(0.7) {
        worker.ask(Call::LeaseRevoke { id }).await;
    }
}

/// Writes a few times, each time only if the lock is still held.
pub(super) async fn work(worker: &mut Worker, name: &str, key: &str, created: i64) {
    for _ in 0..thread_rng().gen_range(1..4u32) {
        let txn = Txn {
            compares: vec![Compare::equal(key, Comparison::Created(created))],
            then: vec![Step::put(format!("fence/{name}"), format!("{created} {}", worker.fresh()))],
            ..Txn::default()
        };
        worker.txn(txn).await;
        if !worker.goes_on().await {
            return;
        }
    }
}
