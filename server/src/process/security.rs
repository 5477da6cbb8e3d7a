//! The certificates of a member: what its sockets are served with, and its peers dialled.

use mainstay_server::config::{Config, TransportSecurity, Url};
use mainstay_server::env::tls::{Tls, TlsError, with_made_certificate};

/// What other members are served and dialled with.
pub(super) fn with_peers(config: &Config) -> anyhow::Result<Tls> {
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
    Tls::with_peers(&security, &config.tls).map_err(|error| with_flags(error, &PEER_FILES, &security))
}

/// What client URLs that ask for TLS are served with.
pub(super) fn with_clients(config: &Config) -> anyhow::Result<Option<Tls>> {
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
    Tls::with_clients(&security, &config.tls).map(Some).map_err(|error| with_flags(error, &CLIENT_FILES, &security))
}

/// The flags that name the files of a side, in the order of [`files`].
pub(super) type FileFlags = [&'static str; 6];

const CLIENT_FILES: FileFlags =
    ["cert-file", "key-file", "client-cert-file", "client-key-file", "trusted-ca-file", "client-crl-file"];

const PEER_FILES: FileFlags = [
    "peer-cert-file",
    "peer-key-file",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-trusted-ca-file",
    "peer-crl-file",
];

/// Of a discovery service, whom only a certificate for clients is shown.
pub(super) const DISCOVERY_FILES: FileFlags = ["", "", "discovery-cert", "discovery-key", "discovery-cacert", ""];

fn files(security: &TransportSecurity) -> [&String; 6] {
    let TransportSecurity { cert_file, key_file, client_cert_file, client_key_file, .. } = security;
    [cert_file, key_file, client_cert_file, client_key_file, &security.trusted_ca_file, &security.crl_file]
}

/// Says which flags name a file that is of no use; etcd says the file alone, of which there may be twelve.
pub(super) fn with_flags(error: TlsError, flags: &FileFlags, security: &TransportSecurity) -> anyhow::Error {
    let (TlsError::Read { file, .. } | TlsError::Content { file, .. }) = &error else { return error.into() };
    let named = flags.iter().zip(files(security)).filter(|(_, given)| *given == file);
    let named: Vec<String> = named.map(|(flag, _)| format!("--{flag}")).collect();
    if named.is_empty() { error.into() } else { anyhow::anyhow!("{}: {error}", named.join(", ")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_the_flags_that_name_it() {
        let config = |flags: &[&str]| Config::from_flags(flags.iter().copied()).unwrap();
        let why = "open /no/file: no such file or directory";
        for (flags, expected) in [
            (&["--peer-cert-file=/no/file", "--peer-key-file=/no/key"][..], "--peer-cert-file"),
            (&["--peer-cert-file=/no/file", "--peer-key-file=/no/file"], "--peer-cert-file, --peer-key-file"),
            (&["--peer-trusted-ca-file=/no/file"], "--peer-trusted-ca-file"),
            (&["--peer-crl-file=/no/file"], "--peer-crl-file"),
        ] {
            let error = with_peers(&config(flags)).err().unwrap();
            assert_eq!(error.to_string(), format!("{expected}: {why}"), "{flags:?}");
        }
        let error = with_clients(&config(&["--cert-file=/no/file", "--key-file=/no/key"])).err().unwrap();
        assert_eq!(error.to_string(), format!("--cert-file: {why}"));
    }
}
