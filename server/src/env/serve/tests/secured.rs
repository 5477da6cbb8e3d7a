//! TLS on ports, with certificates of a CA that is made here.

use std::sync::Arc;

use axum::Extension;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::config::{TlsDetails, TransportSecurity};
use crate::env::Secured;
use crate::env::tls::Tls;
use crate::env::tls::authority::{Authority, Identity, details, text};

/// Connects and asks for the page, by HTTP/1.1.
async fn ask(authority: &Authority, address: SocketAddr, identity: Option<&Identity>) -> std::io::Result<String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&identity.key).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    page(stream).await
}

async fn page(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> std::io::Result<String> {
    stream.write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.rsplit("\r\n\r\n").next().unwrap().to_owned())
}

/// A server that says who asks.
async fn who(security: &TransportSecurity, scheme: &[&str]) -> Running {
    let tls = Some(Tls::with_clients(security, &details()).unwrap());
    // A port that is free, so that two URLs can have it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls: Vec<Url> = scheme.iter().map(|scheme| url(&format!("{scheme}://{free}"))).collect();
    let mut listeners = bind(&urls, &SocketOptions { tls, ..SocketOptions::default() }).await.unwrap();
    assert_eq!(listeners.len(), 1);
    let pages = Router::new().route(
        "/who",
        any(async |secured: Option<Extension<Secured>>| match secured {
            None => "nobody".to_owned(),
            Some(Extension(Secured { certificate: None })) => "somebody".to_owned(),
            Some(Extension(Secured { certificate: Some(certificate) })) => format!("<{}>", certificate.common_name),
        }),
    );
    run_on(listeners.remove(0), routed(pages), options())
}

#[tokio::test]
async fn one_port_speaks_tls_and_plain_text() {
    let authority = Authority::new();
    let mut security = authority.security(&authority.sign("server", 1));
    security.trusted_ca_file = String::new();
    let server = who(&security, &["http", "https"]).await;
    assert_eq!(ask(&authority, server.address, None).await.unwrap(), "somebody");
    assert_eq!(page(TcpStream::connect(server.address).await.unwrap()).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_clients_certificate_says_who_it_is() {
    let authority = Authority::new();
    let server = who(&authority.security(&authority.sign("server", 1)), &["https"]).await;
    let (alice, nameless) = (authority.sign("alice", 2), authority.sign("", 3));
    assert_eq!(ask(&authority, server.address, Some(&alice)).await.unwrap(), "<alice>");
    assert_eq!(ask(&authority, server.address, Some(&nameless)).await.unwrap(), "<>");
    assert!(ask(&authority, server.address, None).await.is_err(), "without a certificate");
    let strangers = Authority::new();
    let stranger = strangers.sign("alice", 2);
    assert!(ask(&authority, server.address, Some(&stranger)).await.is_err(), "of another authority");
    assert_ne!(page(TcpStream::connect(server.address).await.unwrap()).await.unwrap_or_default(), "nobody");
}

#[tokio::test]
async fn names_and_revocations_are_looked_at() {
    let authority = Authority::new();
    let mut security = authority.security(&authority.sign("server", 1));
    let (alice, bob) = (authority.sign("alice", 2), authority.sign("bob", 300));
    security.allowed_hostnames = vec!["elsewhere".to_owned(), "localhost".to_owned()];
    security.crl_file = text(&authority.revoke(&[300]));
    let server = who(&security, &["https"]).await;
    assert_eq!(ask(&authority, server.address, Some(&alice)).await.unwrap(), "<alice>");
    assert_ne!(ask(&authority, server.address, Some(&bob)).await.unwrap_or_default(), "<bob>");

    security.allowed_hostnames = vec!["elsewhere".to_owned()];
    let server = who(&security, &["https"]).await;
    assert_ne!(ask(&authority, server.address, Some(&alice)).await.unwrap_or_default(), "<alice>");
}

#[tokio::test]
async fn what_cannot_be_spoken_is_refused() {
    let authority = Authority::new();
    let security = authority.security(&authority.sign("server", 1));
    let refusal = |security: &TransportSecurity, suites: &[&str]| {
        let cipher_suites = suites.iter().map(|name| (*name).to_owned()).collect();
        Tls::with_clients(security, &TlsDetails { cipher_suites, ..details() }).err().map(|error| error.to_string())
    };
    assert_eq!(refusal(&security, &["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]), None);
    assert_eq!(refusal(&security, &["X"]).unwrap(), r#"unexpected TLS cipher suite "X""#);
    let old = "TLS_RSA_WITH_AES_128_CBC_SHA";
    assert_eq!(refusal(&security, &[old]).unwrap(), format!("--cipher-suites: {old} is not available in this release"));
    let missing = TransportSecurity { cert_file: "/none.crt".to_owned(), ..security.clone() };
    assert_eq!(refusal(&missing, &[]).unwrap(), "open /none.crt: no such file or directory");
    let other = text(&authority.sign("other", 2).key);
    assert!(refusal(&TransportSecurity { key_file: other, ..security.clone() }, &[]).unwrap().starts_with("tls: "));
    let empty = TransportSecurity { cert_file: security.key_file.clone(), ..security };
    assert!(refusal(&empty, &[]).unwrap().ends_with("it holds no certificate"));
    let urls = [url("https://127.0.0.1:0")];
    let error = bind(&urls, &SocketOptions::default()).await.err().unwrap();
    assert_eq!(error.to_string(), "cannot listen on TLS for 127.0.0.1:0: KeyFile and CertFile are not presented");
}

#[tokio::test]
async fn a_port_for_peers_speaks_one_of_both() {
    let authority = Authority::new();
    let tls = Tls::with_peers(&authority.security(&authority.sign("server", 1)), &details()).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [url(&format!("http://{free}")), url(&format!("https://{free}"))];
    let options = SocketOptions { tls: Some(tls), separate: true, ..SocketOptions::default() };
    let error = bind(&urls, &options).await.err().unwrap();
    assert_eq!(error.to_string(), format!("listen tcp {free}: bind: address already in use (https://{free})"));
    assert_eq!(bind(&urls[1..], &options).await.unwrap().len(), 1);
}
