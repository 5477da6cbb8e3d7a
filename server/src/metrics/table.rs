//! Every metric's name, once: etcd's names where etcd has one, with its labels and buckets.

/// What a metric counts with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values into buckets.
    Histogram(Buckets),
}

/// Upper bounds of a histogram's buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Buckets {
    /// `count` bounds from `start`, each twice the one before.
    Doubling { start: f64, count: usize },
    /// Prometheus's own choice for durations.
    Default,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    buckets: (f64, usize),
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row { name, kind: Kind::Histogram(Buckets::Doubling { start: buckets.0, count: buckets.1 }), labels, help }
}

/// The metrics that Go processes show of themselves and the ones of the process stand in `process.rs`.
pub(super) const METRICS: &[Row] = &[
    gauge("etcd_cluster_version", &["cluster_version"], "Which version the cluster runs at."),
    gauge("etcd_debugging_auth_revision", &[], "Revision of users and roles."),
    histogram(
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        (0.001, 14),
        &[],
        "etcd: rebalancing at a commit; always empty here.",
    ),
    histogram(
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        (0.001, 14),
        &[],
        "etcd: spilling at a commit; always empty here.",
    ),
    histogram(
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        (0.001, 14),
        &[],
        "etcd: writing at a commit; always empty here.",
    ),
    counter("etcd_debugging_lease_granted_total", &[], "Leases granted."),
    counter("etcd_debugging_lease_renewed_total", &[], "Leases renewed at this leader."),
    counter("etcd_debugging_lease_revoked_total", &[], "Leases revoked."),
    histogram("etcd_debugging_lease_ttl_total", (1.0, 24), &[], "Times to live of leases, in seconds."),
    gauge("etcd_debugging_mvcc_compact_revision", &[], "Revision of the last compaction."),
    gauge("etcd_debugging_mvcc_current_revision", &[], "Current revision."),
    counter("etcd_debugging_mvcc_db_compaction_keys_total", &[], "Revisions removed by compactions."),
    gauge("etcd_debugging_mvcc_db_compaction_last", &[], "Unix time of the last compaction."),
    histogram(
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        (1.0, 13),
        &[],
        "Work of a compaction between two pauses, in milliseconds.",
    ),
    histogram(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        (100.0, 14),
        &[],
        "Duration of compactions, in milliseconds.",
    ),
    counter("etcd_debugging_mvcc_events_total", &[], "Events sent to watchers."),
    histogram(
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        (0.5, 14),
        &[],
        "Time that a compaction held the index, in milliseconds.",
    ),
    gauge("etcd_debugging_mvcc_keys_total", &[], "Live keys."),
    gauge("etcd_debugging_mvcc_pending_events_total", &[], "Events that wait to be sent to watchers."),
    gauge("etcd_debugging_mvcc_slow_watcher_total", &[], "Watchers that lag behind."),
    gauge("etcd_debugging_mvcc_total_put_size_in_bytes", &[], "Bytes of keys and values put since the start."),
    gauge("etcd_debugging_mvcc_watch_stream_total", &[], "Open watch streams."),
    gauge("etcd_debugging_mvcc_watcher_total", &[], "Watchers."),
    gauge("etcd_debugging_server_alarms", &["server_id", "alarm_type"], "Alarms that are on, by member and type."),
    counter("etcd_debugging_server_lease_expired_total", &[], "Leases that ran out."),
    histogram(
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
        (0.001, 14),
        &[],
        "Time to send a control response of a watch stream.",
    ),
    histogram(
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
        (0.001, 14),
        &[],
        "Time to send a progress notice of a watch stream.",
    ),
    histogram(
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
        (0.001, 14),
        &[],
        "Time to send events of a watch stream, by event.",
    ),
    histogram(
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        (0.001, 14),
        &[],
        "Time to send events of a watch stream.",
    ),
    histogram(
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        (0.001, 14),
        &[],
        "etcd: encoding of a snapshot; always empty here.",
    ),
    histogram("etcd_debugging_snap_save_total_duration_seconds", (0.001, 14), &[], "Duration of saving a snapshot."),
    counter("etcd_debugging_store_expires_total", &[], "etcd's v2 store; always 0 here."),
    counter("etcd_debugging_store_reads_failed_total", &["action"], "etcd's v2 store; never moves here."),
    counter("etcd_debugging_store_reads_total", &["action"], "etcd's v2 store; never moves here."),
    counter("etcd_debugging_store_watch_requests_total", &[], "etcd's v2 store; always 0 here."),
    gauge("etcd_debugging_store_watchers", &[], "etcd's v2 store; always 0 here."),
    counter("etcd_debugging_store_writes_failed_total", &["action"], "etcd's v2 store; never moves here."),
    counter("etcd_debugging_store_writes_total", &["action"], "etcd's v2 store; never moves here."),
    histogram("etcd_disk_backend_commit_duration_seconds", (0.001, 14), &[], "Duration of writes to the store."),
    histogram("etcd_disk_backend_defrag_duration_seconds", (0.1, 13), &[], "Duration of defragmentations."),
    histogram("etcd_disk_backend_snapshot_duration_seconds", (0.01, 17), &[], "Duration of snapshots of the store."),
    gauge("etcd_disk_defrag_inflight", &[], "Whether a defragmentation runs."),
    histogram("etcd_disk_wal_fsync_duration_seconds", (0.001, 14), &[], "Duration of fsyncs of the log."),
    gauge("etcd_disk_wal_write_bytes_total", &[], "Bytes written to the log."),
    histogram("etcd_disk_wal_write_duration_seconds", (0.001, 14), &[], "Duration of writes to the log."),
    gauge("etcd_grpc_proxy_cache_hits_total", &[], "etcd's proxy; always 0 here."),
    gauge("etcd_grpc_proxy_cache_keys_total", &[], "etcd's proxy; always 0 here."),
    gauge("etcd_grpc_proxy_cache_misses_total", &[], "etcd's proxy; always 0 here."),
    counter("etcd_grpc_proxy_events_coalescing_total", &[], "etcd's proxy; always 0 here."),
    gauge("etcd_grpc_proxy_watchers_coalescing_total", &[], "etcd's proxy; always 0 here."),
    gauge("etcd_mvcc_db_open_read_transactions", &[], "Open reads of the store."),
    gauge("etcd_mvcc_db_total_size_in_bytes", &[], "Bytes of the store on disk."),
    gauge("etcd_mvcc_db_total_size_in_use_in_bytes", &[], "Bytes of the store that live data takes."),
    counter("etcd_mvcc_delete_total", &[], "Deletes."),
    histogram("etcd_mvcc_hash_duration_seconds", (0.01, 15), &[], "Duration of hashing the whole store."),
    histogram("etcd_mvcc_hash_rev_duration_seconds", (0.01, 15), &[], "Duration of hashing the store at a revision."),
    counter("etcd_mvcc_put_total", &[], "Puts."),
    counter("etcd_mvcc_range_total", &[], "Ranges."),
    counter("etcd_mvcc_txn_total", &[], "Transactions."),
    gauge("etcd_network_active_peers", &["Local", "Remote"], "Peers that this member is connected to."),
    counter("etcd_network_client_grpc_received_bytes_total", &[], "Bytes of requests received from clients."),
    counter("etcd_network_client_grpc_sent_bytes_total", &[], "Bytes of responses sent to clients."),
    counter("etcd_network_disconnected_peers_total", &["Local", "Remote"], "Connections to peers that were lost."),
    gauge("etcd_network_known_peers", &["Local", "Remote"], "Peers that this member knows."),
    counter("etcd_network_peer_received_bytes_total", &["From"], "Bytes received from peers."),
    counter("etcd_network_peer_received_failures_total", &["From"], "Failures of receiving from peers."),
    histogram("etcd_network_peer_round_trip_time_seconds", (0.0001, 16), &["To"], "Round-trip time to peers."),
    counter("etcd_network_peer_sent_bytes_total", &["To"], "Bytes sent to peers."),
    counter("etcd_network_peer_sent_failures_total", &["To"], "Failures of sending to peers."),
    counter("etcd_network_server_stream_failures_total", &["Type", "API"], "Streams that failed on this side."),
    counter("etcd_network_snapshot_receive_failures", &["From"], "Snapshots that could not be received."),
    gauge("etcd_network_snapshot_receive_inflights_total", &["From"], "Snapshots that are being received."),
    counter("etcd_network_snapshot_receive_success", &["From"], "Snapshots received."),
    histogram(
        "etcd_network_snapshot_receive_total_duration_seconds",
        (0.1, 10),
        &["From"],
        "Duration of receiving a snapshot.",
    ),
    counter("etcd_network_snapshot_send_failures", &["To"], "Snapshots that could not be sent."),
    gauge("etcd_network_snapshot_send_inflights_total", &["To"], "Snapshots that are being sent."),
    counter("etcd_network_snapshot_send_success", &["To"], "Snapshots sent."),
    histogram(
        "etcd_network_snapshot_send_total_duration_seconds",
        (0.1, 10),
        &["To"],
        "Duration of sending a snapshot.",
    ),
    histogram(
        "etcd_server_apply_duration_seconds",
        (0.0001, 20),
        &["version", "op", "success"],
        "Duration of applying a command.",
    ),
    counter(
        "etcd_server_client_requests_total",
        &["type", "client_api_version"],
        "Requests of clients, by the version that they claim.",
    ),
    gauge("etcd_server_feature_enabled", &["name", "stage"], "Whether a feature gate is on."),
    gauge(
        "etcd_server_go_version",
        &["server_go_version"],
        "Which Go release etcd is built with; this server is not written in Go.",
    ),
    gauge("etcd_server_has_leader", &[], "Whether a leader is known."),
    counter("etcd_server_health_failures", &[], "Failed answers of /health."),
    counter("etcd_server_health_success", &[], "Good answers of /health."),
    gauge("etcd_server_healthcheck", &["type", "name"], "Last result of each check of /livez and /readyz."),
    counter("etcd_server_healthchecks_total", &["type", "name", "status"], "Checks of /livez and /readyz."),
    counter("etcd_server_heartbeat_send_failures_total", &[], "Heartbeats that were sent late."),
    gauge("etcd_server_id", &["server_id"], "This member."),
    gauge("etcd_server_is_leader", &[], "Whether this member leads."),
    gauge("etcd_server_is_learner", &[], "Whether this member has no vote."),
    counter("etcd_server_leader_changes_seen_total", &[], "Changes of the leader that were seen."),
    counter("etcd_server_learner_promote_failures", &["Reason"], "Promotions of a learner that failed at this leader."),
    counter("etcd_server_learner_promote_successes", &[], "Promotions of a learner at this leader."),
    gauge("etcd_server_proposals_applied_total", &[], "Index of the last command that was applied."),
    gauge("etcd_server_proposals_committed_total", &[], "Index of the last command that is committed."),
    counter("etcd_server_proposals_failed_total", &[], "Commands that could not be proposed."),
    gauge("etcd_server_proposals_pending", &[], "Commands that wait to be committed."),
    gauge("etcd_server_quota_backend_bytes", &[], "Bytes of data before the space alarm."),
    histogram("etcd_server_range_duration_seconds", (0.0001, 20), &["success"], "Duration of ranges."),
    counter("etcd_server_read_indexes_failed_total", &[], "Linearizable reads that failed."),
    histogram("etcd_server_request_duration_seconds", (0.001, 14), &["type", "success"], "Duration of requests."),
    counter("etcd_server_slow_apply_total", &[], "Commands that were slow to apply."),
    counter("etcd_server_slow_read_indexes_total", &[], "Linearizable reads that waited long for the leader."),
    gauge("etcd_server_snapshot_apply_in_progress_total", &[], "Whether a received snapshot is being installed."),
    gauge("etcd_server_version", &["server_version"], "Which version of etcd this server stands for."),
    histogram("etcd_snap_db_fsync_duration_seconds", (0.001, 14), &[], "Duration of fsyncs of a received snapshot."),
    histogram("etcd_snap_db_save_total_duration_seconds", (0.1, 10), &[], "Duration of saving a received snapshot."),
    histogram("etcd_snap_fsync_duration_seconds", (0.001, 14), &[], "Duration of fsyncs of a snapshot."),
    counter(
        "grpc_server_handled_total",
        &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        "RPCs that ended, by their code.",
    ),
    Row {
        name: "grpc_server_handling_seconds",
        kind: Kind::Histogram(Buckets::Default),
        labels: &["grpc_type", "grpc_service", "grpc_method"],
        help: "Duration of RPCs.",
    },
    counter(
        "grpc_server_msg_received_total",
        &["grpc_type", "grpc_service", "grpc_method"],
        "Messages received in RPCs.",
    ),
    counter("grpc_server_msg_sent_total", &["grpc_type", "grpc_service", "grpc_method"], "Messages sent in RPCs."),
    counter("grpc_server_started_total", &["grpc_type", "grpc_service", "grpc_method"], "RPCs that started."),
    counter(
        "mainstay_network_peer_checksum_failures_total",
        &[],
        "Messages of peers that arrived as something else than was sent.",
    ),
    counter(
        "mainstay_network_snapshot_received_bytes_total",
        &["From"],
        "Bytes of snapshots that came from peers, also of those that broke off.",
    ),
    counter(
        "mainstay_network_snapshot_resumed_bytes_total",
        &["From"],
        "Bytes of snapshots that peers did not send again, because they were here from a try that broke off.",
    ),
    counter(
        "mainstay_network_snapshot_sent_bytes_total",
        &["To"],
        "Bytes of snapshots that were sent to peers, also of those that broke off.",
    ),
    gauge("mainstay_server_admission_bytes", &[], "Bytes that ordinary requests hold."),
    gauge("mainstay_server_admission_pool_bytes", &[], "Bytes that they may hold together."),
    gauge(
        "mainstay_server_admission_reserve_bytes",
        &[],
        "Bytes that all other requests hold of what is kept for them.",
    ),
    gauge("mainstay_server_admission_waiting", &[], "Requests that wait for room."),
    counter("mainstay_server_consistency_checks_total", &[], "Comparisons of the members' data that this member made."),
    gauge("mainstay_server_data_format", &[], "The format that the members have agreed on for their data."),
    gauge("mainstay_server_memory_warning", &[], "Whether the memory limit is nearly reached."),
    gauge("mainstay_server_overloaded", &[], "Whether this member is late, and refuses ordinary requests."),
    histogram(
        "mainstay_server_proposal_stage_duration_seconds",
        (0.000_02, 20),
        &["stage"],
        "Duration of the stages that proposals go through, each from the end of the one before.",
    ),
    gauge("mainstay_server_quota_warning", &[], "Whether the quota is nearly used up."),
    counter(
        "mainstay_server_requests_refused_total",
        &["reason"],
        "Requests refused because there was no room, too much to do (overload), or no memory.",
    ),
    gauge("os_fd_limit", &[], "File descriptors that the process may have."),
    gauge("os_fd_used", &[], "File descriptors that the process has."),
    gauge("promhttp_metric_handler_requests_in_flight", &[], "Scrapes that are being answered."),
    // The label is that of Go's client library.
    counter("promhttp_metric_handler_requests_total", &["code"], "Scrapes, by their status."),
];
