//! Each key is a register: every call on it seems to happen at one moment between its begin and its
//! end. Revisions are not looked at, so this does not believe what `serializable.rs` believes.
//!
//! - M. Herlihy and J. Wing, *Linearizability: a correctness condition for concurrent objects*
//!   (1990): the property, and that it holds for a system when it holds for each object, so keys
//!   are judged alone.
//! - J. Wing and C. Gong, *Testing and verifying concurrent objects* (1993): the search.
//! - G. Lowe, *Testing for linearizability* (2017): the memory of the search, which makes it usable.

mod register;
mod search;

use register::{Register, register_of};
use search::{Verdict, search};

use super::text::told;
use crate::history::{Call, History, Outcome, Span, Step, Txn};
use std::collections::{BTreeMap, BTreeSet};

/// What keys are judged: workloads promise to touch them by calls on one key alone, without leases.
pub const PREFIX: &str = "r/";

/// How many steps the search of one key may take. A right history needs few more than it has calls.
const STEPS: usize = 2_000_000;

/// Checks that every key below [`PREFIX`] is linearizable. Keys that some call touched together with
/// others, or tied to a lease, are left out, as are reads of old revisions and serializable reads.
pub fn check(history: &History) -> Result<(), String> {
    for (key, register) in registers(history) {
        match search(&register, STEPS) {
            Verdict::Linearizable => {}
            Verdict::Undecided => return Err(format!("undecided: {key} is too much to search in {STEPS} steps")),
            Verdict::Violated { longest, state, left } => {
                let left: Vec<String> = left.iter().map(|call| told(&history.operations[*call])).collect();
                let state = register.value(state).map_or("absent".into(), |value| format!("{value:?}"));
                let left = left.join("\n");
                return Err(format!(
                    "{key} is not linearizable: at best {longest} answered calls have an order; it is {state} \
                     then, and the next is none of\n{left}"
                ));
            }
        }
    }
    Ok(())
}

/// How many keys are judged.
pub fn judged(history: &History) -> usize {
    registers(history).len()
}

/// The calls of each key that is judged.
fn registers(history: &History) -> BTreeMap<String, Register> {
    let mut spoiled = BTreeSet::new();
    let mut calls: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut spans = Vec::new();
    for (place, operation) in history.operations.iter().enumerate() {
        let Call::Txn(txn) = &operation.call else { continue };
        let has_happened = !matches!(operation.outcome, Outcome::Refused(_));
        match only_key(txn) {
            Some(key) if key.starts_with(PREFIX) => {
                if !has_happened || txn.may_be_stale() {
                    continue;
                }
                calls.entry(key).or_default().push(place);
            }
            Some(_) => {}
            None if has_happened && txn.may_write() => touched(txn, &mut spoiled, &mut spans),
            None => {}
        }
    }
    calls.retain(|key, _| !spoiled.contains(key) && !spans.iter().any(|span: &&Span| span.contains(key)));
    let registers = calls.into_iter().filter_map(|(key, calls)| {
        // A call that is more than a register's own spoils its key as well.
        Some((key.to_owned(), register_of(&history.operations, &calls)?))
    });
    registers.collect()
}

/// The key of a transaction that touches only one.
fn only_key(txn: &Txn) -> Option<&str> {
    let compares = txn.compares.iter().map(|compare| compare.until.is_none().then_some(compare.key.as_str()));
    let steps = txn.then.iter().chain(&txn.otherwise).map(|step| match step {
        Step::Put { key, .. } => Some(key.as_str()),
        Step::Delete { span, .. } | Step::Range { span, .. } if span.to.is_none() => Some(span.from.as_str()),
        _ => None,
    });
    let mut keys = compares.chain(steps);
    let first = keys.next()??;
    keys.all(|key| key == Some(first)).then_some(first)
}

/// The keys and spans that a transaction may write.
fn touched<'a>(txn: &'a Txn, keys: &mut BTreeSet<&'a str>, spans: &mut Vec<&'a Span>) {
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Put { key, .. } | Step::Amend { key, .. } => drop(keys.insert(key)),
            Step::Delete { span, .. } => spans.push(span),
            Step::Txn(txn) => touched(txn, keys, spans),
            Step::Range { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
