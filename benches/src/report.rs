//! What a run is reported as: a JSON line for programs, a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::latency::Summary;
use crate::options::Options;
use crate::process::Usage;
use crate::workload::{Outcome, Row};

/// One run, as it stands in its JSON line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// What was measured.
    pub row: Row,
    /// Which server, as the caller calls it.
    pub system: String,
    /// The version that the server reports.
    pub version: String,
    /// Members of the cluster.
    pub members: usize,
    /// Which run of this row on this system, from 1.
    pub round: u32,
    /// The load and its data.
    pub options: Options,
    /// What is counted below.
    pub unit: &'static str,
    /// Requests that succeeded; for lists, whole lists; for watch, puts.
    pub operations: u64,
    /// What they moved: events, keys, or as many as operations.
    pub items: u64,
    /// How long it took.
    pub seconds: f64,
    /// Items a second.
    pub per_second: f64,
    /// How long an operation took; for watch, how long after its put an event came.
    pub latency: Summary,
    /// What the servers spent.
    pub server: Option<Spent>,
    /// The servers' peak of memory meanwhile, beyond what they had before.
    pub extra_memory_bytes: Option<u64>,
    /// What the servers' disk wrote meanwhile, all of it.
    pub device_written_bytes: Option<u64>,
    /// What the load generator spent.
    pub generator: Spent,
    /// Failures by their text.
    pub errors: BTreeMap<String, u64>,
}

/// What processes spent on a run.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spent {
    /// CPU seconds in all.
    pub cpu_seconds: f64,
    /// CPU seconds for a million items.
    pub cpu_seconds_per_million: f64,
    /// The most resident memory; meanwhile, where the kernel lets a peak be forgotten, else since the start.
    pub rss_peak_bytes: u64,
    /// Bytes sent to the disk, by the kernel's account of the process.
    pub written_bytes: Option<u64>,
}

impl Spent {
    /// What was spent on so many items.
    pub(crate) fn on(items: u64, usage: Usage) -> Self {
        Self {
            cpu_seconds: usage.cpu.as_secs_f64(),
            cpu_seconds_per_million: ratio(usage.cpu.as_secs_f64() * 1e6, items as f64),
            rss_peak_bytes: usage.rss_peak_bytes,
            written_bytes: usage.written_bytes,
        }
    }
}

impl Report {
    /// Reports a run.
    pub fn new(
        row: Row,
        system: &str,
        version: &str,
        members: usize,
        round: u32,
        options: &Options,
        outcome: Outcome,
    ) -> Self {
        let Outcome { measured, server, extra_memory_bytes, device_written_bytes, generator } = outcome;
        let items = measured.items;
        Self {
            row,
            system: system.to_owned(),
            version: version.to_owned(),
            members,
            round,
            options: options.clone(),
            unit: row.unit(),
            operations: measured.operations,
            items,
            seconds: measured.elapsed.as_secs_f64(),
            per_second: ratio(items as f64, measured.elapsed.as_secs_f64()),
            latency: measured.latency,
            server: server.map(|usage| Spent::on(items, usage)),
            extra_memory_bytes,
            device_written_bytes,
            generator: Spent::on(items, generator),
            errors: measured.errors,
        }
    }

    /// The line for programs, without its end.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report has no maps but those with text keys")
    }
}

/// A quotient that stays a number: 0 where there is nothing to divide by.
fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator > 0.0 { numerator / denominator } else { 0.0 }
}

/// The run in the middle of several, by throughput.
pub fn median(mut reports: Vec<Report>) -> Option<Report> {
    reports.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let middle = reports.len().saturating_sub(1) / 2;
    reports.into_iter().nth(middle)
}

const HEADER: [&str; 11] = [
    "row",
    "system",
    "per second",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU s per million",
    "peak RSS MiB",
    "written MiB",
    "generator CPU s per million",
    "errors",
];

/// The table for people. Two systems that ran the same row are followed by the first one's figures
/// as multiples of the second one's.
pub fn table(reports: &[Report]) -> String {
    let mut table = format!("| {} |\n|{}\n", HEADER.join(" | "), "---|".repeat(HEADER.len()));
    let mut rest = reports;
    while let Some((first, _)) = rest.split_first() {
        let same = rest.iter().take_while(|report| report.row == first.row).count();
        let (group, after) = rest.split_at(same);
        for report in group {
            line(&mut table, &cells(report));
        }
        if let [ours, theirs] = group {
            line(&mut table, &multiples(ours, theirs));
        }
        rest = after;
    }
    table
}

fn line(table: &mut String, cells: &[String; 11]) {
    writeln!(table, "| {} |", cells.join(" | ")).expect("writing to a string does not fail");
}

fn cells(report: &Report) -> [String; 11] {
    let millis = |micros: u64| format!("{:.2}", Duration::from_micros(micros).as_secs_f64() * 1e3);
    let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let server = |cell: fn(&Spent) -> Option<f64>, show: &dyn Fn(f64) -> String| {
        report.server.as_ref().and_then(cell).map_or_else(|| "-".to_owned(), show)
    };
    [
        report.row.name(),
        report.system.clone(),
        format!("{:.0} {}s", report.per_second, report.unit),
        millis(report.latency.p50_us),
        millis(report.latency.p99_us),
        millis(report.latency.p999_us),
        server(|spent| Some(spent.cpu_seconds_per_million), &|seconds| format!("{seconds:.1}")),
        server(|spent| Some(spent.rss_peak_bytes as f64), &|bytes| mebibytes(bytes as u64)),
        server(|spent| spent.written_bytes.map(|bytes| bytes as f64), &|bytes| mebibytes(bytes as u64)),
        format!("{:.1}", report.generator.cpu_seconds_per_million),
        report.errors.values().sum::<u64>().to_string(),
    ]
}

fn multiples(ours: &Report, theirs: &Report) -> [String; 11] {
    let times = |ours: f64, theirs: f64| if theirs > 0.0 { format!("{:.2}×", ours / theirs) } else { "-".to_owned() };
    let latency = |of: fn(&Summary) -> u64| times(of(&ours.latency) as f64, of(&theirs.latency) as f64);
    let server = |of: fn(&Spent) -> Option<f64>| match (
        ours.server.as_ref().and_then(of),
        theirs.server.as_ref().and_then(of),
    ) {
        (Some(ours), Some(theirs)) => times(ours, theirs),
        _ => "-".to_owned(),
    };
    [
        ours.row.name(),
        format!("**{} / {}**", ours.system, theirs.system),
        times(ours.per_second, theirs.per_second),
        latency(|summary| summary.p50_us),
        latency(|summary| summary.p99_us),
        latency(|summary| summary.p999_us),
        server(|spent| Some(spent.cpu_seconds_per_million)),
        server(|spent| Some(spent.rss_peak_bytes as f64)),
        server(|spent| spent.written_bytes.map(|bytes| bytes as f64)),
        times(ours.generator.cpu_seconds_per_million, theirs.generator.cpu_seconds_per_million),
        String::new(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::load::Measured;

    fn report(row: Row, system: &str, seconds: u64, written_bytes: Option<u64>) -> Report {
        let measured = Measured {
            operations: 1000,
            items: 20_000,
            elapsed: Duration::from_secs(seconds),
            latency: Summary {
                count: 1000,
                mean_us: 1500,
                p50_us: 1000 * seconds,
                p99_us: 2500,
                p999_us: 0,
                max_us: 1,
            },
            errors: BTreeMap::from([("no answer in time".to_owned(), 2)]),
        };
        let cpu = Duration::from_secs(seconds);
        let server = Some(Usage { cpu, rss_bytes: 32 << 20, rss_peak_bytes: 64 << 20, written_bytes });
        let generator = Usage { cpu: Duration::from_secs(1), ..Usage::default() };
        let options = crate::options::tests::options(&[]);
        Report::new(
            row,
            system,
            "3.7.1",
            1,
            1,
            &options,
            Outcome { measured, server, extra_memory_bytes: Some(32 << 20), device_written_bytes: None, generator },
        )
    }

    #[test]
    fn pairs_are_followed_by_their_ratio() {
        let reports = [
            report(Row::Put, "mainstay", 2, Some(1 << 20)),
            report(Row::Put, "etcd", 4, Some(2 << 20)),
            report(Row::Watch, "etcd", 1, None),
        ];
        expect![[r#"
            | row | system | per second | p50 ms | p99 ms | p99.9 ms | CPU s per million | peak RSS MiB | written MiB | generator CPU s per million | errors |
            |---|---|---|---|---|---|---|---|---|---|---|
            | put | mainstay | 10000 puts | 2.00 | 2.50 | 0.00 | 100.0 | 64.0 | 1.0 | 50.0 | 2 |
            | put | etcd | 5000 puts | 4.00 | 2.50 | 0.00 | 200.0 | 64.0 | 2.0 | 50.0 | 2 |
            | put | **mainstay / etcd** | 2.00× | 0.50× | 1.00× | - | 0.50× | 1.00× | 0.50× | 1.00× |  |
            | watch | etcd | 20000 events | 1.00 | 2.50 | 0.00 | 50.0 | 64.0 | - | 50.0 | 2 |
        "#]]
        .assert_eq(&table(&reports));
    }

    #[test]
    fn the_line_names_everything_that_made_the_figures() {
        expect![[r#"{"row":"put","system":"etcd","version":"3.7.1","members":1,"round":1,"options":{"clients":100,"connections":10,"total":100000,"rate":0,"value_size":256,"keys":10000,"sequential":false,"seed":1,"watchers":100,"watch_streams":10,"list_clients":4,"page":500,"prev_kv":false,"leader":false},"unit":"put","operations":1000,"items":20000,"seconds":4.0,"per_second":5000.0,"latency":{"count":1000,"mean_us":1500,"p50_us":4000,"p99_us":2500,"p999_us":0,"max_us":1},"server":{"cpu_seconds":4.0,"cpu_seconds_per_million":200.0,"rss_peak_bytes":67108864,"written_bytes":null},"extra_memory_bytes":33554432,"device_written_bytes":null,"generator":{"cpu_seconds":1.0,"cpu_seconds_per_million":50.0,"rss_peak_bytes":0,"written_bytes":null},"errors":{"no answer in time":2}}"#]]
        .assert_eq(&report(Row::Put, "etcd", 4, None).json());
    }

    #[test]
    fn nothing_measured_is_still_a_report() {
        let outcome = Outcome {
            measured: Measured::default(),
            server: None,
            extra_memory_bytes: None,
            device_written_bytes: None,
            generator: Usage::default(),
        };
        let options = crate::options::tests::options(&[]);
        let report = Report::new(Row::Get, "s", "", 1, 1, &options, outcome);
        assert_eq!((report.per_second, report.generator.cpu_seconds_per_million), (0.0, 0.0));
        assert!(report.json().contains(r#""server":null"#));
    }

    #[test]
    fn the_median_is_one_of_the_runs() {
        let of = |seconds: &[u64]| {
            median(seconds.iter().map(|seconds| report(Row::Put, "s", *seconds, None)).collect())
                .map(|report| report.seconds)
        };
        assert_eq!(of(&[5, 1, 3]), Some(3.0));
        assert_eq!(of(&[4, 2]), Some(4.0), "the lower of two");
        assert_eq!(of(&[]), None);
    }
}
