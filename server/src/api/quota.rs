//! The quota on the size of the store, looked at before a write is replicated.

use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// The quota where none is configured; as in etcd.
const DEFAULT_BYTES: i64 = 2 * 1024 * 1024 * 1024;

/// What a write may cost in all before the store is asked for its size again.
const SAMPLE_BYTES: u64 = 1024 * 1024;

/// What is reckoned for a key besides its bytes and its value's; as in etcd.
const KEY_COST: u64 = 256;

/// What is reckoned for a lease; as in etcd.
pub(super) const LEASE_COST: u64 = 64;

/// Bytes that the store may take.
///
/// The store's size is asked for once in a while only, and the cost of the writes since then is
/// added to it; close to the quota it is asked for every time.
#[derive(Debug)]
pub struct Quota {
    configured: i64,
    sampled_bytes: AtomicU64,
    cost_since: AtomicU64,
}

impl Quota {
    /// Takes `--quota-backend-bytes`: negative means none, 0 the default.
    pub fn new(configured: i64) -> Self {
        let configured = if configured == 0 { DEFAULT_BYTES } else { configured };
        // A store that seems full is asked for its size at the first write.
        Self { configured, sampled_bytes: AtomicU64::new(u64::MAX), cost_since: AtomicU64::new(0) }
    }

    /// The quota as Maintenance.Status tells it.
    pub(super) fn configured(&self) -> i64 {
        self.configured
    }

    /// Whether a write of this cost fits. What costs nothing always does.
    pub(super) fn fits(&self, cost: u64, size: impl FnOnce() -> u64) -> bool {
        let Ok(quota) = u64::try_from(self.configured) else { return true };
        if cost == 0 {
            return true;
        }
        // Relaxed: an estimate, and a write that slips through is accounted for by the next.
        let cost_since = self.cost_since.fetch_add(cost, Ordering::Relaxed).saturating_add(cost);
        let sampled = self.sampled_bytes.load(Ordering::Relaxed);
        if cost_since < SAMPLE_BYTES && sampled.saturating_add(cost_since) < quota {
            return true;
        }
        let sampled = size();
        self.sampled_bytes.store(sampled, Ordering::Relaxed);
        self.cost_since.store(cost, Ordering::Relaxed);
        sampled.saturating_add(cost) < quota
    }
}

/// What a put is reckoned to take.
pub(super) fn put_cost(request: &PutRequest) -> u64 {
    KEY_COST + request.key.len() as u64 + request.value.len() as u64
}

/// What a transaction is reckoned to take: its dearer branch.
pub(super) fn txn_cost(request: &TxnRequest) -> u64 {
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
        assert!(quota.fits(999, || 9_000));
        let quota = Quota::new(10_000);
        assert!(!quota.fits(1_000, || 9_000));
        assert!(quota.fits(0, || 20_000), "what costs nothing passes");
    }

    #[test]
    fn the_size_is_asked_for_now_and_then() {
        let quota = Quota::new(100 * 1024 * 1024);
        let mut asked = 0;
        for _ in 0..100 {
            assert!(quota.fits(SAMPLE_BYTES / 10, || {
                asked += 1;
                0
            }));
        }
        assert!((9..=12).contains(&asked), "{asked}");
    }

    #[test]
    fn close_to_the_quota_the_size_is_asked_for_each_time() {
        let quota = Quota::new(10_000);
        for size in [9_500, 9_600, 9_700] {
            assert!(!quota.fits(600, || size));
        }
        assert!(quota.fits(600, || 5_000), "space was given back");
    }

    #[test]
    fn a_negative_quota_is_none() {
        assert!(Quota::new(-1).fits(u64::MAX, || u64::MAX));
        assert_eq!(Quota::new(-1).configured(), -1);
        assert_eq!(Quota::new(0).configured(), 2 * 1024 * 1024 * 1024);
    }
}
