//! Every row once, with tiny inputs, so that the benchmarks cannot rot. Needs a server: MAINSTAY_BIN,
//! ETCD_BIN or both; says so and passes where there is none.
#![allow(clippy::unwrap_used, reason = "a test")]

use clap::Parser;
use mainstay_benches::compare::{Arguments, measure};
use mainstay_benches::workload::Row;

/// Runs every row on one system.
async fn every_row(system: &str, members: &str) {
    let variable = format!("{}_BIN", system.to_uppercase());
    if std::env::var_os(&variable).is_none() {
        eprintln!("skipped: {variable} names no server to measure");
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
