//! Requests that are traced: what a collector is told of them, and that none is needed.
//!
//! etcd does not pass: when it stops, it waits for the collector for as long as one export may take.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use mainstay_tests::wire::{Connection, Reply, frame};
use mainstay_tests::{Cluster, ProcessCluster, free_port};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How long a member may take to end while nobody takes its traces.
const ENDS_WITHIN: Duration = Duration::from_secs(8);
/// How long it may take until a member has said that nobody takes its traces.
const SAYS_WITHIN: Duration = Duration::from_secs(30);
/// More spans than wait to be sent.
const MANY: usize = 4_000;

/// The traces of those who ask.
const PUT: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const REFUSED: u128 = PUT + 1;
const WATCH: u128 = PUT + 2;
const UNSAMPLED: u128 = PUT + 3;
/// The span of theirs that asks.
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// Takes whatever it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one, which lives as long as the test; it and its address.
    fn start() -> (Self, SocketAddr) {
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = incoming.local_addr().unwrap();
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        drop(tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming)));
        (collector, address)
    }

    fn resources(&self) -> Vec<ResourceSpans> {
        self.0.lock().unwrap().clone()
    }

    fn spans(&self) -> Vec<Span> {
        let scopes = self.resources().into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The only span of a trace with this name.
    #[track_caller]
    fn span(&self, trace: u128, name: &str) -> Span {
        let spans = self.spans();
        let mut found = spans.iter().filter(|span| span.trace_id == trace.to_be_bytes() && span.name == name);
        let first = found.next().unwrap_or_else(|| panic!("no {name} of {trace:x} in {spans:?}"));
        assert!(found.next().is_none(), "{name} of {trace:x} is there twice");
        first.clone()
    }
}

/// What is said under a key, as a text.
fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

/// Asserts that a span is that of a call which a client's span asked for, and how it ended.
#[track_caller]
fn check_call(span: &Span, service: &str, method: &str, code: u32, failed: Option<&str>) {
    assert_eq!(span.parent_span_id, PARENT.to_be_bytes());
    assert_eq!(span.kind, SpanKind::Server as i32);
    let code = code.to_string();
    for (key, value) in
        [("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", method), ("rpc.grpc.status_code", &code)]
    {
        assert_eq!(attribute(&span.attributes, key).as_deref(), Some(value), "{key}");
    }
    assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
    let status = span.status.clone().unwrap_or_default();
    let expected = if failed.is_some() { StatusCode::Error } else { StatusCode::Unset };
    assert_eq!((status.code, status.message.as_str()), (expected as i32, failed.unwrap_or_default()));
}

/// What a client sends along whose span, of this trace, asks for something.
fn traceparent(trace: u128, sampled: bool) -> HeaderMap {
    let text = format!("00-{trace:032x}-{PARENT:016x}-{:02x}", u8::from(sampled));
    HeaderMap::from_iter([(HeaderName::from_static("traceparent"), HeaderValue::try_from(text).unwrap())])
}

async fn traced(address: &str, further: &[&str]) -> ProcessCluster {
    let address = format!("--distributed-tracing-address={address}");
    let flags = [&["--enable-distributed-tracing", address.as_str()][..], further].concat();
    ProcessCluster::start_all_with(1, &flags).await.unwrap()
}

async fn connect(cluster: &ProcessCluster) -> Connection {
    let address = cluster.client_url(0).strip_prefix("http://").unwrap();
    Connection::open(address.parse().unwrap()).await.unwrap()
}

async fn call(connection: &Connection, method: &str, metadata: &HeaderMap, request: &impl Message) -> Reply {
    connection.call(&format!("/etcdserverpb.KV/{method}"), metadata, frame(&request.encode_to_vec())).await
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), ..PutRequest::default() }
}

fn range(serializable: bool) -> RangeRequest {
    RangeRequest { key: "k".into(), serializable, ..RangeRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_trace_is_traced() {
    let (collector, address) = Collector::start();
    let further = ["--distributed-tracing-service-name=store", "--distributed-tracing-instance-id=one"];
    let mut cluster = traced(&address.to_string(), &further).await;
    let connection = connect(&cluster).await;
    let watch = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch)) };
    let mut stream = connection.stream("/etcdserverpb.Watch/Watch", &traceparent(WATCH, true)).await.unwrap();
    stream.send(frame(&watch.encode_to_vec())).unwrap();
    stream.message().await.unwrap();
    let reply = call(&connection, "Put", &traceparent(PUT, true), &put("k")).await;
    assert!(reply.is_ok(), "{reply:?}");
    let reply = call(&connection, "Put", &traceparent(REFUSED, true), &put("")).await;
    assert_eq!(reply.code, Some(3), "{reply:?}");
    for metadata in [traceparent(UNSAMPLED, false), HeaderMap::new()] {
        let reply = call(&connection, "Range", &metadata, &range(false)).await;
        assert!(reply.is_ok(), "{reply:?}");
    }
    // What has not been sent is sent now.
    cluster.stop(0).await.unwrap();

    let call = collector.span(PUT, "etcdserverpb.KV/Put");
    check_call(&call, "etcdserverpb.KV", "Put", 0, None);
    let stage = collector.span(PUT, "put");
    assert_eq!(stage.parent_span_id, call.span_id);
    assert_eq!(attribute(&stage.attributes, "key").as_deref(), Some("k"));
    let events: Vec<&str> = stage.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events, ["Send raft proposal", "Receive raft result"]);

    check_call(&collector.span(REFUSED, "etcdserverpb.KV/Put"), "etcdserverpb.KV", "Put", 3, None);
    // One span, which is as long as the stream was, and that ended with the member.
    let stream = collector.span(WATCH, "etcdserverpb.Watch/Watch");
    check_call(&stream, "etcdserverpb.Watch", "Watch", 14, Some("etcdserver: server stopped"));
    assert!(stream.start_time_unix_nano < call.start_time_unix_nano);
    assert!(stream.end_time_unix_nano > call.end_time_unix_nano);
    // At a rate of 0 nothing else is, be it that nobody asked or that its client did not want it.
    assert_eq!(collector.spans().len(), 4, "{:?}", collector.spans());

    for resource in collector.resources() {
        let resource = resource.resource.unwrap();
        assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("store"));
        assert_eq!(attribute(&resource.attributes, "service.instance.id").as_deref(), Some("one"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_for_who_does_not_decide() {
    let (collector, address) = Collector::start();
    let mut cluster = traced(&address.to_string(), &["--distributed-tracing-sampling-rate=1000000"]).await;
    let connection = connect(&cluster).await;
    for metadata in [traceparent(UNSAMPLED, false), HeaderMap::new()] {
        let reply = call(&connection, "Range", &metadata, &range(false)).await;
        assert!(reply.is_ok(), "{reply:?}");
    }
    cluster.stop(0).await.unwrap();
    let spans = collector.spans();
    let is_root = |span: &&Span| span.name == "etcdserverpb.KV/Range" && span.parent_span_id.is_empty();
    let succeeded = |span: &&Span| attribute(&span.attributes, "rpc.grpc.status_code").as_deref() == Some("0");
    let roots: Vec<&Span> = spans.iter().filter(is_root).filter(succeeded).collect();
    assert!(!roots.is_empty(), "{spans:?}");
    assert!(!spans.iter().any(|span| span.trace_id == UNSAMPLED.to_be_bytes()), "{spans:?}");
    for root in roots {
        let stage = spans.iter().find(|span| span.parent_span_id == root.span_id).unwrap();
        assert_eq!((stage.name.as_str(), &stage.trace_id), ("range", &root.trace_id));
    }
    let resource = collector.resources()[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("etcd"));
    assert_eq!(attribute(&resource.attributes, "service.instance.id"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_collector_is_needed() {
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let mut cluster = traced(&nobody, &["--distributed-tracing-sampling-rate=1000000"]).await;
    let connection = connect(&cluster).await;
    ask_much(&connection).await;
    let asked = Instant::now();
    while complaints(&cluster) == 0 {
        assert!(asked.elapsed() < SAYS_WITHIN, "it is not said that nobody takes the traces");
        sleep(Duration::from_millis(10)).await;
    }
    ask_much(&connection).await;
    stops_in_time(&mut cluster).await;
    assert_eq!(complaints(&cluster), 1, "it is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_is_not_waited_for() {
    // It takes connections, and never reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut cluster = traced(&address, &["--distributed-tracing-sampling-rate=1000000"]).await;
    ask_much(&connect(&cluster).await).await;
    stops_in_time(&mut cluster).await;
}

/// Asks for more than can wait to be sent.
async fn ask_much(connection: &Connection) {
    let request = range(true);
    for _ in 0..MANY {
        let reply = call(connection, "Range", &HeaderMap::new(), &request).await;
        assert!(reply.is_ok(), "{reply:?}");
    }
}

async fn stops_in_time(cluster: &mut ProcessCluster) {
    let asked = Instant::now();
    cluster.stop(0).await.unwrap();
    assert!(asked.elapsed() < ENDS_WITHIN, "it took {:?}", asked.elapsed());
}

/// How often a member has said that its traces are not taken.
fn complaints(cluster: &ProcessCluster) -> usize {
    cluster.log(0).unwrap().matches("cannot send traces").count()
}
