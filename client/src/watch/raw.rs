use mainstay_proto::etcdserverpb::watch_client::WatchClient;
use mainstay_proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::failover::{Class, Failure};

/// Requests that may wait to be sent on one stream.
const REQUESTS_QUEUED_MAX: usize = 16;

/// One gRPC stream of watches as it is: any number of watches, nothing resumed, nothing interpreted.
#[derive(Debug)]
pub struct RawWatch {
    /// Takes further requests. Dropping it half-closes the stream.
    pub requests: mpsc::Sender<WatchRequest>,
    /// What the server sends.
    pub responses: Streaming<WatchResponse>,
}

impl Client {
    /// Opens a stream of watches at the current endpoint and sends the first request.
    ///
    /// The first request belongs to the opening, because etcd does not answer at all before it.
    pub async fn watch_raw(&self, first: WatchRequest) -> Result<RawWatch, Error> {
        let endpoint = self.route().endpoint();
        let outcome = self.open_watch(endpoint, first).await;
        outcome.map_err(|(failure, error)| {
            if failure.blames_endpoint() {
                self.leave(endpoint);
            }
            error
        })
    }

    /// Opens a stream of watches at one endpoint.
    pub(super) async fn open_watch(&self, endpoint: usize, first: WatchRequest) -> Result<RawWatch, (Failure, Error)> {
        let (requests, queue) = mpsc::channel(REQUESTS_QUEUED_MAX);
        requests.try_send(first).expect("a new queue has room for one");
        if self.user.is_some() {
            // Who asks is looked at when a watch is created, and a token may have ended since the last one.
            self.log_in().await.map_err(|error| (Failure::TimedOut, error))?;
        }
        let mut service = WatchClient::new(self.channel(endpoint)).max_decoding_message_size(usize::MAX);
        let limit = self.attempt_limit(Class::Read, Instant::now() + self.options().request_timeout);
        match timeout(limit, service.watch(self.request(ReceiverStream::new(queue)))).await {
            Ok(Ok(response)) => Ok(RawWatch { requests, responses: response.into_inner() }),
            Ok(Err(status)) => Err((Failure::of(&status), Error::of(status))),
            Err(_elapsed) => Err((Failure::TimedOut, Error::TimedOut)),
        }
    }
}
