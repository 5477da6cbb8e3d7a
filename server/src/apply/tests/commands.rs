//! Short names for commands, so that tests read like scripts.

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use mainstay_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};

use crate::command::command::Kind;

pub(super) fn put_request(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

pub(super) fn put(key: &'static str, value: &'static str) -> Kind {
    Kind::Put(put_request(key, value))
}

pub(super) fn put_leased(key: &'static str, value: &'static str, lease: i64) -> Kind {
    Kind::Put(PutRequest { lease, ..put_request(key, value) })
}

pub(super) fn delete_request(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
}

pub(super) fn delete(key: &'static str, range_end: &'static str) -> Kind {
    Kind::DeleteRange(delete_request(key, range_end))
}

pub(super) fn range_request(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() }
}

pub(super) fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Kind {
    Kind::Txn(TxnRequest { compare, success, failure })
}

pub(super) fn grant(id: i64, ttl: i64) -> Kind {
    Kind::LeaseGrant(LeaseGrantRequest { id, ttl })
}

pub(super) fn revoke(id: i64) -> Kind {
    Kind::LeaseRevoke(LeaseRevokeRequest { id })
}

pub(super) fn checkpoint(id: i64, remaining_ttl: i64) -> Kind {
    let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl }];
    Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })
}

pub(super) fn compact(revision: i64) -> Kind {
    Kind::Compaction(CompactionRequest { revision, physical: false })
}

pub(super) fn alarm(action: AlarmAction, member_id: u64, kind: AlarmType) -> Kind {
    Kind::Alarm(AlarmRequest { action: action.into(), member_id, alarm: kind.into() })
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// The command as an operation of a transaction.
pub(super) fn does(command: Kind) -> RequestOp {
    match command {
        Kind::Put(request) => op(request_op::Request::RequestPut(request)),
        Kind::DeleteRange(request) => op(request_op::Request::RequestDeleteRange(request)),
        Kind::Txn(request) => op(request_op::Request::RequestTxn(request)),
        other => panic!("no operation: {other:?}"),
    }
}

pub(super) fn reads(request: RangeRequest) -> RequestOp {
    op(request_op::Request::RequestRange(request))
}

pub(super) fn reads_key(key: &'static str) -> RequestOp {
    reads(range_request(key, ""))
}

pub(super) fn compare(key: &'static str, result: CompareResult, operand: TargetUnion) -> Compare {
    let target = match operand {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: "".into(),
        target_union: Some(operand),
    }
}

/// A compare that holds where the key does not exist.
pub(super) fn absent(key: &'static str) -> Compare {
    compare(key, CompareResult::Equal, TargetUnion::Version(0))
}
