//! What operators ask of one member.

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::maintenance_server::Maintenance;
use mainstay_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::access::Credentials;
use super::propose::Applied;
use super::status::{self, ApiError};
use super::{RpcAccess, Services, snapshot, validate};
use crate::admission::Hold;
use crate::command::command::Kind;
use crate::command::outcome::Reply;
use crate::env::{self, clock, probe};
use crate::limits;
use crate::mvcc::Size;
use crate::raft::{self, TransferError};

/// The release of etcd that this server answers as.
pub const VERSION: &str = "3.7.1";

/// The version of etcd's stored format that clients are told.
pub const STORAGE_VERSION: &str = "3.7.0";

#[tonic::async_trait]
impl Maintenance for Services {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        let lists = request.action == i32::from(AlarmAction::Get);
        let rule = if lists { RpcAccess::User } else { RpcAccess::Root };
        self.access.admit(rule, &credentials).await?;
        validate::alarm(&request)?;
        let Applied { revision, reply: Some(Reply::Alarm(mut response)) } =
            self.propose(&credentials, Kind::Alarm(request)).await?
        else {
            return Err(status::foreign_outcome());
        };
        response.header = Some(self.header(revision));
        Ok(Response::new(response))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let raft = self.gateway.status();
        let response = StatusResponse {
            header: Some(self.header_now()),
            ..told(&raft, &self.alarms.all(), self.store.size(), self.downgrade.info())
        };
        Ok(Response::new(StatusResponse { db_size_quota: self.quota.configured(), ..response }))
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        tracing::info!("starting defragment");
        let (store, disk, began) = (self.store.clone(), &self.metrics.disk, clock::now());
        disk.defrag_inflight.inc();
        let reclaimed = env::blocking(move || store.reclaim()).await;
        disk.defrag_inflight.dec();
        reclaimed.map_err(|error| {
            tracing::error!(%error, "failed to defragment");
            status::engine(&error)
        })?;
        disk.backend_defrag_duration_seconds.observe(clock::elapsed(began).as_secs_f64());
        probe::reached("defragmented");
        tracing::info!("finished defragment");
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let store = self.store.clone();
        let turn = Hold::of(request.extensions()).turn().await;
        let began = clock::now();
        let hash = turn.aside(move || store.hash()).await?;
        self.metrics.mvcc.hash_duration_seconds.observe(clock::elapsed(began).as_secs_f64());
        Ok(Response::new(HashResponse { header: Some(self.header_now()), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let turn = Hold::of(request.extensions()).turn().await;
        let revision = request.into_inner().revision;
        let store = self.store.clone();
        let began = clock::now();
        let hashed = turn.aside(move || store.hash_kv(revision)).await?;
        self.metrics.mvcc.hash_rev_duration_seconds.observe(clock::elapsed(began).as_secs_f64());
        Ok(Response::new(HashKvResponse {
            header: Some(self.header(hashed.revision)),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        }))
    }

    type SnapshotStream = BoxStream<SnapshotResponse>;

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let room = Hold::of(request.extensions()).part(limits::DATABASE_BYTES).ok_or(ApiError::TooManyRequests)?;
        Ok(Response::new(snapshot::responses(self.store.clone(), self.metrics.clone(), room)))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        let to = request.into_inner().target_id;
        self.leadership.transfer(to).await.map_err(|error| match error {
            TransferError::NotLeader => ApiError::NotLeader,
            TransferError::NotVoter => ApiError::BadLeaderTransferee,
            TransferError::Timeout => ApiError::TimeoutLeaderTransfer,
            TransferError::Stopped => ApiError::Stopped,
        })?;
        // Without a header, as in etcd.
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        let credentials = Credentials::of(&request);
        self.downgraded(&credentials, request.into_inner()).await.map(Response::new)
    }
}

/// What a member tells of itself besides its header and quota.
fn told(raft: &raft::Status, alarms: &[AlarmMember], size: Size, downgrade: DowngradeInfo) -> StatusResponse {
    let storage_version = if downgrade.enabled { downgrade.target_version.clone() } else { STORAGE_VERSION.to_owned() };
    let mut errors = Vec::new();
    if raft.leader.is_none() {
        errors.push(ApiError::NoLeader.message().to_owned());
    }
    errors.extend(alarms.iter().map(status::alarm_text));
    StatusResponse {
        version: VERSION.to_owned(),
        db_size: size.total_bytes.try_into().unwrap_or(i64::MAX),
        leader: raft.leader.unwrap_or(0),
        raft_index: raft.committed,
        raft_term: raft.term,
        raft_applied_index: raft.applied,
        errors,
        db_size_in_use: size.in_use_bytes.try_into().unwrap_or(i64::MAX),
        is_learner: raft.is_learner,
        storage_version,
        downgrade_info: Some(downgrade),
        ..StatusResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::AlarmType;

    use super::*;

    #[test]
    fn a_member_tells_of_itself() {
        let raft = raft::Status {
            leader: Some(9),
            term: 3,
            committed: 12,
            applied: 11,
            is_learner: true,
            ..raft::Status::default()
        };
        let told = told(&raft, &[], Size { total_bytes: 100, in_use_bytes: 40 }, DowngradeInfo::default());
        let expected = StatusResponse {
            version: "3.7.1".to_owned(),
            db_size: 100,
            leader: 9,
            raft_index: 12,
            raft_term: 3,
            raft_applied_index: 11,
            db_size_in_use: 40,
            is_learner: true,
            storage_version: "3.7.0".to_owned(),
            downgrade_info: Some(DowngradeInfo { enabled: false, target_version: String::new() }),
            ..StatusResponse::default()
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn a_missing_leader_and_alarms_are_errors() {
        let alarm = |member_id, kind: AlarmType| AlarmMember { member_id, alarm: kind as i32 };
        let alarms = [alarm(1, AlarmType::Nospace), alarm(2, AlarmType::Corrupt)];
        let told = told(&raft::Status::default(), &alarms, Size::default(), DowngradeInfo::default());
        assert_eq!(told.errors, ["etcdserver: no leader", "memberID:1 alarm:NOSPACE", "memberID:2 alarm:CORRUPT"]);
        assert_eq!(told.leader, 0);
    }
}
