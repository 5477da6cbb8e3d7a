use super::*;

/// Every error as etcd 3.7 sends it (then ours): the texts come from the compatibility reference,
/// the codes from there and from its table of wire deviations.
const WIRE: &[(ApiError, Code, &str)] = &[
    (ApiError::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
    (ApiError::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
    (ApiError::ValueProvided, Code::InvalidArgument, "etcdserver: value is provided"),
    (ApiError::LeaseProvided, Code::InvalidArgument, "etcdserver: lease is provided"),
    (ApiError::TooManyOps, Code::InvalidArgument, "etcdserver: too many operations in txn request"),
    (ApiError::DuplicateKey, Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
    (ApiError::InvalidClientApiVersion, Code::InvalidArgument, "etcdserver: invalid client api version"),
    (ApiError::InvalidSortOption, Code::InvalidArgument, "etcdserver: invalid sort option"),
    (ApiError::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
    (ApiError::FutureRevision, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
    (ApiError::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    (ApiError::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
    (ApiError::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists"),
    (ApiError::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL"),
    (ApiError::WatchCanceled, Code::Cancelled, "etcdserver: watch canceled"),
    (ApiError::MemberExists, Code::FailedPrecondition, "etcdserver: member ID already exist"),
    (ApiError::PeerUrlExists, Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
    (
        ApiError::MemberNotEnoughStarted,
        Code::Unknown,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    (ApiError::MemberBadUrls, Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
    (ApiError::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
    (ApiError::MemberNotLearner, Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
    (
        ApiError::LearnerNotReady,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    (ApiError::TooManyLearners, Code::FailedPrecondition, "etcdserver: too many learner members in cluster"),
    (ApiError::ClusterIdMismatch, Code::FailedPrecondition, "etcdserver: cluster ID mismatch"),
    (ApiError::RequestTooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
    (ApiError::TooManyRequests, Code::Unknown, "etcdserver: too many requests"),
    (ApiError::RootUserNotExist, Code::FailedPrecondition, "etcdserver: root user does not exist"),
    (ApiError::RootRoleNotExist, Code::FailedPrecondition, "etcdserver: root user does not have root role"),
    (ApiError::UserAlreadyExists, Code::FailedPrecondition, "etcdserver: user name already exists"),
    (ApiError::UserEmpty, Code::InvalidArgument, "etcdserver: user name is empty"),
    (ApiError::UserNotFound, Code::FailedPrecondition, "etcdserver: user name not found"),
    (ApiError::RoleAlreadyExists, Code::FailedPrecondition, "etcdserver: role name already exists"),
    (ApiError::RoleNotFound, Code::FailedPrecondition, "etcdserver: role name not found"),
    (ApiError::RoleEmpty, Code::InvalidArgument, "etcdserver: role name is empty"),
    (ApiError::AuthFailed, Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
    (ApiError::PermissionNotGiven, Code::InvalidArgument, "etcdserver: permission not given"),
    (ApiError::PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied"),
    (ApiError::RoleNotGranted, Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
    (ApiError::PermissionNotGranted, Code::FailedPrecondition, "etcdserver: permission is not granted to the role"),
    (ApiError::AuthNotEnabled, Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
    (ApiError::InvalidAuthToken, Code::Unauthenticated, "etcdserver: invalid auth token"),
    (ApiError::InvalidAuthManagement, Code::InvalidArgument, "etcdserver: invalid auth management"),
    (ApiError::AuthOldRevision, Code::InvalidArgument, "etcdserver: revision of auth store is old"),
    (ApiError::NoLeader, Code::Unavailable, "etcdserver: no leader"),
    (ApiError::NotLeader, Code::FailedPrecondition, "etcdserver: not leader"),
    (ApiError::LeaderChanged, Code::Unavailable, "etcdserver: leader changed"),
    (ApiError::NotCapable, Code::FailedPrecondition, "etcdserver: not capable"),
    (ApiError::Stopped, Code::Unavailable, "etcdserver: server stopped"),
    (ApiError::Timeout, Code::Unavailable, "etcdserver: request timed out"),
    (
        ApiError::TimeoutLeaderFailure,
        Code::Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure",
    ),
    (
        ApiError::TimeoutConnectionLost,
        Code::Unavailable,
        "etcdserver: request timed out, possibly due to connection lost",
    ),
    (
        ApiError::TimeoutApplied,
        Code::Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long",
    ),
    (ApiError::Unhealthy, Code::Unavailable, "etcdserver: unhealthy cluster"),
    (ApiError::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
    (ApiError::NotSupportedForLearner, Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    (ApiError::BadLeaderTransferee, Code::FailedPrecondition, "etcdserver: bad leader transferee"),
    (ApiError::WrongDowngradeVersionFormat, Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
    (ApiError::InvalidDowngradeTargetVersion, Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
    (
        ApiError::ClusterVersionUnavailable,
        Code::FailedPrecondition,
        "etcdserver: cluster version not found during downgrade",
    ),
    (ApiError::DowngradeInProcess, Code::FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"),
    (ApiError::NoInflightDowngrade, Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
    (ApiError::Canceled, Code::Cancelled, "etcdserver: request canceled"),
    (ApiError::DeadlineExceeded, Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
    (ApiError::TimeoutLeaderTransfer, Code::Unknown, "etcdserver: request timed out, leader transfer took too long"),
    (ApiError::UnknownMethod, Code::Unknown, "etcdserver: unknown method"),
    (ApiError::NoPasswordUser, Code::Unknown, "auth: authentication failed, password was given for no password user"),
    (ApiError::PasswordTooLong, Code::Unknown, "bcrypt: password length exceeds 72 bytes"),
    (ApiError::TokenVerifyOnly, Code::Unknown, "auth: token signing attempted with verify-only key"),
    (ApiError::NotPrimaryLessor, Code::Unknown, "not a primary lessor"),
    (ApiError::ElectionNoLeader, Code::Unknown, "election: no leader"),
    (ApiError::ElectionNotLeader, Code::Unknown, "election: not leader"),
    (ApiError::ElectionLeaderMissing, Code::Unknown, "\"leader\" field must be provided"),
    (ApiError::StreamCustomSort, Code::Unimplemented, "RangeStream does not support custom sort orders"),
    (ApiError::StreamRevisionFilter, Code::Unimplemented, "RangeStream does not support revision filters"),
    (ApiError::UnknownHealthService, Code::NotFound, "unknown service"),
    (ApiError::SessionExpired, Code::Unknown, "mutex: session is expired"),
    (ApiError::UnknownAlarmAction, Code::InvalidArgument, "mainstay: unknown alarm action"),
    (ApiError::UnknownAlarmType, Code::InvalidArgument, "mainstay: unknown alarm type"),
    (ApiError::TxnTooDeep, Code::InvalidArgument, "mainstay: transactions are nested too deeply"),
];

#[test]
fn every_error_is_sent_as_etcd_sends_it() {
    for (error, code, message) in WIRE {
        let status = Status::from(*error);
        assert_eq!((status.code(), status.message()), (*code, *message), "{error:?}");
        assert_eq!((error.code(), error.message()), (*code, *message), "{error:?}");
    }
}

#[test]
fn no_error_is_missing_from_the_table() {
    let pinned: std::collections::BTreeSet<_> = WIRE.iter().map(|(error, ..)| format!("{error:?}")).collect();
    assert_eq!(pinned.len(), WIRE.len(), "an error stands twice in the table");
    // The variants are counted by their messages in the source: a new one must be pinned above.
    let source = include_str!("../status.rs");
    let wire = source.split("const fn wire").nth(1).and_then(|rest| rest.split("impl From").next());
    assert_eq!(wire.unwrap().matches("Self::").count(), WIRE.len());
}

#[test]
fn refusals_and_unavailability_have_their_errors() {
    for (refusal, error) in [
        (Refusal::None, None),
        (Refusal::Compacted, Some(ApiError::Compacted)),
        (Refusal::FutureRevision, Some(ApiError::FutureRevision)),
        (Refusal::LeaseNotFound, Some(ApiError::LeaseNotFound)),
        (Refusal::LeaseExists, Some(ApiError::LeaseExists)),
        (Refusal::LeaseTtlTooLarge, Some(ApiError::LeaseTtlTooLarge)),
        (Refusal::KeyNotFound, Some(ApiError::KeyNotFound)),
        (Refusal::NoSpace, Some(ApiError::NoSpace)),
        (Refusal::Corrupt, Some(ApiError::Corrupt)),
    ] {
        assert_eq!(refused(refusal), error);
    }
    // The rest are those of users and roles, by the names of the errors that they are.
    for number in Refusal::RootUserNotExist as i32..=Refusal::InvalidAuthManagement as i32 {
        let refusal = Refusal::try_from(number).unwrap();
        assert_eq!(format!("{:?}", refused(refusal).unwrap()), format!("{refusal:?}"));
    }
    for (unavailable, error) in [
        (Unavailable::NoLeader, ApiError::NoLeader),
        (Unavailable::LeaderChanged, ApiError::LeaderChanged),
        (Unavailable::Timeout, ApiError::Timeout),
        (Unavailable::TimeoutLeaderFailure, ApiError::TimeoutLeaderFailure),
        (Unavailable::TimeoutConnectionLost, ApiError::TimeoutConnectionLost),
        (Unavailable::TimeoutApplied, ApiError::TimeoutApplied),
        (Unavailable::TooManyRequests, ApiError::TooManyRequests),
        (Unavailable::TooLarge, ApiError::RequestTooLarge),
        (Unavailable::NotLeader, ApiError::NotLeader),
        (Unavailable::NotPrimaryLessor, ApiError::NotPrimaryLessor),
        (Unavailable::Stopped, ApiError::Stopped),
    ] {
        assert_eq!(ApiError::from(unavailable), error);
    }
}

#[test]
fn a_watcher_is_refused_as_go_prints_errors() {
    for (error, text) in [
        (ApiError::UserEmpty, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        (ApiError::InvalidAuthToken, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
        (
            ApiError::AuthOldRevision,
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old",
        ),
        (ApiError::PermissionDenied, "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        (ApiError::UserNotFound, "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
    ] {
        assert_eq!(watch_refusal(error), text);
    }
}

#[test]
fn texts_with_values_are_worded_as_grpc_go_words_them() {
    for (status, code, message) in [
        (
            message_too_large(3_000_000, 2_097_152),
            Code::ResourceExhausted,
            "grpc: received message larger than max (3000000 vs. 2097152)",
        ),
        (
            unknown_method("Nope", "etcdserverpb.KV"),
            Code::Unimplemented,
            "unknown method Nope for service etcdserverpb.KV",
        ),
        (unknown_service("a.B"), Code::Unimplemented, "unknown service a.B"),
        (malformed_method("/x"), Code::Unimplemented, "malformed method name: \"/x\""),
        (ApiError::LeaseNotFound.raw(), Code::Unknown, "etcdserver: requested lease not found"),
        (ApiError::EmptyKey.raw(), Code::Unknown, "etcdserver: key is not provided"),
        (ReadError::Compacted.into(), Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        (ReadError::NoRoom.into(), Code::Unknown, "etcdserver: too many requests"),
        (ApiError::from(Refused).into(), Code::Unknown, "etcdserver: too many requests"),
    ] {
        assert_eq!((status.code(), status.message()), (code, message));
    }
}

#[test]
fn an_alarm_is_listed_with_its_member_and_kind() {
    let alarm = |member_id, alarm| AlarmMember { member_id, alarm };
    assert_eq!(alarm_text(&alarm(7, AlarmType::Nospace as i32)), "memberID:7 alarm:NOSPACE");
    assert_eq!(alarm_text(&alarm(u64::MAX, 2)), "memberID:18446744073709551615 alarm:CORRUPT");
    assert_eq!(alarm_text(&alarm(1, 9)), "memberID:1 alarm:9");
    assert_eq!(alarm_text(&alarm(0, AlarmType::Nospace as i32)), "alarm:NOSPACE");
    assert_eq!(alarm_text(&alarm(7, AlarmType::None as i32)), "memberID:7");
}
