//! Two members that shake hands, with certificates of a CA that is made here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::authority::{Authority, Identity, details, text};
use super::*;
use crate::config::{TlsVersion, Url};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn peers(security: &TransportSecurity) -> Tls {
    Tls::with_peers(security, &details()).unwrap()
}

/// Two ends of a connection over which one byte went each way.
type Ends = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

/// Connects, and sends a byte to and fro: a client of TLS 1.3 learns only then that it is not let in.
async fn meet(from: &Tls, to: &Tls) -> Result<Ends, String> {
    meet_as(from, to, "localhost", LOCALHOST).await
}

async fn meet_as(from: &Tls, to: &Tls, host: &str, remote: IpAddr) -> Result<Ends, String> {
    let (near, far) = duplex(64 * 1024);
    let dials = async {
        let mut stream = from.connect(host, near).await.map_err(|error| format!("dialling: {error}"))?;
        ping(&mut stream).await.map_err(|error| format!("dialled: {error}"))?;
        Ok::<_, String>(stream)
    };
    let accepts = async {
        let (mut stream, _) = to.accept(far, Some(remote)).await.map_err(|error| format!("accepting: {error}"))?;
        ping(&mut stream).await.map_err(|error| format!("accepted: {error}"))?;
        Ok::<_, String>(stream)
    };
    let (dialled, accepted) = futures_util::future::join(dials, accepts).await;
    // The reason is known to who refused.
    match (dialled, accepted) {
        (Ok(dialled), Ok(accepted)) => Ok((dialled, accepted)),
        (Err(error), _) if error.starts_with("dialling") && !error.contains("received") => Err(error),
        (_, Err(error)) | (Err(error), _) => Err(error),
    }
}

async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"!").await?;
    stream.flush().await?;
    stream.read_u8().await.map(drop)
}

#[tokio::test]
async fn a_server_certificate_serves_for_dialling_too() {
    let authority = Authority::new();
    let member = peers(&authority.security(&authority.sign("member", 1)));
    let (dialled, accepted) = meet(&member, &member).await.unwrap();
    assert_eq!(accepted.get_ref().1.peer_certificates().unwrap().len(), 1);
    assert_eq!(dialled.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    // What is given for dialling is taken for that.
    let (server, client) = (authority.sign("server", 2), authority.sign("client", 3));
    let mut security = authority.security(&server);
    (security.client_cert_file, security.client_key_file) = (text(&client.certificate), text(&client.key));
    security.allowed_common_names = vec!["client".to_owned()];
    let only_clients = peers(&security);
    let dials = peers(&TransportSecurity { allowed_common_names: Vec::new(), ..security.clone() });
    meet(&dials, &only_clients).await.unwrap();
    assert_eq!(
        meet(&only_clients, &dials).await.unwrap_err(),
        "dialling: client certificate authentication failed",
        "a server has to have such a name, too"
    );
}

#[tokio::test]
async fn who_is_of_another_authority_or_of_none_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let member = peers(&authority.security(&authority.sign("member", 1)));
    let stranger = peers(&other.security(&other.sign("member", 1)));
    assert!(meet(&stranger, &member).await.unwrap_err().starts_with("dialling: invalid peer certificate"));
    let mut trusting = other.security(&other.sign("member", 2));
    trusting.trusted_ca_file = text(&authority.ca());
    let error = meet(&peers(&trusting), &member).await.unwrap_err();
    assert!(error.starts_with("accepting: invalid peer certificate"), "{error}");
    let bare = TransportSecurity { trusted_ca_file: text(&authority.ca()), ..TransportSecurity::default() };
    assert_eq!(meet(&peers(&bare), &member).await.unwrap_err(), "accepting: peer sent no certificates");
    assert!(!peers(&bare).accepts());
    // A server that asks for none takes who has none.
    let mut open = authority.security(&authority.sign("open", 3));
    open.trusted_ca_file = String::new();
    meet(&peers(&bare), &peers(&open)).await.unwrap();
    let error = meet_as(&peers(&bare), &member, "elsewhere", LOCALHOST).await.unwrap_err();
    assert!(error.starts_with("dialling: invalid peer certificate: certificate not valid for name"), "{error}");
}

#[tokio::test]
async fn names_are_looked_at() {
    let authority = Authority::new();
    let (alice, bob) = (authority.sign("alice", 1), authority.sign("bob", 2));
    let dials = |identity: &Identity| peers(&authority.security(identity));
    let mut security = authority.security(&alice);
    security.allowed_common_names = vec!["carol".to_owned(), "alice".to_owned()];
    let member = peers(&security);
    meet(&dials(&alice), &member).await.unwrap();
    let refused = "accepting: client certificate authentication failed";
    assert_eq!(meet(&dials(&bob), &member).await.unwrap_err(), refused);

    let mut security = authority.security(&alice);
    security.allowed_hostnames = vec!["elsewhere".to_owned(), "127.0.0.1".to_owned()];
    let member = peers(&security);
    let named = authority.sign_for(&["127.0.0.1"], "carol", 3);
    meet(&dials(&named), &member).await.unwrap();
    assert_eq!(meet(&dials(&bob), &member).await.unwrap_err(), refused);
}

#[tokio::test]
async fn a_certificate_is_for_the_address_that_shows_it() {
    let authority = Authority::new();
    let member = peers(&authority.security(&authority.sign("member", 1)));
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let dials = |identity: &Identity| peers(&authority.security(identity));
    let addressed = dials(&authority.sign_for(&["127.0.0.1", "192.0.2.7"], "addressed", 2));
    meet_as(&addressed, &member, "localhost", LOCALHOST).await.unwrap();
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    meet_as(&addressed, &member, "localhost", mapped).await.unwrap();
    assert_eq!(
        meet_as(&addressed, &member, "localhost", elsewhere).await.unwrap_err(),
        "accepting: x509: certificate is valid for 127.0.0.1, 192.0.2.7, not 192.0.2.1"
    );
    // By name: localhost is found without a name server.
    let named = dials(&authority.sign_for(&["192.0.2.7", "localhost"], "named", 3));
    meet_as(&named, &member, "localhost", LOCALHOST).await.unwrap();
    let error = meet_as(&named, &member, "localhost", elsewhere).await.unwrap_err();
    assert!(
        error.starts_with(r#"accepting: tls: "192.0.2.1" does not match any of DNSNames ["localhost"]"#),
        "{error}"
    );
    // A certificate without names is for everybody, and so is any where nobody looks.
    meet_as(&dials(&authority.sign_for(&[], "nameless", 4)), &member, "localhost", elsewhere).await.unwrap();
    let mut security = authority.security(&authority.sign("blind", 5));
    security.skip_client_san_verification = true;
    meet_as(&addressed, &peers(&security), "localhost", elsewhere).await.unwrap();
    let clients = Tls::with_clients(&security, &details()).unwrap();
    meet_as(&addressed, &clients, "localhost", elsewhere).await.unwrap();
    assert!(meet_as(&addressed, &clients.checking_addresses(), "localhost", elsewhere).await.is_err());
}

#[test]
fn alternative_names_are_read() {
    let authority = Authority::new();
    let identity = authority.sign_for(&["a.example", "*.example", "::1", "127.0.0.1"], "", 1);
    let certificate = CertificateDer::from_pem_file(&identity.certificate).unwrap();
    let names = AlternativeNames::of(&certificate).unwrap();
    assert_eq!(names.addresses, [IpAddr::V6(Ipv6Addr::LOCALHOST), LOCALHOST]);
    assert_eq!(names.hosts, ["a.example", "*.example"]);
}

#[tokio::test]
async fn revoked_certificates_are_refused_on_either_side() {
    let authority = Authority::new();
    let (alice, bob) = (authority.sign("alice", 1), authority.sign("bob", 300));
    let mut security = authority.security(&alice);
    security.crl_file = text(&authority.revoke(&[300]));
    let (member, revoked) = (peers(&security), peers(&authority.security(&bob)));
    meet(&member, &member).await.unwrap();
    assert_eq!(meet(&revoked, &member).await.unwrap_err(), "accepting: transport: certificate serial 012c revoked");
    assert_eq!(meet(&member, &revoked).await.unwrap_err(), "dialling: transport: certificate serial 012c revoked");
}

/// Nothing of what is replaced touches a connection that is there.
async fn still_works((dialled, accepted): &mut Ends) {
    let (there, back) = futures_util::future::join(ping(dialled), ping(accepted)).await;
    there.unwrap();
    back.unwrap();
}

fn serial(stream: &client::TlsStream<DuplexStream>) -> Vec<u8> {
    let certificate = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let (_, parsed) = <x509_parser::certificate::X509Certificate<'_> as x509_parser::prelude::FromDer<
        '_,
        x509_parser::error::X509Error,
    >>::from_der(certificate)
    .unwrap();
    parsed.raw_serial().to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_connection_on() {
    let authority = Authority::new();
    let identity = authority.sign("member", 1);
    let member = peers(&authority.security(&identity));
    let mut before = meet(&member, &member).await.unwrap();
    assert_eq!(serial(&before.0), [1]);

    authority.sign_into(&identity, &["localhost"], "member", 2);
    let after = meet(&member, &member).await.unwrap();
    assert_eq!(serial(&after.0), [2]);

    // Half of a pair, and nothing at all: what was there before goes on.
    let key = std::fs::read(&identity.key).unwrap();
    authority.sign_into(&identity, &["localhost"], "member", 3);
    let new_key = std::fs::read(&identity.key).unwrap();
    std::fs::write(&identity.key, key).unwrap();
    assert_eq!(serial(&meet(&member, &member).await.unwrap().0), [2]);
    std::fs::remove_file(&identity.key).unwrap();
    assert_eq!(serial(&meet(&member, &member).await.unwrap().0), [2]);
    std::fs::write(&identity.key, new_key).unwrap();
    assert_eq!(serial(&meet(&member, &member).await.unwrap().0), [3]);
    still_works(&mut before).await;
}

#[tokio::test]
async fn a_new_authority_takes_over() {
    let (old, new) = (Authority::new(), Authority::new());
    let identity = old.sign("member", 1);
    let security = old.security(&identity);
    let bundle = Path::new(&security.trusted_ca_file);
    let member = peers(&security);
    let late = Identity { certificate: new.path("late.crt"), key: new.path("late.key") };
    new.sign_into(&late, &["localhost"], "late", 7);
    let mut late_security = new.security(&late);
    let both = new.path("both.crt");
    std::fs::write(&both, old.pem() + &new.pem()).unwrap();
    late_security.trusted_ca_file = text(&both);
    let late = peers(&late_security);

    let mut before = meet(&member, &member).await.unwrap();
    assert!(meet(&late, &member).await.is_err(), "the new authority is not known yet");
    std::fs::write(bundle, old.pem() + &new.pem()).unwrap();
    meet(&late, &member).await.unwrap();
    new.sign_into(&identity, &["localhost"], "member", 2);
    meet(&member, &member).await.unwrap();
    std::fs::write(bundle, "no certificate").unwrap();
    meet(&member, &member).await.unwrap();
    std::fs::write(bundle, new.pem()).unwrap();
    meet(&member, &member).await.unwrap();
    let left = old.security(&old.sign_for(&["localhost"], "left", 9));
    let left = peers(&TransportSecurity { trusted_ca_file: text(&both), ..left });
    let error = meet(&left, &member).await.unwrap_err();
    assert!(error.starts_with("accepting: invalid peer certificate"), "the old authority is forgotten: {error}");
    still_works(&mut before).await;
}

#[tokio::test]
async fn a_certificate_is_revoked_while_the_server_runs() {
    let authority = Authority::new();
    let mut security = authority.security(&authority.sign("member", 1));
    security.crl_file = text(&authority.revoke(&[]));
    let member = peers(&security);
    let dials = peers(&authority.security(&authority.sign("bob", 2)));
    let mut before = meet(&dials, &member).await.unwrap();
    authority.revoke(&[2]);
    // The second one could be resumed without a look at the certificate.
    for _ in 0..2 {
        assert_eq!(meet(&dials, &member).await.unwrap_err(), "accepting: transport: certificate serial 02 revoked");
    }
    still_works(&mut before).await;
    // As text, which most tools write.
    let der = std::fs::read(authority.path("revoked.crl")).unwrap();
    let lines = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    std::fs::write(
        authority.path("revoked.crl"),
        format!("-----BEGIN X509 CRL-----\n{lines}\n-----END X509 CRL-----\n"),
    )
    .unwrap();
    assert!(meet(&dials, &member).await.is_err());
    std::fs::write(authority.path("revoked.crl"), "neither").unwrap();
    assert!(meet(&dials, &member).await.is_err(), "what is not understood takes nothing back");
}

#[tokio::test]
async fn versions_are_kept_to() {
    let authority = Authority::new();
    let security = authority.security(&authority.sign("member", 1));
    let of = |min_version, max_version| {
        Tls::with_peers(&security, &TlsDetails { min_version, max_version, ..details() }).unwrap()
    };
    let (old, new) = (of(TlsVersion::Tls12, Some(TlsVersion::Tls12)), of(TlsVersion::Tls13, None));
    let (both, any) = (of(TlsVersion::Tls12, None), Tls::with_clients(&security, &details()).unwrap());
    meet(&old, &both).await.unwrap();
    meet(&new, &any).await.unwrap();
    assert!(meet(&old, &new).await.is_err());
    assert!(any.connect("localhost", duplex(1).0).await.is_err(), "only peers are dialled");
}

#[tokio::test]
async fn a_certificate_is_made_where_none_is_given() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("fixtures").join("peer");
    let urls = [Url::parse("https://127.0.0.1:2380").unwrap(), Url::parse("https://localhost:2381").unwrap()];
    let asked = TransportSecurity { auto_tls: true, ..TransportSecurity::default() };
    let made = with_made_certificate(&asked, &folder, &urls, 1).unwrap();
    let certificate = CertificateDer::from_pem_file(&made.cert_file).unwrap();
    let names = AlternativeNames::of(&certificate).unwrap();
    assert_eq!((names.addresses, names.hosts), (vec![LOCALHOST], vec!["localhost".to_owned()]));
    let (one, other) = (peers(&made), home.path().join("other"));
    let other = peers(&with_made_certificate(&asked, &other, &urls, 1).unwrap());
    // Whoever made its own trusts whoever did the same, wherever it is.
    meet_as(&one, &other, "elsewhere", IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))).await.unwrap();

    let again = with_made_certificate(&asked, &folder, &urls, 1).unwrap();
    assert_eq!(CertificateDer::from_pem_file(&again.cert_file).unwrap(), certificate, "it is kept");
    std::fs::remove_file(&again.key_file).unwrap();
    with_made_certificate(&asked, &folder, &urls, 1).unwrap();
    assert_ne!(
        CertificateDer::from_pem_file(&again.cert_file).unwrap(),
        certificate,
        "it is of no use without its key"
    );
    let ended = with_made_certificate(&asked, &home.path().join("ended"), &urls, 0).unwrap();
    let before = std::fs::read(&ended.cert_file).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    with_made_certificate(&asked, &home.path().join("ended"), &urls, 1).unwrap();
    assert_ne!(std::fs::read(&ended.cert_file).unwrap(), before, "it has run out");

    let given = TransportSecurity { cert_file: "a".to_owned(), ..asked };
    assert!(!with_made_certificate(&given, &folder, &urls, 1).unwrap().auto_tls);
    assert_eq!(with_made_certificate(&TransportSecurity::default(), &folder, &urls, 1).unwrap().cert_file, "");
}
