//! What operators ask of one member. With several endpoints, choose it with [`Client::only`].

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use mainstay_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, HashKvRequest,
    HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse,
};
use tonic::Streaming;

use crate::channel::Channel;
use crate::client::Client;
use crate::error::Error;
use crate::failover::Class;

fn service(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// How the member is.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        self.call(
            Class::Read,
            StatusRequest {},
            |channel, request| async move { service(channel).status(request).await },
        )
        .await
    }

    /// The hash of the member's keys up to a revision; 0 is the newest.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Error> {
        self.call(Class::Read, HashKvRequest { revision }, |channel, request| async move {
            service(channel).hash_kv(request).await
        })
        .await
    }

    /// The hash of all that the member stores.
    pub async fn hash(&self) -> Result<HashResponse, Error> {
        self.call(Class::Read, HashRequest {}, |channel, request| async move { service(channel).hash(request).await })
            .await
    }

    /// The alarms that are raised.
    pub async fn alarms(&self) -> Result<Vec<AlarmMember>, Error> {
        let request = AlarmRequest { action: AlarmAction::Get.into(), member_id: 0, alarm: AlarmType::None.into() };
        let response = self
            .call(Class::Read, request, |channel, request| async move { service(channel).alarm(request).await })
            .await?;
        Ok(response.alarms)
    }

    /// Raises an alarm for a member.
    pub async fn alarm_activate(&self, member_id: u64, alarm: AlarmType) -> Result<AlarmResponse, Error> {
        self.alarm(AlarmAction::Activate, member_id, alarm).await
    }

    /// Lifts an alarm of a member.
    pub async fn alarm_deactivate(&self, member_id: u64, alarm: AlarmType) -> Result<AlarmResponse, Error> {
        self.alarm(AlarmAction::Deactivate, member_id, alarm).await
    }

    async fn alarm(&self, action: AlarmAction, member_id: u64, alarm: AlarmType) -> Result<AlarmResponse, Error> {
        let request = AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        self.call(Class::Write, request, |channel, request| async move { service(channel).alarm(request).await }).await
    }

    /// Gives the member's free space back to its disk.
    pub async fn defragment(&self) -> Result<DefragmentResponse, Error> {
        self.call(Class::Write, DefragmentRequest {}, |channel, request| async move {
            service(channel).defragment(request).await
        })
        .await
    }

    /// Makes another member leader. Only the leader can do it.
    pub async fn move_leader(&self, target_id: u64) -> Result<MoveLeaderResponse, Error> {
        self.call(Class::Write, MoveLeaderRequest { target_id }, |channel, request| async move {
            service(channel).move_leader(request).await
        })
        .await
    }

    /// A snapshot of the member, in pieces.
    pub async fn snapshot(&self) -> Result<Streaming<SnapshotResponse>, Error> {
        self.call(Class::Read, SnapshotRequest {}, |channel, request| async move {
            service(channel).snapshot(request).await
        })
        .await
    }
}
