//! gRPC over madsim's network: requests and responses as messages, bodies piece by piece.
//!
//! One simulated connection carries one request. Its loss resets the stream as a lost TCP connection
//! would; a partition silences it, and what was sent arrives when the partition ends. What madsim's
//! network does to messages (latency, loss, clogged nodes and links) a simulation sets there; what it
//! cannot do is set link by link as [`LinkConditions`].
//!
//! Two things differ from TCP: there is no keep-alive that gives a silent connection up, so that
//! callers have only their own timeouts, and that an end of a connection is gone is known at the
//! other at once, partition or not.

mod connection;
mod link;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use madsim::net::{Endpoint, Receiver, Sender};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use self::connection::{Head, Incoming, Line, Message, Reader, begin, copy_rest};
pub use self::link::{LinkConditions, clear_detours, clear_links, set_detour, set_link, set_window};
use crate::admission::Origin;

/// Pause between two attempts to connect over a link that lets nothing through.
const CONNECT_RETRY: Duration = Duration::from_millis(200);

/// How much later than the first a duplicate of a request is sent at most.
const DUPLICATE_DELAY: Duration = Duration::from_secs(1);

/// Requests that may arrive twice. Commands and changes to leases are not among them: over TCP they
/// arrive once at most.
const REPEATABLE: [&str; 4] =
    ["/mainstay.Peer/Append", "/mainstay.Peer/Vote", "/mainstay.Peer/PreVote", "/mainstay.Peer/ReadIndex"];

/// The requests that may be damaged, and their answers: those that have checksums.
const CHECKED: [&str; 4] =
    ["/mainstay.Peer/Append", "/mainstay.Peer/SnapshotKept", "/mainstay.Peer/InstallSnapshot", FORWARDS];

/// The request that brings commands which are passed on, batch by batch.
const FORWARDS: &str = "/mainstay.Peer/ForwardMany";

/// A connection to a member of the simulated network, used by one node.
#[derive(Clone)]
pub struct PeerChannel {
    address: SocketAddr,
    connect_timeout: Duration,
    /// This side's socket, bound by the first request.
    endpoint: Arc<OnceLock<Endpoint>>,
}

/// Makes the connections to other members.
#[derive(Clone, Debug, Default)]
pub struct Dialer;

impl Dialer {
    /// Prepares a connection to a URL of the simulated network.
    ///
    /// # Errors
    /// When the URL names no socket address.
    pub fn connect(&self, url: &str, connect_timeout: Duration) -> Result<PeerChannel, String> {
        connect(url, connect_timeout)
    }
}

/// Prepares a connection to a URL of the simulated network.
///
/// # Errors
/// When the URL names no socket address.
pub fn connect(url: &str, connect_timeout: Duration) -> Result<PeerChannel, String> {
    let address = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .trim_end_matches('/')
        .parse()
        .map_err(|error| format!("peer URL {url:?}: {error}"))?;
    Ok(PeerChannel { address, connect_timeout, endpoint: Arc::default() })
}

/// Answers requests at an address until the returned future is dropped.
///
/// # Errors
/// When the address is taken.
pub async fn serve(address: SocketAddr, routes: tonic::service::Routes) -> std::io::Result<()> {
    let endpoint = Endpoint::bind(address).await?;
    let _listening = link::Listening::at(address);
    loop {
        let (sender, receiver, from) = endpoint.accept1().await?;
        let routes = routes.clone();
        tokio::task::spawn(async move {
            // A broken connection ends its request and nothing else.
            drop(answer(routes, from, sender, receiver).await);
        });
    }
}

async fn answer(
    mut routes: tonic::service::Routes,
    from: SocketAddr,
    sender: Sender,
    receiver: Receiver,
) -> std::io::Result<()> {
    let line = Line::new(sender, madsim::plugin::node());
    let mut reader = Reader::new(receiver, line.clone());
    let Some(mut message) = reader.next().await else {
        return Ok(());
    };
    let Some(Head::Request(caller, head)) = message.head.take() else {
        return Ok(());
    };
    line.leads_to(caller);
    if CHECKED.contains(&head.uri.path()) {
        line.has_checksums();
    }
    let mut request = http::Request::from_parts(head, Body::new(Incoming::new(message, reader, None)));
    request.extensions_mut().insert(Origin::of(Some(from.ip()), None));
    let response = {
        let call = std::pin::pin!(routes.call(request));
        // A caller that is gone takes its request with it, as a reset stream does.
        let gone = std::pin::pin!(line.closed());
        match select(call, gone).await {
            Either::Left((response, _)) => response,
            Either::Right(_) => return Ok(()),
        }
    };
    let (head, mut body) = match response {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    };
    let message = begin(Head::Response(head), &mut body);
    let ends = message.ends;
    line.send(message).await?;
    if ends {
        return Ok(());
    }
    let copy = std::pin::pin!(copy_rest(body, line.clone()));
    let gone = std::pin::pin!(line.closed());
    match select(copy, gone).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Ok(()),
    }
}

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(exchange(self.clone(), request))
    }
}

/// An error of any kind, as tonic and tower pass them.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure before anything was sent, in the type by which a caller knows it.
fn not_connected(error: std::io::Error) -> BoxError {
    Box::new(tonic::ConnectError(Box::new(error)))
}

impl PeerChannel {
    /// Opens a connection, as long as TCP would try to.
    async fn open(&self) -> std::io::Result<(Arc<Line>, Reader)> {
        match crate::env::clock::timeout(self.connect_timeout, self.dial()).await {
            Ok(opened) => opened,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    /// This side's socket. Who binds it first wins, and nobody waits for who is not asked on: a question to a voter may be
    /// left alone when others have answered.
    async fn endpoint(&self) -> std::io::Result<&Endpoint> {
        if let Some(endpoint) = self.endpoint.get() {
            return Ok(endpoint);
        }
        let bound = Endpoint::bind("0.0.0.0:0").await?;
        // Another request may have been faster.
        Ok(self.endpoint.get_or_init(|| bound))
    }

    async fn dial(&self) -> std::io::Result<(Arc<Line>, Reader)> {
        let (from, address) = (madsim::plugin::node(), link::led_to(self.address));
        let endpoint = self.endpoint().await?;
        let fate = link::listener(address).and_then(|to| {
            link::on_link(from, to, |conditions| (link::happens(conditions.refuse), link::happens(conditions.ignore)))
        });
        match fate {
            Some((true, _)) => return Err(std::io::ErrorKind::ConnectionRefused.into()),
            Some((_, true)) => std::future::pending().await,
            _ => {}
        }
        loop {
            let refusal = match endpoint.connect1(address).await {
                Ok((sender, receiver)) => {
                    let line = Line::new(sender, from);
                    if let Some(to) = link::listener(address) {
                        line.leads_to(to);
                    }
                    return Ok((line.clone(), Reader::new(receiver, line)));
                }
                Err(refusal) => refusal,
            };
            // madsim refuses a connection over a clogged link, where TCP would get no answer.
            if link::listener(address).is_none() {
                return Err(refusal);
            }
            madsim::time::sleep(CONNECT_RETRY).await;
        }
    }
}

async fn exchange(channel: PeerChannel, request: http::Request<Body>) -> Result<http::Response<Body>, BoxError> {
    let (line, mut reader) = channel.open().await.map_err(not_connected)?;
    let (head, mut body) = request.into_parts();
    let repeatable = REPEATABLE.contains(&head.uri.path());
    if CHECKED.contains(&head.uri.path()) {
        line.has_checksums();
    }
    if head.uri.path() == FORWARDS {
        line.forwards();
    }
    let message = begin(Head::Request(madsim::plugin::node(), head), &mut body);
    if repeatable && line.duplicates() {
        drop(tokio::task::spawn(duplicate(channel, message.clone())));
    }
    let ends = message.ends;
    line.send(message).await?;
    let copying = (!ends).then(|| AbortOnDrop(tokio::task::spawn(copy_rest(body, line))));
    let Some(mut first) = reader.next().await else {
        return Err(Status::unavailable("connection reset").into());
    };
    let Some(Head::Response(head)) = first.head.take() else {
        return Err(Status::unavailable("connection reset").into());
    };
    Ok(http::Response::from_parts(head, Body::new(Incoming::new(first, reader, copying))))
}

/// Sends the beginning of a request once more; nobody reads the answer.
async fn duplicate(channel: PeerChannel, mut message: Message) {
    madsim::time::sleep(link::draw(&(Duration::ZERO..DUPLICATE_DELAY))).await;
    let Ok((line, mut reader)) = channel.open().await else {
        return;
    };
    message.ends = true;
    if line.send(message).await.is_ok() {
        // Until it was answered: who hangs up early takes the request back.
        while reader.next().await.is_some_and(|answer| !answer.ends) {}
    }
}

/// Ends the copying of a request's body when its response is dropped.
struct AbortOnDrop(tokio::task::JoinHandle<std::io::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
