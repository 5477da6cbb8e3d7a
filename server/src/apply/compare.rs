use std::cmp::Ordering;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::Compare;
use mainstay_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::view::View;
use crate::env::probe;
use crate::mvcc::{KeyValue, RangeOptions, ReadError};

/// Whether every one of the compares holds.
pub(super) fn all_hold(view: &mut impl View, compares: &[Compare]) -> Result<bool, ReadError> {
    for compare in compares {
        if !holds(view, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a compare holds: for its key, or for every key of its range.
fn holds(view: &mut impl View, compare: &Compare) -> Result<bool, ReadError> {
    let target = CompareTarget::try_from(compare.target).ok();
    if compare.range_end.is_empty() {
        return Ok(match view.get(&compare.key)? {
            Some(kv) => holds_for(compare, target, &kv),
            None => holds_for_nothing(compare, target),
        });
    }
    let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
    // The index knows all but the value and the lease.
    let keys_only = !matches!(target, Some(CompareTarget::Value | CompareTarget::Lease));
    let found = view.range(&range, &RangeOptions { keys_only, ..RangeOptions::default() })?;
    if found.kvs.is_empty() {
        return Ok(holds_for_nothing(compare, target));
    }
    Ok(found.kvs.iter().all(|kv| holds_for(compare, target, kv)))
}

/// A key that does not exist compares as zeros, but it has no value to compare: not even an empty one.
fn holds_for_nothing(compare: &Compare, target: Option<CompareTarget>) -> bool {
    if target == Some(CompareTarget::Mod) && probe::broken("txn-compare-ignored") {
        // Wrong: of a key that does not exist every guess of its last revision is right.
        return true;
    }
    target != Some(CompareTarget::Value) && holds_for(compare, target, &KeyValue::default())
}

fn holds_for(compare: &Compare, target: Option<CompareTarget>, kv: &KeyValue) -> bool {
    // An operand that is missing, or of another kind than the target, counts as zero.
    let operand = compare.target_union.as_ref();
    let found = match target {
        Some(CompareTarget::Version) => {
            let operand = operand.and_then(|operand| match operand {
                TargetUnion::Version(version) => Some(*version),
                _ => None,
            });
            kv.version.cmp(&operand.unwrap_or(0))
        }
        Some(CompareTarget::Create) => {
            let operand = operand.and_then(|operand| match operand {
                TargetUnion::CreateRevision(revision) => Some(*revision),
                _ => None,
            });
            kv.create_revision.cmp(&operand.unwrap_or(0))
        }
        Some(CompareTarget::Mod) => {
            let operand = operand.and_then(|operand| match operand {
                TargetUnion::ModRevision(revision) => Some(*revision),
                _ => None,
            });
            kv.mod_revision.cmp(&operand.unwrap_or(0))
        }
        Some(CompareTarget::Lease) => {
            let operand = operand.and_then(|operand| match operand {
                TargetUnion::Lease(lease) => Some(*lease),
                _ => None,
            });
            kv.lease.cmp(&operand.unwrap_or(0))
        }
        Some(CompareTarget::Value) => {
            let empty = Bytes::new();
            let operand = operand.and_then(|operand| match operand {
                TargetUnion::Value(value) => Some(value),
                _ => None,
            });
            kv.value.cmp(operand.unwrap_or(&empty))
        }
        // etcd compares nothing with nothing then.
        None => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => found.is_eq(),
        Ok(CompareResult::NotEqual) => found.is_ne(),
        // Wrong: what is equal is not greater.
        Ok(CompareResult::Greater) if probe::broken("greater-means-not-less") => found.is_ge(),
        Ok(CompareResult::Greater) => found.is_gt(),
        Ok(CompareResult::Less) => found.is_lt(),
        // Any outcome will do, says etcd.
        Err(_) => true,
    }
}
