//! gRPC requests between a transport and the services: bodies that nobody puts into a box on the way.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower_service::Service as _;

use crate::admission::Origin;

/// What answers the gRPC requests of a port. A router does that, too, but boxes each request, its body and that of its
/// response.
pub trait GrpcService: Clone + Send + Sync + 'static {
    /// The body of a response.
    type Body: Body<Data = Bytes, Error = Self::Error> + Send + Unpin + 'static;
    /// Why that body breaks off.
    type Error: Into<Box<dyn Error + Send + Sync>>;
    /// The response, under way.
    type Future: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + Unpin + 'static;

    /// Answers a request that came from there.
    fn answer(&self, request: Request<RequestBytes>, origin: &Origin) -> Self::Future;
}

impl GrpcService for Router {
    type Body = axum::body::Body;
    type Error = axum::Error;
    type Future = Pin<Box<RouteFuture<Infallible>>>;

    fn answer(&self, mut request: Request<RequestBytes>, origin: &Origin) -> Self::Future {
        request.extensions_mut().insert(origin.clone());
        Box::pin(self.clone().call(request))
    }
}

/// The body of a request, as it was brought.
pub enum RequestBytes {
    /// By a socket.
    #[cfg(not(madsim))]
    Socket(hyper::body::Incoming),
    /// In any other way, or through a router.
    Boxed(axum::body::Body),
}

impl From<axum::body::Body> for RequestBytes {
    fn from(body: axum::body::Body) -> Self {
        Self::Boxed(body)
    }
}

impl Body for RequestBytes {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            #[cfg(not(madsim))]
            Self::Socket(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Boxed(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            #[cfg(not(madsim))]
            Self::Socket(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            #[cfg(not(madsim))]
            Self::Socket(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}
