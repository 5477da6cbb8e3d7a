//! TLS among the flags.

use super::*;
use crate::config::{TlsVersion, TransportSecurity};

#[test]
fn peers_have_certificates_of_their_own() {
    let config = flags(&[
        "--listen-peer-urls=https://127.0.0.1:1",
        "--initial-advertise-peer-urls=https://a:1",
        "--initial-cluster=default=https://a:1,b=https://b:1",
        "--peer-cert-file=p.crt",
        "--peer-key-file=p.key",
        "--peer-client-cert-auth",
        "--peer-client-cert-file=c.crt",
        "--peer-client-key-file=c.key",
        "--peer-trusted-ca-file=ca.crt",
        "--peer-cert-allowed-hostname=b,a",
        "--peer-crl-file=p.crl",
        "--peer-skip-client-san-verification",
        "--peer-auto-tls",
        "--tls-max-version=TLS1.2",
        "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "--self-signed-cert-validity=3",
    ]);
    let text = str::to_owned;
    let expected = TransportSecurity {
        cert_file: text("p.crt"),
        key_file: text("p.key"),
        client_cert_auth: true,
        client_cert_file: text("c.crt"),
        client_key_file: text("c.key"),
        trusted_ca_file: text("ca.crt"),
        crl_file: text("p.crl"),
        auto_tls: true,
        allowed_common_names: Vec::new(),
        allowed_hostnames: vec![text("a"), text("b")],
        skip_client_san_verification: true,
    };
    assert_eq!(config.peer_tls, expected);
    assert_eq!(config.client_tls, TransportSecurity::default());
    assert_eq!((config.tls.min_version, config.tls.max_version), (TlsVersion::Tls12, Some(TlsVersion::Tls12)));
    assert_eq!(config.tls.cipher_suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    assert_eq!(config.tls.self_signed_cert_validity_years, 3);
    config.check_first_start(no_names).unwrap();

    // The file's sections say the same.
    let file = "peer-transport-security: {cert-file: p.crt, key-file: p.key, allowed-cn: [x, y], auto-tls: true}\n\
                client-transport-security: {auto-tls: true}";
    let (config, _) = serve(&["--config-file=etcd.yml"], &[], file);
    assert_eq!(config.peer_tls.allowed_common_names, ["x", "y"]);
    assert_eq!((config.peer_tls.cert_file.as_str(), config.peer_tls.auto_tls), ("p.crt", true));
    assert!(config.client_tls.auto_tls);
}

#[test]
fn what_does_not_go_together_is_refused_in_etcds_words() {
    for (arguments, message) in [
        (
            &["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1"][..],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS \
             scheme",
        ),
        (
            &["--listen-metrics-urls=https://127.0.0.1:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (&["--cert-file=a.crt"], "KeyFile and CertFile must both be present[key: , cert: a.crt]"),
        (&["--peer-key-file=a.key"], "KeyFile and CertFile must both be present[key: a.key, cert: ]"),
        (
            &["--peer-client-cert-file=a.crt"],
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: a.crt]",
        ),
        (
            &["--peer-cert-allowed-cn=b,a", "--peer-cert-allowed-hostname=h"],
            r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a" "b"], hostnames=["h"])"#,
        ),
        (
            &["--auto-tls", "--self-signed-cert-validity=0"],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
    ] {
        refuse(arguments, 1, message);
    }
}

#[test]
fn a_certificate_that_is_made_asks_for_nobodys() {
    let urls = ["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1"];
    assert!(flags(&["--auto-tls", urls[0], urls[1], "--listen-metrics-urls=https://127.0.0.1:2"]).client_tls.auto_tls);
    for (auto, given, flag) in [
        ("--auto-tls", "--cert-file, --key-file", "--client-cert-auth"),
        ("--auto-tls", "--cert-file, --key-file", "--trusted-ca-file=a"),
        ("--auto-tls", "--cert-file, --key-file", "--client-crl-file=a"),
        ("--auto-tls", "--cert-file, --key-file", "--client-cert-allowed-hostname=a"),
        ("--peer-auto-tls", "--peer-cert-file, --peer-key-file", "--peer-client-cert-auth"),
        ("--peer-auto-tls", "--peer-cert-file, --peer-key-file", "--peer-trusted-ca-file=a"),
        ("--peer-auto-tls", "--peer-cert-file, --peer-key-file", "--peer-crl-file=a"),
        ("--peer-auto-tls", "--peer-cert-file, --peer-key-file", "--peer-cert-allowed-cn=a"),
        ("--peer-auto-tls", "--peer-cert-file, --peer-key-file", "--peer-cert-allowed-hostname=a"),
    ] {
        let name = flag.split('=').next().unwrap();
        refuse(&[auto, flag], 1, &format!("{name} has no effect beside {auto}: give a certificate ({given})"));
    }
    // Where a certificate is given, none is made.
    flags(&["--peer-auto-tls", "--peer-client-cert-auth", "--peer-cert-file=a", "--peer-key-file=b"]);
}
