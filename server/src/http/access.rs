//! Who may ask over plain HTTP: host names (against DNS rebinding) and browsers' origins.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderMap, ORIGIN,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::clean;
use super::responses::failure;
use crate::env::Secured;

/// `--host-whitelist` and `--cors`, and whose certificates the JSON gateway does not take.
#[derive(Clone)]
pub struct Access {
    hosts: Allowed,
    origins: Allowed,
    /// Whether certificates name users, and authentication is on.
    names_are_users: Arc<dyn Fn() -> bool + Send + Sync>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    All,
    These(BTreeSet<String>),
}

impl Allowed {
    /// An empty list is no list, and `*` is everything; as in etcd.
    fn new(list: &[String]) -> Allowed {
        if list.is_empty() || list.iter().any(|one| one == "*") {
            return Allowed::All;
        }
        Allowed::These(list.iter().cloned().collect())
    }

    fn has(&self, one: &str) -> bool {
        match self {
            Allowed::All => true,
            Allowed::These(list) => list.contains(one),
        }
    }
}

impl Access {
    /// From the lists of the flags.
    pub fn new(host_whitelist: &[String], cors: &[String]) -> Access {
        Access { hosts: Allowed::new(host_whitelist), origins: Allowed::new(cors), names_are_users: Arc::new(|| false) }
    }

    /// Refuses, at the JSON gateway, certificates with a name while names are those of users: the gateway calls
    /// for all of its clients, so that their names would not count, which nobody expects.
    #[must_use]
    pub fn refusing_names(self, names_are_users: impl Fn() -> bool + Send + Sync + 'static) -> Access {
        Access { names_are_users: Arc::new(names_are_users), ..self }
    }

    /// Whether a request is for the gateway, by somebody whose certificate has a name that would not count.
    fn refuses_name(&self, request: &Request<Body>) -> bool {
        let certificate = request.extensions().get::<Secured>().and_then(|secured| secured.certificate.as_ref());
        let path = request.uri().path();
        certificate.is_some_and(|certificate| !certificate.common_name.is_empty())
            && (path.starts_with("/v3/") || path.starts_with("/v3beta/"))
            && (self.names_are_users)()
    }

    /// What to tell a browser of this origin.
    fn origin_header(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match (&self.origins, origin) {
            (Allowed::All, _) => Some(HeaderValue::from_static("*")),
            (Allowed::These(list), Some(origin)) if origin.to_str().is_ok_and(|text| list.contains(text)) => {
                Some(origin.clone())
            }
            (Allowed::These(_), _) => None,
        }
    }
}

/// etcd's words.
const NAME_IGNORED: &str =
    "CommonName of client sending a request against gateway will be ignored and not used as expected";

/// Stands before every page of the client port.
pub(super) async fn control(State(access): State<Arc<Access>>, request: Request<Body>, next: Next) -> Response<Body> {
    let host = host_name(request.uri(), request.headers());
    // A certificate says as much of the host as its name does.
    if request.extensions().get::<Secured>().is_none() && !access.hosts.has(host) {
        tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
        return failure(StatusCode::MISDIRECTED_REQUEST, &rejection(host));
    }
    if access.refuses_name(&request) {
        return failure(StatusCode::BAD_REQUEST, NAME_IGNORED);
    }
    let origin = access.origin_header(request.headers().get(ORIGIN));
    let mut response = match *request.method() {
        // A browser asks this way before it sends the request itself.
        Method::OPTIONS => Response::new(Body::empty()),
        _ => match clean::redirect(request.method(), request.uri()) {
            Some(elsewhere) => elsewhere,
            None => next.run(request).await,
        },
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("accept, content-type, authorization"));
    }
    response
}

/// What etcd tells whoever came under an unknown name.
fn rejection(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n"
    )
}

/// The host that a request is for, without its port. HTTP/2 has it in the URI.
fn host_name<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    if let Some(host) = uri.host() {
        return host.trim_start_matches('[').trim_end_matches(']');
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_ports() {
        let of = |uri: &str, header: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, header.parse().unwrap());
            host_name(&uri.parse().unwrap(), &headers).to_owned()
        };
        assert_eq!(of("/", "localhost:2379"), "localhost");
        assert_eq!(of("/", "localhost"), "localhost");
        assert_eq!(of("/", "[::1]:2379"), "::1");
        assert_eq!(of("/", "::1"), "::1");
        assert_eq!(of("http://h2.example:2379/", "ignored"), "h2.example");
    }
}
