//! Elections that the server holds: campaigns, what leaders proclaim, and who observes it.

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::revision;
use mainstay_tests::history::{Call, Candidate, HeldCall, HeldReply, Led, Outcome, Reply, Span};
use mainstay_tests::transactions::key_value;

use super::Worker;
use super::server_locks::patience;

const ELECTIONS: u32 = 2;
/// Seconds that a lease lives; nobody renews it.
const TTL: i64 = 4;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        let name = format!("elect/{}", thread_rng().gen_range(0..ELECTIONS));
        if thread_rng().gen_bool(0.3) {
            observe(&worker, &name).await;
        } else {
            run_for(&mut worker, name).await;
        }
    }
}

async fn run_for(worker: &mut Worker, name: String) {
    let lease = worker.fresh_lease();
    if !matches!(worker.ask(Call::LeaseGrant { id: lease, ttl: TTL }).await, Outcome::Done(_)) {
        return;
    }
    let call = HeldCall::Campaign { name: name.clone(), lease, value: worker.fresh() };
    let Outcome::Done(Reply::Held(HeldReply::Held { key, created, .. })) = worker.held(call, patience()).await else {
        return;
    };
    let leader = Candidate { name: name.clone(), key, created, lease };
    let short = Duration::from_secs(5);
    for _ in 0..thread_rng().gen_range(0..5u32) {
        match thread_rng().gen_range(0..5u32) {
            0 => drop(worker.held(HeldCall::Leader { name: name.clone() }, short).await),
            1 => drop(worker.read(Span::prefix(&format!("{name}/"))).await),
            _ => {
                let call = HeldCall::Proclaim { leader: leader.clone(), value: worker.fresh() };
                worker.held(call, short).await;
            }
        }
        if !worker.goes_on().await {
            return;
        }
    }
    match thread_rng().gen_range(0..10u32) {
        0..=5 => drop(worker.held(HeldCall::Resign { leader }, short).await),
        6..=7 => drop(worker.ask(Call::LeaseRevoke { id: lease }).await),
        _ => {}
    }
}

/// Observes an election for a while, at one member.
async fn observe(worker: &Worker, name: &str) {
    let lasts = Duration::from_millis(thread_rng().gen_range(500..5000));
    let member = thread_rng().gen_range(0..worker.client.endpoints().len());
    let client = worker.client.only(member);
    let place = worker.recorder.observation(worker.id, name);
    let watch = async {
        let Ok(mut leaders) = client.observe(name.to_owned()).await else { return };
        while let Ok(Some(response)) = leaders.message().await {
            let Some(kv) = response.kv else { return };
            let (at, revision) = (worker.recorder.now(), revision(&response.header));
            worker.recorder.observed(place, Led { at, revision, kv: key_value(kv) });
        }
    };
    drop(tokio::time::timeout(lasts, watch).await);
}
