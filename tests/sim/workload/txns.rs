//! Transactions of every shape across a few keys: transfers between accounts whose sum stays, and
//! random ones with nested branches, ranges in the past, and deletes of ranges.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Compare, Comparison, KeyValue, Span, Step, Txn};

use super::Worker;

const KEYS: u32 = 5;
/// How deep transactions nest.
const DEPTH: u32 = 2;

pub(super) async fn run(mut worker: Worker) {
    let mut known = 1;
    while worker.goes_on().await {
        let revision = if thread_rng().gen_bool(0.4) {
            transfer(&mut worker).await
        } else {
            let txn = random(&mut worker, known, DEPTH, &mut Vec::new());
            worker.txn(txn).await.map(|(revision, _, _)| revision)
        };
        known = revision.unwrap_or(known);
    }
}

/// Moves something from one account to another, on top of what it read of both.
async fn transfer(worker: &mut Worker) -> Option<i64> {
    let (_, accounts) = worker.read(Span::prefix("bank/")).await?;
    let mut names: Vec<u32> = (0..KEYS).collect();
    names.shuffle(&mut thread_rng());
    let (one, other) = (format!("bank/{}", names[0]), format!("bank/{}", names[1]));
    let modified = |key: &str| accounts.iter().find(|kv| kv.key == key).map_or(0, |kv| kv.modified);
    let guard = |key: &str| Compare { key: key.to_owned(), to: Comparison::Modified(modified(key)) };
    let txn = Txn {
        compares: vec![guard(&one), guard(&other)],
        then: vec![
            Step::put(one.clone(), balance(worker, &accounts, &one, -1)),
            Step::put(other.clone(), balance(worker, &accounts, &other, 1)),
        ],
        otherwise: vec![Step::range(Span::prefix("bank/"))],
        serializable: false,
    };
    worker.txn(txn).await.map(|(revision, _, _)| revision)
}

/// The new content of an account: its balance, and who wrote it.
fn balance(worker: &mut Worker, accounts: &[KeyValue], key: &str, change: i64) -> String {
    let found = accounts.iter().find(|kv| kv.key == key);
    let old = found.and_then(|kv| kv.value.split(' ').next()?.parse::<i64>().ok()).unwrap_or(0);
    format!("{} {}", old + change, worker.fresh())
}

/// Any transaction that etcd accepts: no key is put twice, nor put and deleted.
fn random(worker: &mut Worker, known: i64, depth: u32, taken: &mut Vec<String>) -> Txn {
    let compares = (0..thread_rng().gen_range(0..3u32)).map(|_| random_compare(known)).collect();
    let before = taken.len();
    let then = random_steps(worker, known, depth, taken);
    // Only one branch is taken, so both may write the same keys; but etcd counts those of both
    // against what is around them.
    let mut others = taken[..before].to_vec();
    let otherwise = random_steps(worker, known, depth, &mut others);
    taken.extend(others.drain(before..));
    Txn { compares, then, otherwise, serializable: false }
}

fn random_compare(known: i64) -> Compare {
    let dice = &mut thread_rng();
    let key = format!("t/{}", dice.gen_range(0..KEYS));
    let to = match dice.gen_range(0..5u32) {
        0 => Comparison::Version(dice.gen_range(0..4)),
        1 => Comparison::Created(0),
        2 => Comparison::Modified(dice.gen_range(0..=known)),
        3 => Comparison::Lease(0),
        _ => Comparison::Value("nobody wrote this".to_owned()),
    };
    Compare { key, to }
}

fn random_steps(worker: &mut Worker, known: i64, depth: u32, taken: &mut Vec<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..thread_rng().gen_range(0..4u32) {
        let key = format!("t/{}", thread_rng().gen_range(0..KEYS));
        match thread_rng().gen_range(0..10u32) {
            0..=3 if !taken.contains(&key) => {
                taken.push(key.clone());
                let (value, prev_kv) = (worker.fresh(), thread_rng().gen_bool(0.3));
                steps.push(Step::Put { key, value, lease: 0, prev_kv });
            }
            4 if !taken.contains(&key) => {
                taken.push(key.clone());
                steps.push(Step::Delete { span: Span::key(key), prev_kv: thread_rng().gen_bool(0.3) });
            }
            5..=7 => steps.push(random_range(known)),
            8 | 9 if depth > 0 => steps.push(Step::Txn(Box::new(random(worker, known, depth - 1, taken)))),
            _ => {}
        }
    }
    steps
}

fn random_range(known: i64) -> Step {
    let dice = &mut thread_rng();
    let span = match dice.gen_range(0..3u32) {
        0 => Span::key(format!("t/{}", dice.gen_range(0..KEYS))),
        1 => Span::prefix("t/"),
        _ => Span::prefix("bank/"),
    };
    Step::Range {
        span,
        limit: dice.gen_range(0..4),
        revision: match dice.gen_range(0..100u32) {
            0..30 => dice.gen_range(1..=known),
            30..32 => known + 1000, // nobody has been there
            _ => 0,
        },
        count_only: dice.gen_bool(0.2),
        keys_only: dice.gen_bool(0.2),
    }
}
