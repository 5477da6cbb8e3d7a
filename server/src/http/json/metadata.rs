//! What of a request's headers becomes gRPC metadata, as in etcd's gateway (pure).

use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, Uri};
use tonic::Status;

/// Headers that pass under another name, as a prefix says.
const PERMANENT: [&str; 24] = [
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// Names that gRPC keeps for itself.
const RESERVED: [&str; 9] = [
    "content-type",
    "user-agent",
    "te",
    "grpc-message-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "grpc-status-details-bin",
];

const PREFIX: &str = "grpcgateway-";
const METADATA: &str = "grpc-metadata-";
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The metadata of the call that a request stands for.
pub(super) fn of_request(headers: &HeaderMap, uri: &Uri) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        // Not every value that HTTP allows is allowed in gRPC.
        if !value.as_bytes().iter().all(|byte| (0x20..=0x7e).contains(byte)) {
            continue;
        }
        if name == AUTHORIZATION {
            metadata.append(AUTHORIZATION, value.clone());
        }
        let passed = match name.as_str().strip_prefix(METADATA) {
            Some(name) if !RESERVED.contains(&name) => name.to_owned(),
            None if PERMANENT.contains(&name.as_str()) => format!("{PREFIX}{name}"),
            _ => continue,
        };
        if let Ok(passed) = HeaderName::try_from(passed) {
            metadata.append(passed, value.clone());
        }
    }
    let host = headers.get(FORWARDED_HOST).or_else(|| headers.get(HOST)).cloned();
    if let Some(host) = host.or_else(|| uri.authority()?.as_str().parse().ok()) {
        metadata.insert(FORWARDED_HOST, host);
    }
    metadata
}

/// How long the client is ready to wait.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    match parsed(&text) {
        Some(timeout) => Ok(timeout),
        None => Err(Status::invalid_argument(format!("invalid grpc-timeout: {text}"))),
    }
}

/// The duration that a number and a letter mean; none inside for no limit.
fn parsed(text: &str) -> Option<Option<Duration>> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok()?;
    let unit = match unit {
        "H" => Duration::from_hours(1),
        "M" => Duration::from_mins(1),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    if number == 0 {
        return Some(None);
    }
    // A time before now has passed already.
    let factor = u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    Some(Some(unit.saturating_mul(factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_metadata() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "token.1"),
            ("accept", "*/*"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-content-type", "text/plain"),
            ("host", "localhost:2379"),
            ("x-other", "left out"),
            ("cookie", "caf\u{e9}"),
        ] {
            headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let metadata = of_request(&headers, &Uri::from_static("/v3/kv/put"));
        let mut found: Vec<_> = metadata.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        found.sort_unstable();
        let expected = [
            ("authorization", "token.1"),
            ("grpcgateway-accept", "*/*"),
            ("grpcgateway-authorization", "token.1"),
            ("grpcgateway-host", "localhost:2379"),
            ("hasleader", "true"),
            ("x-forwarded-host", "localhost:2379"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn timeouts_are_a_number_and_a_unit() {
        for (text, expected) in [
            ("500m", Some(Some(Duration::from_millis(500)))),
            ("1H", Some(Some(Duration::from_secs(3_600)))),
            ("0S", Some(None)),
            ("-1S", Some(Some(Duration::ZERO))),
            ("5x", None),
            ("5", None),
            ("m", None),
            ("ü", None),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }
}
