//! The process's own metrics: Prometheus's names, and stand-ins for the few of Go's that dashboards show.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType, Summary};
use prometheus::{Counter, Gauge, IntCounter, IntGauge, IntGaugeVec, Opts};

use crate::config::version;

/// Reads the process's numbers, or `None` where the system does not tell.
pub type ProcessSource = Box<dyn Fn() -> Option<ProcessNumbers> + Send + Sync>;

/// What the system says of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessNumbers {
    /// Processor time in user and system mode.
    pub cpu_seconds: f64,
    /// File descriptors that it may have.
    pub max_fds: u64,
    /// File descriptors that it has.
    pub open_fds: u64,
    /// Memory in use.
    pub resident_bytes: u64,
    /// Address space in use.
    pub virtual_bytes: u64,
    /// Address space that it may use; `None` for no limit.
    pub virtual_max_bytes: Option<u64>,
    /// When it started, in Unix seconds.
    pub start_time_seconds: f64,
    /// Threads that it has.
    pub threads: u64,
    /// Processors that it may run on.
    pub processors: u64,
    /// Bytes received by the network of the process.
    pub network_received_bytes: u64,
    /// Bytes sent by the network of the process.
    pub network_sent_bytes: u64,
}

/// Shows them at each scrape.
pub(super) struct ProcessCollector {
    source: Option<ProcessSource>,
    cpu: Counter,
    received: Counter,
    sent: Counter,
    start_time: Gauge,
    virtual_max: Gauge,
    gauges: Vec<(IntGauge, Number)>,
    absent_counters: Vec<IntCounter>,
    go_info: IntGaugeVec,
}

impl ProcessCollector {
    pub(super) fn new(source: Option<ProcessSource>) -> ProcessCollector {
        let go_info = IntGaugeVec::new(
            Opts::new("go_info", "The Go release that etcd is built with; this server is not written in Go."),
            &["version"],
        )
        .expect("the name is well-formed");
        go_info.with_label_values(&[version::GO_VERSION]).set(1);
        ProcessCollector {
            source,
            cpu: counter("process_cpu_seconds_total", "Processor time in seconds."),
            received: counter("process_network_receive_bytes_total", "Bytes received by the network of the process."),
            sent: counter("process_network_transmit_bytes_total", "Bytes sent by the network of the process."),
            start_time: gauge("process_start_time_seconds", "Unix time at which the process started."),
            virtual_max: gauge("process_virtual_memory_max_bytes", "Address space that the process may use."),
            absent_counters: ABSENT_COUNTERS
                .map(|name| IntCounter::new(name, ABSENT).expect("the name is well-formed"))
                .into(),
            gauges: GAUGES
                .iter()
                .map(|(name, help, value)| (int_gauge(name, help), *value))
                .chain(ABSENT_GAUGES.map(|name| (int_gauge(name, ABSENT), nothing as Number)))
                .collect(),
            go_info,
        }
    }

    fn collectors(&self) -> impl Iterator<Item = &dyn Collector> {
        let own: [&dyn Collector; 6] =
            [&self.cpu, &self.received, &self.sent, &self.start_time, &self.virtual_max, &self.go_info];
        let gauges = self.gauges.iter().map(|(gauge, _)| gauge as &dyn Collector);
        own.into_iter().chain(gauges).chain(self.absent_counters.iter().map(|counter| counter as &dyn Collector))
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(numbers) = self.source.as_ref().and_then(|source| source()) {
            raise(&self.cpu, numbers.cpu_seconds);
            raise(&self.received, numbers.network_received_bytes as f64);
            raise(&self.sent, numbers.network_sent_bytes as f64);
            self.start_time.set(numbers.start_time_seconds);
            // Go's library shows "no limit" as the largest number that there is.
            self.virtual_max.set(numbers.virtual_max_bytes.map_or(u64::MAX as f64, |bytes| bytes as f64));
            for (gauge, value) in &self.gauges {
                gauge.set(i64::try_from(value(&numbers)).unwrap_or(i64::MAX));
            }
        }
        self.collectors().flat_map(Collector::collect).chain([garbage_collections()]).collect()
    }
}

type Number = fn(&ProcessNumbers) -> u64;

/// Name, help and number.
type GaugeRow = (&'static str, &'static str, Number);

/// The memory of a Go program is its heap; here it is the memory of the process.
const GAUGES: &[GaugeRow] = &[
    ("os_fd_limit", "File descriptors that the process may have.", |n| n.max_fds),
    ("os_fd_used", "File descriptors that the process has.", |n| n.open_fds),
    ("process_max_fds", "File descriptors that the process may have.", |n| n.max_fds),
    ("process_open_fds", "File descriptors that the process has.", |n| n.open_fds),
    ("process_resident_memory_bytes", "Memory of the process.", |n| n.resident_bytes),
    ("process_virtual_memory_bytes", "Address space of the process.", |n| n.virtual_bytes),
    ("go_goroutines", "Stand-in: threads of the process.", |n| n.threads),
    ("go_threads", "Threads of the process.", |n| n.threads),
    ("go_sched_gomaxprocs_threads", "Processors that the process may use.", |n| n.processors),
    ("go_memstats_alloc_bytes", "Stand-in: memory of the process.", |n| n.resident_bytes),
    ("go_memstats_heap_alloc_bytes", "Stand-in: memory of the process.", |n| n.resident_bytes),
    ("go_memstats_heap_inuse_bytes", "Stand-in: memory of the process.", |n| n.resident_bytes),
    ("go_memstats_sys_bytes", "Stand-in: memory of the process.", |n| n.resident_bytes),
];

/// What a program without Go's memory and garbage collector has nothing to say of.
const ABSENT: &str = "Of Go's runtime; always 0 here.";

const ABSENT_COUNTERS: [&str; 3] =
    ["go_memstats_alloc_bytes_total", "go_memstats_frees_total", "go_memstats_mallocs_total"];

const ABSENT_GAUGES: [&str; 17] = [
    "go_gc_gogc_percent",
    "go_gc_gomemlimit_bytes",
    "go_memstats_buck_hash_sys_bytes",
    "go_memstats_gc_sys_bytes",
    "go_memstats_heap_idle_bytes",
    "go_memstats_heap_objects",
    "go_memstats_heap_released_bytes",
    "go_memstats_heap_sys_bytes",
    "go_memstats_last_gc_time_seconds",
    "go_memstats_mcache_inuse_bytes",
    "go_memstats_mcache_sys_bytes",
    "go_memstats_mspan_inuse_bytes",
    "go_memstats_mspan_sys_bytes",
    "go_memstats_next_gc_bytes",
    "go_memstats_other_sys_bytes",
    "go_memstats_stack_inuse_bytes",
    "go_memstats_stack_sys_bytes",
];

fn nothing(_: &ProcessNumbers) -> u64 {
    0
}

/// The one summary among etcd's metrics; the library has no such type of its own.
fn garbage_collections() -> MetricFamily {
    let mut metric = Metric::default();
    metric.set_summary(Summary::default());
    let mut family = MetricFamily::default();
    family.set_name("go_gc_duration_seconds".to_owned());
    family.set_help(ABSENT.to_owned());
    family.set_field_type(MetricType::SUMMARY);
    family.set_metric(vec![metric]);
    family
}

/// Moves a counter up to a total that the system counts.
fn raise(counter: &Counter, total: f64) {
    counter.inc_by((total - counter.get()).max(0.0));
}

fn counter(name: &str, help: &str) -> Counter {
    Counter::new(name, help).expect("the name is well-formed")
}

fn gauge(name: &str, help: &str) -> Gauge {
    Gauge::new(name, help).expect("the name is well-formed")
}

fn int_gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the name is well-formed")
}
