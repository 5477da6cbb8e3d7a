//! What a workload in phases is reported as: a JSON line a phase for programs, a table for people.
//!
//! The first phase of a run is what the others are compared with.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::latency::Summary;
use crate::process::Usage;
use crate::report::Spent;
use crate::steady::Share;

/// One phase, as it was measured.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// What happened in it.
    pub name: &'static str,
    /// How long it was.
    pub elapsed: Duration,
    /// The times of the puts.
    pub put: Summary,
    /// The times of the gets, where there were any.
    pub get: Option<Summary>,
    /// Failures of both by their text.
    pub errors: BTreeMap<String, u64>,
    /// How long the operation took that the phase is about, where there is one.
    pub operation: Option<Duration>,
    /// What a member had to catch up with, where that is what happened.
    pub catch_up: Option<CaughtUp>,
    /// The size of the leader's store on its disk at the end, where it was asked for.
    pub store_bytes: Option<u64>,
    /// What the servers spent, where the same ones ran all the time.
    pub server: Option<Usage>,
}

/// How a member caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CaughtUp {
    /// Bytes of the values in the store.
    pub bytes: u64,
    /// Snapshots that the member received; `None` where its metrics do not tell. With 0, all came from
    /// the log.
    pub snapshots: Option<u64>,
    /// Bytes of snapshots that came, also of those that broke off; `None` where the metrics do not tell.
    pub received_bytes: Option<u64>,
    /// Whether the leader was killed in the middle of it (or too late, after it); `None` where it was
    /// not killed at all.
    pub leader_killed_in_time: Option<bool>,
}

impl Phase {
    /// A phase of a steady load of puts, and of gets where there are any.
    pub fn of(name: &'static str, puts: Share, gets: Option<Share>) -> Self {
        let Share { elapsed, latency: put, mut errors } = puts;
        let mut get = None;
        if let Some(gets) = gets {
            get = Some(gets.latency);
            for (text, count) in gets.errors {
                *errors.entry(text).or_default() += count;
            }
        }
        Self { name, elapsed, put, get, errors, ..Self::default() }
    }
}

/// What all the phases of one run have in common.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Run {
    /// What was measured.
    pub row: &'static str,
    /// Which server.
    pub system: &'static str,
    /// The version that the server reports.
    pub version: String,
    /// Members of the cluster.
    pub members: usize,
    /// Which run on this system, from 1.
    pub round: u32,
    /// The load and its data.
    pub options: serde_json::Value,
}

/// One phase of one run, as it stands in its JSON line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PhaseReport {
    /// What was measured on what.
    #[serde(flatten)]
    pub run: Run,
    /// What happened.
    pub phase: &'static str,
    /// How long the phase was.
    pub seconds: f64,
    /// How long a put took, from when it was due.
    pub put: Summary,
    /// The puts' p99 as a multiple of the first phase's; nothing in the first phase itself.
    pub put_p99_times: Option<f64>,
    /// How long a get took, from when it was due.
    pub get: Option<Summary>,
    /// The gets' p99 as a multiple of the first phase's.
    pub get_p99_times: Option<f64>,
    /// How long the operation took that the phase is about.
    pub operation_seconds: Option<f64>,
    /// How a member caught up.
    pub catch_up: Option<CaughtUp>,
    /// Megabytes (10^6 bytes) of values a second at which it did.
    pub megabytes_per_second: Option<f64>,
    /// The size of the leader's store on its disk at the end.
    pub store_bytes: Option<u64>,
    /// What the servers spent; its items are the requests of the load.
    pub server: Option<Spent>,
    /// Failures by their text.
    pub errors: BTreeMap<String, u64>,
}

impl PhaseReport {
    /// Reports the phases of a run.
    pub fn all(run: &Run, phases: Vec<Phase>) -> Vec<Self> {
        let Some(first) = phases.first() else { return Vec::new() };
        let (put_before, get_before) = (first.put, first.get);
        let report = |(place, phase): (usize, Phase)| {
            let times = |now: u64, before: u64| (place > 0 && before > 0).then(|| now as f64 / before as f64);
            let requests = phase.put.count + phase.get.map_or(0, |get| get.count);
            let seconds = phase.operation.map(|operation| operation.as_secs_f64());
            let rate = |(catch_up, seconds): (CaughtUp, f64)| catch_up.bytes as f64 / 1e6 / seconds.max(1e-9);
            Self {
                run: run.clone(),
                phase: phase.name,
                seconds: phase.elapsed.as_secs_f64(),
                put: phase.put,
                put_p99_times: times(phase.put.p99_us, put_before.p99_us),
                get: phase.get,
                get_p99_times: phase.get.zip(get_before).and_then(|(now, before)| times(now.p99_us, before.p99_us)),
                operation_seconds: seconds,
                catch_up: phase.catch_up,
                megabytes_per_second: phase.catch_up.zip(seconds).map(rate),
                store_bytes: phase.store_bytes,
                server: phase.server.map(|usage| Spent::on(requests, usage)),
                errors: phase.errors,
            }
        };
        phases.into_iter().enumerate().map(report).collect()
    }

    /// The line for programs, without its end.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report has no maps but those with text keys")
    }
}

/// The run in the middle of several, by the phase that costs its puts most.
pub fn median(mut runs: Vec<Vec<PhaseReport>>) -> Option<Vec<PhaseReport>> {
    let worst = |run: &[PhaseReport]| run.iter().filter_map(|report| report.put_p99_times).fold(0.0, f64::max);
    runs.sort_by(|a, b| worst(a).total_cmp(&worst(b)));
    let middle = runs.len().saturating_sub(1) / 2;
    runs.into_iter().nth(middle)
}

/// A column of figures.
struct Column {
    title: &'static str,
    decimals: usize,
    figure: fn(&PhaseReport) -> Option<f64>,
}

static COLUMNS: [Column; 15] = [
    Column { title: "put p50 ms", decimals: 2, figure: |report| Some(millis(report.put.p50_us)) },
    Column { title: "put p99 ms", decimals: 2, figure: |report| Some(millis(report.put.p99_us)) },
    Column { title: "longest put ms", decimals: 2, figure: |report| Some(millis(report.put.max_us)) },
    Column { title: "put p99 / before", decimals: 2, figure: |report| report.put_p99_times },
    Column { title: "get p50 ms", decimals: 2, figure: |report| report.get.map(|get| millis(get.p50_us)) },
    Column { title: "get p99 ms", decimals: 2, figure: |report| report.get.map(|get| millis(get.p99_us)) },
    Column { title: "longest get ms", decimals: 2, figure: |report| report.get.map(|get| millis(get.max_us)) },
    Column { title: "get p99 / before", decimals: 2, figure: |report| report.get_p99_times },
    Column { title: "operation s", decimals: 2, figure: |report| report.operation_seconds },
    Column { title: "MB/s", decimals: 1, figure: |report| report.megabytes_per_second },
    Column {
        title: "received MB",
        decimals: 1,
        figure: |report| report.catch_up.and_then(|catch_up| catch_up.received_bytes).map(megabytes),
    },
    Column { title: "store MB", decimals: 1, figure: |report| report.store_bytes.map(megabytes) },
    Column { title: "server CPU s", decimals: 2, figure: |report| report.server.map(|spent| spent.cpu_seconds) },
    Column {
        title: "peak RSS MB",
        decimals: 1,
        figure: |report| report.server.map(|spent| megabytes(spent.rss_peak_bytes)),
    },
    Column {
        title: "written MB",
        decimals: 1,
        figure: |report| report.server.and_then(|spent| spent.written_bytes).map(megabytes),
    },
];

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The table for people, of one run on each system. Where there are two, each phase ends with the first
/// one's figures as multiples of the second one's.
pub fn table(runs: &[Vec<PhaseReport>]) -> String {
    let titles: Vec<&str> = COLUMNS.iter().map(|column| column.title).collect();
    let mut table = format!("| row | phase | system | {} | errors |\n", titles.join(" | "));
    writeln!(table, "|{}", "---|".repeat(titles.len() + 4)).expect("writing to a string does not fail");
    let phases = runs.iter().map(Vec::len).max().unwrap_or(0);
    for phase in 0..phases {
        let group: Vec<&PhaseReport> = runs.iter().filter_map(|run| run.get(phase)).collect();
        for report in &group {
            let cells = COLUMNS.iter().map(|column| match (column.figure)(report) {
                Some(figure) => format!("{figure:.decimals$}", decimals = column.decimals),
                None => "-".to_owned(),
            });
            let errors: u64 = report.errors.values().sum();
            line(&mut table, report, report.run.system, cells.collect(), &errors.to_string());
        }
        if let [ours, theirs] = group[..] {
            let cells = COLUMNS.iter().map(|column| match ((column.figure)(ours), (column.figure)(theirs)) {
                (Some(ours), Some(theirs)) if theirs > 0.0 => format!("{:.2}×", ours / theirs),
                _ => "-".to_owned(),
            });
            let systems = format!("**{} / {}**", ours.run.system, theirs.run.system);
            line(&mut table, ours, &systems, cells.collect(), "");
        }
    }
    table
}

fn line(table: &mut String, report: &PhaseReport, system: &str, cells: Vec<String>, errors: &str) {
    let (row, phase, cells) = (report.run.row, report.phase, cells.join(" | "));
    writeln!(table, "| {row} | {phase} | {system} | {cells} | {errors} |").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn run(system: &'static str) -> Run {
        let options = serde_json::json!({"rate": 1000});
        Run { row: "maintenance", system, version: "3.7.1".to_owned(), members: 1, round: 1, options }
    }

    fn share(p99_us: u64, error: &str) -> Share {
        let latency = Summary { count: 500, mean_us: 800, p50_us: 700, p99_us, p999_us: p99_us, max_us: 2 * p99_us };
        Share { elapsed: Duration::from_secs(10), latency, errors: BTreeMap::from([(error.to_owned(), 1)]) }
    }

    fn phases(slower: u64) -> Vec<Phase> {
        let usage = Usage { cpu: Duration::from_secs(2), rss_peak_bytes: 64_000_000, ..Usage::default() };
        vec![
            Phase::of("before", share(1000, "a"), Some(share(2000, "a"))),
            Phase {
                operation: Some(Duration::from_secs(2)),
                server: Some(usage),
                ..Phase::of("defragment", share(1000 * slower, "a"), Some(share(2000, "b")))
            },
        ]
    }

    #[test]
    fn each_phase_is_followed_by_the_ratio_of_the_systems() {
        let runs = [PhaseReport::all(&run("mainstay"), phases(1)), PhaseReport::all(&run("etcd"), phases(4))];
        expect![[r#"
            | row | phase | system | put p50 ms | put p99 ms | longest put ms | put p99 / before | get p50 ms | get p99 ms | longest get ms | get p99 / before | operation s | MB/s | received MB | store MB | server CPU s | peak RSS MB | written MB | errors |
            |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
            | maintenance | before | mainstay | 0.70 | 1.00 | 2.00 | - | 0.70 | 2.00 | 4.00 | - | - | - | - | - | - | - | - | 2 |
            | maintenance | before | etcd | 0.70 | 1.00 | 2.00 | - | 0.70 | 2.00 | 4.00 | - | - | - | - | - | - | - | - | 2 |
            | maintenance | before | **mainstay / etcd** | 1.00× | 1.00× | 1.00× | - | 1.00× | 1.00× | 1.00× | - | - | - | - | - | - | - | - |  |
            | maintenance | defragment | mainstay | 0.70 | 1.00 | 2.00 | 1.00 | 0.70 | 2.00 | 4.00 | 1.00 | 2.00 | - | - | - | 2.00 | 64.0 | - | 2 |
            | maintenance | defragment | etcd | 0.70 | 4.00 | 8.00 | 4.00 | 0.70 | 2.00 | 4.00 | 1.00 | 2.00 | - | - | - | 2.00 | 64.0 | - | 2 |
            | maintenance | defragment | **mainstay / etcd** | 1.00× | 0.25× | 0.25× | 0.25× | 1.00× | 1.00× | 1.00× | 1.00× | 1.00× | - | - | - | 1.00× | 1.00× | - |  |
        "#]]
        .assert_eq(&table(&runs));
    }

    #[test]
    fn a_member_that_catches_up_has_a_speed() {
        let catch_up = CaughtUp {
            bytes: 5_000_000,
            snapshots: Some(1),
            received_bytes: Some(6_000_000),
            leader_killed_in_time: None,
        };
        let phases = vec![
            Phase::of("before", share(1000, "a"), None),
            Phase {
                operation: Some(Duration::from_secs(2)),
                catch_up: Some(catch_up),
                ..Phase::of("catch-up", share(1500, "a"), None)
            },
        ];
        let reports = PhaseReport::all(&run("etcd"), phases);
        assert_eq!(reports[0].put_p99_times, None);
        assert_eq!((reports[1].put_p99_times, reports[1].get_p99_times), (Some(1.5), None));
        assert_eq!(reports[1].megabytes_per_second, Some(2.5));
        expect![[r#"{"row":"maintenance","system":"etcd","version":"3.7.1","members":1,"round":1,"options":{"rate":1000},"phase":"catch-up","seconds":10.0,"put":{"count":500,"mean_us":800,"p50_us":700,"p99_us":1500,"p999_us":1500,"max_us":3000},"put_p99_times":1.5,"get":null,"get_p99_times":null,"operation_seconds":2.0,"catch_up":{"bytes":5000000,"snapshots":1,"received_bytes":6000000,"leader_killed_in_time":null},"megabytes_per_second":2.5,"store_bytes":null,"server":null,"errors":{"a":1}}"#]]
        .assert_eq(&reports[1].json());
    }

    #[test]
    fn the_median_is_one_of_the_runs() {
        let of = |slower: &[u64]| {
            median(slower.iter().map(|slower| PhaseReport::all(&run("etcd"), phases(*slower))).collect())
                .and_then(|run| run[1].put_p99_times)
        };
        assert_eq!(of(&[5, 1, 3]), Some(3.0));
        assert_eq!(of(&[4, 2]), Some(2.0), "the lower of two");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn nothing_measured_is_still_a_table() {
        assert!(PhaseReport::all(&run("etcd"), Vec::new()).is_empty());
        assert_eq!(table(&[]).lines().count(), 2);
    }
}
