//! TLS among the settings: certificates, versions, suites.

use super::fields::{TlsDetails, TlsVersion, TransportSecurity};
use super::refusal::Refusal;
use super::settings::Settings;
use super::url::Url;

/// What all TLS connections share.
pub(super) fn tls_details(s: &Settings) -> Result<TlsDetails, Refusal> {
    let version = |name: &str| match s.text(name) {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
        "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
        other => Err(Refusal::Invalid(format!(
            "--{name}: unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"
        ))),
    };
    let min = version("tls-min-version")?;
    let max = version("tls-max-version")?;
    if let (Some(min_version), Some(max_version)) = (min, max)
        && min_version > max_version
    {
        return Err(Refusal::Invalid(format!(
            "min version ({}) is greater than max version ({})",
            s.text("tls-min-version"),
            s.text("tls-max-version")
        )));
    }
    let cipher_suites = s.texts("cipher-suites");
    if min == Some(TlsVersion::Tls13) && !cipher_suites.is_empty() {
        return Err(Refusal::Invalid("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned()));
    }
    Ok(TlsDetails {
        cipher_suites,
        min_version: min.unwrap_or(TlsVersion::Tls12),
        max_version: max,
        self_signed_cert_validity_years: s.uint("self-signed-cert-validity"),
    })
}

/// Whoever asks for TLS has a certificate to show.
pub(super) fn check_certificate(s: &Settings) -> Result<(), Refusal> {
    let (cert, key) = (s.text("cert-file"), s.text("key-file"));
    if cert.is_empty() && key.is_empty() {
        if s.bool("auto-tls") {
            return check_made_certificate(s, "auto-tls", &["cert-file", "key-file"], CLIENT_FLAGS);
        }
        for name in ["listen-client-urls", "listen-client-http-urls"] {
            if let Some(url) = s.urls(name).iter().find(|url| url.is_tls()) {
                return Err(Refusal::Invalid(format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
                )));
            }
        }
        if s.urls("listen-metrics-urls").iter().any(Url::is_tls) {
            return Err(Refusal::Invalid(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url".to_owned(),
            ));
        }
        return Ok(());
    }
    check_pair(cert, key)
}

/// A certificate goes with its key.
pub(super) fn check_pair(cert: &str, key: &str) -> Result<(), Refusal> {
    if cert.is_empty() == key.is_empty() {
        return Ok(());
    }
    Err(Refusal::Invalid(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")))
}

/// Flags that say who may connect to a side: without meaning where its certificate is made.
const CLIENT_FLAGS: &[&str] =
    &["client-cert-auth", "trusted-ca-file", "client-crl-file", "client-cert-allowed-hostname"];
const PEER_FLAGS: &[&str] = &[
    "peer-client-cert-auth",
    "peer-trusted-ca-file",
    "peer-crl-file",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
];

/// A certificate that the server makes for itself is signed by nobody, so that nobody's can be asked for.
fn check_made_certificate(s: &Settings, auto: &str, given: &[&str], flags: &[&str]) -> Result<(), Refusal> {
    if s.uint("self-signed-cert-validity") == 0 {
        return Err(Refusal::Invalid("selfSignedCertValidity is invalid,it should be greater than 0".to_owned()));
    }
    let asked = |flag: &&&str| !matches!(s.text(flag), "" | "false");
    match flags.iter().find(asked) {
        // etcd drops it without a word, and lets everybody in.
        Some(flag) => Err(Refusal::Invalid(format!(
            "--{flag} has no effect beside --{auto}: give a certificate (--{})",
            given.join(", --")
        ))),
        None => Ok(()),
    }
}

/// What stands for peers must go together; whether they may listen at all is found out when they do.
pub(super) fn check_peer_certificate(s: &Settings) -> Result<(), Refusal> {
    let (cert, key) = (s.text("peer-cert-file"), s.text("peer-key-file"));
    check_pair(cert, key)?;
    if cert.is_empty() && s.bool("peer-auto-tls") {
        check_made_certificate(s, "peer-auto-tls", &["peer-cert-file", "peer-key-file"], PEER_FLAGS)?;
    }
    let (cert, key) = (s.text("peer-client-cert-file"), s.text("peer-client-key-file"));
    if cert.is_empty() != key.is_empty() {
        return Err(Refusal::Invalid(format!(
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
        )));
    }
    let (names, hosts) = (s.texts("peer-cert-allowed-cn"), s.texts("peer-cert-allowed-hostname"));
    if !names.is_empty() && !hosts.is_empty() {
        let quoted = |texts: &[String]| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" ");
        return Err(Refusal::Invalid(format!(
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{}], hostnames=[{}])",
            quoted(&names),
            quoted(&hosts)
        )));
    }
    Ok(())
}

/// TLS with clients.
pub(super) fn client_tls(s: &Settings) -> TransportSecurity {
    TransportSecurity {
        cert_file: s.text("cert-file").to_owned(),
        key_file: s.text("key-file").to_owned(),
        client_cert_auth: s.bool("client-cert-auth"),
        client_cert_file: s.text("client-cert-file").to_owned(),
        client_key_file: s.text("client-key-file").to_owned(),
        trusted_ca_file: s.text("trusted-ca-file").to_owned(),
        crl_file: s.text("client-crl-file").to_owned(),
        auto_tls: s.bool("auto-tls"),
        allowed_common_names: Vec::new(),
        allowed_hostnames: s.texts("client-cert-allowed-hostname"),
        skip_client_san_verification: false,
    }
}

/// TLS with other members.
pub(super) fn peer_tls(s: &Settings) -> TransportSecurity {
    TransportSecurity {
        cert_file: s.text("peer-cert-file").to_owned(),
        key_file: s.text("peer-key-file").to_owned(),
        client_cert_auth: s.bool("peer-client-cert-auth"),
        client_cert_file: s.text("peer-client-cert-file").to_owned(),
        client_key_file: s.text("peer-client-key-file").to_owned(),
        trusted_ca_file: s.text("peer-trusted-ca-file").to_owned(),
        crl_file: s.text("peer-crl-file").to_owned(),
        auto_tls: s.bool("peer-auto-tls"),
        allowed_common_names: s.texts("peer-cert-allowed-cn"),
        allowed_hostnames: s.texts("peer-cert-allowed-hostname"),
        skip_client_san_verification: s.bool("peer-skip-client-san-verification"),
    }
}
