//! gRPC over madsim's network: requests and responses as messages, bodies frame by frame.
//!
//! One simulated connection carries one request. Its loss resets the stream as a lost TCP
//! connection would; a partition silences it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use madsim::net::{Endpoint, Payload};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

/// What travels: the head of a request or response, then its frames, then its end.
enum Message {
    Request(http::request::Parts),
    Response(http::response::Parts),
    Data(Bytes),
    Trailers(http::HeaderMap),
    End,
}

/// A connection to a member of the simulated network.
#[derive(Clone)]
pub struct PeerChannel {
    address: SocketAddr,
    connect_timeout: Duration,
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
    Ok(PeerChannel { address, connect_timeout })
}

/// Answers requests at an address until the returned future is dropped.
///
/// # Errors
/// When the address is taken.
pub async fn serve(address: SocketAddr, routes: tonic::service::Routes) -> std::io::Result<()> {
    let endpoint = Endpoint::bind(address).await?;
    loop {
        let (sender, receiver, _) = endpoint.accept1().await?;
        let routes = routes.clone();
        tokio::task::spawn(async move {
            // A broken connection ends its request and nothing else.
            drop(answer(routes, sender, receiver).await);
        });
    }
}

type Sender = madsim::net::Sender;
type Receiver = madsim::net::Receiver;

async fn answer(mut routes: tonic::service::Routes, sender: Sender, mut receiver: Receiver) -> std::io::Result<()> {
    let Some(Message::Request(head)) = next(&mut receiver).await else {
        return Ok(());
    };
    let sender = Arc::new(sender);
    let request = http::Request::from_parts(head, incoming(receiver, sender.clone()));
    let response = {
        let call = std::pin::pin!(routes.call(request));
        // A caller that is gone takes its request with it, as a reset stream does.
        let gone = std::pin::pin!(sender.closed());
        match futures_util::future::select(call, gone).await {
            futures_util::future::Either::Left((response, _)) => response,
            futures_util::future::Either::Right(_) => return Ok(()),
        }
    };
    let (head, body) = match response {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    };
    send(&sender, Message::Response(head)).await?;
    let copy = std::pin::pin!(outgoing(body, sender.clone()));
    let gone = std::pin::pin!(sender.closed());
    match futures_util::future::select(copy, gone).await {
        futures_util::future::Either::Left((result, _)) => result,
        futures_util::future::Either::Right(_) => Ok(()),
    }
}

async fn send(sender: &Sender, message: Message) -> std::io::Result<()> {
    let payload: Payload = Box::new(std::sync::Mutex::new(Some(message)));
    sender.send(payload).await
}

async fn next(receiver: &mut Receiver) -> Option<Message> {
    let payload = receiver.recv().await.ok()?;
    let cell = payload.downcast::<std::sync::Mutex<Option<Message>>>().ok()?;
    cell.into_inner().ok().flatten()
}

/// Copies a body to the other side.
async fn outgoing<B>(mut body: B, sender: Arc<Sender>) -> std::io::Result<()>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Ok(()); // dropped without an end: the reader sees a reset
        };
        match frame.into_data() {
            Ok(data) => send(&sender, Message::Data(data)).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    send(&sender, Message::Trailers(trailers)).await?;
                }
            }
        }
    }
    send(&sender, Message::End).await
}

/// Turns what arrives into a body. It holds the sending half too: dropping the body closes both.
fn incoming(receiver: Receiver, sender: Arc<Sender>) -> Body {
    let frames = futures_util::stream::unfold(Some((receiver, sender)), |state| async move {
        let (mut receiver, sender) = state?;
        match next(&mut receiver).await {
            Some(Message::Data(data)) => Some((Ok(Frame::data(data)), Some((receiver, sender)))),
            Some(Message::Trailers(trailers)) => Some((Ok(Frame::trailers(trailers)), Some((receiver, sender)))),
            Some(Message::End) => None,
            _ => Some((Err(Status::unavailable("connection reset")), None)),
        }
    });
    Body::new(StreamBody::new(frames.boxed()))
}

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(exchange(self.address, self.connect_timeout, request))
    }
}

/// An error of any kind, as tonic and tower pass them.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure before anything was sent, in the type by which a caller knows it.
fn not_connected(error: std::io::Error) -> BoxError {
    Box::new(tonic::ConnectError(Box::new(error)))
}

async fn exchange(
    address: SocketAddr,
    connect_timeout: Duration,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, BoxError> {
    let endpoint = Endpoint::bind("0.0.0.0:0").await.map_err(not_connected)?;
    let (sender, mut receiver) = tokio::time::timeout(connect_timeout, endpoint.connect1(address))
        .await
        .map_err(|_| not_connected(std::io::ErrorKind::TimedOut.into()))?
        .map_err(not_connected)?;
    let sender = Arc::new(sender);
    let (head, body) = request.into_parts();
    send(&sender, Message::Request(head)).await?;
    let copy = tokio::task::spawn(outgoing(body, sender.clone()));
    let guard = AbortOnDrop(copy);
    let Some(Message::Response(head)) = next(&mut receiver).await else {
        return Err(Status::unavailable("connection reset").into());
    };
    let frames = futures_util::stream::unfold(Some((incoming(receiver, sender), guard)), |state| async move {
        let (mut body, guard) = state?;
        let frame = body.frame().await?;
        Some((frame, Some((body, guard))))
    });
    Ok(http::Response::from_parts(head, Body::new(StreamBody::new(frames.boxed()))))
}

/// Ends the copying of a request's body when its response is dropped.
struct AbortOnDrop(tokio::task::JoinHandle<std::io::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
