//! Transactions: compare, then one of two lists of operations.

use bytes::Bytes;
use mainstay_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use mainstay_proto::etcdserverpb::request_op::Request as Op;
use mainstay_proto::etcdserverpb::{Compare as Comparison, RequestOp, TxnRequest};

/// A transaction, built step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn(TxnRequest);

impl Txn {
    /// An empty transaction, which succeeds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition; all of them must hold.
    pub fn when(mut self, comparison: Comparison) -> Self {
        self.0.compare.push(comparison);
        self
    }

    /// Adds an operation for when the conditions hold.
    pub fn then(mut self, operation: impl Into<RequestOp>) -> Self {
        self.0.success.push(operation.into());
        self
    }

    /// Adds an operation for when they do not.
    pub fn otherwise(mut self, operation: impl Into<RequestOp>) -> Self {
        self.0.failure.push(operation.into());
        self
    }
}

impl From<Txn> for TxnRequest {
    fn from(txn: Txn) -> Self {
        txn.0
    }
}

impl From<Txn> for RequestOp {
    fn from(txn: Txn) -> Self {
        Self { request: Some(Op::RequestTxn(txn.0)) }
    }
}

/// The left side of a condition: which number of a key is compared.
#[derive(Clone, Debug)]
pub struct Compare {
    key: Bytes,
    range_end: Bytes,
    target: CompareTarget,
    /// The target's place in the message.
    union: fn(i64) -> TargetUnion,
}

impl Compare {
    /// How often the key was written since it was created; 0 where it does not exist.
    pub fn version(key: impl Into<Bytes>) -> Self {
        Self::new(key, CompareTarget::Version, TargetUnion::Version)
    }

    /// The revision that created the key; 0 where it does not exist.
    pub fn create_revision(key: impl Into<Bytes>) -> Self {
        Self::new(key, CompareTarget::Create, TargetUnion::CreateRevision)
    }

    /// The revision that wrote the key last; 0 where it does not exist.
    pub fn mod_revision(key: impl Into<Bytes>) -> Self {
        Self::new(key, CompareTarget::Mod, TargetUnion::ModRevision)
    }

    /// The key's lease; 0 where it has none.
    pub fn lease(key: impl Into<Bytes>) -> Self {
        Self::new(key, CompareTarget::Lease, TargetUnion::Lease)
    }

    /// The key's value. On a key that does not exist every such condition fails.
    pub fn value(key: impl Into<Bytes>) -> ValueCompare {
        ValueCompare { key: key.into(), range_end: Bytes::new() }
    }

    fn new(key: impl Into<Bytes>, target: CompareTarget, union: fn(i64) -> TargetUnion) -> Self {
        Self { key: key.into(), range_end: Bytes::new(), target, union }
    }

    /// Compares every key from this one up to `range_end`; all must hold.
    pub fn up_to(mut self, range_end: impl Into<Bytes>) -> Self {
        self.range_end = range_end.into();
        self
    }

    /// Holds where the key has this number.
    pub fn equals(self, number: i64) -> Comparison {
        self.with(CompareResult::Equal, number)
    }

    /// Holds where the key has another number.
    pub fn differs_from(self, number: i64) -> Comparison {
        self.with(CompareResult::NotEqual, number)
    }

    /// Holds where the key has a greater number.
    pub fn exceeds(self, number: i64) -> Comparison {
        self.with(CompareResult::Greater, number)
    }

    /// Holds where the key has a smaller number.
    pub fn is_below(self, number: i64) -> Comparison {
        self.with(CompareResult::Less, number)
    }

    fn with(self, result: CompareResult, number: i64) -> Comparison {
        Comparison {
            result: result.into(),
            target: self.target.into(),
            key: self.key,
            range_end: self.range_end,
            target_union: Some((self.union)(number)),
        }
    }
}

/// The left side of a condition on a key's value.
#[derive(Clone, Debug)]
pub struct ValueCompare {
    key: Bytes,
    range_end: Bytes,
}

impl ValueCompare {
    /// Compares every key from this one up to `range_end`; all must hold.
    pub fn up_to(mut self, range_end: impl Into<Bytes>) -> Self {
        self.range_end = range_end.into();
        self
    }

    /// Holds where the key has this value.
    pub fn equals(self, value: impl Into<Bytes>) -> Comparison {
        self.with(CompareResult::Equal, value.into())
    }

    /// Holds where the key has another value.
    pub fn differs_from(self, value: impl Into<Bytes>) -> Comparison {
        self.with(CompareResult::NotEqual, value.into())
    }

    /// Holds where the key has a value that sorts after this.
    pub fn exceeds(self, value: impl Into<Bytes>) -> Comparison {
        self.with(CompareResult::Greater, value.into())
    }

    /// Holds where the key has a value that sorts before this.
    pub fn is_below(self, value: impl Into<Bytes>) -> Comparison {
        self.with(CompareResult::Less, value.into())
    }

    fn with(self, result: CompareResult, value: Bytes) -> Comparison {
        Comparison {
            result: result.into(),
            target: CompareTarget::Value.into(),
            key: self.key,
            range_end: self.range_end,
            target_union: Some(TargetUnion::Value(value)),
        }
    }
}

/// Whether no branch of a transaction can change the store.
pub(crate) fn only_reads(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|operation| match &operation.request {
        Some(Op::RequestRange(_)) | None => true,
        Some(Op::RequestTxn(nested)) => only_reads(nested),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delete, Put, Range};

    #[test]
    fn the_write_of_kube_apiserver() {
        let request: TxnRequest = Txn::new()
            .when(Compare::mod_revision("k").equals(7))
            .then(Put::new("k", "v").lease(3))
            .otherwise(Range::key("k"))
            .into();
        assert_eq!(
            request.compare,
            [Comparison {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: "k".into(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::ModRevision(7)),
            }]
        );
        assert!(matches!(&request.success[..], [RequestOp { request: Some(Op::RequestPut(put)) }] if put.lease == 3));
        assert!(matches!(&request.failure[..], [RequestOp { request: Some(Op::RequestRange(_)) }]));
    }

    #[test]
    fn target_and_union_agree() {
        let below = Compare::value("k").up_to("m").is_below("v");
        assert_eq!(below.target(), CompareTarget::Value);
        assert_eq!(below.result(), CompareResult::Less);
        assert_eq!(below.range_end, "m");
        assert_eq!(below.target_union, Some(TargetUnion::Value("v".into())));
        for (comparison, target, union) in [
            (Compare::version("k").exceeds(1), CompareTarget::Version, TargetUnion::Version(1)),
            (Compare::create_revision("k").exceeds(1), CompareTarget::Create, TargetUnion::CreateRevision(1)),
            (Compare::mod_revision("k").exceeds(1), CompareTarget::Mod, TargetUnion::ModRevision(1)),
            (Compare::lease("k").exceeds(1), CompareTarget::Lease, TargetUnion::Lease(1)),
        ] {
            assert_eq!(comparison.target(), target);
            assert_eq!(comparison.target_union, Some(union));
        }
    }

    #[test]
    fn a_write_anywhere_makes_it_a_write() {
        let reads = Txn::new().then(Range::key("a")).otherwise(Txn::new().then(Range::key("b")));
        assert!(only_reads(&reads.clone().into()));
        for txn in [
            reads.clone().then(Put::new("a", "")),
            reads.clone().otherwise(Delete::key("a")),
            reads.then(Txn::new().otherwise(Txn::new().then(Put::new("a", "")))),
        ] {
            assert!(!only_reads(&txn.into()));
        }
    }
}
