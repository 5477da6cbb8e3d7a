//! TLS as the flags ask for it, and what a client's certificate must be.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::stream::Socket;
use crate::config::{TlsDetails, TlsVersion, TransportSecurity, io_text};
use crate::env::PeerCertificate;

/// How to speak TLS with whoever connects.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    terms: Arc<Terms>,
}

/// What a client's certificate must be besides signed by the right hand.
struct Terms {
    /// Names of which it must have one; any where there are none.
    allowed_hostnames: Vec<String>,
    /// Read for each connection, so that a certificate can be revoked while the server runs.
    crl_file: String,
}

/// TLS that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("open {file}: {}", io_text(error))]
    Read {
        /// Which one.
        file: String,
        /// Why not.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file}: {reason}")]
    Content {
        /// Which one.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit, or the CA is of no use.
    #[error("tls: {0}")]
    Refused(String),
    /// A cipher suite that there is not.
    #[error("unexpected TLS cipher suite {0:?}")]
    CipherSuite(String),
}

impl Tls {
    /// Reads the files that the flags name.
    pub fn server(security: &TransportSecurity, details: &TlsDetails) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(&details.cipher_suites)?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(details))
            .map_err(|error| TlsError::Refused(error.to_string()))?;
        let builder = if security.client_cert_auth || !security.trusted_ca_file.is_empty() {
            builder.with_client_cert_verifier(verifier(&security.trusted_ca_file, provider)?)
        } else {
            builder.with_no_client_auth()
        };
        let chain = certificates(&security.cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&security.key_file)?)
            .map_err(|error| TlsError::Content { file: security.key_file.clone(), reason: error.to_string() })?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| TlsError::Refused(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let terms =
            Terms { allowed_hostnames: security.allowed_hostnames.clone(), crl_file: security.crl_file.clone() };
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), terms: Arc::new(terms) })
    }

    /// Shakes hands; the certificate of the client, where it was asked for one.
    pub(super) async fn accept(&self, socket: Socket) -> io::Result<(TlsStream<Socket>, Option<PeerCertificate>)> {
        let stream = self.acceptor.accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate =
            self.terms.check(shown).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        Ok((stream, certificate))
    }
}

impl Terms {
    fn check(&self, shown: &[CertificateDer<'_>]) -> Result<Option<PeerCertificate>, String> {
        let Some(first) = shown.first() else { return Ok(None) };
        if !self.allowed_hostnames.is_empty() && !self.allowed_hostnames.iter().any(|name| has_name(first, name)) {
            return Err("client certificate authentication failed".to_owned());
        }
        if !self.crl_file.is_empty() {
            let revoked = revoked(&self.crl_file)?;
            for certificate in shown {
                let serial = parsed(certificate)?.raw_serial().to_vec();
                if revoked.contains(significant(&serial)) {
                    return Err(format!("transport: certificate serial {} revoked", hex(significant(&serial))));
                }
            }
        }
        let subject = parsed(first)?;
        let subject = subject.subject();
        // The last one counts where there are several, as in Go.
        let common_name = subject.iter_common_name().filter_map(|name| name.as_str().ok()).last();
        Ok(Some(PeerCertificate { common_name: common_name.unwrap_or_default().to_owned() }))
    }
}

fn has_name(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    rustls::server::ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, &name).is_ok())
}

/// The serial numbers that a CA has taken back.
fn revoked(file: &str) -> Result<HashSet<Vec<u8>>, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("open {file}: {}", io_text(&error)))?;
    let (_, list) = CertificateRevocationList::from_der(&bytes).map_err(|error| format!("{file}: {error}"))?;
    Ok(list.iter_revoked_certificates().map(|entry| significant(entry.raw_serial()).to_vec()).collect())
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate).map(|(_, certificate)| certificate).map_err(|error| error.to_string())
}

/// A number without the zeros before it.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(file: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(Path::new(file)).map_err(|error| TlsError::Read { file: file.to_owned(), error })
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |reason: String| TlsError::Content { file: file.to_owned(), reason };
    let text = read(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| content(error.to_string()))?;
    if chain.is_empty() { Err(content("it holds no certificate".to_owned())) } else { Ok(chain) }
}

/// Asks every client for a certificate of this CA; of one that the system trusts where there is none.
fn verifier(ca_file: &str, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if ca_file.is_empty() {
        return Err(TlsError::Refused("--client-cert-auth needs --trusted-ca-file in this release".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Content { file: ca_file.to_owned(), reason: error.to_string() })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| TlsError::Refused(error.to_string()))
}

fn versions(details: &TlsDetails) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::Tls12, &version::TLS12), (TlsVersion::Tls13, &version::TLS13)];
    let max = details.max_version.unwrap_or(TlsVersion::Tls13);
    known
        .into_iter()
        .filter(|(version, _)| (details.min_version..=max).contains(version))
        .map(|(_, version)| version)
        .collect()
}

/// What encrypts. As in Go, a list of suites is of those of TLS 1.2; those of 1.3 are always there.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let mut chosen: Vec<SupportedCipherSuite> =
        provider.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some()).collect();
    for name in names {
        let Some((_, suite)) = suites().into_iter().find(|(known, _)| known == name) else {
            return Err(TlsError::CipherSuite(name.clone()));
        };
        chosen.extend(suite.filter(|suite| !chosen.contains(suite)));
    }
    provider.cipher_suites = chosen;
    Ok(provider)
}

/// The suites by Go's names. Those of TLS 1.3 cannot be chosen, and those that are broken are not there.
fn suites() -> Vec<(&'static str, Option<SupportedCipherSuite>)> {
    use ring::cipher_suite as suite;
    vec![
        ("TLS_AES_128_GCM_SHA256", None),
        ("TLS_AES_256_GCM_SHA384", None),
        ("TLS_CHACHA20_POLY1305_SHA256", None),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Some(suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Some(suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", Some(suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", Some(suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Some(suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Some(suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", Some(suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", Some(suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)),
    ]
}
