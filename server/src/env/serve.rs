//! Sockets and what is served on them: HTTP/1.1, HTTP/2 and gRPC on one port.
//!
//! [`bind`] opens every socket of a list of URLs before anything is served, so that a member that
//! cannot have its ports fails at once. [`serve`] is the owner of one socket and its connections.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::routing::future::RouteFuture;
use http::{Request, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::Service as _;

use crate::config::{Url, io_text};
use crate::limits;

/// A socket that is listened on.
pub struct Listener {
    url: Url,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the file when the listener goes.
        _file: SocketFile,
    },
}

/// What the sockets of a member have in common.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// Whether several processes may listen on one port (SO_REUSEPORT).
    pub reuse_port: bool,
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
}

fn address_text(url: &Url) -> String {
    format!("{} {}", if url.is_unix() { "unix" } else { "tcp" }, url.address())
}

/// Listens on every URL, or on none.
pub async fn bind(urls: &[Url], options: SocketOptions) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::with_capacity(urls.len());
    for url in urls {
        let socket = if url.is_unix() {
            bind_unix(url).await.map_err(|error| BindError::Bind { url: url.clone(), error })?
        } else {
            let address = resolve(url).await.map_err(|error| BindError::Resolve { url: url.clone(), error })?;
            let listener = bind_tcp(address, options);
            Socket::Tcp(listener.map_err(|error| BindError::Bind { url: url.clone(), error })?)
        };
        listeners.push(Listener { url: url.clone(), socket });
    }
    Ok(listeners)
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

fn bind_tcp(address: SocketAddr, options: SocketOptions) -> io::Result<TcpListener> {
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
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "address already in use"));
    }
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(Socket::Unix { listener: UnixListener::bind(&path)?, _file: SocketFile(path) })
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

    fn address_text(&self) -> String {
        self.local_address().map_or_else(|| self.url.address().to_owned(), |address| address.to_string())
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small responses must not wait for the acknowledgement of others.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// What a port serves.
#[derive(Clone)]
pub enum Content {
    /// gRPC to who asks for it, and pages.
    GrpcAndHttp {
        /// Answers requests of the type `application/grpc`.
        grpc: axum::Router,
        /// Answers all others.
        http: axum::Router,
    },
    /// gRPC only.
    Grpc(axum::Router),
    /// Pages only.
    Http(axum::Router),
}

impl Content {
    fn traffic(&self) -> &'static str {
        match self {
            Content::GrpcAndHttp { .. } => "grpc+http",
            Content::Grpc(_) => "grpc",
            Content::Http(_) => "http",
        }
    }

    fn for_request<B>(&self, request: &Request<B>) -> &axum::Router {
        match self {
            Content::GrpcAndHttp { grpc, http } => {
                if is_grpc(request) {
                    grpc
                } else {
                    http
                }
            }
            Content::Grpc(router) | Content::Http(router) => router,
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Hands a connection's requests to the routers; they are always ready.
struct Dispatch(Content);

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = RouteFuture<std::convert::Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.for_request(&request).clone().call(request)
    }
}

/// Who a port is for; the log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Clients.
    Client,
    /// Other members.
    Peer,
    /// Monitoring.
    Metrics,
}

/// How a port is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Who it is for.
    pub purpose: Purpose,
    /// Most streams that a connection may have open.
    pub max_concurrent_streams: u32,
    /// Time between two pings of the server; `None` for no pings.
    pub keepalive_interval: Option<Duration>,
    /// Time to answer a ping before the connection is closed.
    pub keepalive_timeout: Duration,
    /// How long requests may take to end once the server stops; then they are cut off.
    pub drain: Duration,
    /// Counts the connections.
    pub connections: ConnectionCount,
}

/// How many connections are open.
#[derive(Clone, Debug, Default)]
pub struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    /// How many there are right now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.0.clone())
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a socket until `stop` becomes true (or its sender goes); then no connection is accepted,
/// each is told to finish, and what has not ended after [`ServeOptions::drain`] is cut off.
pub fn serve(
    listener: Listener,
    content: Content,
    stop: watch::Receiver<bool>,
    options: ServeOptions,
) -> JoinHandle<()> {
    let address = listener.address_text();
    match options.purpose {
        Purpose::Client => tracing::info!(
            traffic = content.traffic(),
            address,
            "serving client traffic insecurely; this is strongly discouraged!"
        ),
        Purpose::Peer => tracing::info!(address, "serving peer traffic"),
        Purpose::Metrics => tracing::info!(address, "serving metrics"),
    }
    tokio::spawn(accept_loop(listener, content, stop, options))
}

async fn accept_loop(listener: Listener, content: Content, mut stop: watch::Receiver<bool>, options: ServeOptions) {
    let builder = connection_builder(&options);
    let mut connections = JoinSet::new();
    loop {
        // Stopping goes first; ended connections are taken off before new ones are taken on.
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    let counted = options.connections.enter();
                    let connection = connection(builder.clone(), stream, content.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(counted);
                    });
                }
                // Out of file descriptors, or the client went before it was accepted: others may do better.
                Err(error) => {
                    tracing::warn!(%error, url = %listener.url, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(options.drain, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        connections.shutdown().await;
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn connection_builder(options: &ServeOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Scripts look for headers as Go writes them.
    builder.http1().timer(TokioTimer::new()).title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HTTP2_HEADER_BYTES)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS);
    builder
}

/// Serves one connection to its end.
async fn connection(
    builder: auto::Builder<TokioExecutor>,
    stream: Stream,
    content: Content,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), Dispatch(content)));
    // The connection goes first: what is done needs no farewell.
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone cannot ask any more: that is the end too.
    let _ended = stop.wait_for(|stop| *stop).await.is_err();
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => pin!(stream).poll_read(cx, buf),
            Stream::Unix(stream) => pin!(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => pin!(stream).poll_write(cx, buf),
            Stream::Unix(stream) => pin!(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => pin!(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => pin!(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => pin!(stream).poll_flush(cx),
            Stream::Unix(stream) => pin!(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => pin!(stream).poll_shutdown(cx),
            Stream::Unix(stream) => pin!(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
