//! The certificates of a whole cluster as files, and what its ports make of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mainstay_client::{Client, ClientOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Authority, Identity, TlsSockets, replace};
use crate::{ProcessCluster, Security};

/// How long who is not let in tries. Who serves answers far sooner.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// How long a member may take to answer who is let in.
const GREETED_WITHIN: Duration = Duration::from_secs(5);

/// All files that the members and their clients name, in a folder that goes with this.
pub struct Files {
    folder: TempDir,
    members: usize,
}

impl Files {
    /// The files of so many members; none of them is there yet.
    pub fn new(members: usize) -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("mainstay-certificates-").tempdir()?, members })
    }

    /// A file of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The certificate and the key of this name.
    pub fn identity(&self, name: &str) -> Identity {
        Identity::in_folder(self.folder.path(), name)
    }

    /// What a cluster needs at its start: one authority, its certificates of the first round, and none revoked.
    pub fn found(&self, authority: &Authority) -> Result<()> {
        self.trust(&[authority])?;
        self.sign_all(authority, 1)?;
        authority.revoke(&self.path("revoked.crl"), &[])
    }

    /// The names of all certificates in use.
    fn names(&self) -> impl Iterator<Item = String> {
        let members = (0..self.members).flat_map(|member| [format!("server{member}"), format!("peer{member}")]);
        members.chain(["client".to_owned(), "visitor".to_owned()])
    }

    /// Signs every certificate anew; those of one round have its number.
    pub fn sign_all(&self, authority: &Authority, round: u8) -> Result<()> {
        for name in self.names() {
            // Peers are let in by this name alone.
            let is_peer = name.starts_with("peer") || name == "visitor";
            let common_name = if is_peer { "member" } else { "other" };
            authority.sign(&self.identity(&name), common_name, u64::from(round))?;
        }
        Ok(())
    }

    /// Trusts these, and nobody else.
    pub fn trust(&self, authorities: &[&Authority]) -> Result<()> {
        replace(&self.path("ca.crt"), authorities.iter().map(|authority| authority.pem()).collect::<String>())
    }

    /// How clients connect.
    pub fn clients(&self) -> TlsSockets {
        TlsSockets { authorities: self.path("ca.crt"), identity: self.identity("client") }
    }

    /// How members are started, and their clients connect.
    pub fn security(&self) -> Security {
        Security { flags: (0..self.members).map(|member| self.flags(member)).collect(), clients: Some(self.clients()) }
    }

    fn flags(&self, member: usize) -> Vec<String> {
        let flag = |name: &str, file: PathBuf| format!("--{name}={}", file.display());
        let (server, peer) = (self.identity(&format!("server{member}")), self.identity(&format!("peer{member}")));
        vec![
            flag("cert-file", server.certificate),
            flag("key-file", server.key),
            flag("trusted-ca-file", self.path("ca.crt")),
            flag("client-crl-file", self.path("revoked.crl")),
            "--client-cert-auth".to_owned(),
            flag("peer-cert-file", peer.certificate),
            flag("peer-key-file", peer.key),
            flag("peer-trusted-ca-file", self.path("ca.crt")),
            flag("peer-crl-file", self.path("revoked.crl")),
            "--peer-client-cert-auth".to_owned(),
            "--peer-cert-allowed-cn=member".to_owned(),
        ]
    }

    /// Both ports of each of these members show a certificate of this round to whoever comes now, and let them in.
    pub async fn serve_by(
        &self,
        cluster: &ProcessCluster,
        members: impl IntoIterator<Item = usize>,
        round: u8,
    ) -> Result<()> {
        for member in members {
            let client = self.clients();
            let peer = TlsSockets { identity: self.identity("visitor"), ..client.clone() };
            for (url, from) in [(cluster.client_url(member), &client), (cluster.listen_peer_url(member), &peer)] {
                let stream = from.open(address(url)?, "h2").await.with_context(|| format!("{url} in round {round}"))?;
                let shown = stream.get_ref().1.peer_certificates().context("no certificate")?;
                ensure!(serial(&shown[0]) == Some(round), "{url} does not show a certificate of round {round}");
            }
            let fresh = Client::with_connector(&client, [cluster.client_url(member)], ClientOptions::default())?;
            fresh.put("round", round.to_string()).await.with_context(|| format!("member {member} in round {round}"))?;
        }
        Ok(())
    }

    /// These members let whoever shows this certificate in, as a client and as a peer.
    pub async fn let_in(
        &self,
        cluster: &ProcessCluster,
        members: impl IntoIterator<Item = usize>,
        identity: &Identity,
    ) -> Result<()> {
        let from = TlsSockets { identity: identity.clone(), ..self.clients() };
        for member in members {
            Client::with_connector(&from, [cluster.client_url(member)], ClientOptions::default())?.status().await?;
            greet(&from, cluster.listen_peer_url(member)).await?;
        }
        Ok(())
    }

    /// These members let whoever shows this certificate in neither as a client nor as a peer.
    pub async fn keep_out(
        &self,
        cluster: &ProcessCluster,
        members: impl IntoIterator<Item = usize>,
        identity: &Identity,
    ) -> Result<()> {
        let from = TlsSockets { identity: identity.clone(), ..self.clients() };
        for member in members {
            let client = Client::with_connector(&from, [cluster.client_url(member)], ClientOptions::default())?;
            ensure!(client.with_timeout(REFUSED_WITHIN).status().await.is_err(), "member {member} serves it");
            let greeted = greet(&from, cluster.listen_peer_url(member)).await;
            ensure!(greeted.is_err(), "member {member} takes it for a peer");
        }
        Ok(())
    }
}

/// The serial number of a certificate, where it is a small one: the first number in it, after the version.
fn serial(der: &[u8]) -> Option<u8> {
    let version = [0xa0, 3, 2, 1, 2, 2, 1];
    let at = der.windows(version.len()).position(|window| window == version)?;
    der.get(at + version.len()).copied()
}

/// Connects, and waits for the first frame of HTTP/2: only who is let in gets one.
async fn greet(from: &TlsSockets, url: &str) -> Result<()> {
    let mut stream = from.open(address(url)?, "h2").await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut head = [0; 9];
    timeout(GREETED_WITHIN, stream.read_exact(&mut head)).await??;
    Ok(())
}

/// The address in a URL.
pub fn address(url: &str) -> Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("no URL")?;
    Ok(address.parse()?)
}
