//! The client itself: its endpoints, and the one way that every unary request takes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_proto::etcdserverpb::ResponseHeader;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::auth::{User, asks_for_login};
use crate::channel::{Channel, Connector, erase};
use crate::error::Error;
use crate::failover::{Class, Failure, Route, next_endpoint};

/// How requests are made.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long a request may take, with all that is retried.
    pub request_timeout: Duration,
    /// How long a read waits at one endpoint before it is tried at the next. Without it only a
    /// broken connection or an answer makes a read move on. A value below what a slow member needs
    /// turns one read into many.
    pub attempt_timeout: Option<Duration>,
    /// Sends `hasleader`: a member that knows no leader refuses at once, and ends its watches.
    pub require_leader: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        // Above the 7 seconds after which etcd's server gives up by itself, so that its answer is
        // seen rather than ours.
        Self { request_timeout: Duration::from_secs(10), attempt_timeout: None, require_leader: false }
    }
}

/// A client of a cluster. Cheap to clone; clones share their connections and the choice of endpoint.
#[derive(Clone)]
pub struct Client {
    endpoints: Arc<Endpoints>,
    options: ClientOptions,
    pub(crate) user: Option<User>,
}

struct Endpoints {
    /// What the connector was asked for, and what it made.
    list: Vec<(String, Channel)>,
    /// The one that requests go to.
    current: AtomicUsize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints()).field("options", &self.options).finish()
    }
}

impl Client {
    /// A client over real sockets: `http://host:port` or `host:port`.
    ///
    /// Does not wait: connections are opened by the first request. Must be called in a runtime.
    #[cfg(feature = "transport")]
    pub fn connect<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        Self::with_connector(&crate::Sockets::default(), endpoints, options)
    }

    /// A client over whatever the connector connects.
    pub fn with_connector<C: Connector, E: AsRef<str>>(
        connector: &C,
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let mut list = Vec::new();
        for endpoint in endpoints {
            let endpoint = endpoint.as_ref().to_owned();
            match connector.connect(&endpoint) {
                Ok(service) => list.push((endpoint, erase(service))),
                Err(error) => return Err(Error::BadEndpoint { endpoint, text: error.to_string() }),
            }
        }
        if list.is_empty() {
            return Err(Error::NoEndpoints);
        }
        Ok(Self { endpoints: Arc::new(Endpoints { list, current: AtomicUsize::new(0) }), options, user: None })
    }

    /// The endpoints, as given.
    pub fn endpoints(&self) -> Vec<&str> {
        self.endpoints.list.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The endpoint that the next request goes to.
    pub fn current_endpoint(&self) -> &str {
        &self.endpoints.list[self.current()].0
    }

    /// A client of just one of the endpoints, by its place in the list; shares its connection.
    ///
    /// Status, hashes and defragmentation concern one member: ask them through this.
    pub fn only(&self, endpoint: usize) -> Self {
        let list = vec![self.endpoints.list[endpoint].clone()];
        Self { endpoints: Arc::new(Endpoints { list, current: AtomicUsize::new(0) }), ..self.clone() }
    }

    /// The same client with other options.
    pub fn with_options(&self, options: ClientOptions) -> Self {
        Self { options, ..self.clone() }
    }

    /// The same client with another time limit for each request.
    pub fn with_timeout(&self, request_timeout: Duration) -> Self {
        self.with_options(ClientOptions { request_timeout, ..self.options.clone() })
    }

    /// How requests are made.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(crate) fn channel(&self, endpoint: usize) -> Channel {
        self.endpoints.list[endpoint].1.clone()
    }

    /// The way through the endpoints for a request that starts now.
    pub(crate) fn route(&self) -> Route {
        Route::new(self.current(), self.endpoints.list.len())
    }

    fn current(&self) -> usize {
        self.endpoints.current.load(Ordering::Relaxed)
    }

    /// Sends later requests to the next endpoint, unless another request already did.
    pub(crate) fn leave(&self, endpoint: usize) {
        let next = next_endpoint(endpoint, self.endpoints.list.len());
        // Many requests may fail at once by one dead connection: only the first one moves.
        let _moved = self.endpoints.current.compare_exchange(endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Wraps a message with the metadata that the options ask for.
    pub(crate) fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if self.options.require_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(token) = self.user.as_ref().and_then(User::token) {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// Sends one unary request, at as many endpoints as its class and the time allow, and again with a new
    /// token where the server asks for one.
    pub(crate) async fn call<Q, R, F, A>(&self, class: Class, message: Q, send: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + self.options.request_timeout;
        loop {
            match self.attempt(class, deadline, message.clone(), &send).await {
                Err(error) if self.user.is_some() && asks_for_login(&error) && Instant::now() < deadline => {
                    timeout(deadline - Instant::now(), self.log_in()).await.unwrap_or(Err(Error::TimedOut))?;
                }
                outcome => return outcome,
            }
        }
    }

    /// The same, with the token that there is.
    pub(crate) async fn call_once<Q, R, F, A>(&self, class: Class, message: Q, send: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempt(class, Instant::now() + self.options.request_timeout, message, &send).await
    }

    async fn attempt<Q, R, F, A>(&self, class: Class, deadline: Instant, message: Q, send: &F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let mut route = self.route();
        loop {
            let endpoint = route.endpoint();
            let attempt = send(self.channel(endpoint), self.request(message.clone()));
            let (failure, error) = match timeout(self.attempt_limit(class, deadline), attempt).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => (Failure::of(&status), Error::of(status)),
                Err(_elapsed) => (Failure::TimedOut, Error::TimedOut),
            };
            if failure.blames_endpoint() {
                self.leave(endpoint);
            }
            let pause = route.advance(failure);
            if !failure.allows_retry(class) || route.is_declined() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// How long an attempt that starts now may take.
    pub(crate) fn attempt_limit(&self, class: Class, deadline: Instant) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        match (class, self.options.attempt_timeout) {
            // A write without an answer is not repeated, so there is nothing to gain by giving up early.
            (Class::Write, _) | (Class::Read, None) => left,
            (Class::Read, Some(limit)) => left.min(limit),
        }
    }
}

/// The store's revision that a response's header names; 0 where there is no header.
pub fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |header| header.revision)
}
