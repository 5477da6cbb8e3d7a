//! Every flag, once: its name, what it takes, its default, its key in the file, and what it does here.

use Effect::{Nothing, Used};
use InFile::{Absent, At, SameName};
use Kind::{Bool, Duration, Gates, Ignored, Int, OneOf, Origins, Size, SomeOf, Text, Texts, Uint, Uint32, Urls};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// true or false; the value may be left out.
    Bool,
    /// An unsigned integer of 64 bits.
    Uint,
    /// An unsigned integer of 32 bits.
    Uint32,
    /// A signed integer of 64 bits.
    Int,
    /// A number of bytes, which may end in Ki, Mi or Gi.
    Size,
    /// Go's durations; integer nanoseconds in the file.
    Duration,
    /// Any text.
    Text,
    /// Comma-separated addresses; an empty text leaves the default.
    Urls,
    /// Comma-separated addresses, or `*`.
    Origins,
    /// Comma-separated texts; may be a list in the file.
    Texts,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, comma-separated.
    SomeOf(&'static [&'static str]),
    /// `Gate=true,Other=false`; repeated ones add up.
    Gates,
    /// A flag of etcd's past: accepted and without any effect, as in etcd.
    Ignored,
}

/// Where a flag stands in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFile {
    /// Under its own name.
    SameName,
    /// Under this path, its steps joined by dots.
    At(&'static str),
    /// Nowhere: it is a flag only.
    Absent,
}

/// What setting a flag does in this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// What it does in etcd.
    Used,
    /// Nothing, for this reason: accepted with a warning.
    Nothing(&'static str),
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As it would be given on the command line.
    pub(crate) default: &'static str,
    pub(crate) file: InFile,
    pub(crate) effect: Effect,
    /// One line for `--help`.
    pub(crate) help: &'static str,
}

/// Flags under one heading of `--help`.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag],
}

/// Finds a flag by its name.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// Every flag, in the order of `--help`.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags)
}

/// The feature gate that a flag of etcd 3.5 and 3.6 became.
pub(crate) fn former_gate(name: &str) -> Option<&'static str> {
    FORMER_GATES.iter().find(|(flag, _)| *flag == name).map(|(_, gate)| *gate)
}

const FORMER_GATES: &[(&str, &str)] = &[
    ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
    ("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    ("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("experimental-set-member-localaddr", "SetMemberLocalAddr"),
];

const fn flag(name: &'static str, kind: Kind, default: &'static str, effect: Effect, help: &'static str) -> Flag {
    Flag { name, kind, default, file: SameName, effect, help }
}

const fn at(file: InFile, flag: Flag) -> Flag {
    Flag { file, ..flag }
}

const fn ignored(name: &'static str) -> Flag {
    Flag { name, kind: Ignored, default: "", file: Absent, effect: Used, help: "" }
}

const NO_OWN_CLIENT: Effect = Nothing("the server does not connect to itself here");
const NO_BBOLT: Effect = Nothing("there is no bbolt file here");
const SILENT_PEERS: Effect = Nothing("a connection between members that is silent for three seconds is given up here");
const OWN_PACE: Effect = Nothing("compaction sets its own pace here");

/// etcd's flags in etcd's order, then our own.
pub(crate) const SECTIONS: &[Section] = &[
    Section { title: "Member", flags: MEMBER },
    Section { title: "Clustering", flags: CLUSTERING },
    Section { title: "Security", flags: SECURITY },
    Section { title: "Auth", flags: AUTH },
    Section { title: "Monitoring and logging", flags: MONITORING },
    Section { title: "Behaviour", flags: BEHAVIOUR },
    Section { title: "mainstay's own", flags: OWN },
    Section { title: "Special", flags: SPECIAL },
    Section { title: "", flags: FORMER },
];

const MEMBER: &[Flag] = &[
    flag("name", Text, "default", Used, "Name of this member."),
    flag("data-dir", Text, "", Used, "Data directory; '<name>.etcd' when empty."),
    flag("wal-dir", Text, "", Used, "Directory of the log; below the data directory when empty."),
    flag("snapshot-count", Uint, "10000", Used, "Applied entries after which the log may be cut."),
    flag("snapshot-catchup-entries", Uint, "5000", Used, "Entries kept in the log for slow followers."),
    flag("heartbeat-interval", Uint, "100", Used, "Milliseconds between two heartbeats of the leader."),
    flag("election-timeout", Uint, "1000", Used, "Milliseconds without a leader before an election."),
    flag(
        "initial-election-tick-advance",
        Bool,
        "true",
        Nothing("elections do not count ticks here"),
        "Whether the first election may come early.",
    ),
    flag("listen-peer-urls", Urls, "http://localhost:2380", Used, "Where to listen for peers."),
    flag("listen-client-urls", Urls, "http://localhost:2379", Used, "Where to listen for clients, gRPC and HTTP."),
    flag(
        "listen-client-http-urls",
        Urls,
        "",
        Used,
        "Where to listen for HTTP only; the other port then speaks gRPC only.",
    ),
    flag("max-snapshots", Uint, "5", Nothing("one snapshot is kept here"), "Snapshot files to keep."),
    flag("max-wals", Uint, "5", Nothing("the log recycles its own files here"), "Log files to keep."),
    flag("memory-mlock", Bool, "false", Nothing("memory is not locked here"), "Whether to lock memory."),
    flag(
        "quota-backend-bytes",
        Int,
        "0",
        Used,
        "Bytes of data before the space alarm; 0 is 2 GiB, less than 0 is no limit.",
    ),
    flag("backend-bbolt-freelist-type", Text, "", NO_BBOLT, "Free list of bbolt."),
    flag("backend-batch-interval", Duration, "0s", NO_BBOLT, "Longest time between two commits of bbolt."),
    flag("backend-batch-limit", Int, "0", NO_BBOLT, "Most operations between two commits of bbolt."),
    flag(
        "bootstrap-defrag-threshold-megabytes",
        Uint,
        "0",
        Nothing("space is given back without a defragmentation here"),
        "Megabytes that a defragmentation at start must free.",
    ),
    flag("max-txn-ops", Uint, "128", Used, "Most operations of a transaction."),
    flag("max-request-bytes", Uint, "1572864", Used, "Largest request in bytes."),
    flag("max-concurrent-streams", Uint32, "4294967295", Used, "Most streams that a client may have open."),
    flag(
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        // h2 answers them and tells nobody, not even how many there were; and hyper closes a connection without a reason
        // to go with it. Without that one (ENHANCE_YOUR_CALM), a client would come back and ping as before.
        Nothing("the HTTP/2 library answers pings by itself: clients are not cut off for theirs here"),
        "Shortest time between two pings of a client.",
    ),
    flag("grpc-keepalive-interval", Duration, "2h0m0s", Used, "Time between two pings of the server; 0 is never."),
    flag("grpc-keepalive-timeout", Duration, "20s", Used, "Time to answer a ping before the connection is closed."),
    at(
        At("socket-options.reuse-port"),
        flag("socket-reuse-port", Bool, "false", Used, "Whether listeners set SO_REUSEPORT."),
    ),
    at(
        At("socket-options.reuse-address"),
        flag(
            "socket-reuse-address",
            Bool,
            "false",
            Nothing("listeners set SO_REUSEADDR anyway"),
            "Whether listeners set SO_REUSEADDR.",
        ),
    ),
    flag("enable-grpc-gateway", Bool, "true", Used, "Whether to serve the JSON gateway."),
    at(Absent, flag("raft-read-timeout", Duration, "5s", SILENT_PEERS, "Read timeout of connections between peers.")),
    at(Absent, flag("raft-write-timeout", Duration, "5s", SILENT_PEERS, "Write timeout of connections between peers.")),
    flag("feature-gates", Gates, "", Used, "Features to switch on or off: Name=true,Name=false."),
];

const CLUSTERING: &[Flag] = &[
    flag("initial-advertise-peer-urls", Urls, "http://localhost:2380", Used, "Where peers reach this member."),
    flag("initial-cluster", Text, "default=http://localhost:2380", Used, "The first members: name=url,name=url."),
    flag("initial-cluster-state", OneOf(&["new", "existing"]), "new", Used, "Whether the cluster is new or exists."),
    flag("initial-cluster-token", Text, "etcd-cluster", Used, "Tells clusters apart."),
    flag("advertise-client-urls", Urls, "http://localhost:2379", Used, "Where clients reach this member."),
    at(At("discovery-config.token"), flag("discovery-token", Text, "", Used, "Token of the discovery service.")),
    at(
        At("discovery-config.client.endpoints"),
        flag("discovery-endpoints", Texts, "", Used, "Endpoints of the discovery service."),
    ),
    at(
        At("discovery-config.client.dial-timeout"),
        flag("discovery-dial-timeout", Duration, "2s", Used, "Timeout of dialling the discovery service."),
    ),
    at(
        At("discovery-config.client.request-timeout"),
        flag("discovery-request-timeout", Duration, "5s", Used, "Timeout of its requests."),
    ),
    at(
        At("discovery-config.client.keepalive-time"),
        flag("discovery-keepalive-time", Duration, "2s", Used, "Time between pings to it."),
    ),
    at(
        At("discovery-config.client.keepalive-timeout"),
        flag("discovery-keepalive-timeout", Duration, "6s", Used, "Timeout of such a ping."),
    ),
    at(
        At("discovery-config.client.secure.insecure-transport"),
        flag("discovery-insecure-transport", Bool, "true", Used, "Whether to talk to it without TLS."),
    ),
    at(
        At("discovery-config.client.secure.insecure-skip-tls-verify"),
        flag("discovery-insecure-skip-tls-verify", Bool, "false", Used, "Whether to trust any certificate of it."),
    ),
    at(At("discovery-config.client.secure.cert"), flag("discovery-cert", Text, "", Used, "Client certificate for it.")),
    at(At("discovery-config.client.secure.key"), flag("discovery-key", Text, "", Used, "Key of that certificate.")),
    at(
        At("discovery-config.client.secure.cacert"),
        flag("discovery-cacert", Text, "", Used, "CA of the discovery service."),
    ),
    at(
        At("discovery-config.client.auth.username"),
        flag("discovery-user", Text, "", Used, "User at the discovery service."),
    ),
    at(
        At("discovery-config.client.auth.password"),
        flag("discovery-password", Text, "", Used, "Password of that user."),
    ),
    at(Absent, flag("discovery-fallback", OneOf(&["exit", "proxy"]), "exit", Used, "What to do when discovery fails.")),
    flag("discovery-srv", Text, "", Used, "DNS domain whose SRV records name the first members."),
    flag("discovery-srv-name", Text, "", Used, "Suffix of the SRV service name."),
    flag(
        "strict-reconfig-check",
        Bool,
        "true",
        Used,
        "Whether to refuse changes of members that would cost the quorum.",
    ),
    flag("pre-vote", Bool, "true", Used, "Whether a candidate asks before it raises the term."),
    flag(
        "auto-compaction-retention",
        Text,
        "0",
        Used,
        "History to keep: hours, a duration or a number of revisions; 0 is all.",
    ),
    flag("auto-compaction-mode", Text, "periodic", Used, "What the retention counts: periodic or revision."),
    flag(
        "v2-deprecation",
        SomeOf(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        Nothing("there is no v2 store here"),
        "Phase of the v2 store's removal.",
    ),
    flag("max-learners", Int, "1", Used, "Most learners in the cluster."),
    flag("force-new-cluster", Bool, "false", Used, "Drop all other members, keep the data."),
];

const SECURITY: &[Flag] = &[
    at(At("client-transport-security.cert-file"), flag("cert-file", Text, "", Used, "Certificate for clients.")),
    at(At("client-transport-security.key-file"), flag("key-file", Text, "", Used, "Key of that certificate.")),
    at(
        At("client-transport-security.client-cert-auth"),
        flag("client-cert-auth", Bool, "false", Used, "Whether clients need a certificate."),
    ),
    at(
        At("client-transport-security.client-cert-file"),
        flag("client-cert-file", Text, "", NO_OWN_CLIENT, "Certificate for the server's own client connections."),
    ),
    at(
        At("client-transport-security.client-key-file"),
        flag("client-key-file", Text, "", NO_OWN_CLIENT, "Key of that certificate."),
    ),
    at(Absent, flag("client-crl-file", Text, "", Used, "Revoked client certificates.")),
    at(
        At("client-transport-security.allowed-hostname"),
        flag("client-cert-allowed-hostname", Texts, "", Used, "Host names that client certificates may carry."),
    ),
    at(
        At("client-transport-security.trusted-ca-file"),
        flag("trusted-ca-file", Text, "", Used, "CA of client certificates."),
    ),
    at(
        At("client-transport-security.auto-tls"),
        flag("auto-tls", Bool, "false", Used, "Whether to make a certificate for clients."),
    ),
    at(At("peer-transport-security.cert-file"), flag("peer-cert-file", Text, "", Used, "Certificate for peers.")),
    at(At("peer-transport-security.key-file"), flag("peer-key-file", Text, "", Used, "Key of that certificate.")),
    at(
        At("peer-transport-security.client-cert-auth"),
        flag("peer-client-cert-auth", Bool, "false", Used, "Whether peers need a certificate."),
    ),
    at(
        At("peer-transport-security.client-cert-file"),
        flag("peer-client-cert-file", Text, "", Used, "Certificate for dialling peers."),
    ),
    at(
        At("peer-transport-security.client-key-file"),
        flag("peer-client-key-file", Text, "", Used, "Key of that certificate."),
    ),
    at(
        At("peer-transport-security.trusted-ca-file"),
        flag("peer-trusted-ca-file", Text, "", Used, "CA of peer certificates."),
    ),
    at(
        At("peer-transport-security.allowed-cn"),
        flag("peer-cert-allowed-cn", Texts, "", Used, "Common names that peer certificates may carry."),
    ),
    at(
        At("peer-transport-security.allowed-hostname"),
        flag("peer-cert-allowed-hostname", Texts, "", Used, "Host names that peer certificates may carry."),
    ),
    at(
        At("peer-transport-security.auto-tls"),
        flag("peer-auto-tls", Bool, "false", Used, "Whether to make a certificate for peers."),
    ),
    flag("self-signed-cert-validity", Uint, "1", Used, "Years that a made certificate is valid."),
    at(Absent, flag("peer-crl-file", Text, "", Used, "Revoked peer certificates.")),
    at(
        At("peer-transport-security.skip-client-san-verification"),
        flag(
            "peer-skip-client-san-verification",
            Bool,
            "false",
            Used,
            "Whether to skip the check of peers' addresses.",
        ),
    ),
    flag("cipher-suites", Texts, "", Used, "TLS cipher suites, by their Go names."),
    flag("cors", Origins, "*", Used, "Origins that browsers may call from."),
    flag("host-whitelist", Texts, "*", Used, "Host names that HTTP requests may be for."),
    flag("tls-min-version", Text, "TLS1.2", Used, "Oldest TLS version."),
    flag("tls-max-version", Text, "", Used, "Newest TLS version."),
];

const AUTH: &[Flag] = &[
    flag("auth-token", Text, "simple", Used, "Type of auth tokens."),
    flag("bcrypt-cost", Uint, "10", Used, "Cost of hashing a password."),
    flag("auth-token-ttl", Uint, "300", Used, "Seconds that a token lives."),
];

const MONITORING: &[Flag] = &[
    flag(
        "enable-pprof",
        Bool,
        "false",
        Nothing("there is no Go runtime to profile here"),
        "Whether to serve profiles.",
    ),
    flag("metrics", Text, "basic", Used, "basic, or extensive to add the duration of gRPC calls."),
    flag("listen-metrics-urls", Urls, "", Used, "Where else to serve metrics and health."),
    flag("logger", Text, "zap", Used, "Kind of log: zap."),
    flag("log-outputs", Texts, "default", Used, "Where to log: stderr, stdout, default, systemd/journal or files."),
    flag("log-level", Text, "info", Used, "Least level to log: debug, info, warn, error, panic or fatal."),
    flag("log-format", Text, "json", Used, "Form of the log: json or console."),
    flag("enable-log-rotation", Bool, "false", Used, "Whether to rotate the log file, of which there must be one."),
    flag(
        "log-rotation-config-json",
        Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        Used,
        "How to rotate it: megabytes of a file, days and number of the old ones that are kept (0 for all).",
    ),
    flag("warning-unary-request-duration", Duration, "300ms", Used, "Time after which a request is logged as slow."),
    flag("warning-apply-duration", Duration, "100ms", Used, "Time after which applying is logged as slow."),
    flag("enable-distributed-tracing", Bool, "false", Used, "Whether to send traces of requests, as OTLP over gRPC."),
    flag("distributed-tracing-address", Text, "localhost:4317", Used, "Where to send them: host:port."),
    flag("distributed-tracing-service-name", Text, "etcd", Used, "Service name in them."),
    flag("distributed-tracing-instance-id", Text, "", Used, "Instance id in them."),
    flag(
        "distributed-tracing-sampling-rate",
        Int,
        "0",
        Used,
        "Traces to take out of a million, of requests whose clients do not decide.",
    ),
];

const BEHAVIOUR: &[Flag] = &[
    flag(
        "corrupt-check-time",
        Duration,
        "0s",
        Nothing("members compare what they have every few seconds"),
        "Time between two comparisons of the members' data.",
    ),
    flag(
        "compact-hash-check-time",
        Duration,
        "1m0s",
        Nothing("members compare what they have every few seconds"),
        "Time between two comparisons of compaction hashes.",
    ),
    flag("compaction-batch-limit", Int, "0", OWN_PACE, "Most revisions removed at once."),
    flag("compaction-sleep-interval", Duration, "0s", OWN_PACE, "Pause between two such batches."),
    flag(
        "watch-progress-notify-interval",
        Duration,
        "0s",
        Used,
        "Time between two progress notices; 0 is ten minutes.",
    ),
    flag(
        "downgrade-check-time",
        Duration,
        "5s",
        Nothing("a downgrade is told as soon as it is announced here, and then there is nothing to wait for"),
        "Time between two checks of a downgrade.",
    ),
    flag("unsafe-no-fsync", Bool, "false", Used, "Whether to never fsync; loses data at a crash."),
];

const OWN: &[Flag] = &[
    flag(
        "memory-limit",
        Size,
        "0",
        Used,
        "Bytes of memory below which the process stays, such as 4Gi; 0 for none, the least is 256Mi.",
    ),
    flag(
        "admission",
        Bool,
        "true",
        Used,
        "Whether requests are refused that find no room beside those of other clients, or while the member is overloaded.",
    ),
    flag("promote-learners", Bool, "false", Used, "Whether the leader promotes learners that have caught up."),
    flag(
        "value-cache-bytes",
        Uint,
        "100663296",
        Used,
        "Bytes of memory for values that are kept ready to be read; not given, a 16th of --memory-limit, up to 512 MiB.",
    ),
    flag(
        "snapshot-send-rate",
        Uint,
        "67108864",
        Used,
        "Bytes a second that this member sends of snapshots, to all members together; 0 is no limit.",
    ),
    flag(
        "keep-raft-log",
        Bool,
        "false",
        Used,
        "Whether to keep every entry of the raft log, for tests that look at it with dump-requests.",
    ),
];

const SPECIAL: &[Flag] = &[
    at(
        Absent,
        flag("config-file", Text, "", Used, "Configuration file; all other flags and variables are then ignored."),
    ),
    at(Absent, flag("version", Bool, "false", Used, "Print the version and exit.")),
];

const FORMER: &[Flag] = &[
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];
