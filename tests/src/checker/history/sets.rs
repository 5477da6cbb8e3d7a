//! What is in a set stays there.

use std::collections::HashMap;
use std::time::Duration;

use super::text::told;
use crate::history::{Call, History, KeyValue, Operation, Outcome, Reply, Span, Step, StepReply, Within};
use crate::model::written;

/// Where the elements of the set are, a key each, put once and never removed.
pub const PREFIX: &str = "sets/";

/// Checks of every listing that it has each element that was acknowledged, or seen by another,
/// before the listing began (a serializable one may be behind), and none that nobody had put.
pub fn check(history: &History) -> Result<(), String> {
    let mut elements: HashMap<&str, Element<'_>> = HashMap::new();
    for operation in &history.operations {
        let Call::Txn(txn) = &operation.call else { continue };
        if matches!(operation.outcome, Outcome::Refused(_)) {
            continue;
        }
        for step in txn.then.iter().chain(&txn.otherwise) {
            let Step::Put { key, .. } = step else { continue };
            if key.starts_with(PREFIX) {
                let element = elements.entry(key).or_insert(Element { put: operation.began, known: None });
                element.put = element.put.min(operation.began);
            }
        }
        if let Outcome::Done(Reply::Txn { succeeded, steps, .. }) = &operation.outcome {
            for put in written(txn, *succeeded, steps) {
                if let Some(element) = elements.get_mut(put.key) {
                    element.learned(operation);
                }
            }
        }
    }
    let listings: Vec<Listing<'_>> = history.operations.iter().filter_map(Listing::of).collect();
    for listing in &listings {
        for kv in listing.keys.iter().filter(|kv| kv.key.starts_with(PREFIX)) {
            match elements.get_mut(kv.key.as_str()) {
                Some(element) if element.put <= listing.operation.ended => element.learned(listing.operation),
                _ => return Err(format!("{} was listed and not put before: {}", kv.key, told(listing.operation))),
            }
        }
    }
    let mut known: Vec<(&str, &Operation)> = Vec::new();
    known.extend(elements.iter().filter_map(|(key, element)| Some((*key, element.known?))));
    known.sort_unstable_by_key(|(key, by)| (by.ended, *key));
    let places: HashMap<&str, usize> = known.iter().enumerate().map(|(place, (key, _))| (*key, place)).collect();
    for listing in listings.iter().filter(|listing| listing.is_complete) {
        let mut listed = vec![false; known.len()];
        for place in listing.keys.iter().filter_map(|kv| places.get(kv.key.as_str())) {
            listed[*place] = true;
        }
        let due = known.iter().zip(listed).take_while(|((_, by), _)| by.ended < listing.operation.began);
        let mut missing = due.filter(|((key, _), is_listed)| !is_listed && listing.span.contains(key));
        if let Some(((key, by), _)) = missing.next() {
            let (known, late) = (told(by), told(listing.operation));
            return Err(format!("{key} was in the set before, and then not listed:\n{known}\n{late}"));
        }
    }
    Ok(())
}

struct Element<'a> {
    /// When somebody first asked for it.
    put: Duration,
    /// The call that was the first to end knowing that it is there.
    known: Option<&'a Operation>,
}

impl<'a> Element<'a> {
    fn learned(&mut self, by: &'a Operation) {
        if self.known.is_none_or(|known| by.ended < known.ended) {
            self.known = Some(by);
        }
    }
}

/// A read that is alone in its call.
struct Listing<'a> {
    operation: &'a Operation,
    span: &'a Span,
    keys: &'a [KeyValue],
    /// Whether it must have all that was there when it began.
    is_complete: bool,
}

impl<'a> Listing<'a> {
    fn of(operation: &'a Operation) -> Option<Self> {
        let (Call::Txn(txn), Outcome::Done(Reply::Txn { steps, .. })) = (&operation.call, &operation.outcome) else {
            return None;
        };
        let (
            [Step::Range { span, revision: 0, count_only: false, within: Within::ALL, .. }],
            [StepReply::Range { keys, more, .. }],
        ) = (txn.then.as_slice(), steps.as_slice())
        else {
            return None;
        };
        let is_alone = txn.compares.is_empty();
        is_alone.then_some(Self { operation, span, keys, is_complete: !more && !txn.serializable })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, expect, millis, put, read_keys};
    use super::*;
    use crate::history::{Sort, Txn};

    fn list() -> Txn {
        Txn::of(Step::range(Span::prefix(PREFIX)))
    }

    /// Elements 1 and 2, of which 2 was not acknowledged, listed twice.
    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.txn(1, put("sets/1", "a"));
        sample.unknown(1, put("sets/2", "b"), true);
        sample.unknown(1, put("sets/3", "c"), false);
        sample.txn(2, list());
        sample.txn(3, list());
        sample
    }

    fn keys(sample: &mut Sample, place: usize) -> &mut Vec<KeyValue> {
        read_keys(&mut sample.history.operations[place])
    }

    #[test]
    fn a_set_that_keeps_its_elements_passes() {
        assert_eq!(check(&sample().end()), Ok(()));
        let mut limited = sample();
        let read = Step::Range {
            span: Span::prefix(PREFIX),
            limit: 1,
            revision: 0,
            count_only: false,
            keys_only: true,
            sort: Sort::default(),
            within: Within::ALL,
        };
        limited.txn(2, Txn::of(read));
        assert_eq!(check(&limited.end()), Ok(()));
    }

    #[test]
    fn a_lost_element_is_found() {
        for place in [0, 1] {
            let mut sample = sample();
            keys(&mut sample, 4).remove(place);
            let mut stale = sample.clone();
            expect(check(&sample.end()), "and then not listed");
            let Call::Txn(txn) = &mut stale.history.operations[4].call else { panic!("no txn") };
            txn.serializable = true;
            assert_eq!(check(&stale.end()), Ok(()));
        }
        // What nobody was told of may come late.
        let mut sample = sample();
        keys(&mut sample, 3).pop();
        assert_eq!(check(&sample.end()), Ok(()));
    }

    #[test]
    fn what_overlaps_has_no_order() {
        let mut sample = sample();
        keys(&mut sample, 4).remove(0);
        sample.history.operations[4].began = millis(20);
        assert_eq!(check(&sample.end()), Ok(()));
    }

    #[test]
    fn an_element_of_nobody_is_found() {
        let mut unknown = sample();
        keys(&mut unknown, 4)[1].key = "sets/9".into();
        expect(check(&unknown.end()), "not put before");
        let mut refused = sample();
        let call = refused.history.operations[0].call.clone();
        refused.history.operations[0].outcome = Outcome::Refused("etcdserver: too many requests".into());
        assert!(matches!(call, Call::Txn(_)));
        expect(check(&refused.end()), "sets/1 was listed and not put before");
        let mut early = sample();
        early.history.operations[0].began = millis(999);
        expect(check(&early.end()), "sets/1 was listed and not put before");
    }
}
