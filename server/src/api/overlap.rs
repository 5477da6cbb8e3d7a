//! Finds keys that one branch of a transaction would write twice (pure).
//!
//! Two puts of a key, or a put of a key that a deletion of the same branch covers, are refused;
//! nested transactions count towards the branch that holds them, but the two branches of one
//! nested transaction exclude each other, so they may share keys. Deletions may overlap.
//!
//! Two quirks are etcd's and kept, because refusing what etcd accepts would break its clients:
//! a deletion's interval is taken literally, so that an open end (`\0`) covers nothing, and a
//! nested transaction's puts are held against the deletions of earlier nested ones only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Bound;

use mainstay_proto::etcdserverpb::RequestOp;
use mainstay_proto::etcdserverpb::request_op::Request;

use super::status::ApiError;
use crate::env::probe;

/// Checks one branch of a transaction.
pub(super) fn check(branch: &[RequestOp]) -> Result<(), ApiError> {
    // Nearly every branch of nearly every transaction.
    if branch.len() < 2 && !matches!(branch, [RequestOp { request: Some(Request::RequestTxn(_)) }]) {
        return Ok(());
    }
    writes_of(branch).map(drop)
}

/// What a branch writes.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), ApiError> {
        if self.deletes.covers(key) || !self.puts.insert(key) {
            return Err(ApiError::DuplicateKey);
        }
        Ok(())
    }
}

fn writes_of(branch: &[RequestOp]) -> Result<Writes<'_>, ApiError> {
    let mut writes = Writes::default();
    for op in branch {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            writes.deletes.insert(&request.key, &request.range_end);
        }
    }
    for op in branch {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let success = writes_of(&nested.success)?;
        let failure = writes_of(&nested.failure)?;
        for key in &success.puts {
            writes.put(key)?;
        }
        for key in &failure.puts {
            // Wrong where it is broken: a key of both branches counts as put twice.
            if !success.puts.contains(key) || probe::broken("branches-share-no-keys") {
                writes.put(key)?;
            }
        }
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for op in branch {
        if let Some(Request::RequestPut(request)) = &op.request {
            writes.put(&request.key)?;
        }
    }
    Ok(writes)
}

/// Where an interval ends: before the key, or just behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End<'a> {
    key: &'a [u8],
    // Behind a key comes nothing before the key with a zero byte added, so (key, inclusive) is an order.
    inclusive: bool,
}

/// Keys as disjoint intervals: first key → end.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

impl<'a> Intervals<'a> {
    /// Adds a single key (no `range_end`) or `[key, range_end)`; an interval without keys adds nothing.
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.merge(key, End { key, inclusive: true });
        } else if key < range_end {
            self.merge(key, End { key: range_end, inclusive: false });
        }
    }

    fn extend(&mut self, other: Self) {
        for (from, to) in other.0 {
            self.merge(from, to);
        }
    }

    fn covers(&self, key: &[u8]) -> bool {
        let before = (Bound::Unbounded, Bound::Included(key));
        let last = self.0.range::<[u8], _>(before).next_back();
        last.is_some_and(|(_, end)| End { key, inclusive: false } < *end)
    }

    fn merge(&mut self, mut from: &'a [u8], mut to: End<'a>) {
        // Takes in every interval that starts at or before the end and does not end before the start.
        let upto = (Bound::Unbounded, Bound::Included(to.key));
        while let Some((&start, &end)) = self.0.range::<[u8], _>(upto).next_back() {
            if end < (End { key: from, inclusive: false }) {
                break;
            }
            from = from.min(start);
            to = to.max(end);
            self.0.remove(start);
        }
        self.0.insert(from, to);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};

    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
    }

    fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
        let request = DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
        op(Request::RequestDeleteRange(request))
    }

    fn get(key: &'static str) -> RequestOp {
        op(Request::RequestRange(RangeRequest { key: key.into(), ..RangeRequest::default() }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    #[track_caller]
    fn accepted(branch: &[RequestOp]) {
        assert_eq!(check(branch), Ok(()));
    }

    #[track_caller]
    fn refused(branch: &[RequestOp]) {
        assert_eq!(check(branch), Err(ApiError::DuplicateKey));
    }

    #[test]
    fn a_branch_puts_a_key_once() {
        accepted(&[]);
        accepted(&[put("a")]);
        accepted(&[put("a"), put("b"), get("a"), get("a")]);
        refused(&[put("a"), put("a")]);
        refused(&[put("a"), get("a"), put("b"), put("a")]);
    }

    #[test]
    fn a_branch_does_not_put_what_it_deletes() {
        refused(&[put("a"), delete("a", "")]);
        refused(&[delete("a", ""), put("a")]);
        refused(&[put("b"), delete("a", "c")]);
        accepted(&[put("c"), delete("a", "c")]);
        accepted(&[put("a\0"), delete("a", "")]);
        refused(&[put("a\0"), delete("a", "b")]);
    }

    #[test]
    fn deletions_may_overlap() {
        accepted(&[delete("a", "c"), delete("b", "d"), delete("a", ""), delete("a", "c")]);
        refused(&[delete("a", "c"), delete("b", "d"), put("c")]);
        accepted(&[delete("a", "c"), delete("x", "z"), put("d")]);
    }

    #[test]
    fn intervals_without_keys_cover_nothing() {
        accepted(&[delete("c", "a"), put("b"), put("c")]);
        accepted(&[delete("c", "c"), put("c")]);
        // etcd takes the open end for the key of one zero byte.
        accepted(&[delete("a", "\0"), put("b")]);
    }

    #[test]
    fn nested_writes_count_towards_the_branch() {
        refused(&[put("a"), nested(vec![put("a")], vec![])]);
        refused(&[put("a"), nested(vec![], vec![put("a")])]);
        refused(&[nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])]);
        refused(&[nested(vec![put("b")], vec![]), delete("a", "c")]);
        refused(&[nested(vec![delete("a", "c")], vec![]), put("b")]);
        refused(&[nested(vec![nested(vec![put("a")], vec![])], vec![]), put("a")]);
        refused(&[nested(vec![put("a"), put("a")], vec![])]);
        accepted(&[nested(vec![put("a")], vec![put("b")]), put("c")]);
    }

    #[test]
    fn branches_of_a_nested_transaction_may_share_keys() {
        accepted(&[nested(vec![put("a")], vec![put("a")])]);
        accepted(&[nested(vec![put("a")], vec![delete("a", "")])]);
        refused(&[nested(vec![put("a")], vec![put("a")]), put("a")]);
    }

    #[test]
    fn nested_puts_are_held_against_earlier_nested_deletions_only() {
        refused(&[nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])]);
        accepted(&[nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])]);
    }

    #[test]
    fn intervals_merge_to_what_their_parts_cover() {
        // Every set of three intervals over a small alphabet, against the definition.
        let keys = ["a", "a\0", "b", "c", "d", "e"];
        let mut parts = Vec::new();
        for from in keys {
            parts.push((from, ""));
            parts.extend(keys.iter().map(|to| (from, *to)));
        }
        for first in &parts {
            for second in &parts {
                for third in &parts {
                    let mut intervals = Intervals::default();
                    for (from, to) in [first, second, third] {
                        intervals.insert(from.as_bytes(), to.as_bytes());
                    }
                    for key in keys {
                        let covered = [first, second, third]
                            .iter()
                            .any(|(from, to)| if to.is_empty() { key == *from } else { *from <= key && key < *to });
                        assert_eq!(intervals.covers(key.as_bytes()), covered, "{first:?} {second:?} {third:?} {key:?}");
                    }
                }
            }
        }
    }
}
