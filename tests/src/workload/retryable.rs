//! Which errors a client has to expect of a cluster that is at work on itself.

use mainstay_client::{Code, Error};

/// Whether an error passes, in etcd's terms: the member was not reached, the connection broke, or the member said
/// that it is unavailable. All others tell of the request, or of something that does not pass.
pub fn is_retryable(error: &Error) -> bool {
    match error {
        Error::NotSent(_) | Error::Broken(_) => true,
        Error::Refused { code, .. } => *code == Code::Unavailable,
        Error::Answered(status) => status.code() == Code::Unavailable,
        Error::TimedOut
        | Error::WatchCompacted { .. }
        | Error::WatchCancelled { .. }
        | Error::LeaseGone { .. }
        | Error::Malformed(_)
        | Error::NoEndpoints
        | Error::BadEndpoint { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use mainstay_client::{Reason, Status};

    use super::*;

    #[test]
    fn what_is_unavailable_may_be_tried_again() {
        let refused = |reason, code| is_retryable(&Error::Refused { reason, code });
        assert!(refused(Reason::NoLeader, Code::Unavailable));
        assert!(refused(Reason::TimeoutDueToConnectionLost, Code::Unavailable));
        assert!(is_retryable(&Error::Answered(Status::unavailable("transport is closing"))));
        assert!(!refused(Reason::TooManyRequests, Code::Unknown));
        assert!(!refused(Reason::NotLeader, Code::FailedPrecondition));
        assert!(!is_retryable(&Error::Answered(Status::unknown("engine: Corruption"))));
        assert!(!is_retryable(&Error::TimedOut));
    }
}
