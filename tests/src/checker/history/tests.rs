//! All checkers together: on random runs of the model, and on what each of them is there to find.

use std::time::Instant;

use super::sample::{Dice, Sample, all_keys, get, leased, millis, put, read_keys, revision};
use super::*;
use crate::history::{Call, Compare, Comparison, Disturbance, Outcome, Received, Reply, Sort, Span, Step, Txn, Within};

const RECOVERY: Duration = Duration::from_secs(15);

/// A run of the model with a bit of everything.
fn random(seed: u64, calls: u64) -> Sample {
    let mut dice = Dice(seed);
    let mut sample = Sample::new();
    let mut list = String::new();
    for call in 0..calls {
        let client = dice.below(6) as usize;
        let key = format!("{}{}", ["r/", "k/"][dice.below(2) as usize], dice.below(8));
        let value = format!("v{call}");
        let old = 1 + dice.below(sample.revision as u64) as i64;
        match dice.below(14) {
            0 | 1 => drop(sample.txn(client, get(&key)).clone()),
            2 => drop(sample.txn(client, Txn { serializable: true, ..get(&key) }).clone()),
            3 | 4 => drop(sample.txn(client, put(&key, &value)).clone()),
            5 => {
                let step = Step::Put { key, value, lease: 0, prev_kv: true };
                sample.txn(client, Txn::of(step));
            }
            6 => drop(sample.txn(client, Txn::of(Step::Delete { span: Span::key(key), prev_kv: true })).clone()),
            7 => {
                let happens = dice.below(2) == 0;
                sample.unknown(client, put(&key, &value), happens);
            }
            8 => drop(sample.refused(client, Call::Txn(put(&key, &value)), "etcdserver: too many requests").clone()),
            9 => {
                let from = sample.versions.get(&key, sample.revision).map_or("none".into(), |kv| kv.value.clone());
                let compares = vec![Compare::equal(key.clone(), Comparison::Value(from))];
                let then = vec![Step::put(&key, &value)];
                sample.txn(
                    client,
                    Txn { compares, then, otherwise: vec![Step::range(Span::key(key))], serializable: false },
                );
            }
            10 => {
                let new = if list.is_empty() { value } else { format!("{list},{value}") };
                sample.txn(client, put("list/a", &new));
                list = new;
                sample.txn(client, get("list/a"));
            }
            11 => {
                sample.txn(client, put(&format!("sets/{call}"), &value));
                sample.txn(client, Txn::of(Step::range(Span::prefix("sets/"))));
            }
            12 => {
                let step = Step::Range {
                    span: all_keys(),
                    limit: 3,
                    revision: old,
                    count_only: false,
                    keys_only: true,
                    sort: Sort::default(),
                    within: Within::default(),
                };
                sample.txn(client, Txn::of(step));
            }
            _ => {
                let id = 1000 + call as i64;
                sample.grant(client, id, 10);
                sample.txn(client, leased(&format!("l/{call}"), &value, id));
                sample.keep_alive(client, id, 10);
                sample.revoke(client, id);
            }
        }
    }
    let span = Span::prefix("k/");
    let mut watch = super::sample::watch(span.clone(), 1);
    watch.received = sample.history.watches[0].received.clone();
    watch.received.retain_mut(|received| match received {
        Received::Events { changes, .. } => {
            changes.retain(|change| span.contains(&change.kv.key));
            !changes.is_empty()
        }
        _ => true,
    });
    sample.history.watches.push(watch);
    let (from, until) = (Duration::ZERO, sample.now);
    sample.history.disturbances.push(Disturbance { from, until, what: "test".into(), effect: None });
    sample.now += millis(60_000);
    sample.txn(1, get("k/1"));
    sample
}

#[test]
fn runs_of_the_model_pass() {
    for seed in 0..20 {
        assert_eq!(check_all(&random(seed, 300).end(), RECOVERY), None, "seed {seed}");
    }
}

#[test]
fn a_long_run_is_judged_quickly() {
    let history = random(99, 4000).end();
    let begun = Instant::now();
    assert_eq!(check_all(&history, RECOVERY), None);
    // Without optimisation; with it, it is a tenth.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let truth = Truth::of(&history);
    for (name, check) in CHECKERS {
        let begun = Instant::now();
        assert_eq!(check(&history, &truth, &Bounds::of(RECOVERY)), Ok(()));
        eprintln!("{name}: {:?}", begun.elapsed());
    }
}

#[test]
fn every_file_is_listed_once() {
    let mut names: Vec<&str> = CHECKERS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let declared = include_str!("mod.rs").lines();
    let mut declared: Vec<&str> =
        declared.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    declared.sort_unstable();
    assert_eq!(names, declared);
}

#[test]
fn a_run_whose_end_nobody_saw_is_judged_by_what_clients_saw() {
    assert!(WITHOUT_END.iter().all(|name| CHECKERS.iter().any(|(known, _)| known == name)));
    for seed in 0..5 {
        let mut history = random(seed, 300).end();
        history.end = crate::history::End::default();
        assert_eq!(check_without_end(&history, RECOVERY), None, "seed {seed}");
    }
    let mut sample = random(1, 100);
    sample.txn(1, put("sets/x", "1"));
    sample.txn(1, Txn::of(Step::range(Span::prefix("sets/"))));
    let mut history = sample.end();
    history.end = crate::history::End::default();
    read_keys(history.operations.last_mut().unwrap()).retain(|kv| kv.key != "sets/x");
    assert_eq!(check_without_end(&history, RECOVERY).unwrap().0, "sets");
}

#[test]
fn the_first_cause_is_told() {
    // An acknowledged write that is lost makes later reads wrong as well.
    let mut sample = random(1, 100);
    sample.txn(1, put("r/1", "lost"));
    let mut history = sample.end();
    let last = history.operations.last_mut().unwrap();
    *revision(last) = 2;
    let (checker, text) = check_all(&history, RECOVERY).unwrap();
    assert_eq!(checker, "revisions", "{text}");
    let mut history = random(2, 100).end();
    history.end.keys.pop();
    assert_eq!(check_all(&history, RECOVERY).unwrap().0, "durable");
    let mut history = random(3, 100).end();
    let Outcome::Done(Reply::Txn { steps, .. }) = &mut history.operations.last_mut().unwrap().outcome else {
        panic!("no answer")
    };
    steps.clear();
    assert_eq!(check_all(&history, RECOVERY).unwrap().0, "serializable");
}
