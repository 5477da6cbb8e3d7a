//! Lists only grow, at their end, by what was appended.
//!
//! After K. Kingsbury and P. Alvaro, *Elle: inferring isolation anomalies from experimental
//! observations* (2020): a list shows its own history, so what was read can be ordered without
//! believing any revision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::text::told;
use crate::history::{Call, History, Operation, Outcome, Reply, Step, StepReply, Txn, Within};
use crate::model::written;

/// Where lists are. A value is the names of all elements, joined by commas; an append puts the old
/// list and one name more, on the condition that the value is the old list. Names are unique.
pub const PREFIX: &str = "list/";

/// Checks of every list that all that was ever seen of it are beginnings of one list, that it has
/// no element twice and none that nobody appended, and that who asked later sees no less: all that
/// was seen, or acknowledged as appended, before.
pub fn check(history: &History) -> Result<(), String> {
    let (mut attempts, mut refused) = (HashMap::new(), HashMap::new());
    let mut lists: BTreeMap<&str, Vec<Seen<'_>>> = BTreeMap::new();
    for operation in &history.operations {
        let Call::Txn(txn) = &operation.call else { continue };
        for step in txn.then.iter().chain(&txn.otherwise) {
            let Step::Put { key, value, .. } = step else { continue };
            if key.starts_with(PREFIX) {
                let element = (key.as_str(), value.rsplit(',').next().unwrap_or_default());
                let is_refused = matches!(operation.outcome, Outcome::Refused(_));
                if is_refused { &mut refused } else { &mut attempts }.insert(element, operation);
                lists.entry(key).or_default();
            }
        }
    }
    for operation in &history.operations {
        let (Call::Txn(txn), Outcome::Done(Reply::Txn { succeeded, steps, .. })) =
            (&operation.call, &operation.outcome)
        else {
            continue;
        };
        let branch = if *succeeded { &txn.then } else { &txn.otherwise };
        for put in written(txn, *succeeded, steps) {
            if let Some(seen) = lists.get_mut(put.key) {
                seen.push(Seen { operation, list: put.value, appends: true });
            }
        }
        for (step, reply) in branch.iter().zip(steps) {
            read(txn, step, reply, operation, &mut lists);
        }
    }
    for (key, seen) in &mut lists {
        one_list(key, seen, &attempts, &refused)?;
        grows(key, seen)?;
    }
    Ok(())
}

/// What a call saw of a list.
struct Seen<'a> {
    operation: &'a Operation,
    list: &'a str,
    /// Whether it made the list so.
    appends: bool,
}

impl Seen<'_> {
    /// Whether it must see what was there when it began.
    fn is_current(&self) -> bool {
        !matches!(&self.operation.call, Call::Txn(txn) if txn.may_be_stale())
    }
}

fn read<'a>(
    txn: &Txn,
    step: &'a Step,
    reply: &'a StepReply,
    operation: &'a Operation,
    lists: &mut BTreeMap<&'a str, Vec<Seen<'a>>>,
) {
    let Step::Range { span, revision: 0, count_only: false, keys_only: false, within: Within::ALL, .. } = step else {
        return;
    };
    let StepReply::Range { keys, more, .. } = reply else { return };
    for kv in keys.iter().filter(|kv| kv.key.starts_with(PREFIX)) {
        let seen = lists.entry(&kv.key).or_default();
        seen.push(Seen { operation, list: &kv.value, appends: false });
    }
    // A list that is not there is empty; a transaction that writes may see its own.
    if *more || txn.may_write() {
        return;
    }
    let there: HashSet<&str> = keys.iter().map(|kv| kv.key.as_str()).collect();
    for (key, seen) in lists {
        if span.contains(key) && !there.contains(key) {
            seen.push(Seen { operation, list: "", appends: false });
        }
    }
}

type Attempts<'a> = HashMap<(&'a str, &'a str), &'a Operation>;

fn one_list(key: &str, seen: &[Seen<'_>], attempts: &Attempts<'_>, refused: &Attempts<'_>) -> Result<(), String> {
    let mut by_length: Vec<&Seen<'_>> = seen.iter().collect();
    by_length.sort_by_key(|seen| seen.list.len());
    for pair in by_length.windows(2) {
        let (short, long) = (pair[0].list, pair[1].list);
        let rest = long.strip_prefix(short);
        if !rest.is_some_and(|rest| short.is_empty() || rest.is_empty() || rest.starts_with(',')) {
            let (one, other) = (told(pair[0].operation), told(pair[1].operation));
            return Err(format!("{key} was seen as two lists, neither of which begins the other:\n{one}\n{other}"));
        }
    }
    // All others are beginnings of the longest.
    let Some(longest) = by_length.last().filter(|longest| !longest.list.is_empty()) else { return Ok(()) };
    let mut elements = HashSet::new();
    for element in longest.list.split(',') {
        let by = || told(longest.operation);
        if !elements.insert(element) {
            return Err(format!("{key} has {element} twice: {}", by()));
        }
        if !attempts.contains_key(&(key, element)) {
            let why = match refused.get(&(key, element)) {
                Some(refused) => format!("whose append was refused: {}", told(refused)),
                None => "which nobody appended".into(),
            };
            return Err(format!("{key} has {element}, {why}\n{}", by()));
        }
    }
    Ok(())
}

/// In the order of time: what begins when a list was known to be so long finds it so long.
fn grows(key: &str, seen: &[Seen<'_>]) -> Result<(), String> {
    let mut ended: Vec<&Seen<'_>> = seen.iter().collect();
    ended.sort_by_key(|seen| seen.operation.ended);
    let mut begun = ended.clone();
    begun.sort_by_key(|seen| seen.operation.began);
    let mut ended = ended.into_iter().peekable();
    let mut longest: Option<&Seen<'_>> = None;
    for seen in begun {
        let began: Duration = seen.operation.began;
        while let Some(known) = ended.next_if(|known| known.operation.ended < began) {
            if longest.is_none_or(|longest| longest.list.len() < known.list.len()) {
                longest = Some(known);
            }
        }
        let Some(longest) = longest else { continue };
        let (due, actual) = (longest.list.len(), seen.list.len());
        if seen.is_current() && (actual < due || (seen.appends && actual == due && due > 0)) {
            let (known, late) = (told(longest.operation), told(seen.operation));
            return Err(format!("{key} was longer before, and then not any more:\n{known}\n{late}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, expect, get, millis, read_keys};
    use super::*;
    use crate::history::{Compare, Comparison, Span};

    fn append(old: &str, new: &str) -> Txn {
        let to = if old.is_empty() { Comparison::Version(0) } else { Comparison::Value(old.into()) };
        let compares = vec![Compare::equal("list/a", to)];
        let otherwise = vec![Step::range(Span::key("list/a"))];
        Txn { compares, then: vec![Step::put("list/a", new)], otherwise, serializable: false }
    }

    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.txn(1, get("list/a"));
        sample.txn(1, append("", "x1"));
        sample.txn(2, append("", "x2"));
        sample.unknown(2, append("x1", "x1,x3"), true);
        sample.txn(1, append("x1,x3", "x1,x3,x10"));
        sample.txn(1, Txn::of(Step::range(Span::prefix(PREFIX))));
        sample
    }

    /// What the run comes to when its last read saw another list.
    fn seen(list: &str) -> Result<(), String> {
        let mut sample = sample();
        let kv = &mut read_keys(sample.history.operations.last_mut().unwrap())[0];
        kv.value = list.into();
        check(&sample.end())
    }

    #[test]
    fn a_growing_list_passes() {
        assert_eq!(check(&sample().end()), Ok(()));
    }

    #[test]
    fn two_lists_are_found() {
        expect(seen("x1,x2,x10"), "two lists");
        expect(seen("x1,x3,x1"), "two lists");
    }

    #[test]
    fn elements_of_nobody_and_of_refused_appends_are_found() {
        expect(seen("x1,x3,x10,x9"), "nobody appended");
        let mut sample = sample();
        sample.refused(3, Call::Txn(append("x1,x3,x10", "x1,x3,x10,x4")), "etcdserver: too many requests");
        read_keys(&mut sample.history.operations[5])[0].value.push_str(",x4");
        expect(check(&sample.end()), "append was refused");
    }

    #[test]
    fn an_element_that_comes_twice_is_found() {
        expect(seen("x1,x3,x10,x1"), "x1 twice");
    }

    #[test]
    fn a_list_that_shrinks_is_found() {
        expect(seen("x1,x3"), "longer before");
        let mut lost = sample();
        read_keys(lost.history.operations.last_mut().unwrap()).clear();
        let mut serializable = lost.clone();
        expect(check(&lost.end()), "longer before");
        let Call::Txn(txn) = &mut serializable.history.operations[5].call else { panic!("no txn") };
        txn.serializable = true;
        assert_eq!(check(&serializable.end()), Ok(()));
    }

    #[test]
    fn what_overlaps_has_no_order() {
        let mut sample = sample();
        read_keys(&mut sample.history.operations[5])[0].value = "x1,x3".into();
        sample.history.operations[5].began = millis(20);
        assert_eq!(check(&sample.end()), Ok(()));
    }
}
