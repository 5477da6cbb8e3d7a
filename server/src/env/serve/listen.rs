use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream, lookup_host};

use super::stream::Socket as Accepted;
use crate::config::{Url, io_text};
use crate::env::tls::Tls;
use crate::limits;

/// A socket that is listened on.
pub struct Listener {
    url: Url,
    socket: Socket,
    security: Security,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the file when the listener goes.
        _file: SocketFile,
    },
}

/// Whether TLS is spoken on a socket.
#[derive(Clone)]
pub(super) enum Security {
    Plain,
    Tls(Tls),
    /// Each connection decides by its first byte.
    Both(Tls),
}

/// What the sockets of a member have in common.
#[derive(Clone, Default)]
pub struct SocketOptions {
    /// Whether several processes may listen on one port (SO_REUSEPORT).
    pub reuse_port: bool,
    /// What URLs that ask for TLS are served with.
    pub tls: Option<Tls>,
    /// Whether each URL wants a port of its own, so that none speaks both plain text and TLS.
    pub separate: bool,
}

/// A socket that cannot be listened on; the texts are Go's, with the URL behind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host has no address.
    #[error("listen tcp: lookup {}: {} ({url})", url.host().unwrap_or_default(), io_text(error))]
    Resolve {
        /// Where to listen.
        url: Url,
        /// Why not.
        error: io::Error,
    },
    /// The address cannot be had.
    #[error("listen {}: bind: {} ({url})", address_text(url), io_text(error))]
    Bind {
        /// Where to listen.
        url: Url,
        /// Why not.
        error: io::Error,
    },
    /// There is no certificate to show.
    #[error("cannot listen on TLS for {}: KeyFile and CertFile are not presented", url.address())]
    NoCertificate {
        /// Where to listen.
        url: Url,
    },
}

fn address_text(url: &Url) -> String {
    format!("{} {}", if url.is_unix() { "unix" } else { "tcp" }, url.address())
}

/// Listens on every URL, or on none. URLs of one address share a socket: one of them may ask for TLS.
pub async fn bind(urls: &[Url], options: &SocketOptions) -> Result<Vec<Listener>, BindError> {
    let mut listeners: Vec<Listener> = Vec::with_capacity(urls.len());
    for url in urls {
        let security = match (&options.tls, url.is_tls()) {
            (_, false) => Security::Plain,
            (Some(tls), true) => Security::Tls(tls.clone()),
            (None, true) => return Err(BindError::NoCertificate { url: url.clone() }),
        };
        if let Some(same) = listeners.iter_mut().find(|other| is_same_port(&other.url, url)) {
            if options.separate {
                return Err(BindError::Bind { url: url.clone(), error: in_use() });
            }
            same.security = match (&same.security, security) {
                (Security::Plain, Security::Tls(tls)) => Security::Both(tls),
                (Security::Tls(tls), Security::Plain) => Security::Both(tls.clone()),
                (first, _) => first.clone(),
            };
            continue;
        }
        let socket = if url.is_unix() {
            bind_unix(url).await.map_err(|error| BindError::Bind { url: url.clone(), error })?
        } else {
            let address = resolve(url).await.map_err(|error| BindError::Resolve { url: url.clone(), error })?;
            let listener = bind_tcp(address, options);
            Socket::Tcp(listener.map_err(|error| BindError::Bind { url: url.clone(), error })?)
        };
        listeners.push(Listener { url: url.clone(), socket, security });
    }
    Ok(listeners)
}

/// Whether two URLs are of one port, whose number was chosen.
fn is_same_port(one: &Url, other: &Url) -> bool {
    !one.is_unix() && !other.is_unix() && one.address() == other.address() && one.port() != Some(0)
}

/// The address of a URL; of several the first of IPv4, as in Go.
async fn resolve(url: &Url) -> io::Result<SocketAddr> {
    let (Some(host), Some(port)) = (url.host(), url.port()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn bind_tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As Go does for every listener: a restarted member gets its port although old connections linger.
    socket.set_reuseaddr(true)?;
    if options.reuse_port {
        socket.set_reuseport(true)?;
    }
    // Accepted connections inherit it; finds peers that went without a word.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(limits::LISTEN_BACKLOG)
}

async fn bind_unix(url: &Url) -> io::Result<Socket> {
    let path = PathBuf::from(url.address());
    // A file that a killed process left behind is in the way; one that is listened on is not ours to take.
    if UnixStream::connect(&path).await.is_ok() {
        return Err(in_use());
    }
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(Socket::Unix { listener: UnixListener::bind(&path)?, _file: SocketFile(path) })
}

/// An address that is taken, in the system's words.
fn in_use() -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, "address already in use")
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone with its folder.
        let _gone = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// The URL that it was bound for.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where it listens: of use where the port was 0. A Unix socket has none.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    pub(super) fn address_text(&self) -> String {
        self.local_address().map_or_else(|| self.url.address().to_owned(), |address| address.to_string())
    }

    pub(super) fn security(&self) -> &Security {
        &self.security
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small responses must not wait for the acknowledgement of others.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
            Socket::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}
