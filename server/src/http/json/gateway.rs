use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Extensions, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use prost::Message;
use prost_reflect::MethodDescriptor;
use tonic::{Code, Status};

use super::call::{self, Messages};
use super::values::{Malformed, Values};
use super::{decode, encode, metadata, methods};
use crate::admission::{Gate, Hold, Origin, Refused, Traffic};
use crate::env::clock::{self, Instant};
use crate::http::responses::{JSON, answer};

/// A JSON value may be so much larger than the message that it stands for.
const VALUE_FACTOR: usize = 4;

/// So often a JSON value is in memory until it is a message, in one form or another.
const VALUE_COPIES: u64 = 4;

/// Smaller ones are in what every request takes.
const VALUE_FREE_BYTES: usize = 16 * 1024;

const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// Answers `/v3/…`.
#[derive(Clone)]
pub struct JsonGateway {
    grpc: Router,
    value_bytes_max: usize,
    admission: Gate,
}

impl JsonGateway {
    /// A gateway to these gRPC services, whose messages have at most so many bytes.
    pub fn new(grpc: Router, message_bytes_max: usize, admission: Gate) -> Self {
        Self { grpc, value_bytes_max: message_bytes_max.saturating_mul(VALUE_FACTOR), admission }
    }

    /// Answers a request for a path, which is what follows `/v3/`.
    pub(in crate::http) async fn respond(self, path: &str, request: Request<Body>) -> Response<Body> {
        let Some(method) = methods::find(path) else {
            return failed(&Status::not_found("Not Found"));
        };
        if request.method() != Method::POST {
            return failed(&Status::unimplemented("Method Not Allowed"));
        }
        let timeout = match metadata::timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => return failed(&status),
        };
        if method.is_server_streaming() {
            return self.stream(method, request, timeout).await;
        }
        let answered = within(timeout.map(deadline), self.unary(&method, request)).await;
        match answered.and_then(|answered| answered) {
            Ok((text, messages)) => {
                let mut response = answer(StatusCode::OK, JSON, messages.go_with(text));
                mark(&mut response);
                response
            }
            Err(status) => failed(&status),
        }
    }

    async fn unary(self, method: &MethodDescriptor, request: Request<Body>) -> Result<(String, Messages), Status> {
        let (parts, body) = request.into_parts();
        let origin = origin(&parts.extensions);
        let mut requests = self.requests(body, &origin)?;
        // What follows the first value is not looked at, and no body at all is an empty message; as in etcd.
        let value = requests.next().await?;
        let message = self.encoded(method, value.as_deref().unwrap_or(b"{}")).map_err(Status::invalid_argument)?;
        let metadata = metadata::of_request(&parts.headers, &parts.uri);
        let body = Body::from(call::frame(&message));
        let mut messages = call::begin(self.grpc, method, metadata, origin, body).await?;
        let Some(response) = messages.next().await else {
            return Err(Status::internal("the method gave no message"));
        };
        let text = encode::message(&response?, &method.output())?;
        match messages.next().await {
            None => Ok((text, messages)),
            Some(Ok(_)) => Err(Status::internal("the method gave more than one message")),
            Some(Err(status)) => Err(status),
        }
    }

    async fn stream(
        self,
        method: MethodDescriptor,
        request: Request<Body>,
        timeout: Option<Duration>,
    ) -> Response<Body> {
        let deadline = timeout.map(deadline);
        let (parts, body) = request.into_parts();
        let origin = origin(&parts.extensions);
        let mut requests = match self.requests(body, &origin) {
            Ok(requests) => requests,
            Err(status) => return failed(&status),
        };
        let body = if method.is_client_streaming() {
            Body::from_stream(self.frames(method.clone(), requests))
        } else {
            let value = match requests.next().await {
                Ok(value) => value,
                Err(status) => return failed(&status),
            };
            match self.encoded(&method, value.as_deref().unwrap_or(b"{}")) {
                Ok(message) => Body::from(call::frame(&message)),
                Err(text) => return failed(&Status::invalid_argument(text)),
            }
        };
        let metadata = metadata::of_request(&parts.headers, &parts.uri);
        let begun = within(deadline, call::begin(self.grpc, &method, metadata, origin, body)).await;
        let messages = match begun.and_then(|begun| begun) {
            Ok(messages) => messages,
            Err(status) => return failed_stream(&status),
        };
        let mut lines = Lines { messages, method, deadline };
        match lines.next().await {
            // A stream that ends before it has begun has no type.
            None => Response::new(Body::from_stream(stream::empty::<Result<Bytes, Status>>())),
            Some(Err(status)) => failed_stream(&status),
            Some(Ok(first)) => {
                let mut response = answer(StatusCode::OK, JSON, Body::from_stream(lines.after(first)));
                mark(&mut response);
                response
            }
        }
    }

    /// The requests of a stream as gRPC's frames. A mistake ends them, and says nothing; as in etcd.
    fn frames(
        &self,
        method: MethodDescriptor,
        requests: Requests,
    ) -> impl Stream<Item = Result<Bytes, Status>> + use<> {
        let gateway = self.clone();
        stream::unfold((gateway, method, requests), |(gateway, method, mut requests)| async move {
            let value = requests.next().await.ok()??;
            let message = gateway.encoded(&method, &value).ok()?;
            Some((Ok(call::frame(&message)), (gateway, method, requests)))
        })
    }

    /// The values of a body. What they take counts for whoever sends them, before it is known what they ask for.
    fn requests(&self, body: Body, origin: &Origin) -> Result<Requests, Status> {
        let hold = self.admission.enter_now(Traffic::Control, origin, 0)?;
        Ok(Requests { body: body.into_data_stream(), values: Values::new(self.value_bytes_max), hold })
    }

    fn encoded(&self, method: &MethodDescriptor, value: &[u8]) -> Result<Vec<u8>, String> {
        decode::message(value, &method.input()).map(|message| message.encode_to_vec())
    }
}

/// The JSON values of a body.
struct Requests {
    body: axum::body::BodyDataStream,
    values: Values,
    hold: Hold,
}

impl Requests {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(value) = self.values.take().map_err(|error| invalid(&error))? {
                return Ok(Some(value));
            }
            match call::piece(&mut self.body).await {
                Some(piece) => {
                    self.values.push(&piece);
                    let bytes = self.values.len();
                    if bytes > VALUE_FREE_BYTES && !self.hold.answer_of(VALUE_COPIES * bytes as u64) {
                        return Err(Refused.into());
                    }
                }
                None => return self.values.finish().map_err(|error| invalid(&error)),
            }
        }
    }
}

/// Who sends a request; the answer leaves as JSON.
fn origin(extensions: &Extensions) -> Origin {
    Origin { is_json: true, ..extensions.get::<Origin>().cloned().unwrap_or_default() }
}

/// The lines of a streamed response.
struct Lines {
    messages: Messages,
    method: MethodDescriptor,
    deadline: Option<Instant>,
}

impl Lines {
    async fn next(&mut self) -> Option<Result<String, Status>> {
        let message = match within(self.deadline, self.messages.next()).await {
            Ok(message) => message?,
            Err(status) => Err(status),
        };
        let text = message.and_then(|message| encode::message(&message, &self.method.output()));
        Some(text.map(|text| encode::line("result", &text)))
    }

    /// A line, and all that follow; the last one may tell of an error.
    fn after(self, first: String) -> impl Stream<Item = Result<Bytes, Status>> {
        stream::unfold((Some(self), Some(first)), |(lines, first)| async move {
            let mut lines = lines?;
            if let Some(first) = first {
                return Some((Ok(first.into()), (Some(lines), None)));
            }
            match lines.next().await? {
                Ok(line) => Some((Ok(line.into()), (Some(lines), None))),
                Err(status) => Some((Ok(error_line(&status).into()), (None, None))),
            }
        })
    }
}

fn deadline(timeout: Duration) -> Instant {
    // One that lies beyond what the clock can tell is none.
    clock::now().checked_add(timeout).unwrap_or_else(|| clock::now() + Duration::from_hours(1_000_000))
}

/// Waits for something until a deadline.
async fn within<T>(deadline: Option<Instant>, what: impl Future<Output = T>) -> Result<T, Status> {
    let Some(deadline) = deadline else { return Ok(what.await) };
    let left = deadline.saturating_duration_since(clock::now());
    clock::timeout(left, what).await.map_err(|_| Status::deadline_exceeded("context deadline exceeded"))
}

fn invalid(error: &Malformed) -> Status {
    match error {
        Malformed::TooLarge => Status::resource_exhausted(error.to_string()),
        Malformed::Syntax(_) | Malformed::UnexpectedEnd => Status::invalid_argument(error.to_string()),
    }
}

fn failed(status: &Status) -> Response<Body> {
    let mut response = answer(http_status(status.code()), JSON, encode::status(status));
    if status.code() == Code::Unauthenticated
        && let Ok(message) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, message);
    }
    response
}

fn failed_stream(status: &Status) -> Response<Body> {
    // Of unknown length, as a stream is.
    let line = stream::iter([Ok::<_, Status>(Bytes::from(error_line(status)))]);
    answer(http_status(status.code()), JSON, Body::from_stream(line))
}

fn error_line(status: &Status) -> String {
    encode::line("error", &encode::status(status))
}

/// Tells what the answer was made of, as etcd's gateway does.
fn mark(response: &mut Response<Body>) {
    debug_assert!(response.headers().contains_key(CONTENT_TYPE));
    response.headers_mut().insert(GRPC_CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
}

/// The status that etcd's gateway has for a code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
