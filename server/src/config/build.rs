//! Settings → [`Config`], or a refusal; the order and the words of the checks are etcd's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;

use super::bootstrap;
use super::feature_gates::{FeatureGates, Gate};
use super::fields::{
    AutoCompaction, Backend, ClusterState, Config, Discovery, LogFormat, LogLevel, LogOutput, LogRotation,
    MetricsDetail, Tracing,
};
use super::go;
use super::log_rotation;
use super::notice::{Notice, RECOMMENDED_REQUEST_BYTES};
use super::refusal::Refusal;
use super::security;
use super::settings::Settings;
use super::table::Effect;
use super::url::{self, Scheme, Url};
use crate::admission::Budget;
use crate::auth::TokenOptions;

const DEFAULT_NAME: &str = "default";
const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
const DEFAULT_QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;
const PROGRESS_NOTIFY_DEFAULT: Duration = Duration::from_secs(600);
const PROGRESS_NOTIFY_MIN: Duration = Duration::from_millis(100);
const RAFT_TIMEOUT_MIN: Duration = Duration::from_secs(5);
const SAMPLING_RATE_MAX: i64 = 1_000_000;

/// Makes a configuration of the settings.
pub(super) fn build(mut settings: Settings, source: Source, notices: &mut Vec<Notice>) -> Result<Config, Refusal> {
    settle_defaults(&mut settings, source);
    let s = &settings;

    let log_level = log_level(s)?;
    let log_format = log_format(s)?;
    let log_outputs = log_outputs(s)?;
    let log_rotation = log_rotation(s, &log_outputs)?;
    check_bind_urls(s)?;
    check_host_urls(s)?;
    check_discovery(s)?;
    let (heartbeat_interval, election_timeout) = raft_times(s)?;
    if source == Source::Flags && s.is_set("listen-client-urls") && !s.is_set("advertise-client-urls") {
        return Err(Refusal::NoAdvertisedClientUrls);
    }
    let auto_compaction = auto_compaction(s)?;
    let tracing = tracing(s)?;
    let feature_gates = feature_gates(s, notices)?;
    let compact_hash_check_time = compact_hash_check_time(s)?;
    let corrupt_check_time = corrupt_check_time(s)?;
    let max_learners = max_learners(s)?;
    let tls = security::tls_details(s)?;
    let metrics = metrics(s)?;
    refuse_unavailable(s)?;
    security::check_peer_certificate(s)?;
    security::check_certificate(s)?;
    let (memory_limit, value_cache_bytes) = memory(s)?;

    let name = s.text("name").to_owned();
    let initial_advertise_peer_urls = s.urls("initial-advertise-peer-urls");
    let config = Config {
        data_dir: data_dir(s, &name, notices),
        wal_dir: Some(PathBuf::from(s.text("wal-dir"))).filter(|dir| !dir.as_os_str().is_empty()),
        snapshot_count: s.uint("snapshot-count"),
        snapshot_catchup_entries: s.uint("snapshot-catchup-entries"),
        heartbeat_interval,
        election_timeout,
        initial_election_tick_advance: s.bool("initial-election-tick-advance"),
        listen_peer_urls: s.urls("listen-peer-urls"),
        listen_client_urls: s.urls("listen-client-urls"),
        listen_client_http_urls: s.urls("listen-client-http-urls"),
        max_wals: s.uint("max-wals"),
        max_snapshots: s.uint("max-snapshots"),
        memory_mlock: s.bool("memory-mlock"),
        quota_backend_bytes: match s.int("quota-backend-bytes") {
            0 => DEFAULT_QUOTA_BYTES,
            bytes => bytes,
        },
        backend: Backend {
            freelist_type: s.text("backend-bbolt-freelist-type").to_owned(),
            batch_interval: duration(s, "backend-batch-interval"),
            batch_limit: s.int("backend-batch-limit"),
        },
        bootstrap_defrag_threshold_megabytes: s.uint("bootstrap-defrag-threshold-megabytes"),
        max_txn_ops: size(s, "max-txn-ops"),
        max_request_bytes: max_request_bytes(s, notices),
        max_concurrent_streams: u32::try_from(s.uint("max-concurrent-streams")).unwrap_or(u32::MAX),
        grpc_keepalive_min_time: duration(s, "grpc-keepalive-min-time"),
        grpc_keepalive_interval: Some(duration(s, "grpc-keepalive-interval")).filter(|time| !time.is_zero()),
        grpc_keepalive_timeout: duration(s, "grpc-keepalive-timeout"),
        socket_reuse_port: s.bool("socket-reuse-port"),
        socket_reuse_address: s.bool("socket-reuse-address"),
        enable_grpc_gateway: s.bool("enable-grpc-gateway"),
        raft_read_timeout: raft_timeout(s, "raft-read-timeout", notices),
        raft_write_timeout: raft_timeout(s, "raft-write-timeout", notices),
        feature_gates,
        initial_cluster: initial_cluster(s, &name, &initial_advertise_peer_urls)?,
        initial_cluster_state: match s.text("initial-cluster-state") {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: match s.text("discovery-token") {
            "" => s.text("initial-cluster-token").to_owned(),
            token => token.to_owned(),
        },
        advertise_client_urls: s.urls("advertise-client-urls"),
        discovery: discovery(s),
        strict_reconfig_check: s.bool("strict-reconfig-check"),
        pre_vote: s.bool("pre-vote"),
        auto_compaction,
        max_learners,
        force_new_cluster: s.bool("force-new-cluster"),
        client_tls: security::client_tls(s),
        peer_tls: security::peer_tls(s),
        tls,
        cors: s.texts("cors"),
        host_whitelist: s.texts("host-whitelist"),
        auth_token: auth_token(s)?,
        bcrypt_cost: s.uint("bcrypt-cost"),
        auth_token_ttl: Duration::from_secs(s.uint("auth-token-ttl")),
        enable_pprof: s.bool("enable-pprof"),
        metrics,
        listen_metrics_urls: s.urls("listen-metrics-urls"),
        log_outputs,
        log_level,
        log_format,
        log_rotation,
        warning_unary_request_duration: match duration(s, "warning-unary-request-duration") {
            Duration::ZERO => Duration::from_millis(300),
            time => time,
        },
        warning_apply_duration: duration(s, "warning-apply-duration"),
        tracing,
        corrupt_check_time,
        compact_hash_check_time,
        compaction_batch_limit: match s.int("compaction-batch-limit") {
            ..=0 => 1_000,
            limit => limit.unsigned_abs(),
        },
        compaction_sleep_interval: match duration(s, "compaction-sleep-interval") {
            Duration::ZERO => Duration::from_millis(10),
            time => time,
        },
        watch_progress_notify_interval: progress_notify_interval(s, notices),
        downgrade_check_time: duration(s, "downgrade-check-time"),
        unsafe_no_fsync: s.bool("unsafe-no-fsync"),
        memory_limit,
        admission: s.bool("admission"),
        value_cache_bytes,
        snapshot_send_rate: s.uint("snapshot-send-rate"),
        promote_learners: s.bool("promote-learners"),
        keep_raft_log: s.bool("keep-raft-log"),
        initial_advertise_peer_urls,
        name,
    };
    note(&config, s, notices);
    Ok(config)
}

/// Where the settings come from; etcd is laxer with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Flags and variables.
    Flags,
    /// The configuration file.
    File,
}

/// A file that spells the default cluster out did not choose it, so it does not conflict with discovery.
fn settle_defaults(settings: &mut Settings, source: Source) {
    if source == Source::File && settings.text("initial-cluster") == DEFAULT_CLUSTER {
        settings.unset("initial-cluster");
    }
}

fn initial_cluster(s: &Settings, name: &str, advertised: &[Url]) -> Result<BTreeMap<String, Vec<Url>>, Refusal> {
    // Under a token this member begins alone: its id there is made of what it knows of itself.
    if !s.text("discovery-endpoints").is_empty() {
        return Ok(BTreeMap::from([(name.to_owned(), advertised.to_vec())]));
    }
    // The DNS names all members. As in etcd, the default cluster is gone with the service's name alone, too.
    let asks_dns = !s.text("discovery-srv").is_empty() || !s.text("discovery-srv-name").is_empty();
    if asks_dns && !s.is_set("initial-cluster") {
        return Ok(BTreeMap::new());
    }
    // Only the name was given: the cluster is this member. With the default name etcd keeps the
    // default cluster, and refuses it at the first start when the addresses differ.
    if name != DEFAULT_NAME && s.text("initial-cluster") == DEFAULT_CLUSTER {
        return Ok(BTreeMap::from([(name.to_owned(), advertised.to_vec())]));
    }
    bootstrap::parse_initial_cluster(s.text("initial-cluster"))
}

fn data_dir(s: &Settings, name: &str, notices: &mut Vec<Notice>) -> PathBuf {
    match s.text("data-dir") {
        "" => {
            let dir = PathBuf::from(format!("{name}.etcd"));
            notices.push(Notice::DefaultDataDir(dir.clone()));
            dir
        }
        dir => PathBuf::from(dir),
    }
}

/// Go's durations may be negative; where etcd has no rule of its own that is the same as zero.
fn duration(s: &Settings, name: &str) -> Duration {
    Duration::from_nanos(u64::try_from(s.nanoseconds(name)).unwrap_or(0))
}

fn auth_token(s: &Settings) -> Result<TokenOptions, Refusal> {
    let duration = |text: &str| {
        let nanoseconds = go::parse_duration(text).ok()?;
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)))
    };
    TokenOptions::parse(s.text("auth-token"), duration).map_err(|error| Refusal::Invalid(error.to_string()))
}

fn size(s: &Settings, name: &str) -> usize {
    usize::try_from(s.uint(name)).unwrap_or(usize::MAX)
}

fn max_request_bytes(s: &Settings, notices: &mut Vec<Notice>) -> usize {
    let bytes = s.uint("max-request-bytes");
    if bytes > RECOMMENDED_REQUEST_BYTES {
        notices.push(Notice::LargeRequests(bytes));
    }
    size(s, "max-request-bytes")
}

/// How much memory there is, and how much of it is for values. What could not be kept is refused.
fn memory(s: &Settings) -> Result<(Option<u64>, u64), Refusal> {
    let values = s.uint("value-cache-bytes");
    let limit = s.bytes("memory-limit");
    if limit == 0 {
        return Ok((None, values));
    }
    if limit < Budget::LEAST {
        let least = Budget::LEAST;
        return Err(Refusal::Invalid(format!("--memory-limit={limit} is too little; the least is {least} (256Mi)")));
    }
    if !s.bool("admission") {
        return Err(Refusal::Invalid("--memory-limit cannot be kept with --admission=false".to_owned()));
    }
    let request = s.uint("max-request-bytes");
    let budget = Budget::of(Some(limit), size(s, "max-request-bytes"));
    let most = budget.request_bytes_max();
    if request > most {
        return Err(Refusal::Invalid(format!(
            "--max-request-bytes={request}: requests of more than {most} bytes find no room under --memory-limit={limit}"
        )));
    }
    let most = budget.values_max;
    match s.is_set("value-cache-bytes") {
        true if values > most => Err(Refusal::Invalid(format!(
            "--value-cache-bytes={values}: at most {most} find room under --memory-limit={limit}"
        ))),
        true => Ok((Some(limit), values)),
        false => Ok((Some(limit), budget.values)),
    }
}

fn raft_timeout(s: &Settings, name: &'static str, notices: &mut Vec<Notice>) -> Duration {
    let time = duration(s, name);
    if time < RAFT_TIMEOUT_MIN {
        notices.push(Notice::Raised { flag: name, to: "5s" });
    }
    time.max(RAFT_TIMEOUT_MIN)
}

fn progress_notify_interval(s: &Settings, notices: &mut Vec<Notice>) -> Duration {
    match duration(s, "watch-progress-notify-interval") {
        Duration::ZERO => PROGRESS_NOTIFY_DEFAULT,
        time if time < PROGRESS_NOTIFY_MIN => {
            notices.push(Notice::Raised { flag: "watch-progress-notify-interval", to: "100ms" });
            PROGRESS_NOTIFY_MIN
        }
        time => time,
    }
}

fn log_level(s: &Settings) -> Result<LogLevel, Refusal> {
    match s.text("logger") {
        "zap" => {}
        "capnslog" => return Err(Refusal::Invalid("--logger=capnslog is removed in v3.5".to_owned())),
        other => return Err(Refusal::Invalid(format!("unknown logger option {other:?}"))),
    }
    Ok(match s.text("log-level").to_ascii_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" | "warning" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "panic" | "dpanic" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        level => {
            return Err(Refusal::Invalid(format!(
                "--log-level: unrecognized level: {level:?}; it must be debug, info, warn, error, panic or fatal"
            )));
        }
    })
}

fn log_format(s: &Settings) -> Result<LogFormat, Refusal> {
    match s.text("log-format") {
        "json" => Ok(LogFormat::Json),
        "console" => Ok(LogFormat::Console),
        format => Err(Refusal::Invalid(format!("unknown log format: {format}, supported values json, console"))),
    }
}

fn log_outputs(s: &Settings) -> Result<Vec<LogOutput>, Refusal> {
    let names = s.texts("log-outputs");
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return Err(Refusal::Invalid(
            "multi logoutput for \"default\" is not supported yet; --log-outputs takes default alone".to_owned(),
        ));
    }
    let mut outputs = Vec::new();
    for name in names {
        outputs.push(match name.as_str() {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => LogOutput::Journal,
            // To etcd they are files, which hardly anybody means who says so.
            "systemd" | "journal" => {
                return Err(Refusal::Invalid(format!(
                    "--log-outputs: {name:?} may be the journal or a file; say systemd/journal, or ./{name}"
                )));
            }
            path => LogOutput::File(PathBuf::from(path)),
        });
    }
    if outputs.is_empty() {
        outputs.push(LogOutput::Stderr);
    }
    Ok(outputs)
}

fn log_rotation(s: &Settings, outputs: &[LogOutput]) -> Result<Option<LogRotation>, Refusal> {
    if !s.bool("enable-log-rotation") {
        return Ok(None);
    }
    if outputs.iter().filter(|output| matches!(output, LogOutput::File(_))).count() != 1 {
        return Err(Refusal::Invalid(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined; \
             --enable-log-rotation takes one file"
                .to_owned(),
        ));
    }
    log_rotation::parse(s.text("log-rotation-config-json")).map(Some)
}

fn check_bind_urls(s: &Settings) -> Result<(), Refusal> {
    for name in ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls"] {
        for url in s.urls(name) {
            let bindable =
                url.host().is_none_or(|host| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok());
            if !bindable {
                return Err(Refusal::Invalid(format!("--{name}: expected IP in URL for binding ({url})")));
            }
        }
    }
    Ok(())
}

fn check_host_urls(s: &Settings) -> Result<(), Refusal> {
    for (name, forms) in [
        ("initial-advertise-peer-urls", r#""host:port""#),
        ("advertise-client-urls", r#"in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket""#),
    ] {
        let urls = s.urls(name);
        if let Some(bad) = urls.iter().find(|url| url.host() == Some("")) {
            return Err(Refusal::Invalid(format!(
                "--{name} {:?} must be {forms} (unexpected empty host ({bad}))",
                url::join(&urls)
            )));
        }
    }
    Ok(())
}

/// There is one way to find the first members, and each way needs all of its flags.
fn check_discovery(s: &Settings) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::Invalid(message.to_owned()));
    if s.text("discovery-fallback") == "proxy" {
        return invalid(r#"v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy""#);
    }
    let ways = [
        s.is_set("initial-cluster") && !s.text("initial-cluster").is_empty(),
        !s.text("discovery-srv").is_empty(),
        !s.text("discovery-endpoints").is_empty(),
    ];
    if ways.iter().filter(|given| **given).count() > 1 {
        return invalid(
            "multiple discovery or bootstrap flags are set. \
             Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        );
    }
    if s.text("discovery-token").is_empty() != s.text("discovery-endpoints").is_empty() {
        return invalid("both --discovery-token and --discovery-endpoints must be set");
    }
    if !s.text("discovery-endpoints").is_empty()
        && s.text("discovery-endpoints").split(',').any(|e| e.trim().is_empty())
    {
        return invalid("--discovery-endpoints must not contain empty endpoints");
    }
    security::check_pair(s.text("discovery-cert"), s.text("discovery-key"))
}

fn raft_times(s: &Settings) -> Result<(Duration, Duration), Refusal> {
    let heartbeat = s.uint("heartbeat-interval");
    let election = s.uint("election-timeout");
    let broken = if heartbeat == 0 {
        format!("--heartbeat-interval must be >0 (set to {heartbeat}ms)")
    } else if election == 0 {
        format!("--election-timeout must be >0 (set to {election}ms)")
    } else if heartbeat.saturating_mul(5) > election {
        format!("--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]")
    } else if election > ELECTION_TIMEOUT_MS_MAX {
        format!("--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MS_MAX}ms")
    } else {
        return Ok((Duration::from_millis(heartbeat), Duration::from_millis(election)));
    };
    Err(Refusal::Invalid(broken))
}

fn auto_compaction(s: &Settings) -> Result<Option<AutoCompaction>, Refusal> {
    let retention = match s.text("auto-compaction-retention") {
        "" => "0",
        retention => retention,
    };
    let number = retention.parse::<u64>().ok();
    match s.text("auto-compaction-mode") {
        "revision" => match number {
            Some(0) => Ok(None),
            Some(revisions) => Ok(Some(AutoCompaction::Revision(revisions))),
            None => Err(Refusal::Invalid(format!(
                "--auto-compaction-retention: {retention:?} is not a number of revisions, \
                 as --auto-compaction-mode=revision wants"
            ))),
        },
        "periodic" => {
            let nanoseconds = match number {
                Some(hours) => i64::try_from(hours).ok().and_then(|hours| hours.checked_mul(3_600_000_000_000)),
                None => go::parse_duration(retention).ok(),
            };
            match nanoseconds {
                Some(0) => Ok(None),
                Some(1..) => Ok(nanoseconds.map(|n| AutoCompaction::Periodic(Duration::from_nanos(n.unsigned_abs())))),
                _ => Err(Refusal::Invalid(format!(
                    "error parsing CompactionRetention: --auto-compaction-retention: invalid duration {retention:?}"
                ))),
            }
        }
        "" => Err(Refusal::Invalid("undefined auto-compaction-mode".to_owned())),
        mode => Err(Refusal::Invalid(format!("unknown auto-compaction-mode {mode:?}"))),
    }
}

fn tracing(s: &Settings) -> Result<Tracing, Refusal> {
    let tracing = Tracing {
        enabled: s.bool("enable-distributed-tracing"),
        address: s.text("distributed-tracing-address").to_owned(),
        service_name: s.text("distributed-tracing-service-name").to_owned(),
        instance_id: s.text("distributed-tracing-instance-id").to_owned(),
        sampling_rate_per_million: s.int("distributed-tracing-sampling-rate"),
    };
    // As in etcd, where it does not matter otherwise.
    if !tracing.enabled {
        return Ok(tracing);
    }
    let rate = tracing.sampling_rate_per_million;
    if !(0..=SAMPLING_RATE_MAX).contains(&rate) {
        let bound = if rate < 0 { "positive".to_owned() } else { format!("less than {SAMPLING_RATE_MAX}") };
        return Err(Refusal::Invalid(format!(
            "--distributed-tracing-sampling-rate: tracing sampling rate must be {bound} (set to {rate})"
        )));
    }
    let authority: Option<Authority> = tracing.address.parse().ok();
    if authority.is_none_or(|authority| authority.host().is_empty() || authority.port_u16().is_none()) {
        return Err(Refusal::Invalid(format!(
            "--distributed-tracing-address {:?} must be \"host:port\"",
            tracing.address
        )));
    }
    Ok(tracing)
}

fn feature_gates(s: &Settings, notices: &mut Vec<Notice>) -> Result<FeatureGates, Refusal> {
    let gates = s.gates();
    let (checkpoint, persist) = (gates.enabled(Gate::LeaseCheckpoint), gates.enabled(Gate::LeaseCheckpointPersist));
    if persist && !checkpoint {
        return Err(Refusal::Invalid(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint".to_owned(),
        ));
    }
    notices.extend(gates.without_effect().map(|(gate, why)| Notice::GateWithoutEffect { gate, why }));
    Ok(gates)
}

fn compact_hash_check_time(s: &Settings) -> Result<Duration, Refusal> {
    match duration(s, "compact-hash-check-time") {
        Duration::ZERO => Err(Refusal::Invalid(format!(
            "--compact-hash-check-time must be >0 (set to {})",
            s.text("compact-hash-check-time")
        ))),
        time => Ok(time),
    }
}

/// None is given by zero. etcd panics where it is negative.
fn corrupt_check_time(s: &Settings) -> Result<Option<Duration>, Refusal> {
    if s.nanoseconds("corrupt-check-time") < 0 {
        let text = s.text("corrupt-check-time");
        return Err(Refusal::Invalid(format!("--corrupt-check-time must be >=0 (set to {text})")));
    }
    Ok(Some(duration(s, "corrupt-check-time")).filter(|time| !time.is_zero()))
}

/// etcd finds "too many learner members in cluster" where that is negative, though there are none.
fn max_learners(s: &Settings) -> Result<usize, Refusal> {
    let most = s.int("max-learners");
    usize::try_from(most).map_err(|_| Refusal::Invalid(format!("--max-learners must be >=0 (set to {most})")))
}

fn metrics(s: &Settings) -> Result<MetricsDetail, Refusal> {
    match s.text("metrics") {
        "basic" => Ok(MetricsDetail::Basic),
        "extensive" => Ok(MetricsDetail::Extensive),
        other => Err(Refusal::Invalid(format!("--metrics: {other:?} is neither \"basic\" nor \"extensive\""))),
    }
}

fn discovery(s: &Settings) -> Discovery {
    Discovery {
        token: s.text("discovery-token").to_owned(),
        endpoints: s.texts("discovery-endpoints"),
        dial_timeout: duration(s, "discovery-dial-timeout"),
        request_timeout: duration(s, "discovery-request-timeout"),
        keepalive_time: duration(s, "discovery-keepalive-time"),
        keepalive_timeout: duration(s, "discovery-keepalive-timeout"),
        insecure_transport: s.bool("discovery-insecure-transport"),
        insecure_skip_tls_verify: s.bool("discovery-insecure-skip-tls-verify"),
        cert: s.text("discovery-cert").to_owned(),
        key: s.text("discovery-key").to_owned(),
        cacert: s.text("discovery-cacert").to_owned(),
        user: s.text("discovery-user").to_owned(),
        password: s.text("discovery-password").to_owned(),
        srv: s.text("discovery-srv").to_owned(),
        srv_name: s.text("discovery-srv-name").to_owned(),
    }
}

/// Refuses what was asked for and cannot be had: a server that silently went without would be worse.
fn refuse_unavailable(s: &Settings) -> Result<(), Refusal> {
    for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
        if let Some(url) = s.urls(name).iter().find(|url| url.scheme() == Scheme::Unixs) {
            return Err(unavailable(name, TLS_BY_FILE, url.as_str()));
        }
    }
    Ok(())
}

/// What members cannot do whose URLs are `unixs`.
pub(super) const TLS_BY_FILE: &str = "TLS over a Unix socket between members";

pub(super) fn unavailable(flag: &str, feature: &str, value: &str) -> Refusal {
    Refusal::Unavailable { flag: flag.to_owned(), feature: feature.to_owned(), value: value.to_owned() }
}

fn note(config: &Config, s: &Settings, notices: &mut Vec<Notice>) {
    for (flag, _) in s.changed() {
        if let Effect::Nothing(why) = flag.effect {
            notices.push(Notice::NoEffect { flag: flag.name, why });
        }
    }
    for name in s.set_flags() {
        if matches!(name, "max-snapshots" | "v2-deprecation") {
            notices.push(Notice::Deprecated(name));
        }
    }
    if config.log_rotation.is_none() && s.is_set("log-rotation-config-json") {
        notices.push(Notice::NoEffect { flag: "log-rotation-config-json", why: "--enable-log-rotation is not set" });
    }
    if !config.tracing.enabled {
        let idle = s.changed().map(|(flag, _)| flag.name).filter(|name| name.starts_with("distributed-tracing-"));
        notices.extend(idle.map(|flag| Notice::NoEffect { flag, why: "--enable-distributed-tracing is not set" }));
    }
    if config.name == DEFAULT_NAME {
        notices.push(Notice::DefaultName);
    }
    if config.listen_client_http_urls.is_empty() {
        notices.push(Notice::OnePort);
    }
    if config.unsafe_no_fsync {
        notices.push(Notice::NoFsync);
    }
}
