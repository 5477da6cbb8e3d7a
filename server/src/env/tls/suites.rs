//! Versions and cipher suites, by the names that Go has for them.

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

use super::TlsError;
use crate::config::{TlsDetails, TlsVersion};

/// The versions that may be spoken.
pub(super) fn versions(details: &TlsDetails) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::Tls12, &version::TLS12), (TlsVersion::Tls13, &version::TLS13)];
    let max = details.max_version.unwrap_or(TlsVersion::Tls13);
    known
        .into_iter()
        .filter(|(version, _)| (details.min_version..=max).contains(version))
        .map(|(_, version)| version)
        .collect()
}

/// What encrypts. As in Go, a list of suites is of those of TLS 1.2; those of 1.3 are always there.
pub(super) fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let mut chosen: Vec<SupportedCipherSuite> =
        provider.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some()).collect();
    for name in names {
        let Some((_, suite)) = suites().into_iter().find(|(known, _)| known == name) else {
            return Err(match ONLY_IN_GO.contains(&name.as_str()) {
                true => TlsError::NoSuchSuite(name.clone()),
                false => TlsError::CipherSuite(name.clone()),
            });
        };
        chosen.extend(suite.filter(|suite| !chosen.contains(suite)));
    }
    provider.cipher_suites = chosen;
    Ok(provider)
}

/// What Go speaks and rustls does not: without forward secrecy, or with ciphers that have had their day.
const ONLY_IN_GO: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

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
