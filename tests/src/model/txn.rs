use std::collections::{BTreeMap, BTreeSet};

use super::Versions;
use crate::history::{Change, Comparison, KeyValue, Span, Step, StepReply, Txn};

/// What a transaction comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// Whether its conditions hold.
    pub succeeded: bool,
    /// One for each step of the branch that is taken.
    pub steps: Vec<StepReply>,
    /// What it writes, in the order of its steps, with what was there before as a watch tells it.
    pub changes: Vec<Change>,
}

/// Runs a transaction on the state at a revision, as etcd does; what it writes gets the next one.
///
/// All conditions, those of transactions within too, look at the state before the transaction. The
/// steps run in their order and see what those before them wrote.
pub fn evaluate(versions: &Versions, txn: &Txn, revision: i64) -> Effect {
    let mut run = Run { versions, revision, written: BTreeMap::new(), changes: Vec::new() };
    let (succeeded, steps) = run.txn(txn);
    Effect { succeeded, steps, changes: run.changes }
}

/// Whether a transaction puts a key twice in one branch on one level, which etcd always refuses.
pub fn puts_a_key_twice(txn: &Txn) -> bool {
    [&txn.then, &txn.otherwise].into_iter().any(|branch| {
        let mut keys = BTreeSet::new();
        branch.iter().any(|step| match step {
            Step::Put { key, .. } => !keys.insert(key),
            Step::Txn(txn) => puts_a_key_twice(txn),
            Step::Delete { .. } | Step::Range { .. } => false,
        })
    })
}

struct Run<'a> {
    versions: &'a Versions,
    revision: i64,
    /// What the transaction wrote so far; `None` for what it removed.
    written: BTreeMap<String, Option<KeyValue>>,
    changes: Vec<Change>,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn) -> (bool, Vec<StepReply>) {
        // The conditions look past `written`, so it is the same as to look at all of them first.
        let succeeded = txn.compares.iter().all(|compare| {
            let kv = self.versions.get(&compare.key, self.revision);
            let number = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
            match &compare.to {
                Comparison::Version(to) => number(|kv| kv.version) == *to,
                Comparison::Created(to) => number(|kv| kv.created) == *to,
                Comparison::Modified(to) => number(|kv| kv.modified) == *to,
                Comparison::Lease(to) => number(|kv| kv.lease) == *to,
                Comparison::Value(to) => kv.is_some_and(|kv| kv.value == *to),
            }
        });
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        (succeeded, branch.iter().map(|step| self.step(step)).collect())
    }

    fn step(&mut self, step: &Step) -> StepReply {
        match step {
            Step::Put { key, value, lease, prev_kv } => {
                let prev = self.get(key);
                let modified = self.revision + 1;
                let kv = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    created: prev.as_ref().map_or(modified, |prev| prev.created),
                    modified,
                    version: prev.as_ref().map_or(1, |prev| prev.version + 1),
                    lease: *lease,
                };
                self.write(Change { deleted: false, kv, prev: None });
                StepReply::Put { prev: prev.filter(|_| *prev_kv) }
            }
            Step::Delete { span, prev_kv } => {
                let prevs = self.range(span, 0);
                for prev in &prevs {
                    let kv = KeyValue { key: prev.key.clone(), modified: self.revision + 1, ..KeyValue::default() };
                    self.write(Change { deleted: true, kv, prev: None });
                }
                StepReply::Delete { deleted: prevs.len() as i64, prevs: if *prev_kv { prevs } else { Vec::new() } }
            }
            Step::Range { span, limit, revision, count_only, keys_only } => {
                let mut keys = self.range(span, *revision);
                let count = keys.len() as i64;
                if *count_only {
                    return StepReply::Range { keys: Vec::new(), count, more: false };
                }
                let more = *limit > 0 && count > *limit;
                if more {
                    keys.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                }
                if *keys_only {
                    for kv in &mut keys {
                        // Keys alone come from the index, which knows neither value nor lease.
                        (kv.value, kv.lease) = (String::new(), 0);
                    }
                }
                StepReply::Range { keys, count, more }
            }
            Step::Txn(txn) => {
                let (succeeded, steps) = self.txn(txn);
                StepReply::Txn { succeeded, steps }
            }
        }
    }

    fn get(&self, key: &str) -> Option<KeyValue> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.versions.get(key, self.revision).cloned(),
        }
    }

    fn range(&self, span: &Span, revision: i64) -> Vec<KeyValue> {
        if revision > 0 {
            return self.versions.range(span, revision).cloned().collect();
        }
        let before = self.versions.range(span, self.revision);
        if self.written.is_empty() {
            return before.cloned().collect();
        }
        let mut keys: BTreeMap<&str, &KeyValue> = before.map(|kv| (kv.key.as_str(), kv)).collect();
        for (key, written) in self.written.iter().filter(|(key, _)| span.contains(key)) {
            match written {
                Some(kv) => keys.insert(key, kv),
                None => keys.remove(key.as_str()),
            };
        }
        keys.into_values().cloned().collect()
    }

    fn write(&mut self, mut change: Change) {
        change.prev = prev_of(self.versions, &change);
        let now = (!change.deleted).then(|| change.kv.clone());
        self.written.insert(change.kv.key.clone(), now);
        self.changes.push(change);
    }
}

/// What a watch tells of what was there before a change: the key at the revision before it, and
/// nothing where the key was created.
pub(super) fn prev_of(versions: &Versions, change: &Change) -> Option<KeyValue> {
    let created = !change.deleted && change.kv.created == change.kv.modified;
    if created { None } else { versions.get(&change.kv.key, change.kv.modified - 1).cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Compare;

    /// a at revision 2, b at 3 and 4 with a lease.
    fn versions() -> Versions {
        let mut versions = Versions::default();
        let leased = Step::Put { key: "b".into(), value: "b2".into(), lease: 7, prev_kv: false };
        for (revision, step) in [(1, Step::put("a", "a1")), (2, Step::put("b", "b1")), (3, leased)] {
            for change in evaluate(&versions, &Txn::of(step), revision).changes {
                versions.push(&change);
            }
        }
        versions
    }

    fn kv(key: &str, value: &str, created: i64, modified: i64, version: i64, lease: i64) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), created, modified, version, lease }
    }

    fn only(step: Step) -> (StepReply, Vec<Change>) {
        let mut effect = evaluate(&versions(), &Txn::of(step), 4);
        assert!(effect.succeeded);
        (effect.steps.remove(0), effect.changes)
    }

    fn holds(key: &str, to: Comparison) -> bool {
        let txn = Txn { compares: vec![Compare { key: key.into(), to }], ..Txn::default() };
        evaluate(&versions(), &txn, 4).succeeded
    }

    #[test]
    fn conditions_take_zeros_for_what_is_not_there_but_no_value() {
        assert!(holds("b", Comparison::Version(2)) && !holds("b", Comparison::Version(1)));
        assert!(holds("b", Comparison::Created(3)) && holds("b", Comparison::Modified(4)));
        assert!(holds("b", Comparison::Lease(7)) && holds("b", Comparison::Value("b2".into())));
        for to in [Comparison::Version(0), Comparison::Created(0), Comparison::Modified(0), Comparison::Lease(0)] {
            assert!(holds("x", to));
        }
        assert!(!holds("x", Comparison::Value(String::new())));
    }

    #[test]
    fn a_put_counts_versions_and_loses_the_lease() {
        let put = Step::Put { key: "b".into(), value: "b3".into(), lease: 0, prev_kv: true };
        let (reply, changes) = only(put);
        let before = kv("b", "b2", 3, 4, 2, 7);
        assert_eq!(reply, StepReply::Put { prev: Some(before.clone()) });
        assert_eq!(changes, [Change { deleted: false, kv: kv("b", "b3", 3, 5, 3, 0), prev: Some(before) }]);
        assert_eq!(only(Step::put("b", "b3")).0, StepReply::Put { prev: None });
    }

    #[test]
    fn a_delete_removes_what_is_there() {
        let all = Span { from: "a".into(), to: Some("z".into()) };
        let (reply, changes) = only(Step::Delete { span: all, prev_kv: true });
        let prevs = vec![kv("a", "a1", 2, 2, 1, 0), kv("b", "b2", 3, 4, 2, 7)];
        assert_eq!(reply, StepReply::Delete { deleted: 2, prevs: prevs.clone() });
        assert_eq!(changes[0], Change { deleted: true, kv: kv("a", "", 0, 5, 0, 0), prev: Some(prevs[0].clone()) });
        let (reply, changes) = only(Step::Delete { span: Span::key("x"), prev_kv: true });
        assert_eq!((reply, changes.len()), (StepReply::Delete { deleted: 0, prevs: vec![] }, 0));
    }

    #[test]
    fn ranges_obey_limit_count_keys_and_revision() {
        let range = |limit, revision, count_only, keys_only| {
            let span = Span { from: "a".into(), to: Some("z".into()) };
            only(Step::Range { span, limit, revision, count_only, keys_only }).0
        };
        let (a, b) = (kv("a", "a1", 2, 2, 1, 0), kv("b", "b2", 3, 4, 2, 7));
        let answer = |keys, count, more| StepReply::Range { keys, count, more };
        assert_eq!(range(0, 0, false, false), answer(vec![a.clone(), b.clone()], 2, false));
        assert_eq!(range(1, 0, false, false), answer(vec![a.clone()], 2, true));
        assert_eq!(range(2, 0, false, false), answer(vec![a.clone(), b], 2, false));
        assert_eq!(range(1, 0, true, false), answer(vec![], 2, false));
        assert_eq!(range(0, 3, false, false), answer(vec![a, kv("b", "b1", 3, 3, 1, 0)], 2, false));
        assert_eq!(range(0, 0, false, true), answer(vec![kv("a", "", 2, 2, 1, 0), kv("b", "", 3, 4, 2, 0)], 2, false));
    }

    #[test]
    fn steps_see_those_before_them_and_conditions_do_not() {
        let all = Span { from: "a".into(), to: Some("z".into()) };
        let absent = vec![Compare { key: "c".into(), to: Comparison::Version(0) }];
        let nested = Txn { compares: absent, then: vec![Step::put("d", "d1")], ..Txn::default() };
        let steps = vec![
            Step::put("c", "c1"),
            Step::Txn(Box::new(nested)),
            Step::Delete { span: Span::key("a"), prev_kv: false },
            Step::range(all),
        ];
        let effect = evaluate(&versions(), &Txn { then: steps, ..Txn::default() }, 4);
        let nested = StepReply::Txn { succeeded: true, steps: vec![StepReply::Put { prev: None }] };
        assert_eq!(effect.steps[1], nested, "c was not there before the transaction");
        let StepReply::Range { keys, count: 3, more: false } = &effect.steps[3] else { panic!("{effect:?}") };
        assert_eq!(keys.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(effect.changes.iter().all(|change| change.kv.modified == 5));
        assert_eq!(effect.changes.len(), 3);
    }

    #[test]
    fn a_key_removed_and_put_again_begins_anew() {
        let steps = vec![Step::Delete { span: Span::key("b"), prev_kv: false }, Step::put("b", "b3")];
        let effect = evaluate(&versions(), &Txn { then: steps, ..Txn::default() }, 4);
        assert_eq!(effect.changes[1], Change { deleted: false, kv: kv("b", "b3", 5, 5, 1, 0), prev: None });
    }

    #[test]
    fn a_branch_puts_a_key_once() {
        let twice = Txn { then: vec![Step::put("a", "1"), Step::put("a", "2")], ..Txn::default() };
        assert!(puts_a_key_twice(&twice));
        let nested = Txn { otherwise: vec![Step::Txn(Box::new(twice))], ..Txn::default() };
        assert!(puts_a_key_twice(&nested));
        let either = Txn { then: vec![Step::put("a", "1")], otherwise: vec![Step::put("a", "2")], ..Txn::default() };
        assert!(!puts_a_key_twice(&either));
    }
}
