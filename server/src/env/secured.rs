//! What is known of a connection besides its bytes.

/// In the extensions of every request that came over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// The certificate that the client has shown, where one was asked for. It was verified.
    pub certificate: Option<PeerCertificate>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's common name; empty where it has none.
    pub common_name: String,
}
