use std::time::Duration;

use super::super::sample::{Dice, Sample, delete, expect, get, leased, millis, put};
use super::*;
use crate::history::{Compare, Comparison, KeyValue, Operation, Reply, StepReply};

/// One call of a history that a test writes by hand: when it began and ended, and what it was.
type Line = (u64, u64, Txn, Outcome);

fn history(lines: Vec<Line>) -> History {
    let operations = lines.into_iter().enumerate().map(|(client, (began, ended, txn, outcome))| {
        let (began, ended) = (Duration::from_millis(began), Duration::from_millis(ended));
        Operation { client, member: None, call: Call::Txn(txn), began, ended, outcome }
    });
    let mut operations: Vec<Operation> = operations.collect();
    operations.sort_by_key(|operation| operation.began);
    History { operations, ..History::default() }
}

fn answer(succeeded: bool, steps: Vec<StepReply>) -> Outcome {
    Outcome::Done(Reply::Txn { revision: 0, succeeded, steps })
}

fn write(began: u64, ended: u64, value: &str) -> Line {
    (began, ended, put("r/a", value), answer(true, vec![StepReply::Put { prev: None }]))
}

fn unknown(began: u64, ended: u64, txn: Txn) -> Line {
    (began, ended, txn, Outcome::Unknown("timeout".into()))
}

/// A read of a value, or of nothing where it is empty.
fn read(began: u64, ended: u64, value: &str) -> Line {
    let kv = KeyValue { key: "r/a".into(), value: value.into(), ..KeyValue::default() };
    let keys = if value.is_empty() { vec![] } else { vec![kv] };
    let count = keys.len() as i64;
    (began, ended, get("r/a"), answer(true, vec![StepReply::Range { keys, count, more: false }]))
}

fn remove(began: u64, ended: u64, deleted: i64) -> Line {
    (began, ended, delete("r/a"), answer(true, vec![StepReply::Delete { deleted, prevs: vec![] }]))
}

fn cas_txn(from: &str, to: &str) -> Txn {
    let compares = vec![Compare::equal("r/a", Comparison::Value(from.into()))];
    Txn { compares, then: vec![Step::put("r/a", to)], ..Txn::default() }
}

fn cas(began: u64, ended: u64, from: &str, to: &str, succeeded: bool) -> Line {
    let steps = if succeeded { vec![StepReply::Put { prev: None }] } else { vec![] };
    (began, ended, cas_txn(from, to), answer(succeeded, steps))
}

fn found(lines: Vec<Line>) -> Result<(), String> {
    check(&history(lines))
}

#[test]
fn what_overlaps_may_be_ordered_either_way() {
    for value in ["", "1", "2"] {
        assert_eq!(found(vec![write(0, 10, "1"), write(0, 10, "2"), read(5, 8, value)]), Ok(()), "{value}");
    }
    assert_eq!(found(vec![write(0, 10, "1"), read(20, 30, "1"), remove(40, 50, 1), read(60, 70, "")]), Ok(()));
    assert_eq!(found(vec![write(0, 10, "1"), cas(20, 30, "1", "2", true), cas(20, 30, "1", "3", false)]), Ok(()));
}

#[test]
fn a_stale_read_is_found() {
    expect(found(vec![write(0, 10, "1"), read(11, 20, "")]), "r/a is not linearizable: at best 1");
    assert!(found(vec![write(0, 10, "1"), write(20, 30, "2"), read(40, 50, "1")]).is_err());
    // Both reads overlap the write, but not each other.
    let writes = vec![write(0, 5, "1"), write(10, 50, "2"), read(15, 20, "2"), read(25, 30, "1")];
    assert!(found(writes).is_err());
}

#[test]
fn a_lost_update_is_found() {
    let both = vec![write(0, 10, "1"), cas(20, 40, "1", "2", true), cas(20, 40, "1", "3", true)];
    assert!(found(both).is_err());
    assert!(found(vec![write(0, 10, "1"), cas(20, 40, "1", "2", false)]).is_err());
}

#[test]
fn a_value_from_nowhere_is_found() {
    assert!(found(vec![write(0, 10, "1"), read(5, 20, "2")]).is_err());
    assert!(found(vec![read(0, 5, "1"), write(10, 20, "1")]).is_err());
    assert!(found(vec![read(0, 5, "1"), unknown(10, 20, put("r/a", "1"))]).is_err());
    assert!(found(vec![remove(0, 10, 1)]).is_err());
}

#[test]
fn an_unanswered_write_may_happen_late_or_never_but_once() {
    let open = || unknown(0, 10, put("r/a", "u"));
    assert_eq!(found(vec![open(), read(20, 30, "")]), Ok(()));
    assert_eq!(found(vec![open(), read(20, 30, ""), read(40, 50, "u")]), Ok(()));
    assert!(found(vec![open(), read(20, 30, "u"), read(40, 50, "")]).is_err());
    assert!(found(vec![open(), read(20, 30, "u"), write(40, 50, "1"), read(60, 70, "u")]).is_err());
    assert_eq!(found(vec![open(), write(40, 50, "1"), read(60, 70, "u")]), Ok(()));
}

#[test]
fn an_unanswered_removal_may_happen_once() {
    let open = || unknown(0, 10, delete("r/a"));
    assert_eq!(found(vec![write(0, 5, "1"), open(), read(20, 30, "1"), read(40, 50, "")]), Ok(()));
    let twice = || vec![write(0, 5, "1"), open(), read(20, 30, ""), write(40, 50, "2"), read(60, 70, "")];
    assert!(found(twice()).is_err());
    let mut enough = twice();
    enough.push(open());
    assert_eq!(found(enough), Ok(()));
}

#[test]
fn an_unseen_write_may_explain_what_is_not_a_value() {
    assert_eq!(found(vec![unknown(0, 10, put("r/a", "u")), remove(20, 30, 1)]), Ok(()));
    assert!(found(vec![unknown(0, 10, put("r/a", "u")), remove(20, 30, 1), remove(40, 50, 1)]).is_err());
    assert_eq!(found(vec![write(0, 5, "1"), unknown(0, 9, put("r/a", "u")), cas(20, 30, "1", "2", false)]), Ok(()));
    assert_eq!(found(vec![write(0, 5, "1"), unknown(0, 9, cas_txn("1", "2")), cas(20, 30, "1", "3", false)]), Ok(()));
}

#[test]
fn keys_that_are_more_than_registers_are_left_out() {
    let stale = || history(vec![write(0, 10, "1"), read(11, 20, "")]);
    let last = millis(30);
    let others = [
        Txn { then: vec![Step::put("r/a", "x"), Step::put("r/b", "y")], ..Txn::default() },
        leased("r/a", "x", 7),
        Txn::of(Step::Delete { span: Span::prefix("r/"), prev_kv: false }),
    ];
    for txn in others {
        let mut history = stale();
        let outcome = Outcome::Unknown("timeout".into());
        history.operations.push(Operation {
            client: 9,
            member: None,
            call: Call::Txn(txn),
            began: last,
            ended: last,
            outcome,
        });
        assert_eq!((check(&history), judged(&history)), (Ok(()), 0));
    }
    assert!(check(&stale()).is_err());
    assert_eq!(judged(&stale()), 1);
    let mut elsewhere = stale();
    for operation in &mut elsewhere.operations {
        let Call::Txn(txn) = &mut operation.call else { panic!("no txn") };
        *txn = if txn.may_write() { put("q/a", "1") } else { get("q/a") };
    }
    assert_eq!(check(&elsewhere), Ok(()));
}

#[test]
fn answers_of_the_model_pass_with_all_they_tell() {
    let mut sample = Sample::new();
    let with_prev = |value: &str| Step::Put { key: "r/a".into(), value: value.into(), lease: 0, prev_kv: true };
    sample.txn(1, Txn::of(with_prev("1")));
    sample.txn(1, Txn::of(with_prev("2")));
    sample.txn(1, Txn { otherwise: vec![Step::range(Span::key("r/a"))], ..cas_txn("1", "3") });
    sample.txn(1, Txn::of(Step::Delete { span: Span::key("r/a"), prev_kv: true }));
    sample.txn(1, Txn::of(Step::Delete { span: Span::key("r/a"), prev_kv: true }));
    assert_eq!(check(&sample.clone().end()), Ok(()));
    sample.history.operations.swap(0, 1);
    let began = sample.history.operations[0].began;
    (sample.history.operations[0].began, sample.history.operations[1].began) = (millis(20), began);
    (sample.history.operations[0].ended, sample.history.operations[1].ended) = (millis(30), began + millis(10));
    assert!(check(&sample.end()).is_err());
}

#[test]
fn a_search_that_takes_too_long_says_so() {
    let history = history((0..20).map(|it| write(0, 1000, &it.to_string())).collect());
    let (_, register) = registers(&history).pop_first().unwrap();
    assert_eq!(search(&register, 5), Verdict::Undecided);
}

/// What a register does, call after call, with intervals around the moments at which it does it.
fn random(dice: &mut Dice, calls: u64, spread: u64, unknown_in: u64) -> Vec<Line> {
    let mut state = String::new();
    let mut lines = Vec::new();
    for call in 0..calls {
        let at = 1000 + call * 10;
        let (began, ended) = (at - dice.below(spread), at + dice.below(spread));
        let value = format!("v{call}");
        let mut line = match dice.below(6) {
            0 | 1 => read(began, ended, &state),
            2 => {
                let deleted = i64::from(!state.is_empty());
                state.clear();
                remove(began, ended, deleted)
            }
            3 if !state.is_empty() && dice.below(3) > 0 => {
                let line = cas(began, ended, &state, &value, true);
                state = value;
                line
            }
            3 => cas(began, ended, "never", &value, false),
            _ => {
                state = value;
                write(began, ended, &state)
            }
        };
        if dice.below(unknown_in) == 0 && line.2.may_write() {
            line.3 = Outcome::Unknown("timeout".into());
        }
        lines.push(line);
    }
    lines
}

#[test]
fn long_histories_are_accepted_quickly() {
    let mut dice = Dice(1);
    for _ in 0..5 {
        let lines = random(&mut dice, 2000, 60, 50);
        let history = history(lines);
        for (_, register) in registers(&history) {
            assert_eq!(search(&register, STEPS / 10), Verdict::Linearizable);
        }
    }
}

#[test]
fn a_changed_read_in_a_long_history_is_found() {
    let mut dice = Dice(2);
    let mut lines = random(&mut dice, 2000, 60, 50);
    lines[1500] = read(16_000, 16_010, "v3");
    expect(found(lines), "not linearizable");
}

/// Tries every order of every choice of unanswered calls.
fn brute_force(lines: &[Line]) -> bool {
    fn fits(lines: &[Line], done: u32, state: Option<&str>) -> bool {
        let left = || (0..lines.len()).filter(|it| done & (1 << it) == 0);
        let is_answered = |it: &usize| matches!(lines[*it].3, Outcome::Done(_));
        if left().all(|it| !is_answered(&it)) {
            return true;
        }
        let deadline = left().filter(is_answered).map(|it| lines[it].1).min().unwrap();
        left().filter(|it| lines[*it].0 <= deadline).any(|it| {
            let (_, _, txn, outcome) = &lines[it];
            let holds = txn.compares.iter().all(|compare| match &compare.to {
                Comparison::Value(value) => state == Some(value),
                _ => panic!("{compare:?}"),
            });
            let step = if holds { txn.then.first() } else { txn.otherwise.first() };
            let mut explained = true;
            if let Outcome::Done(Reply::Txn { succeeded, steps, .. }) = outcome {
                explained = *succeeded == holds;
                explained &= match steps.first() {
                    Some(StepReply::Range { keys, .. }) => keys.first().map(|kv| kv.value.as_str()) == state,
                    Some(StepReply::Delete { deleted, .. }) => (*deleted > 0) == state.is_some(),
                    _ => true,
                };
            }
            let state = match step {
                Some(Step::Put { value, .. }) => Some(value.as_str()),
                Some(Step::Delete { .. }) => None,
                _ => state,
            };
            explained && fits(lines, done | (1 << it), state)
        })
    }
    fits(lines, 0, None)
}

#[test]
fn short_histories_are_judged_as_by_brute_force() {
    let mut dice = Dice(3);
    let mut rejected = 0;
    for _ in 0..3000 {
        let calls = 3 + dice.below(5);
        let mut lines = random(&mut dice, calls, 30, 4);
        let place = dice.below(calls) as usize;
        let (began, ended, ..) = lines[place];
        lines[place] = match dice.below(3) {
            0 => read(began, ended, ""),
            1 => remove(began, ended, 1),
            _ => read(began, ended, &format!("v{}", dice.below(calls))),
        };
        let expected = brute_force(&lines);
        rejected += u32::from(!expected);
        assert_eq!(found(lines.clone()).is_ok(), expected, "{lines:#?}");
    }
    assert!((300..2700).contains(&rejected), "{rejected} of 3000 were rejected");
}
