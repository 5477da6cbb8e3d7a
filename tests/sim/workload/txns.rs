//! Transactions of every shape across a few keys: transfers between accounts whose sum stays, and
//! random ones with nested branches, every kind of condition, ranges that are sorted, filtered or in the
//! past, and deletes of several keys; some that must be refused.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Compare, Comparison, KeyValue, Order, Relation, Sort, SortBy, Span, Step, Txn, Within};
use mainstay_tests::model::always_refused;

use super::Worker;

const KEYS: u32 = 5;
/// How deep transactions nest.
const DEPTH: u32 = 2;
/// How many of the transactions that are always refused are asked for.
const REFUSED: f64 = 0.06;
/// How many of the random ones are a single step, which goes out as a request of its own.
const ALONE: f64 = 0.2;

pub(super) async fn run(mut worker: Worker) {
    let mut known = 1;
    while worker.goes_on().await {
        let revision = if thread_rng().gen_bool(0.4) {
            transfer(&mut worker).await
        } else {
            let txn = random(&mut worker, known);
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
    let guard = |key: &str| Compare::equal(key, Comparison::Modified(modified(key)));
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

/// Any transaction; mostly one that is not refused whatever there is.
fn random(worker: &mut Worker, known: i64) -> Txn {
    loop {
        let txn = if thread_rng().gen_bool(ALONE) {
            Txn::of(random_step(worker, known, 0))
        } else {
            random_txn(worker, known, DEPTH)
        };
        if always_refused(&txn).is_none() || thread_rng().gen_bool(REFUSED) {
            return txn;
        }
    }
}

fn random_txn(worker: &mut Worker, known: i64, depth: u32) -> Txn {
    let compares = (0..thread_rng().gen_range(0..3u32)).map(|_| random_compare(known)).collect();
    let mut steps = || (0..thread_rng().gen_range(0..4u32)).map(|_| random_step(worker, known, depth)).collect();
    Txn { compares, then: steps(), otherwise: steps(), serializable: false }
}

fn random_key() -> String {
    format!("t/{}", thread_rng().gen_range(0..KEYS))
}

fn random_span() -> Span {
    let dice = &mut thread_rng();
    let from = dice.gen_range(0..KEYS);
    match dice.gen_range(0..5u32) {
        0 => Span::prefix("t/"),
        _ => Span { from: format!("t/{from}"), to: Some(format!("t/{}", from + dice.gen_range(0..4))) },
    }
}

/// A condition that is about as often met as not.
fn random_compare(known: i64) -> Compare {
    let span = if thread_rng().gen_bool(0.25) { random_span() } else { Span::key(random_key()) };
    let dice = &mut thread_rng();
    let to = match dice.gen_range(0..5u32) {
        0 => Comparison::Version(dice.gen_range(0..4)),
        1 => Comparison::Created(if dice.gen_bool(0.5) { 0 } else { dice.gen_range(0..=known) }),
        2 => Comparison::Modified(dice.gen_range(0..=known)),
        3 => Comparison::Lease(0),
        // Values begin with the number of their client; nobody wrote the other one.
        _ if dice.gen_bool(0.5) => Comparison::Value(dice.gen_range(0..6u32).to_string()),
        _ => Comparison::Value("nobody wrote this".to_owned()),
    };
    let relations = [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
    let is = *relations.choose(dice).expect("there are some");
    Compare { key: span.from, until: span.to, is, to }
}

fn random_step(worker: &mut Worker, known: i64, depth: u32) -> Step {
    let prev_kv = thread_rng().gen_bool(0.3);
    match thread_rng().gen_range(0..40u32) {
        0..=13 => Step::Put { key: random_key(), value: worker.fresh(), lease: 0, prev_kv },
        14 | 15 => random_amendment(worker, prev_kv),
        16..=18 => Step::Delete { span: Span::key(random_key()), prev_kv },
        19 => Step::Delete { span: random_span(), prev_kv },
        20..=31 => random_range(known),
        _ if depth > 0 => Step::Txn(Box::new(random_txn(worker, known, depth - 1))),
        _ => Step::put(random_key(), worker.fresh()),
    }
}

/// A put that leaves something as it is; now and then one that says what it leaves, which is refused.
fn random_amendment(worker: &mut Worker, prev_kv: bool) -> Step {
    let (ignore_value, ignore_lease) =
        *[(true, false), (false, true), (true, true)].choose(&mut thread_rng()).expect("three");
    let contradicts = thread_rng().gen_bool(0.2);
    let value = if ignore_value && !contradicts { String::new() } else { worker.fresh() };
    let lease = i64::from(ignore_lease && contradicts && thread_rng().gen_bool(0.5));
    Step::Amend { key: random_key(), value, lease, ignore_value, ignore_lease, prev_kv }
}

fn random_range(known: i64) -> Step {
    let dice = &mut thread_rng();
    let span = match dice.gen_range(0..3u32) {
        0 => Span::key(format!("t/{}", dice.gen_range(0..KEYS))),
        1 => Span::prefix("t/"),
        _ => Span::prefix("bank/"),
    };
    let targets = [SortBy::Key, SortBy::Version, SortBy::Created, SortBy::Modified, SortBy::Value];
    let orders = [Order::Unsaid, Order::Rising, Order::Falling];
    let sort = if dice.gen_bool(0.4) {
        let (by, order) = (targets.choose(dice).expect("five"), orders.choose(dice).expect("three"));
        Sort { by: *by, order: *order }
    } else {
        Sort::default()
    };
    // Keys are as old as the last hundred revisions.
    let mut bound = |chance| if dice.gen_bool(chance) { (known - dice.gen_range(0..100)).max(0) } else { 0 };
    let within = Within { modified: (bound(0.1), bound(0.1)), created: (bound(0.05), bound(0.05)) };
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
        sort,
        within,
    }
}
