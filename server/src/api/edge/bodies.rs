//! The bodies of requests and responses, which count the messages that go through them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body as HttpBody;
use http::HeaderMap;
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::{Bytes, StdError};
use tonic::{Code, Status};

use super::{Call, Ending, GRPC_STATUS, message_in};
use crate::api::frames::FrameScanner;
use crate::api::rpc::{Rpc, RpcObserver};
use crate::api::status;

/// The body of a request: refuses messages that are too large before they are read.
///
/// tonic has a limit too, but words its refusal in its own way, so there it is switched off.
pub(in crate::api) struct RequestBody {
    body: HttpBody,
    limit: usize,
    rpc: &'static Rpc,
    observer: Arc<dyn RpcObserver>,
    scanner: FrameScanner,
}

impl RequestBody {
    pub(super) fn new(body: HttpBody, limit: usize, rpc: &'static Rpc, observer: Arc<dyn RpcObserver>) -> Self {
        Self { body, limit, rpc, observer, scanner: FrameScanner::default() }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    // tonic looks for a Status in it.
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let (limit, rpc, observer) = (this.limit, this.rpc, &this.observer);
            let scanned = this.scanner.scan(data, |len| {
                if len > limit {
                    return Err(status::message_too_large(len, limit));
                }
                observer.received(rpc, len);
                Ok(())
            });
            if let Err(status) = scanned {
                return Poll::Ready(Some(Err(status.into())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, counted as it goes out. One type for all, so that none is boxed for it.
pub(in crate::api) enum ResponseBody {
    /// Without a message.
    Uncounted(Body),
    /// With one.
    Unary { body: Body, rpc: &'static Rpc, observer: Arc<dyn RpcObserver>, scanner: FrameScanner },
    /// With any number.
    Stream(Box<StreamBody>),
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::Uncounted(Body::empty())
    }
}

impl ResponseBody {
    pub(super) fn unary(body: Body, rpc: &'static Rpc, observer: Arc<dyn RpcObserver>) -> Self {
        Self::Unary { body, rpc, observer, scanner: FrameScanner::default() }
    }

    pub(super) fn stream(body: Body, call: Call, ending: Option<Ending>) -> Self {
        Self::Stream(Box::new(StreamBody { body, call: Some(call), ending, scanner: FrameScanner::default() }))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Uncounted(body) => Pin::new(body).poll_frame(context),
            Self::Stream(stream) => Pin::new(&mut **stream).poll_frame(context),
            Self::Unary { body, rpc, observer, scanner } => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    count_sent(scanner, data, rpc, &**observer);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Uncounted(body) | Self::Unary { body, .. } => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Uncounted(body) | Self::Unary { body, .. } => body.size_hint(),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// The body of a streamed response: counts its messages, and ends it where its leader is lost or the member stops.
pub(in crate::api) struct StreamBody {
    body: Body,
    call: Option<Call>,
    ending: Option<Ending>,
    scanner: FrameScanner,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(call) = &this.call else { return Poll::Ready(None) };
        if let Some(ending) = &mut this.ending
            && let Poll::Ready(error) = ending.as_mut().poll(context)
        {
            this.end(error.code(), || error.message().to_owned());
            return Poll::Ready(Some(trailers(&error.into()).map(Frame::trailers)));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    count_sent(&mut this.scanner, data, call.rpc, &*call.observer);
                } else if let Some(trailers) = frame.trailers_ref() {
                    let code = trailers.get(GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
                    this.end(code, || message_in(trailers));
                }
            }
            Some(Err(status)) => this.end(status.code(), || status.message().to_owned()),
            None => this.end(Code::Ok, String::new),
        }
        Poll::Ready(frame)
    }
}

impl StreamBody {
    /// Ends the count and lets go of the stream behind the body.
    fn end(&mut self, code: Code, message: impl FnOnce() -> String) {
        if let Some(call) = self.call.take() {
            call.end(code, message);
        }
        self.ending = None;
        self.body = Body::empty();
    }
}

/// Tells of the messages that begin in the next bytes of a response.
fn count_sent(scanner: &mut FrameScanner, data: &[u8], rpc: &'static Rpc, observer: &dyn RpcObserver) {
    let counted: Result<(), Infallible> = scanner.scan(data, |len| {
        observer.sent(rpc, len);
        Ok(())
    });
    let Ok(()) = counted;
}

pub(super) fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}
