//! The methods that are served, as data: what to count them by, and what holds for each.

use std::time::Duration;

use tonic::Code;

use super::access::RpcAccess;
use crate::admission::Traffic;

/// How many messages a method takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcKind {
    /// One request, one response.
    Unary,
    /// One request, a stream of responses.
    ServerStream,
    /// Streams both ways.
    BidiStream,
}

impl RpcKind {
    /// The name as etcd's metrics have it in the label `grpc_type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }

    /// Whether messages stream in at least one direction.
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Unary)
    }
}

/// One method of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// Its place in [`RPCS`], so that what is kept for each method can stand in an array.
    pub index: usize,
    /// The service with its package, as in the path.
    pub service: &'static str,
    /// The method, as in the path.
    pub method: &'static str,
    /// How many messages it takes and gives.
    pub kind: RpcKind,
    /// Whether a learner serves it; KV.Range decides by itself.
    pub on_learner: bool,
    /// Who may call it, where that does not depend on the request.
    pub access: RpcAccess,
    /// What it is to the server, which cannot always serve all.
    pub traffic: Traffic,
}

impl Rpc {
    /// Whether it tells of this member and nothing of the cluster's data, so that one that joins serves it, too.
    pub(super) fn tells_of_itself(&self) -> bool {
        self.service == MAINTENANCE && self.method == "Status"
    }
}

/// What the edge tells of the requests it sees; the metrics are behind it.
///
/// Called on the path of every request: an implementation counts and returns.
pub trait RpcObserver: Send + Sync + 'static {
    /// A request has begun.
    fn started(&self, rpc: &'static Rpc);
    /// A message of a request has come in, of so many bytes.
    fn received(&self, rpc: &'static Rpc, bytes: usize);
    /// A message of a response goes out, of so many bytes.
    fn sent(&self, rpc: &'static Rpc, bytes: usize);
    /// A request has ended, `Cancelled` where the client went away. Slow ones are known here.
    fn handled(&self, rpc: &'static Rpc, code: Code, elapsed: Duration);
    /// A client told which API version it speaks; `unknown` where it did not.
    fn client_request(&self, kind: RpcKind, version: &str);
}

/// Nobody who counts.
impl RpcObserver for () {
    fn started(&self, _rpc: &'static Rpc) {}
    fn received(&self, _rpc: &'static Rpc, _bytes: usize) {}
    fn sent(&self, _rpc: &'static Rpc, _bytes: usize) {}
    fn handled(&self, _rpc: &'static Rpc, _code: Code, _elapsed: Duration) {}
    fn client_request(&self, _kind: RpcKind, _version: &str) {}
}

const KV: &str = "etcdserverpb.KV";
const WATCH: &str = "etcdserverpb.Watch";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const AUTH: &str = "etcdserverpb.Auth";
const LOCK: &str = "v3lockpb.Lock";
const ELECTION: &str = "v3electionpb.Election";
const HEALTH: &str = "grpc.health.v1.Health";

/// Every method that is served, those of one service together.
pub static RPCS: [Rpc; 52] = numbered([
    on_learner(unary(KV, "Range")),
    stream(KV, "RangeStream", RpcKind::ServerStream),
    unary(KV, "Put"),
    relief(unary(KV, "DeleteRange")),
    unary(KV, "Txn"),
    control(root(unary(KV, "Compact"))),
    stream(WATCH, "Watch", RpcKind::BidiStream),
    control(user(unary(LEASE, "LeaseGrant"))),
    control(user(unary(LEASE, "LeaseRevoke"))),
    control(stream(LEASE, "LeaseKeepAlive", RpcKind::BidiStream)),
    control(user(unary(LEASE, "LeaseTimeToLive"))),
    unary(LEASE, "LeaseLeases"),
    control(unary(CLUSTER, "MemberAdd")),
    control(root(unary(CLUSTER, "MemberRemove"))),
    control(root(unary(CLUSTER, "MemberUpdate"))),
    control(user(unary(CLUSTER, "MemberList"))),
    control(root(unary(CLUSTER, "MemberPromote"))),
    control(unary(MAINTENANCE, "Alarm")),
    control(user(on_learner(unary(MAINTENANCE, "Status")))),
    control(root(unary(MAINTENANCE, "Defragment"))),
    root(unary(MAINTENANCE, "Hash")),
    root(unary(MAINTENANCE, "HashKV")),
    root(on_learner(stream(MAINTENANCE, "Snapshot", RpcKind::ServerStream))),
    control(root(unary(MAINTENANCE, "MoveLeader"))),
    control(root(unary(MAINTENANCE, "Downgrade"))),
    control(unary(AUTH, "AuthEnable")),
    control(unary(AUTH, "AuthDisable")),
    control(unary(AUTH, "AuthStatus")),
    control(unary(AUTH, "Authenticate")),
    control(unary(AUTH, "UserAdd")),
    control(unary(AUTH, "UserGet")),
    control(unary(AUTH, "UserList")),
    control(unary(AUTH, "UserDelete")),
    control(unary(AUTH, "UserChangePassword")),
    control(unary(AUTH, "UserGrantRole")),
    control(unary(AUTH, "UserRevokeRole")),
    control(unary(AUTH, "RoleAdd")),
    control(unary(AUTH, "RoleGet")),
    control(unary(AUTH, "RoleList")),
    control(unary(AUTH, "RoleDelete")),
    control(unary(AUTH, "RoleGrantPermission")),
    control(unary(AUTH, "RoleRevokePermission")),
    unary(LOCK, "Lock"),
    control(unary(LOCK, "Unlock")),
    unary(ELECTION, "Campaign"),
    unary(ELECTION, "Proclaim"),
    unary(ELECTION, "Leader"),
    stream(ELECTION, "Observe", RpcKind::ServerStream),
    control(unary(ELECTION, "Resign")),
    control(unary(HEALTH, "Check")),
    control(unary(HEALTH, "List")),
    control(stream(HEALTH, "Watch", RpcKind::ServerStream)),
]);

/// The methods of a service; none where it is not served.
pub(super) fn methods_of(service: &str) -> &'static [Rpc] {
    let Some(first) = RPCS.iter().position(|rpc| rpc.service == service) else {
        return &[];
    };
    let len = RPCS[first..].iter().take_while(|rpc| rpc.service == service).count();
    &RPCS[first..first + len]
}

/// Splits the path of a request into service and method, as grpc-go does; `None` where it names none.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/').unwrap_or(path).rsplit_once('/')
}

const fn unary(service: &'static str, method: &'static str) -> Rpc {
    stream(service, method, RpcKind::Unary)
}

const fn stream(service: &'static str, method: &'static str, kind: RpcKind) -> Rpc {
    let (access, traffic) = (RpcAccess::ByRequest, Traffic::Ordinary);
    Rpc { index: 0, service, method, kind, on_learner: false, access, traffic }
}

const fn on_learner(rpc: Rpc) -> Rpc {
    Rpc { on_learner: true, ..rpc }
}

const fn user(rpc: Rpc) -> Rpc {
    Rpc { access: RpcAccess::User, ..rpc }
}

const fn root(rpc: Rpc) -> Rpc {
    Rpc { access: RpcAccess::Root, ..rpc }
}

const fn relief(rpc: Rpc) -> Rpc {
    Rpc { traffic: Traffic::Relief, ..rpc }
}

const fn control(rpc: Rpc) -> Rpc {
    Rpc { traffic: Traffic::Control, ..rpc }
}

const fn numbered<const N: usize>(mut rpcs: [Rpc; N]) -> [Rpc; N] {
    let mut index = 0;
    while index < N {
        rpcs[index].index = index;
        index += 1;
    }
    rpcs
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOS: [&str; 4] = [
        include_str!("../../../proto/etcd/rpc.proto"),
        include_str!("../../../proto/etcd/v3lock.proto"),
        include_str!("../../../proto/etcd/v3election.proto"),
        include_str!("../../../proto/grpc/health.proto"),
    ];

    /// The methods that the .proto files declare, in the form of the table.
    fn declared() -> Vec<(String, String, RpcKind)> {
        let mut methods = Vec::new();
        for proto in PROTOS {
            let mut package = "";
            let mut service = String::new();
            for line in proto.lines().map(str::trim) {
                if let Some(rest) = line.strip_prefix("package ") {
                    package = rest.trim_end_matches(';');
                } else if let Some(rest) = line.strip_prefix("service ") {
                    service = format!("{package}.{}", rest.trim_end_matches(" {"));
                } else if let Some((method, rest)) = line.strip_prefix("rpc ").and_then(|rest| rest.split_once('(')) {
                    let kind = match (rest.starts_with("stream "), rest.contains("returns (stream ")) {
                        (false, false) => RpcKind::Unary,
                        (false, true) => RpcKind::ServerStream,
                        _ => RpcKind::BidiStream,
                    };
                    methods.push((service.clone(), method.to_owned(), kind));
                }
            }
        }
        methods
    }

    #[test]
    fn the_table_is_what_the_protos_declare() {
        let mut table: Vec<_> =
            RPCS.iter().map(|rpc| (rpc.service.to_owned(), rpc.method.to_owned(), rpc.kind)).collect();
        let mut declared = declared();
        table.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        declared.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        assert_eq!(table, declared);
    }

    /// As etcd has it; a method that is new must be put into one of these lists.
    #[test]
    fn every_method_has_its_rule() {
        let named = |access: RpcAccess| -> Vec<&str> {
            RPCS.iter().filter(|rpc| rpc.access == access).map(|rpc| rpc.method).collect()
        };
        let root = [
            "Compact",
            "MemberRemove",
            "MemberUpdate",
            "MemberPromote",
            "Defragment",
            "Hash",
            "HashKV",
            "Snapshot",
            "MoveLeader",
            "Downgrade",
        ];
        assert_eq!(named(RpcAccess::Root), root);
        let user = ["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "MemberList", "Status"];
        assert_eq!(named(RpcAccess::User), user);
        // These judge by their keys or by what they ask for; users and roles when they are applied.
        let by_request = [
            "Range",
            "RangeStream",
            "Put",
            "DeleteRange",
            "Txn",
            "LeaseKeepAlive",
            "LeaseLeases",
            "MemberAdd",
            "Alarm",
        ];
        let others = RPCS.iter().filter(|rpc| rpc.access == RpcAccess::ByRequest && !by_request.contains(&rpc.method));
        let services: std::collections::BTreeSet<&str> = others.map(|rpc| rpc.service).collect();
        // Locks and elections ask the services for keys and leases, in their caller's name.
        assert_eq!(services.into_iter().collect::<Vec<_>>(), [AUTH, WATCH, HEALTH, ELECTION, LOCK]);
    }

    /// A method that is new must be put into one of these lists.
    #[test]
    fn work_is_told_from_what_must_go_on() {
        let named = |traffic: Traffic| -> Vec<&str> {
            RPCS.iter().filter(|rpc| rpc.traffic == traffic).map(|rpc| rpc.method).collect()
        };
        let ordinary = [
            "Range",
            "RangeStream",
            "Put",
            "Txn",
            "Watch",
            "LeaseLeases",
            "Hash",
            "HashKV",
            "Snapshot",
            "Lock",
            "Campaign",
            "Proclaim",
            "Leader",
            "Observe",
        ];
        assert_eq!(named(Traffic::Ordinary), ordinary);
        assert_eq!(named(Traffic::Relief), ["DeleteRange"]);
        let control = RPCS.iter().filter(|rpc| rpc.traffic == Traffic::Control);
        let of_keys = ["Compact", "LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "Unlock", "Resign"];
        let others = control.filter(|rpc| !of_keys.contains(&rpc.method));
        let services: std::collections::BTreeSet<&str> = others.map(|rpc| rpc.service).collect();
        assert_eq!(services.into_iter().collect::<Vec<_>>(), [AUTH, CLUSTER, MAINTENANCE, HEALTH]);
    }

    #[test]
    fn methods_are_numbered_and_grouped() {
        for (index, rpc) in RPCS.iter().enumerate() {
            assert_eq!(rpc.index, index);
            assert!(methods_of(rpc.service).contains(rpc), "{rpc:?} stands apart from its service");
        }
        assert_eq!(methods_of(LEASE).len(), 5);
        assert!(methods_of("etcdserverpb.Nope").is_empty());
    }

    #[test]
    fn paths_split_at_the_last_slash() {
        assert_eq!(split("/etcdserverpb.KV/Range"), Some(("etcdserverpb.KV", "Range")));
        assert_eq!(split("/etcdserverpb.KV/"), Some(("etcdserverpb.KV", "")));
        assert_eq!(split("/a/b/c"), Some(("a/b", "c")));
        assert_eq!(split("/a"), None);
        assert_eq!(split("/"), None);
    }
}
