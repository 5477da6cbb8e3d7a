use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::env::tls::Tls;

/// A connection to a member that is made, and made again, when it is needed.
pub type PeerChannel = Channel;

/// A frame without an answer for this long means that the connection is dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Window of one stream: a batch of large values must not wait for window updates.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Makes the connections to other members.
#[derive(Clone, Default)]
pub struct Dialer {
    /// Where connections live, whoever makes them: consensus must not depend on a thread that answers clients.
    home: Option<Handle>,
    /// What URLs that ask for TLS are dialled with.
    tls: Option<Arc<Secure>>,
}

struct Secure {
    tls: Tls,
    /// Why a member was last refused, so that it is said once and not at each attempt. A leaf lock.
    complaints: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dialer").field("tls", &self.tls.is_some()).finish()
    }
}

impl Dialer {
    /// Dials members whose URLs ask for TLS, too; connections live on the runtime of who calls this.
    pub fn with_tls(tls: Tls) -> Self {
        Self { home: Handle::try_current().ok(), tls: Some(Arc::new(Secure { tls, complaints: Mutex::default() })) }
    }

    /// Prepares a connection to a peer URL; nothing is sent before the first request.
    ///
    /// # Errors
    /// When the URL cannot be dialled at all.
    pub fn connect(&self, url: &str, connect_timeout: Duration) -> Result<PeerChannel, String> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("peer URL {url:?}: {error}"))?;
        let endpoint = match &self.home {
            Some(home) => endpoint.executor(Home(home.clone())),
            None => endpoint,
        };
        let endpoint = endpoint
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(4 * STREAM_WINDOW_BYTES);
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint.connect_lazy());
        }
        let Some(secure) = self.tls.clone() else {
            return Err(format!("peer URL {url:?}: this member speaks no TLS"));
        };
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let secure = secure.clone();
            async move { secure.open(&uri).await.map(TokioIo::new) }
        })))
    }
}

/// Runs what belongs to connections on one runtime.
#[derive(Clone)]
struct Home(Handle);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Home {
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

impl Secure {
    async fn open(&self, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // IPv6 stands in brackets, and nowhere but in URLs.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, port)).await?;
        socket.set_nodelay(true)?;
        let opened = self.tls.connect(host, socket).await;
        let member = format!("{host}:{port}");
        match &opened {
            Ok(_) => drop(self.complaints.lock().remove(&member)),
            Err(error) => {
                let complaint = error.to_string();
                if self.complaints.lock().insert(member.clone(), complaint.clone()) != Some(complaint) {
                    tracing::warn!("remote-peer" = member, %error, "TLS with a peer failed");
                }
            }
        }
        opened
    }
}
