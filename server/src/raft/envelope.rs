//! Whom a call between members is for, and who makes it.
//!
//! A member is called at an address, and whoever is there could be another one: a copy of a data directory, an address
//! that was given to somebody else, a name that still leads where it led. Its consent would count as that of the member
//! that was meant. So each call names both ids, under etcd's names, in its metadata: an [`Envelope`] writes them on its
//! [`Route`], and an [`Addressee`] stands before the service and refuses what is not for it. A stream is looked at when
//! it is opened: it ends with whoever has accepted it.
//!
//! Whoever refuses a call is well, and so is the connection, which would lead there for ever: one on which a call went
//! astray is not used again, for the address may lead to the right member by now.
//!
//! Earlier releases name nobody, nor does who asks without knowing yet who the members are; neither is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tower_service::Service;

use crate::env::clock::{self, Instant};
use crate::env::probe;

/// Who makes a call; etcd's name for it.
const FROM: &str = "x-server-from";
/// Whom it is for.
const TO: &str = "x-raft-to";

/// How etcd refuses what is for another member.
const MISMATCH: &str = "cannot process message to mismatch member";

/// How often it is said that calls go astray: they come many times a second.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Who makes the calls of a client and whom they are for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Envelope {
    from: Option<HeaderValue>,
    to: Option<HeaderValue>,
    /// Whether somebody else got one of them.
    astray: Arc<AtomicBool>,
}

impl Envelope {
    /// From one member to another.
    pub(super) fn between(from: u64, to: u64) -> Self {
        Self { from: name(from), to: name(to), ..Self::default() }
    }

    /// From a member to whoever is there.
    pub(super) fn from(from: u64) -> Self {
        Self { from: name(from), ..Self::default() }
    }

    /// From somebody who is no member to whoever is there.
    pub(super) fn of_nobody() -> Self {
        Self::default()
    }

    /// Whether somebody else got a call, and would get the next one on the same connection.
    pub(super) fn went_astray(&self) -> bool {
        self.astray.load(Ordering::Acquire)
    }

    fn write(&self, headers: &mut HeaderMap) {
        for (key, id) in [(FROM, &self.from), (TO, &self.to)] {
            if let Some(id) = id {
                headers.insert(key, id.clone());
            }
        }
    }
}

/// A connection on which each call is in an envelope.
#[derive(Clone, Debug)]
pub(crate) struct Route<S> {
    connection: S,
    envelope: Envelope,
}

impl<S> Route<S> {
    pub(super) fn new(connection: S, envelope: Envelope) -> Self {
        Self { connection, envelope }
    }
}

impl<S, B> Service<http::Request<Body>> for Route<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connection.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        self.envelope.write(request.headers_mut());
        let (answer, envelope) = (self.connection.call(request), self.envelope.clone());
        async move {
            let response = answer.await?;
            // A refusal has nothing but headers.
            if Status::from_header_map(response.headers()).is_some_and(|status| is_astray(&status)) {
                envelope.astray.store(true, Ordering::Release);
            }
            Ok(response)
        }
        .boxed()
    }
}

/// An id as etcd writes it.
fn name(id: u64) -> Option<HeaderValue> {
    // Digits and letters are always allowed.
    format!("{id:x}").parse().ok()
}

fn named(metadata: &MetadataMap, key: &'static str) -> Result<Option<u64>, Status> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    id.map(Some).ok_or_else(|| Status::invalid_argument(format!("{key} is no member id")))
}

/// Lets through to a member's service what is for this member.
#[derive(Clone, Debug)]
pub(crate) struct Addressee {
    own: u64,
    said: Seldom,
}

impl Addressee {
    pub(super) fn new(own: u64) -> Self {
        Self { own, said: Seldom::default() }
    }
}

impl Interceptor for Addressee {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let (from, to) = (named(request.metadata(), FROM)?, named(request.metadata(), TO)?);
        let own = self.own;
        let reason = match (from, to) {
            (_, Some(to)) if to != own => format!("{MISMATCH}: it is for {to:x}, and this is {own:x}"),
            // Another process with a copy of this member's data, or this one itself behind an address of another member.
            (Some(from), _) if from == own => format!("{MISMATCH}: whoever sent it calls itself {from:x}, as this one"),
            _ => return Ok(request),
        };
        if probe::broken("answers-for-another") {
            // Wrong: its consent is taken for that of the member that was meant.
            return Ok(request);
        }
        probe::reached("call-for-another-refused");
        if self.said.may_be_said() {
            tracing::warn!(
                "local-member-id" = format!("{own:x}"),
                "mismatch-member-id" = to.map(|id| format!("{id:x}")),
                "remote-peer-id" = from.map(|id| format!("{id:x}")),
                "rejected Raft message to mismatch member"
            );
        }
        Err(Status::failed_precondition(reason))
    }
}

/// Whether a call was refused by somebody who is not the member that it was for: that one was not reached.
pub(super) fn is_astray(status: &Status) -> bool {
    status.message().starts_with(MISMATCH)
}

/// Lets something be said once in a while. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seldom(Arc<Mutex<Option<Instant>>>);

impl Seldom {
    /// Whether it is time to say it; then it was said.
    pub(super) fn may_be_said(&self) -> bool {
        let mut last = self.0.lock();
        let may = last.is_none_or(|at| clock::elapsed(at) >= SAY_EVERY);
        if may {
            *last = Some(clock::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 0xa1;
    const OTHER: u64 = 0xb2;

    /// What a member answers to a call in an envelope.
    fn answered(envelope: Envelope) -> Result<(), Status> {
        Addressee::new(OWN).call(request(&envelope)).map(|_| ())
    }

    fn request(envelope: &Envelope) -> Request<()> {
        let mut headers = HeaderMap::new();
        envelope.write(&mut headers);
        Request::from_parts(MetadataMap::from_headers(headers), tonic::Extensions::default(), ())
    }

    /// Somebody at the end of a connection.
    #[derive(Clone)]
    struct Resident(Addressee);

    impl Service<http::Request<Body>> for Resident {
        type Response = http::Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let metadata = MetadataMap::from_headers(request.headers().clone());
            let answer = self.0.call(Request::from_parts(metadata, tonic::Extensions::default(), ()));
            let response = match answer {
                Ok(_) => http::Response::new(Body::empty()),
                Err(refusal) => refusal.into_http(),
            };
            std::future::ready(Ok(response))
        }
    }

    #[test]
    fn a_connection_to_somebody_else_is_known_after_the_first_call() {
        for (to, is_astray) in [(OWN, false), (0xc3, true)] {
            let envelope = Envelope::between(OTHER, to);
            let mut route = Route::new(Resident(Addressee::new(OWN)), envelope.clone());
            assert!(!envelope.went_astray());
            route.call(http::Request::new(Body::empty())).now_or_never().unwrap().unwrap();
            assert_eq!(envelope.went_astray(), is_astray, "to {to:x}");
        }
    }

    #[test]
    fn what_is_for_another_member_is_refused_by_both_names() {
        let refusal = answered(Envelope::between(OTHER, 0xc3)).unwrap_err();
        assert!(is_astray(&refusal), "{refusal}");
        assert!(refusal.message().contains("c3") && refusal.message().contains("a1"), "{refusal}");
    }

    #[test]
    fn what_comes_from_a_namesake_is_refused() {
        for envelope in [Envelope::from(OWN), Envelope::between(OWN, OWN)] {
            assert!(is_astray(&answered(envelope).unwrap_err()));
        }
    }

    #[test]
    fn what_is_for_this_member_or_names_nobody_passes() {
        for envelope in [Envelope::between(OTHER, OWN), Envelope::from(OTHER), Envelope::of_nobody()] {
            answered(envelope).unwrap();
        }
    }

    #[test]
    fn the_largest_id_is_written_and_read() {
        let request = request(&Envelope::between(u64::MAX, OWN));
        assert_eq!(named(request.metadata(), FROM).unwrap(), Some(u64::MAX));
        assert_eq!(named(request.metadata(), TO).unwrap(), Some(OWN));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "mainstay", "10000000000000000"] {
            let mut request = Request::new(());
            request.metadata_mut().insert(TO, text.parse().unwrap());
            let refusal = Addressee::new(OWN).call(request).unwrap_err();
            assert!(refusal.message().contains(TO) && !is_astray(&refusal), "{refusal}");
        }
    }

    #[test]
    fn what_may_be_said_seldom_is_not_said_at_once_again() {
        let said = Seldom::default();
        assert!(said.may_be_said());
        assert!(!said.clone().may_be_said());
    }
}
