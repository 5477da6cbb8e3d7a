//! What a certificate must be besides signed by the right hand: its names, its number, its address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::TlsError;
use crate::env::{PeerCertificate, blocking};

/// Names of which a certificate must have one.
#[derive(Debug)]
pub(super) struct AllowedNames {
    /// As the subject's common name; any where there are none.
    pub(super) common: Vec<String>,
    /// As a host or address; any where there are none.
    pub(super) hosts: Vec<String>,
}

/// The serial numbers that a CA has taken back.
#[derive(Debug, Default)]
pub(super) struct Revoked(BTreeSet<Vec<u8>>);

impl AllowedNames {
    /// Whether a certificate that was verified may be used; the words are etcd's.
    pub(super) fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), String> {
        let common = || common_name(certificate).is_ok_and(|name| self.common.contains(&name));
        let host = || self.hosts.iter().any(|name| has_name(certificate, name));
        if (self.common.is_empty() || common()) && (self.hosts.is_empty() || host()) {
            return Ok(());
        }
        Err("client certificate authentication failed".to_owned())
    }
}

impl Revoked {
    /// Reads a list: DER, as etcd wants it, or PEM, as most tools write it.
    pub(super) fn parse(file: &str, content: &[u8]) -> Result<Self, TlsError> {
        let pem = CertificateRevocationListDer::from_pem_slice(content);
        let der = pem.as_ref().map_or(content, |list| list.as_ref());
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| TlsError::Content { file: file.to_owned(), reason: error.to_string() })?;
        Ok(Self(list.iter_revoked_certificates().map(|entry| significant(entry.raw_serial()).to_vec()).collect()))
    }

    /// As in etcd, whoever signed the list: a number that is on it is revoked.
    pub(super) fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        for certificate in chain {
            let certificate = parsed(certificate)?;
            let serial = significant(certificate.raw_serial());
            if self.0.contains(serial) {
                return Err(format!("transport: certificate serial {} revoked", hex(serial)));
            }
        }
        Ok(())
    }
}

/// What is told of a client.
pub(super) fn peer_certificate(certificate: &CertificateDer<'_>) -> Result<PeerCertificate, String> {
    Ok(PeerCertificate { common_name: common_name(certificate)? })
}

fn common_name(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let certificate = parsed(certificate)?;
    // The last one counts where there are several, as in Go.
    let name = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).last();
    Ok(name.unwrap_or_default().to_owned())
}

fn has_name(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    rustls::server::ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, &name).is_ok())
}

/// The addresses and host names that a certificate is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AlternativeNames {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) hosts: Vec<String>,
}

impl AlternativeNames {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = parsed(certificate)?;
        let mut names = Self::default();
        let extension = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(host) => names.hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(names)
    }

    /// Whether who connects from `remote` may show this certificate: one that names addresses or
    /// hosts must name that one. A certificate without names passes, as in etcd.
    pub(super) async fn check(&self, remote: IpAddr) -> Result<(), String> {
        // An IPv4 client of a socket that takes both is an IPv4 client.
        let remote = remote.to_canonical();
        if self.addresses.contains(&remote) || (self.addresses.is_empty() && self.hosts.is_empty()) {
            return Ok(());
        }
        if self.hosts.is_empty() {
            let addresses = self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!("x509: certificate is valid for {addresses}, not {remote}"));
        }
        let error = match self.is_host(remote).await {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(error) => format!(" ({error})"),
        };
        let hosts = self.hosts.iter().map(|host| format!("{host:?}")).collect::<Vec<_>>().join(" ");
        Err(format!("tls: \"{remote}\" does not match any of DNSNames [{hosts}]{error}"))
    }

    /// Whether an address belongs to one of the hosts: by its own name, or by theirs.
    async fn is_host(&self, remote: IpAddr) -> Result<bool, String> {
        let wildcard = |name: &str| name.strip_prefix('*').filter(|rest| rest.starts_with('.')).map(str::to_owned);
        let mut failure = None;
        match blocking(move || dns_lookup::lookup_addr(&remote)).await {
            Ok(own) => {
                let own = own.trim_end_matches('.');
                let is_own = |name: &String| wildcard(name).map_or(name == own, |end| own.ends_with(&end));
                if self.hosts.iter().any(is_own) {
                    return Ok(true);
                }
            }
            Err(error) => failure = Some(format!("lookup {remote}: {error}")),
        }
        for host in self.hosts.iter().filter(|host| wildcard(host).is_none()) {
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(mut found) => {
                    if found.any(|address| address.ip().to_canonical() == remote) {
                        return Ok(true);
                    }
                }
                Err(error) => failure = Some(format!("lookup {host}: {error}")),
            }
        }
        failure.map_or(Ok(false), Err)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
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
