//! What gRPC methods count. A method's counters are looked up once a call, not once a step.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::{Histogram, IntCounter};
use tonic::Code;

use super::registry::Builder;
use crate::config::MetricsDetail;

/// The counters of every gRPC method.
pub struct Grpc {
    methods: HashMap<String, MethodMetrics>,
}

/// The counters of one method. A clone counts into the same.
#[derive(Clone)]
pub struct MethodMetrics {
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    /// By the number of the code.
    handled: Vec<IntCounter>,
    handling_seconds: Option<Histogram>,
}

impl Grpc {
    pub(super) fn new(b: &mut Builder, detail: MetricsDetail) -> Grpc {
        let started = b.counters("grpc_server_started_total");
        let received = b.counters("grpc_server_msg_received_total");
        let sent = b.counters("grpc_server_msg_sent_total");
        let handled = b.counters("grpc_server_handled_total");
        let handling = match detail {
            MetricsDetail::Extensive => Some(b.histograms("grpc_server_handling_seconds")),
            MetricsDetail::Basic => {
                b.skip("grpc_server_handling_seconds");
                None
            }
        };
        let methods = SERVICES.iter().flat_map(|(service, methods)| methods.iter().map(move |m| (*service, m)));
        let methods = methods.map(|(service, (method, kind))| {
            // In the order of the table.
            let labels = [*kind, service, *method];
            let by_code = CODES.iter().map(|(_, code)| handled.with_label_values(&[*kind, service, *method, *code]));
            let metrics = MethodMetrics {
                started: started.with_label_values(&labels),
                received: received.with_label_values(&labels),
                sent: sent.with_label_values(&labels),
                handled: by_code.collect(),
                handling_seconds: handling.as_ref().map(|handling| handling.with_label_values(&labels)),
            };
            (format!("/{service}/{method}"), metrics)
        });
        Grpc { methods: methods.collect() }
    }

    /// The counters of a method by its path, such as `/etcdserverpb.KV/Put`; `None` where there is
    /// no such method (clients may ask for anything, and must not grow the metrics).
    pub fn method(&self, path: &str) -> Option<&MethodMetrics> {
        self.methods.get(path)
    }
}

impl MethodMetrics {
    /// A call began.
    pub fn started(&self) {
        self.started.inc();
    }

    /// A message arrived.
    pub fn received(&self) {
        self.received.inc();
    }

    /// A message was handed over to be sent.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// A call ended. A stream that its client dropped counts as cancelled.
    pub fn handled(&self, code: Code, took: Duration) {
        self.handled[code as usize].inc();
        if let Some(seconds) = &self.handling_seconds {
            seconds.observe(took.as_secs_f64());
        }
    }
}

/// Codes in the order of their numbers, with the names that Go's library prints.
pub(super) const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

/// A service's name, and its methods with their types.
type Service = (&'static str, &'static [(&'static str, &'static str)]);

pub(super) const SERVICES: &[Service] = &[
    (
        "etcdserverpb.KV",
        &[
            ("Range", UNARY),
            ("RangeStream", SERVER_STREAM),
            ("Put", UNARY),
            ("DeleteRange", UNARY),
            ("Txn", UNARY),
            ("Compact", UNARY),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", BIDI_STREAM)]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", UNARY),
            ("LeaseRevoke", UNARY),
            ("LeaseKeepAlive", BIDI_STREAM),
            ("LeaseTimeToLive", UNARY),
            ("LeaseLeases", UNARY),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", UNARY),
            ("MemberRemove", UNARY),
            ("MemberUpdate", UNARY),
            ("MemberList", UNARY),
            ("MemberPromote", UNARY),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", UNARY),
            ("Status", UNARY),
            ("Defragment", UNARY),
            ("Hash", UNARY),
            ("HashKV", UNARY),
            ("Snapshot", SERVER_STREAM),
            ("MoveLeader", UNARY),
            ("Downgrade", UNARY),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("AuthEnable", UNARY),
            ("AuthDisable", UNARY),
            ("AuthStatus", UNARY),
            ("Authenticate", UNARY),
            ("UserAdd", UNARY),
            ("UserGet", UNARY),
            ("UserList", UNARY),
            ("UserDelete", UNARY),
            ("UserChangePassword", UNARY),
            ("UserGrantRole", UNARY),
            ("UserRevokeRole", UNARY),
            ("RoleAdd", UNARY),
            ("RoleGet", UNARY),
            ("RoleList", UNARY),
            ("RoleDelete", UNARY),
            ("RoleGrantPermission", UNARY),
            ("RoleRevokePermission", UNARY),
        ],
    ),
    ("v3lockpb.Lock", &[("Lock", UNARY), ("Unlock", UNARY)]),
    (
        "v3electionpb.Election",
        &[("Campaign", UNARY), ("Proclaim", UNARY), ("Leader", UNARY), ("Observe", SERVER_STREAM), ("Resign", UNARY)],
    ),
    ("grpc.health.v1.Health", &[("Check", UNARY), ("List", UNARY), ("Watch", SERVER_STREAM)]),
];
