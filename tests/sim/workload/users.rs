//! Users who may do a part of what they ask for, while an administrator changes which.

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_tests::history::{AuthCall, Call, Compare, Comparison, Outcome, Rights, Span, Step, Txn};
use tokio::time::Instant;

use super::Worker;
use crate::perform_auth::{ROOT, user};

const USERS: u32 = 3;
const ROLES: u32 = 3;
const KEYS: u32 = 4;
/// The clients that users are, by the worker that is them.
const CLIENTS: usize = 200;

/// What can be permitted, no two of which begin alike.
fn spans() -> [Span; 4] {
    let range = |from: &str, to: &str| Span { from: from.into(), to: Some(to.into()) };
    [Span::key("u/0"), range("u/1", "u/3"), Span::key("u/2"), range("u/", "u0")]
}

/// Users at work: now this one, now that one.
pub(super) async fn run(worker: Worker) {
    let mut users: Vec<Worker> = (0..USERS).map(|number| as_user(&worker, number)).collect();
    while worker.goes_on().await {
        let user = users.choose_mut(&mut thread_rng()).expect("there are some");
        act(user).await;
    }
}

fn as_user(worker: &Worker, number: u32) -> Worker {
    let name = format!("u{number}");
    let id = CLIENTS + worker.id * USERS as usize + number as usize;
    worker.recorder.user(id, &name);
    let client = worker.client.with_user(user(&name));
    Worker { id, client, recorder: worker.recorder.clone(), observed: worker.observed.clone(), written: 0, ..*worker }
}

async fn act(worker: &mut Worker) {
    let key = format!("u/{}", thread_rng().gen_range(0..KEYS));
    let prev_kv = thread_rng().gen_bool(0.3);
    match thread_rng().gen_range(0..10u32) {
        0..=3 => {
            let step = Step::Put { key, value: worker.fresh(), lease: 0, prev_kv };
            worker.txn(Txn::of(step)).await;
        }
        4..=5 => drop(worker.read(Span::key(key)).await),
        6 => drop(worker.read(spans().choose(&mut thread_rng()).expect("there are some").clone()).await),
        7 => {
            let look = Txn { serializable: true, ..Txn::of(Step::range(Span::key(key))) };
            worker.txn(look).await;
        }
        8 => drop(worker.txn(Txn::of(Step::Delete { span: Span::key(key), prev_kv })).await),
        _ => {
            let other = format!("u/{}", thread_rng().gen_range(0..KEYS));
            let txn = Txn {
                compares: vec![Compare::equal(key.clone(), Comparison::Version(0))],
                then: vec![Step::put(key.clone(), worker.fresh())],
                otherwise: vec![Step::range(Span::key(key)), Step::put(other, worker.fresh())],
                serializable: false,
            };
            worker.txn(txn).await;
        }
    }
}

/// The administrator, who has a name as soon as names count.
pub(super) async fn administer(worker: Worker) {
    for call in foundation() {
        insist(&worker, call).await;
    }
    while worker.goes_on().await {
        let call = change();
        let switches = call == AuthCall::Disable;
        let deletes = match &call {
            AuthCall::UserDelete { user } => Some(AuthCall::UserAdd { user: user.clone() }),
            AuthCall::RoleDelete { role } => Some(AuthCall::RoleAdd { role: role.clone() }),
            _ => None,
        };
        insist(&worker, call).await;
        worker.ask(Call::Auth(AuthCall::Status)).await;
        if switches || deletes.is_some() {
            let pause = Duration::from_millis(thread_rng().gen_range(0..2000));
            tokio::time::sleep(pause).await;
        }
        if let Some(again) = deletes {
            insist(&worker, again).await;
        }
        if switches {
            insist(&worker, AuthCall::Enable).await;
        }
    }
}

/// Users and roles to begin with; in the end they count.
fn foundation() -> Vec<AuthCall> {
    let mut calls = Vec::new();
    let names = |letter, count| (0..count).map(move |number| format!("{letter}{number}"));
    calls.extend(names('r', ROLES).map(|role| AuthCall::RoleAdd { role }));
    calls.extend(names('u', USERS).map(|user| AuthCall::UserAdd { user }));
    for (role, span) in names('r', ROLES).zip(spans()) {
        calls.push(AuthCall::Permit { role, span, rights: Rights { read: true, write: true } });
    }
    for (user, role) in names('u', USERS).zip(names('r', ROLES)) {
        calls.push(AuthCall::RoleGrant { user, role });
    }
    calls.push(AuthCall::UserAdd { user: ROOT.to_owned() });
    calls.push(AuthCall::RoleGrant { user: ROOT.to_owned(), role: ROOT.to_owned() });
    calls.push(AuthCall::Enable);
    calls
}

fn change() -> AuthCall {
    let dice = &mut thread_rng();
    let user = format!("u{}", dice.gen_range(0..USERS));
    let role = format!("r{}", dice.gen_range(0..ROLES));
    let span = spans().choose(dice).expect("there are some").clone();
    let rights = *[(true, false), (false, true), (true, true)].choose(dice).expect("there are some");
    match dice.gen_range(0..100u32) {
        0..=19 => AuthCall::RoleGrant { user, role },
        20..=39 => AuthCall::RoleRevoke { user, role },
        40..=64 => AuthCall::Permit { role, span, rights: Rights { read: rights.0, write: rights.1 } },
        65..=84 => AuthCall::Forbid { role, span },
        85..=89 => AuthCall::RoleDelete { role },
        90..=94 => AuthCall::UserDelete { user },
        95..=96 => AuthCall::Disable,
        _ => AuthCall::Status,
    }
}

/// Asks until it is known what came of it, so that few changes are left that may come late.
async fn insist(worker: &Worker, call: AuthCall) {
    while Instant::now() < worker.until {
        if !matches!(worker.ask(Call::Auth(call.clone())).await, Outcome::Unknown(_)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
