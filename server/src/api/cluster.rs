//! The members of the cluster: who they are, and changing that.

use mainstay_proto::etcdserverpb::cluster_server::Cluster;
use mainstay_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::Services;
use super::access::{Credentials, RpcAccess};
use super::status::ApiError;
use crate::config::{Url, identity};
use crate::env::{clock, probe};
use crate::raft::{self, MemberChange, MemberRefusal};

/// Headers of this service tell no revision; as in etcd.
const NO_REVISION: i64 = 0;

#[tonic::async_trait]
impl Cluster for Services {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        let credentials = Credentials::of(&request);
        let MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        // Before who asks; as in etcd.
        let peer_urls = checked(&peer_ur_ls)?;
        self.access.admit(RpcAccess::Root, &credentials).await?;
        // Wrong where it is broken: whoever is added in the place of another gets its id.
        let is_broken = probe::broken("added-id-of-the-removed");
        let mut salt = if is_broken { 0 } else { clock::since_epoch().as_secs() };
        let (id, members) = loop {
            let id = identity::member_id_at(&peer_urls, salt);
            let change = MemberChange::Add { id, peer_urls: peer_urls.clone(), learner: is_learner };
            match self.gateway.change_members(change).await? {
                Ok(()) => break (id, listed(self.gateway.members())),
                // In the same second, or what the clock took for it, another was removed at these addresses. etcd gives
                // up here, and says that the member is not found.
                Err(MemberRefusal::NotFound) if !is_broken => salt = salt.wrapping_add(1),
                Err(refusal) => return Err(refused(refusal).into()),
            }
        };
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(MemberAddResponse { header: Some(self.header(NO_REVISION)), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let id = request.into_inner().id;
        let mut members = self.change_members(MemberChange::Remove(id)).await?;
        // The one that goes may not know it yet.
        members.retain(|member| member.id != id);
        Ok(Response::new(MemberRemoveResponse { header: Some(self.header(NO_REVISION)), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        // etcd takes any text for an address here, and would no longer find the member. Whether there is such a
        // member it says all the same.
        let peer_urls =
            checked(&peer_ur_ls).map_err(|bad| match self.gateway.members().iter().any(|it| it.id == id) {
                true => bad,
                false => ApiError::MemberNotFound,
            })?;
        let members = self.change_members(MemberChange::Update { id, peer_urls }).await?;
        Ok(Response::new(MemberUpdateResponse { header: Some(self.header(NO_REVISION)), members }))
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.gateway.read_index().await?;
        }
        let members = listed(self.gateway.members());
        Ok(Response::new(MemberListResponse { header: Some(self.header(NO_REVISION)), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let members = self.change_members(MemberChange::Promote(request.into_inner().id)).await?;
        Ok(Response::new(MemberPromoteResponse { header: Some(self.header(NO_REVISION)), members }))
    }
}

impl Services {
    /// Changes the members; who they are then.
    async fn change_members(&self, change: MemberChange) -> Result<Vec<Member>, Status> {
        match self.gateway.change_members(change).await? {
            Ok(()) => Ok(listed(self.gateway.members())),
            Err(refusal) => Err(refused(refusal).into()),
        }
    }
}

/// Checks peer URLs that a client gives, and brings them into etcd's form and order.
fn checked(urls: &[String]) -> Result<Vec<String>, ApiError> {
    let urls = urls.iter().map(|url| Url::parse(url)).collect::<Result<Vec<Url>, _>>();
    let mut urls = urls.map_err(|_| ApiError::MemberBadUrls)?;
    if urls.is_empty() {
        return Err(ApiError::MemberBadUrls);
    }
    urls.sort();
    Ok(urls.iter().map(|url| url.as_str().to_owned()).collect())
}

fn refused(refusal: MemberRefusal) -> ApiError {
    match refusal {
        MemberRefusal::Exists => ApiError::MemberExists,
        MemberRefusal::UrlExists => ApiError::PeerUrlExists,
        // One that this release does not know comes from a leader of a newer one.
        MemberRefusal::NotFound | MemberRefusal::None => ApiError::MemberNotFound,
        MemberRefusal::NotLearner => ApiError::MemberNotLearner,
        MemberRefusal::LearnerNotReady => ApiError::LearnerNotReady,
        MemberRefusal::TooManyLearners => ApiError::TooManyLearners,
        MemberRefusal::NotEnoughStarted => ApiError::MemberNotEnoughStarted,
        MemberRefusal::Unhealthy => ApiError::Unhealthy,
    }
}

/// The members as etcd lists them: by their ids.
fn listed(mut members: Vec<raft::Member>) -> Vec<Member> {
    members.sort_by_key(|member| member.id);
    let listed = members.into_iter().map(|member| Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_by_their_ids() {
        let member = |id: u64| raft::Member { id, ..raft::Member::default() };
        let ids: Vec<u64> = listed(vec![member(9), member(u64::MAX), member(1)]).iter().map(|m| m.id).collect();
        assert_eq!(ids, [1, 9, u64::MAX]);
    }

    #[test]
    fn a_member_is_told_whole() {
        let urls = |url: &str| vec![url.to_owned()];
        let member = raft::Member {
            id: 7,
            name: "a".to_owned(),
            peer_urls: urls("http://p:1"),
            client_urls: urls("http://c:2"),
            is_learner: true,
        };
        let expected = Member {
            id: 7,
            name: "a".to_owned(),
            peer_ur_ls: urls("http://p:1"),
            client_ur_ls: urls("http://c:2"),
            is_learner: true,
        };
        assert_eq!(listed(vec![member]), [expected]);
    }
}
