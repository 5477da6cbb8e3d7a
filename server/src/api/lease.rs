//! Leases.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::stream;
use mainstay_proto::etcdserverpb::lease_server::Lease;
use mainstay_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::Credentials;
use super::header::header;
use super::propose::Applied;
use super::spans::{CallSpan, Renewal};
use super::status::{self, ApiError};
use super::{Access, Services};
use crate::admission::Hold;
use crate::auth::Right;
use crate::command::command::Kind;
use crate::command::outcome::Reply;
use crate::env::probe;
use crate::lease::LeaseView;
use crate::limits;
use crate::mvcc::Store;
use crate::raft::{Gateway, Unavailable};
use crate::space;

/// What a lease takes in a list of them.
const LISTED_BYTES: u64 = 64;
/// What a key takes in a list of a lease's keys besides its bytes.
const KEY_BYTES: u64 = 32;

#[tonic::async_trait]
impl Lease for Services {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let (credentials, call) = (Credentials::of(&request), self.call_span(&request));
        self.admission.lets_grant().map_err(ApiError::from)?;
        self.check_quota(space::LEASE_COST, |_| Ok(true)).await?;
        let request = decided(request.into_inner(), self.limits.lease_ttl_min_seconds, rand::random);
        let stage = call.stage(&request);
        let Applied { revision, reply: Some(Reply::LeaseGrant(mut response)) } =
            stage.proposal(pin!(self.propose(&credentials, Kind::LeaseGrant(request)))).await?
        else {
            return Err(status::foreign_outcome());
        };
        response.header = Some(self.header(revision));
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let credentials = Credentials::of(&request);
        let stage = self.call_span(&request).stage(request.get_ref());
        let revoke = self.propose(&credentials, Kind::LeaseRevoke(request.into_inner()));
        let applied = stage.proposal(pin!(revoke)).await?;
        Ok(Response::new(LeaseRevokeResponse { header: Some(self.header(applied.revision)) }))
    }

    type LeaseKeepAliveStream = BoxStream<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let keeper = Keeper {
            credentials: Credentials::of(&request),
            call: self.call_span(&request),
            access: self.access.clone(),
            store: self.store.clone(),
            leases: self.leases.clone(),
            gateway: self.gateway.clone(),
        };
        // One request after the other: the next is read once the response to the last was taken.
        let responses = stream::try_unfold((keeper, request.into_inner()), |(keeper, mut requests)| async move {
            let Some(request) = requests.message().await? else { return Ok(None) };
            let response = keeper.keep_alive(request.id).await?;
            Ok::<_, Status>(Some((response, (keeper, requests))))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let (credentials, hold) = (Credentials::of(&request), Hold::of(request.extensions()));
        let request = request.into_inner();
        let id = request.id;
        if request.keys {
            // The same is asked of the keys that are found below; asked here, it is answered first.
            let permit = self.access.permit_keys(&credentials, Right::Read, || self.leases.keys(id)).await?;
            self.access.confirm(&permit)?;
        }
        let remaining = match self.gateway.lease_remaining(id).await {
            Ok(remaining) => remaining,
            // A client tries again on this, but not on "not a primary lessor"; as in etcd.
            Err(Unavailable::NotPrimaryLessor) => return Err(ApiError::LeaderChanged.into()),
            Err(unavailable) => return Err(unavailable.into()),
        };
        let Some(remaining) = remaining else {
            let header = Some(self.header_now());
            return Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() }));
        };
        let mut keys = Vec::new();
        if request.keys {
            // The leader knows the time, but the keys are looked up here, where the last puts may not be applied.
            if !probe::broken("lease-keys-without-read-index") {
                // Wrong where it is broken: what is found may be from before the question.
                self.gateway.read_index().await?;
            }
            // Keys may have come to the lease since it was asked whether they may be seen.
            keys = self.leases.keys(id);
            let permit = self.access.permit_keys(&credentials, Right::Read, || keys.clone()).await?;
            self.access.confirm(&permit)?;
            let bytes: u64 = keys.iter().map(|key| KEY_BYTES + key.len() as u64).sum();
            if bytes > limits::MESSAGE_FREE_BYTES && !hold.reads(bytes) {
                return Err(ApiError::TooManyRequests.into());
            }
        }
        let header = Some(self.header_now());
        let (ttl, granted_ttl) = (remaining.ttl, remaining.granted_ttl);
        Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let hold = Hold::of(request.extensions());
        let all_keys = || self.leases.all().into_iter().flat_map(|id| self.leases.keys(id)).collect();
        let permit = self.access.permit_keys(&Credentials::of(&request), Right::Read, all_keys).await?;
        // Only the leader knows which lease ends next; elsewhere the order means nothing, as in etcd.
        let by_deadline = self.lessor.order().await.unwrap_or_default();
        let existing = self.leases.all();
        if !hold.reads(LISTED_BYTES * existing.len() as u64) {
            return Err(ApiError::TooManyRequests.into());
        }
        let leases = ordered(by_deadline, existing).into_iter().map(|id| LeaseStatus { id }).collect();
        self.access.confirm(&permit)?;
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.header_now()), leases }))
    }
}

/// Keeps leases alive for one client.
struct Keeper {
    credentials: Credentials,
    call: CallSpan,
    access: Access,
    store: Store,
    leases: LeaseView,
    gateway: Gateway,
}

impl Keeper {
    async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, ApiError> {
        let _stage = self.call.stage(&Renewal(id));
        // Taken before renewing: otherwise a lease that was revoked at this revision could seem kept alive at it.
        let header = Some(header(&self.gateway, self.store.revision()));
        let keys = || self.leases.keys(id);
        let permit = self.access.permit_keys(&self.credentials, Right::Write, keys).await?;
        self.access.confirm(&permit)?;
        let ttl = self.gateway.lease_renew(id).await?;
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }
}

/// Decides what a command may not: the id where the client leaves it open, and the least time to live.
fn decided(mut request: LeaseGrantRequest, ttl_min: i64, mut random: impl FnMut() -> i64) -> LeaseGrantRequest {
    request.ttl = request.ttl.max(ttl_min);
    while request.id == 0 {
        // Chosen ids are positive.
        request.id = random() & i64::MAX;
    }
    request
}

/// The leases that exist, first those whose order is known.
fn ordered(by_deadline: Vec<i64>, existing: Vec<i64>) -> Vec<i64> {
    let mut left: BTreeSet<i64> = existing.into_iter().collect();
    let mut leases: Vec<i64> = by_deadline.into_iter().filter(|id| left.remove(id)).collect();
    leases.extend(left);
    leases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(id: i64, ttl: i64) -> LeaseGrantRequest {
        LeaseGrantRequest { id, ttl }
    }

    #[test]
    fn short_times_are_raised() {
        for (asked, granted) in [(-1, 2), (0, 2), (1, 2), (2, 2), (60, 60), (i64::MAX, i64::MAX)] {
            assert_eq!(decided(grant(7, asked), 2, || 1), grant(7, granted));
        }
    }

    #[test]
    fn chosen_ids_are_positive() {
        let mut random = [0, i64::MIN, -1].into_iter();
        assert_eq!(decided(grant(0, 9), 2, || random.next().unwrap()), grant(i64::MAX, 9));
        assert_eq!(decided(grant(-5, 9), 2, || 1), grant(-5, 9), "the client's own id stays");
    }

    #[test]
    fn leases_are_listed_once_by_their_deadlines() {
        assert_eq!(ordered(vec![3, 9, 1], vec![1, 2, 3, 4]), [3, 1, 2, 4]);
        assert_eq!(ordered(vec![], vec![2, -1]), [-1, 2]);
    }
}
