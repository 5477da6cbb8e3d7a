use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::connection::next;
use super::reply::Reply;
use super::unframe;

/// What arrives on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message without its envelope.
    Message(Bytes),
    /// The end; nothing comes after it.
    End(Reply),
}

/// A stream of requests and responses. Dropping it resets it.
#[derive(Debug)]
pub struct Stream {
    sender: SendStream<Bytes>,
    incoming: UnboundedReceiver<Incoming>,
    reader: JoinHandle<()>,
}

impl Stream {
    pub(super) fn new(response: ResponseFuture, sender: SendStream<Bytes>) -> Self {
        let (arrivals, incoming) = unbounded_channel();
        let reader = tokio::spawn(async move {
            let end = read(response, &arrivals).await.unwrap_or_else(Reply::broken);
            // Nobody listens any more where the stream was dropped.
            arrivals.send(Incoming::End(end)).ok();
        });
        Self { sender, incoming, reader }
    }

    /// Sends bytes, envelope included.
    pub fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.sender.send_data(bytes, false).context("sending on a stream")
    }

    /// Says that no more requests come; the server may still answer.
    pub fn half_close(&mut self) -> Result<()> {
        self.sender.send_data(Bytes::new(), true).context("closing a stream")
    }

    /// Waits for what comes next.
    pub async fn next(&mut self) -> Result<Incoming> {
        self.incoming.recv().await.context("the stream has ended before")
    }

    /// What has come already.
    pub fn arrived(&mut self) -> Option<Incoming> {
        self.incoming.try_recv().ok()
    }

    /// Waits for a message; an end is an error.
    pub async fn message(&mut self) -> Result<Bytes> {
        match self.next().await? {
            Incoming::Message(message) => Ok(message),
            Incoming::End(reply) => bail!("the stream has ended: {:?} {}", reply.code, reply.text),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.sender.send_reset(Reason::CANCEL);
        self.reader.abort();
    }
}

async fn read(response: ResponseFuture, arrivals: &UnboundedSender<Incoming>) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut arrived = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        arrived.extend_from_slice(&data);
        while let Some(message) = unframe(&mut arrived) {
            arrivals.send(Incoming::Message(message)).ok();
        }
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = Reply::status(&trailers).or_else(|| Reply::status(&head.headers));
    Ok(status.map_or_else(
        || Reply::broken(format!("no grpc-status, HTTP status {}", head.status)),
        |(code, text)| Reply { code: Some(code), text, messages: Vec::new() },
    ))
}
