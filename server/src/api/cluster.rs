//! The members of the cluster. Changing them is not served yet.

use mainstay_proto::etcdserverpb::cluster_server::Cluster;
use mainstay_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::Services;
use super::status::not_served;
use crate::raft;

/// Headers of this service tell no revision; as in etcd.
const NO_REVISION: i64 = 0;

#[tonic::async_trait]
impl Cluster for Services {
    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(not_served("Cluster.MemberAdd"))
    }

    async fn member_remove(&self, _: Request<MemberRemoveRequest>) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(not_served("Cluster.MemberRemove"))
    }

    async fn member_update(&self, _: Request<MemberUpdateRequest>) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(not_served("Cluster.MemberUpdate"))
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
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(not_served("Cluster.MemberPromote"))
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
