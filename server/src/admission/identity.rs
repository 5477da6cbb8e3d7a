use std::net::IpAddr;
use std::sync::Arc;

/// Who a client is, as far as its share goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// A user that has logged in.
    User(String),
    /// Who has shown a certificate with this common name.
    Certificate(String),
    /// Whoever calls from an address.
    Address(IpAddr),
    /// The other members, who pass on what their clients ask for.
    Peers,
    /// Whoever calls without an address: over a Unix socket, or in process.
    Local,
}

/// Where a request came from; in the extensions of every request that a transport has brought.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who calls, as far as the connection tells.
    pub caller: Arc<Identity>,
    /// Whether the answer leaves as JSON, so that it is in memory more often.
    pub is_json: bool,
}

impl Origin {
    /// What a connection tells of its client: the name in its certificate, or else where it is.
    pub fn of(address: Option<IpAddr>, certificate: Option<&str>) -> Self {
        let named = certificate.filter(|name| !name.is_empty()).map(|name| Identity::Certificate(name.to_owned()));
        let caller =
            named.or(address.map(|address| Identity::Address(address.to_canonical()))).unwrap_or(Identity::Local);
        Self { caller: Arc::new(caller), is_json: false }
    }
}

/// Whoever calls in process.
impl Default for Origin {
    fn default() -> Self {
        Self::of(None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_an_address() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let of = |address, certificate| (*Origin::of(address, certificate).caller).clone();
        assert_eq!(of(Some(address), Some("alice")), Identity::Certificate("alice".to_owned()));
        assert_eq!(of(Some(address), Some("")), Identity::Address(address), "a certificate without a name");
        assert_eq!(of(Some(address), None), Identity::Address(address));
        assert_eq!(of(Some("::ffff:127.0.0.1".parse().unwrap()), None), Identity::Address(address), "the same client");
        assert_eq!(of(None, None), Identity::Local);
    }
}
