//! The rows of the suite and what they must reach, as data.

use super::metric::{Limit, Metric};
use crate::workload::Row;

/// What is done in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A load on servers of its own.
    Load(Row),
    /// The scenario `maintenance`.
    Maintenance,
    /// A member is killed so many times, and started again.
    Restart {
        /// How many times.
        kills: u32,
    },
    /// A member's memory after loading and after a restart.
    Memory,
    /// A load on a service that does nothing.
    Echo(Row),
    /// Appends to a file.
    Fsync,
    /// A command of etcd's own benchmark tool.
    Opinion(&'static str),
}

/// When a row is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// With `--restart-keys`, whose number replaces that of the keys.
    RestartKeys,
    /// With `--second-opinion`.
    SecondOpinion,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub(super) struct SuiteRow {
    pub(super) name: &'static str,
    /// What it is, for people.
    pub(super) title: &'static str,
    pub(super) members: usize,
    pub(super) work: Work,
    pub(super) when: When,
    /// Flags as on the command line of `run`, or of the scenario.
    pub(super) options: &'static str,
    /// Flags that replace them in a quick run.
    pub(super) quick: &'static str,
    /// What must be reached, for people.
    pub(super) target: &'static str,
    /// The same for programs.
    pub(super) limits: &'static [Limit],
    /// Why it falls short, where it does.
    pub(super) reason: &'static str,
}

/// What most rows have in common.
const ROW: SuiteRow = SuiteRow {
    name: "",
    title: "",
    members: 1,
    work: Work::Fsync,
    when: When::Always,
    options: "",
    quick: "",
    target: "",
    limits: &[],
    reason: "",
};

const CPU: Metric = Metric::CpuPerMillion;
const RATE: Metric = Metric::PerSecond;

/// Every row, in the order in which they are run.
pub(super) const ROWS: &[SuiteRow] = &[
    SuiteRow {
        name: "put-1000",
        title: "put, 1,000 in flight",
        work: Work::Load(Row::Put),
        options: "--clients 1000 --connections 100 --total 200000",
        quick: "--total 20000",
        target: "CPU ≤ 0.4×, throughput ≥ 1.7×, p99 ≤ 1/2",
        limits: &[Limit::times(CPU, 0.4), Limit::times(RATE, 1.7), Limit::times(Metric::P99Ms, 0.5)],
        ..ROW
    },
    SuiteRow {
        name: "put-1000-3",
        title: "put, 1,000 in flight",
        members: 3,
        work: Work::Load(Row::Put),
        options: "--clients 1000 --connections 100 --total 80000",
        quick: "--total 8000",
        target: "CPU ≤ 1/3, throughput ≥ 2.5×, p99 ≤ 1/2",
        limits: &[Limit::times(CPU, 1.0 / 3.0), Limit::times(RATE, 2.5), Limit::times(Metric::P99Ms, 0.5)],
        ..ROW
    },
    SuiteRow {
        name: "txn-put",
        title: "transaction as kube-apiserver writes it",
        work: Work::Load(Row::TxnPut),
        options: "--clients 1000 --connections 100 --total 150000",
        quick: "--total 20000",
        target: "CPU ≤ 0.4×",
        limits: &[Limit::times(CPU, 0.4)],
        ..ROW
    },
    SuiteRow {
        name: "put-one",
        title: "put, one client",
        work: Work::Load(Row::Put),
        options: "--clients 1 --connections 1 --total 10000",
        quick: "--total 2000",
        target: "p50 ≤ 0.8×",
        limits: &[Limit::times(Metric::P50Ms, 0.8)],
        ..ROW
    },
    SuiteRow {
        name: "put-one-3",
        title: "put, one client, at the leader",
        members: 3,
        work: Work::Load(Row::Put),
        options: "--clients 1 --connections 1 --leader --total 5000",
        quick: "--total 1000",
        target: "p50 ≤ 0.8×",
        limits: &[Limit::times(Metric::P50Ms, 0.8)],
        ..ROW
    },
    SuiteRow {
        name: "get",
        title: "linearizable get",
        work: Work::Load(Row::Get),
        options: "--clients 1000 --connections 100 --total 300000",
        quick: "--total 40000",
        target: "CPU ≤ 0.3×, throughput ≥ 1.8×",
        limits: &[Limit::times(CPU, 0.3), Limit::times(RATE, 1.8)],
        ..ROW
    },
    SuiteRow {
        name: "get-3",
        title: "linearizable get",
        members: 3,
        work: Work::Load(Row::Get),
        options: "--clients 1000 --connections 100 --total 200000",
        quick: "--total 20000",
        target: "CPU ≤ 0.3×, throughput ≥ 1.8×",
        limits: &[Limit::times(CPU, 0.3), Limit::times(RATE, 1.8)],
        ..ROW
    },
    SuiteRow {
        name: "get-serializable",
        title: "serializable get",
        work: Work::Load(Row::GetSerializable),
        options: "--clients 1000 --connections 100 --total 300000",
        quick: "--total 40000",
        target: "CPU ≤ 0.3×, throughput ≥ 1.8×",
        limits: &[Limit::times(CPU, 0.3), Limit::times(RATE, 1.8)],
        ..ROW
    },
    SuiteRow {
        name: "list",
        title: "list of 200,000 × 1 KB in one response",
        work: Work::Load(Row::List),
        options: "--keys 200000 --value-size 1024 --list-clients 1 --duration 15",
        quick: "--keys 20000 --duration 1",
        target: "CPU ≤ 1/3, extra memory ≤ 1/4",
        limits: &[Limit::times(CPU, 1.0 / 3.0), Limit::times(Metric::ExtraMb, 0.25)],
        ..ROW
    },
    SuiteRow {
        name: "list-stream",
        title: "the same by RangeStream",
        work: Work::Load(Row::ListStream),
        options: "--keys 200000 --value-size 1024 --list-clients 1 --duration 15",
        quick: "--keys 20000 --duration 1",
        target: "extra memory ≤ 32 MB whatever the list",
        limits: &[Limit::own(Metric::ExtraMb, 32.0)],
        ..ROW
    },
    SuiteRow {
        name: "list-paged",
        title: "the same paged by 500 at one revision, with count",
        work: Work::Load(Row::ListPaged),
        options: "--keys 200000 --value-size 1024 --list-clients 1 --duration 15",
        quick: "--keys 20000 --duration 1",
        target: "≥ 5× faster",
        limits: &[Limit::times(RATE, 5.0)],
        ..ROW
    },
    SuiteRow {
        name: "list-count",
        title: "count only, 200,000 keys",
        work: Work::Load(Row::ListCount),
        options: "--keys 200000 --value-size 1024 --list-clients 1 --duration 5",
        quick: "--keys 20000 --duration 1",
        target: "p50 ≤ 1 ms",
        limits: &[Limit::own(Metric::P50Ms, 1.0)],
        ..ROW
    },
    SuiteRow {
        name: "list-keys",
        title: "keys only, 200,000 keys",
        work: Work::Load(Row::ListKeys),
        options: "--keys 200000 --value-size 1024 --list-clients 1 --duration 5",
        quick: "--keys 20000 --duration 1",
        target: "p50 ≤ 75 ms",
        limits: &[Limit::own(Metric::P50Ms, 75.0)],
        ..ROW
    },
    SuiteRow {
        name: "watch-1000",
        title: "watch: 1,000 watchers of one prefix with prev_kv",
        work: Work::Load(Row::Watch),
        options: "--watchers 1000 --watch-streams 100 --connections 100 --prev-kv --total 2000000",
        quick: "--total 200000 --keys 1000",
        target: "CPU per event ≤ 1/4, p99 ≤ 1/3",
        limits: &[Limit::times(CPU, 0.25), Limit::times(Metric::P99Ms, 1.0 / 3.0)],
        ..ROW
    },
    SuiteRow {
        name: "lease-keep-alive",
        title: "lease keep-alive",
        work: Work::Load(Row::LeaseKeepAlive),
        options: "--clients 1000 --connections 100 --total 200000",
        quick: "--clients 200 --total 20000",
        target: "CPU ≤ 0.4×",
        limits: &[Limit::times(CPU, 0.4)],
        ..ROW
    },
    SuiteRow {
        name: "maintenance",
        title: "puts during Defragment, 0.7 GB, and while 200,000 old revisions are compacted",
        work: Work::Maintenance,
        options: "--rate 1000",
        quick: "--rate 500 --keys 1000 --revisions 10000 --bulk-megabytes 50 --settle-seconds 1 --phase-seconds 2 \
                --operation-seconds-min 1",
        target: "longest put no worse than without (a quarter for chance), p99 ≤ 1.1×",
        // The longest of some thousand puts is chance; what a defragmentation that holds writes up does is not.
        limits: &[Limit::own(Metric::DefragmentPutTimes, 1.25), Limit::own(Metric::CompactPutTimes, 1.1)],
        ..ROW
    },
    SuiteRow {
        name: "restart",
        title: "`kill -9` to first linearizable read, 200,000 keys",
        work: Work::Restart { kills: 5 },
        options: "--keys 200000",
        quick: "--keys 20000",
        target: "≤ 0.25 s",
        limits: &[Limit::own(Metric::RestartSeconds, 0.25)],
        ..ROW
    },
    SuiteRow {
        name: "restart-large",
        title: "`kill -9` to first linearizable read, 5 million keys",
        work: Work::Restart { kills: 3 },
        when: When::RestartKeys,
        target: "≤ 3 s",
        limits: &[Limit::own(Metric::RestartSeconds, 3.0)],
        ..ROW
    },
    SuiteRow {
        name: "memory",
        title: "memory after loading 200,000 × 1 KB, and after a restart",
        work: Work::Memory,
        options: "--keys 200000 --value-size 1024",
        quick: "--keys 20000",
        target: "≤ 1/2",
        limits: &[Limit::times(Metric::LoadedMb, 0.5), Limit::times(Metric::RestartedMb, 0.5)],
        ..ROW
    },
    SuiteRow {
        name: "written",
        title: "bytes written to disk for 1,000 puts, 1,000 in flight",
        work: Work::Load(Row::Put),
        options: "--clients 1000 --connections 100 --total 200000",
        quick: "--total 20000",
        target: "≤ 1.2×",
        limits: &[Limit::times(Metric::DeviceMbPerThousand, 1.2)],
        ..ROW
    },
    SuiteRow {
        name: "echo-put",
        title: "ceiling: put to a service that does nothing, 1,000 in flight",
        work: Work::Echo(Row::Put),
        options: "--clients 1000 --connections 100 --total 200000",
        quick: "--total 20000",
        ..ROW
    },
    SuiteRow {
        name: "echo-get",
        title: "ceiling: get from a service that does nothing, 1,000 in flight",
        work: Work::Echo(Row::Get),
        options: "--clients 1000 --connections 100 --total 300000",
        quick: "--total 40000",
        ..ROW
    },
    SuiteRow {
        name: "fsync",
        title: "ceiling: appends of 256 bytes, each with fdatasync",
        work: Work::Fsync,
        options: "--duration 5",
        quick: "--duration 1",
        ..ROW
    },
    SuiteRow {
        name: "benchmark-put",
        title: "etcd's own benchmark: put, 1,000 in flight",
        work: Work::Opinion("put"),
        when: When::SecondOpinion,
        options: "--clients 1000 --connections 100 --total 200000",
        quick: "--total 20000",
        ..ROW
    },
    SuiteRow {
        name: "benchmark-range",
        title: "etcd's own benchmark: linearizable get of one key, 1,000 in flight",
        work: Work::Opinion("range"),
        when: When::SecondOpinion,
        options: "--clients 1000 --connections 100 --total 300000",
        quick: "--total 40000",
        ..ROW
    },
];

/// What makes any load so small that the tests can run it; `--total` is that of the rows that have none.
pub(super) const TINY: &str = "--clients 4 --connections 2 --total 200 --keys 50 --page 7 --watchers 5 \
                               --watch-streams 2 --list-clients 2 --duration 0.2";
/// The same for the scenario.
pub(super) const TINY_MAINTENANCE: &str = "--rate 100 --clients 8 --connections 2 --keys 50 --revisions 500 \
                                           --bulk-megabytes 2 --settle-seconds 0.2 --phase-seconds 0.5 \
                                           --operation-seconds-min 0.5";

/// The row of a name.
pub(super) fn find(name: &str) -> Option<&'static SuiteRow> {
    ROWS.iter().find(|row| row.name == name)
}
