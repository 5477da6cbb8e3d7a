//! The one place where errors become gRPC codes with etcd's exact texts.
//!
//! etcd's clients find the typed error by comparing the whole message, so the texts match byte
//! for byte. The codes are those that etcd 3.7 puts on the wire, also where its own mapping slips
//! ([`ApiError::TooManyRequests`], [`ApiError::MemberNotEnoughStarted`]): clients know them so.

use mainstay_proto::etcdserverpb::{AlarmMember, AlarmType};
use tonic::{Code, Status};

use crate::admission::Refused;
use crate::auth::PasswordError;
use crate::command::Refusal;
use crate::engine::EngineError;
use crate::mvcc::ReadError;
use crate::raft::Unavailable;

/// Why a request is not answered as it was asked. Names follow etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiError {
    /// An operation or comparison names no key.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on an absent key, or an operation of a transaction that holds nothing.
    KeyNotFound,
    /// `ignore_value` together with a value.
    ValueProvided,
    /// `ignore_lease` together with a lease.
    LeaseProvided,
    /// A transaction holds more operations than allowed.
    TooManyOps,
    /// A branch of a transaction writes one key twice.
    DuplicateKey,
    /// The `client-api-version` of the metadata is not text.
    InvalidClientApiVersion,
    /// Unknown sort order or target.
    InvalidSortOption,
    /// The revision asked for is below the compaction.
    Compacted,
    /// The revision asked for does not exist yet.
    FutureRevision,
    /// The quota is used up.
    NoSpace,
    /// The lease does not exist.
    LeaseNotFound,
    /// The lease to be granted exists.
    LeaseExists,
    /// The time to live asked for is beyond the maximum.
    LeaseTtlTooLarge,
    /// The client ended the watch stream.
    WatchCanceled,
    /// The member to be added exists.
    MemberExists,
    /// A peer URL is in use.
    PeerUrlExists,
    /// Too few members have started for the change asked for.
    MemberNotEnoughStarted,
    /// URLs of a member that cannot be parsed or used.
    MemberBadUrls,
    /// The member does not exist, or was removed.
    MemberNotFound,
    /// The member to be promoted has a vote already.
    MemberNotLearner,
    /// The learner to be promoted is too far behind.
    LearnerNotReady,
    /// No further learner may be added.
    TooManyLearners,
    /// A peer of another cluster.
    ClusterIdMismatch,
    /// The encoded command exceeds `--max-request-bytes`.
    RequestTooLarge,
    /// Too much is committed that was not applied yet. etcd sends it as Unknown.
    TooManyRequests,
    /// Authentication cannot be enabled without a user root.
    RootUserNotExist,
    /// Authentication cannot be enabled while user root lacks role root.
    RootRoleNotExist,
    /// The user to be added exists.
    UserAlreadyExists,
    /// No user is named, or a request has no token while authentication is on.
    UserEmpty,
    /// The user does not exist.
    UserNotFound,
    /// The role to be added exists.
    RoleAlreadyExists,
    /// The role does not exist.
    RoleNotFound,
    /// No role is named.
    RoleEmpty,
    /// Wrong user or password.
    AuthFailed,
    /// A grant without a permission.
    PermissionNotGiven,
    /// The user lacks the permission.
    PermissionDenied,
    /// The role to be revoked was not granted.
    RoleNotGranted,
    /// The permission to be revoked was not granted.
    PermissionNotGranted,
    /// Authentication is off.
    AuthNotEnabled,
    /// Unknown or expired token.
    InvalidAuthToken,
    /// A change of users or roles that would lock everybody out, or a bad permission range.
    InvalidAuthManagement,
    /// Users or roles changed after the token was issued.
    AuthOldRevision,
    /// A password given for a user that has none. Sent as Unknown.
    NoPasswordUser,
    /// A new password is longer than bcrypt looks at. Sent as Unknown, in the words of Go's bcrypt.
    PasswordTooLong,
    /// The token provider can only verify. Sent as Unknown.
    TokenVerifyOnly,
    /// No leader is known.
    NoLeader,
    /// A request for the leader reached another member.
    NotLeader,
    /// The leader changed under the request.
    LeaderChanged,
    /// The cluster's version is not decided yet.
    NotCapable,
    /// The server is stopping.
    Stopped,
    /// The request took too long.
    Timeout,
    /// The request took too long while the leader was lost.
    TimeoutLeaderFailure,
    /// The request took too long while this member was cut off.
    TimeoutConnectionLost,
    /// This member did not apply in time what it had to.
    TimeoutApplied,
    /// The transfer of leadership took too long. Sent as Unknown.
    TimeoutLeaderTransfer,
    /// A quorum was not connected for long enough.
    Unhealthy,
    /// A CORRUPT alarm is raised.
    Corrupt,
    /// Learners do not serve this.
    NotSupportedForLearner,
    /// Leadership cannot be given to that member.
    BadLeaderTransferee,
    /// A target version of a downgrade that is no version.
    WrongDowngradeVersionFormat,
    /// A target version of a downgrade that is not the minor before this one.
    InvalidDowngradeTargetVersion,
    /// The cluster's version is unknown during a downgrade.
    ClusterVersionUnavailable,
    /// A downgrade is under way.
    DowngradeInProcess,
    /// No downgrade is under way.
    NoInflightDowngrade,
    /// An unknown action of a downgrade request. Sent as Unknown.
    UnknownMethod,
    /// The client gave up.
    Canceled,
    /// The client's deadline has passed.
    DeadlineExceeded,
    /// A lease was asked for at a member that just lost the duty of keeping leases. Sent as Unknown.
    NotPrimaryLessor,
    /// RangeStream cannot sort.
    StreamCustomSort,
    /// RangeStream cannot filter by revision.
    StreamRevisionFilter,
    /// The health of a service that does not exist.
    UnknownHealthService,
    /// An election without a leader. Sent as Unknown.
    ElectionNoLeader,
    /// A proclamation by one who does not lead the election. Sent as Unknown.
    ElectionNotLeader,
    /// A request of an election without its leader field. Sent as Unknown.
    ElectionLeaderMissing,
    /// The lease of a lock ended while its client waited. Sent as Unknown.
    SessionExpired,
    /// An alarm action that does not exist. Ours: etcd 3.7 dies of it.
    UnknownAlarmAction,
    /// An alarm of a kind that does not exist. Ours: etcd 3.7 dies of raising it.
    UnknownAlarmType,
    /// A transaction that nests deeper than it could be replicated. Ours: etcd is bounded by its operations only.
    TxnTooDeep,
}

impl ApiError {
    /// The code on the wire.
    pub const fn code(self) -> Code {
        self.wire().0
    }

    /// The message on the wire.
    pub const fn message(self) -> &'static str {
        self.wire().1
    }

    /// The error as the lock and election services send it: the text alone, with code Unknown.
    pub fn raw(self) -> Status {
        Status::unknown(self.message())
    }

    const fn wire(self) -> (Code, &'static str) {
        use Code::*;
        match self {
            Self::EmptyKey => (InvalidArgument, "etcdserver: key is not provided"),
            Self::KeyNotFound => (InvalidArgument, "etcdserver: key not found"),
            Self::ValueProvided => (InvalidArgument, "etcdserver: value is provided"),
            Self::LeaseProvided => (InvalidArgument, "etcdserver: lease is provided"),
            Self::TooManyOps => (InvalidArgument, "etcdserver: too many operations in txn request"),
            Self::DuplicateKey => (InvalidArgument, "etcdserver: duplicate key given in txn request"),
            Self::InvalidClientApiVersion => (InvalidArgument, "etcdserver: invalid client api version"),
            Self::InvalidSortOption => (InvalidArgument, "etcdserver: invalid sort option"),
            Self::Compacted => (OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Self::FutureRevision => (OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            Self::NoSpace => (ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Self::LeaseNotFound => (NotFound, "etcdserver: requested lease not found"),
            Self::LeaseExists => (FailedPrecondition, "etcdserver: lease already exists"),
            Self::LeaseTtlTooLarge => (OutOfRange, "etcdserver: too large lease TTL"),
            Self::WatchCanceled => (Cancelled, "etcdserver: watch canceled"),
            Self::MemberExists => (FailedPrecondition, "etcdserver: member ID already exist"),
            Self::PeerUrlExists => (FailedPrecondition, "etcdserver: Peer URLs already exists"),
            Self::MemberNotEnoughStarted => {
                (Unknown, "etcdserver: re-configuration failed due to not enough started members")
            }
            Self::MemberBadUrls => (InvalidArgument, "etcdserver: given member URLs are invalid"),
            Self::MemberNotFound => (NotFound, "etcdserver: member not found"),
            Self::MemberNotLearner => (FailedPrecondition, "etcdserver: can only promote a learner member"),
            Self::LearnerNotReady => {
                (FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
            }
            Self::TooManyLearners => (FailedPrecondition, "etcdserver: too many learner members in cluster"),
            Self::ClusterIdMismatch => (FailedPrecondition, "etcdserver: cluster ID mismatch"),
            Self::RequestTooLarge => (InvalidArgument, "etcdserver: request is too large"),
            Self::TooManyRequests => (Unknown, "etcdserver: too many requests"),
            Self::RootUserNotExist => (FailedPrecondition, "etcdserver: root user does not exist"),
            Self::RootRoleNotExist => (FailedPrecondition, "etcdserver: root user does not have root role"),
            Self::UserAlreadyExists => (FailedPrecondition, "etcdserver: user name already exists"),
            Self::UserEmpty => (InvalidArgument, "etcdserver: user name is empty"),
            Self::UserNotFound => (FailedPrecondition, "etcdserver: user name not found"),
            Self::RoleAlreadyExists => (FailedPrecondition, "etcdserver: role name already exists"),
            Self::RoleNotFound => (FailedPrecondition, "etcdserver: role name not found"),
            Self::RoleEmpty => (InvalidArgument, "etcdserver: role name is empty"),
            Self::AuthFailed => (InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
            Self::PermissionNotGiven => (InvalidArgument, "etcdserver: permission not given"),
            Self::PermissionDenied => (PermissionDenied, "etcdserver: permission denied"),
            Self::RoleNotGranted => (FailedPrecondition, "etcdserver: role is not granted to the user"),
            Self::PermissionNotGranted => (FailedPrecondition, "etcdserver: permission is not granted to the role"),
            Self::AuthNotEnabled => (FailedPrecondition, "etcdserver: authentication is not enabled"),
            Self::InvalidAuthToken => (Unauthenticated, "etcdserver: invalid auth token"),
            Self::InvalidAuthManagement => (InvalidArgument, "etcdserver: invalid auth management"),
            Self::AuthOldRevision => (InvalidArgument, "etcdserver: revision of auth store is old"),
            Self::NoPasswordUser => (Unknown, "auth: authentication failed, password was given for no password user"),
            Self::PasswordTooLong => (Unknown, "bcrypt: password length exceeds 72 bytes"),
            Self::TokenVerifyOnly => (Unknown, "auth: token signing attempted with verify-only key"),
            Self::NoLeader => (Unavailable, "etcdserver: no leader"),
            Self::NotLeader => (FailedPrecondition, "etcdserver: not leader"),
            Self::LeaderChanged => (Unavailable, "etcdserver: leader changed"),
            Self::NotCapable => (FailedPrecondition, "etcdserver: not capable"),
            Self::Stopped => (Unavailable, "etcdserver: server stopped"),
            Self::Timeout => (Unavailable, "etcdserver: request timed out"),
            Self::TimeoutLeaderFailure => {
                (Unavailable, "etcdserver: request timed out, possibly due to previous leader failure")
            }
            Self::TimeoutConnectionLost => {
                (Unavailable, "etcdserver: request timed out, possibly due to connection lost")
            }
            Self::TimeoutApplied => {
                (Unavailable, "etcdserver: request timed out, waiting for the applied index took too long")
            }
            Self::TimeoutLeaderTransfer => (Unknown, "etcdserver: request timed out, leader transfer took too long"),
            Self::Unhealthy => (Unavailable, "etcdserver: unhealthy cluster"),
            Self::Corrupt => (DataLoss, "etcdserver: corrupt cluster"),
            Self::NotSupportedForLearner => (FailedPrecondition, "etcdserver: rpc not supported for learner"),
            Self::BadLeaderTransferee => (FailedPrecondition, "etcdserver: bad leader transferee"),
            Self::WrongDowngradeVersionFormat => (InvalidArgument, "etcdserver: wrong downgrade target version format"),
            Self::InvalidDowngradeTargetVersion => (InvalidArgument, "etcdserver: invalid downgrade target version"),
            Self::ClusterVersionUnavailable => {
                (FailedPrecondition, "etcdserver: cluster version not found during downgrade")
            }
            Self::DowngradeInProcess => (FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"),
            Self::NoInflightDowngrade => (FailedPrecondition, "etcdserver: no inflight downgrade job"),
            Self::UnknownMethod => (Unknown, "etcdserver: unknown method"),
            Self::Canceled => (Cancelled, "etcdserver: request canceled"),
            Self::DeadlineExceeded => (DeadlineExceeded, "etcdserver: context deadline exceeded"),
            Self::NotPrimaryLessor => (Unknown, "not a primary lessor"),
            Self::StreamCustomSort => (Unimplemented, "RangeStream does not support custom sort orders"),
            Self::StreamRevisionFilter => (Unimplemented, "RangeStream does not support revision filters"),
            Self::UnknownHealthService => (NotFound, "unknown service"),
            Self::ElectionNoLeader => (Unknown, "election: no leader"),
            Self::ElectionNotLeader => (Unknown, "election: not leader"),
            Self::ElectionLeaderMissing => (Unknown, "\"leader\" field must be provided"),
            Self::SessionExpired => (Unknown, "mutex: session is expired"),
            Self::UnknownAlarmAction => (InvalidArgument, "mainstay: unknown alarm action"),
            Self::UnknownAlarmType => (InvalidArgument, "mainstay: unknown alarm type"),
            Self::TxnTooDeep => (InvalidArgument, "mainstay: transactions are nested too deeply"),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Status::new(error.code(), error.message())
    }
}

impl From<Unavailable> for ApiError {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NoLeader => Self::NoLeader,
            Unavailable::LeaderChanged => Self::LeaderChanged,
            Unavailable::Timeout => Self::Timeout,
            Unavailable::TimeoutLeaderFailure => Self::TimeoutLeaderFailure,
            Unavailable::TimeoutConnectionLost => Self::TimeoutConnectionLost,
            Unavailable::TimeoutApplied => Self::TimeoutApplied,
            Unavailable::TooManyRequests => Self::TooManyRequests,
            Unavailable::TooLarge => Self::RequestTooLarge,
            Unavailable::NotLeader => Self::NotLeader,
            Unavailable::NotPrimaryLessor => Self::NotPrimaryLessor,
            Unavailable::Stopped => Self::Stopped,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(Refused: Refused) -> Self {
        Self::TooManyRequests
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        ApiError::from(refused).into()
    }
}

/// Where nothing is refused this says the safe thing.
impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        refused(refusal).unwrap_or(Self::PermissionDenied)
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::TooLong => Self::PasswordTooLong,
            PasswordError::Busy => Self::TooManyRequests,
        }
    }
}

impl From<Unavailable> for Status {
    fn from(unavailable: Unavailable) -> Self {
        ApiError::from(unavailable).into()
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted => ApiError::Compacted.into(),
            ReadError::FutureRevision => ApiError::FutureRevision.into(),
            ReadError::NoRoom => ApiError::TooManyRequests.into(),
            ReadError::Engine(error) => engine(&error),
        }
    }
}

/// What a refused command is answered with; `None` where it was not refused.
pub fn refused(refusal: Refusal) -> Option<ApiError> {
    match refusal {
        Refusal::None => None,
        Refusal::Compacted => Some(ApiError::Compacted),
        Refusal::FutureRevision => Some(ApiError::FutureRevision),
        Refusal::LeaseNotFound => Some(ApiError::LeaseNotFound),
        Refusal::LeaseExists => Some(ApiError::LeaseExists),
        Refusal::LeaseTtlTooLarge => Some(ApiError::LeaseTtlTooLarge),
        Refusal::KeyNotFound => Some(ApiError::KeyNotFound),
        Refusal::NoSpace => Some(ApiError::NoSpace),
        Refusal::Corrupt => Some(ApiError::Corrupt),
        Refusal::RootUserNotExist => Some(ApiError::RootUserNotExist),
        Refusal::RootRoleNotExist => Some(ApiError::RootRoleNotExist),
        Refusal::UserAlreadyExists => Some(ApiError::UserAlreadyExists),
        Refusal::UserEmpty => Some(ApiError::UserEmpty),
        Refusal::UserNotFound => Some(ApiError::UserNotFound),
        Refusal::RoleAlreadyExists => Some(ApiError::RoleAlreadyExists),
        Refusal::RoleNotFound => Some(ApiError::RoleNotFound),
        Refusal::RoleEmpty => Some(ApiError::RoleEmpty),
        Refusal::AuthFailed => Some(ApiError::AuthFailed),
        Refusal::NoPasswordUser => Some(ApiError::NoPasswordUser),
        Refusal::PermissionNotGiven => Some(ApiError::PermissionNotGiven),
        Refusal::PermissionDenied => Some(ApiError::PermissionDenied),
        Refusal::RoleNotGranted => Some(ApiError::RoleNotGranted),
        Refusal::PermissionNotGranted => Some(ApiError::PermissionNotGranted),
        Refusal::AuthNotEnabled => Some(ApiError::AuthNotEnabled),
        Refusal::AuthOldRevision => Some(ApiError::AuthOldRevision),
        Refusal::InvalidAuthManagement => Some(ApiError::InvalidAuthManagement),
    }
}

/// Why a watcher was not created, as the text of its response says it: as Go prints the error.
pub fn watch_refusal(error: ApiError) -> String {
    let error = match error {
        ApiError::InvalidAuthToken | ApiError::AuthOldRevision | ApiError::UserEmpty => error,
        _ => ApiError::PermissionDenied,
    };
    // The codes of these print alike in both languages.
    format!("rpc error: code = {:?} desc = {}", error.code(), error.message())
}

/// The engine failed under a read. As in etcd, an error without a mapping is sent with its own text.
pub fn engine(error: &EngineError) -> Status {
    Status::unknown(error.to_string())
}

/// The outcome of a command does not fit the command: only a newer release could have produced it.
pub fn foreign_outcome() -> Status {
    Status::unknown("mainstay: the outcome of the command is not understood by this release")
}

/// A message that the transport refuses before it is read; as grpc-go words it.
pub fn message_too_large(len: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({len} vs. {limit})"))
}

/// A method that a known service does not have; as grpc-go words it.
pub fn unknown_method(method: &str, service: &str) -> Status {
    Status::unimplemented(format!("unknown method {method} for service {service}"))
}

/// A service that does not exist; as grpc-go words it.
pub fn unknown_service(service: &str) -> Status {
    Status::unimplemented(format!("unknown service {service}"))
}

/// A path that names no service and method; as grpc-go words it.
pub fn malformed_method(path: &str) -> Status {
    Status::unimplemented(format!("malformed method name: {path:?}"))
}

/// An alarm in the list of errors that Maintenance.Status returns: the message's text form, which leaves
/// out what is 0.
pub fn alarm_text(alarm: &AlarmMember) -> String {
    let kind = match AlarmType::try_from(alarm.alarm) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => alarm.alarm.to_string(),
    };
    let member = (alarm.member_id != 0).then(|| format!("memberID:{}", alarm.member_id));
    let kind = (alarm.alarm != 0).then(|| format!("alarm:{kind}"));
    member.into_iter().chain(kind).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
