//! Every scenario of scale once, so small that it takes seconds. Needs a server: MAINSTAY_BIN, ETCD_BIN or both; says so
//! and passes where there is none.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

use clap::Parser;
use mainstay_benches::scale::{Arguments, Report, measure};

/// Runs a scenario on one system, where there is one; nothing may be wrong.
async fn scenario(system: &str, name: &str, flags: &str) -> Option<Report> {
    let variable = format!("{}_BIN", system.to_uppercase());
    if std::env::var_os(&variable).is_none() {
        eprintln!("skipped: {variable} names no server to measure");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let own = ["scale", "--only", name, "--systems", system, "--folder", path];
    let arguments = Arguments::parse_from(own.into_iter().chain(flags.split_whitespace()));
    let mut told = 0;
    let reports = measure(&arguments, &mut |_| {
        told += 1;
        Ok(())
    })
    .await
    .unwrap();
    let [report] = <[_; 1]>::try_from(reports).unwrap();
    assert!(report.failures.is_empty() && told == 1, "{}", report.json());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    Some(report)
}

/// A figure of a report.
fn figure(report: &Report, name: &str) -> f64 {
    let found = report.figures.iter().find(|(figure, _)| figure == name);
    found.unwrap_or_else(|| panic!("no {name} in {}", report.json())).1
}

async fn store(system: &str) {
    let flags = "--store-keys 3000 --store-megabytes 3 --store-memory 512 --store-clients 4 --store-readers 2 \
                 --store-read-seconds 0.5 --store-page 100";
    let Some(report) = scenario(system, "store", flags).await else { return };
    for name in ["load_keys_per_second", "restart_seconds", "cold_get_p50_ms", "cold_page_p99_ms", "disk_mb"] {
        assert!(figure(&report, name) > 0.0, "{name}: {}", report.json());
    }
    assert!(figure(&report, "read_rss_peak_mb") > 1.0, "{}", report.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_loaded_killed_and_read_on_mainstay() {
    store("mainstay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_loaded_killed_and_read_on_etcd() {
    store("etcd").await;
}

/// More watchers a stream than messages that may wait for one.
async fn watchers(system: &str) {
    let flags = "--watchers-total 900 --watchers-on-prefix 600 --watchers-streams 3 --watchers-connections 2 \
                 --watchers-events 10";
    let Some(report) = scenario(system, "watchers", flags).await else { return };
    for name in ["event_to_all_p50_ms", "event_p50_ms", "own_event_p50_ms", "burst_events_per_second"] {
        assert!(figure(&report, name) > 0.0, "{name}: {}", report.json());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_is_told_everything_on_mainstay() {
    watchers("mainstay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_is_told_everything_on_etcd() {
    watchers("etcd").await;
}

async fn leases(system: &str) {
    let flags = "--leases-total 300 --leases-expiring 100 --leases-ttl 10 --leases-lead 5 --leases-rate 100 \
                 --leases-clients 8";
    let Some(report) = scenario(system, "leases", flags).await else { return };
    assert!(figure(&report, "put_during_p50_ms") > 0.0 && figure(&report, "renewal_p50_ms") > 0.0, "{}", report.json());
    assert!(figure(&report, "deletions_per_second") > 0.0, "{}", report.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_in_time_and_others_are_kept_on_mainstay() {
    leases("mainstay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_in_time_and_others_are_kept_on_etcd() {
    leases("etcd").await;
}

async fn values(system: &str) {
    let flags = "--values-count 20 --values-size 1000000 --values-clients 4";
    let Some(report) = scenario(system, "values", flags).await else { return };
    assert!(figure(&report, "put_mb_per_second") > 0.0 && figure(&report, "get_p50_ms") > 0.0, "{}", report.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_written_and_read_on_mainstay() {
    values("mainstay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_written_and_read_on_etcd() {
    values("etcd").await;
}

async fn slow_disk(system: &str) {
    let traced = Command::new("strace").args(["-f", "-qqq", "-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no strace, or it may trace nothing");
        return;
    }
    let flags = "--slow-disk-millis 10 --slow-disk-seconds 3 --slow-disk-rate 50 --slow-disk-clients 20";
    let Some(report) = scenario(system, "slow-disk", flags).await else { return };
    assert!(figure(&report, "put_p50_ms") >= 10.0, "{}", report.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_stands_for_election_because_a_disk_is_slow_on_mainstay() {
    slow_disk("mainstay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_stands_for_election_because_a_disk_is_slow_on_etcd() {
    slow_disk("etcd").await;
}
