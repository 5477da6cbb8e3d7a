use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_proto::etcdserverpb::PutRequest;
use tonic::Code;

use super::grpc::{CODES, SERVICES};
use super::table::{Buckets, Kind, METRICS};
use super::{
    AdmissionNumbers, CallKind, Metrics, Operation, Options, ProcessNumbers, RaftNumbers, StoreNumbers, WatchNumbers,
};
use crate::command::command::Kind as Command;
use crate::config::MetricsDetail;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text()).unwrap()
}

#[track_caller]
fn has_line(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    let name = line.split(['{', ' ']).next().unwrap();
    let near: Vec<&str> = text.lines().filter(|l| l.starts_with(name)).collect();
    assert!(text.lines().any(|l| l == line), "no line {line:?} in {near:#?}");
}

/// Name → type, as they are printed.
fn exposed(metrics: &Metrics) -> BTreeMap<String, String> {
    let text = text(metrics);
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(n, t)| (n.to_owned(), t.to_owned())).collect()
}

/// The lines of http.md's table: name, type, labels, buckets, shown by every running member.
fn etcds() -> Vec<[&'static str; 5]> {
    let lines = include_str!("../../testdata/metrics.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect::<Vec<_>>().try_into().unwrap()).collect()
}

#[test]
fn names_are_etcds() {
    let ours: Vec<[String; 4]> = METRICS
        .iter()
        .filter(|row| !row.name.starts_with("mainstay_"))
        .map(|row| {
            let (kind, buckets) = match row.kind {
                Kind::Counter => ("counter", "-".to_owned()),
                Kind::Gauge => ("gauge", "-".to_owned()),
                Kind::Histogram(Buckets::Default) => ("histogram", "-".to_owned()),
                Kind::Histogram(Buckets::Doubling { start, count }) => {
                    ("histogram", format!("exp({start}, 2, {count})"))
                }
            };
            // The one label that the list does not name: Go's client library has it.
            let labels = match (row.name, row.labels) {
                ("promhttp_metric_handler_requests_total", ["code"]) | (_, []) => "-".to_owned(),
                (_, labels) => labels.join(","),
            };
            [row.name.to_owned(), kind.to_owned(), labels, buckets]
        })
        .collect();
    let theirs: Vec<[String; 4]> = etcds()
        .into_iter()
        .map(|[name, kind, labels, buckets, _]| {
            [name.to_owned(), kind.to_owned(), labels.to_owned(), buckets.replace("(.", "(0.")]
        })
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn what_every_member_shows_is_there_from_the_start() {
    let metrics = Metrics::with(Options {
        detail: MetricsDetail::Extensive,
        process: Some(Box::new(|| None)),
        ..Options::default()
    });
    let exposed = exposed(&metrics);
    for [name, kind, labels, _, shown] in etcds() {
        match exposed.get(name) {
            Some(ours) => assert_eq!(ours, kind, "{name}"),
            // Series with labels come with the first peer, request or decided version.
            None => assert!(labels != "-" || shown == "-", "{name}"),
        }
    }
    for name in [
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_network_receive_bytes_total",
        "process_network_transmit_bytes_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
        "process_virtual_memory_max_bytes",
        "go_info",
        "go_goroutines",
        "go_threads",
        "go_memstats_alloc_bytes",
        "go_sched_gomaxprocs_threads",
        "go_memstats_mallocs_total",
        "go_gc_duration_seconds",
    ] {
        assert!(exposed.contains_key(name), "{name}");
    }
}

#[test]
fn labelled_metrics_exist_once_they_are_used() {
    let metrics = Metrics::new();
    metrics.set_member_id(0x8e9e_05c5_2164_694d);
    metrics.set_cluster_version("3.7.0");
    metrics.client_request(CallKind::Unary, None);
    let (put, took) = (Operation::of(&Command::Put(PutRequest::default())), Duration::from_millis(100));
    metrics.server.apply_duration_seconds.observe(put, true, took);
    metrics.server.range_duration_seconds.observe(true, took);
    metrics.server.request_duration_seconds.observe(put, false, took);
    metrics.network.active_peers.with_label_values(&["1", "2"]).set(1);
    metrics.network.known_peers.with_label_values(&["1", "2"]).set(1);
    metrics.network.peer(2).sent_bytes.inc();
    metrics.network.peer(2).sent_bytes.inc();
    let exposed = exposed(&metrics);
    for [name, _, _, _, shown] in etcds() {
        assert!(shown == "-" || exposed.contains_key(name) || name == "grpc_server_handling_seconds", "{name}");
    }
    has_line(&metrics, r#"etcd_server_id{server_id="8e9e05c52164694d"} 1"#);
    has_line(&metrics, r#"etcd_cluster_version{cluster_version="3.7"} 1"#);
    has_line(&metrics, r#"etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"} 1"#);
    has_line(&metrics, r#"etcd_server_request_duration_seconds_count{success="false",type="Put"} 1"#);
    has_line(&metrics, r#"etcd_network_peer_sent_bytes_total{To="2"} 2"#);
    metrics.network.peer(2).snapshot_sent_bytes.inc_by(5);
    has_line(&metrics, r#"mainstay_network_snapshot_sent_bytes_total{To="2"} 5"#);
    has_line(&metrics, r#"mainstay_network_snapshot_received_bytes_total{From="2"} 0"#);
    has_line(&metrics, r#"mainstay_network_snapshot_resumed_bytes_total{From="2"} 0"#);
    metrics.set_cluster_version("3.8");
    has_line(&metrics, r#"etcd_cluster_version{cluster_version="3.8"} 1"#);
    assert!(!text(&metrics).contains(r#"cluster_version="3.7""#));
}

#[test]
fn lines_that_tests_of_etcd_look_for() {
    let metrics = Metrics::new();
    has_line(&metrics, r#"etcd_server_version{server_version="3.7.1"} 1"#);
    has_line(&metrics, r#"etcd_server_go_version{server_go_version="go1.26.8"} 1"#);
    has_line(&metrics, r#"etcd_server_feature_enabled{name="FastLeaseKeepAlive",stage="BETA"} 1"#);
    has_line(&metrics, r#"etcd_server_feature_enabled{name="LeaseCheckpoint",stage="ALPHA"} 0"#);
    has_line(&metrics, r#"etcd_server_feature_enabled{name="AllBeta",stage="BETA"} 0"#);
    has_line(&metrics, "etcd_server_is_learner 0");
    has_line(&metrics, "etcd_mvcc_put_total 0");
    metrics.mvcc.put_total.inc_by(2);
    metrics.mvcc.delete_total.inc_by(3);
    metrics.set_store(&StoreNumbers {
        keys: 1,
        revision: 2,
        compact_revision: -1,
        total_bytes: 20,
        in_use_bytes: 10,
        auth_revision: 5,
    });
    has_line(&metrics, "etcd_mvcc_put_total 2");
    has_line(&metrics, "etcd_mvcc_delete_total 3");
    has_line(&metrics, "etcd_debugging_mvcc_keys_total 1");
    has_line(&metrics, "etcd_debugging_mvcc_current_revision 2");
    has_line(&metrics, "etcd_debugging_mvcc_compact_revision -1");
    has_line(&metrics, "etcd_mvcc_db_total_size_in_bytes 20");
    let watch = metrics.grpc.method("/etcdserverpb.Watch/Watch").unwrap();
    for _ in 0..6 {
        watch.handled(Code::Cancelled, Duration::from_secs(1));
    }
    has_line(
        &metrics,
        r#"grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 6"#,
    );
    has_line(&metrics, r#"promhttp_metric_handler_requests_total{code="200"} 0"#);
}

#[test]
fn every_method_exists_from_the_start() {
    let metrics = Metrics::new();
    let text = text(&metrics);
    let lines: BTreeSet<&str> = text.lines().collect();
    for (service, methods) in SERVICES {
        for (method, kind) in *methods {
            let labels = format!(r#"grpc_method="{method}",grpc_service="{service}",grpc_type="{kind}""#);
            for name in ["started", "msg_received", "msg_sent"] {
                let line = format!("grpc_server_{name}_total{{{labels}}} 0");
                assert!(lines.contains(line.as_str()), "{line}");
            }
            for (_, code) in CODES {
                let line = format!(r#"grpc_server_handled_total{{grpc_code="{code}",{labels}}} 0"#);
                assert!(lines.contains(line.as_str()), "{line}");
            }
        }
    }
}

#[test]
fn the_methods_are_those_of_the_protocol() {
    let files = [
        include_str!("../../../proto/etcd/rpc.proto"),
        include_str!("../../../proto/etcd/v3lock.proto"),
        include_str!("../../../proto/etcd/v3election.proto"),
    ];
    let mut declared = BTreeSet::new();
    for file in files {
        let package = file.lines().find_map(|line| line.strip_prefix("package ")).unwrap().trim_end_matches(';');
        let mut service = "";
        for line in file.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.trim_end_matches(" {");
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                let (method, rest) = rest.split_once('(').unwrap();
                let kind = match (rest.starts_with("stream "), rest.contains("(stream ")) {
                    (false, false) => "unary",
                    (false, true) => "server_stream",
                    (true, false) => "client_stream",
                    (true, true) => "bidi_stream",
                };
                declared.insert(format!("{package}.{service}/{method} {kind}"));
            }
        }
    }
    let ours: BTreeSet<String> = SERVICES
        .iter()
        .filter(|(service, _)| !service.starts_with("grpc.health"))
        .flat_map(|(service, methods)| methods.iter().map(move |(method, kind)| format!("{service}/{method} {kind}")))
        .collect();
    assert_eq!(ours, declared);
}

#[test]
fn codes_are_in_the_order_of_their_numbers() {
    for (number, (code, _)) in CODES.iter().enumerate() {
        assert_eq!(*code as usize, number);
    }
}

#[test]
fn calls_are_counted() {
    let metrics = Metrics::with(Options { detail: MetricsDetail::Extensive, ..Options::default() });
    let put = metrics.grpc.method("/etcdserverpb.KV/Put").unwrap();
    put.started();
    put.received();
    put.sent();
    put.handled(Code::Ok, Duration::from_millis(20));
    let labels = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    has_line(&metrics, &format!("grpc_server_started_total{{{labels}}} 1"));
    has_line(&metrics, &format!("grpc_server_msg_received_total{{{labels}}} 1"));
    has_line(&metrics, &format!("grpc_server_msg_sent_total{{{labels}}} 1"));
    has_line(&metrics, &format!(r#"grpc_server_handled_total{{grpc_code="OK",{labels}}} 1"#));
    has_line(&metrics, &format!(r#"grpc_server_handling_seconds_bucket{{{labels},le="0.025"}} 1"#));
    assert!(metrics.grpc.method("/etcdserverpb.KV/Other").is_none());
    assert!(!text(&Metrics::new()).contains("grpc_server_handling_seconds"));
}

#[test]
fn changes_of_the_leader_are_counted() {
    let metrics = Metrics::new();
    let show = |leader| {
        metrics.set_raft(&RaftNumbers {
            member_id: 1,
            leader,
            committed: 5,
            applied: 4,
            pending: 1,
            is_learner: false,
        });
        metrics.server.leader_changes_seen_total.get()
    };
    assert_eq!(show(None), 0);
    has_line(&metrics, "etcd_server_has_leader 0");
    assert_eq!(show(Some(1)), 1);
    has_line(&metrics, "etcd_server_is_leader 1");
    has_line(&metrics, "etcd_server_proposals_applied_total 4");
    assert_eq!(show(Some(1)), 1);
    assert_eq!(show(Some(2)), 2);
    has_line(&metrics, "etcd_server_is_leader 0");
    assert_eq!(show(None), 2);
    assert_eq!(show(Some(2)), 3);
}

#[test]
fn alarms_come_and_go() {
    let metrics = Metrics::new();
    metrics.set_alarms([(0x10, "NOSPACE")]);
    has_line(&metrics, r#"etcd_debugging_server_alarms{alarm_type="NOSPACE",server_id="10"} 1"#);
    metrics.set_alarms([]);
    assert!(!text(&metrics).contains("etcd_debugging_server_alarms{"));
}

#[test]
fn clients_cannot_grow_the_metrics() {
    let metrics = Metrics::new();
    metrics.client_request(CallKind::Unary, Some("3.7.1"));
    metrics.client_request(CallKind::Stream, Some("3.7.1"));
    metrics.client_request(CallKind::Unary, Some("\"evil\n"));
    metrics.client_request(CallKind::Unary, None);
    has_line(&metrics, r#"etcd_server_client_requests_total{client_api_version="3.7.1",type="unary"} 1"#);
    has_line(&metrics, r#"etcd_server_client_requests_total{client_api_version="3.7.1",type="stream"} 1"#);
    has_line(&metrics, r#"etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 2"#);
    for patch in 0..1_000 {
        metrics.client_request(CallKind::Unary, Some(&format!("9.9.{patch}")));
    }
    let text = text(&metrics);
    let series = text.lines().filter(|line| line.starts_with("etcd_server_client_requests_total{")).count();
    assert!(series <= 2 * 33, "{series}");
}

#[test]
fn stages_of_proposals_show_run_by_run() {
    const NAME: &str = "mainstay_server_proposal_stage_duration_seconds";
    let metrics = Metrics::new();
    for stage in ["proposed", "flushed", "replicated", "applied", "replied", "forwarded"] {
        has_line(&metrics, &format!(r#"{NAME}_count{{stage="{stage}"}} 0"#));
    }
    let mut of_log = metrics.server.proposal_stages.of_log();
    for _ in 0..2 {
        of_log.count(Duration::from_millis(250), Duration::from_millis(500), Duration::from_micros(10));
    }
    has_line(&metrics, &format!(r#"{NAME}_count{{stage="flushed"}} 0"#));
    of_log.publish();
    of_log.publish();
    for (stage, sum) in [("flushed", "0.5"), ("replicated", "1"), ("applied", "0.00002"), ("forwarded", "0")] {
        has_line(&metrics, &format!(r#"{NAME}_sum{{stage="{stage}"}} {sum}"#));
    }
    has_line(&metrics, &format!(r#"{NAME}_count{{stage="replicated"}} 2"#));
    has_line(&metrics, &format!(r#"{NAME}_bucket{{stage="applied",le="0.00002"}} 2"#));
}

#[test]
fn nodes_of_one_process_count_apart() {
    let (one, other) = (Metrics::new(), Metrics::new());
    one.mvcc.put_total.inc();
    has_line(&one, "etcd_mvcc_put_total 1");
    has_line(&other, "etcd_mvcc_put_total 0");
}

#[test]
fn watches_and_quota_are_shown() {
    let metrics = Metrics::new();
    for events_total in [5, 9, 9] {
        let numbers = WatchNumbers { streams: 1, watchers: 4, slow_watchers: 2, pending_events: 3, events_total };
        metrics.set_watch(&numbers);
    }
    has_line(&metrics, "etcd_debugging_mvcc_events_total 9");
    metrics.set_quota(-1);
    has_line(&metrics, "etcd_debugging_mvcc_watcher_total 4");
    has_line(&metrics, "etcd_debugging_mvcc_slow_watcher_total 2");
    has_line(&metrics, "etcd_server_quota_backend_bytes 0");
    metrics.set_quota(2 << 30);
    has_line(&metrics, "etcd_server_quota_backend_bytes 2147483648");
}

#[test]
fn what_requests_hold_is_shown() {
    let metrics = Metrics::new();
    has_line(&metrics, "mainstay_server_overloaded 0");
    has_line(&metrics, "mainstay_server_memory_warning 0");
    metrics.set_admission(&AdmissionNumbers { held: 1, pool: 2, reserve_held: 3, waiting: 4 });
    has_line(&metrics, "mainstay_server_admission_bytes 1");
    has_line(&metrics, "mainstay_server_admission_pool_bytes 2");
    has_line(&metrics, "mainstay_server_admission_reserve_bytes 3");
    has_line(&metrics, "mainstay_server_admission_waiting 4");
    metrics.server.requests_refused.with_label_values(&["overload"]).inc();
    has_line(&metrics, r#"mainstay_server_requests_refused_total{reason="overload"} 1"#);
}

#[test]
fn the_process_is_shown_from_what_the_system_says() {
    let numbers = ProcessNumbers {
        cpu_seconds: 1.5,
        max_fds: 1_024,
        open_fds: 12,
        resident_bytes: 4_096,
        start_time_seconds: 1_700_000_000.25,
        ..ProcessNumbers::default()
    };
    let metrics = Metrics::with(Options { process: Some(Box::new(move || Some(numbers))), ..Options::default() });
    for _ in 0..2 {
        has_line(&metrics, "process_cpu_seconds_total 1.5");
        has_line(&metrics, "process_resident_memory_bytes 4096");
        has_line(&metrics, "process_start_time_seconds 1700000000.25");
        has_line(&metrics, "process_virtual_memory_max_bytes 18446744073709552000");
        has_line(&metrics, "os_fd_limit 1024");
        has_line(&metrics, "os_fd_used 12");
        has_line(&metrics, r#"go_info{version="go1.26.8"} 1"#);
    }
}
