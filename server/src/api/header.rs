//! The header of responses.

use mainstay_proto::etcdserverpb::ResponseHeader;

use super::Services;
use crate::env::probe;
use crate::raft::Gateway;

/// A header that tells this revision, for responses that outlive the call that began them.
pub(super) fn header(gateway: &Gateway, revision: i64) -> ResponseHeader {
    let (cluster_id, mut member_id) = gateway.identity();
    if probe::broken("header-names-the-leader") {
        // Wrong: it is not the leader who answers.
        member_id = gateway.status().leader.unwrap_or(member_id);
    }
    ResponseHeader { cluster_id, member_id, revision, raft_term: gateway.term() }
}

impl Services {
    /// A header that tells this revision.
    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        header(&self.gateway, revision)
    }

    /// A header that tells the present revision of the store.
    pub(super) fn header_now(&self) -> ResponseHeader {
        self.header(self.store.revision())
    }
}

/// The revision in a header that has nothing else yet.
pub(super) fn revision_of(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
