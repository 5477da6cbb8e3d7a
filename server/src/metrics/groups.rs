//! The metrics that move, by the room that moves them. What each one says stands in the table.
#![allow(missing_docs, reason = "a field is called as its metric, whose help text says what it is")]

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::durations::{ByOperation, BySuccess, Operation};
use super::peers::Known;
use super::registry::Builder;
use super::stages::Stages;

/// Consensus, requests, health.
pub struct Server {
    pub has_leader: IntGauge,
    pub is_leader: IntGauge,
    pub is_learner: IntGauge,
    pub leader_changes_seen_total: IntCounter,
    pub proposals_applied_total: IntGauge,
    pub proposals_committed_total: IntGauge,
    pub proposals_pending: IntGauge,
    pub proposals_failed_total: IntCounter,
    pub read_indexes_failed_total: IntCounter,
    pub slow_read_indexes_total: IntCounter,
    pub slow_apply_total: IntCounter,
    pub heartbeat_send_failures_total: IntCounter,
    pub learner_promote_failures: IntCounterVec,
    pub learner_promote_successes: IntCounter,
    pub snapshot_apply_in_progress_total: IntGauge,
    pub quota_backend_bytes: IntGauge,
    pub quota_warning: IntGauge,
    pub consistency_checks: IntCounter,
    /// Set by [`super::Metrics::set_data_format`].
    pub(super) data_format: IntGauge,
    pub admission_bytes: IntGauge,
    pub admission_pool_bytes: IntGauge,
    pub admission_reserve_bytes: IntGauge,
    pub admission_waiting: IntGauge,
    /// By reason; moved by `admission`.
    pub requests_refused: IntCounterVec,
    pub overloaded: IntGauge,
    pub memory_warning: IntGauge,
    pub apply_duration_seconds: ByOperation,
    pub range_duration_seconds: BySuccess,
    pub request_duration_seconds: ByOperation,
    pub proposal_stages: Stages,
    /// By type and claimed version; moved by [`super::Metrics::client_request`].
    pub(super) client_requests_total: IntCounterVec,
    pub health_success: IntCounter,
    pub health_failures: IntCounter,
    /// By type and name.
    pub healthcheck: IntGaugeVec,
    /// By type, name and status.
    pub healthchecks_total: IntCounterVec,
    /// By member and type; set by [`super::Metrics::set_alarms`].
    pub(super) alarms: IntGaugeVec,
    pub(super) id: IntGaugeVec,
    pub(super) cluster_version: IntGaugeVec,
    pub(super) version: IntGaugeVec,
    pub(super) go_version: IntGaugeVec,
    pub(super) feature_enabled: IntGaugeVec,
    /// Scrapes by status; moved by `http`.
    pub scrapes_total: IntCounterVec,
    pub scrapes_in_flight: IntGauge,
}

impl Server {
    pub(super) fn new(b: &mut Builder) -> Server {
        let server = Server {
            has_leader: b.gauge("etcd_server_has_leader"),
            is_leader: b.gauge("etcd_server_is_leader"),
            is_learner: b.gauge("etcd_server_is_learner"),
            leader_changes_seen_total: b.counter("etcd_server_leader_changes_seen_total"),
            proposals_applied_total: b.gauge("etcd_server_proposals_applied_total"),
            proposals_committed_total: b.gauge("etcd_server_proposals_committed_total"),
            proposals_pending: b.gauge("etcd_server_proposals_pending"),
            proposals_failed_total: b.counter("etcd_server_proposals_failed_total"),
            read_indexes_failed_total: b.counter("etcd_server_read_indexes_failed_total"),
            slow_read_indexes_total: b.counter("etcd_server_slow_read_indexes_total"),
            slow_apply_total: b.counter("etcd_server_slow_apply_total"),
            heartbeat_send_failures_total: b.counter("etcd_server_heartbeat_send_failures_total"),
            learner_promote_failures: b.counters("etcd_server_learner_promote_failures"),
            learner_promote_successes: b.counter("etcd_server_learner_promote_successes"),
            snapshot_apply_in_progress_total: b.gauge("etcd_server_snapshot_apply_in_progress_total"),
            quota_backend_bytes: b.gauge("etcd_server_quota_backend_bytes"),
            quota_warning: b.gauge("mainstay_server_quota_warning"),
            consistency_checks: b.counter("mainstay_server_consistency_checks_total"),
            data_format: b.gauge("mainstay_server_data_format"),
            admission_bytes: b.gauge("mainstay_server_admission_bytes"),
            admission_pool_bytes: b.gauge("mainstay_server_admission_pool_bytes"),
            admission_reserve_bytes: b.gauge("mainstay_server_admission_reserve_bytes"),
            admission_waiting: b.gauge("mainstay_server_admission_waiting"),
            requests_refused: b.counters("mainstay_server_requests_refused_total"),
            overloaded: b.gauge("mainstay_server_overloaded"),
            memory_warning: b.gauge("mainstay_server_memory_warning"),
            apply_duration_seconds: ByOperation::new(&b.histograms("etcd_server_apply_duration_seconds"), &["v3"]),
            range_duration_seconds: BySuccess::new(b.histograms("etcd_server_range_duration_seconds"), &[]),
            request_duration_seconds: ByOperation::new(&b.histograms("etcd_server_request_duration_seconds"), &[]),
            proposal_stages: Stages::new(&b.histograms("mainstay_server_proposal_stage_duration_seconds")),
            client_requests_total: b.counters("etcd_server_client_requests_total"),
            health_success: b.counter("etcd_server_health_success"),
            health_failures: b.counter("etcd_server_health_failures"),
            healthcheck: b.gauges("etcd_server_healthcheck"),
            healthchecks_total: b.counters("etcd_server_healthchecks_total"),
            alarms: b.gauges("etcd_debugging_server_alarms"),
            id: b.gauges("etcd_server_id"),
            cluster_version: b.gauges("etcd_cluster_version"),
            version: b.gauges("etcd_server_version"),
            go_version: b.gauges("etcd_server_go_version"),
            feature_enabled: b.gauges("etcd_server_feature_enabled"),
            scrapes_total: b.counters("promhttp_metric_handler_requests_total"),
            scrapes_in_flight: b.gauge("promhttp_metric_handler_requests_in_flight"),
        };
        for code in ["200", "500", "503"] {
            server.scrapes_total.with_label_values(&[code]).reset();
        }
        server
    }

    /// Counts and tells of a command or a read that took longer than it should have.
    pub(crate) fn applied_in(&self, operation: Operation, took: Duration, expected: Duration) {
        if took > expected {
            self.slow_apply_total.inc();
            let request = operation.name();
            tracing::warn!(?took, "expected-duration" = ?expected, request, "apply request took too long");
        }
    }
}

/// The key-value store.
pub struct Mvcc {
    pub put_total: IntCounter,
    pub delete_total: IntCounter,
    pub range_total: IntCounter,
    pub txn_total: IntCounter,
    pub hash_duration_seconds: Histogram,
    pub hash_rev_duration_seconds: Histogram,
    pub db_open_read_transactions: IntGauge,
    pub db_total_size_in_bytes: IntGauge,
    pub db_total_size_in_use_in_bytes: IntGauge,
    /// Of users and roles.
    pub auth_revision: IntGauge,
    pub keys_total: IntGauge,
    pub current_revision: IntGauge,
    pub compact_revision: IntGauge,
    pub total_put_size_in_bytes: IntGauge,
    pub db_compaction_keys_total: IntCounter,
    pub db_compaction_last: IntGauge,
    pub db_compaction_pause_duration_milliseconds: Histogram,
    pub db_compaction_total_duration_milliseconds: Histogram,
    pub index_compaction_pause_duration_milliseconds: Histogram,
}

impl Mvcc {
    pub(super) fn new(b: &mut Builder) -> Mvcc {
        Mvcc {
            put_total: b.counter("etcd_mvcc_put_total"),
            delete_total: b.counter("etcd_mvcc_delete_total"),
            range_total: b.counter("etcd_mvcc_range_total"),
            txn_total: b.counter("etcd_mvcc_txn_total"),
            hash_duration_seconds: b.histogram("etcd_mvcc_hash_duration_seconds"),
            hash_rev_duration_seconds: b.histogram("etcd_mvcc_hash_rev_duration_seconds"),
            db_open_read_transactions: b.gauge("etcd_mvcc_db_open_read_transactions"),
            db_total_size_in_bytes: b.gauge("etcd_mvcc_db_total_size_in_bytes"),
            db_total_size_in_use_in_bytes: b.gauge("etcd_mvcc_db_total_size_in_use_in_bytes"),
            auth_revision: b.gauge("etcd_debugging_auth_revision"),
            keys_total: b.gauge("etcd_debugging_mvcc_keys_total"),
            current_revision: b.gauge("etcd_debugging_mvcc_current_revision"),
            compact_revision: b.gauge("etcd_debugging_mvcc_compact_revision"),
            total_put_size_in_bytes: b.gauge("etcd_debugging_mvcc_total_put_size_in_bytes"),
            db_compaction_keys_total: b.counter("etcd_debugging_mvcc_db_compaction_keys_total"),
            db_compaction_last: b.gauge("etcd_debugging_mvcc_db_compaction_last"),
            db_compaction_pause_duration_milliseconds: b
                .histogram("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds"),
            db_compaction_total_duration_milliseconds: b
                .histogram("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"),
            index_compaction_pause_duration_milliseconds: b
                .histogram("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds"),
        }
    }
}

/// Leases.
pub struct Lease {
    pub granted_total: IntCounter,
    pub renewed_total: IntCounter,
    pub revoked_total: IntCounter,
    pub expired_total: IntCounter,
    /// Times to live, in seconds.
    pub ttl_total: Histogram,
}

impl Lease {
    pub(super) fn new(b: &mut Builder) -> Lease {
        Lease {
            granted_total: b.counter("etcd_debugging_lease_granted_total"),
            renewed_total: b.counter("etcd_debugging_lease_renewed_total"),
            revoked_total: b.counter("etcd_debugging_lease_revoked_total"),
            expired_total: b.counter("etcd_debugging_server_lease_expired_total"),
            ttl_total: b.histogram("etcd_debugging_lease_ttl_total"),
        }
    }
}

/// Watches.
pub struct Watch {
    pub watch_stream_total: IntGauge,
    pub watcher_total: IntGauge,
    pub slow_watcher_total: IntGauge,
    pub pending_events_total: IntGauge,
    pub events_total: IntCounter,
    pub send_control_duration_seconds: Histogram,
    pub send_progress_duration_seconds: Histogram,
    pub send_events_duration_seconds: Histogram,
    pub send_duration_per_event_seconds: Histogram,
}

impl Watch {
    pub(super) fn new(b: &mut Builder) -> Watch {
        Watch {
            watch_stream_total: b.gauge("etcd_debugging_mvcc_watch_stream_total"),
            watcher_total: b.gauge("etcd_debugging_mvcc_watcher_total"),
            slow_watcher_total: b.gauge("etcd_debugging_mvcc_slow_watcher_total"),
            pending_events_total: b.gauge("etcd_debugging_mvcc_pending_events_total"),
            events_total: b.counter("etcd_debugging_mvcc_events_total"),
            send_control_duration_seconds: b
                .histogram("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds"),
            send_progress_duration_seconds: b
                .histogram("etcd_debugging_server_watch_send_loop_progress_duration_seconds"),
            send_events_duration_seconds: b
                .histogram("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds"),
            send_duration_per_event_seconds: b
                .histogram("etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds"),
        }
    }
}

/// The log and the engine.
pub struct Disk {
    pub wal_fsync_duration_seconds: Histogram,
    pub wal_write_duration_seconds: Histogram,
    pub wal_write_bytes_total: IntGauge,
    pub backend_commit_duration_seconds: Histogram,
    pub backend_defrag_duration_seconds: Histogram,
    pub backend_snapshot_duration_seconds: Histogram,
    pub defrag_inflight: IntGauge,
    pub snap_fsync_duration_seconds: Histogram,
    pub snap_db_fsync_duration_seconds: Histogram,
    pub snap_db_save_total_duration_seconds: Histogram,
    pub snap_save_total_duration_seconds: Histogram,
}

impl Disk {
    pub(super) fn new(b: &mut Builder) -> Disk {
        Disk {
            wal_fsync_duration_seconds: b.histogram("etcd_disk_wal_fsync_duration_seconds"),
            wal_write_duration_seconds: b.histogram("etcd_disk_wal_write_duration_seconds"),
            wal_write_bytes_total: b.gauge("etcd_disk_wal_write_bytes_total"),
            backend_commit_duration_seconds: b.histogram("etcd_disk_backend_commit_duration_seconds"),
            backend_defrag_duration_seconds: b.histogram("etcd_disk_backend_defrag_duration_seconds"),
            backend_snapshot_duration_seconds: b.histogram("etcd_disk_backend_snapshot_duration_seconds"),
            defrag_inflight: b.gauge("etcd_disk_defrag_inflight"),
            snap_fsync_duration_seconds: b.histogram("etcd_snap_fsync_duration_seconds"),
            snap_db_fsync_duration_seconds: b.histogram("etcd_snap_db_fsync_duration_seconds"),
            snap_db_save_total_duration_seconds: b.histogram("etcd_snap_db_save_total_duration_seconds"),
            snap_save_total_duration_seconds: b.histogram("etcd_debugging_snap_save_total_duration_seconds"),
        }
    }
}

/// Peers and clients. Labels are member ids in hexadecimal; [`Network::peer`] has what is counted by peer.
pub struct Network {
    pub(super) peers: Known,
    /// By `Local` and `Remote`.
    pub active_peers: IntGaugeVec,
    /// By `Local` and `Remote`.
    pub known_peers: IntGaugeVec,
    /// By `Local` and `Remote`.
    pub disconnected_peers_total: IntCounterVec,
    /// What peers sent, and what arrived was something else.
    pub checksum_failures: IntCounter,
    pub(super) peer_received_bytes_total: IntCounterVec,
    pub(super) peer_received_failures_total: IntCounterVec,
    pub(super) peer_sent_bytes_total: IntCounterVec,
    pub(super) peer_sent_failures_total: IntCounterVec,
    pub(super) peer_round_trip_time_seconds: HistogramVec,
    /// By `Type` and `API`.
    pub server_stream_failures_total: IntCounterVec,
    pub(super) snapshot_receive_failures: IntCounterVec,
    pub(super) snapshot_receive_inflights_total: IntGaugeVec,
    pub(super) snapshot_receive_success: IntCounterVec,
    pub(super) snapshot_receive_total_duration_seconds: HistogramVec,
    pub(super) snapshot_send_failures: IntCounterVec,
    pub(super) snapshot_send_inflights_total: IntGaugeVec,
    pub(super) snapshot_send_success: IntCounterVec,
    pub(super) snapshot_send_total_duration_seconds: HistogramVec,
    pub(super) snapshot_received_bytes: IntCounterVec,
    pub(super) snapshot_resumed_bytes: IntCounterVec,
    pub(super) snapshot_sent_bytes: IntCounterVec,
    pub client_grpc_received_bytes_total: IntCounter,
    pub client_grpc_sent_bytes_total: IntCounter,
}

impl Network {
    pub(super) fn new(b: &mut Builder) -> Network {
        Network {
            peers: Known::default(),
            active_peers: b.gauges("etcd_network_active_peers"),
            known_peers: b.gauges("etcd_network_known_peers"),
            disconnected_peers_total: b.counters("etcd_network_disconnected_peers_total"),
            checksum_failures: b.counter("mainstay_network_peer_checksum_failures_total"),
            peer_received_bytes_total: b.counters("etcd_network_peer_received_bytes_total"),
            peer_received_failures_total: b.counters("etcd_network_peer_received_failures_total"),
            peer_sent_bytes_total: b.counters("etcd_network_peer_sent_bytes_total"),
            peer_sent_failures_total: b.counters("etcd_network_peer_sent_failures_total"),
            peer_round_trip_time_seconds: b.histograms("etcd_network_peer_round_trip_time_seconds"),
            server_stream_failures_total: b.counters("etcd_network_server_stream_failures_total"),
            snapshot_receive_failures: b.counters("etcd_network_snapshot_receive_failures"),
            snapshot_receive_inflights_total: b.gauges("etcd_network_snapshot_receive_inflights_total"),
            snapshot_receive_success: b.counters("etcd_network_snapshot_receive_success"),
            snapshot_receive_total_duration_seconds: b
                .histograms("etcd_network_snapshot_receive_total_duration_seconds"),
            snapshot_send_failures: b.counters("etcd_network_snapshot_send_failures"),
            snapshot_send_inflights_total: b.gauges("etcd_network_snapshot_send_inflights_total"),
            snapshot_send_success: b.counters("etcd_network_snapshot_send_success"),
            snapshot_send_total_duration_seconds: b.histograms("etcd_network_snapshot_send_total_duration_seconds"),
            snapshot_received_bytes: b.counters("mainstay_network_snapshot_received_bytes_total"),
            snapshot_resumed_bytes: b.counters("mainstay_network_snapshot_resumed_bytes_total"),
            snapshot_sent_bytes: b.counters("mainstay_network_snapshot_sent_bytes_total"),
            client_grpc_received_bytes_total: b.counter("etcd_network_client_grpc_received_bytes_total"),
            client_grpc_sent_bytes_total: b.counter("etcd_network_client_grpc_sent_bytes_total"),
        }
    }
}
