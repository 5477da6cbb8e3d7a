//! Answers as Go's `net/http` forms them.

use axum::body::Body;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer of this type.
pub(super) fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A failure: its text and a newline, never to be taken for anything else.
pub(super) fn failure(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = answer(status, PLAIN, format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a method that is not GET.
pub(super) fn only_get() -> Response<Body> {
    let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// The answer to a path that is not there.
pub(super) fn not_found() -> Response<Body> {
    failure(StatusCode::NOT_FOUND, "404 page not found")
}
