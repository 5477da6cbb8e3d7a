//! A CA for tests, the certificates of a cluster, and clients that speak TLS.

mod files;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Uri;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};

pub use files::{Files, address};

/// Signs certificates and takes them back.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
}

impl Identity {
    /// `name.crt` and `name.key` in a folder.
    pub fn in_folder(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
    }
}

impl Authority {
    /// A new CA.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate for this machine, and puts it and its key in the place of what is there.
    pub fn sign(&self, identity: &Identity, common_name: &str, serial: u64) -> Result<()> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        replace(&identity.certificate, certificate.pem())?;
        replace(&identity.key, key.serialize_pem())
    }

    /// Writes the list of the certificates that it takes back.
    pub fn revoke(&self, file: &Path, serials: &[u64]) -> Result<()> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        replace(file, params.signed_by(&self.issuer)?.der())
    }
}

/// Writes a file beside and moves it, as those do who renew certificates.
pub fn replace(file: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, content)?;
    fs::rename(&new, file).with_context(|| format!("replacing {}", file.display()))
}

/// HTTP/2 over TLS, with what the files say when a connection is made.
#[derive(Clone, Debug)]
pub struct TlsSockets {
    /// Whom to trust.
    pub authorities: PathBuf,
    /// What to show.
    pub identity: Identity,
}

impl TlsSockets {
    /// Opens a connection.
    pub async fn open(&self, address: SocketAddr, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(&self.authorities)? {
            roots.add(authority?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&self.identity.certificate)?],
                PrivateKeyDer::from_pem_file(&self.identity.key)?,
            )?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), socket).await?)
    }
}

impl mainstay_client::Connector for TlsSockets {
    type Service = Channel;

    fn connect(&self, endpoint: &str) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(Duration::from_secs(2));
        let this = self.clone();
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let this = this.clone();
            async move {
                let address = uri.authority().map(|authority| authority.as_str().parse()).context("no address")??;
                this.open(address, "h2").await.map(TokioIo::new)
            }
        })))
    }
}
