//! Leases with keys: kept alive for a while, then left to run out or revoked, and asked for when they
//! are over.

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_tests::history::{Call, Outcome, Reply, Span, Step, Txn};

use super::Worker;
use crate::recorder::Recorder;

/// The shortest and the longest time to live that is asked for, in seconds. The longest bounds how
/// long a run must wait for all to be over.
const TTL: std::ops::RangeInclusive<i64> = 1..=5;
/// The shortest that is granted.
const TTL_MIN: i64 = 2;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        life(&mut worker).await;
    }
}

/// Which members are asked for one lease.
#[derive(Clone, Copy)]
enum Habit {
    /// Just any.
    Any,
    /// One that renews it and one that says what is left, whoever leads by then.
    Two { renews: usize, tells: usize },
    /// Every member says what is left: one of them may have been deposed.
    All,
}

impl Habit {
    fn draw(worker: &Worker) -> Self {
        let members = worker.client.endpoints().len();
        match thread_rng().gen_range(0..10u32) {
            0..=3 => Self::Any,
            4..=6 => {
                let (renews, tells) = (thread_rng().gen_range(0..members), thread_rng().gen_range(0..members));
                Self::Two { renews, tells }
            }
            _ => Self::All,
        }
    }

    async fn renew(self, worker: &Worker, id: i64) -> Outcome {
        let call = Call::LeaseKeepAlive { id };
        match self {
            Self::Two { renews, .. } => worker.ask_one(renews, call).await,
            Self::Any | Self::All => worker.ask(call).await,
        }
    }

    async fn question(self, worker: &Worker, id: i64) {
        let call = Call::LeaseTimeToLive { id };
        match self {
            Self::Any => drop(worker.ask(call).await),
            Self::Two { tells, .. } => drop(worker.ask_one(tells, call).await),
            Self::All => {
                for member in 0..worker.client.endpoints().len() {
                    worker.ask_one(member, call.clone()).await;
                }
            }
        }
    }
}

/// One lease from grant to end.
async fn life(worker: &mut Worker) {
    let habit = Habit::draw(worker);
    let own = lease_id(worker.id, worker.written);
    worker.written += 1;
    let ttl = thread_rng().gen_range(TTL);
    let asked = if thread_rng().gen_bool(0.2) { 0 } else { own };
    let id = match worker.ask(Call::LeaseGrant { id: asked, ttl }).await {
        Outcome::Done(Reply::Granted { id, .. }) => id,
        Outcome::Done(_) => own,
        _ => return,
    };
    let ttl = ttl.max(TTL_MIN);
    for number in 0..thread_rng().gen_range(1..4u32) {
        put(worker, id, number).await;
    }
    // Mostly of a member that may not have applied this yet.
    if thread_rng().gen_bool(0.3) {
        worker.ask(Call::LeaseKeys { id }).await;
    }
    // A leader that was deposed meanwhile does not know of it.
    for _ in 0..thread_rng().gen_range(0..3u32) {
        habit.question(worker, id).await;
    }
    for _ in 0..thread_rng().gen_range(0..8u32) {
        tokio::time::sleep(Duration::from_millis(thread_rng().gen_range(100..ttl as u64 * 400))).await;
        if !worker.goes_on().await {
            return;
        }
        match thread_rng().gen_range(0..20u32) {
            0..=3 => habit.question(worker, id).await,
            4 | 5 => drop(worker.ask(Call::LeaseKeys { id }).await),
            6 | 7 => put(worker, id, 0).await,
            8..=10 => change(worker, id).await,
            // It is there, and this is refused, or it is over.
            11 => drop(worker.ask(Call::LeaseGrant { id, ttl }).await),
            _ => match habit.renew(worker, id).await {
                Outcome::Done(Reply::Lease { ttl: 0 }) => return after(worker, id, habit).await,
                Outcome::Done(_) => {}
                // What the member promised that answers no more has to hold with nobody's help.
                _ if matches!(habit, Habit::Two { .. }) => return wait_for_its_end(worker, id, ttl, habit).await,
                _ => {}
            },
        }
    }
    match thread_rng().gen_range(0..10u32) {
        0..=2 => drop(worker.ask(Call::LeaseRevoke { id }).await),
        3..=5 => wait_for_its_end(worker, id, ttl, habit).await,
        _ => {}
    }
    worker.read(Span::prefix(&format!("lease/{id}/"))).await;
}

/// Lets a lease run out, about.
async fn wait_for_its_end(worker: &mut Worker, id: i64, ttl: i64, habit: Habit) {
    let wait = ttl as u64 * 1000 + thread_rng().gen_range(0..1200);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    after(worker, id, habit).await;
}

/// Asks for a lease that may be over, as if it were not.
async fn after(worker: &mut Worker, id: i64, habit: Habit) {
    for _ in 0..thread_rng().gen_range(1..4u32) {
        match thread_rng().gen_range(0..4u32) {
            0 => drop(habit.renew(worker, id).await),
            1 => put(worker, id, 0).await,
            _ => habit.question(worker, id).await,
        }
        if !worker.goes_on().await {
            return;
        }
    }
}

/// Ties a key to a lease; now and then one that another lease has, or frees one.
async fn put(worker: &mut Worker, id: i64, number: u32) {
    let (key, lease) = match thread_rng().gen_range(0..8u32) {
        0 => (format!("lease/shared/{number}"), id),
        1 => (format!("lease/{id}/{number}"), 0),
        _ => (format!("lease/{id}/{number}"), id),
    };
    let step = Step::Put { key, value: worker.fresh(), lease, prev_kv: false };
    worker.ask(Call::Txn(Txn::of(step))).await;
}

/// Takes keys from a lease, or changes them without that. Whatever is no longer tied to it stays when it ends.
async fn change(worker: &mut Worker, id: i64) {
    let key = match thread_rng().gen_range(0..4u32) {
        0 => format!("lease/shared/{}", thread_rng().gen_range(0..3u32)),
        _ => format!("lease/{id}/{}", thread_rng().gen_range(0..3u32)),
    };
    let delete = |span| Step::Delete { span, prev_kv: thread_rng().gen_bool(0.3) };
    let amend = |value, lease, ignore_value| {
        let key = key.clone();
        Step::Amend { key, value, lease, ignore_value, ignore_lease: !ignore_value, prev_kv: false }
    };
    let then = match thread_rng().gen_range(0..7u32) {
        0 => vec![delete(Span::key(key))],
        1 => vec![delete(Span::prefix(&format!("lease/{id}/")))],
        // It is gone and there again, without the lease or with it.
        2 => {
            let gone = delete(Span::key(key.clone()));
            let lease = if thread_rng().gen_bool(0.5) { id } else { 0 };
            let again = Step::Put { key, value: worker.fresh(), lease, prev_kv: false };
            worker.ask(Call::Txn(Txn::of(gone))).await;
            vec![again]
        }
        3 => {
            let other = Step::Put { key: format!("lease/{id}/9"), value: worker.fresh(), lease: id, prev_kv: false };
            vec![delete(Span::key(key)), other]
        }
        4 => vec![amend(String::new(), id, true)],
        5 => vec![amend(String::new(), 0, true)],
        _ => vec![amend(worker.fresh(), 0, false)],
    };
    worker.ask(Call::Txn(Txn { then, ..Txn::default() })).await;
}

/// Grants many leases with keys at once; all run out at about the same time.
pub(crate) async fn storm(id: usize, client: mainstay_client::Client, recorder: Recorder, number: u32, leases: u32) {
    for lease in 0..leases {
        let id_of_lease = lease_id(id, u64::from(number) * 1000 + u64::from(lease));
        if !is_done(&recorder.call(id, &client, Call::LeaseGrant { id: id_of_lease, ttl: 2 }).await) {
            continue;
        }
        let key = format!("lease/{id_of_lease}/0");
        let value = format!("{id}.{number}.{lease}");
        let step = Step::Put { key, value, lease: id_of_lease, prev_kv: false };
        recorder.call(id, &client, Call::Txn(Txn::of(step))).await;
        if thread_rng().gen_bool(0.3) {
            let member = thread_rng().gen_range(0..client.endpoints().len());
            let one = client.only(member).with_timeout(Duration::from_millis(500));
            recorder.call_at(id, Some(member), &one, Call::LeaseTimeToLive { id: id_of_lease }).await;
        }
    }
}

fn lease_id(client: usize, number: u64) -> i64 {
    (client as i64 + 1) * 1_000_000 + number as i64
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}
