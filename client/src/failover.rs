//! Which endpoint to ask, and whether a failed request may be asked again. Pure.
//!
//! The rules are those of etcd's own client: a read is repeated when its member was unavailable, a
//! write only when it certainly never left. Unlike there, the pauses are exact and not random, so
//! that a simulated run repeats itself.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};

/// The pause after every endpoint has failed once; it doubles with each further round.
pub const PAUSE_FIRST: Duration = Duration::from_millis(25);
/// The longest pause between two rounds.
pub const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What is said to who asks for what just this member does not serve: it is a learner, or out of service because its
/// data differs from the others'.
const DECLINED: [&str; 2] = ["etcdserver: rpc not supported for learner", "etcdserver: corrupt cluster"];

/// What repeating a request could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asking twice does no harm.
    Read,
    /// Asking twice may change the store twice.
    Write,
}

/// Why an attempt failed, as far as it decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection: nothing was sent.
    NotSent,
    /// The connection broke with the request under way.
    Broken,
    /// No answer came in time.
    TimedOut,
    /// The member serves little, and nothing was done; another may serve it.
    Declined,
    /// The server answered with this code.
    Answered(Code),
}

impl Failure {
    /// Reads a failed call's status.
    ///
    /// A status that came over the wire has no source; one made on this side for a failure of the
    /// transport has, and names [`ConnectError`] in it when the connection was never made.
    pub fn of(status: &Status) -> Self {
        let mut source = status.source();
        if source.is_none() {
            if DECLINED.contains(&status.message()) {
                return Self::Declined;
            }
            return Self::Answered(status.code());
        }
        while let Some(error) = source {
            if error.is::<ConnectError>() {
                return Self::NotSent;
            }
            source = error.source();
        }
        Self::Broken
    }

    /// Whether it speaks against the endpoint, so that the next request should go to another.
    pub fn blames_endpoint(self) -> bool {
        match self {
            Self::NotSent | Self::Broken | Self::TimedOut | Self::Declined => true,
            Self::Answered(code) => code == Code::Unavailable,
        }
    }

    /// Whether a request of this class may be repeated after it.
    pub fn allows_retry(self, class: Class) -> bool {
        match class {
            Class::Read => self.blames_endpoint(),
            Class::Write => matches!(self, Self::NotSent | Self::Declined),
        }
    }

    /// Whether a broken stream of events may be opened again after it. As etcd's client: all but
    /// unavailable and internal errors are final.
    pub fn allows_resume(self) -> bool {
        self.blames_endpoint() || self == Self::Answered(Code::Internal)
    }
}

/// The endpoint after `endpoint`, round and round.
pub fn next_endpoint(endpoint: usize, endpoint_count: usize) -> usize {
    assert!(endpoint < endpoint_count);
    (endpoint + 1) % endpoint_count
}

/// The way through the endpoints for as long as they fail one after the other.
#[derive(Clone, Debug)]
pub struct Route {
    endpoint: usize,
    endpoint_count: usize,
    failure_count: u32,
    /// How many endpoints in a row have declined, or were not there.
    unserved_count: usize,
    /// Whether the last one has declined.
    was_declined: bool,
}

impl Route {
    /// Begins at the endpoint `first` of `endpoint_count`.
    pub fn new(first: usize, endpoint_count: usize) -> Self {
        assert!(first < endpoint_count);
        Self { endpoint: first, endpoint_count, failure_count: 0, unserved_count: 0, was_declined: false }
    }

    /// The endpoint to ask now.
    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// Turns to the next endpoint after a failure of this one, and says how long to wait first: not at
    /// all while there is one that has not failed yet.
    pub fn advance(&mut self, failure: Failure) -> Duration {
        self.was_declined = failure == Failure::Declined;
        let is_unserved = matches!(failure, Failure::Declined | Failure::NotSent);
        self.unserved_count = if is_unserved { self.unserved_count.saturating_add(1) } else { 0 };
        self.endpoint = next_endpoint(self.endpoint, self.endpoint_count);
        self.failure_count = self.failure_count.saturating_add(1);
        let count = u32::try_from(self.endpoint_count).unwrap_or(u32::MAX);
        if !self.failure_count.is_multiple_of(count) {
            return Duration::ZERO;
        }
        let round = self.failure_count / count;
        let doublings = (round - 1).min(16);
        PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX)
    }

    /// Whether to ask on is in vain: every endpoint was asked, the last one has declined, and so have the others, as
    /// far as they are there. Where one had another reason, it may serve in a moment.
    pub fn is_declined(&self) -> bool {
        self.was_declined && self.unserved_count >= self.endpoint_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Chained(ConnectError);

    impl std::fmt::Display for Chained {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("transport error")
        }
    }

    impl std::error::Error for Chained {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_origin_of_a_status_tells_the_failure() {
        let wire = Status::unavailable("etcdserver: no leader");
        assert_eq!(Failure::of(&wire), Failure::Answered(Code::Unavailable));
        for text in DECLINED {
            let declined = Failure::of(&Status::failed_precondition(text));
            assert_eq!(declined, Failure::Declined);
            assert!(declined.blames_endpoint() && declined.allows_retry(Class::Write) && declined.allows_resume());
        }
        let refused = Status::from_error(Box::new(Chained(ConnectError("refused".into()))));
        assert_eq!(Failure::of(&refused), Failure::NotSent);
        let direct = Status::from_error(Box::new(ConnectError("refused".into())));
        assert_eq!(Failure::of(&direct), Failure::NotSent);
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert_eq!(Failure::of(&broken), Failure::Broken);
    }

    #[test]
    fn what_may_be_repeated() {
        use Failure::*;
        // failure, read, write, stream of events
        for (failure, read, write, resume) in [
            (NotSent, true, true, true),
            (Broken, true, false, true),
            (TimedOut, true, false, true),
            (Answered(Code::Unavailable), true, false, true),
            (Answered(Code::Internal), false, false, true),
            (Answered(Code::Unknown), false, false, false),
            (Answered(Code::OutOfRange), false, false, false),
            (Answered(Code::ResourceExhausted), false, false, false),
            (Answered(Code::DeadlineExceeded), false, false, false),
            (Answered(Code::Cancelled), false, false, false),
        ] {
            assert_eq!(failure.allows_retry(Class::Read), read, "{failure:?}");
            assert_eq!(failure.allows_retry(Class::Write), write, "{failure:?}");
            assert_eq!(failure.allows_resume(), resume, "{failure:?}");
        }
    }

    #[test]
    fn a_route_visits_all_before_it_waits() {
        let mut route = Route::new(1, 3);
        let mut steps = Vec::new();
        for _ in 0..9 {
            let pause = route.advance(Failure::NotSent);
            steps.push((route.endpoint(), pause.as_millis()));
        }
        assert_eq!(steps, [(2, 0), (0, 0), (1, 25), (2, 0), (0, 0), (1, 50), (2, 0), (0, 0), (1, 100)]);
    }

    #[test]
    fn a_route_ends_where_all_decline_who_are_there() {
        use Failure::*;
        let unavailable = Answered(Code::Unavailable);
        for (failures, declined_at) in [
            (vec![Declined, Declined, Declined], Some(2)),
            (vec![NotSent, Declined, NotSent, Declined], Some(3)),
            (vec![Declined, Declined, NotSent, Declined], Some(3)),
            (vec![NotSent, NotSent, NotSent, NotSent], None),
            (vec![Declined, unavailable, Declined, Declined], None),
            (vec![Declined, TimedOut, Declined, Declined, Declined], Some(4)),
        ] {
            let mut route = Route::new(0, 3);
            let at = failures.iter().position(|failure| {
                route.advance(*failure);
                route.is_declined()
            });
            assert_eq!(at, declined_at, "{failures:?}");
        }
        let mut alone = Route::new(0, 1);
        alone.advance(Declined);
        assert!(alone.is_declined());
    }

    #[test]
    fn the_pause_is_bounded() {
        let mut route = Route::new(0, 1);
        for _ in 0..1000 {
            assert!(route.advance(Failure::NotSent) <= PAUSE_MAX);
        }
        assert_eq!(route.advance(Failure::NotSent), PAUSE_MAX);
    }
}
