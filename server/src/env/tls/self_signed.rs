//! A certificate that the server makes for itself, as etcd's `--auto-tls` and `--peer-auto-tls` do.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::config::{TransportSecurity, Url};

/// A year, as etcd counts it.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The security of a side, with a certificate that was made where the flags ask for that. It is kept
/// in `folder`, and made anew when it has run out.
///
/// # Errors
/// When it cannot be made, or what is there is of no use.
pub fn with_made_certificate(
    security: &TransportSecurity,
    folder: &Path,
    urls: &[Url],
    years: u64,
) -> Result<TransportSecurity, TlsError> {
    if !security.auto_tls {
        return Ok(security.clone());
    }
    if !security.cert_file.is_empty() {
        tracing::warn!("cert-file" = security.cert_file, "ignoring auto TLS since certs given");
        return Ok(TransportSecurity { auto_tls: false, ..security.clone() });
    }
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !(is_valid(&certificate)? && key.exists()) {
        make(folder, &certificate, &key, urls, years)?;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(TransportSecurity {
        cert_file: text(&certificate),
        key_file: text(&key),
        auto_tls: true,
        ..TransportSecurity::default()
    })
}

/// Whether there is a certificate that has not run out.
fn is_valid(certificate: &Path) -> Result<bool, TlsError> {
    let file = certificate.display().to_string();
    let content = match std::fs::read(certificate) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(TlsError::Read { file, error }),
    };
    let refused = |reason: String| TlsError::Content { file: file.clone(), reason };
    let certificate = CertificateDer::from_pem_slice(&content).map_err(|error| refused(error.to_string()))?;
    let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|error| refused(error.to_string()))?;
    Ok(certificate.validity().is_valid())
}

fn make(folder: &Path, certificate: &Path, key: &Path, urls: &[Url], years: u64) -> Result<(), TlsError> {
    let years = u32::try_from(years).unwrap_or(u32::MAX);
    let now = SystemTime::now();
    let Some(until) = YEAR.checked_mul(years).and_then(|valid| now.checked_add(valid)) else {
        return Err(TlsError::Refused(format!("a certificate cannot be valid for {years} years")));
    };
    let refused = |error: rcgen::Error| TlsError::Refused(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    (params.not_before, params.not_after) = (now.into(), until.into());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in urls.iter().filter_map(Url::host) {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().map_err(refused)?),
        });
    }
    tracing::warn!("automatically generate certificates");
    let private = KeyPair::generate().map_err(refused)?;
    let made = params.self_signed(&private).map_err(refused)?;
    let failed = |path: &Path, error| TlsError::Write { file: path.display().to_string(), error };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    // The key goes first: where there is a certificate, there is its key.
    write(key, 0o600, &private.serialize_pem()).map_err(|error| failed(key, error))?;
    tracing::info!(path = %key.display(), "created key file");
    write(certificate, 0o644, &made.pem()).map_err(|error| failed(certificate, error))?;
    tracing::info!(path = %certificate.display(), "created cert file");
    Ok(())
}

/// Writes a file at once or not at all.
fn write(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}
