//! What a client says about a request in its metadata (pure).

use http::{HeaderMap, HeaderName};

use super::status::ApiError;

// Names that need not be read anew for each request.
static HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
static CLIENT_API_VERSION: HeaderName = HeaderName::from_static("client-api-version");

/// The metadata that concerns every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metadata<'a> {
    /// The request is to fail while this member knows no leader.
    pub(super) requires_leader: bool,
    /// The API version that the client speaks; for the metrics only.
    pub(super) client_api_version: &'a str,
}

impl<'a> Metadata<'a> {
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Self, ApiError> {
        let client_api_version = match headers.get(&CLIENT_API_VERSION) {
            None => "unknown",
            Some(version) => str::from_utf8(version.as_bytes()).map_err(|_| ApiError::InvalidClientApiVersion)?,
        };
        let requires_leader = headers.get(&HAS_LEADER).is_some_and(|value| value == "true");
        Ok(Self { requires_leader, client_api_version })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_leader_is_required_by_the_word_true() {
        for (pairs, requires_leader) in [
            (&[][..], false),
            (&[("hasleader", &b"true"[..])][..], true),
            (&[("hasleader", b"True")], false),
            (&[("hasleader", b"false"), ("hasleader", b"true")], false),
        ] {
            assert_eq!(Metadata::parse(&headers(pairs)).unwrap().requires_leader, requires_leader);
        }
    }

    #[test]
    fn the_client_api_version_is_text() {
        let version = |pairs: &[(&'static str, &[u8])]| {
            Metadata::parse(&headers(pairs)).map(|metadata| metadata.client_api_version.to_owned())
        };
        assert_eq!(version(&[]), Ok("unknown".to_owned()));
        assert_eq!(version(&[("client-api-version", b"3.7")]), Ok("3.7".to_owned()));
        assert_eq!(version(&[("client-api-version", "3.7ü".as_bytes())]), Ok("3.7ü".to_owned()));
        assert_eq!(version(&[("client-api-version", b"\xff")]), Err(ApiError::InvalidClientApiVersion));
    }
}
