//! The validated configuration: one typed field for each flag.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::feature_gates::FeatureGates;
use super::url::Url;
use crate::auth::TokenOptions;

/// Everything that a member was told at its start. It is valid as a whole; nothing checks it again.
#[derive(Clone, Debug)]
pub struct Config {
    // Member
    /// This member's name.
    pub name: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the log is kept, if not below the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries after which the log may be cut.
    pub snapshot_count: u64,
    /// Entries that stay in the log behind the cut, for slow followers.
    pub snapshot_catchup_entries: u64,
    /// Time between two heartbeats of the leader; above zero.
    pub heartbeat_interval: Duration,
    /// Time without a leader before an election; at least five heartbeats.
    pub election_timeout: Duration,
    /// etcd: whether the first election may come early. Without effect here.
    pub initial_election_tick_advance: bool,
    /// Where to listen for peers.
    pub listen_peer_urls: Vec<Url>,
    /// Where to listen for clients; gRPC only where [`Config::listen_client_http_urls`] has any.
    pub listen_client_urls: Vec<Url>,
    /// Where to listen for HTTP only.
    pub listen_client_http_urls: Vec<Url>,
    /// etcd: log files to keep. Without effect here.
    pub max_wals: u64,
    /// etcd: snapshot files to keep. Without effect here.
    pub max_snapshots: u64,
    /// etcd: whether to lock memory. Without effect here.
    pub memory_mlock: bool,
    /// Bytes of data before the space alarm; below zero for no limit, never zero.
    pub quota_backend_bytes: i64,
    /// etcd's bbolt. Without effect here.
    pub backend: Backend,
    /// etcd: megabytes that a defragmentation at start must free. Without effect here.
    pub bootstrap_defrag_threshold_megabytes: u64,
    /// Most operations of a transaction.
    pub max_txn_ops: usize,
    /// Largest request in bytes.
    pub max_request_bytes: usize,
    /// Most streams that a client connection may have open.
    pub max_concurrent_streams: u32,
    /// etcd: shortest time between two pings of a client. Without effect here.
    pub grpc_keepalive_min_time: Duration,
    /// Time between two pings of the server; `None` for no pings.
    pub grpc_keepalive_interval: Option<Duration>,
    /// Time that a client has to answer a ping.
    pub grpc_keepalive_timeout: Duration,
    /// Whether listeners set SO_REUSEPORT.
    pub socket_reuse_port: bool,
    /// etcd: whether listeners set SO_REUSEADDR. Without effect here.
    pub socket_reuse_address: bool,
    /// Whether to serve the JSON gateway.
    pub enable_grpc_gateway: bool,
    /// etcd: longest silence of a connection between peers. Without effect here.
    pub raft_read_timeout: Duration,
    /// etcd: longest time that a write between peers may take. Without effect here.
    pub raft_write_timeout: Duration,
    /// Features that are switched on; only shown.
    pub feature_gates: FeatureGates,

    // Clustering
    /// Where peers reach this member.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The first members by name, with their peer URLs. Counts at the first start only. Where they are to be
    /// discovered, it is this member alone (by a token) or nobody (by DNS) until they are.
    pub initial_cluster: BTreeMap<String, Vec<Url>>,
    /// Whether the cluster is new. Counts at the first start only.
    pub initial_cluster_state: ClusterState,
    /// Tells clusters apart: part of the ids. A discovery token takes its place.
    pub initial_cluster_token: String,
    /// Where clients reach this member.
    pub advertise_client_urls: Vec<Url>,
    /// How the first members find each other, where [`Config::initial_cluster`] does not say it.
    pub discovery: Discovery,
    /// Whether to refuse changes of members that would cost the quorum.
    pub strict_reconfig_check: bool,
    /// Whether a candidate asks before it raises the term.
    pub pre_vote: bool,
    /// Which history to drop by itself, if any.
    pub auto_compaction: Option<AutoCompaction>,
    /// Most learners in the cluster.
    pub max_learners: usize,
    /// Drop all other members, keep the data.
    pub force_new_cluster: bool,

    // Security and auth
    /// TLS towards clients.
    pub client_tls: TransportSecurity,
    /// TLS between peers.
    pub peer_tls: TransportSecurity,
    /// What all TLS connections share.
    pub tls: TlsDetails,
    /// Origins that browsers may call from; `*` for any.
    pub cors: Vec<String>,
    /// Host names that HTTP requests may be for; `*` for any.
    pub host_whitelist: Vec<String>,
    /// Where auth tokens come from.
    pub auth_token: TokenOptions,
    /// Cost of hashing a password.
    pub bcrypt_cost: u64,
    /// How long a token lives.
    pub auth_token_ttl: Duration,

    // Monitoring and logging
    /// etcd: whether to serve profiles. Without effect here.
    pub enable_pprof: bool,
    /// How much to measure.
    pub metrics: MetricsDetail,
    /// Where else to serve metrics and health.
    pub listen_metrics_urls: Vec<Url>,
    /// Where to log.
    pub log_outputs: Vec<LogOutput>,
    /// Least level to log.
    pub log_level: LogLevel,
    /// Form of the log.
    pub log_format: LogFormat,
    /// How to rotate the log file, if at all; there is one then.
    pub log_rotation: Option<LogRotation>,
    /// Time after which a request is logged as slow.
    pub warning_unary_request_duration: Duration,
    /// Time after which applying is logged as slow.
    pub warning_apply_duration: Duration,
    /// Traces of requests.
    pub tracing: Tracing,

    // Behaviour
    /// etcd: time between two comparisons of the members' data. Without effect here: it is done all the time.
    pub corrupt_check_time: Option<Duration>,
    /// etcd: time between two comparisons of compaction hashes. Without effect here: it is done all the time.
    pub compact_hash_check_time: Duration,
    /// etcd: most revisions removed at once. Without effect here.
    pub compaction_batch_limit: u64,
    /// etcd: pause between two such batches. Without effect here.
    pub compaction_sleep_interval: Duration,
    /// Time between two progress notices of a watch; at least 100 ms.
    pub watch_progress_notify_interval: Duration,
    /// etcd: time between two checks of a downgrade. Without effect here.
    pub downgrade_check_time: Duration,
    /// Whether to never sync the raft log.
    pub unsafe_no_fsync: bool,

    // mainstay's own
    /// Bytes of memory below which the process stays.
    pub memory_limit: Option<u64>,
    /// Whether requests are refused for which there is no room or no time.
    pub admission: bool,
    /// Bytes of memory for values that are kept ready to be read.
    pub value_cache_bytes: u64,
    /// Bytes a second that are sent of snapshots, to all members together; 0 for no limit.
    pub snapshot_send_rate: u64,
    /// Whether learners get their vote when they have caught up, without being asked for.
    pub promote_learners: bool,
    /// Whether every entry of the log is kept, also those that nobody needs any more.
    pub keep_raft_log: bool,
}

impl Config {
    /// What a first start creates; a data directory that has it belongs to a member already.
    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// Where the log is.
    pub fn log_dir(&self) -> PathBuf {
        match &self.wal_dir {
            Some(dir) => dir.clone(),
            None => self.member_dir().join("wal"),
        }
    }

    /// Whether a data directory belongs to a member already: its flags of the first start then do not count.
    pub fn is_initialized(&self, exists: impl Fn(&Path) -> bool) -> bool {
        exists(&self.member_dir())
    }
}

/// Whether a member starts a cluster or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// All members of the initial cluster start it together.
    New,
    /// The cluster runs, and this member was added to it.
    Existing,
}

/// Which history to drop by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// What is older than this.
    Periodic(Duration),
    /// All but the last so many revisions.
    Revision(u64),
}

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Counts.
    Basic,
    /// And how long each gRPC call took.
    Extensive,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogOutput {
    /// The standard error stream.
    Stderr,
    /// The standard output stream.
    Stdout,
    /// systemd's journal.
    Journal,
    /// The end of a file.
    File(PathBuf),
}

/// When a log file is put aside for a new one, and what becomes of those that were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRotation {
    /// Most bytes of a log file; above zero.
    pub max_bytes: u64,
    /// Age at which a file that was put aside is removed; `None` for never.
    pub max_age: Option<Duration>,
    /// Most files that are kept aside; `None` for all.
    pub max_backups: Option<usize>,
    /// Whether the times in their names are local ones; else UTC.
    pub local_time: bool,
    /// Whether they are compressed.
    pub compress: bool,
}

/// Least level to log, with etcd's (zap's) names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Every request.
    Debug,
    /// Changes of state.
    Info,
    /// What is unexpected but handled.
    Warn,
    /// What a human must look at.
    Error,
    /// What a task died of.
    Panic,
    /// What the process died of.
    Fatal,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Columns.
    Console,
}

/// TLS on one side of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportSecurity {
    /// Certificate to show.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
    /// Whether the other side must show one.
    pub client_cert_auth: bool,
    /// Certificate for the server's own connections to it.
    pub client_cert_file: String,
    /// Its key.
    pub client_key_file: String,
    /// CA that the other side's certificate is checked against.
    pub trusted_ca_file: String,
    /// Revoked certificates.
    pub crl_file: String,
    /// Whether to make a certificate.
    pub auto_tls: bool,
    /// Common names that the other side may have; only peers.
    pub allowed_common_names: Vec<String>,
    /// Host names that the other side may have.
    pub allowed_hostnames: Vec<String>,
    /// Whether to skip the check of the other side's address; only peers.
    pub skip_client_san_verification: bool,
}

/// What all TLS connections share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsDetails {
    /// Cipher suites by their Go names; empty for a good choice.
    pub cipher_suites: Vec<String>,
    /// Oldest version.
    pub min_version: TlsVersion,
    /// Newest version; `None` for the newest there is.
    pub max_version: Option<TlsVersion>,
    /// Years that a certificate is valid that the server makes.
    pub self_signed_cert_validity_years: u64,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// How the first members find each other: by a token in another cluster, the discovery service, or by DNS.
#[derive(Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Names the cluster in the discovery service.
    pub token: String,
    /// Where that is; empty where it is not asked.
    pub endpoints: Vec<String>,
    /// Timeout of dialling it.
    pub dial_timeout: Duration,
    /// Timeout of its requests.
    pub request_timeout: Duration,
    /// Time between pings to it.
    pub keepalive_time: Duration,
    /// Timeout of such a ping.
    pub keepalive_timeout: Duration,
    /// Whether to talk to it without TLS.
    pub insecure_transport: bool,
    /// Whether to trust any certificate of it.
    pub insecure_skip_tls_verify: bool,
    /// Client certificate for it.
    pub cert: String,
    /// Its key.
    pub key: String,
    /// Its CA.
    pub cacert: String,
    /// User there.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// DNS domain whose SRV records name the first members; empty where it is not asked.
    pub srv: String,
    /// Suffix of the SRV service name.
    pub srv_name: String,
}

impl Discovery {
    /// Whether the members meet under a token.
    pub fn uses_token(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Whether the DNS names the members.
    pub fn uses_dns(&self) -> bool {
        !self.srv.is_empty()
    }
}

/// A password must not get into a log by way of a `{:?}`.
impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("token", &self.token)
            .field("endpoints", &self.endpoints)
            .field("dial_timeout", &self.dial_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("keepalive_time", &self.keepalive_time)
            .field("keepalive_timeout", &self.keepalive_timeout)
            .field("insecure_transport", &self.insecure_transport)
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("cacert", &self.cacert)
            .field("user", &self.user)
            .field("srv", &self.srv)
            .field("srv_name", &self.srv_name)
            .finish_non_exhaustive()
    }
}

/// Traces of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Whether to send any; the rest is valid if so.
    pub enabled: bool,
    /// Where to: host and port.
    pub address: String,
    /// Service name in them.
    pub service_name: String,
    /// Instance id in them; empty for none.
    pub instance_id: String,
    /// Traces to take out of a million, of requests whose clients do not decide.
    pub sampling_rate_per_million: i64,
}

/// etcd's bbolt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Type of its free list.
    pub freelist_type: String,
    /// Longest time between two commits.
    pub batch_interval: Duration,
    /// Most operations between two commits.
    pub batch_limit: i64,
}
