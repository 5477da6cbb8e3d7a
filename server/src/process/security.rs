//! The certificates of a member: what its sockets are served with, and its peers dialled.

use mainstay_server::config::{Config, TransportSecurity, Url};
use mainstay_server::env::tls::{Tls, TlsError, with_made_certificate};

/// What other members are served and dialled with.
pub(super) fn with_peers(config: &Config) -> Result<Tls, TlsError> {
    let security = certified(config, "peer", &config.peer_tls, &config.listen_peer_urls)?;
    for url in config.listen_peer_urls.iter().filter(|url| !url.is_tls()) {
        let url = url.as_str();
        if !security.cert_file.is_empty() {
            tracing::warn!(
                "peer-url" = url,
                "scheme is HTTP while key and cert files are present; ignoring key and cert files"
            );
        }
        if security.client_cert_auth {
            tracing::warn!(
                "peer-url" = url,
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL"
            );
        }
    }
    if !security.cert_file.is_empty() {
        announce("starting with peer TLS", &security, config);
    }
    Tls::with_peers(&security, &config.tls)
}

/// What client URLs that ask for TLS are served with.
pub(super) fn with_clients(config: &Config) -> Result<Option<Tls>, TlsError> {
    let urls: Vec<Url> = config.listen_client_urls.iter().chain(&config.listen_client_http_urls).cloned().collect();
    let security = certified(config, "client", &config.client_tls, &urls)?;
    if security.cert_file.is_empty() {
        return Ok(None);
    }
    for url in urls.iter().filter(|url| !url.is_tls()) {
        let url = url.as_str();
        tracing::warn!(
            "client-url" = url,
            "scheme is http or unix while key and cert files are present; ignoring key and cert files"
        );
        if security.client_cert_auth {
            tracing::warn!(
                "client-url" = url,
                "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL"
            );
        }
    }
    announce("starting with client TLS", &security, config);
    Tls::with_clients(&security, &config.tls).map(Some)
}

/// The security of a side, with the certificate that is made for it where the flags ask for that.
fn certified(
    config: &Config,
    side: &str,
    given: &TransportSecurity,
    urls: &[Url],
) -> Result<TransportSecurity, TlsError> {
    let folder = config.data_dir.join("fixtures").join(side);
    with_made_certificate(given, &folder, urls, config.tls.self_signed_cert_validity_years)
}

fn announce(what: &str, security: &TransportSecurity, config: &Config) {
    let TransportSecurity { cert_file, key_file, client_cert_file, client_key_file, .. } = security;
    let TransportSecurity { trusted_ca_file, client_cert_auth, crl_file, .. } = security;
    tracing::info!(
        "tls-info" = format!(
            "cert = {cert_file}, key = {key_file}, client-cert={client_cert_file}, client-key={client_key_file}, \
             trusted-ca = {trusted_ca_file}, client-cert-auth = {client_cert_auth}, crl-file = {crl_file}"
        ),
        "cipher-suites" = config.tls.cipher_suites.join(","),
        "{what}"
    );
}
