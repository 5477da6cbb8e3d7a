use mainstay_proto::etcdserverpb::{Compare, compare};
use prost::Message;

use super::*;
use crate::command::{self, Command};

fn key_range(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn get(key: &'static str) -> RequestOp {
    op(Request::RequestRange(key_range(key)))
}

fn put_op(key: &'static str) -> RequestOp {
    op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
}

fn success(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn nest(txn: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(txn))
}

/// Transactions nested so deep, with a read at the bottom.
fn nested(depth: usize) -> TxnRequest {
    (1..depth).fold(success(vec![get("k")]), |inner, _| success(vec![nest(inner)]))
}

#[test]
fn a_range_names_a_key_and_a_known_order() {
    assert_eq!(range(&key_range("k")), Ok(()));
    assert_eq!(range(&key_range("\0")), Ok(()));
    assert_eq!(range(&key_range("")), Err(ApiError::EmptyKey));
    for (sort_order, sort_target, expected) in [
        (2, 4, Ok(())),
        (3, 0, Err(ApiError::InvalidSortOption)),
        (-1, 0, Err(ApiError::InvalidSortOption)),
        (0, 5, Err(ApiError::InvalidSortOption)),
    ] {
        let request = RangeRequest { sort_order, sort_target, ..key_range("k") };
        assert_eq!(range(&request), expected);
        assert_eq!(range(&RangeRequest { key: Default::default(), ..request }), Err(ApiError::EmptyKey));
    }
}

#[test]
fn a_stream_neither_sorts_nor_filters() {
    let sorted = |order: SortOrder, target: SortTarget| RangeRequest {
        sort_order: order as i32,
        sort_target: target as i32,
        ..key_range("k")
    };
    assert_eq!(range_stream(&key_range("")), Err(ApiError::EmptyKey));
    assert_eq!(range_stream(&sorted(SortOrder::None, SortTarget::Key)), Ok(()));
    assert_eq!(range_stream(&sorted(SortOrder::None, SortTarget::Mod)), Ok(()));
    assert_eq!(range_stream(&sorted(SortOrder::Ascend, SortTarget::Key)), Ok(()));
    assert_eq!(range_stream(&sorted(SortOrder::Descend, SortTarget::Key)), Err(ApiError::StreamCustomSort));
    assert_eq!(range_stream(&sorted(SortOrder::Ascend, SortTarget::Mod)), Err(ApiError::StreamCustomSort));
    for filtered in [
        RangeRequest { min_mod_revision: 1, ..key_range("k") },
        RangeRequest { max_mod_revision: 1, ..key_range("k") },
        RangeRequest { min_create_revision: 1, ..key_range("k") },
        RangeRequest { max_create_revision: -1, ..key_range("k") },
    ] {
        assert_eq!(range_stream(&filtered), Err(ApiError::StreamRevisionFilter));
        let both = RangeRequest { sort_order: SortOrder::Descend as i32, ..filtered };
        assert_eq!(range_stream(&both), Err(ApiError::StreamCustomSort));
    }
}

#[test]
fn a_put_does_not_give_what_it_ignores() {
    let request = PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..PutRequest::default() };
    assert_eq!(put(&request), Ok(()));
    assert_eq!(put(&PutRequest { key: "k".into(), ..PutRequest::default() }), Ok(()));
    assert_eq!(put(&PutRequest { key: "".into(), ignore_value: true, ..request.clone() }), Err(ApiError::EmptyKey));
    let both = PutRequest { ignore_value: true, ignore_lease: true, ..request.clone() };
    assert_eq!(put(&both), Err(ApiError::ValueProvided));
    assert_eq!(put(&PutRequest { ignore_lease: true, ..request.clone() }), Err(ApiError::LeaseProvided));
    assert_eq!(put(&PutRequest { ignore_lease: true, lease: 0, ..request.clone() }), Ok(()));
    assert_eq!(put(&PutRequest { ignore_value: true, value: "".into(), ..request }), Ok(()));
}

#[test]
fn a_deletion_names_a_key() {
    assert_eq!(delete_range(&DeleteRangeRequest { key: "k".into(), ..Default::default() }), Ok(()));
    let keyless = DeleteRangeRequest { range_end: "\0".into(), ..Default::default() };
    assert_eq!(delete_range(&keyless), Err(ApiError::EmptyKey));
}

#[test]
fn the_widest_list_of_a_transaction_is_bounded() {
    let compare = || Compare { key: "k".into(), ..Compare::default() };
    let keys = |count: usize| vec![get("k"); count];
    assert_eq!(txn(&success(keys(128)), 128), Ok(()));
    assert_eq!(txn(&success(keys(129)), 128), Err(ApiError::TooManyOps));
    let failure = TxnRequest { failure: keys(129), ..TxnRequest::default() };
    assert_eq!(txn(&failure, 128), Err(ApiError::TooManyOps));
    let compares = TxnRequest { compare: vec![compare(); 129], ..TxnRequest::default() };
    assert_eq!(txn(&compares, 128), Err(ApiError::TooManyOps));
    let spread = TxnRequest { compare: vec![compare(); 128], success: keys(128), failure: keys(128) };
    assert_eq!(txn(&spread, 128), Ok(()));
    assert_eq!(txn(&TxnRequest::default(), 128), Ok(()));
}

#[test]
fn nesting_uses_up_the_budget() {
    let outer = |inner: usize| {
        let mut ops = vec![get("k"); 27];
        ops.push(nest(success(vec![get("k"); inner])));
        success(ops)
    };
    assert_eq!(txn(&outer(100), 128), Ok(()));
    assert_eq!(txn(&outer(101), 128), Err(ApiError::TooManyOps));
    assert_eq!(txn(&nested(3), 3), Ok(()));
    assert_eq!(txn(&nested(3), 2), Err(ApiError::TooManyOps));
}

#[test]
fn every_operation_is_checked_in_both_branches_and_below() {
    let faults = [
        (op(Request::RequestRange(key_range(""))), ApiError::EmptyKey),
        (op(Request::RequestRange(RangeRequest { sort_order: 9, ..key_range("k") })), ApiError::InvalidSortOption),
        (put_op(""), ApiError::EmptyKey),
        (op(Request::RequestDeleteRange(DeleteRangeRequest::default())), ApiError::EmptyKey),
        (RequestOp { request: None }, ApiError::KeyNotFound),
        (nest(TxnRequest { compare: vec![Compare::default()], ..TxnRequest::default() }), ApiError::EmptyKey),
    ];
    for (fault, error) in faults {
        let failure = TxnRequest { failure: vec![get("k"), fault.clone()], ..TxnRequest::default() };
        assert_eq!(txn(&failure, 128), Err(error));
        assert_eq!(txn(&success(vec![fault.clone()]), 128), Err(error));
        assert_eq!(txn(&success(vec![nest(success(vec![fault]))]), 128), Err(error));
    }
    let keyless = Compare { target_union: Some(compare::TargetUnion::Version(0)), ..Compare::default() };
    let request = TxnRequest { compare: vec![keyless], success: vec![get("")], ..TxnRequest::default() };
    assert_eq!(txn(&request, 128), Err(ApiError::EmptyKey));
}

#[test]
fn both_branches_are_checked_for_keys_written_twice() {
    let twice = || vec![put_op("k"), put_op("k")];
    assert_eq!(txn(&success(twice()), 128), Err(ApiError::DuplicateKey));
    assert_eq!(txn(&TxnRequest { failure: twice(), ..TxnRequest::default() }, 128), Err(ApiError::DuplicateKey));
    let shared = TxnRequest { success: vec![put_op("k")], failure: vec![put_op("k")], ..TxnRequest::default() };
    assert_eq!(txn(&shared, 128), Ok(()));
}

/// A command that is accepted but cannot be decoded again would stop every member.
#[test]
fn the_deepest_transaction_survives_the_codec() {
    assert_eq!(txn(&nested(TXN_DEPTH_MAX + 1), 128), Err(ApiError::TxnTooDeep));
    let deepest = nested(TXN_DEPTH_MAX);
    assert_eq!(txn(&deepest, 128), Ok(()));
    assert!(TxnRequest::decode(deepest.encode_to_vec().as_slice()).is_ok());
    let kind = command::command::Kind::Txn(deepest);
    let encoded = command::encode(&Command { kind: Some(kind.clone()), caller: None });
    assert_eq!(command::decode(encoded), Ok((kind, command::Caller::default())));
}

#[test]
fn the_deepest_outcome_survives_being_forwarded() {
    use mainstay_proto::etcdserverpb::{RangeResponse, ResponseOp, TxnResponse, response_op::Response};
    use mainstay_proto::mainstay::ForwardResponse;
    use mainstay_proto::mvccpb::KeyValue;

    let respond =
        |response| TxnResponse { responses: vec![ResponseOp { response: Some(response) }], ..Default::default() };
    let kvs = vec![KeyValue { key: "k".into(), ..KeyValue::default() }];
    let bottom = respond(Response::ResponseRange(RangeResponse { kvs, ..RangeResponse::default() }));
    let txn = (1..TXN_DEPTH_MAX).fold(bottom, |inner, _| respond(Response::ResponseTxn(inner)));
    let outcome = command::Outcome { reply: Some(command::outcome::Reply::Txn(txn)), ..Default::default() };
    let forwarded = ForwardResponse { outcome: Some(outcome), ..ForwardResponse::default() };
    assert_eq!(ForwardResponse::decode(forwarded.encode_to_vec().as_slice()), Ok(forwarded));
}

#[test]
fn an_alarm_request_is_of_known_kind() {
    let request = |action, alarm| AlarmRequest { action, alarm, member_id: 0 };
    assert_eq!(alarm(&request(0, 0)), Ok(()));
    assert_eq!(alarm(&request(1, 2)), Ok(()));
    assert_eq!(alarm(&request(2, 1)), Ok(()));
    assert_eq!(alarm(&request(3, 0)), Err(ApiError::UnknownAlarmAction));
    assert_eq!(alarm(&request(-1, 0)), Err(ApiError::UnknownAlarmAction));
    assert_eq!(alarm(&request(1, 3)), Err(ApiError::UnknownAlarmType));
    // Asking for an unknown kind finds none, as in etcd.
    assert_eq!(alarm(&request(0, 3)), Ok(()));
    assert_eq!(alarm(&request(2, 3)), Ok(()));
}

#[test]
fn the_size_is_that_of_the_encoded_command() {
    let put = PutRequest { key: "k".into(), value: vec![b'v'; 1000].into(), ..PutRequest::default() };
    let kind = command::command::Kind::Put(put);
    let encoded = command::encode(&Command { kind: Some(kind.clone()), caller: None }).len();
    assert_eq!(size(&kind, encoded), Ok(()));
    assert_eq!(size(&kind, encoded - 1), Err(ApiError::RequestTooLarge));
}

#[test]
fn one_linearizable_range_makes_a_transaction_linearizable() {
    let local = |serializable| op(Request::RequestRange(RangeRequest { serializable, ..key_range("k") }));
    let request = |success, failure| TxnRequest { compare: vec![], success, failure };
    assert!(is_serializable(&request(vec![], vec![])));
    assert!(is_serializable(&request(vec![local(true)], vec![local(true)])));
    assert!(!is_serializable(&request(vec![local(true)], vec![local(false)])));
    assert!(!is_serializable(&request(vec![put_op("k")], vec![])));
}
