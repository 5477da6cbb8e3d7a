use std::collections::BTreeSet;

use crate::history::{Span, Step, Txn};

/// A key is written twice by one branch.
pub const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
/// A value is given where it is to be left as it is.
pub const VALUE_PROVIDED: &str = "etcdserver: value is provided";
/// A lease is given where it is to be left as it is.
pub const LEASE_PROVIDED: &str = "etcdserver: lease is provided";
/// The quota has no room for a write, or has not had for somebody else's.
pub const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// Why a transaction is refused whatever the store holds, in etcd's words.
///
/// A step that contradicts itself is noticed first; then a key that a branch puts twice, or puts and deletes.
pub fn always_refused(txn: &Txn) -> Option<&'static str> {
    let contradicts = contradiction(txn);
    contradicts
        .or_else(|| [&txn.then, &txn.otherwise].into_iter().any(|it| writes(it).is_none()).then_some(DUPLICATE_KEY))
}

fn contradiction(txn: &Txn) -> Option<&'static str> {
    txn.then.iter().chain(&txn.otherwise).find_map(|step| match step {
        Step::Amend { value, ignore_value: true, .. } if !value.is_empty() => Some(VALUE_PROVIDED),
        Step::Amend { lease, ignore_lease: true, .. } if *lease != 0 => Some(LEASE_PROVIDED),
        Step::Txn(txn) => contradiction(txn),
        Step::Put { .. } | Step::Amend { .. } | Step::Delete { .. } | Step::Range { .. } => None,
    })
}

/// What a branch may write, with all that is nested in it.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a str>,
    deletes: Vec<&'a Span>,
}

impl<'a> Writes<'a> {
    /// `None` where the key is written already.
    fn put(&mut self, key: &'a str) -> Option<()> {
        let is_free = !self.deletes.iter().any(|span| span.contains(key)) && self.puts.insert(key);
        is_free.then_some(())
    }
}

/// What a branch writes; `None` where it writes a key twice.
///
/// The branch's own deletes come first and its own puts last, whatever their order. What is nested comes in
/// between: its puts are held against all before them, its deletes only against all behind them. Of the two
/// branches of what is nested only one is taken, so that they may put the same keys.
fn writes(branch: &[Step]) -> Option<Writes<'_>> {
    let mut all = Writes::default();
    for step in branch {
        if let Step::Delete { span, .. } = step {
            all.deletes.push(span);
        }
    }
    for step in branch {
        if let Step::Txn(txn) = step {
            let (then, otherwise) = (writes(&txn.then)?, writes(&txn.otherwise)?);
            let either: BTreeSet<&str> = then.puts.union(&otherwise.puts).copied().collect();
            either.into_iter().try_for_each(|key| all.put(key))?;
            all.deletes.extend(then.deletes);
            all.deletes.extend(otherwise.deletes);
        }
    }
    for step in branch {
        if let Step::Put { key, .. } | Step::Amend { key, .. } = step {
            all.put(key)?;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Step {
        Step::put(key, "1")
    }

    fn delete(from: &str, to: &str) -> Step {
        Step::Delete { span: Span { from: from.into(), to: Some(to.into()) }, prev_kv: false }
    }

    fn nested(then: Vec<Step>, otherwise: Vec<Step>) -> Step {
        Step::Txn(Box::new(Txn { then, otherwise, ..Txn::default() }))
    }

    #[track_caller]
    fn refused(then: Vec<Step>) {
        let either = Txn { otherwise: then.clone(), ..Txn::default() };
        assert_eq!(always_refused(&either), Some(DUPLICATE_KEY));
        assert_eq!(always_refused(&Txn { then, ..Txn::default() }), Some(DUPLICATE_KEY));
    }

    #[track_caller]
    fn accepted(then: Vec<Step>) {
        assert_eq!(always_refused(&Txn { then, ..Txn::default() }), None);
    }

    #[test]
    fn a_branch_writes_a_key_once() {
        refused(vec![put("a"), put("a")]);
        refused(vec![put("a"), delete("a", "b")]);
        refused(vec![delete("a", "c"), put("b")]);
        accepted(vec![put("a"), delete("b", "c"), put("c")]);
        accepted(vec![delete("a", "c"), delete("b", "d")]);
        accepted(vec![delete("c", "a"), put("b")]);
        let either = Txn { then: vec![put("a")], otherwise: vec![put("a")], ..Txn::default() };
        assert_eq!(always_refused(&either), None);
    }

    #[test]
    fn what_is_nested_counts() {
        refused(vec![put("a"), nested(vec![put("a")], vec![])]);
        refused(vec![nested(vec![], vec![put("a")]), put("a")]);
        refused(vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])]);
        refused(vec![nested(vec![put("b")], vec![]), delete("a", "c")]);
        refused(vec![nested(vec![], vec![delete("a", "c")]), put("b")]);
        refused(vec![nested(vec![put("a"), put("a")], vec![])]);
        refused(vec![nested(vec![nested(vec![put("a")], vec![])], vec![]), put("a")]);
        accepted(vec![nested(vec![put("a")], vec![put("a")]), put("b")]);
        accepted(vec![nested(vec![put("a")], vec![delete("a", "b")])]);
        // Deletes of one that is nested count for what comes behind it alone.
        refused(vec![nested(vec![delete("a", "b")], vec![]), nested(vec![put("a")], vec![])]);
        accepted(vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "b")], vec![])]);
    }

    #[test]
    fn steps_that_contradict_themselves_come_first() {
        let amend = |value: &str, lease, ignore_value, ignore_lease| Step::Amend {
            key: "a".into(),
            value: value.into(),
            lease,
            ignore_value,
            ignore_lease,
            prev_kv: false,
        };
        accepted(vec![amend("", 7, true, false)]);
        accepted(vec![amend("1", 0, false, true)]);
        let of = |then: Vec<Step>| always_refused(&Txn { then, ..Txn::default() });
        assert_eq!(of(vec![put("a"), amend("1", 7, true, true)]), Some(VALUE_PROVIDED));
        assert_eq!(of(vec![nested(vec![amend("", 7, true, true)], vec![])]), Some(LEASE_PROVIDED));
        refused(vec![amend("", 7, true, false), put("a")]);
    }
}
