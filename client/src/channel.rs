//! From an endpoint's name to a service that carries gRPC calls to it.
//!
//! What a [`Connector`] makes is generic, and is boxed once, here: so one [`Client`](crate::Client)
//! type serves sockets and simulation, and nothing behind it is generic over the network. The price
//! is one allocation a call, which is small beside the call itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::ConnectError;
use tonic::body::Body;
use tonic::client::GrpcService;
use tower::util::BoxCloneSyncService;

/// An error of any kind, as tonic and tower pass them.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What every call goes through.
pub(crate) type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, CallError>;

/// A call that failed below gRPC. A type of its own, because the compiler cannot see through a bare
/// `Box<dyn Error>` that a call's future is `Send`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CallError(#[source] BoxError);

/// Makes the service for an endpoint. The only thing that differs between real sockets and a
/// simulated network.
pub trait Connector {
    /// The service for one endpoint. It connects when it is first called and again when its
    /// connection was lost, and its clones share that connection.
    ///
    /// A call that failed before anything of it was sent must fail with [`tonic::ConnectError`]
    /// somewhere in the error's chain: it is how the client knows that a write may be tried again.
    /// One whose connection broke later, also in the body, must fail with any error but a
    /// [`tonic::Status`], which would be taken for the server's own answer.
    type Service: GrpcService<
            Body,
            Error: Into<BoxError>,
            Future: Send + 'static,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static;

    /// Prepares the service; does not wait for a connection. Refuses a malformed endpoint.
    fn connect(&self, endpoint: &str) -> Result<Self::Service, BoxError>;
}

/// Boxes a connector's service.
pub(crate) fn erase<S>(service: S) -> Channel
where
    S: GrpcService<
            Body,
            Error: Into<BoxError>,
            Future: Send + 'static,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    Channel::new(Erased { service, refused: None })
}

/// A gRPC service as a tower service with one body and one error type.
struct Erased<S> {
    service: S,
    /// Why the service is not ready. Generated clients turn a failed readiness into bare text, so
    /// it is reported by the call instead, where its kind survives.
    refused: Option<BoxError>,
}

impl<S: Clone> Clone for Erased<S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), refused: None }
    }
}

impl<S> tower_service::Service<Request<Body>> for Erased<S>
where
    S: GrpcService<
            Body,
            Error: Into<BoxError>,
            Future: Send + 'static,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        >,
{
    type Response = Response<Body>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, CallError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.service.poll_ready(context).map(|ready| {
            self.refused = ready.err().map(Into::into);
            Ok(())
        })
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A service that is not ready was not handed the request: certainly not sent.
        if let Some(error) = self.refused.take() {
            return Box::pin(async move { Err(CallError(ConnectError(error).into())) });
        }
        let answer = self.service.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response.map(Body::new)),
                Err(error) => Err(CallError(error.into())),
            }
        })
    }
}

#[cfg(feature = "transport")]
pub use sockets::Sockets;

#[cfg(feature = "transport")]
mod sockets {
    use std::time::Duration;

    use tonic::transport::{Channel, Endpoint};

    use super::{BoxError, Connector};

    /// HTTP/2 over TCP: an endpoint is `http://host:port`, or `host:port` for short.
    #[derive(Clone, Debug)]
    pub struct Sockets {
        /// How long opening a connection may take.
        pub connect_timeout: Duration,
        /// How long a connection may be silent before it is probed.
        pub keep_alive_interval: Duration,
        /// How long a probe may stay unanswered before the connection counts as lost.
        pub keep_alive_timeout: Duration,
        /// HTTP/2's flow-control window, per stream and per connection.
        pub window_bytes: u32,
    }

    impl Default for Sockets {
        fn default() -> Self {
            Self {
                connect_timeout: Duration::from_secs(2),
                // etcd closes connections that probe more often than every 5 seconds.
                keep_alive_interval: Duration::from_secs(10),
                keep_alive_timeout: Duration::from_secs(3),
                // HTTP/2's own default of 64 KiB would make a large list wait for a round trip
                // per window.
                window_bytes: 4 << 20,
            }
        }
    }

    impl Connector for Sockets {
        type Service = Channel;

        fn connect(&self, endpoint: &str) -> Result<Channel, BoxError> {
            let address = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
            Ok(Endpoint::from_shared(address)?
                .connect_timeout(self.connect_timeout)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(self.keep_alive_interval)
                .keep_alive_timeout(self.keep_alive_timeout)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(self.window_bytes)
                .initial_connection_window_size(self.window_bytes)
                .connect_lazy())
        }
    }
}
