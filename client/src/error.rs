//! What can go wrong with a request, with etcd's own errors as types.

use tonic::{Code, Status};

use crate::failover::Failure;

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with one of etcd's own errors.
    #[error("{}", reason.message())]
    Refused {
        /// Which one.
        reason: Reason,
        /// The code that came with it. It is not part of the meaning: etcd sends some errors with
        /// a code of another kind.
        code: Code,
    },
    /// The server answered with an error that is not in etcd's table.
    #[error("the server answered {:?}: {}", .0.code(), .0.message())]
    Answered(Status),
    /// No endpoint could be connected to; nothing was sent.
    #[error("no connection: {}", cause(.0))]
    NotSent(Status),
    /// The connection broke while the request was under way.
    #[error("connection lost: {}", cause(.0))]
    Broken(Status),
    /// The request's time was over before an answer came.
    #[error("no answer in time")]
    TimedOut,
    /// The watch asks for events that were compacted away.
    #[error("the revisions before {compact_revision} are compacted")]
    WatchCompacted {
        /// The oldest revision that a watch can still start from.
        compact_revision: i64,
    },
    /// The server ended the watch.
    #[error("watch cancelled: {text}")]
    WatchCancelled {
        /// etcd's error within the text, where it is one.
        reason: Option<Reason>,
        /// The server's words; empty when the watch was cancelled on request.
        text: String,
    },
    /// A lease that was to be kept alive is gone.
    #[error("lease {id} expired or was revoked")]
    LeaseGone {
        /// The lease.
        id: i64,
    },
    /// The response lacks what the protocol promises.
    #[error("malformed response: {0}")]
    Malformed(&'static str),
    /// The client was given no endpoint.
    #[error("no endpoints given")]
    NoEndpoints,
    /// An endpoint's address is malformed.
    #[error("endpoint {endpoint:?}: {text}")]
    BadEndpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        text: String,
    },
}

impl Error {
    /// Reads a failed call's status.
    pub fn of(status: Status) -> Self {
        match Failure::of(&status) {
            Failure::NotSent => Self::NotSent(status),
            Failure::Broken | Failure::TimedOut => Self::Broken(status),
            Failure::Declined | Failure::Answered(_) => match Reason::of(status.message()) {
                Some(reason) => Self::Refused { reason, code: status.code() },
                None => Self::Answered(status),
            },
        }
    }

    /// etcd's own error, where it is one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { reason, .. } => Some(*reason),
            Self::WatchCompacted { .. } => Some(Reason::Compacted),
            Self::WatchCancelled { reason, .. } => *reason,
            Self::LeaseGone { .. } => Some(Reason::LeaseNotFound),
            Self::Answered(_)
            | Self::NotSent(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::Malformed(_)
            | Self::NoEndpoints
            | Self::BadEndpoint { .. } => None,
        }
    }

    /// The code that the server answered with, where it answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Answered(status) => Some(status.code()),
            Self::NotSent(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::WatchCompacted { .. }
            | Self::WatchCancelled { .. }
            | Self::LeaseGone { .. }
            | Self::Malformed(_)
            | Self::NoEndpoints
            | Self::BadEndpoint { .. } => None,
        }
    }

    /// Whether a write that failed so may nevertheless have happened, now or later.
    ///
    /// `false` is a promise: the write did not and will not take effect. It holds where nothing was
    /// sent and where etcd refuses before it proposes or while it applies. Whatever is unavailable
    /// or unknown stays open, and so does "no space": a put that trips the quota while it is
    /// applied is written all the same.
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::NoEndpoints | Self::BadEndpoint { .. } => false,
            Self::Refused { reason, code } => match reason {
                Reason::NoSpace | Reason::Canceled | Reason::DeadlineExceeded => true,
                Reason::TooManyRequests => false,
                Reason::Stopped
                | Reason::NoLeader
                | Reason::LeaderChanged
                | Reason::Timeout
                | Reason::TimeoutDueToLeaderFail
                | Reason::TimeoutDueToConnectionLost
                | Reason::TimeoutWaitAppliedIndex => true,
                _ => *code == Code::Unavailable,
            },
            Self::Answered(status) => !matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::Unimplemented
                    | Code::PermissionDenied
                    | Code::Unauthenticated
            ),
            Self::Broken(_)
            | Self::TimedOut
            | Self::WatchCompacted { .. }
            | Self::WatchCancelled { .. }
            | Self::LeaseGone { .. }
            | Self::Malformed(_) => true,
        }
    }
}

/// The status's text and the last of the causes under it, which tonic's own text leaves out.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut last = std::error::Error::source(status);
    while let Some(next) = last.and_then(std::error::Error::source) {
        last = Some(next);
    }
    if let Some(root) = last.map(ToString::to_string).filter(|root| !text.contains(root)) {
        text.push_str(": ");
        text.push_str(&root);
    }
    text
}

/// etcd's own errors. A client knows them by their exact text, as etcd's own client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A request or an operation names no key.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on an absent key, or an operation that is empty.
    KeyNotFound,
    /// `ignore_value` together with a value.
    ValueProvided,
    /// `ignore_lease` together with a lease.
    LeaseProvided,
    /// A transaction has more operations than the server allows.
    TooManyOps,
    /// One branch of a transaction writes a key twice.
    DuplicateKey,
    /// The `client-api-version` metadata is malformed.
    InvalidClientApiVersion,
    /// The sort order or target is unknown.
    InvalidSortOption,
    /// The revision is older than the last compaction.
    Compacted,
    /// The revision does not exist yet.
    FutureRevision,
    /// The quota is reached, or its alarm is raised.
    NoSpace,
    /// There is no such lease.
    LeaseNotFound,
    /// A lease with this id exists.
    LeaseExist,
    /// The time to live is above etcd's bound.
    LeaseTtlTooLarge,
    /// The stream of watches was ended by its client.
    WatchCanceled,
    /// A member with this id exists.
    MemberExist,
    /// A member with one of these peer URLs exists.
    PeerUrlExist,
    /// The change would leave too few started members.
    MemberNotEnoughStarted,
    /// The peer URLs are malformed.
    MemberBadUrls,
    /// There is no such member.
    MemberNotFound,
    /// Only a learner can be promoted.
    MemberNotLearner,
    /// The learner is too far behind to be promoted.
    LearnerNotReady,
    /// The cluster has its number of learners.
    TooManyLearners,
    /// The peer belongs to another cluster.
    ClusterIdMismatch,
    /// The request is above the server's bound.
    RequestTooLarge,
    /// Too much is committed that is not applied yet.
    TooManyRequests,
    /// Authentication needs the user `root`.
    RootUserNotExist,
    /// Authentication needs the role `root` for the user `root`.
    RootRoleNotExist,
    /// A user with this name exists.
    UserAlreadyExist,
    /// No user name, or no token while authentication is on.
    UserEmpty,
    /// There is no such user.
    UserNotFound,
    /// A role with this name exists.
    RoleAlreadyExist,
    /// There is no such role.
    RoleNotFound,
    /// No role name.
    RoleEmpty,
    /// Wrong user name or password.
    AuthFailed,
    /// A grant without a permission.
    PermissionNotGiven,
    /// The user may not do this.
    PermissionDenied,
    /// The user does not hold the role.
    RoleNotGranted,
    /// The role does not hold the permission.
    PermissionNotGranted,
    /// Authentication is off.
    AuthNotEnabled,
    /// The token is unknown or too old.
    InvalidAuthToken,
    /// The change would break authentication itself.
    InvalidAuthMgmt,
    /// Users or roles changed after the token was made.
    AuthOldRevision,
    /// The member knows no leader.
    NoLeader,
    /// Only the leader can do this.
    NotLeader,
    /// The leader changed while the read waited.
    LeaderChanged,
    /// The cluster's version is not agreed yet.
    NotCapable,
    /// The member is stopping.
    Stopped,
    /// The cluster did not answer in time.
    Timeout,
    /// The cluster did not answer in time; the leader was lost meanwhile.
    TimeoutDueToLeaderFail,
    /// The cluster did not answer in time; the member was cut off meanwhile.
    TimeoutDueToConnectionLost,
    /// The member did not catch up in time.
    TimeoutWaitAppliedIndex,
    /// Too few members are connected for a change of membership.
    Unhealthy,
    /// The alarm for diverged data is raised.
    Corrupt,
    /// A learner does not serve this.
    NotSupportedForLearner,
    /// The target cannot become leader.
    BadLeaderTransferee,
    /// The target version is malformed.
    WrongDowngradeVersionFormat,
    /// The target version is not the previous minor one.
    InvalidDowngradeTargetVersion,
    /// The cluster's version is not known.
    ClusterVersionUnavailable,
    /// A downgrade is under way.
    DowngradeInProcess,
    /// No downgrade is under way.
    NoInflightDowngrade,
    /// The request was cancelled.
    Canceled,
    /// The request's deadline passed in the server.
    DeadlineExceeded,
}

impl Reason {
    /// The error with exactly this text.
    ///
    /// The text may be in the form that a watch's cancel reason has,
    /// `rpc error: code = X desc = TEXT`.
    pub fn of(message: &str) -> Option<Self> {
        let text = match message.strip_prefix("rpc error: code = ") {
            Some(rest) => rest.split_once(" desc = ")?.1,
            None => message,
        };
        TABLE.iter().find(|(_, known)| *known == text).map(|(reason, _)| *reason)
    }

    /// etcd's text for it.
    pub fn message(self) -> &'static str {
        TABLE[self as usize].1
    }
}

/// Every reason with its text, in the order of the enum.
const TABLE: [(Reason, &str); 63] = [
    (Reason::EmptyKey, "etcdserver: key is not provided"),
    (Reason::KeyNotFound, "etcdserver: key not found"),
    (Reason::ValueProvided, "etcdserver: value is provided"),
    (Reason::LeaseProvided, "etcdserver: lease is provided"),
    (Reason::TooManyOps, "etcdserver: too many operations in txn request"),
    (Reason::DuplicateKey, "etcdserver: duplicate key given in txn request"),
    (Reason::InvalidClientApiVersion, "etcdserver: invalid client api version"),
    (Reason::InvalidSortOption, "etcdserver: invalid sort option"),
    (Reason::Compacted, "etcdserver: mvcc: required revision has been compacted"),
    (Reason::FutureRevision, "etcdserver: mvcc: required revision is a future revision"),
    (Reason::NoSpace, "etcdserver: mvcc: database space exceeded"),
    (Reason::LeaseNotFound, "etcdserver: requested lease not found"),
    (Reason::LeaseExist, "etcdserver: lease already exists"),
    (Reason::LeaseTtlTooLarge, "etcdserver: too large lease TTL"),
    (Reason::WatchCanceled, "etcdserver: watch canceled"),
    (Reason::MemberExist, "etcdserver: member ID already exist"),
    (Reason::PeerUrlExist, "etcdserver: Peer URLs already exists"),
    (Reason::MemberNotEnoughStarted, "etcdserver: re-configuration failed due to not enough started members"),
    (Reason::MemberBadUrls, "etcdserver: given member URLs are invalid"),
    (Reason::MemberNotFound, "etcdserver: member not found"),
    (Reason::MemberNotLearner, "etcdserver: can only promote a learner member"),
    (Reason::LearnerNotReady, "etcdserver: can only promote a learner member which is in sync with leader"),
    (Reason::TooManyLearners, "etcdserver: too many learner members in cluster"),
    (Reason::ClusterIdMismatch, "etcdserver: cluster ID mismatch"),
    (Reason::RequestTooLarge, "etcdserver: request is too large"),
    (Reason::TooManyRequests, "etcdserver: too many requests"),
    (Reason::RootUserNotExist, "etcdserver: root user does not exist"),
    (Reason::RootRoleNotExist, "etcdserver: root user does not have root role"),
    (Reason::UserAlreadyExist, "etcdserver: user name already exists"),
    (Reason::UserEmpty, "etcdserver: user name is empty"),
    (Reason::UserNotFound, "etcdserver: user name not found"),
    (Reason::RoleAlreadyExist, "etcdserver: role name already exists"),
    (Reason::RoleNotFound, "etcdserver: role name not found"),
    (Reason::RoleEmpty, "etcdserver: role name is empty"),
    (Reason::AuthFailed, "etcdserver: authentication failed, invalid user ID or password"),
    (Reason::PermissionNotGiven, "etcdserver: permission not given"),
    (Reason::PermissionDenied, "etcdserver: permission denied"),
    (Reason::RoleNotGranted, "etcdserver: role is not granted to the user"),
    (Reason::PermissionNotGranted, "etcdserver: permission is not granted to the role"),
    (Reason::AuthNotEnabled, "etcdserver: authentication is not enabled"),
    (Reason::InvalidAuthToken, "etcdserver: invalid auth token"),
    (Reason::InvalidAuthMgmt, "etcdserver: invalid auth management"),
    (Reason::AuthOldRevision, "etcdserver: revision of auth store is old"),
    (Reason::NoLeader, "etcdserver: no leader"),
    (Reason::NotLeader, "etcdserver: not leader"),
    (Reason::LeaderChanged, "etcdserver: leader changed"),
    (Reason::NotCapable, "etcdserver: not capable"),
    (Reason::Stopped, "etcdserver: server stopped"),
    (Reason::Timeout, "etcdserver: request timed out"),
    (Reason::TimeoutDueToLeaderFail, "etcdserver: request timed out, possibly due to previous leader failure"),
    (Reason::TimeoutDueToConnectionLost, "etcdserver: request timed out, possibly due to connection lost"),
    (Reason::TimeoutWaitAppliedIndex, "etcdserver: request timed out, waiting for the applied index took too long"),
    (Reason::Unhealthy, "etcdserver: unhealthy cluster"),
    (Reason::Corrupt, "etcdserver: corrupt cluster"),
    (Reason::NotSupportedForLearner, "etcdserver: rpc not supported for learner"),
    (Reason::BadLeaderTransferee, "etcdserver: bad leader transferee"),
    (Reason::WrongDowngradeVersionFormat, "etcdserver: wrong downgrade target version format"),
    (Reason::InvalidDowngradeTargetVersion, "etcdserver: invalid downgrade target version"),
    (Reason::ClusterVersionUnavailable, "etcdserver: cluster version not found during downgrade"),
    (Reason::DowngradeInProcess, "etcdserver: cluster has a downgrade job in progress"),
    (Reason::NoInflightDowngrade, "etcdserver: no inflight downgrade job"),
    (Reason::Canceled, "etcdserver: request canceled"),
    (Reason::DeadlineExceeded, "etcdserver: context deadline exceeded"),
];

// `message` indexes the table by the variant.
const _: () = {
    let mut at = 0;
    while at < TABLE.len() {
        assert!(TABLE[at].0 as usize == at);
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_reasons_map_both_ways() {
        for (reason, text) in TABLE {
            assert_eq!(Reason::of(text), Some(reason));
            assert_eq!(reason.message(), text);
        }
        assert_eq!(Reason::of("etcdserver: peer URLs already exists"), None, "the odd capital is part of the text");
    }

    #[test]
    fn a_cancel_reason_names_the_error_within() {
        for (text, reason) in [
            ("rpc error: code = PermissionDenied desc = etcdserver: permission denied", Some(Reason::PermissionDenied)),
            ("etcdserver: mvcc: required revision has been compacted", Some(Reason::Compacted)),
            ("mvcc: watcher range is empty", None),
            ("rpc error: without the rest", None),
            ("", None),
        ] {
            assert_eq!(Reason::of(text), reason, "{text}");
        }
    }

    #[test]
    fn the_code_is_not_part_of_the_meaning() {
        let error = Error::of(Status::unknown("etcdserver: too many requests"));
        assert_eq!(error.reason(), Some(Reason::TooManyRequests));
        assert_eq!(error.code(), Some(Code::Unknown));
        assert!(!error.may_have_taken_effect());
    }

    #[test]
    fn only_certain_failures_promise_no_effect() {
        let refused = |message: &str, code| Error::of(Status::new(code, message));
        for (error, open) in [
            (refused("etcdserver: request timed out", Code::Unavailable), true),
            (refused("etcdserver: no leader", Code::Unavailable), true),
            (refused("etcdserver: server stopped", Code::Unavailable), true),
            (refused("etcdserver: mvcc: database space exceeded", Code::ResourceExhausted), true),
            (refused("etcdserver: request is too large", Code::InvalidArgument), false),
            (refused("etcdserver: requested lease not found", Code::NotFound), false),
            (refused("etcdserver: duplicate key given in txn request", Code::InvalidArgument), false),
            (refused("raft: proposal dropped", Code::Unknown), true),
            (refused("unknown service etcdserverpb.KV", Code::Unimplemented), false),
            (Error::TimedOut, true),
            (Error::of(Status::from_error(Box::new(tonic::ConnectError("refused".into())))), false),
            (Error::of(Status::from_error(Box::new(std::io::Error::other("reset")))), true),
        ] {
            assert_eq!(error.may_have_taken_effect(), open, "{error}");
        }
    }
}
