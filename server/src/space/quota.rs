//! The quota, and what a write is reckoned to take of it.

use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

use crate::env::probe;

/// The quota where none is configured; as in etcd.
const DEFAULT_BYTES: i64 = 2 * 1024 * 1024 * 1024;

/// What is reckoned for a key besides its bytes and its value's; as in etcd.
const KEY_COST: u64 = 256;

/// What is reckoned for a lease; as in etcd.
pub(crate) const LEASE_COST: u64 = 64;

/// Bytes that the store may retain.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    configured: i64,
}

impl Quota {
    /// Takes `--quota-backend-bytes`: negative means none, 0 the default.
    pub fn new(configured: i64) -> Self {
        Self { configured: if configured == 0 { DEFAULT_BYTES } else { configured } }
    }

    /// The quota as Maintenance.Status tells it.
    pub fn configured(self) -> i64 {
        self.configured
    }

    /// The quota in bytes, where there is one.
    pub fn bytes(self) -> Option<u64> {
        u64::try_from(self.configured).ok()
    }

    /// Whether a write of this cost fits. What costs nothing always does.
    pub(crate) fn fits(self, cost: u64, retained: u64) -> bool {
        let is_below = cost == 0 || self.bytes().is_none_or(|quota| retained.saturating_add(cost) < quota);
        // Wrong where it is broken: there is always room.
        is_below || probe::broken("quota-without-end")
    }
}

/// What a put is reckoned to take.
pub(crate) fn put_cost(request: &PutRequest) -> u64 {
    KEY_COST + request.key.len() as u64 + request.value.len() as u64
}

/// What a transaction is reckoned to take: its dearer branch.
pub(crate) fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        let costs = ops.iter().map(|op| match &op.request {
            Some(Request::RequestPut(request)) => put_cost(request),
            Some(Request::RequestTxn(request)) => txn_cost(request),
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
        });
        costs.sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(len: usize) -> RequestOp {
        let request = PutRequest { key: "k".into(), value: vec![0; len].into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(request)) }
    }

    #[test]
    fn a_transaction_costs_its_dearer_branch() {
        let nested = TxnRequest { success: vec![put(1000)], ..TxnRequest::default() };
        let nested = RequestOp { request: Some(Request::RequestTxn(nested)) };
        let request = TxnRequest { success: vec![put(0), put(1)], failure: vec![nested], ..TxnRequest::default() };
        assert_eq!(txn_cost(&request), 256 + 1 + 1000);
        assert_eq!(txn_cost(&TxnRequest { failure: vec![], ..request }), 2 * 257 + 1);
        assert_eq!(txn_cost(&TxnRequest { success: vec![RequestOp::default()], ..TxnRequest::default() }), 0);
    }

    #[test]
    fn a_write_must_leave_the_quota_unreached() {
        let quota = Quota::new(10_000);
        assert!(quota.fits(999, 9_000));
        assert!(!quota.fits(1_000, 9_000));
        assert!(quota.fits(0, 20_000), "what costs nothing passes");
    }

    #[test]
    fn a_negative_quota_is_none() {
        assert!(Quota::new(-1).fits(u64::MAX, u64::MAX));
        assert_eq!((Quota::new(-1).configured(), Quota::new(-1).bytes()), (-1, None));
        assert_eq!(Quota::new(0).configured(), 2 * 1024 * 1024 * 1024);
    }
}
