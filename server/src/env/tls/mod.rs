//! TLS as the flags ask for it, with clients and with other members, by rustls.
//!
//! A [`Tls`] is one side of the member. It accepts connections and, where the side is that of the
//! peers, makes them. Before each handshake it looks whether the files of its certificate, its CAs
//! or its revoked certificates say something else than before (`files.rs`), so that a replaced file
//! counts from the next connection on. Connections that are there already stay as they are.
//!
//! `suites.rs` knows versions and cipher suites, `authorities.rs` whom to trust, `terms.rs` what a
//! certificate must be besides, and `self_signed.rs` makes one where none is given.

mod authorities;
#[cfg(test)]
pub(crate) mod authority;
mod files;
mod self_signed;
mod suites;
mod terms;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use self::files::Source;
use self::terms::{AllowedNames, AlternativeNames, Revoked};
use crate::config::{TlsDetails, TransportSecurity, io_text};
use crate::env::{PeerCertificate, blocking};

pub use self::self_signed::with_made_certificate;

/// How one side of the member speaks TLS.
#[derive(Clone)]
pub struct Tls {
    side: Arc<Side>,
    /// Whether a certificate must be for the address from which it is shown.
    checks_addresses: bool,
}

/// What does not change while the server runs, and what does.
struct Side {
    rules: Rules,
    /// Leaf lock: held while files are read, never across a wait.
    state: Mutex<(Material, Current)>,
}

/// What the flags say besides the files.
struct Rules {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    allowed: AllowedNames,
    trust: Trust,
    /// Whether this side makes connections, too.
    dials: bool,
}

/// Who may be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Clients without certificate, and servers of a CA that is trusted.
    Servers,
    /// Clients and servers of a CA that is trusted.
    ClientsAndServers,
    /// Anybody.
    Anybody,
}

/// What is read from files.
struct Material {
    identity: Option<Source<Arc<CertifiedKey>>>,
    /// What is shown to servers, where that is something else.
    client_identity: Option<Source<Arc<CertifiedKey>>>,
    roots: Option<Source<Arc<RootCertStore>>>,
    system_roots: Arc<RootCertStore>,
    revoked: Option<Source<Arc<Revoked>>>,
}

/// What the next handshake goes by. Made anew when a file changes, which also forgets the sessions
/// that could be resumed without a look at the certificate.
#[derive(Clone)]
struct Current {
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    revoked: Arc<Revoked>,
}

/// TLS that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("open {file}: {}", io_text(error))]
    Read {
        /// Which one.
        file: String,
        /// Why not.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot make {file}: {}", io_text(error))]
    Write {
        /// Which one.
        file: String,
        /// Why not.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file}: {reason}")]
    Content {
        /// Which one.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit, or the CA is of no use.
    #[error("tls: {0}")]
    Refused(String),
    /// A cipher suite that etcd has.
    #[error("--cipher-suites: {0} is not available in this release")]
    NoSuchSuite(String),
    /// A cipher suite that there is not.
    #[error("unexpected TLS cipher suite {0:?}")]
    CipherSuite(String),
}

impl Tls {
    /// Reads what clients are served with.
    ///
    /// # Errors
    /// When a file that the flags name is of no use.
    pub fn with_clients(security: &TransportSecurity, details: &TlsDetails) -> Result<Self, TlsError> {
        Ok(Self { side: Arc::new(Side::open(security, details, false)?), checks_addresses: false })
    }

    /// Reads what peers are served and dialled with. Without a certificate they can only be dialled.
    ///
    /// # Errors
    /// When a file that the flags name is of no use.
    pub fn with_peers(security: &TransportSecurity, details: &TlsDetails) -> Result<Self, TlsError> {
        let checks_addresses = !security.skip_client_san_verification;
        Ok(Self { side: Arc::new(Side::open(security, details, true)?), checks_addresses })
    }

    /// The same, but a certificate must be for the address from which it is shown.
    #[must_use]
    pub fn checking_addresses(&self) -> Self {
        Self { side: self.side.clone(), checks_addresses: true }
    }

    /// Whether there is a certificate to show to who connects.
    pub fn accepts(&self) -> bool {
        self.side.state.lock().1.server.is_some()
    }

    /// Shakes hands with who connected; their certificate, where they were asked for one.
    ///
    /// # Errors
    /// When they are not let in.
    pub async fn accept<S>(
        &self,
        socket: S,
        remote: Option<IpAddr>,
    ) -> io::Result<(server::TlsStream<S>, Option<PeerCertificate>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current().await;
        let Some(config) = current.server else {
            return Err(invalid("KeyFile and CertFile are not presented".to_owned()));
        };
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = self.admit(shown, remote, &current.revoked).await.map_err(invalid)?;
        Ok((stream, certificate))
    }

    /// Shakes hands with the server that was connected to under this name.
    ///
    /// # Errors
    /// When it is not to be trusted, or does not want to.
    pub async fn connect<S>(&self, host: &str, socket: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(format!("{host}: {error}")))?;
        let current = self.current().await;
        let Some(config) = current.client else {
            return Err(invalid("this side makes no connections".to_owned()));
        };
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        // Servers must have the names that clients must have, as in etcd.
        self.admit(shown, None, &current.revoked).await.map_err(invalid)?;
        Ok(stream)
    }

    async fn admit(
        &self,
        shown: &[CertificateDer<'_>],
        remote: Option<IpAddr>,
        revoked: &Revoked,
    ) -> Result<Option<PeerCertificate>, String> {
        let Some(first) = shown.first() else { return Ok(None) };
        self.side.rules.allowed.check(first)?;
        if let Some(remote) = remote.filter(|_| self.checks_addresses) {
            AlternativeNames::of(first)?.check(remote).await?;
        }
        revoked.check(shown)?;
        terms::peer_certificate(first).map(Some)
    }

    async fn current(&self) -> Current {
        let side = self.side.clone();
        blocking(move || side.current()).await
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Side {
    fn open(security: &TransportSecurity, details: &TlsDetails, dials: bool) -> Result<Self, TlsError> {
        let asks_clients = security.client_cert_auth || !security.trusted_ca_file.is_empty();
        let rules = Rules {
            provider: Arc::new(suites::provider(&details.cipher_suites)?),
            versions: suites::versions(details),
            allowed: AllowedNames {
                common: security.allowed_common_names.clone(),
                hosts: security.allowed_hostnames.clone(),
            },
            trust: match (security.auto_tls, asks_clients) {
                (true, _) => Trust::Anybody,
                (false, true) => Trust::ClientsAndServers,
                (false, false) => Trust::Servers,
            },
            dials,
        };
        let material = Material::open(security, &rules)?;
        let current = rules.make(&material)?;
        Ok(Self { rules, state: Mutex::new((material, current)) })
    }

    /// What the next handshake goes by.
    fn current(&self) -> Current {
        let mut state = self.state.lock();
        let (material, current) = &mut *state;
        if material.refresh() {
            match self.rules.make(material) {
                Ok(made) => *current = made,
                // What each file says was found good, so this is about all of them.
                Err(error) => tracing::warn!(%error, "TLS files do not go together; what was read before is used"),
            }
        }
        current.clone()
    }
}

impl Material {
    fn open(security: &TransportSecurity, rules: &Rules) -> Result<Self, TlsError> {
        let identity = |certificate: &str, key: &str| {
            if certificate.is_empty() {
                return Ok(None);
            }
            let (files, provider) = ([certificate.to_owned(), key.to_owned()], rules.provider.clone());
            Source::open(files.to_vec(), move |contents| read_identity(&files, contents, &provider)).map(Some)
        };
        let (client_certificate, client_key) = match rules.dials {
            true => (security.client_cert_file.as_str(), security.client_key_file.as_str()),
            false => ("", ""),
        };
        let asks_system = security.trusted_ca_file.is_empty()
            && rules.trust != Trust::Anybody
            && (rules.dials || rules.trust == Trust::ClientsAndServers);
        Ok(Self {
            identity: identity(&security.cert_file, &security.key_file)?,
            client_identity: identity(client_certificate, client_key)?,
            roots: open_file(&security.trusted_ca_file, authorities::of_file)?,
            system_roots: if asks_system { authorities::of_system() } else { Arc::new(RootCertStore::empty()) },
            revoked: open_file(&security.crl_file, Revoked::parse)?,
        })
    }

    /// Looks at every file; whether one says something new.
    fn refresh(&mut self) -> bool {
        let mut changed = false;
        for identity in [&mut self.identity, &mut self.client_identity].into_iter().flatten() {
            changed |= identity.refresh();
        }
        changed |= self.roots.as_mut().is_some_and(Source::refresh);
        changed |= self.revoked.as_mut().is_some_and(Source::refresh);
        changed
    }
}

/// Opens what one file says, where it is given at all.
fn open_file<T: 'static>(
    file: &str,
    parse: impl Fn(&str, &[u8]) -> Result<T, TlsError> + Send + 'static,
) -> Result<Option<Source<Arc<T>>>, TlsError> {
    if file.is_empty() {
        return Ok(None);
    }
    let name = file.to_owned();
    Source::open(vec![file.to_owned()], move |contents| parse(&name, &contents[0]).map(Arc::new)).map(Some)
}

/// A certificate and its key, which must fit.
fn read_identity(
    [certificate, key]: &[String; 2],
    contents: &[Vec<u8>],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = authorities::certificates(certificate, &contents[0])?;
    let private = PrivateKeyDer::from_pem_slice(&contents[1])
        .map_err(|error| TlsError::Content { file: key.clone(), reason: error.to_string() })?;
    CertifiedKey::from_der(chain, private, provider)
        .map(Arc::new)
        .map_err(|error| TlsError::Refused(format!("{certificate}, {key}: {error}")))
}

impl Rules {
    /// Makes of all files what handshakes go by.
    fn make(&self, material: &Material) -> Result<Current, TlsError> {
        let roots = material.roots.as_ref().map_or(&material.system_roots, Source::value);
        let identity = material.identity.as_ref().map(Source::value);
        // What is shown to clients is shown to servers, too, unless there is something else for them.
        let client_identity = material.client_identity.as_ref().map(Source::value).or(identity);
        Ok(Current {
            server: identity.map(|identity| self.server(identity, roots)).transpose()?,
            client: self.dials.then(|| self.client(client_identity, roots)).transpose()?,
            revoked: material.revoked.as_ref().map(|revoked| revoked.value().clone()).unwrap_or_default(),
        })
    }

    fn server(&self, identity: &Arc<CertifiedKey>, roots: &Arc<RootCertStore>) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(refused)?;
        let builder = match self.trust {
            Trust::Servers | Trust::Anybody => builder.with_no_client_auth(),
            Trust::ClientsAndServers => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), self.provider.clone());
                builder.with_client_cert_verifier(verifier.build().map_err(refused)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn client(
        &self,
        identity: Option<&Arc<CertifiedKey>>,
        roots: &Arc<RootCertStore>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(refused)?;
        let builder = match self.trust {
            Trust::Servers | Trust::ClientsAndServers => builder.with_root_certificates(roots.clone()),
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(authorities::Anybody(self.provider.clone()))),
        };
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn refused(error: impl std::fmt::Display) -> TlsError {
    TlsError::Refused(error.to_string())
}

#[cfg(test)]
mod tests;
