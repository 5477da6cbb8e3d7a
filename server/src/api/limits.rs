use std::time::Duration;

use crate::limits::GRPC_OVERHEAD_BYTES;

/// What the configuration allows a request.
#[derive(Clone, Copy, Debug)]
pub struct ApiLimits {
    /// `--max-txn-ops`: operations of a transaction.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`: bytes of an encoded command.
    pub max_request_bytes: usize,
    /// Seconds that a lease lasts at least, see [`ApiLimits::lease_ttl_min_seconds`].
    pub lease_ttl_min_seconds: i64,
}

impl ApiLimits {
    /// The least time to live of a lease, in seconds: one and a half election timeouts, rounded up, so
    /// that leases outlive a change of leader; as in etcd.
    pub fn lease_ttl_min_seconds(election_timeout: Duration) -> i64 {
        let millis = election_timeout.as_millis() * 3 / 2;
        millis.div_ceil(1000).max(1).try_into().unwrap_or(i64::MAX)
    }

    /// Bytes of a message, whatever is in it.
    pub(super) fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }
}

/// etcd's defaults.
impl Default for ApiLimits {
    fn default() -> Self {
        Self { max_txn_ops: 128, max_request_bytes: 1_572_864, lease_ttl_min_seconds: 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_one_and_a_half_elections() {
        for (millis, seconds) in [(1000, 2), (100, 1), (667, 1), (668, 2), (5000, 8), (50_000, 75), (0, 1)] {
            assert_eq!(ApiLimits::lease_ttl_min_seconds(Duration::from_millis(millis)), seconds, "{millis}");
        }
        let default = ApiLimits::default();
        assert_eq!(default.lease_ttl_min_seconds, ApiLimits::lease_ttl_min_seconds(Duration::from_millis(1000)));
        assert_eq!(default.max_message_bytes(), 2_097_152);
    }
}
