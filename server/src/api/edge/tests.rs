use std::sync::Mutex;
use std::time::Duration;

use http::HeaderValue;
use http_body_util::{BodyExt, StreamBody as FrameStream};
use mainstay_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use prost::Message;
use tonic::codegen::{Bytes, tokio_stream};

use super::bodies::trailers;
use super::*;
use crate::admission::{Gate, GateOptions, Traffic};
use crate::api::rpc::{RPCS, RpcKind};
use crate::api::spans::recorded::{Recorder as Spans, sampled};
use crate::apply::encoded_range;
use crate::engine::EngineHome;
use crate::engine::mem::MemHome;
use crate::limits;
use crate::metrics::Metrics;
use crate::mvcc::Writer;
use http_body::Frame;

/// Writes down what it is told.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl RpcObserver for Recorder {
    fn started(&self, rpc: &'static Rpc) {
        self.note(format!("started {}", rpc.method));
    }

    fn received(&self, rpc: &'static Rpc, bytes: usize) {
        self.note(format!("received {} {bytes}", rpc.method));
    }

    fn sent(&self, rpc: &'static Rpc, bytes: usize) {
        self.note(format!("sent {} {bytes}", rpc.method));
    }

    fn handled(&self, rpc: &'static Rpc, code: Code, _elapsed: Duration) {
        self.note(format!("handled {} {code:?}", rpc.method));
    }

    fn client_request(&self, kind: RpcKind, version: &str) {
        self.note(format!("client {} {version}", kind.name()));
    }
}

fn recorder() -> (Arc<Recorder>, Arc<dyn RpcObserver>) {
    let recorder = Arc::new(Recorder::default());
    (Arc::clone(&recorder), recorder)
}

fn rpc(method: &str) -> &'static Rpc {
    RPCS.iter().find(|rpc| rpc.method == method).unwrap()
}

/// Messages of these lengths as one body of gRPC frames.
fn framed(lengths: &[usize]) -> Bytes {
    let mut bytes = Vec::new();
    for length in lengths {
        bytes.push(0);
        bytes.extend_from_slice(&(*length as u32).to_be_bytes());
        bytes.resize(bytes.len() + length, 1);
    }
    bytes.into()
}

#[track_caller]
fn check_admission(
    method: &str,
    headers: &[(&'static str, &[u8])],
    leader: bool,
    learner: bool,
    expected: Result<bool, ApiError>,
) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_bytes(value).unwrap());
    }
    let role = raft::Role { is_learner: learner, is_outside: false };
    assert_eq!(admit(rpc(method), &map, role, || leader, false, &Recorder::default()), expected);
}

#[test]
fn a_leader_is_needed_where_the_client_says_so() {
    let required = [("hasleader", &b"true"[..])];
    check_admission("Put", &[], false, false, Ok(false));
    check_admission("Put", &required, true, false, Ok(true));
    check_admission("Put", &required, false, false, Err(ApiError::NoLeader));
    check_admission("LeaseKeepAlive", &required, false, false, Err(ApiError::NoLeader));
}

#[test]
fn a_member_whose_data_is_in_doubt_serves_none() {
    let role = raft::Role::default();
    let admitted = admit(rpc("Range"), &HeaderMap::new(), role, || true, true, &Recorder::default());
    assert_eq!(admitted, Err(ApiError::Corrupt));
}

#[test]
fn who_joins_and_knows_no_members_yet_serves_nobody() {
    let role = raft::Role { is_outside: true, is_learner: false };
    for leader in [false, true] {
        for rpc in &RPCS {
            let expected = if rpc.method == "Status" { Ok(false) } else { Err(ApiError::NoLeader) };
            let admitted = admit(rpc, &HeaderMap::new(), role, || leader, false, &Recorder::default());
            assert_eq!(admitted, expected, "{}", rpc.method);
        }
    }
}

#[test]
fn a_learner_serves_little() {
    for rpc in &RPCS {
        let served = ["Range", "Status", "Snapshot"].contains(&rpc.method);
        let expected = if served { Ok(false) } else { Err(ApiError::NotSupportedForLearner) };
        check_admission(rpc.method, &[], true, true, expected);
    }
}

#[test]
fn the_first_fault_is_told() {
    let both = [("hasleader", &b"true"[..]), ("client-api-version", b"\xff")];
    check_admission("Put", &both, false, true, Err(ApiError::NotSupportedForLearner));
    check_admission("Put", &both, false, false, Err(ApiError::InvalidClientApiVersion));
    check_admission("Status", &both, false, true, Err(ApiError::InvalidClientApiVersion));
}

#[test]
fn paths_without_a_method_are_answered_as_by_grpc_go() {
    for (path, message) in [
        ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
        ("/etcdserverpb.KV/", "unknown method  for service etcdserverpb.KV"),
        ("/etcdserverpb.KV/Range/x", "unknown service etcdserverpb.KV/Range"),
        ("/no.Such/Method", "unknown service no.Such"),
        ("/nothing", "malformed method name: \"/nothing\""),
    ] {
        let status = unknown(path);
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, message));
    }
}

async fn read(lengths: &[usize], limit: usize) -> (Result<usize, Status>, Vec<String>) {
    let (notes, observer) = recorder();
    let body = HttpBody::from(framed(lengths));
    let body = RequestBody::new(body.into(), limit, rpc("Watch"), observer, Hold::default());
    let read = body.collect().await.map(|body| body.to_bytes().len()).map_err(Status::from_error);
    (read, notes.notes())
}

#[tokio::test]
async fn messages_within_the_limit_pass_and_are_counted() {
    let (read, notes) = read(&[10, 0, 9], 10).await;
    assert_eq!(read.unwrap(), 19 + 15);
    assert_eq!(notes, ["received Watch 10", "received Watch 0", "received Watch 9"]);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_in_etcds_words() {
    let (read, notes) = read(&[10, 11], 10).await;
    let status = read.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max (11 vs. 10)");
    assert_eq!(notes, ["received Watch 10"]);
}

/// A streamed response that sends these messages and then, if at all, ends in this way.
fn response(messages: &[usize], end: Option<Status>, stays_open: bool) -> Response<Body> {
    let mut frames = vec![Ok::<_, Status>(Frame::data(framed(messages)))];
    if let Some(status) = end {
        frames.push(trailers(&status).map(Frame::trailers));
    }
    let frames = tokio_stream::iter(frames);
    if stays_open {
        Response::new(Body::new(FrameStream::new(tokio_stream::StreamExt::chain(frames, tokio_stream::pending()))))
    } else {
        Response::new(Body::new(FrameStream::new(frames)))
    }
}

#[tokio::test]
async fn a_stream_is_counted_until_its_end() {
    let (notes, observer) = recorder();
    let response = response(&[1, 2, 3], Some(ApiError::Compacted.into()), false);
    let call = Call::begin(&observer, rpc("Watch"), CallSpan::default());
    let body = finish(response, call, None, Hold::default()).into_body();
    let collected = body.collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()[GRPC_STATUS], "11");
    let expected = ["started Watch", "sent Watch 1", "sent Watch 2", "sent Watch 3", "handled Watch OutOfRange"];
    assert_eq!(notes.notes(), expected);
}

#[tokio::test]
async fn a_stream_that_is_dropped_was_cancelled() {
    let (notes, observer) = recorder();
    let call = Call::begin(&observer, rpc("Watch"), CallSpan::default());
    let mut body = finish(response(&[1], None, true), call, None, Hold::default()).into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    drop(body);
    assert_eq!(notes.notes(), ["started Watch", "sent Watch 1", "handled Watch Cancelled"]);
}

#[tokio::test]
async fn a_stream_ends_when_its_leader_is_lost() {
    let (notes, observer) = recorder();
    let (lose, lost) = tokio::sync::oneshot::channel::<()>();
    let lost: Ending = Box::pin(async move {
        drop(lost.await);
        ApiError::NoLeader
    });
    let call = Call::begin(&observer, rpc("Watch"), CallSpan::default());
    let mut body = finish(response(&[1], None, true), call, Some(lost), Hold::default()).into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    lose.send(()).unwrap();
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("the stream stayed open");
    let trailers = frame.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(
        (trailers[GRPC_STATUS].as_bytes(), trailers["grpc-message"].as_bytes()),
        (&b"14"[..], &b"etcdserver:%20no%20leader"[..])
    );
    assert!(body.frame().await.is_none());
    assert_eq!(notes.notes(), ["started Watch", "sent Watch 1", "handled Watch Unavailable"]);
}

#[tokio::test]
async fn unary_requests_are_counted_by_their_answers() {
    let (notes, observer) = recorder();
    let put = || Call::begin(&observer, rpc("Put"), CallSpan::default());
    let message = Body::new(http_body_util::Full::new(framed(&[7])).map_err(|never| match never {}));
    finish(Response::new(message), put(), None, Hold::default()).into_body().collect().await.unwrap();
    finish(Status::from(ApiError::EmptyKey).into_http(), put(), None, Hold::default());
    drop(put());
    let expected = [
        "started Put",
        "handled Put Ok",
        "sent Put 7",
        "started Put",
        "handled Put InvalidArgument",
        "started Put",
        "handled Put Cancelled",
    ];
    assert_eq!(notes.notes(), expected);
}

#[test]
fn a_refused_stream_is_counted_at_once() {
    let (notes, observer) = recorder();
    let call = Call::begin(&observer, rpc("Watch"), CallSpan::default());
    finish(Status::from(ApiError::NoLeader).into_http(), call, None, Hold::default());
    assert_eq!(notes.notes(), ["started Watch", "handled Watch Unavailable"]);
}

#[tokio::test]
async fn a_span_ends_as_its_request_does() {
    let (_, observer) = recorder();
    let spans = Spans::default();
    let call = |method: &str| {
        let span = CallSpan::begin(Some(&spans), rpc(method), &sampled());
        Call::begin(&observer, rpc(method), span)
    };
    finish(Status::from(ApiError::NoLeader).into_http(), call("Put"), None, Hold::default());
    finish(Status::from(ApiError::EmptyKey).into_http(), call("Put"), None, Hold::default());
    drop(call("Put"));
    let body =
        finish(response(&[1], Some(ApiError::Timeout.into()), false), call("Watch"), None, Hold::default()).into_body();
    body.collect().await.unwrap();
    drop(finish(response(&[1], None, true), call("Watch"), None, Hold::default()));
    let is_of_the_end = |line: &String| ["fails", "status_code", " ends"].iter().any(|part| line.contains(part));
    let ends: Vec<String> = spans.lines().into_iter().filter(is_of_the_end).collect();
    let expected = [
        "Put fails: etcdserver: no leader",
        "Put rpc.grpc.status_code=14",
        "Put ends",
        "Put rpc.grpc.status_code=3",
        "Put ends",
        "Put rpc.grpc.status_code=1",
        "Put ends",
        "Watch fails: etcdserver: request timed out",
        "Watch rpc.grpc.status_code=14",
        "Watch ends",
        "Watch rpc.grpc.status_code=1",
        "Watch ends",
    ];
    assert_eq!(ends, expected);
}

const POOL: u64 = 1 << 20;

fn gate() -> Gate {
    Gate::new(GateOptions { pool: POOL, reserve: POOL / 16, long_reads: Some(2) }, &Metrics::new())
}

fn origin(number: u8) -> Origin {
    Origin::of(Some(std::net::IpAddr::from([127, 0, 0, number])), None)
}

fn entered(gate: &Gate, method: &str, who: u8) -> Result<Hold, ApiError> {
    let (hold, entering) = admission::enter(gate, rpc(method), &origin(who))?;
    if entering.is_some() { Err(ApiError::Timeout) } else { Ok(hold) }
}

#[tokio::test]
async fn a_request_holds_what_it_takes_until_its_answer_has_left() {
    let (gate, (_, observer)) = (gate(), recorder());
    let hold = entered(&gate, "Put", 1).unwrap();
    assert_eq!(gate.numbers().held, limits::UNARY_BYTES);
    let body = HttpBody::from(framed(&[10_000]));
    let mut body = RequestBody::new(body.into(), 100_000, rpc("Put"), Arc::clone(&observer), hold.clone());
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(gate.numbers().held, limits::UNARY_BYTES + 40_000, "what a command takes until it is applied");
    drop((body, piece));

    assert!(hold.reads(20_000));
    let message = Body::new(http_body_util::Full::new(framed(&[20_000])).map_err(|never| match never {}));
    let call = Call::begin(&observer, rpc("Put"), CallSpan::default());
    let mut body = finish(Response::new(message), call, None, hold).into_body();
    assert_eq!(gate.numbers().held, limits::UNARY_BYTES + 40_000 + 40_000);
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece.len(), 20_005);
    drop(body);
    assert_eq!(gate.numbers().held, 20_005, "it was handed over, and not sent yet");
    drop(piece);
    assert_eq!(gate.numbers().held, 0);
}

#[tokio::test]
async fn a_list_takes_the_place_of_the_message_and_holds_what_has_not_left() {
    let ((notes, observer), gate) = (recorder(), gate());
    let hold = entered(&gate, "Range", 1).unwrap();
    let mut writer = Writer::open(MemHome::new().open().unwrap(), 1 << 20).unwrap();
    let mut txn = writer.begin();
    for key in 0..200 {
        txn.put(format!("k{key:03}").into(), vec![0; 1000].into(), 0).unwrap();
    }
    txn.end();
    writer.commit().unwrap();
    let request = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    let in_pieces = hold.in_pieces();
    let room = |bytes: u64| in_pieces.reads(bytes);
    let store = writer.store();
    let range = encoded_range(&request, |range, options| store.encoded_within(range, options, &room)).unwrap();
    drop(in_pieces);
    let held = gate.numbers().held;
    assert!((200_000..300_000).contains(&held), "{held}: the records, once");

    let mut response = response(&[0], None, false);
    response.extensions_mut().insert(ListAnswer::new(ResponseHeader::default(), range).unwrap());
    let call = Call::begin(&observer, rpc("Range"), CallSpan::default());
    let mut body = finish(response, call, None, hold).into_body();
    let (mut data, mut last) = (Vec::new(), held);
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(piece) => {
                data.extend_from_slice(&piece);
                drop(piece);
                assert!(gate.numbers().held <= last, "what has left is given back");
                last = gate.numbers().held;
            }
            Err(frame) => assert_eq!(frame.into_trailers().ok().unwrap()[GRPC_STATUS], "0"),
        }
    }
    let message = RangeResponse::decode(&data[5..]).unwrap();
    assert_eq!((message.kvs.len(), message.count, message.kvs[7].key.as_ref()), (200, 200, &b"k007"[..]));
    assert!(last < held / 4, "{last} of {held}");
    drop(body);
    assert_eq!(gate.numbers().held, 0);
    let sent = format!("sent Range {}", data.len() - 5);
    assert_eq!(notes.notes(), ["started Range", "handled Range Ok", sent.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_finds_no_room_is_read_later() {
    let (gate, (notes, observer)) = (gate(), recorder());
    let other = gate.enter_now(Traffic::Ordinary, &origin(1), POOL / 2).unwrap();
    let hold = entered(&gate, "Put", 1).unwrap();
    let message = || HttpBody::from(framed(&[100_000]));
    let mut body = RequestBody::new(message().into(), 1 << 20, rpc("Put"), Arc::clone(&observer), hold.clone());
    let waits = Duration::from_millis(10);
    assert!(tokio::time::timeout(waits, body.frame()).await.is_err(), "it waits for room");
    assert!(!http_body::Body::is_end_stream(&body));
    drop(other);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 100_005);
    assert!(body.frame().await.is_none());
    drop((body, hold));
    assert_eq!(gate.numbers().held, 0);

    let _other = gate.enter_now(Traffic::Ordinary, &origin(1), POOL * 3 / 4).unwrap();
    let hold = entered(&gate, "Put", 2).unwrap();
    let body = RequestBody::new(message().into(), 1 << 20, rpc("Put"), observer, hold);
    let status = body.collect().await.map_err(Status::from_error).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "etcdserver: too many requests"));
    assert_eq!(notes.notes(), ["received Put 100000", "received Put 100000"]);
}

#[test]
fn a_client_that_takes_all_it_gets_leaves_room_for_others_and_for_control_traffic() {
    let gate = gate();
    let mut streams = Vec::new();
    while let Ok(hold) = entered(&gate, "Watch", 1) {
        streams.push(hold);
    }
    assert!(gate.numbers().held >= POOL / 2);
    assert!(entered(&gate, "Range", 1).is_err());
    for method in ["Range", "Put"] {
        let hold = entered(&gate, method, 2).unwrap();
        assert!(hold.reads(1000), "small answers have room, too");
    }
    for rpc in RPCS.iter().filter(|rpc| rpc.traffic != Traffic::Ordinary) {
        assert!(matches!(admission::enter(&gate, rpc, &origin(1)), Ok((_, None))), "{rpc:?}");
    }
}
