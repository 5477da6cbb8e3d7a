//! One of the two servers, and the connections of all clients to it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::time::timeout;

use mainstay_tests::wire::{Connection, Incoming, Reply, Stream, frame};
use mainstay_tests::{Server, schema};

use crate::allowed::{Answer, Choices};
use crate::step::{CLIENTS, ROOT, ROOT_PASSWORD};

/// How long a server may take for an answer.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// Short elections make short leases: the least TTL is derived from them. The work factor of passwords is
/// the least, since a run hashes many.
const FLAGS: [&str; 4] = ["--heartbeat-interval=10", "--election-timeout=100", "--bcrypt-cost=4", "--log-level=warn"];

/// A server and its clients.
pub(crate) struct Side {
    /// What reports call it.
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    pub(crate) choices: Choices,
    clients: Vec<Client>,
    /// The connection of the watch on everything.
    observer: Connection,
}

struct Client {
    connection: Connection,
    metadata: HeaderMap,
    renewals: Option<Stream>,
}

impl Side {
    pub(crate) async fn start(name: &'static str, binary: &Path) -> Result<Self> {
        let server = Server::start(binary, &FLAGS).await.with_context(|| format!("starting {name}"))?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let connection = Connection::open(server.address()).await?;
            clients.push(Client { connection, metadata: HeaderMap::new(), renewals: None });
        }
        let observer = Connection::open(server.address()).await?;
        let mut side = Self { name, server, choices: Choices::default(), clients, observer };
        side.learn_choices().await?;
        Ok(side)
    }

    /// Asks for the ids that the server has made up.
    async fn learn_choices(&mut self) -> Result<()> {
        let list = schema::method("Cluster.MemberList").context("the method exists")?;
        let answer = self.call(0, &list, &DynamicMessage::new(list.input())).await;
        let response = answer.messages.first().with_context(|| format!("{}: {}", self.name, answer.text))?;
        let header = schema::inner(response, "header").context("a list has a header")?;
        let number = |field: &str| header.get_field_by_name(field).and_then(|value| value.as_u64()).unwrap_or(0);
        self.choices.cluster = number("cluster_id");
        self.choices.member = number("member_id");
        self.choices.urls = self.server.urls().to_vec();
        Ok(())
    }

    /// Makes a call and waits for its end.
    pub(crate) async fn call(&self, client: usize, method: &MethodDescriptor, request: &DynamicMessage) -> Answer {
        let Client { connection, metadata, .. } = &self.clients[client];
        let path = schema::path(method);
        let call = connection.call(&path, metadata, frame(&request.encode_to_vec()));
        let reply = timeout(ANSWERS_WITHIN, call).await.unwrap_or_else(|_| late());
        self.understood(method, reply)
    }

    /// Sends a renewal on the client's stream and waits for its answer, or for the end of the stream.
    pub(crate) async fn renew(&mut self, client: usize, method: &MethodDescriptor, request: &DynamicMessage) -> Answer {
        let path = schema::path(method);
        let renewed = timeout(ANSWERS_WITHIN, self.clients[client].renew(&path, request)).await;
        let reply = match renewed {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::broken(error),
            Err(_) => late(),
        };
        if !reply.is_ok() {
            self.clients[client].renewals = None;
        }
        self.understood(method, reply)
    }

    /// Opens a watch stream for a client.
    pub(crate) async fn watch_stream(&self, client: usize) -> Result<Stream> {
        let Client { connection, metadata, .. } = &self.clients[client];
        connection.stream(WATCH, metadata).await
    }

    /// Opens the watch stream that sees everything.
    pub(crate) async fn observer_stream(&self) -> Result<Stream> {
        self.observer.stream(WATCH, &HeaderMap::new()).await
    }

    /// Opens a watch stream of somebody who may watch everything, whether authentication is on or not.
    pub(crate) async fn root_stream(&self) -> Result<Stream> {
        let method = schema::method("Auth.Authenticate").context("the method exists")?;
        let text = format!("name: {ROOT:?} password: {ROOT_PASSWORD:?}");
        let request = DynamicMessage::parse_text_format(method.input(), &text)?;
        let reply =
            self.observer.call(&schema::path(&method), &HeaderMap::new(), frame(&request.encode_to_vec())).await;
        let answer = self.understood(&method, reply);
        let token = answer.messages.first().and_then(|response| response.get_field_by_name("token"));
        self.observer
            .stream(WATCH, &with_token(token.as_ref().and_then(|token| token.as_str()).unwrap_or_default()))
            .await
    }

    /// From now on the client says that it is who was given this token.
    pub(crate) fn take_token(&mut self, client: usize, token: &str) {
        let client = &mut self.clients[client];
        client.metadata = with_token(token);
        // A stream is who opened it.
        client.renewals = None;
    }

    fn understood(&self, method: &MethodDescriptor, reply: Reply) -> Answer {
        let messages: Result<Vec<_>, _> =
            reply.messages.into_iter().map(|message| DynamicMessage::decode(method.output(), message)).collect();
        match messages {
            Ok(messages) => Answer { code: reply.code, text: reply.text, messages },
            Err(error) => Answer { code: None, text: format!("does not decode: {error}"), messages: Vec::new() },
        }
    }
}

/// Where watches are opened.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// What a client says of itself: nothing, or its token.
fn with_token(token: &str) -> HeaderMap {
    let token = HeaderValue::from_str(token).ok().filter(|token| !token.is_empty());
    token.map(|token| (HeaderName::from_static("token"), token)).into_iter().collect()
}

fn late() -> Reply {
    Reply::broken(format!("no answer within {ANSWERS_WITHIN:?}"))
}

impl Client {
    async fn renew(&mut self, path: &str, request: &DynamicMessage) -> Result<Reply> {
        if self.renewals.is_none() {
            self.renewals = Some(self.connection.stream(path, &self.metadata).await?);
        }
        let stream = self.renewals.as_mut().context("it was just opened")?;
        stream.send(frame(&request.encode_to_vec()))?;
        Ok(match stream.next().await? {
            Incoming::Message(message) => Reply { code: Some(0), text: String::new(), messages: vec![message] },
            Incoming::End(reply) => reply,
        })
    }
}
