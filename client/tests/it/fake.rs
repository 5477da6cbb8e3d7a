//! A small etcd in this process, behind endpoints whose network can be made to fail.
//!
//! Every endpoint leads to the same store. Requests take the whole way through generated client and
//! server code; only the sockets are missing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body_util::{BodyStream, StreamBody};
use mainstay_client::proto::etcdserverpb::kv_server::{Kv, KvServer};
use mainstay_client::proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use mainstay_client::proto::etcdserverpb::request_op::Request as Op;
use mainstay_client::proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_client::proto::etcdserverpb::watch_server::{Watch, WatchServer};
use mainstay_client::proto::etcdserverpb::*;
use mainstay_client::proto::mvccpb::{Event, KeyValue, event::EventType};
use mainstay_client::{Connector, KeyRange};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{ConnectError, Request, Response, Status, Streaming};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Sent<T> = Result<Response<T>, Status>;
/// The way to one watch; `None` ends its stream in good order.
type ToWatch = mpsc::UnboundedSender<Option<Result<WatchResponse, Status>>>;

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub(crate) enum Network {
    /// Requests are served.
    Up,
    /// No connection.
    Down,
    /// Requests are served, and the connection breaks before the answer.
    BreaksAfter,
    /// Nothing comes back.
    Silent,
    /// Every request is answered with this, and not served.
    Answers(Status),
}

/// The whole world of a test.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<String, Network>,
    /// Which endpoint was sent which method, in order.
    calls: Vec<(String, String)>,
    /// Told when every connection is cut.
    cut: watch::Sender<u64>,
    revision: i64,
    compacted: i64,
    live: BTreeMap<Vec<u8>, KeyValue>,
    history: Vec<Event>,
    watchers: Vec<(KeyRange, ToWatch)>,
    leases: BTreeMap<i64, i64>,
    /// What the next watch is refused with.
    watch_refusal: Option<String>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self::default();
        fake.lock().revision = 1;
        fake
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set(&self, endpoint: &str, network: Network) {
        self.lock().networks.insert(endpoint.to_owned(), network);
    }

    /// Breaks every stream that is open.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.watchers.clear();
        state.cut.send_modify(|count| *count += 1);
    }

    /// Ends every watch as a stopping server does.
    pub(crate) fn end_watches(&self, with: Option<Status>) {
        for (_, watcher) in self.lock().watchers.drain(..) {
            let _gone = watcher.send(with.clone().map(Err));
        }
    }

    pub(crate) fn refuse_watches(&self, reason: &str) {
        self.lock().watch_refusal = Some(reason.to_owned());
    }

    /// Sends an empty response to every watch.
    pub(crate) fn notify_progress(&self) {
        let state = self.lock();
        for (_, watcher) in &state.watchers {
            let _gone = watcher.send(Some(Ok(WatchResponse { header: state.header(), ..Default::default() })));
        }
    }

    pub(crate) fn write(&self, key: &str, value: &str) -> i64 {
        self.lock().put(&PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        })
    }

    pub(crate) fn compact(&self, revision: i64) {
        self.lock().compacted = revision;
    }

    pub(crate) fn forget_lease(&self, id: i64) {
        self.lock().leases.remove(&id);
    }

    pub(crate) fn revision(&self) -> i64 {
        self.lock().revision
    }

    /// The endpoints that were sent this method, in order.
    pub(crate) fn calls(&self, method: &str) -> Vec<String> {
        self.lock().calls.iter().filter(|(_, called)| called == method).map(|(endpoint, _)| endpoint.clone()).collect()
    }
}

impl State {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..Default::default() })
    }

    fn put(&mut self, request: &PutRequest) -> i64 {
        self.revision += 1;
        let before = self.live.get(&request.key[..]);
        let kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            lease: request.lease,
            mod_revision: self.revision,
            create_revision: before.map_or(self.revision, |kv| kv.create_revision),
            version: before.map_or(1, |kv| kv.version + 1),
        };
        self.live.insert(request.key.to_vec(), kv.clone());
        self.publish(Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: None });
        self.revision
    }

    fn publish(&mut self, event: Event) {
        self.history.push(event.clone());
        let header = self.header();
        let key = event.kv.clone().unwrap().key;
        self.watchers.retain(|(range, watcher)| {
            !range.contains(&key)
                || watcher
                    .send(Some(Ok(WatchResponse { header, events: vec![event.clone()], ..Default::default() })))
                    .is_ok()
        });
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let kvs: Vec<_> = self.live.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
        RangeResponse { header: self.header(), count: kvs.len() as i64, kvs, more: false }
    }

    fn create_watch(&mut self, create: &WatchCreateRequest, to: &ToWatch) {
        let mut created = WatchResponse { header: self.header(), created: true, ..Default::default() };
        if let Some(reason) = self.watch_refusal.take() {
            (created.canceled, created.cancel_reason, created.watch_id) = (true, reason, -1);
            to.send(Some(Ok(created))).unwrap();
            return;
        }
        to.send(Some(Ok(created))).unwrap();
        let start = if create.start_revision == 0 { self.revision + 1 } else { create.start_revision };
        if start < self.compacted {
            let refusal = WatchResponse { canceled: true, compact_revision: self.compacted, ..Default::default() };
            to.send(Some(Ok(refusal))).unwrap();
            return;
        }
        let range = KeyRange::new(create.key.clone(), create.range_end.clone());
        let missed: Vec<Event> = self
            .history
            .iter()
            .filter(|event| {
                let kv = event.kv.as_ref().unwrap();
                kv.mod_revision >= start && range.contains(&kv.key)
            })
            .cloned()
            .collect();
        if !missed.is_empty() {
            to.send(Some(Ok(WatchResponse { header: self.header(), events: missed, ..Default::default() }))).unwrap();
        }
        self.watchers.push((range, to.clone()));
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    type RangeStreamStream = BoxStream<'static, Result<RangeStreamResponse, Status>>;

    async fn range(&self, request: Request<RangeRequest>) -> Sent<RangeResponse> {
        Ok(Response::new(self.lock().range(request.get_ref())))
    }

    async fn range_stream(&self, request: Request<RangeRequest>) -> Sent<Self::RangeStreamStream> {
        let mut whole = self.lock().range(request.get_ref());
        let mut chunks: Vec<_> =
            whole.kvs.drain(..).map(|kv| RangeResponse { kvs: vec![kv], ..Default::default() }).collect();
        chunks.push(whole);
        let chunks = chunks.into_iter().map(|chunk| Ok(RangeStreamResponse { range_response: Some(chunk) }));
        Ok(Response::new(stream::iter(chunks).boxed()))
    }

    async fn put(&self, request: Request<PutRequest>) -> Sent<PutResponse> {
        let mut state = self.lock();
        let lease = request.get_ref().lease;
        if lease != 0 && !state.leases.contains_key(&lease) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        state.put(request.get_ref());
        Ok(Response::new(PutResponse { header: state.header(), prev_kv: None }))
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Sent<DeleteRangeResponse> {
        let mut state = self.lock();
        let range = KeyRange::new(request.get_ref().key.clone(), request.get_ref().range_end.clone());
        let keys: Vec<_> = state.live.keys().filter(|key| range.contains(key)).cloned().collect();
        if !keys.is_empty() {
            state.revision += 1;
        }
        for key in &keys {
            state.live.remove(key);
            let kv = KeyValue { key: key.clone().into(), mod_revision: state.revision, ..Default::default() };
            state.publish(Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: None });
        }
        let deleted = keys.len() as i64;
        Ok(Response::new(DeleteRangeResponse { header: state.header(), deleted, prev_kvs: Vec::new() }))
    }

    /// Knows conditions on the modification revision, ranges and puts.
    async fn txn(&self, request: Request<TxnRequest>) -> Sent<TxnResponse> {
        let request = request.into_inner();
        let mut state = self.lock();
        let succeeded = request.compare.iter().all(|comparison| {
            let actual = state.live.get(&comparison.key[..]).map_or(0, |kv| kv.mod_revision);
            comparison.target_union == Some(compare::TargetUnion::ModRevision(actual))
        });
        let operations = if succeeded { request.success } else { request.failure };
        let mut responses = Vec::new();
        for operation in operations {
            let response = match operation.request {
                Some(Op::RequestPut(put)) => {
                    state.put(&put);
                    response_op::Response::ResponsePut(PutResponse::default())
                }
                Some(Op::RequestRange(range)) => response_op::Response::ResponseRange(state.range(&range)),
                _ => return Err(Status::unimplemented("not in the fake")),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(Response::new(TxnResponse { header: state.header(), succeeded, responses }))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Sent<CompactionResponse> {
        let mut state = self.lock();
        if request.get_ref().revision > state.revision {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
        }
        state.compacted = request.get_ref().revision;
        Ok(Response::new(CompactionResponse { header: state.header() }))
    }
}

#[tonic::async_trait]
impl Watch for Fake {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Sent<Self::WatchStream> {
        let (to, from) = mpsc::unbounded_channel();
        let mut requests = request.into_inner();
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match request.request_union {
                    Some(RequestUnion::CreateRequest(create)) => fake.lock().create_watch(&create, &to),
                    Some(RequestUnion::CancelRequest(_)) => {
                        let _gone = to.send(Some(Ok(WatchResponse { canceled: true, ..Default::default() })));
                    }
                    Some(RequestUnion::ProgressRequest(_)) => {
                        let header = fake.lock().header();
                        let _gone = to.send(Some(Ok(WatchResponse { header, watch_id: -1, ..Default::default() })));
                    }
                    None => {}
                }
            }
        });
        let responses = UnboundedReceiverStream::new(from).take_while(|next| std::future::ready(next.is_some()));
        Ok(Response::new(responses.filter_map(std::future::ready).boxed()))
    }
}

#[tonic::async_trait]
impl Lease for Fake {
    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Sent<LeaseGrantResponse> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let mut state = self.lock();
        let id = if id == 0 { state.leases.len() as i64 + 100 } else { id };
        state.leases.insert(id, ttl);
        Ok(Response::new(LeaseGrantResponse { header: state.header(), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<LeaseRevokeRequest>) -> Sent<LeaseRevokeResponse> {
        let mut state = self.lock();
        match state.leases.remove(&request.get_ref().id) {
            Some(_) => Ok(Response::new(LeaseRevokeResponse { header: state.header() })),
            None => Err(Status::not_found("etcdserver: requested lease not found")),
        }
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Sent<Self::LeaseKeepAliveStream> {
        let fake = self.clone();
        let responses = request.into_inner().map(move |request| {
            let id = request?.id;
            let state = fake.lock();
            let ttl = state.leases.get(&id).copied().unwrap_or(0);
            Ok(LeaseKeepAliveResponse { header: state.header(), id, ttl })
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn lease_time_to_live(&self, request: Request<LeaseTimeToLiveRequest>) -> Sent<LeaseTimeToLiveResponse> {
        let id = request.get_ref().id;
        let state = self.lock();
        let ttl = state.leases.get(&id).copied();
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: state.header(),
            id,
            ttl: ttl.unwrap_or(-1),
            granted_ttl: ttl.unwrap_or(0),
            keys: Vec::new(),
        }))
    }

    async fn lease_leases(&self, _request: Request<LeaseLeasesRequest>) -> Sent<LeaseLeasesResponse> {
        let state = self.lock();
        let leases = state.leases.keys().map(|id| LeaseStatus { id: *id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: state.header(), leases }))
    }
}

impl Connector for Fake {
    type Service = FakeService;

    fn connect(&self, endpoint: &str) -> Result<FakeService, BoxError> {
        if endpoint.contains(' ') {
            return Err("not a name".into());
        }
        let routes = Routes::new(KvServer::new(self.clone()))
            .add_service(WatchServer::new(self.clone()))
            .add_service(LeaseServer::new(self.clone()));
        Ok(FakeService { endpoint: endpoint.to_owned(), fake: self.clone(), routes })
    }
}

/// The way to the fake through one endpoint.
#[derive(Clone)]
pub(crate) struct FakeService {
    endpoint: String,
    fake: Fake,
    routes: Routes,
}

impl tower_service::Service<http::Request<Body>> for FakeService {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (network, cut) = {
            let mut state = self.fake.lock();
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            state.calls.push((self.endpoint.clone(), method));
            (state.networks.get(&self.endpoint).cloned().unwrap_or(Network::Up), state.cut.subscribe())
        };
        let served = tower_service::Service::call(&mut self.routes, request);
        Box::pin(async move {
            match network {
                Network::Up => served.await.map(|response| breakable(response, cut)).map_err(never),
                Network::Down => Err(ConnectError("connection refused".into()).into()),
                Network::BreaksAfter => {
                    served.await.map_err(never)?;
                    Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
                }
                Network::Silent => std::future::pending().await,
                Network::Answers(status) => Ok(status.into_http()),
            }
        })
    }
}

fn never(error: Infallible) -> BoxError {
    match error {}
}

/// A response whose body fails when the connections are cut.
fn breakable(response: http::Response<Body>, mut cut: watch::Receiver<u64>) -> http::Response<Body> {
    response.map(|body| {
        let frames = BodyStream::new(body).map(|frame| frame.map_err(BoxError::from));
        let until = async move {
            // An error means that the fake is gone, and with it its connections.
            let _gone = cut.changed().await;
        };
        let broken = stream::once(async { Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()) });
        // `broken` follows only where the frames were cut short: after the trailers nobody asks.
        Body::new(StreamBody::new(frames.take_until(Box::pin(until)).chain(broken)))
    })
}
