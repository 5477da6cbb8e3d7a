//! Watches: any number of them over one stream.

mod service;

use std::collections::{BTreeMap, VecDeque};
use std::future;

use futures_util::{Stream, StreamExt, stream};
use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest};
use tonic::codegen::{BoxFuture, BoxStream};
use tonic::{Code, Request, Status, Streaming};

pub(super) use self::service::WatchService;
use super::access::Credentials;
use super::header::{header, revision_of};
use super::status::{self, ApiError};
use super::{Access, Services};
use crate::admission::{Hold, Part};
use crate::auth::{Auth, Right};
use crate::command::Caller;
use crate::limits;
use crate::watch::{SplicedResponse, WatchStream, WatchStreamEnd};

/// Responses that may go out before the client is heard again. It costs much to look for a request where there is none.
const UNHEARD: usize = 16;

impl Services {
    /// Opens a stream of watches.
    async fn open_watches(&self, request: Request<Streaming<WatchRequest>>) -> BoxStream<SplicedResponse> {
        let gateway = self.gateway.clone();
        let (access, credentials) = (self.access.clone(), Credentials::of(&request));
        let hold = Hold::of(request.extensions());
        let session = Session {
            judge: move |request: WatchCreateRequest| judged(access.clone(), credentials.clone(), request),
            watches: self.hub.open_stream_of(hold.identity()).await,
            requests: Some(request.into_inner()),
            header: move |revision| header(&gateway, revision),
            room: WatcherRoom::new(hold),
            unheard: 0,
        };
        Box::pin(session.responses())
    }
}

/// One client's stream. It has no task of its own: it moves when its responses are asked for, so a
/// client that reads slowly is also heard slowly, and the hub alone decides what waits for it.
struct Session<R, H, J> {
    /// Asks whether a watcher may be created.
    judge: J,
    watches: WatchStream,
    /// `None` once the client has closed its side. It is served on, as in etcd: a watch through the
    /// JSON gateway is one request body and then only responses.
    requests: Option<R>,
    /// Makes the header that tells a revision.
    header: H,
    room: WatcherRoom,
    /// Responses that were given since requests were looked for.
    unheard: usize,
}

impl<R, H, J> Session<R, H, J>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin,
    H: Fn(i64) -> ResponseHeader,
    J: Fn(WatchCreateRequest) -> Judged,
{
    fn responses(self) -> impl Stream<Item = Result<SplicedResponse, Status>> {
        // It is handed on with each response, so it had better be small.
        stream::try_unfold(Box::new(self), |mut session| async move {
            let response = session.next().await?;
            Ok(Some((response, session)))
        })
    }

    async fn next(&mut self) -> Result<SplicedResponse, Status> {
        loop {
            if let Some(mut response) = self.watches.take_spliced().await.map_err(ended)? {
                response.head.header = Some((self.header)(revision_of(response.head.header)));
                // While its client does not read, no more is encoded for it than there is room for.
                self.room.told(&response).await;
                return Ok(response);
            }
            if self.unheard < UNHEARD && self.watches.has_arrived() {
                self.unheard += 1;
                continue;
            }
            let requests = self.requests.as_mut().filter(|_| self.watches.takes_requests());
            tokio::select! {
                // Requests first: who asks to cancel is heard while events pour out. How many of them
                // may be ahead of their answers is bounded by `takes_requests`.
                biased;
                Some(request) = async { Some(requests?.next().await) } => match request {
                    Some(request) => self.request(request.map_err(failed)?).await,
                    None => self.requests = None,
                },
                arrival = self.watches.arrival() => {
                    arrival.map_err(ended)?;
                    self.unheard = 0;
                }
            }
        }
    }
}

impl<R, H, J: Fn(WatchCreateRequest) -> Judged> Session<R, H, J> {
    /// Hands a request on, or answers one that must not be.
    async fn request(&mut self, request: WatchRequest) {
        let Some(RequestUnion::CreateRequest(create)) = request.request_union else {
            return self.watches.request(request).await;
        };
        let has_room = self.room.asked(&create);
        match (self.judge)(create).await {
            Ok(create) if has_room => self.watches.create(create).await,
            Ok(_) => self.watches.refuse(ApiError::TooManyRequests.message().to_owned()).await,
            Err(reason) => self.watches.refuse(reason).await,
        }
    }
}

/// What the watchers of one stream take, and their responses on their way.
struct WatcherRoom {
    hold: Hold,
    /// For watchers that were asked for and not answered yet, in order.
    asked: VecDeque<Option<Part>>,
    /// For those that there are, by their ids.
    watchers: BTreeMap<i64, Part>,
}

impl WatcherRoom {
    fn new(hold: Hold) -> Self {
        Self { hold, asked: VecDeque::new(), watchers: BTreeMap::new() }
    }

    /// Takes note of a request for a watcher; whether there is room for it.
    fn asked(&mut self, request: &WatchCreateRequest) -> bool {
        let part = self.hold.part(limits::WATCHER_BYTES + (request.key.len() + request.range_end.len()) as u64);
        let has_room = part.is_some();
        self.asked.push_back(part);
        has_room
    }

    /// Takes note of a response, and waits for room to encode it.
    async fn told(&mut self, response: &SplicedResponse) {
        let head = &response.head;
        if head.created
            && let Some(Some(part)) = self.asked.pop_front()
            && !head.canceled
        {
            self.watchers.insert(head.watch_id, part);
        } else if head.canceled {
            self.watchers.remove(&head.watch_id);
        }
        if self.hold.counts() && response.has_events() {
            let bytes = response.encoded_len() as u64;
            // Smaller ones are in what every stream takes.
            if bytes > FREE_RESPONSE_BYTES {
                self.hold.wait_for(bytes).await;
            }
        }
    }
}

/// Responses that stay below this size are in what every stream takes, so that who reads is told of small changes
/// whatever others of the same client leave unread.
const FREE_RESPONSE_BYTES: u64 = limits::STREAM_BYTES / 4;

/// The request if it may be carried out; otherwise what its client is told.
type Judged = BoxFuture<WatchCreateRequest, String>;

/// Judges a request for a watcher. Only this once: a watcher outlives the permission, as in etcd.
fn judged(access: Access, credentials: Credentials, request: WatchCreateRequest) -> Judged {
    if !access.is_enabled() || request.start_revision < 0 {
        return Box::pin(future::ready(Ok(request)));
    }
    Box::pin(async move {
        let key: &[u8] = if request.key.is_empty() { b"\0" } else { &request.key };
        let judge = |auth: &Auth, caller: &Caller| auth.check(caller, Right::Read, key, &request.range_end);
        match access.permit(&credentials, judge).await {
            Ok(_) => Ok(request),
            Err(error) => Err(status::watch_refusal(error)),
        }
    })
}

/// What ends the stream where its requests fail.
fn failed(status: Status) -> Status {
    match status.code() {
        Code::Cancelled => ApiError::WatchCanceled.into(),
        _ => status,
    }
}

/// What ends the stream where there are no more responses. Clients open another one on both.
fn ended(end: WatchStreamEnd) -> Status {
    match end {
        WatchStreamEnd::Stopped => ApiError::Stopped.into(),
        WatchStreamEnd::Unreadable => ApiError::Timeout.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use bytes::Bytes;
    use mainstay_proto::etcdserverpb::{WatchCancelRequest, WatchResponse};
    use prost::Message;
    use tokio::sync::mpsc;

    use super::*;
    use crate::admission::{Gate, GateOptions, Origin, Traffic};
    use crate::engine::EngineHome;
    use crate::engine::mem::MemHome;
    use crate::metrics::Metrics;
    use crate::mvcc::Writer;
    use crate::watch::{Bounds, Hub, HubOptions};

    type Requests = mpsc::UnboundedSender<Result<WatchRequest, Status>>;

    struct Server {
        writer: Writer,
        hub: Hub,
        /// What its streams hold.
        hold: Hold,
    }

    impl Server {
        fn start() -> Self {
            let writer = Writer::open(MemHome::new().open().unwrap(), 1 << 20).unwrap();
            let options = HubOptions { progress_interval: Duration::from_secs(600), max_response_bytes: 1 << 21 };
            let (hub, _) = Hub::spawn(writer.store(), options, Bounds::STANDARD);
            Self { writer, hub, hold: Hold::default() }
        }

        /// With a gate whose pool has so many bytes.
        fn start_within(pool: u64) -> (Self, Gate) {
            let gate = Gate::new(GateOptions { pool, reserve: 0, long_reads: Some(2) }, &Metrics::new());
            let hold = gate.enter_now(Traffic::Ordinary, &Origin::default(), 0).unwrap();
            (Self { hold, ..Self::start() }, gate)
        }

        async fn open(&self) -> (Requests, impl Stream<Item = Result<WatchResponse, Status>> + use<>) {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let requests = stream::poll_fn(move |context| receiver.poll_recv(context));
            let header = |revision| ResponseHeader { cluster_id: 7, member_id: 8, revision, raft_term: 9 };
            let judge = |request: WatchCreateRequest| -> Judged {
                let denied = request.key == "denied";
                Box::pin(future::ready(if denied { Err("no".to_owned()) } else { Ok(request) }))
            };
            let session = Session {
                judge,
                watches: self.hub.open_stream().await,
                requests: Some(requests),
                header,
                room: WatcherRoom::new(self.hold.clone()),
                unheard: 0,
            };
            (sender, session.responses().map(|response| response.map(SplicedResponse::into_response)))
        }

        async fn put(&mut self, key: &'static str) {
            self.put_value(key, Bytes::new()).await;
        }

        async fn put_value(&mut self, key: &'static str, value: Bytes) {
            let mut txn = self.writer.begin();
            txn.put(key.into(), value, 0).unwrap();
            txn.end();
            let events = self.writer.commit().unwrap();
            self.hub.publish(events).await;
            // So that the hub does not find this together with what is published next.
            tokio::task::yield_now().await;
        }
    }

    fn send(requests: &Requests, union: RequestUnion) {
        requests.send(Ok(WatchRequest { request_union: Some(union) })).unwrap();
    }

    fn create(key: &'static str) -> RequestUnion {
        RequestUnion::CreateRequest(WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() })
    }

    #[tokio::test]
    async fn headers_are_filled() {
        let server = Server::start();
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        requests.send(Ok(WatchRequest::default())).unwrap(); // ignored
        send(&requests, create("a"));
        let created = responses.next().await.unwrap().unwrap();
        let header = ResponseHeader { cluster_id: 7, member_id: 8, revision: 1, raft_term: 9 };
        assert_eq!((created.header, created.created), (Some(header), true));
    }

    #[tokio::test]
    async fn a_watcher_that_is_denied_leaves_the_stream_open() {
        let server = Server::start();
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        send(&requests, create("denied"));
        send(&requests, create("a"));
        let refused = responses.next().await.unwrap().unwrap();
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, &*refused.cancel_reason, refused.header.unwrap().revision), (-1, "no", 1));
        let created = responses.next().await.unwrap().unwrap();
        assert_eq!((created.watch_id, created.created, created.canceled), (0, true, false));
    }

    #[tokio::test]
    async fn a_client_that_closed_its_side_is_served_on() {
        let mut server = Server::start();
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        send(&requests, create("a"));
        drop(requests);
        assert!(responses.next().await.unwrap().unwrap().created);
        server.put("a").await;
        assert_eq!(responses.next().await.unwrap().unwrap().events.len(), 1);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_client_and_with_the_server() {
        let server = Server::start();
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        requests.send(Err(Status::cancelled("h2"))).unwrap();
        let status = responses.next().await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Cancelled, "etcdserver: watch canceled"));
        assert!(responses.next().await.is_none());

        let (_requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        server.hub.stop().await;
        let status = responses.next().await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
    }

    #[tokio::test]
    async fn watchers_take_room_until_they_end() {
        let (server, gate) = Server::start_within(20_000);
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        for key in ["a", "denied", "b"] {
            send(&requests, create(key));
            responses.next().await.unwrap().unwrap();
        }
        assert_eq!(gate.numbers().held, 2 * (limits::WATCHER_BYTES + 1));
        send(&requests, RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
        assert!(responses.next().await.unwrap().unwrap().canceled);
        assert_eq!(gate.numbers().held, limits::WATCHER_BYTES + 1);
        let key = Bytes::from(vec![b'k'; 20_000]);
        let large = WatchCreateRequest { key, ..WatchCreateRequest::default() };
        send(&requests, RequestUnion::CreateRequest(large));
        let refused = responses.next().await.unwrap().unwrap();
        assert!(refused.created && refused.canceled);
        assert_eq!(refused.cancel_reason, "etcdserver: too many requests");
        assert_eq!(gate.numbers().held, limits::WATCHER_BYTES + 1);
    }

    #[tokio::test]
    async fn a_large_response_waits_for_those_before_it_to_leave() {
        let (mut server, gate) = Server::start_within(40_000);
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        send(&requests, create("a"));
        responses.next().await.unwrap().unwrap();
        let own = gate.numbers().held;
        let value = Bytes::from(vec![b'v'; 12_000]);
        for _ in 0..4 {
            server.put_value("a", value.clone()).await;
        }
        let mut unread = Vec::new();
        for _ in 0..2 {
            let response = responses.next().await.unwrap().unwrap();
            // What the transport would do with it.
            unread.push(server.hold.carry(response.encode_to_vec().into()));
        }
        assert!(gate.numbers().held > own + 24_000, "{:?}", gate.numbers());
        let waits = Duration::from_millis(50);
        assert!(tokio::time::timeout(waits, responses.next()).await.is_err(), "there is no room for a third");
        unread.remove(0);
        assert_eq!(responses.next().await.unwrap().unwrap().events.len(), 1);
    }

    #[tokio::test]
    async fn a_cancel_is_heard_while_events_wait() {
        let mut server = Server::start();
        let (requests, responses) = server.open().await;
        let mut responses = pin!(responses);
        send(&requests, create("a"));
        responses.next().await.unwrap().unwrap();
        for _ in 0..limits::WATCH_MAILBOX * 2 {
            server.put("a").await;
        }
        let stats = server.hub.stats();
        while stats.slow_watchers.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        send(&requests, RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
        // A few events are taken, and the request with them, though many other events wait.
        let mut events = 0;
        for _ in 0..=UNHEARD {
            events += responses.next().await.unwrap().unwrap().events.len();
        }
        while stats.watchers.load(Ordering::Relaxed) == 1 {
            tokio::task::yield_now().await;
        }
        loop {
            let response = responses.next().await.unwrap().unwrap();
            events += response.events.len();
            if response.canceled {
                break;
            }
        }
        assert_eq!(events, limits::WATCH_MAILBOX);
    }
}
