//! The members of the cluster.

use mainstay_proto::etcdserverpb::cluster_client::ClusterClient;
use mainstay_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};

use crate::channel::Channel;
use crate::client::Client;
use crate::error::Error;
use crate::failover::Class;

fn service(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel)
}

impl Client {
    /// The members, as the cluster agrees on them.
    pub async fn member_list(&self) -> Result<MemberListResponse, Error> {
        self.member_list_with(MemberListRequest { linearizable: true }).await
    }

    /// The members, as the member that is asked knows them.
    pub async fn member_list_local(&self) -> Result<MemberListResponse, Error> {
        self.member_list_with(MemberListRequest { linearizable: false }).await
    }

    async fn member_list_with(&self, request: MemberListRequest) -> Result<MemberListResponse, Error> {
        self.call(Class::Read, request, |channel, request| async move { service(channel).member_list(request).await })
            .await
    }

    /// Adds a voting member.
    pub async fn member_add(&self, peer_urls: Vec<String>) -> Result<MemberAddResponse, Error> {
        self.member_add_with(MemberAddRequest { peer_ur_ls: peer_urls, is_learner: false }).await
    }

    /// Adds a learner.
    pub async fn member_add_learner(&self, peer_urls: Vec<String>) -> Result<MemberAddResponse, Error> {
        self.member_add_with(MemberAddRequest { peer_ur_ls: peer_urls, is_learner: true }).await
    }

    async fn member_add_with(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Error> {
        self.call(Class::Write, request, |channel, request| async move { service(channel).member_add(request).await })
            .await
    }

    /// Removes a member.
    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, Error> {
        self.call(Class::Write, MemberRemoveRequest { id }, |channel, request| async move {
            service(channel).member_remove(request).await
        })
        .await
    }

    /// Gives a member other peer URLs.
    pub async fn member_update(&self, id: u64, peer_urls: Vec<String>) -> Result<MemberUpdateResponse, Error> {
        let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls };
        self.call(
            Class::Write,
            request,
            |channel, request| async move { service(channel).member_update(request).await },
        )
        .await
    }

    /// Makes a learner a voter.
    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, Error> {
        self.call(Class::Write, MemberPromoteRequest { id }, |channel, request| async move {
            service(channel).member_promote(request).await
        })
        .await
    }
}
