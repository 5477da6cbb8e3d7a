//! Locks and elections that the server holds for its clients.
//!
//! To lock and to campaign is to wait for others, and to do several things on the way. So these requests are
//! made once: one that failed, in whatever way, may have left a key behind, which goes with its lease.

use bytes::Bytes;
use mainstay_proto::v3electionpb::election_client::ElectionClient;
use mainstay_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use mainstay_proto::v3lockpb::lock_client::LockClient;
use mainstay_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::Streaming;

use crate::channel::Channel;
use crate::client::Client;
use crate::error::Error;
use crate::failover::Class;

fn locks(channel: Channel) -> LockClient<Channel> {
    LockClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn elections(channel: Channel) -> ElectionClient<Channel> {
    ElectionClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// Waits for a lock, and holds it then for as long as the lease lives, or until it is unlocked.
    pub async fn lock(&self, name: impl Into<Bytes>, lease: i64) -> Result<LockResponse, Error> {
        let request = LockRequest { name: name.into(), lease };
        self.call_once(Class::Write, request, |channel, request| async move { locks(channel).lock(request).await })
            .await
    }

    /// Gives a lock back, by the key that holding it was told.
    pub async fn unlock(&self, key: impl Into<Bytes>) -> Result<UnlockResponse, Error> {
        let request = UnlockRequest { key: key.into() };
        self.call(Class::Write, request, |channel, request| async move { locks(channel).unlock(request).await }).await
    }

    /// Waits until it leads an election, for as long as the lease lives, or until it resigns.
    pub async fn campaign(
        &self,
        name: impl Into<Bytes>,
        lease: i64,
        value: impl Into<Bytes>,
    ) -> Result<CampaignResponse, Error> {
        let request = CampaignRequest { name: name.into(), lease, value: value.into() };
        self.call_once(
            Class::Write,
            request,
            |channel, request| async move { elections(channel).campaign(request).await },
        )
        .await
    }

    /// Says something else as the leader.
    pub async fn proclaim(&self, leader: LeaderKey, value: impl Into<Bytes>) -> Result<ProclaimResponse, Error> {
        let request = ProclaimRequest { leader: Some(leader), value: value.into() };
        self.call(Class::Write, request, |channel, request| async move { elections(channel).proclaim(request).await })
            .await
    }

    /// Gives the leadership up.
    pub async fn resign(&self, leader: LeaderKey) -> Result<ResignResponse, Error> {
        let request = ResignRequest { leader: Some(leader) };
        self.call(Class::Write, request, |channel, request| async move { elections(channel).resign(request).await })
            .await
    }

    /// Who leads an election.
    pub async fn leader(&self, name: impl Into<Bytes>) -> Result<LeaderResponse, Error> {
        let request = LeaderRequest { name: name.into() };
        self.call(Class::Read, request, |channel, request| async move { elections(channel).leader(request).await })
            .await
    }

    /// Whoever leads an election, and what it proclaims, from now on. Where nobody leads, an answer comes with
    /// the first leader.
    pub async fn observe(&self, name: impl Into<Bytes>) -> Result<Streaming<LeaderResponse>, Error> {
        let request = LeaderRequest { name: name.into() };
        self.call(Class::Read, request, |channel, request| async move { elections(channel).observe(request).await })
            .await
    }
}
