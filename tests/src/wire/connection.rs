use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::reply::Reply;
use super::stream::Stream;
use super::unframe;

/// What a client takes in before it says that it has read: far above any answer of a test.
const WINDOW: u32 = 64 << 20;
/// How long a connection may take until it is made.
const CONNECTS_WITHIN: Duration = Duration::from_secs(10);

/// One HTTP/2 connection. Calls on it run at the same time; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    authority: String,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    /// Connects to a server that speaks HTTP/2 without TLS.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address), address, WINDOW).await
    }

    /// The same from one of this machine's addresses of version 4. It takes in so many bytes before it says that it has
    /// read.
    pub async fn open_from(source: IpAddr, address: SocketAddr, window: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("binding to {source}"))?;
        Self::over(socket.connect(address), address, window).await
    }

    async fn over(
        connected: impl Future<Output = io::Result<TcpStream>>,
        address: SocketAddr,
        window: u32,
    ) -> Result<Self> {
        let (requests, connection) = timeout(CONNECTS_WITHIN, async {
            let socket = connected.await?;
            socket.set_nodelay(true)?;
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(window).initial_connection_window_size(window).enable_push(false);
            builder.handshake(socket).await.map_err(io::Error::other)
        })
        .await
        .with_context(|| format!("connecting to {address} takes too long"))?
        .with_context(|| format!("connecting to {address}"))?;
        Ok(Self { requests, authority: address.to_string(), driver: tokio::spawn(connection) })
    }

    /// Whether the connection can take no further call.
    pub fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    /// Makes a call whose request is these bytes, envelope included, and waits for its end.
    pub async fn call(&self, path: &str, metadata: &HeaderMap, request: Bytes) -> Reply {
        let call = async {
            let (response, mut sender) = self.begin(path, metadata).await?;
            sender.send_data(request, true)?;
            read(response).await
        };
        call.await.unwrap_or_else(Reply::broken)
    }

    /// The same, and forgets the messages that come as they come.
    pub async fn call_and_forget(&self, path: &str, metadata: &HeaderMap, request: Bytes) -> Reply {
        let call = async {
            let (response, mut sender) = self.begin(path, metadata).await?;
            sender.send_data(request, true)?;
            read_past(response).await
        };
        call.await.unwrap_or_else(Reply::broken)
    }

    /// Sends these requests and no more, and reads nothing of what they are answered.
    pub async fn leave_unread(&self, path: &str, metadata: &HeaderMap, requests: Bytes) -> Result<Unread> {
        let (response, mut sender) = self.begin(path, metadata).await?;
        sender.send_data(requests, true)?;
        Ok(Unread { _response: response })
    }

    /// Opens a stream of requests and responses.
    pub async fn stream(&self, path: &str, metadata: &HeaderMap) -> Result<Stream> {
        let (response, sender) = self.begin(path, metadata).await?;
        Ok(Stream::new(response, sender))
    }

    async fn begin(&self, path: &str, metadata: &HeaderMap) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("paths of methods are well-formed");
        request.headers_mut().extend(metadata.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.requests.clone().ready().await?.send_request(request, false)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A call that nobody reads the answer of. Dropping it resets it.
#[derive(Debug)]
pub struct Unread {
    _response: ResponseFuture,
}

/// Reads a response to its end.
async fn read_past(response: ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    while next(&mut body).await?.is_some() {}
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = Reply::status(&trailers).or_else(|| Reply::status(&head.headers));
    Ok(status.map_or_else(
        || Reply::broken("no grpc-status"),
        |(code, text)| Reply { code: Some(code), text, messages: Vec::new() },
    ))
}

/// Reads a whole response.
async fn read(response: ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    if head.status != http::StatusCode::OK {
        return Ok(Reply::broken(format!("HTTP status {}", head.status)));
    }
    let mut messages = Vec::new();
    let mut arrived = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        arrived.extend_from_slice(&data);
        messages.extend(std::iter::from_fn(|| unframe(&mut arrived)));
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = Reply::status(&trailers).or_else(|| Reply::status(&head.headers));
    Ok(match status {
        Some((code, text)) => Reply { code: Some(code), text, messages },
        None => Reply { messages, ..Reply::broken("no grpc-status") },
    })
}

/// The next piece of a body. What was read makes room for more.
pub(super) async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = body.data().await.transpose()? else { return Ok(None) };
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}
