//! Every row and scenario once, with tiny inputs, so that the benchmarks cannot rot. Needs a server: MAINSTAY_BIN,
//! ETCD_BIN or both; says so and passes where there is none.
#![allow(clippy::unwrap_used, reason = "a test")]

use clap::Parser;
use mainstay_benches::compare::{Arguments, measure};
use mainstay_benches::flame;
use mainstay_benches::phase::PhaseReport;
use mainstay_benches::scenario::{self, Scenario};
use mainstay_benches::suite::{self, Metric};
use mainstay_benches::workload::{CatchUp, Maintenance, Row};

/// Whether there is a server to measure.
fn is_given(system: &str) -> bool {
    let variable = format!("{}_BIN", system.to_uppercase());
    let given = std::env::var_os(&variable).is_some();
    if !given {
        eprintln!("skipped: {variable} names no server to measure");
    }
    given
}

/// Runs every row on one system.
async fn every_row(system: &str, members: &str) {
    if !is_given(system) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let arguments = Arguments::parse_from([
        "compare",
        "--systems",
        system,
        "--members",
        members,
        "--clients",
        "4",
        "--connections",
        "2",
        "--total",
        "200",
        "--keys",
        "50",
        "--page",
        "7",
        "--watchers",
        "5",
        "--watch-streams",
        "2",
        "--list-clients",
        "2",
        "--prev-kv",
        "--folder",
        folder.path().to_str().unwrap(),
    ]);
    let mut told = Vec::new();
    let reports = measure(&arguments, &mut |report| {
        told.push(report.row);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(told, Row::all());
    for report in reports {
        let line = report.json();
        assert!(report.errors.is_empty() && report.items >= 200, "{line}");
        assert!(report.latency.p50_us > 0 && report.per_second > 0.0, "{line}");
        let server = report.server.unwrap();
        assert!(server.rss_peak_bytes > 0 && server.written_bytes.is_some(), "{line}");
        assert!(report.extra_memory_bytes.is_some_and(|extra| extra < server.rss_peak_bytes), "{line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_runs_on_etcd() {
    every_row("etcd", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_runs_on_mainstay() {
    every_row("mainstay", "1").await;
}

/// Runs every row of the suite, and makes sure that each has the figures that its limits and its table need.
async fn every_row_of_the_suite(system: &str) {
    if !is_given(system) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (data, results) = (folder.path().join("data"), folder.path().join("results"));
    std::fs::create_dir(&data).unwrap();
    let arguments = suite::Arguments::parse_from([
        "suite",
        "--tiny",
        "--systems",
        system,
        "--restart-keys",
        "60",
        "--own-bin",
        env!("CARGO_BIN_EXE_mainstay-bench"),
        "--folder",
        data.to_str().unwrap(),
        "--results",
        results.to_str().unwrap(),
    ]);
    let mut told = 0;
    let (record, failures) = suite::measure(&arguments, &mut |line| {
        told += usize::from(line.starts_with('{'));
        Ok(())
    })
    .await
    .unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(record.quick && !record.whole && record.versions.contains_key(system), "{record:?}");
    assert_eq!(told, record.rows.len());
    for row in &record.rows {
        let [(name, figures)] = <[_; 1]>::try_from(row.systems.iter().collect::<Vec<_>>()).unwrap();
        let ceiling = match row.name.as_str() {
            "echo-put" | "echo-get" => Some("echo"),
            "fsync" => Some("disk"),
            _ => None,
        };
        assert_eq!(name, ceiling.unwrap_or(system), "{row:?}");
        // Whether the steady load meets errors is not for this test.
        assert!(
            row.name == "maintenance" || figures.get(&Metric::Errors).is_none_or(|errors| *errors == 0.0),
            "{row:?}"
        );
        for check in &row.checks {
            // A folder in memory has no disk that counts.
            let is_there = figures.contains_key(&check.metric) || check.metric == Metric::DeviceMbPerThousand;
            assert!(is_there, "{check:?} of {row:?}");
        }
        let expected: &[Metric] = match row.name.as_str() {
            "maintenance" => &[Metric::DefragmentPutMs],
            "memory" => &[Metric::LoadedMb, Metric::RestartedMb],
            "restart" | "restart-large" => &[Metric::RestartSeconds, Metric::P99Ms],
            "fsync" => &[Metric::PerSecond, Metric::P999Ms],
            _ => &[Metric::PerSecond, Metric::P50Ms, Metric::P99Ms, Metric::P999Ms, Metric::PeakMb],
        };
        for metric in expected {
            assert!(figures.get(metric).is_some_and(|figure| *figure > 0.0), "{metric:?} of {row:?}");
        }
    }
    assert!(!results.exists(), "measuring records nothing");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_suite_runs_on_etcd() {
    every_row_of_the_suite("etcd").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_suite_runs_on_mainstay() {
    every_row_of_the_suite("mainstay").await;
}

/// Runs the whole program: what is kept of a run, and that it is compared.
#[test]
fn a_run_is_kept_and_the_next_one_compared_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let run = |flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay-bench"));
        // Ceilings need no server, but a binary has to be named.
        command.args(["suite", "--tiny", "--rows", "fsync", "--systems", "mainstay", "--mainstay-bin"]);
        command.arg(env!("CARGO_BIN_EXE_mainstay-bench")).arg("--results").arg(&results);
        let output = command.arg("--folder").arg(folder.path()).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["--check"]).contains("no run of this kind"));
    run(&["--step", "as it was"]);
    let history = std::fs::read_to_string(results.join("history.jsonl")).unwrap();
    assert!(history.lines().count() == 1 && history.contains(r#""step":"as it was""#), "{history}");
    assert!(!history.contains(folder.path().to_str().unwrap()), "a path in the history: {history}");
    assert!(run(&["--check"]).contains("as it was"));
    assert_eq!(std::fs::read_to_string(results.join("history.jsonl")).unwrap(), history);
}

/// Says so and passes where perf is missing, or may not take samples.
#[tokio::test(flavor = "multi_thread")]
async fn a_flame_graph_is_drawn() {
    if !is_given("mainstay") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    if let Err(error) = flame::check_perf(folder.path()) {
        eprintln!("skipped: {error}");
        return;
    }
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let picture = folder.path().join("deeper/flame.svg");
    let flags = "flame put --duration 2 --clients 8 --connections 2 --folder";
    let flags = flags.split(' ').chain([data.to_str().unwrap(), "--output", picture.to_str().unwrap()]);
    let report = flame::draw(&flame::Arguments::parse_from(flags)).await.unwrap();
    assert!(report.errors.is_empty() && report.items > 0, "{}", report.json());
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("<title>all: ") && svg.contains("put on mainstay "), "{svg}");
    assert_eq!(std::fs::read_dir(data).unwrap().count(), 0, "nothing is left behind");
}

/// Runs a scenario on one system, and makes sure that its phases are as they should be.
async fn phases<S: Scenario>(system: &str, flags: &[&str], names: &[&str]) -> Vec<PhaseReport> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let own = ["bench", "--systems", system, "--folder", path, "--clients", "8", "--connections", "2"];
    let arguments = scenario::Arguments::<S>::parse_from([&own[..], flags].concat());
    let mut told = Vec::new();
    let runs = scenario::measure(&arguments, &mut |report| {
        told.push(report.phase);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(told, names);
    let [run] = <[_; 1]>::try_from(runs).unwrap();
    for (place, report) in run.iter().enumerate() {
        let line = report.json();
        assert_eq!(report.phase, names[place]);
        assert!(report.put.count > 0 && report.put.p50_us > 0 && report.seconds > 0.0, "{line}");
        assert!(report.put.max_us >= report.put.p99_us && report.put.p99_us >= report.put.p50_us, "{line}");
        assert_eq!(report.put_p99_times.is_some(), place > 0, "{line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    run
}

async fn maintenance(system: &str) {
    if !is_given(system) {
        return;
    }
    let flags = "--rate 100 --keys 50 --revisions 500 --bulk-megabytes 2 --settle-seconds 0.2 --phase-seconds 0.5 \
                 --operation-seconds-min 0.5";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let names = ["before", "defragment", "after-defragment", "compact", "after-compact"];
    for report in phases::<Maintenance>(system, &flags, &names).await {
        let line = report.json();
        let get = report.get.unwrap();
        assert!(report.errors.is_empty() && get.count > 0 && get.p50_us > 0, "{line}");
        assert_eq!(report.operation_seconds.is_some(), ["defragment", "compact"].contains(&report.phase), "{line}");
        assert!(report.store_bytes.unwrap() > 0 && report.server.unwrap().rss_peak_bytes > 0, "{line}");
    }
}

/// Whether the load meets errors is not for this test: the lead may move on a slow machine.
async fn catch_up(system: &str, kill_leader: bool) {
    if !is_given(system) {
        return;
    }
    let flags = "--rate 200 --megabytes 4 --value-size 4096 --snapshot-count 100 --snapshot-catchup-entries 20 \
                 --settle-seconds 0.2 --phase-seconds 0.5 --leader-away-seconds 1";
    let mut flags: Vec<&str> = flags.split_whitespace().collect();
    if kill_leader {
        flags.push("--kill-leader");
    }
    let reports = phases::<CatchUp>(system, &flags, &["before", "catch-up"]).await;
    assert!(reports[0].catch_up.is_none() && reports[0].megabytes_per_second.is_none());
    let line = reports[1].json();
    let caught_up = reports[1].catch_up.unwrap();
    assert!(caught_up.bytes >= 4_000_000 && reports[1].operation_seconds.unwrap() > 0.0, "{line}");
    assert!(reports[1].megabytes_per_second.unwrap() > 0.0, "{line}");
    assert_eq!(caught_up.leader_killed_in_time.is_some(), kill_leader, "{line}");
    assert_eq!(caught_up.received_bytes.is_some(), system == "mainstay", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_runs_on_etcd() {
    maintenance("etcd").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_runs_on_mainstay() {
    maintenance("mainstay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_catches_up_on_etcd() {
    catch_up("etcd", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_catches_up_on_mainstay() {
    catch_up("mainstay", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_catches_up_without_its_leader_on_etcd() {
    catch_up("etcd", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_catches_up_without_its_leader_on_mainstay() {
    catch_up("mainstay", true).await;
}
