//! Whom a side trusts: the CAs of a file, those of the system, or anybody.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::TlsError;

/// Where systems keep their CAs in one file; the first that is there counts, as in Go.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificates of a PEM file.
pub(super) fn certificates(file: &str, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |reason: String| TlsError::Content { file: file.to_owned(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let chain = chain.map_err(|error| refused(error.to_string()))?;
    if chain.is_empty() { Err(refused("it holds no certificate".to_owned())) } else { Ok(chain) }
}

/// The CAs of a file.
pub(super) fn of_file(file: &str, content: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, content)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Content { file: file.to_owned(), reason: error.to_string() })?;
    }
    Ok(roots)
}

/// The CAs that the system trusts, or those that `SSL_CERT_FILE` names; none where there are none.
pub(super) fn of_system() -> Arc<RootCertStore> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
    match &named {
        Some(file) => of_first(&[Path::new(file)]),
        None => of_first(&SYSTEM_FILES.map(Path::new)),
    }
}

/// The CAs of the first file that is there.
fn of_first(files: &[&Path]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(content) = files.iter().find_map(|file| std::fs::read(file).ok()) {
        // One that is not understood stands for itself, not for all.
        let found: Vec<_> = CertificateDer::pem_slice_iter(&content).filter_map(Result::ok).collect();
        let (_added, _ignored) = roots.add_parsable_certificates(found);
    }
    Arc::new(roots)
}

/// Trusts any certificate whose key the other side has: what members do that made their own.
#[derive(Debug)]
pub(super) struct Anybody(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::tls::authority::Authority;

    #[test]
    fn the_first_file_of_the_system_counts() {
        let (one, other) = (Authority::new(), Authority::new());
        let missing = one.path("missing");
        assert!(of_first(&[&missing]).is_empty());
        assert_eq!(of_first(&[&missing, &one.ca(), &other.ca()]).len(), 1);
        let odd = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        std::fs::write(other.ca(), [&one.pem(), odd, &other.pem()].concat()).unwrap();
        assert_eq!(of_first(&[&other.ca()]).len(), 2, "one of three is no certificate");
        let refused = of_file("ca.crt", odd.as_bytes()).unwrap_err().to_string();
        assert!(refused.starts_with("ca.crt: "), "{refused}");
    }
}
