//! Spans of requests: what a distributed trace shows of them.
//!
//! As in etcd there is one for every call, named and described as by otelgrpc, and below it one for what the call asks
//! of keys and leases. Who makes them and sends them away comes with the node ([`Tracer`]); where nobody does, a
//! request pays for looks at a `None`.
//!
//! Does not: know OpenTelemetry, choose which requests are sampled, or follow a request to other members.

use std::pin::Pin;
use std::sync::Arc;

use http::HeaderMap;
use mainstay_proto::etcdserverpb::request_op::Request as Op;
use mainstay_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use tonic::{Code, Request, Status};

use super::Services;
use super::rpc::Rpc;
use crate::apply;
use crate::limits;

/// Makes the spans of calls.
pub trait Tracer: Send + Sync + 'static {
    /// Begins the span of a call, below the one that its metadata names; `None` where it is not sampled.
    fn begin(&self, rpc: &'static Rpc, metadata: &HeaderMap) -> Option<Arc<dyn Span>>;
}

/// Something that takes time. What is said of it after its end is lost.
pub trait Span: Send + Sync + 'static {
    /// Begins a part of it.
    fn child(&self, name: &'static str) -> Box<dyn Span>;
    /// Says something about it, each thing once.
    fn set(&self, name: &'static str, value: Attribute<'_>);
    /// Notes that something has happened.
    fn event(&self, name: &'static str);
    /// Notes that the server failed, and why.
    fn fail(&self, why: String);
    /// Ends it; only the first time counts.
    fn end(&self);
}

/// What is said about a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text, which need not be UTF-8; at most [`limits::SPAN_TEXT_BYTES`].
    Text(&'a [u8]),
}

fn text(text: &[u8]) -> Attribute<'_> {
    Attribute::Text(&text[..text.len().min(limits::SPAN_TEXT_BYTES)])
}

/// The span of a call, which goes along in the extensions of its request; nothing where that is not traced.
#[derive(Clone, Default)]
pub(super) struct CallSpan(Option<Arc<dyn Span>>);

impl CallSpan {
    pub(super) fn begin(tracer: Option<&dyn Tracer>, rpc: &'static Rpc, metadata: &HeaderMap) -> Self {
        let Some(span) = tracer.and_then(|tracer| tracer.begin(rpc, metadata)) else { return Self::default() };
        span.set("rpc.system", text(b"grpc"));
        span.set("rpc.service", text(rpc.service.as_bytes()));
        span.set("rpc.method", text(rpc.method.as_bytes()));
        Self(Some(span))
    }

    /// Lets the service find it, by [`Services::call_span`].
    pub(super) fn accompany<B>(&self, request: &mut http::Request<B>) {
        if self.0.is_some() {
            request.extensions_mut().insert(self.clone());
        }
    }

    /// Begins the part of a call in which it is done what it asks for.
    pub(super) fn stage<T: Staged>(&self, asked: &T) -> Stage {
        Stage(self.0.as_ref().map(|call| {
            let stage = call.child(T::NAME);
            asked.describe(&*stage);
            stage
        }))
    }

    /// Ends it with the call's code; the message is asked for where the code is the server's fault.
    pub(super) fn end(&self, code: Code, message: impl FnOnce() -> String) {
        let Some(span) = &self.0 else { return };
        if is_fault(code) {
            span.fail(message());
        }
        span.set("rpc.grpc.status_code", Attribute::Int(i64::from(i32::from(code))));
        span.end();
    }
}

/// Whether a code says that the server failed, and not its client; as OpenTelemetry has it.
fn is_fault(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

/// A part of a call. It ends when it is dropped.
#[must_use]
pub(super) struct Stage(Option<Box<dyn Span>>);

impl Stage {
    /// Notes that the leader has told how far a linearizable read has to see.
    pub(super) fn agreed(&self) {
        self.event("agreement among raft nodes before linearized reading");
    }

    /// Notes when a command is proposed, and when its outcome is there.
    pub(super) async fn proposal<T>(
        &self,
        proposal: Pin<&mut impl Future<Output = Result<T, Status>>>,
    ) -> Result<T, Status> {
        self.event("Send raft proposal");
        let result = proposal.await;
        if result.is_ok() {
            self.event("Receive raft result");
        }
        result
    }

    fn event(&self, name: &'static str) {
        if let Some(span) = &self.0 {
            span.event(name);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(span) = &self.0 {
            span.end();
        }
    }
}

impl Services {
    /// The span of the call that a request belongs to.
    pub(super) fn call_span<T>(&self, request: &Request<T>) -> CallSpan {
        if self.tracer.is_none() {
            return CallSpan::default();
        }
        request.extensions().get::<CallSpan>().cloned().unwrap_or_default()
    }
}

/// What a call can ask for that has a span of its own, with etcd's names.
pub(super) trait Staged {
    const NAME: &'static str;

    fn describe(&self, span: &dyn Span);
}

impl Staged for RangeRequest {
    const NAME: &'static str = "range";

    fn describe(&self, span: &dyn Span) {
        span.set("range_begin", text(&self.key));
        span.set("range_end", text(&self.range_end));
        span.set("rev", Attribute::Int(self.revision));
        span.set("limit", Attribute::Int(self.limit));
        span.set("count_only", Attribute::Bool(self.count_only));
        span.set("keys_only", Attribute::Bool(self.keys_only));
    }
}

impl Staged for PutRequest {
    const NAME: &'static str = "put";

    fn describe(&self, span: &dyn Span) {
        span.set("key", text(&self.key));
    }
}

impl Staged for DeleteRangeRequest {
    const NAME: &'static str = "delete_range";

    fn describe(&self, span: &dyn Span) {
        span.set("range_begin", text(&self.key));
        span.set("range_end", text(&self.range_end));
    }
}

impl Staged for TxnRequest {
    const NAME: &'static str = "txn";

    fn describe(&self, span: &dyn Span) {
        let compared = self.compare.iter().map(|compare| &compare.key[..]).find(|key| !key.is_empty());
        let key = self.success.iter().filter_map(key_of).find(|key| !key.is_empty());
        let lease = self.success.iter().find_map(|operation| match &operation.request {
            Some(Op::RequestPut(request)) => Some(request.lease),
            _ => None,
        });
        span.set("compare_first_key", text(compared.unwrap_or_default()));
        span.set("success_first_key", text(key.unwrap_or_default()));
        span.set("success_first_type", text(self.success.iter().find_map(kind_of).unwrap_or_default().as_bytes()));
        span.set("success_first_lease", Attribute::Int(lease.unwrap_or(-1)));
        span.set("compare_len", Attribute::Int(self.compare.len() as i64));
        span.set("success_len", Attribute::Int(self.success.len() as i64));
        span.set("failure_len", Attribute::Int(self.failure.len() as i64));
        span.set("read_only", Attribute::Bool(apply::is_read_only(self)));
    }
}

impl Staged for CompactionRequest {
    const NAME: &'static str = "compact";

    fn describe(&self, span: &dyn Span) {
        span.set("is_physical", Attribute::Bool(self.physical));
        span.set("rev", Attribute::Int(self.revision));
    }
}

impl Staged for LeaseGrantRequest {
    const NAME: &'static str = "lease_grant";

    fn describe(&self, span: &dyn Span) {
        span.set("id", Attribute::Int(self.id));
        span.set("ttl", Attribute::Int(self.ttl));
    }
}

impl Staged for LeaseRevokeRequest {
    const NAME: &'static str = "lease_revoke";

    fn describe(&self, span: &dyn Span) {
        span.set("id", Attribute::Int(self.id));
    }
}

/// The renewal of this lease.
pub(super) struct Renewal(pub(super) i64);

impl Staged for Renewal {
    const NAME: &'static str = "lease_renew";

    fn describe(&self, span: &dyn Span) {
        span.set("id", Attribute::Int(self.0));
    }
}

fn key_of(operation: &RequestOp) -> Option<&[u8]> {
    match operation.request.as_ref()? {
        Op::RequestRange(request) => Some(&request.key),
        Op::RequestPut(request) => Some(&request.key),
        Op::RequestDeleteRange(request) => Some(&request.key),
        Op::RequestTxn(_) => None,
    }
}

fn kind_of(operation: &RequestOp) -> Option<&'static str> {
    Some(match operation.request.as_ref()? {
        Op::RequestRange(_) => "range",
        Op::RequestPut(_) => "put",
        Op::RequestDeleteRange(_) => "delete_range",
        Op::RequestTxn(_) => "txn",
    })
}

/// A tracer that writes down what it is told.
#[cfg(test)]
pub(super) mod recorded {
    use parking_lot::Mutex;

    use super::*;

    /// What became of all spans, a line each time.
    #[derive(Clone, Default)]
    pub(in crate::api) struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Recorder {
        pub(in crate::api) fn lines(&self) -> Vec<String> {
            self.0.lock().clone()
        }

        fn note(&self, line: String) {
            self.0.lock().push(line);
        }
    }

    struct Noted {
        name: String,
        recorder: Recorder,
    }

    impl Tracer for Recorder {
        fn begin(&self, rpc: &'static Rpc, metadata: &HeaderMap) -> Option<Arc<dyn Span>> {
            let name = metadata.get("sampled").map(|_| rpc.method.to_owned())?;
            self.note(format!("{name} begins"));
            Some(Arc::new(Noted { name, recorder: self.clone() }))
        }
    }

    impl Span for Noted {
        fn child(&self, name: &'static str) -> Box<dyn Span> {
            let name = format!("{}/{name}", self.name);
            self.recorder.note(format!("{name} begins"));
            Box::new(Noted { name, recorder: self.recorder.clone() })
        }

        fn set(&self, name: &'static str, value: Attribute<'_>) {
            let value = match value {
                Attribute::Bool(value) => value.to_string(),
                Attribute::Int(value) => value.to_string(),
                Attribute::Text(text) => String::from_utf8_lossy(text).into_owned(),
            };
            self.recorder.note(format!("{} {name}={value}", self.name));
        }

        fn event(&self, name: &'static str) {
            self.recorder.note(format!("{}: {name}", self.name));
        }

        fn fail(&self, why: String) {
            self.recorder.note(format!("{} fails: {why}", self.name));
        }

        fn end(&self) {
            self.recorder.note(format!("{} ends", self.name));
        }
    }

    /// The metadata of a call that is sampled.
    pub(in crate::api) fn sampled() -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("sampled"), http::HeaderValue::from_static("1"))])
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use bytes::Bytes;
    use mainstay_proto::etcdserverpb::Compare;

    use super::recorded::{Recorder, sampled};
    use super::*;
    use crate::api::RPCS;

    fn put() -> &'static Rpc {
        RPCS.iter().find(|rpc| rpc.method == "Put").unwrap()
    }

    /// What is noted from the first stage on.
    fn staged(act: impl FnOnce(&CallSpan)) -> Vec<String> {
        let recorder = Recorder::default();
        let call = CallSpan::begin(Some(&recorder), put(), &sampled());
        act(&call);
        recorder.lines().split_off(4)
    }

    #[test]
    fn a_call_is_described_as_by_otelgrpc() {
        let recorder = Recorder::default();
        CallSpan::begin(Some(&recorder), put(), &HeaderMap::new()).end(Code::Ok, || unreachable!());
        CallSpan::begin(None, put(), &sampled()).end(Code::Internal, || unreachable!());
        assert!(recorder.lines().is_empty(), "nobody asked for it");
        CallSpan::begin(Some(&recorder), put(), &sampled()).end(Code::NotFound, || unreachable!());
        let expected = [
            "Put begins",
            "Put rpc.system=grpc",
            "Put rpc.service=etcdserverpb.KV",
            "Put rpc.method=Put",
            "Put rpc.grpc.status_code=5",
            "Put ends",
        ];
        assert_eq!(recorder.lines(), expected);
    }

    #[test]
    fn the_servers_faults_are_told() {
        for (code, fault) in [
            (0, false),
            (1, false),
            (2, true),
            (3, false),
            (4, true),
            (5, false),
            (6, false),
            (7, false),
            (8, false),
            (9, false),
            (10, false),
            (11, false),
            (12, true),
            (13, true),
            (14, true),
            (15, true),
            (16, false),
        ] {
            let lines = staged(|call| call.end(Code::from(code), || "why".to_owned()));
            assert_eq!(lines.contains(&"Put fails: why".to_owned()), fault, "{code}");
            assert!(lines.contains(&format!("Put rpc.grpc.status_code={code}")), "{lines:?}");
        }
    }

    #[test]
    fn a_stage_ends_when_it_is_dropped() {
        let lines = staged(|call| {
            let stage = call.stage(&PutRequest { key: Bytes::from_static(b"k"), ..PutRequest::default() });
            stage.agreed();
            drop(stage);
            call.end(Code::Ok, || unreachable!());
        });
        let expected = [
            "Put/put begins",
            "Put/put key=k",
            "Put/put: agreement among raft nodes before linearized reading",
            "Put/put ends",
            "Put rpc.grpc.status_code=0",
            "Put ends",
        ];
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn a_proposal_is_noted_twice_and_one_that_fails_once() {
        let recorder = Recorder::default();
        let call = CallSpan::begin(Some(&recorder), put(), &sampled());
        let stage = call.stage(&Renewal(7));
        assert_eq!(stage.proposal(pin!(async { Ok(3) })).await.unwrap(), 3);
        stage.proposal(pin!(async { Err::<(), _>(Status::internal("no")) })).await.unwrap_err();
        let [sent, received] = ["Send raft proposal", "Receive raft result"];
        let expected = [sent, received, sent].map(|event| format!("Put/lease_renew: {event}"));
        assert_eq!(recorder.lines()[6..], expected);
    }

    #[test]
    fn a_transaction_is_described_by_its_first_keys() {
        let compare = |key: &'static [u8]| Compare { key: Bytes::from_static(key), ..Compare::default() };
        let range = RangeRequest { key: Bytes::from_static(b"r"), ..RangeRequest::default() };
        let put = PutRequest { key: Bytes::from_static(b"p"), lease: 9, ..PutRequest::default() };
        let operations = [Op::RequestRange(range), Op::RequestPut(put)].map(|op| RequestOp { request: Some(op) });
        let lines = staged(|call| {
            drop(call.stage(&TxnRequest {
                compare: vec![compare(b""), compare(b"c")],
                success: operations.to_vec(),
                failure: Vec::new(),
            }));
            drop(call.stage(&TxnRequest::default()));
        });
        let expected = [
            "begins",
            "compare_first_key=c",
            "success_first_key=r",
            "success_first_type=range",
            "success_first_lease=9",
            "compare_len=2",
            "success_len=2",
            "failure_len=0",
            "read_only=false",
            "ends",
            "begins",
            "compare_first_key=",
            "success_first_key=",
            "success_first_type=",
            "success_first_lease=-1",
            "compare_len=0",
            "success_len=0",
            "failure_len=0",
            "read_only=true",
            "ends",
        ];
        assert_eq!(lines, expected.map(|line| format!("Put/txn {line}")));
    }

    #[test]
    fn long_texts_are_cut() {
        let key = Bytes::from(vec![b'k'; limits::SPAN_TEXT_BYTES + 1]);
        let lines = staged(|call| drop(call.stage(&PutRequest { key, ..PutRequest::default() })));
        assert_eq!(lines[1], format!("Put/put key={}", "k".repeat(limits::SPAN_TEXT_BYTES)));
    }
}
