//! The addresses of members, as etcd reads and prints them (pure).

use std::fmt;
use std::net::IpAddr;

/// Why a text is not an address; the texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be taken apart at all.
    #[error("parse {0:?}: {1}")]
    Malformed(String, &'static str),
    /// The port is no number.
    #[error("parse {0:?}: invalid port {1:?} after host")]
    Port(String, String),
    /// The scheme is another one, or missing.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// Host or port are missing.
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    /// There is something behind the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A Unix socket.
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

impl Scheme {
    /// Its name in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        }
    }
}

/// An address: `http://host:port` or `unix://name`.
///
/// It is printed exactly as it was given (but for the case of the scheme): tools look members up
/// by that text, and member ids are computed from it. The `url` crate would add a `/` and drop `:80`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
}

impl Url {
    /// Reads one address.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.trim();
        let malformed = |why| Err(UrlError::Malformed(text.to_owned(), why));
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return malformed("net/url: invalid control character in URL");
        }
        let Some((name, rest)) = text.split_once(':') else {
            return Err(UrlError::Scheme(text.to_owned()));
        };
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return malformed("first path segment in URL cannot contain colon");
        }
        let scheme = match name.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme(text.to_owned())),
        };
        let url = Url { text: format!("{}:{rest}", scheme.as_str()), scheme };
        let Some(address) = rest.strip_prefix("//") else {
            return if url.is_unix() && !rest.is_empty() { Ok(url) } else { Err(UrlError::HostPort(text.to_owned())) };
        };
        if url.is_unix() {
            return if address.is_empty() { malformed("empty socket name") } else { Ok(url) };
        }
        let authority_len = address.find(['/', '?', '#']).unwrap_or(address.len());
        let (authority, path) = address.split_at(authority_len);
        if authority.contains(|c: char| c.is_whitespace() || "@\"<>\\^`{|}".contains(c)) {
            return malformed("invalid character in host name");
        }
        let (host, port) = split_host_port(authority).ok_or_else(|| UrlError::HostPort(text.to_owned()))?;
        if !path.is_empty() {
            return Err(UrlError::Path(text.to_owned()));
        }
        if host.contains([':', '[', ']']) && host.parse::<IpAddr>().is_err() {
            return malformed("invalid character in host name");
        }
        if port.is_empty() {
            return Err(UrlError::HostPort(text.to_owned()));
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return Err(UrlError::Port(text.to_owned(), format!(":{port}")));
        }
        Ok(url)
    }

    /// Reads a comma-separated list, sorted by its text as etcd keeps it.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<Url>, UrlError>>()?;
        urls.sort();
        Ok(urls)
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// Whether it asks for TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// What follows the scheme: `host:port`, or the path of the socket (relative to the working
    /// directory unless it starts with a slash, as in etcd).
    pub fn address(&self) -> &str {
        let rest = &self.text[self.scheme.as_str().len() + 1..];
        rest.strip_prefix("//").unwrap_or(rest)
    }

    /// The host, without the brackets of an IPv6 address; a socket has none.
    pub fn host(&self) -> Option<&str> {
        if self.is_unix() { None } else { split_host_port(self.address()).map(|(host, _)| host) }
    }

    /// The port; a socket has none.
    pub fn port(&self) -> Option<u16> {
        if self.is_unix() { None } else { split_host_port(self.address()).and_then(|(_, port)| port.parse().ok()) }
    }
}

/// Splits `host:port` and `[host]:port`.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return Some((host, port.strip_prefix(':')?));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl AsRef<str> for Url {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        Url::parse(text)
    }
}

/// Puts addresses into one text, as etcd's logs and messages do.
pub fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_text() {
        for text in [
            "http://localhost:2379",
            "http://127.0.0.1:80",
            "https://infra0.example.com:443",
            "http://[::1]:2380",
            "unix://localhost:20001",
            "unix:///var/run/etcd.sock",
            "unixs://etcd.unix:1",
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse(" HTTP://h:1 ").unwrap().as_str(), "http://h:1");
    }

    #[test]
    fn addresses_are_taken_apart() {
        let url = Url::parse("http://[::1]:2380").unwrap();
        assert_eq!((url.host(), url.port(), url.address()), (Some("::1"), Some(2380), "[::1]:2380"));
        let url = Url::parse("https://h:1").unwrap();
        assert_eq!((url.scheme(), url.is_tls(), url.is_unix()), (Scheme::Https, true, false));
        let url = Url::parse("unix://localhost:20001").unwrap();
        assert_eq!((url.host(), url.port(), url.address()), (None, None, "localhost:20001"));
        assert_eq!(Url::parse("unix:/run/x").unwrap().address(), "/run/x");
    }

    #[test]
    fn other_texts_are_refused_in_etcds_words() {
        for (text, message) in [
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"),
            ("127.0.0.1:2379", r#"parse "127.0.0.1:2379": first path segment in URL cannot contain colon"#),
            ("http://localhost", r#"URL address does not have the form "host:port": http://localhost"#),
            ("http://", r#"URL address does not have the form "host:port": http://"#),
            ("http://::1:80", r#"URL address does not have the form "host:port": http://::1:80"#),
            ("http://h:1/", "URL must not contain a path: http://h:1/"),
            ("http://h:1/path", "URL must not contain a path: http://h:1/path"),
            ("http://h:port", r#"parse "http://h:port": invalid port ":port" after host"#),
            ("http://h:65536", r#"parse "http://h:65536": invalid port ":65536" after host"#),
            ("http://a b:1", r#"parse "http://a b:1": invalid character in host name"#),
        ] {
            assert_eq!(Url::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn lists_are_sorted() {
        let urls = Url::parse_list("http://b:1, http://a:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:1");
        assert!(Url::parse_list("http://a:1,").is_err());
    }
}
