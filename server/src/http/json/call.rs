//! A call of one of this member's gRPC services, without a socket: frames in, frames out.

use axum::Router;
use axum::body::Body;
use axum::body::BodyDataStream;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use prost_reflect::MethodDescriptor;
use tonic::{Code, Status};
use tower_service::Service;

use crate::admission::Origin;

/// A flag byte and the length of the message.
const FRAME_HEADER_BYTES: usize = 5;

/// A message in gRPC's framing.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Begins a call.
pub(super) async fn begin(
    mut grpc: Router,
    method: &MethodDescriptor,
    metadata: HeaderMap,
    origin: Origin,
    body: Body,
) -> Result<Messages, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_| Status::internal("the path of the method is no path"))?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = metadata;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.extensions_mut().insert(origin);
    let Ok(response) = grpc.call(request).await;
    if let Some(status) = Status::from_header_map(response.headers()) {
        // Nothing follows.
        return match status.code() {
            Code::Ok => Ok(Messages { body: Body::empty(), has_ended: true, left: BytesMut::new() }),
            _ => Err(status),
        };
    }
    Ok(Messages { body: response.into_body(), has_ended: false, left: BytesMut::new() })
}

/// The messages of a response.
pub(super) struct Messages {
    /// Kept after its end: with it goes what the answer holds of the server's memory.
    body: Body,
    has_ended: bool,
    left: BytesMut,
}

impl Messages {
    /// The next message, or what the call ended with.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if let Some(message) = self.complete() {
                return Some(Ok(message));
            }
            if self.has_ended {
                return None;
            }
            let frame = match http_body_util::BodyExt::frame(&mut self.body).await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.has_ended = true;
                    return Some(Err(Status::unknown(error.to_string())));
                }
                None => {
                    self.has_ended = true;
                    return None;
                }
            };
            if let Some(data) = frame.data_ref() {
                self.left.extend_from_slice(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                self.has_ended = true;
                let status = Status::from_header_map(trailers).filter(|status| status.code() != Code::Ok);
                return status.map(Err);
            }
        }
    }

    fn complete(&mut self) -> Option<Bytes> {
        let length = self.left.get(1..FRAME_HEADER_BYTES)?.try_into().map(u32::from_be_bytes).ok()?;
        let length = length as usize;
        if self.left.len() < FRAME_HEADER_BYTES + length {
            return None;
        }
        self.left.advance(FRAME_HEADER_BYTES);
        Some(self.left.split_to(length).freeze())
    }

    /// Lets a text take along what the messages hold that it was made of, until it has left.
    pub(super) fn go_with(self, text: String) -> Bytes {
        Bytes::from_owner(Answer { text, _messages: self })
    }
}

/// A text, and the messages that it was made of.
struct Answer {
    text: String,
    _messages: Messages,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// The next piece of a request's body; `None` at its end, and where the client went away.
pub(super) async fn piece(body: &mut BodyDataStream) -> Option<Bytes> {
    body.next().await?.ok()
}
