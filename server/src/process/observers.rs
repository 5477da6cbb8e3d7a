//! Counts what the gRPC edge and the log's owner tell.

use std::sync::Arc;
use std::time::Duration;

use mainstay_server::api::{RPCS, Rpc, RpcKind, RpcObserver};
use mainstay_server::metrics::{CallKind, MethodMetrics, Metrics};
use tonic::Code;

/// Counts requests. The counters of each method are looked up once, here.
pub(super) struct Requests {
    metrics: Arc<Metrics>,
    /// By [`Rpc::index`].
    methods: Vec<Option<MethodMetrics>>,
    /// Requests that take longer are logged.
    slow: Duration,
}

impl Requests {
    pub(super) fn new(metrics: Arc<Metrics>, slow: Duration) -> Self {
        let method = |rpc: &Rpc| metrics.grpc.method(&format!("/{}/{}", rpc.service, rpc.method)).cloned();
        let methods = RPCS.iter().map(method).collect();
        Self { methods, metrics, slow }
    }

    fn method(&self, rpc: &Rpc) -> Option<&MethodMetrics> {
        self.methods.get(rpc.index)?.as_ref()
    }
}

impl RpcObserver for Requests {
    fn started(&self, rpc: &'static Rpc) {
        if let Some(method) = self.method(rpc) {
            method.started();
        }
    }

    fn received(&self, rpc: &'static Rpc, bytes: usize) {
        self.metrics.network.client_grpc_received_bytes_total.inc_by(bytes as u64);
        if let Some(method) = self.method(rpc) {
            method.received();
        }
    }

    fn sent(&self, rpc: &'static Rpc, bytes: usize) {
        self.metrics.network.client_grpc_sent_bytes_total.inc_by(bytes as u64);
        if let Some(method) = self.method(rpc) {
            method.sent();
        }
    }

    fn handled(&self, rpc: &'static Rpc, code: Code, elapsed: Duration) {
        if let Some(method) = self.method(rpc) {
            method.handled(code, elapsed);
        }
        if elapsed > self.slow && !rpc.kind.is_stream() {
            tracing::warn!(
                "time spent" = ?elapsed,
                "response type" = format!("/{}/{}", rpc.service, rpc.method),
                "grpc code" = ?code,
                "request stats"
            );
        }
    }

    fn client_request(&self, kind: RpcKind, version: &str) {
        let kind = if kind.is_stream() { CallKind::Stream } else { CallKind::Unary };
        self.metrics.client_request(kind, Some(version));
    }
}

/// Counts what the log's disk does.
pub(super) struct LogDisk(pub(super) Arc<Metrics>);

impl mainstay_raft_log::Observer for LogDisk {
    fn wrote(&self, bytes: u64, took: Duration) {
        self.0.disk.wal_write_duration_seconds.observe(took.as_secs_f64());
        self.0.disk.wal_write_bytes_total.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn synced(&self, took: Duration) {
        self.0.disk.wal_fsync_duration_seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use mainstay_raft_log::Observer as _;

    use super::*;

    #[test]
    fn every_method_that_is_served_is_counted() {
        let metrics = Metrics::new();
        let requests = Requests::new(metrics.clone(), Duration::MAX);
        for rpc in &RPCS {
            requests.started(rpc);
            requests.handled(rpc, Code::Ok, Duration::ZERO);
            let text = String::from_utf8(metrics.text()).unwrap();
            let kind = rpc.kind.name();
            let labels = format!(r#"grpc_method="{}",grpc_service="{}",grpc_type="{kind}""#, rpc.method, rpc.service);
            for line in [
                format!("grpc_server_started_total{{{labels}}} 1"),
                format!(r#"grpc_server_handled_total{{grpc_code="OK",{labels}}} 1"#),
            ] {
                assert!(text.lines().any(|one| one == line), "{line}");
            }
        }
    }

    #[test]
    fn bytes_of_the_log_add_up() {
        let metrics = Metrics::new();
        let disk = LogDisk(metrics.clone());
        disk.wrote(4_096, Duration::from_micros(10));
        disk.wrote(8_192, Duration::from_micros(10));
        disk.synced(Duration::from_micros(100));
        assert_eq!(metrics.disk.wal_write_bytes_total.get(), 12_288);
        assert_eq!(metrics.disk.wal_write_duration_seconds.get_sample_count(), 2);
        assert_eq!(metrics.disk.wal_fsync_duration_seconds.get_sample_count(), 1);
    }
}
