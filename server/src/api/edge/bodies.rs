//! The bodies of requests and responses, which count the messages that go through them, and what they take.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::{Bytes, StdError};
use tonic::{Code, Status};

use super::{Call, Ending, GRPC_STATUS, message_in};
use crate::admission::{Entering, Hold};
use crate::api::frames::FrameScanner;
use crate::api::rpc::{Rpc, RpcObserver};
use crate::api::status::{self, ApiError};
use crate::env::RequestBytes;

/// The body of a request: refuses messages that are too large before they are read, and reads those for which there is
/// room.
///
/// tonic has a limit too, but words its refusal in its own way, so there it is switched off.
pub(in crate::api) struct RequestBody {
    body: RequestBytes,
    limit: usize,
    rpc: &'static Rpc,
    observer: Arc<dyn RpcObserver>,
    scanner: FrameScanner,
    hold: Hold,
    /// A piece that has to wait for room, with all that is behind it.
    waiting: Option<(Frame<Bytes>, Entering)>,
}

impl RequestBody {
    pub(super) fn new(
        body: RequestBytes,
        limit: usize,
        rpc: &'static Rpc,
        observer: Arc<dyn RpcObserver>,
        hold: Hold,
    ) -> Self {
        Self { body, limit, rpc, observer, scanner: FrameScanner::default(), hold, waiting: None }
    }

    /// Looks at the messages that begin in a piece, and says what they have to wait for.
    fn enter(&mut self, data: &[u8]) -> Result<Option<Entering>, Status> {
        let (limit, rpc, observer) = (self.limit, self.rpc, &self.observer);
        let mut largest = None;
        self.scanner.scan(data, |len| {
            if len > limit {
                return Err(status::message_too_large(len, limit));
            }
            observer.received(rpc, len);
            // Of a stream, one is in memory at a time.
            largest = largest.max(Some(len));
            Ok(())
        })?;
        let Some(len) = largest else { return Ok(None) };
        Ok(self.hold.message(len, self.rpc.kind.is_stream()).map_err(ApiError::from)?)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    // tonic looks for a Status in it.
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            let entering = match frame.data_ref() {
                Some(data) => this.enter(data),
                None => Ok(None),
            };
            match entering {
                Ok(Some(entering)) => this.waiting = Some((frame, entering)),
                Ok(None) => return Poll::Ready(Some(Ok(frame))),
                Err(status) => return Poll::Ready(Some(Err(status.into()))),
            }
        }
        let Some((_, entering)) = &mut this.waiting else { return Poll::Ready(None) };
        // Meanwhile nothing more is read, which tells the client to wait.
        let entered = ready!(entering.as_mut().poll(context));
        let frame = this.waiting.take().map(|(frame, _)| frame);
        match entered {
            Ok(()) => Poll::Ready(frame.map(Ok)),
            Err(refused) => Poll::Ready(Some(Err(Status::from(ApiError::from(refused)).into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        if self.waiting.is_some() { http_body::SizeHint::default() } else { self.body.size_hint() }
    }
}

/// The body of a response, counted as it goes out. One type for all, so that none is boxed for it.
pub struct ResponseBody(Counted);

enum Counted {
    /// Without a message.
    Uncounted(Body),
    /// With one.
    Unary { body: Body, rpc: &'static Rpc, observer: Arc<dyn RpcObserver>, scanner: FrameScanner, hold: Hold },
    /// With any number.
    Stream(Box<StreamBody>),
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::uncounted(Body::empty())
    }
}

impl ResponseBody {
    pub(super) fn uncounted(body: Body) -> Self {
        Self(Counted::Uncounted(body))
    }

    pub(super) fn unary(body: Body, rpc: &'static Rpc, observer: Arc<dyn RpcObserver>, hold: Hold) -> Self {
        Self(Counted::Unary { body, rpc, observer, scanner: FrameScanner::default(), hold })
    }

    pub(super) fn stream(body: Body, call: Call, ending: Option<Ending>, hold: Hold) -> Self {
        let scanner = FrameScanner::default();
        Self(Counted::Stream(Box::new(StreamBody { body, call: Some(call), ending, scanner, hold })))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Counted::Uncounted(body) => Pin::new(body).poll_frame(context),
            Counted::Stream(stream) => Pin::new(&mut **stream).poll_frame(context),
            Counted::Unary { body, rpc, observer, scanner, hold } => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    count_sent(scanner, data, rpc, &**observer);
                }
                Poll::Ready(frame.map(|frame| frame.map(|frame| carried(frame, hold))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Counted::Uncounted(body) | Counted::Unary { body, .. } => body.is_end_stream(),
            Counted::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.0 {
            Counted::Uncounted(body) | Counted::Unary { body, .. } => body.size_hint(),
            Counted::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// The body of a streamed response: counts its messages, and ends it where its leader is lost or the member stops.
struct StreamBody {
    body: Body,
    call: Option<Call>,
    ending: Option<Ending>,
    scanner: FrameScanner,
    hold: Hold,
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
        Poll::Ready(frame.map(|frame| frame.map(|frame| carried(frame, &this.hold))))
    }
}

impl StreamBody {
    /// Ends the count and lets go of the stream behind the body. What it holds it holds until it is dropped, since what
    /// was made last may still have to leave.
    fn end(&mut self, code: Code, message: impl FnOnce() -> String) {
        if let Some(call) = self.call.take() {
            call.end(code, message);
        }
        self.ending = None;
        self.body = Body::empty();
    }
}

/// Lets a piece of a response take along what is held for it.
fn carried(frame: Frame<Bytes>, hold: &Hold) -> Frame<Bytes> {
    match frame.into_data() {
        Ok(data) => Frame::data(hold.carry(data)),
        Err(frame) => frame,
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
