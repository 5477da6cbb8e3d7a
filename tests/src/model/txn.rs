use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Versions;
use crate::history::{
    Change, Compare, Comparison, KeyValue, Order, Relation, Sort, SortBy, Span, Step, StepReply, Txn, Within,
};

/// What a transaction comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// Whether its conditions hold.
    pub succeeded: bool,
    /// One for each step of the branch that is taken.
    pub steps: Vec<StepReply>,
    /// What it writes, in the order of its steps, with what was there before as a watch tells it.
    pub changes: Vec<Change>,
    /// Whether it is refused and does nothing, because a key is not there whose value or lease it leaves.
    pub refused: bool,
}

/// Runs a transaction on the state at a revision, as etcd does; what it writes gets the next one.
///
/// All conditions, those of transactions within too, look at the state before the transaction. The
/// steps run in their order and see what those before them wrote.
pub fn evaluate(versions: &Versions, txn: &Txn, revision: i64) -> Effect {
    let mut run = Run { versions, revision, written: BTreeMap::new(), changes: Vec::new(), refused: false };
    let (succeeded, steps) = run.txn(txn);
    if run.refused {
        return Effect { succeeded, refused: true, ..Effect::default() };
    }
    Effect { succeeded, steps, changes: run.changes, refused: false }
}

struct Run<'a> {
    versions: &'a Versions,
    revision: i64,
    /// What the transaction wrote so far; `None` for what it removed.
    written: BTreeMap<String, Option<KeyValue>>,
    changes: Vec<Change>,
    refused: bool,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn) -> (bool, Vec<StepReply>) {
        // The conditions look past `written`, so it is the same as to look at all of them first.
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        (succeeded, branch.iter().map(|step| self.step(step)).collect())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let span = Span { from: compare.key.clone(), to: compare.until.clone() };
        let mut keys = self.versions.range(&span, self.revision).peekable();
        if keys.peek().is_none() {
            return holds_for(compare, None);
        }
        keys.all(|kv| holds_for(compare, Some(kv)))
    }

    fn step(&mut self, step: &Step) -> StepReply {
        match step {
            Step::Put { key, value, lease, prev_kv } => {
                let prev = self.put(key, value, *lease);
                StepReply::Put { prev: prev.filter(|_| *prev_kv) }
            }
            Step::Amend { key, value, lease, ignore_value, ignore_lease, prev_kv } => {
                let (mut value, mut lease) = (value.clone(), *lease);
                match self.get(key) {
                    Some(before) => {
                        if *ignore_value {
                            value = before.value;
                        }
                        if *ignore_lease {
                            lease = before.lease;
                        }
                    }
                    None => self.refused |= *ignore_value || *ignore_lease,
                }
                let prev = self.put(key, &value, lease);
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
            Step::Range { span, limit, revision, count_only, keys_only, sort, within } => {
                let mut keys = self.range(span, *revision);
                let count = keys.len() as i64;
                if *count_only {
                    return StepReply::Range { keys: Vec::new(), count, more: false };
                }
                let limit = usize::try_from(*limit).ok().filter(|limit| *limit > 0);
                if let Some(limit) = limit
                    && sort.order == Order::Unsaid
                    && *within == Within::ALL
                {
                    // Whoever asks for no order gets a limited read in the order of keys, and that is sorted.
                    keys.truncate(limit + 1);
                }
                keys.retain(|kv| is_within(kv, within));
                // Which of two equal keys comes first etcd leaves open; here it is the order of keys.
                keys.sort_by(|one, other| sorted(one, other, *sort));
                let more = limit.is_some_and(|limit| keys.len() > limit);
                keys.truncate(limit.unwrap_or(usize::MAX));
                if *keys_only {
                    for kv in &mut keys {
                        kv.value = String::new();
                        // Keys alone come from the index, which knows neither value nor lease; to sort by
                        // values, all is read.
                        if sort.by != SortBy::Value {
                            kv.lease = 0;
                        }
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

    /// Writes a key; returns what was there before.
    fn put(&mut self, key: &str, value: &str, lease: i64) -> Option<KeyValue> {
        let prev = self.get(key);
        let modified = self.revision + 1;
        let kv = KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
            created: prev.as_ref().map_or(modified, |prev| prev.created),
            modified,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease,
        };
        self.write(Change { deleted: false, kv, prev: None });
        prev
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

/// Whether a condition holds for a key, or for none.
fn holds_for(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let number = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
    let found = match &compare.to {
        Comparison::Version(to) => number(|kv| kv.version).cmp(to),
        Comparison::Created(to) => number(|kv| kv.created).cmp(to),
        Comparison::Modified(to) => number(|kv| kv.modified).cmp(to),
        Comparison::Lease(to) => number(|kv| kv.lease).cmp(to),
        Comparison::Value(to) => match kv {
            Some(kv) => kv.value.cmp(to),
            None => return false,
        },
    };
    match compare.is {
        Relation::Equal => found == Ordering::Equal,
        Relation::NotEqual => found != Ordering::Equal,
        Relation::Greater => found == Ordering::Greater,
        Relation::Less => found == Ordering::Less,
    }
}

fn is_within(kv: &KeyValue, within: &Within) -> bool {
    let holds = |revision: i64, (least, greatest): (i64, i64)| {
        (least == 0 || revision >= least) && (greatest == 0 || revision <= greatest)
    };
    holds(kv.modified, within.modified) && holds(kv.created, within.created)
}

fn sorted(one: &KeyValue, other: &KeyValue, sort: Sort) -> Ordering {
    let rising = match sort.by {
        SortBy::Key => one.key.cmp(&other.key),
        SortBy::Version => one.version.cmp(&other.version),
        SortBy::Created => one.created.cmp(&other.created),
        SortBy::Modified => one.modified.cmp(&other.modified),
        SortBy::Value => one.value.cmp(&other.value),
    };
    if sort.order == Order::Falling { rising.reverse() } else { rising }
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
        let txn = Txn { compares: vec![Compare::equal(key, to)], ..Txn::default() };
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
            let (sort, within) = (Sort::default(), Within::ALL);
            only(Step::Range { span, limit, revision, count_only, keys_only, sort, within }).0
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
        let absent = vec![Compare::equal("c", Comparison::Version(0))];
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
    fn conditions_compare_numbers_and_values() {
        use Relation::{Equal, Greater, Less, NotEqual};
        let holds_so = |is, to| {
            let compare = Compare { key: "b".into(), until: None, is, to };
            evaluate(&versions(), &Txn { compares: vec![compare], ..Txn::default() }, 4).succeeded
        };
        let all = [Equal, NotEqual, Greater, Less];
        let which = |to: fn() -> Comparison| all.map(|is| holds_so(is, to()));
        assert_eq!(which(|| Comparison::Version(2)), [true, false, false, false]);
        assert_eq!(which(|| Comparison::Created(2)), [false, true, true, false]);
        assert_eq!(which(|| Comparison::Modified(5)), [false, true, false, true]);
        assert_eq!(which(|| Comparison::Lease(7)), [true, false, false, false]);
        assert_eq!(which(|| Comparison::Value("b1".into())), [false, true, true, false]);
        let absent = |is, to| {
            let compare = Compare { key: "x".into(), until: None, is, to };
            evaluate(&versions(), &Txn { compares: vec![compare], ..Txn::default() }, 4).succeeded
        };
        assert!(absent(Less, Comparison::Version(1)) && !absent(Greater, Comparison::Version(0)));
        assert!(all.into_iter().all(|is| !absent(is, Comparison::Value("b2".into()))), "it has no value");
    }

    #[test]
    fn conditions_on_a_span_hold_for_each_of_its_keys() {
        let holds = |key: &str, until: &str, is, to| {
            let compare = Compare { key: key.into(), until: Some(until.into()), is, to };
            evaluate(&versions(), &Txn { compares: vec![compare], ..Txn::default() }, 4).succeeded
        };
        assert!(holds("a", "z", Relation::Greater, Comparison::Version(0)));
        assert!(!holds("a", "z", Relation::Greater, Comparison::Version(1)), "a has version 1");
        assert!(holds("a", "b", Relation::Equal, Comparison::Created(2)));
        assert!(holds("c", "z", Relation::Equal, Comparison::Created(0)), "no key is like an absent one");
        assert!(!holds("c", "z", Relation::NotEqual, Comparison::Value("x".into())));
    }

    /// a, b and c with versions 1, 3 and 2, written last at 7, 6 and 5.
    fn sorted_versions() -> Versions {
        let mut versions = Versions::default();
        let writes = [("b", "1"), ("c", "2"), ("b", "3"), ("c", "4"), ("b", "6"), ("a", "5")];
        for (place, (key, value)) in writes.into_iter().enumerate() {
            for change in evaluate(&versions, &Txn::of(Step::put(key, value)), place as i64 + 1).changes {
                versions.push(&change);
            }
        }
        versions
    }

    fn ordered(limit: i64, by: SortBy, order: Order, within: Within) -> (String, i64, bool) {
        let span = Span { from: "a".into(), to: Some("z".into()) };
        let sort = Sort { by, order };
        let (revision, count_only, keys_only) = (0, false, false);
        let step = Step::Range { span, limit, revision, count_only, keys_only, sort, within };
        let mut effect = evaluate(&sorted_versions(), &Txn::of(step), 7);
        let StepReply::Range { keys, count, more } = effect.steps.remove(0) else { panic!("no range") };
        (keys.iter().map(|kv| kv.key.as_str()).collect(), count, more)
    }

    #[test]
    fn ranges_are_sorted_before_they_are_cut() {
        let all = |by, order| ordered(0, by, order, Within::ALL).0;
        assert_eq!(all(SortBy::Key, Order::Rising), "abc");
        assert_eq!(all(SortBy::Key, Order::Falling), "cba");
        assert_eq!(all(SortBy::Version, Order::Rising), "acb");
        assert_eq!(all(SortBy::Version, Order::Unsaid), "acb");
        assert_eq!(all(SortBy::Created, Order::Falling), "acb");
        assert_eq!(all(SortBy::Modified, Order::Rising), "cba");
        assert_eq!(all(SortBy::Value, Order::Falling), "bac");
        assert_eq!(ordered(1, SortBy::Modified, Order::Falling, Within::ALL), ("a".into(), 3, true));
        assert_eq!(ordered(2, SortBy::Key, Order::Falling, Within::ALL), ("cb".into(), 3, true));
        // Without an order the limit comes first: of a and b, b was written earlier.
        assert_eq!(ordered(1, SortBy::Modified, Order::Unsaid, Within::ALL), ("b".into(), 3, true));
    }

    #[test]
    fn ranges_are_filtered_before_they_are_cut_and_not_counted_so() {
        let modified = |least, greatest| Within { modified: (least, greatest), ..Within::ALL };
        let plain = |limit, within| ordered(limit, SortBy::Key, Order::Unsaid, within);
        assert_eq!(plain(0, modified(6, 0)), ("ab".into(), 3, false));
        assert_eq!(plain(0, modified(0, 6)), ("bc".into(), 3, false));
        assert_eq!(plain(1, modified(5, 6)), ("b".into(), 3, true));
        assert_eq!(plain(2, modified(5, 6)), ("bc".into(), 3, false));
        assert_eq!(plain(0, Within { created: (2, 3), ..modified(0, 5) }), ("c".into(), 3, false));
    }

    #[test]
    fn keys_that_are_sorted_by_their_values_keep_their_lease() {
        let lease_of = |by| {
            let sort = Sort { by, order: Order::Rising };
            let (limit, revision, count_only, keys_only, within) = (0, 0, false, true, Within::ALL);
            let step = Step::Range { span: Span::key("b"), limit, revision, count_only, keys_only, sort, within };
            let (StepReply::Range { keys, .. }, _) = only(step) else { panic!("no range") };
            (keys[0].lease, keys[0].value.clone())
        };
        assert_eq!(lease_of(SortBy::Value), (7, String::new()));
        assert_eq!(lease_of(SortBy::Modified), (0, String::new()));
    }

    fn amend(key: &str, value: &str, lease: i64, ignore_value: bool, ignore_lease: bool) -> Step {
        let (key, value) = (key.into(), value.into());
        Step::Amend { key, value, lease, ignore_value, ignore_lease, prev_kv: true }
    }

    #[test]
    fn an_amendment_leaves_the_value_or_the_lease() {
        let before = Some(kv("b", "b2", 3, 4, 2, 7));
        for (step, after) in [
            (amend("b", "", 9, true, false), kv("b", "b2", 3, 5, 3, 9)),
            (amend("b", "new", 0, false, true), kv("b", "new", 3, 5, 3, 7)),
            (amend("b", "", 0, true, true), kv("b", "b2", 3, 5, 3, 7)),
        ] {
            let (reply, changes) = only(step);
            assert_eq!(reply, StepReply::Put { prev: before.clone() });
            assert_eq!(changes[0].kv, after);
        }
    }

    #[test]
    fn what_is_not_there_cannot_be_amended() {
        let run = |then: Vec<Step>| evaluate(&versions(), &Txn { then, ..Txn::default() }, 4);
        let effect = run(vec![Step::put("c", "1"), amend("x", "", 0, true, false)]);
        assert!(effect.refused && effect.changes.is_empty() && effect.steps.is_empty());
        // etcd looks only at what was there before and dies of this; it is refused here.
        let gone = Step::Delete { span: Span::key("b"), prev_kv: false };
        assert!(run(vec![gone, amend("b", "", 0, true, false)]).refused);
        let nested = Txn { otherwise: vec![amend("x", "", 0, true, false)], ..Txn::default() };
        assert!(!run(vec![Step::Txn(Box::new(nested))]).refused, "that branch is not taken");
    }
}
