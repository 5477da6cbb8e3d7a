use bytes::Bytes;
use mainstay_proto::etcdserverpb::LeaseGrantRequest;
use mainstay_proto::etcdserverpb::lease_server::Lease;
use tonic::Status;

use super::caller::{Caller, answered};
use crate::api::Services;

/// Seconds that the lease of a client lives which brought none. Nobody renews it.
const LEASE_TTL_SECONDS: i64 = 60;

impl Services {
    /// The lease of a participant: its own, or one that is granted for it.
    pub(super) async fn session(&self, caller: &Caller, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id: 0 };
        Ok(answered(self.lease_grant(caller.asks(request)).await)?.id)
    }
}

/// What the keys of all participants begin with.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of one participant.
pub(super) fn key(prefix: &[u8], lease: i64) -> Bytes {
    // Go writes negative numbers with a sign, whatever the base.
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_etcds() {
        assert_eq!(key(&prefix(b"a/b"), 0x7c6a_1fea_d2eb_a005), "a/b/7c6a1fead2eba005");
        assert_eq!(key(&prefix(b""), 5), "/5");
        assert_eq!(key(&prefix(b"l"), -255), "l/-ff");
        assert_eq!(key(&prefix(b"l"), i64::MIN), "l/-8000000000000000");
    }
}
