use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::table::{self, Effect, Kind};
use super::{
    AutoCompaction, ClusterState, Config, Gate, Given, Invocation, LogFormat, LogLevel, LogOutput, LogRotation,
    MetricsDetail, Notice, Refusal, Tracing, Url, join_urls,
};

mod security;

fn understand(arguments: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Invocation, Refusal> {
    let read_file = |path: &Path| match path.to_str() {
        Some("etcd.yml") => Ok(file.to_owned()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let given = Given {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        read_file: &read_file,
    };
    given.understand()
}

#[track_caller]
fn serve(arguments: &[&str], variables: &[(&str, &str)], file: &str) -> (Config, Vec<Notice>) {
    match understand(arguments, variables, file) {
        Ok(Invocation::Serve(config, notices)) => (*config, notices),
        other => panic!("{arguments:?} {variables:?} {file:?}: {other:?}"),
    }
}

#[track_caller]
fn flags(arguments: &[&str]) -> Config {
    serve(arguments, &[], "").0
}

#[track_caller]
fn file(text: &str) -> Config {
    serve(&["--config-file", "etcd.yml"], &[], text).0
}

#[track_caller]
fn refuse(arguments: &[&str], exit_code: u8, message: &str) {
    let refusal = understand(arguments, &[], "").unwrap_err();
    assert_eq!(refusal.to_string(), message, "{arguments:?}");
    assert_eq!(refusal.exit_code(), exit_code, "{arguments:?}");
}

#[track_caller]
fn refuse_file(text: &str, message: &str) {
    let refusal = understand(&["--config-file", "etcd.yml"], &[], text).unwrap_err();
    assert_eq!(refusal.to_string(), message, "{text}");
    assert_eq!(refusal.exit_code(), 1, "{text}");
}

fn no_names(url: &Url) -> BTreeSet<String> {
    BTreeSet::from([url.to_string()])
}

#[track_caller]
fn refuse_first_start(arguments: &[&str], message: &str) {
    let refusal = flags(arguments).check_first_start(no_names).unwrap_err();
    assert_eq!(refusal.to_string(), message, "{arguments:?}");
}

// ---- defaults

#[test]
fn nothing_set_gives_etcds_defaults() {
    let config = flags(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.wal_dir, None);
    assert_eq!(config.log_dir(), PathBuf::from("default.etcd/member/wal"));
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.snapshot_catchup_entries, 5_000);
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_millis(1_000));
    assert_eq!(join_urls(&config.listen_peer_urls), "http://localhost:2380");
    assert_eq!(join_urls(&config.listen_client_urls), "http://localhost:2379");
    assert_eq!(join_urls(&config.initial_advertise_peer_urls), "http://localhost:2380");
    assert_eq!(join_urls(&config.advertise_client_urls), "http://localhost:2379");
    assert!(config.listen_client_http_urls.is_empty() && config.listen_metrics_urls.is_empty());
    assert_eq!(super::initial_cluster_text(&config.initial_cluster), "default=http://localhost:2380");
    assert_eq!(config.initial_cluster_state, ClusterState::New);
    assert_eq!(config.initial_cluster_token, "etcd-cluster");
    assert_eq!(config.quota_backend_bytes, 2_147_483_648);
    assert_eq!((config.max_txn_ops, config.max_request_bytes), (128, 1_572_864));
    assert_eq!(config.max_concurrent_streams, u32::MAX);
    assert_eq!(config.grpc_keepalive_interval, Some(Duration::from_secs(7_200)));
    assert_eq!(config.grpc_keepalive_timeout, Duration::from_secs(20));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.warning_apply_duration, Duration::from_millis(100));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Json));
    assert_eq!((config.log_outputs, config.log_rotation), (vec![LogOutput::Stderr], None));
    assert_eq!(config.metrics, MetricsDetail::Basic);
    assert_eq!((config.cors, config.host_whitelist), (vec!["*".to_owned()], vec!["*".to_owned()]));
    assert!(config.pre_vote && config.strict_reconfig_check && config.enable_grpc_gateway);
    assert!(!config.unsafe_no_fsync && !config.socket_reuse_port);
    assert_eq!((config.max_learners, config.snapshot_send_rate), (1, 64 << 20));
}

#[test]
fn every_default_is_accepted_and_changes_nothing() {
    for flag in table::all().filter(|flag| !matches!(flag.name, "config-file")) {
        let argument = format!("--{}={}", flag.name, flag.default);
        // Naming either side of a pair of URLs needs the other side.
        let config = flags(&[argument.as_str(), "--advertise-client-urls=http://localhost:2379"]);
        assert_eq!(format!("{config:?}"), format!("{:?}", flags(&[])), "{argument}");
    }
}

#[test]
fn flag_names_are_unique() {
    let names: BTreeSet<&str> = table::all().map(|flag| flag.name).collect();
    assert_eq!(names.len(), table::all().count());
}

// ---- the command line

#[test]
fn one_dash_two_dashes_and_equals_are_the_same() {
    for arguments in [&["-name", "m1"][..], &["--name", "m1"], &["-name=m1"], &["--name=m1"], &["--name=m1", "--"]] {
        assert_eq!(flags(arguments).name, "m1", "{arguments:?}");
    }
}

#[test]
fn booleans_need_no_value_and_take_none_behind_them() {
    for argument in ["--unsafe-no-fsync", "--unsafe-no-fsync=true", "-unsafe-no-fsync=1", "--unsafe-no-fsync=T"] {
        assert!(flags(&[argument]).unsafe_no_fsync, "{argument}");
    }
    for argument in ["--pre-vote=false", "--pre-vote=0", "--pre-vote=f", "--pre-vote=FALSE"] {
        assert!(!flags(&[argument]).pre_vote, "{argument}");
    }
    refuse(&["--unsafe-no-fsync", "true"], 1, r#""true" is not a valid flag"#);
}

#[test]
fn the_last_of_several_wins() {
    assert_eq!(flags(&["--snapshot-count=1", "--snapshot-count", "2"]).snapshot_count, 2);
    assert_eq!(flags(&["--initial-cluster-token=a", "-initial-cluster-token=b"]).initial_cluster_token, "b");
}

#[test]
fn mistakes_are_told_in_gos_words() {
    for (arguments, message) in [
        (&["--unknown"][..], "flag provided but not defined: -unknown"),
        (&["--unknown=1"], "flag provided but not defined: -unknown"),
        (&["-experimental-unknown"], "flag provided but not defined: -experimental-unknown"),
        (&["---name=x"], "bad flag syntax: ---name=x"),
        (&["-=x"], "bad flag syntax: -=x"),
        (&["--name"], "flag needs an argument: -name"),
        (&["--snapshot-count=x"], r#"invalid value "x" for flag -snapshot-count: parse error"#),
        (&["--snapshot-count", "-1"], r#"invalid value "-1" for flag -snapshot-count: parse error"#),
        (
            &["--max-concurrent-streams=4294967296"],
            r#"invalid value "4294967296" for flag -max-concurrent-streams: strconv.ParseUint: parsing "4294967296": value out of range"#,
        ),
        (&["--pre-vote=yes"], r#"invalid boolean value "yes" for -pre-vote: parse error"#),
        (&["--corrupt-check-time=5"], r#"invalid value "5" for flag -corrupt-check-time: parse error"#),
        (&["--initial-cluster-state=old"], r#"invalid value "old" for flag -initial-cluster-state: invalid value"#),
        (&["--v2-deprecation=not-yet"], r#"invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet""#),
        (
            &["--listen-peer-urls=localhost:2380"],
            r#"invalid value "localhost:2380" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: localhost:2380"#,
        ),
        (
            &["--feature-gates=X=true"],
            r#"invalid value "X=true" for flag -feature-gates: unrecognized feature gate: X"#,
        ),
        (
            &["--feature-gates=LeaseCheckpoint"],
            r#"invalid value "LeaseCheckpoint" for flag -feature-gates: missing bool value for LeaseCheckpoint"#,
        ),
        // The first mistake is the one that is told.
        (&["--snapshot-count=x", "--unknown"], r#"invalid value "x" for flag -snapshot-count: parse error"#),
    ] {
        refuse(arguments, 2, message);
    }
}

#[test]
fn what_is_not_a_flag_is_refused() {
    refuse(&["foo"], 1, r#""foo" is not a valid flag"#);
    refuse(&["--name=m1", "foo", "--unknown"], 1, r#""foo" is not a valid flag"#);
    refuse(&["--", "foo"], 1, r#""foo" is not a valid flag"#);
    refuse(&["--name=m1", "gateway"], 1, r#""gateway" is not a valid flag"#);
    refuse(
        &["grpc-proxy", "start"],
        1,
        "the sub-command \"grpc-proxy\" is not available: let clients connect to the members themselves, \
         or through \"gateway start\", which passes connections on as they are",
    );
}

#[test]
fn help_and_version_end_at_once() {
    for argument in ["-h", "--help", "-help"] {
        let Ok(Invocation::Help(text)) = understand(&[argument], &[], "") else { panic!("{argument}") };
        for flag in table::all().filter(|flag| flag.kind != Kind::Ignored) {
            assert!(text.contains(&format!("  --{} '{}'", flag.name, flag.default)), "{}", flag.name);
        }
    }
    let Ok(Invocation::Print(text)) = understand(&["--version"], &[("ETCD_NAME", "x")], "") else { panic!() };
    assert!(text.starts_with("etcd Version: 3.7.1\n"));
    assert!(matches!(understand(&["--version=false"], &[], ""), Ok(Invocation::Serve(..))));
}

#[test]
fn old_flags_are_accepted() {
    for name in [
        "cluster-active-size",
        "cluster-remove-delay",
        "cluster-sync-interval",
        "config",
        "force",
        "max-result-buffer",
        "max-retry-attempts",
        "peer-heartbeat-interval",
        "peer-election-timeout",
        "retry-interval",
        "snapshot",
        "v",
        "vv",
        "test.coverprofile",
        "test.outputdir",
    ] {
        let (config, notices) = serve(&[&format!("-{name}=17"), &format!("--{name}")], &[], "");
        assert_eq!(config.name, "default");
        assert!(notices.contains(&Notice::FormerFlag(table::find(name).unwrap().name)), "{name}");
    }
}

#[test]
fn names_of_etcd_3_5_are_accepted() {
    let (config, notices) = serve(
        &["--experimental-watch-progress-notify-interval=5s", "--experimental-initial-corrupt-check=true"],
        &[("ETCD_EXPERIMENTAL_ENABLE_LEASE_CHECKPOINT", "true")],
        "",
    );
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert!(config.feature_gates.enabled(Gate::InitialCorruptCheck));
    assert!(config.feature_gates.enabled(Gate::LeaseCheckpoint));
    assert!(notices.contains(&Notice::FormerName {
        flag: "experimental-watch-progress-notify-interval".to_owned(),
        today: "watch-progress-notify-interval"
    }));
    assert!(notices.contains(&Notice::FormerGate {
        flag: "experimental-initial-corrupt-check".to_owned(),
        gate: "InitialCorruptCheck"
    }));
}

// ---- variables

#[test]
fn variables_are_taken() {
    let (config, notices) = serve(
        &["--name=m1"],
        &[("ETCD_SNAPSHOT_COUNT", "7"), ("ETCD_PRE_VOTE", "false"), ("PATH", "/bin"), ("ETCDCTL_API", "3")],
        "",
    );
    assert_eq!((config.name.as_str(), config.snapshot_count, config.pre_vote), ("m1", 7, false));
    assert!(notices.contains(&Notice::VariableUsed("ETCD_SNAPSHOT_COUNT".to_owned())));
}

#[test]
fn a_variable_beside_its_flag_is_refused() {
    let refusal = understand(&["--name=m1"], &[("ETCD_NAME", "m1")], "").unwrap_err();
    assert_eq!(refusal.exit_code(), 1);
    assert!(
        refusal.to_string().starts_with(
            "conflicting environment variable is shadowed by corresponding command-line flag \
             (either unset environment variable or disable flag)"
        ),
        "{refusal}"
    );
    assert!(refusal.to_string().ends_with("ETCD_NAME"), "{refusal}");
}

#[test]
fn an_empty_variable_is_not_set() {
    assert_eq!(serve(&["--name=m1"], &[("ETCD_NAME", ""), ("ETCD_DATA_DIR", "")], "").0.name, "m1");
}

#[test]
fn unknown_variables_are_only_remarked_on() {
    let (_, notices) = serve(&[], &[("ETCD_UNKNOWN", "1")], "");
    assert!(notices.contains(&Notice::UnknownVariable("ETCD_UNKNOWN".to_owned())));
    let (_, notices) =
        serve(&["--config-file="], &[("ETCD_UNSUPPORTED_ARCH", "arm64"), ("ETCD_VERSION", "v3.7.1")], "");
    assert!(notices.contains(&Notice::VersionVariable));
    assert!(!notices.iter().any(|notice| matches!(notice, Notice::UnknownVariable(_) | Notice::VariableUsed(_))));
}

#[test]
fn a_bad_variable_is_refused() {
    let refusal = understand(&[], &[("ETCD_SNAPSHOT_COUNT", "x")], "").unwrap_err();
    assert_eq!(refusal.to_string(), r#"invalid value "x" for ETCD_SNAPSHOT_COUNT: parse error"#);
    assert_eq!(refusal.exit_code(), 1);
}

// ---- the file

#[test]
fn etcds_sample_file_starts_a_server() {
    let config = file(include_str!("../../testdata/etcd.conf.yml"));
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(3_600))));
    assert!(!config.strict_reconfig_check);
    config.check_first_start(no_names).unwrap();
}

#[test]
fn a_file_sets_every_kind_of_flag() {
    let config = file(
        "name: m1\n\
         snapshot-count: 5\n\
         quota-backend-bytes: -1\n\
         unsafe-no-fsync: true\n\
         watch-progress-notify-interval: 5000000000\n\
         listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n\
         advertise-client-urls: http://a:1\n\
         log-outputs: [stdout, /tmp/x.log]\n\
         auto-compaction-mode: revision\n\
         auto-compaction-retention: 1000\n\
         socket-options:\n  reuse-port: true\n\
         feature-gates: LeaseCheckpoint=true,LeaseCheckpointPersist=true\n\
         cors: http://a:1\n",
    );
    assert_eq!((config.name.as_str(), config.snapshot_count, config.quota_backend_bytes), ("m1", 5, -1));
    assert!(config.unsafe_no_fsync && config.socket_reuse_port && !config.socket_reuse_address);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert_eq!(join_urls(&config.listen_client_urls), "http://127.0.0.1:1,http://127.0.0.1:2");
    assert_eq!(config.log_outputs, [LogOutput::File("/tmp/x.log".into()), LogOutput::Stdout]);
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Revision(1_000)));
    assert!(config.feature_gates.enabled(Gate::LeaseCheckpointPersist));
    assert_eq!(config.cors, ["http://a:1"]);
}

#[test]
fn a_file_may_be_json_or_empty() {
    let config = file(r#"{"name": "m1", "pre-vote": false, "socket-options": {"reuse-address": true}}"#);
    assert!(config.name == "m1" && !config.pre_vote && config.socket_reuse_address);
    assert_eq!(file("").name, "default");
}

#[test]
fn beside_a_file_nothing_else_counts() {
    let (config, notices) = serve(
        &["--name=flag", "--snapshot-count=1", "--config-file=etcd.yml", "-v"],
        &[("ETCD_NAME", "variable"), ("ETCD_UNKNOWN", "1"), ("ETCD_PRE_VOTE", "false")],
        "snapshot-catchup-entries: 3",
    );
    assert_eq!((config.name.as_str(), config.snapshot_count), ("default", 10_000));
    assert_eq!((config.snapshot_catchup_entries, config.pre_vote), (3, true));
    assert_eq!(notices[0], Notice::FileUsed("etcd.yml".into()));
    assert!(!notices.iter().any(|notice| matches!(notice, Notice::UnknownVariable(_) | Notice::FormerFlag(_))));

    let (config, _) = serve(&["--name=flag"], &[("ETCD_CONFIG_FILE", "etcd.yml")], "name: file");
    assert_eq!(config.name, "file");
}

#[test]
fn keys_without_a_flag_are_ignored() {
    assert_eq!(file("proxy: 'off'\nunknown: {a: [1]}\nraft-read-timeout: x\nname: m1").name, "m1");
}

#[test]
fn a_file_with_listen_urls_alone_is_accepted_as_etcd_does() {
    assert_eq!(join_urls(&file("listen-client-urls: http://0.0.0.0:1").advertise_client_urls), "http://localhost:2379");
}

#[test]
fn bad_files_are_refused() {
    refuse_file(
        "snapshot-count: x",
        "cannot read the configuration file etcd.yml: snapshot-count: expected an unsigned integer",
    );
    refuse_file(
        "corrupt-check-time: 5s",
        "cannot read the configuration file etcd.yml: corrupt-check-time: expected an integer of nanoseconds",
    );
    refuse_file("pre-vote: 'true'", "cannot read the configuration file etcd.yml: pre-vote: expected true or false");
    refuse_file("name: [a]", "cannot read the configuration file etcd.yml: name: expected a text");
    refuse_file("socket-options: 1", "cannot read the configuration file etcd.yml: socket-options: expected a section");
    refuse_file("just a text", "cannot read the configuration file etcd.yml: it is not a mapping of keys to values");
    refuse_file(
        "listen-peer-urls: localhost:1",
        "cannot read the configuration file etcd.yml: listen-peer-urls: invalid value \"localhost:1\": \
         URL scheme must be http, https, unix, or unixs: localhost:1",
    );
    refuse_file(
        "feature-gates: X=true",
        "cannot read the configuration file etcd.yml: feature-gates: invalid value \"X=true\": unrecognized feature gate: X",
    );
    let broken = understand(&["--config-file=etcd.yml"], &[], "a: [").unwrap_err();
    assert!(matches!(broken, Refusal::File { .. }), "{broken}");
    let missing = understand(&["--config-file=other.yml"], &[], "").unwrap_err();
    assert!(missing.to_string().starts_with("cannot read the configuration file other.yml: "), "{missing}");
}

// ---- the rules

#[test]
fn broken_rules_are_refused_in_etcds_words() {
    for (arguments, message) in [
        (&["--heartbeat-interval=0"][..], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--heartbeat-interval=300"],
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (&["--election-timeout=50001"], "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-peer-urls=http://example.com:2380"],
            "--listen-peer-urls: expected IP in URL for binding (http://example.com:2380)",
        ),
        (
            &["--listen-metrics-urls=http://example.com:1"],
            "--listen-metrics-urls: expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--initial-advertise-peer-urls=http://:2380"],
            r#"--initial-advertise-peer-urls "http://:2380" must be "host:port" (unexpected empty host (http://:2380))"#,
        ),
        (&["--auto-compaction-mode=hourly"], r#"unknown auto-compaction-mode "hourly""#),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (
            &["--auto-compaction-retention=5d"],
            r#"error parsing CompactionRetention: --auto-compaction-retention: invalid duration "5d""#,
        ),
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=5m"],
            r#"--auto-compaction-retention: "5m" is not a number of revisions, as --auto-compaction-mode=revision wants"#,
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (&["--compact-hash-check-time=-1m"], "--compact-hash-check-time must be >0 (set to -1m0s)"),
        (&["--corrupt-check-time=-5s"], "--corrupt-check-time must be >=0 (set to -5s)"),
        (&["--max-learners=-1"], "--max-learners must be >=0 (set to -1)"),
        (&["--auth-token=foo"], "--auth-token: auth: invalid auth options"),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=X"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--tls-min-version=TLS1.1"],
            r#"--tls-min-version: unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)"#,
        ),
        (
            &["--discovery-fallback=proxy"],
            r#"v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy""#,
        ),
        (&["--discovery-token=t"], "both --discovery-token and --discovery-endpoints must be set"),
        (&["--discovery-endpoints=http://d:1"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-token=t", "--discovery-endpoints=http://d:1,"],
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (
            &["--discovery-srv=example.com", "--initial-cluster=default=http://localhost:2380"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--discovery-srv=example.com", "--discovery-token=t", "--discovery-endpoints=http://d:1"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--discovery-token=t", "--discovery-endpoints=http://d:1", "--discovery-cert=a"],
            "KeyFile and CertFile must both be present[key: , cert: a]",
        ),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--logger=other"], r#"unknown logger option "other""#),
        (&["--log-format=xml"], "unknown log format: xml, supported values json, console"),
        (&["--enable-log-rotation"], NOT_ONE_LOG_FILE),
        (&["--enable-log-rotation", "--log-outputs=stderr,stdout"], NOT_ONE_LOG_FILE),
        (&["--enable-log-rotation", "--log-outputs=/a.log,/b.log"], NOT_ONE_LOG_FILE),
        (
            &["--enable-log-rotation", "--log-outputs=/a.log", "--log-rotation-config-json=[]"],
            "--log-rotation-config-json: invalid log rotation config: it must be an object (set to [])",
        ),
        (
            &["--log-level=loud"],
            r#"--log-level: unrecognized level: "loud"; it must be debug, info, warn, error, panic or fatal"#,
        ),
        (&["--metrics=some"], r#"--metrics: "some" is neither "basic" nor "extensive""#),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"],
            "--distributed-tracing-sampling-rate: tracing sampling rate must be positive (set to -1)",
        ),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=1000001"],
            "--distributed-tracing-sampling-rate: tracing sampling rate must be less than 1000000 (set to 1000001)",
        ),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-address=collector"],
            r#"--distributed-tracing-address "collector" must be "host:port""#,
        ),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-address=http://collector:1"],
            r#"--distributed-tracing-address "http://collector:1" must be "host:port""#,
        ),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-address=:4317"],
            r#"--distributed-tracing-address ":4317" must be "host:port""#,
        ),
        (
            &["--initial-cluster=m1"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &["--initial-cluster=m1=http://a"],
            "error setting up initial cluster: URL address does not have the form \"host:port\": http://a",
        ),
    ] {
        refuse(arguments, 1, message);
    }
}

const NOT_ONE_LOG_FILE: &str = "--log-outputs requires a single file path when --log-rotate-config-json is defined; \
                                --enable-log-rotation takes one file";

#[test]
fn a_log_file_is_rotated_where_that_is_enabled() {
    let outputs = "--log-outputs=stderr,/a.log";
    let rules = r#"--log-rotation-config-json={"maxsize": 1, "maxbackups": 2}"#;
    let (config, notices) = serve(&[outputs, rules, "--enable-log-rotation"], &[], "");
    let rotation =
        LogRotation { max_bytes: 1 << 20, max_age: None, max_backups: Some(2), local_time: false, compress: false };
    assert_eq!(config.log_rotation, Some(rotation));
    assert!(!notices.iter().any(|notice| matches!(notice, Notice::NoEffect { .. })), "{notices:?}");
    assert_eq!(flags(&[outputs, "--enable-log-rotation"]).log_rotation.unwrap().max_bytes, 100 << 20);
    assert_eq!(flags(&[outputs, rules]).log_rotation, None);
}

#[test]
fn the_journal_has_one_name() {
    assert_eq!(flags(&["--log-outputs=systemd/journal"]).log_outputs, [LogOutput::Journal]);
    for name in ["systemd", "journal"] {
        let text = format!("--log-outputs: {name:?} may be the journal or a file; say systemd/journal, or ./{name}");
        refuse(&[&format!("--log-outputs={name}")], 1, &text);
    }
}

#[test]
fn what_this_release_cannot_do_is_refused_by_name() {
    for (argument, feature, value) in [
        ("--listen-peer-urls=unixs://p", "TLS over a Unix socket between members", "unixs://p"),
        ("--initial-advertise-peer-urls=unixs://p", "TLS over a Unix socket between members", "unixs://p"),
    ] {
        let flag = argument.split('=').next().unwrap();
        refuse(&[argument], 1, &format!("{flag}: {feature} is not available in this release (set to {value:?})"));
    }
}

/// What comes of a command line, with the password, which is not shown, and what the user is told besides.
fn outcome(arguments: &[String]) -> (String, Vec<Notice>) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match understand(&arguments, &[], "name: from-file") {
        Ok(Invocation::Serve(config, notices)) => (format!("{config:?} {}", config.discovery.password), notices),
        other => (format!("{other:?}"), Vec::new()),
    }
}

#[test]
fn every_flag_is_read_or_says_that_it_does_nothing() {
    for flag in table::all() {
        let beside: &[&str] = match flag.name {
            "discovery-token" => &["--discovery-endpoints=http://d:1"],
            "discovery-endpoints" => &["--discovery-token=t"],
            "auto-compaction-mode" => &["--auto-compaction-retention=7"],
            "log-rotation-config-json" => &["--log-outputs=/a.log", "--enable-log-rotation"],
            _ => &[],
        };
        let value = match (flag.name, flag.kind) {
            ("election-timeout", _) => "2000",
            ("initial-cluster", _) => "default=http://127.0.0.1:7",
            ("auto-compaction-mode", _) => "revision",
            ("auto-compaction-retention", _) => "7",
            ("tls-min-version", _) => "TLS1.3",
            ("tls-max-version", _) => "TLS1.2",
            ("metrics", _) => "extensive",
            ("log-level", _) => "debug",
            ("log-format", _) => "console",
            ("log-rotation-config-json", _) => r#"{"maxsize": 7}"#,
            ("config-file", _) => "etcd.yml",
            (_, Kind::Bool) if flag.default == "true" => "false",
            (_, Kind::Bool) => "true",
            (_, Kind::Uint | Kind::Uint32 | Kind::Int) => "7",
            (_, Kind::Size) => "1Gi",
            (_, Kind::Duration) => "7s",
            (_, Kind::Text | Kind::Texts | Kind::Ignored) => "x",
            (_, Kind::Urls | Kind::Origins) => "http://127.0.0.1:7",
            (_, Kind::OneOf(words) | Kind::SomeOf(words)) => {
                words.iter().copied().find(|word| *word != flag.default).unwrap()
            }
            (_, Kind::Gates) => "PriorityRequest=true",
        };
        // Naming either side of a pair of URLs needs the other side.
        let mut arguments = vec!["--advertise-client-urls=http://localhost:2379".to_owned()];
        arguments.extend(beside.iter().map(|argument| (*argument).to_owned()));
        let (without, _) = outcome(&arguments);
        arguments.push(format!("--{}={value}", flag.name));
        let (with, notices) = outcome(&arguments);
        match flag.effect {
            _ if flag.kind == Kind::Ignored => {
                assert!(notices.contains(&Notice::FormerFlag(flag.name)), "{arguments:?}: {notices:?}");
            }
            Effect::Used => assert_ne!(without, with, "{arguments:?}"),
            Effect::Nothing(why) => {
                let notice = Notice::NoEffect { flag: flag.name, why };
                assert!(notices.contains(&notice), "{arguments:?}: {notices:?}");
            }
        }
    }
}

/// The text of every file of the server but those of this room and tests.
fn readers() -> Vec<String> {
    let mut texts = Vec::new();
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["config", "tests"].contains(&name) {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}

/// A flag may be read and kept, and still do nothing, because nobody asks for what was kept.
#[test]
fn what_nobody_asks_for_is_of_a_flag_that_says_so() {
    let fields = include_str!("fields.rs");
    let fields_of_config = fields.split_once("pub struct Config {").unwrap().1.split_once("\n}").unwrap().0;
    let readers = readers();
    let mentions = |text: &str, path: &str| {
        text.match_indices(path)
            .any(|(at, _)| !text[at + path.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let names = fields_of_config.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    for (field, _) in names {
        let asked = readers.iter().any(|text| mentions(text, &format!("config.{field}")))
            || mentions(fields, &format!("self.{field}"));
        let (name, group) = (field.replace('_', "-"), format!("{}-", field.replace('_', "-")));
        let mut flags = table::all().filter(|flag| flag.name == name || flag.name.starts_with(&group)).peekable();
        let nothing = flags.peek().is_some() && flags.all(|flag| matches!(flag.effect, Effect::Nothing(_)));
        assert_eq!(asked, !nothing, "{field}");
    }
}

#[test]
fn what_has_no_meaning_here_is_accepted_with_a_remark() {
    for argument in [
        "--max-wals=3",
        "--max-snapshots=3",
        "--memory-mlock",
        "--backend-batch-interval=1s",
        "--backend-batch-limit=7",
        "--backend-bbolt-freelist-type=array",
        "--bootstrap-defrag-threshold-megabytes=7",
        "--initial-election-tick-advance=false",
        "--grpc-keepalive-min-time=1s",
        "--socket-reuse-address",
        "--raft-read-timeout=6s",
        "--raft-write-timeout=6s",
        "--enable-pprof",
        "--client-cert-file=a",
        "--client-key-file=a",
        "--compaction-batch-limit=7",
        "--compaction-sleep-interval=1s",
        "--corrupt-check-time=1h",
        "--compact-hash-check-time=1h",
        "--downgrade-check-time=1h",
        "--v2-deprecation=write-only,gone",
        "--log-rotation-config-json={}",
        "--distributed-tracing-address=a:1",
        "--distributed-tracing-service-name=a",
        "--distributed-tracing-instance-id=a",
        "--distributed-tracing-sampling-rate=1",
    ] {
        let name = argument.trim_start_matches('-').split('=').next().unwrap();
        let (_, notices) = serve(&[argument], &[], "");
        let told = notices.iter().any(|notice| matches!(notice, Notice::NoEffect { flag, .. } if *flag == name));
        assert!(told, "{argument}: {notices:?}");
    }
    let (_, notices) = serve(&["--max-snapshots=5", "--v2-deprecation=write-only"], &[], "");
    assert!(notices.contains(&Notice::Deprecated("max-snapshots")));
    assert!(notices.contains(&Notice::Deprecated("v2-deprecation")));
    assert!(!notices.iter().any(|notice| matches!(notice, Notice::NoEffect { .. })));
    let (_, notices) = serve(&["--feature-gates=AllAlpha=true,AllBeta=false"], &[], "");
    let gates = notices.iter().filter(|notice| matches!(notice, Notice::GateWithoutEffect { .. }));
    assert_eq!(gates.count(), 9, "{notices:?}");
}

#[test]
fn traces_are_sent_where_that_is_asked_for() {
    let config = flags(&["--enable-distributed-tracing"]);
    let default = Tracing {
        enabled: true,
        address: "localhost:4317".to_owned(),
        service_name: "etcd".to_owned(),
        instance_id: String::new(),
        sampling_rate_per_million: 0,
    };
    assert_eq!(config.tracing, default);
    let (config, notices) = serve(
        &[
            "--experimental-enable-distributed-tracing",
            "--experimental-distributed-tracing-address=[::1]:1",
            "--experimental-distributed-tracing-service-name=s",
            "--experimental-distributed-tracing-instance-id=i",
            "--experimental-distributed-tracing-sampling-rate=1000000",
        ],
        &[],
        "",
    );
    let expected = Tracing {
        enabled: true,
        address: "[::1]:1".to_owned(),
        service_name: "s".to_owned(),
        instance_id: "i".to_owned(),
        sampling_rate_per_million: 1_000_000,
    };
    assert_eq!(config.tracing, expected);
    assert!(!notices.iter().any(|notice| matches!(notice, Notice::NoEffect { .. })), "{notices:?}");
    let in_file = "enable-distributed-tracing: true\ndistributed-tracing-sampling-rate: 7\n";
    assert_eq!(file(in_file).tracing, Tracing { sampling_rate_per_million: 7, ..default });
}

#[test]
fn values_find_their_fields() {
    let config = flags(&[
        "--data-dir=/d",
        "--wal-dir=/w",
        "--heartbeat-interval=10",
        "--election-timeout=50",
        "--quota-backend-bytes=8589934592",
        "--max-txn-ops=10000",
        "--max-request-bytes=33554432",
        "--max-concurrent-streams=8",
        "--grpc-keepalive-interval=0",
        "--grpc-keepalive-timeout=1s",
        "--listen-client-http-urls=http://127.0.0.1:3",
        "--listen-metrics-urls=http://0.0.0.0:4,http://[::]:4",
        "--warning-unary-request-duration=1ms",
        "--warning-apply-duration=2ms",
        "--watch-progress-notify-interval=1ms",
        "--raft-read-timeout=1s",
        "--log-level=WARN",
        "--log-format=console",
        "--log-outputs=stdout",
        "--metrics=extensive",
        "--host-whitelist=b,a,a",
        "--auto-compaction-retention=10m",
        "--value-cache-bytes=1024",
        "--memory-limit=2Gi",
        "--snapshot-send-rate=0",
        "--promote-learners",
        "--keep-raft-log",
    ]);
    assert_eq!((config.data_dir.as_path(), config.log_dir()), (Path::new("/d"), PathBuf::from("/w")));
    assert_eq!(config.member_dir(), PathBuf::from("/d/member"));
    assert_eq!(config.election_timeout, Duration::from_millis(50));
    assert_eq!(config.quota_backend_bytes, 8 << 30);
    assert_eq!((config.max_txn_ops, config.max_request_bytes), (10_000, 32 << 20));
    assert_eq!((config.max_concurrent_streams, config.grpc_keepalive_interval), (8, None));
    assert_eq!(join_urls(&config.listen_client_http_urls), "http://127.0.0.1:3");
    assert_eq!(join_urls(&config.listen_metrics_urls), "http://0.0.0.0:4,http://[::]:4");
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(1));
    assert_eq!(config.warning_apply_duration, Duration::from_millis(2));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_millis(100));
    assert_eq!(config.raft_read_timeout, Duration::from_secs(5));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Warn, LogFormat::Console));
    assert_eq!(config.metrics, MetricsDetail::Extensive);
    assert_eq!(config.host_whitelist, ["a", "b"]);
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(600))));
    assert_eq!((config.value_cache_bytes, config.memory_limit), (1_024, Some(2 << 30)));
    assert_eq!(config.snapshot_send_rate, 0);
    assert!(config.promote_learners);
    assert!(config.keep_raft_log);
    assert!(config.admission && !flags(&["--admission=false"]).admission);
}

#[test]
fn the_memory_limit_leaves_room_for_everything() {
    let limit = |argument: &str| flags(&[argument]).memory_limit;
    assert_eq!(limit("--memory-limit=0"), None);
    assert_eq!(limit("--memory-limit=268435456"), Some(256 << 20));
    assert_eq!(limit("--memory-limit=256MiB"), Some(256 << 20));
    assert_eq!(flags(&["--memory-limit=256Mi"]).value_cache_bytes, (256 - 80) << 16, "a 16th of what is left");
    assert_eq!(serve(&[], &[("ETCD_MEMORY_LIMIT", "1Gi")], "").0.memory_limit, Some(1 << 30));
    assert_eq!(file("memory-limit: 1Gi").memory_limit, Some(1 << 30));
    assert_eq!(file("memory-limit: 1073741824").memory_limit, Some(1 << 30));
    refuse_file(
        "memory-limit: [1]",
        "cannot read the configuration file etcd.yml: memory-limit: expected a number of bytes, or a text such as 4Gi",
    );
    refuse(&["--memory-limit=1G"], 2, r#"invalid value "1G" for flag -memory-limit: parse error"#);
    for (arguments, message) in [
        (&["--memory-limit=255Mi"][..], "--memory-limit=267386880 is too little; the least is 268435456 (256Mi)"),
        (&["--memory-limit=1Gi", "--admission=false"], "--memory-limit cannot be kept with --admission=false"),
        (
            &["--memory-limit=256Mi", "--max-request-bytes=5767169"],
            "--max-request-bytes=5767169: requests of more than 5767168 bytes find no room under --memory-limit=268435456",
        ),
        (
            &["--memory-limit=256Mi", "--value-cache-bytes=46137345"],
            "--value-cache-bytes=46137345: at most 46137344 find room under --memory-limit=268435456",
        ),
    ] {
        refuse(arguments, 1, message);
    }
}

#[test]
fn retention_is_hours_a_duration_or_revisions() {
    let of = |mode: &str, retention: &str| {
        flags(&[&format!("--auto-compaction-mode={mode}"), &format!("--auto-compaction-retention={retention}")])
            .auto_compaction
    };
    assert_eq!(of("periodic", "0"), None);
    assert_eq!(of("periodic", "0s"), None);
    assert_eq!(of("periodic", ""), None);
    assert_eq!(of("periodic", "2"), Some(AutoCompaction::Periodic(Duration::from_secs(7_200))));
    assert_eq!(of("periodic", "30m"), Some(AutoCompaction::Periodic(Duration::from_secs(1_800))));
    assert_eq!(of("revision", "0"), None);
    assert_eq!(of("revision", "1000"), Some(AutoCompaction::Revision(1_000)));
}

#[test]
fn gates_add_up() {
    let config = flags(&["--feature-gates=LeaseCheckpoint=true", "--feature-gates=LeaseCheckpointPersist=true"]);
    assert!(config.feature_gates.enabled(Gate::LeaseCheckpoint));
    assert!(config.feature_gates.enabled(Gate::LeaseCheckpointPersist));
}

// ---- the first start

#[test]
fn under_a_token_a_member_begins_alone() {
    let config = flags(&[
        "--name=m1",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        "--initial-cluster-token=other",
        "--discovery-token=t",
        "--discovery-endpoints=http://d:1,e:2",
        "--discovery-dial-timeout=1s",
        "--discovery-request-timeout=3s",
        "--discovery-keepalive-time=20s",
        "--discovery-keepalive-timeout=4s",
        "--discovery-insecure-transport=false",
        "--discovery-insecure-skip-tls-verify",
        "--discovery-cert=a",
        "--discovery-key=b",
        "--discovery-cacert=c",
        "--discovery-user=u",
        "--discovery-password=secret",
    ]);
    assert_eq!(super::initial_cluster_text(&config.initial_cluster), "m1=http://10.0.0.1:2380");
    assert_eq!(config.initial_cluster_token, "t");
    assert!(config.discovery.uses_token() && !config.discovery.uses_dns());
    let discovery = &config.discovery;
    assert_eq!(discovery.endpoints, ["e:2", "http://d:1"]);
    assert_eq!(
        [discovery.dial_timeout, discovery.request_timeout, discovery.keepalive_time, discovery.keepalive_timeout],
        [1, 3, 20, 4].map(Duration::from_secs)
    );
    assert!(!discovery.insecure_transport && discovery.insecure_skip_tls_verify);
    assert_eq!([&*discovery.cert, &*discovery.key, &*discovery.cacert], ["a", "b", "c"]);
    assert_eq!([&*discovery.user, &*discovery.password], ["u", "secret"]);
    assert!(!format!("{config:?}").contains("secret"));
    config.check_discovery().unwrap();
    config.check_first_start(no_names).unwrap();
}

#[test]
fn with_dns_nobody_is_known_before_it_is_asked() {
    for arguments in [
        &["--discovery-srv=example.com"][..],
        &["--discovery-srv=example.com", "--discovery-srv-name=a"],
        // An empty cluster is no cluster.
        &["--discovery-srv=example.com", "--initial-cluster="],
    ] {
        let config = flags(arguments);
        assert!(config.initial_cluster.is_empty(), "{arguments:?}");
        assert_eq!(config.initial_cluster_token, "etcd-cluster");
        assert!(config.discovery.uses_dns() && !config.discovery.uses_token());
    }
    let config = file("discovery-srv: example.com\ninitial-cluster: default=http://localhost:2380");
    assert!(config.initial_cluster.is_empty(), "the file spells the default out");
    refuse_first_start(
        &["--discovery-srv-name=a"],
        r#"couldn't find local name "default" in the initial cluster configuration"#,
    );
}

#[test]
fn the_file_says_how_to_discover() {
    let config = file(
        "discovery-config:\n  token: t\n  client:\n    endpoints: ['http://d:1']\n    request-timeout: 3000000000\n    \
         auth: {username: u, password: p}\n    secure: {insecure-transport: false}",
    );
    let discovery = &config.discovery;
    assert_eq!((discovery.token.as_str(), discovery.request_timeout), ("t", Duration::from_secs(3)));
    assert_eq!((discovery.user.as_str(), discovery.password.as_str()), ("u", "p"));
    assert!(discovery.uses_token() && !discovery.insecure_transport);
}

#[test]
fn no_token_names_a_cluster_that_is_joined() {
    let joins = "--initial-cluster-state=existing";
    let config = flags(&[joins, "--discovery-token=t", "--discovery-endpoints=http://d:1"]);
    let refusal = config.check_discovery().unwrap_err().to_string();
    assert_eq!(refusal, "discovery URL should not be set when joining existing initial cluster");
    flags(&[joins, "--discovery-srv=example.com"]).check_discovery().unwrap();
}

#[test]
fn a_name_alone_makes_a_cluster_of_one() {
    let config = flags(&["--name=m1", "--initial-advertise-peer-urls=http://10.0.0.1:2380"]);
    assert_eq!(super::initial_cluster_text(&config.initial_cluster), "m1=http://10.0.0.1:2380");
    config.check_first_start(no_names).unwrap();
}

#[test]
fn several_addresses_a_name_are_gathered() {
    let config = flags(&[
        "--name=a",
        "--initial-cluster=b=http://b:1,a=http://a:2,a=http://a:1,",
        "--initial-advertise-peer-urls=http://a:1,http://a:2",
    ]);
    assert_eq!(super::initial_cluster_text(&config.initial_cluster), "a=http://a:1,a=http://a:2,b=http://b:1");
    config.check_first_start(no_names).unwrap();
}

#[test]
fn a_first_start_that_cannot_be_is_refused_in_etcds_words() {
    refuse_first_start(
        &["--name=m1", "--initial-cluster=m2=http://localhost:2380"],
        r#"couldn't find local name "m1" in the initial cluster configuration"#,
    );
    refuse_first_start(
        &["--name=m1", "--initial-cluster="],
        r#"couldn't find local name "m1" in the initial cluster configuration"#,
    );
    refuse_first_start(
        &["--name=m1", "--initial-cluster=m1=http://a:1,m1=http://localhost:2380"],
        "--initial-cluster has m1=http://a:1 but missing from --initial-advertise-peer-urls=http://localhost:2380",
    );
    refuse_first_start(
        &["--name=m1", "--initial-cluster=m1=http://a:1", "--initial-advertise-peer-urls=http://a:1,http://a:2"],
        "--initial-advertise-peer-urls has http://a:2 but missing from --initial-cluster=m1=http://a:1",
    );
    refuse_first_start(
        &["--initial-advertise-peer-urls=http://10.0.0.1:2380"],
        "--initial-cluster has default=http://localhost:2380 but missing from \
         --initial-advertise-peer-urls=http://10.0.0.1:2380",
    );
    refuse_first_start(
        &["--name=m1", "--initial-cluster=m1=http://localhost:2380,m2=http://localhost:2380"],
        "initial cluster m1=http://localhost:2380,m2=http://localhost:2380 has duplicate url (http://localhost:2380)",
    );
    refuse_first_start(
        &["--name=m1", "--initial-cluster=m1=http://localhost:2380,m2=unixs://b"],
        r#"--initial-cluster: TLS over a Unix socket between members is not available in this release (set to "unixs://b")"#,
    );
}

#[test]
fn addresses_may_differ_in_their_names_only() {
    let config = flags(&[
        "--name=m1",
        "--initial-cluster=m1=http://infra:2380",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
    ]);
    let resolve = |url: &Url| BTreeSet::from([url.as_str().replace("infra", "10.0.0.1")]);
    config.check_first_start(resolve).unwrap();
    assert!(config.check_first_start(no_names).is_err());
}

#[test]
fn a_member_that_joins_finds_itself_by_its_addresses() {
    let config = flags(&[
        "--name=m2",
        "--initial-cluster=m1=http://infra1:2380,m2=http://10.0.0.2:2380",
        "--initial-advertise-peer-urls=http://10.0.0.2:2380",
    ]);
    let resolve = |url: &Url| BTreeSet::from([url.as_str().replace("infra", "10.0.0.")]);
    let cluster = |urls: &[(u64, &str)]| urls.iter().map(|(id, url)| (*id, vec![(*url).to_owned()])).collect();
    let known = cluster(&[(0xa, "http://10.0.0.1:2380"), (0xb, "http://infra2:2380")]);
    assert_eq!(config.find_in(&known, resolve).unwrap(), 0xb);

    let refuse = |known, why: &str| {
        let refusal = config.find_in(&known, resolve).unwrap_err().to_string();
        assert!(refusal.ends_with(why), "{refusal}");
    };
    refuse(cluster(&[(0xa, "http://infra1:2380")]), "member count is unequal");
    let other = cluster(&[(0xa, "http://infra1:2380"), (0xb, "http://infra3:2380")]);
    refuse(other, r#"no match found for existing member (b, ["http://infra3:2380"])"#);
}

#[test]
fn names_that_nobody_can_resolve_are_not_the_same_address() {
    let nowhere = |_: &Url| BTreeSet::new();
    let config = flags(&[
        "--name=m1",
        "--initial-cluster=m1=http://infra1:2380",
        "--initial-advertise-peer-urls=http://infra1:2380",
    ]);
    let cluster = |url: &str| [(0xa, vec![url.to_owned()])].into();
    assert_eq!(config.find_in(&cluster("http://infra1:2380"), nowhere).unwrap(), 0xa);
    config.find_in(&cluster("http://infra2:2380"), nowhere).unwrap_err();
}

#[test]
fn a_data_directory_with_a_member_is_not_a_first_start() {
    let config = flags(&["--name=m1", "--data-dir=/d"]);
    assert!(config.is_initialized(|path| path == Path::new("/d/member")));
    assert!(!config.is_initialized(|_| false));
}
