//! Leases: granted, revoked, looked at, and kept alive.

use std::time::Duration;

use mainstay_proto::etcdserverpb::lease_client::LeaseClient;
use mainstay_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::auth::asks_for_login;
use crate::channel::Channel;
use crate::client::Client;
use crate::error::Error;
use crate::failover::{Class, Failure};

fn service(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// Grants a lease of some seconds; the server chooses its id.
    pub async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseGrantResponse, Error> {
        self.lease_grant_with(LeaseGrantRequest { ttl: ttl_seconds, id: 0 }).await
    }

    /// Grants a lease as the request says.
    pub async fn lease_grant_with(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Error> {
        self.call(Class::Write, request, |channel, request| async move { service(channel).lease_grant(request).await })
            .await
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Error> {
        self.call(Class::Write, LeaseRevokeRequest { id }, |channel, request| async move {
            service(channel).lease_revoke(request).await
        })
        .await
    }

    /// What remains of a lease; a TTL of -1 where there is none.
    pub async fn lease_time_to_live(&self, id: i64) -> Result<LeaseTimeToLiveResponse, Error> {
        self.lease_time_to_live_with(LeaseTimeToLiveRequest { id, keys: false }).await
    }

    /// What remains of a lease, with the keys that are tied to it.
    pub async fn lease_keys(&self, id: i64) -> Result<LeaseTimeToLiveResponse, Error> {
        self.lease_time_to_live_with(LeaseTimeToLiveRequest { id, keys: true }).await
    }

    async fn lease_time_to_live_with(&self, request: LeaseTimeToLiveRequest) -> Result<LeaseTimeToLiveResponse, Error> {
        self.call(
            Class::Read,
            request,
            |channel, request| async move { service(channel).lease_time_to_live(request).await },
        )
        .await
    }

    /// The ids of all leases.
    pub async fn leases(&self) -> Result<Vec<i64>, Error> {
        let response = self
            .call(Class::Read, LeaseLeasesRequest {}, |channel, request| async move {
                service(channel).lease_leases(request).await
            })
            .await?;
        Ok(response.leases.into_iter().map(|lease| lease.id).collect())
    }

    /// A handle that renews a lease each time it is asked to.
    pub fn keep_alive(&self, id: i64) -> KeepAlive {
        KeepAlive { client: self.clone(), id, stream: None }
    }

    /// Renews a lease in the background, three times in each `ttl_seconds`, until the keeper is
    /// dropped or stopped or the lease is gone.
    pub fn keep_lease(&self, id: i64, ttl_seconds: i64) -> LeaseKeeper {
        LeaseKeeper::spawn(self.keep_alive(id), ttl_seconds)
    }
}

/// Renews one lease, over one stream that is opened when needed and again after it broke.
#[derive(Debug)]
pub struct KeepAlive {
    client: Client,
    id: i64,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
}

impl KeepAlive {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Renews another lease from now on, over the same stream: one stream may renew thousands in turn.
    pub fn turn_to(&mut self, id: i64) {
        self.id = id;
    }

    /// Renews the lease; returns the seconds it now has. Tries other endpoints within the request's
    /// time limit: renewing twice does no harm.
    pub async fn renew(&mut self) -> Result<i64, Error> {
        let deadline = Instant::now() + self.client.options().request_timeout;
        let mut route = self.client.route();
        loop {
            let limit = self.client.attempt_limit(Class::Read, deadline);
            // Taken out for the time of the exchange: when the caller gives up half way, the stream
            // goes with it, and no late answer is taken for that of a later renewal.
            let stream = self.stream.take();
            let (failure, error) = match timeout(limit, self.exchange(stream, route.endpoint())).await {
                Ok(Ok((stream, response))) => {
                    self.stream = Some(stream);
                    if response.ttl <= 0 {
                        return Err(Error::LeaseGone { id: self.id });
                    }
                    return Ok(response.ttl);
                }
                Ok(Err((_, error))) if self.client.user.is_some() && asks_for_login(&error) => {
                    if Instant::now() >= deadline {
                        return Err(error);
                    }
                    self.client.log_in().await?;
                    continue;
                }
                Ok(Err(failed)) => failed,
                Err(_elapsed) => (Failure::TimedOut, Error::TimedOut),
            };
            if failure.blames_endpoint() {
                self.client.leave(route.endpoint());
            }
            let pause = route.advance(failure);
            // As a watch: a stream that ended with an internal error may be opened again.
            if !failure.allows_resume() || route.is_declined() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// One request and its answer, on the stream at hand or on a new one.
    async fn exchange(
        &self,
        stream: Option<Stream>,
        endpoint: usize,
    ) -> Result<(Stream, LeaseKeepAliveResponse), (Failure, Error)> {
        let request = LeaseKeepAliveRequest { id: self.id };
        let mut stream = match stream {
            // The queue has room, so this fails only where the stream has ended since.
            Some(stream) if stream.requests.try_send(request).is_ok() => stream,
            Some(_) | None => match self.open(endpoint, request).await {
                Ok(stream) => stream,
                Err(status) => return Err((Failure::of(&status), Error::of(status))),
            },
        };
        match stream.responses.message().await {
            Ok(Some(response)) => Ok((stream, response)),
            Ok(None) => Err((Failure::Broken, Error::Malformed("a stream that ended without an answer"))),
            Err(status) => Err((Failure::of(&status), Error::of(status))),
        }
    }

    /// Opens a stream with its first request, without which etcd does not answer.
    async fn open(&self, endpoint: usize, first: LeaseKeepAliveRequest) -> Result<Stream, tonic::Status> {
        // One exchange at a time: the queue never holds more than one.
        let (requests, queue) = mpsc::channel(1);
        requests.try_send(first).expect("a new queue has room for one");
        let request = self.client.request(ReceiverStream::new(queue));
        let response = service(self.client.channel(endpoint)).lease_keep_alive(request).await?;
        Ok(Stream { requests, responses: response.into_inner() })
    }
}

/// The owner of a task that keeps a lease alive. Dropping it stops the task.
#[derive(Debug)]
pub struct LeaseKeeper {
    id: i64,
    /// Dropped to stop the task.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<Error>>,
}

impl LeaseKeeper {
    fn spawn(keep_alive: KeepAlive, ttl_seconds: i64) -> Self {
        let id = keep_alive.id();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                // First, so that a keeper that was stopped does not renew once more.
                _closed = stopped => None,
                error = keep(keep_alive, ttl_seconds) => Some(error),
            }
        });
        Self { id, stop: Some(stop), task }
    }

    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Waits until the lease can no longer be kept alive, and says why.
    pub async fn lost(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => Error::LeaseGone { id: self.id },
        }
    }

    /// Stops renewing and waits until the task has ended; the lease lives on for what remains of it.
    pub async fn stop(mut self) {
        self.stop = None;
        // A task that panicked has ended, too.
        let _ended = (&mut self.task).await;
    }
}

/// Renews until the lease is gone, or until it was unreachable for its whole time to live.
async fn keep(mut keep_alive: KeepAlive, ttl_seconds: i64) -> Error {
    let seconds = |ttl: i64| Duration::from_secs(u64::try_from(ttl).unwrap_or(0).max(1));
    let mut expires = Instant::now() + seconds(ttl_seconds);
    loop {
        let asked = Instant::now();
        let wait = match keep_alive.renew().await {
            Ok(ttl) => {
                expires = asked + seconds(ttl);
                seconds(ttl) / 3
            }
            Err(error @ Error::LeaseGone { .. }) => return error,
            Err(error) if Instant::now() >= expires => return error,
            // The endpoints were asked for as long as a request may take. Soon again.
            Err(_) => Duration::from_millis(100),
        };
        sleep(wait).await;
    }
}
