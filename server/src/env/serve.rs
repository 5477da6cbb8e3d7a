//! Sockets and what is served on them: HTTP/1.1, HTTP/2 and gRPC on one port.
//!
//! [`bind`] opens every socket of a list of URLs before anything is served, so that a member that
//! cannot have its ports fails at once. [`serve`] is the owner of one socket and its connections.

mod io_threads;
mod listen;
mod stream;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::Service as _;

use self::listen::Security;
use self::stream::{Socket, Stream};
use crate::admission::{Budget, Gate, Origin, Traffic};
use crate::env::{GrpcService, RequestBytes, Secured};
use crate::limits;

pub use self::io_threads::{IoThreads, Placing};
pub use self::listen::{BindError, Listener, SocketOptions, bind};

/// What a port serves.
#[derive(Clone)]
pub enum Content<G = Router> {
    /// gRPC to who asks for it, and pages.
    GrpcAndHttp {
        /// Answers requests of the type `application/grpc`.
        grpc: G,
        /// Answers all others.
        http: Router,
    },
    /// gRPC only.
    Grpc(G),
    /// What a router knows: to clients pages only, to other members their services.
    Routed(Router),
}

impl<G> Content<G> {
    fn traffic(&self) -> &'static str {
        match self {
            Content::GrpcAndHttp { .. } => "grpc+http",
            Content::Grpc(_) => "grpc",
            Content::Routed(_) => "http",
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Hands a connection's requests to whoever answers them; they are always ready.
struct Dispatch<G> {
    content: Content<G>,
    secured: Option<Secured>,
    origin: Origin,
}

impl<G: GrpcService> hyper::service::Service<Request<Incoming>> for Dispatch<G> {
    type Response = Response<Answer<G::Body>>;
    type Error = Infallible;
    type Future = Dispatched<G::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(secured) = &self.secured {
            request.extensions_mut().insert(secured.clone());
        }
        match &self.content {
            Content::GrpcAndHttp { grpc, .. } if is_grpc(&request) => self.by_service(grpc, request),
            Content::Grpc(grpc) => self.by_service(grpc, request),
            Content::GrpcAndHttp { http: router, .. } | Content::Routed(router) => {
                request.extensions_mut().insert(self.origin.clone());
                Dispatched::Routed(Box::pin(router.clone().call(request)))
            }
        }
    }
}

impl<G: GrpcService> Dispatch<G> {
    fn by_service(&self, grpc: &G, request: Request<Incoming>) -> Dispatched<G::Future> {
        Dispatched::Grpc(grpc.answer(request.map(RequestBytes::Socket), &self.origin))
    }
}

/// A response under way. It is kept once for each request in flight, so what is rare and large is boxed.
enum Dispatched<F> {
    Grpc(F),
    Routed(Pin<Box<RouteFuture<Infallible>>>),
}

impl<F, B> Future for Dispatched<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Grpc(answer) => Pin::new(answer).poll(context).map_ok(|response| response.map(Answer::Grpc)),
            Self::Routed(answer) => answer.as_mut().poll(context).map_ok(|response| response.map(Answer::Routed)),
        }
    }
}

/// The body of a response, as it was made.
enum Answer<B> {
    Grpc(B),
    Routed(axum::body::Body),
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Grpc(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Routed(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Grpc(body) => body.is_end_stream(),
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Grpc(body) => body.size_hint(),
            Self::Routed(body) => body.size_hint(),
        }
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
    /// The way in for connections.
    pub admission: Gate,
    /// What each of them may take of the memory.
    pub budget: Budget,
    /// The thread on which each of them lives.
    pub placing: Placing,
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
pub fn serve<G: GrpcService>(
    listener: Listener,
    content: Content<G>,
    stop: watch::Receiver<bool>,
    options: ServeOptions,
) -> JoinHandle<()> {
    let address = listener.address_text();
    match options.purpose {
        Purpose::Client => announce(listener.security(), content.traffic(), &address),
        Purpose::Peer => tracing::info!(address, "serving peer traffic"),
        Purpose::Metrics => tracing::info!(address, "serving metrics"),
    }
    tokio::spawn(accept_loop(listener, content, stop, options))
}

fn announce(security: &Security, traffic: &str, address: &str) {
    if !matches!(security, Security::Tls(_)) {
        tracing::info!(traffic, address, "serving client traffic insecurely; this is strongly discouraged!");
    }
    if !matches!(security, Security::Plain) {
        tracing::info!(traffic, address, "serving client traffic securely");
    }
}

async fn accept_loop<G: GrpcService>(
    listener: Listener,
    content: Content<G>,
    mut stop: watch::Receiver<bool>,
    options: ServeOptions,
) {
    let (builder, purpose) = (connection_builder(&options), options.purpose);
    let mut connections = JoinSet::new();
    loop {
        // Stopping goes first; ended connections are taken off before new ones are taken on.
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok(socket) => {
                    let origin = Origin::of(socket.remote_ip(), None);
                    // Whoever is refused has too many of them, and tries again.
                    let entered = options.admission.enter_now(Traffic::Control, &origin, options.budget.connection());
                    let Ok(hold) = entered else {
                        tracing::debug!("remote-addr" = socket.remote_address(), "no room for another connection");
                        continue;
                    };
                    let counted = options.connections.enter();
                    let (builder, content, stop) = (builder.clone(), content.clone(), stop.clone());
                    let security = listener.security().clone();
                    let (socket, thread) = match options.placing.next() {
                        Some(thread) => (socket.taken_over(&thread), thread),
                        None => (Ok(socket), Handle::current()),
                    };
                    let socket = match socket {
                        Ok(socket) => socket,
                        Err(error) => {
                            tracing::warn!(%error, "cannot take a connection over");
                            continue;
                        }
                    };
                    let serving = async move {
                        let address = socket.remote_ip();
                        if let Some((stream, secured)) = open(socket, &security, purpose, stop.clone()).await {
                            let certificate = secured.as_ref().and_then(|secured| secured.certificate.as_ref());
                            let origin = Origin::of(address, certificate.map(|shown| shown.common_name.as_str()));
                            connection(builder, stream, Dispatch { content, secured, origin }, stop).await;
                        }
                        drop((counted, hold));
                    };
                    connections.spawn_on(serving, &thread);
                }
                // Out of file descriptors, or the client went before it was accepted: others may do better.
                Err(error) => {
                    tracing::warn!(%error, url = %listener.url(), "cannot accept a connection");
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
    builder.http1().timer(TokioTimer::new()).title_case_headers(true).max_buf_size(options.budget.http1_buffer);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .initial_stream_window_size(options.budget.stream_window)
        .initial_connection_window_size(options.budget.connection_window)
        .max_send_buf_size(options.budget.send_buffer)
        .max_header_list_size(limits::HTTP2_HEADER_BYTES)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS);
    builder
}

/// Brings a connection to where HTTP begins; `None` where it does not get there.
async fn open(
    socket: Socket,
    security: &Security,
    purpose: Purpose,
    mut stop: watch::Receiver<bool>,
) -> Option<(Stream, Option<Secured>)> {
    let (remote, address) = (socket.remote_address(), socket.remote_ip());
    let opened = async {
        match security {
            Security::Plain => Ok((Stream::Plain(socket), None)),
            Security::Both(_) if !socket.speaks_tls().await? => Ok((Stream::Plain(socket), None)),
            Security::Tls(tls) | Security::Both(tls) => {
                let (stream, certificate) = tls.accept(socket, address).await?;
                Ok((Stream::Tls(Box::new(stream)), Some(Secured { certificate })))
            }
        }
    };
    // Nothing is lost where the server stops before the first request.
    let opened: io::Result<_> = tokio::select! {
        biased;
        () = stopped(&mut stop) => return None,
        opened = tokio::time::timeout(limits::TLS_HANDSHAKE_TIMEOUT, opened) => match opened {
            Ok(opened) => opened,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    };
    match opened {
        Ok(opened) => Some(opened),
        Err(error) => {
            let endpoint = if purpose == Purpose::Peer { "peer" } else { "client" };
            // Whoever looks whether the port is open says nothing.
            match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    tracing::debug!("remote-addr" = remote, %error, "rejected connection on {endpoint} endpoint");
                }
                _ => tracing::warn!("remote-addr" = remote, %error, "rejected connection on {endpoint} endpoint"),
            }
            None
        }
    }
}

/// Serves one connection to its end.
async fn connection<G: GrpcService>(
    builder: auto::Builder<TokioExecutor>,
    stream: Stream,
    dispatch: Dispatch<G>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), dispatch));
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

#[cfg(test)]
mod tests;
