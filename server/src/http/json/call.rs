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
    let Ok(response) = grpc.call(request).await;
    if let Some(status) = Status::from_header_map(response.headers()) {
        // Nothing follows.
        return match status.code() {
            Code::Ok => Ok(Messages { body: None, left: BytesMut::new() }),
            _ => Err(status),
        };
    }
    Ok(Messages { body: Some(response.into_body()), left: BytesMut::new() })
}

/// The messages of a response.
pub(super) struct Messages {
    /// `None` after the end.
    body: Option<Body>,
    left: BytesMut,
}

impl Messages {
    /// The next message, or what the call ended with.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if let Some(message) = self.complete() {
                return Some(Ok(message));
            }
            let frame = match http_body_util::BodyExt::frame(self.body.as_mut()?).await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.body = None;
                    return Some(Err(Status::unknown(error.to_string())));
                }
                None => {
                    self.body = None;
                    return None;
                }
            };
            if let Some(data) = frame.data_ref() {
                self.left.extend_from_slice(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                self.body = None;
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
}

/// The next piece of a request's body; `None` at its end, and where the client went away.
pub(super) async fn piece(body: &mut BodyDataStream) -> Option<Bytes> {
    body.next().await?.ok()
}
