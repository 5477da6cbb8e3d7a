use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus::core::Collector;
use prometheus::{
    DEFAULT_BUCKETS, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::groups::{Disk, Lease, Mvcc, Network, Server, Watch};
use super::grpc::Grpc;
use super::process::{ProcessCollector, ProcessSource};
use super::table::{Buckets, Kind, METRICS, Row};
use super::update::ClientRequests;
use crate::config::{FeatureGates, MetricsDetail, version};

/// The metrics of one node, by the room that moves them.
pub struct Metrics {
    registry: Registry,
    /// Consensus, requests, health.
    pub server: Server,
    /// The key-value store.
    pub mvcc: Mvcc,
    /// Leases.
    pub lease: Lease,
    /// Watches.
    pub watch: Watch,
    /// The log and the engine.
    pub disk: Disk,
    /// Peers and clients.
    pub network: Network,
    /// gRPC methods.
    pub grpc: Grpc,
    pub(super) last_leader: Mutex<Option<u64>>,
    pub(super) client_requests: RwLock<ClientRequests>,
}

/// What differs between nodes.
pub struct Options {
    /// Whether to measure how long each gRPC call takes.
    pub detail: MetricsDetail,
    /// Which feature gates are on.
    pub feature_gates: FeatureGates,
    /// Where the process's own numbers come from; `None` in simulation, which must not look at the machine.
    pub process: Option<ProcessSource>,
}

impl Default for Options {
    fn default() -> Options {
        Options { detail: MetricsDetail::Basic, feature_gates: FeatureGates::default(), process: None }
    }
}

impl Metrics {
    /// Metrics without any of the process's own numbers.
    pub fn new() -> Arc<Metrics> {
        Metrics::with(Options::default())
    }

    /// Metrics with these options.
    pub fn with(options: Options) -> Arc<Metrics> {
        let mut builder = Builder::new();
        let metrics = Metrics {
            server: Server::new(&mut builder),
            mvcc: Mvcc::new(&mut builder),
            lease: Lease::new(&mut builder),
            watch: Watch::new(&mut builder),
            disk: Disk::new(&mut builder),
            network: Network::new(&mut builder),
            grpc: Grpc::new(&mut builder, options.detail),
            last_leader: Mutex::default(),
            client_requests: RwLock::default(),
            registry: {
                // These two show the process, so they come with its own.
                builder.skip("os_fd_limit");
                builder.skip("os_fd_used");
                builder.rest();
                builder.add(ProcessCollector::new(options.process));
                builder.registry
            },
        };
        metrics.server.version.with_label_values(&[version::ETCD_VERSION]).set(1);
        metrics.server.go_version.with_label_values(&[version::GO_VERSION]).set(1);
        for (name, stage, enabled) in options.feature_gates.iter() {
            metrics.server.feature_enabled.with_label_values(&[name, stage]).set(i64::from(enabled));
        }
        Arc::new(metrics)
    }

    /// Prints everything in Prometheus's text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("families of one registry have names and values, and a Vec takes all");
        text
    }

    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
}

/// Makes metrics of the table's rows. Each row is taken once; what nobody takes is made at the end.
pub(super) struct Builder {
    registry: Registry,
    rows: BTreeMap<&'static str, &'static Row>,
}

impl Builder {
    fn new() -> Builder {
        let rows = METRICS.iter().map(|row| (row.name, row)).collect();
        Builder { registry: Registry::new(), rows }
    }

    fn take(&mut self, name: &str) -> &'static Row {
        self.rows.remove(name).unwrap_or_else(|| panic!("{name} stands in the table, and is taken once"))
    }

    fn add<C: Collector + 'static>(&self, metric: C) {
        self.registry.register(Box::new(metric)).expect("names in the table are unique and well-formed");
    }

    fn registered<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("names and labels in the table are well-formed");
        self.add(metric.clone());
        metric
    }

    pub(super) fn counter(&mut self, name: &str) -> IntCounter {
        let row = self.take(name);
        assert_eq!((row.kind, row.labels.len()), (Kind::Counter, 0), "{name}");
        self.registered(IntCounter::with_opts(opts(row)))
    }

    pub(super) fn counters(&mut self, name: &str) -> IntCounterVec {
        let row = self.take(name);
        assert_eq!(row.kind, Kind::Counter, "{name}");
        self.registered(IntCounterVec::new(opts(row), row.labels))
    }

    pub(super) fn gauge(&mut self, name: &str) -> IntGauge {
        let row = self.take(name);
        assert_eq!((row.kind, row.labels.len()), (Kind::Gauge, 0), "{name}");
        self.registered(IntGauge::with_opts(opts(row)))
    }

    pub(super) fn gauges(&mut self, name: &str) -> IntGaugeVec {
        let row = self.take(name);
        assert_eq!(row.kind, Kind::Gauge, "{name}");
        self.registered(IntGaugeVec::new(opts(row), row.labels))
    }

    pub(super) fn histogram(&mut self, name: &str) -> Histogram {
        let row = self.take(name);
        assert_eq!(row.labels.len(), 0, "{name}");
        self.registered(Histogram::with_opts(histogram_opts(row)))
    }

    pub(super) fn histograms(&mut self, name: &str) -> HistogramVec {
        let row = self.take(name);
        self.registered(HistogramVec::new(histogram_opts(row), row.labels))
    }

    /// Leaves a metric out altogether.
    pub(super) fn skip(&mut self, name: &str) {
        self.take(name);
    }

    /// Makes what nobody took: metrics that exist in etcd and never move here.
    fn rest(&mut self) {
        for (name, row) in std::mem::take(&mut self.rows) {
            self.rows.insert(name, row);
            match (row.kind, row.labels.is_empty()) {
                (Kind::Counter, true) => drop(self.counter(name)),
                (Kind::Counter, false) => drop(self.counters(name)),
                (Kind::Gauge, true) => drop(self.gauge(name)),
                (Kind::Gauge, false) => drop(self.gauges(name)),
                (Kind::Histogram(_), true) => drop(self.histogram(name)),
                (Kind::Histogram(_), false) => drop(self.histograms(name)),
            }
        }
    }
}

fn opts(row: &Row) -> Opts {
    Opts::new(row.name, row.help)
}

fn histogram_opts(row: &Row) -> HistogramOpts {
    let Kind::Histogram(buckets) = row.kind else { panic!("{} is a histogram in the table", row.name) };
    let bounds = match buckets {
        Buckets::Default => DEFAULT_BUCKETS.to_vec(),
        Buckets::Doubling { start, count } => {
            std::iter::successors(Some(start), |bound| Some(bound * 2.0)).take(count).collect()
        }
    };
    HistogramOpts::new(row.name, row.help).buckets(bounds)
}
