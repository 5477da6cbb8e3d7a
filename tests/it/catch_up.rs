//! A member that has missed more than the log holds gets a snapshot, and goes on where it was when that breaks off.
//!
//! etcd begins anew each time, as fast as it goes, and names its files otherwise, so that it does not pass.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use mainstay_client::ClientOptions;
use mainstay_tests::checker::equal_members;
use mainstay_tests::{Cluster, ProcessCluster, leader, wait_until_serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::rot::write;

/// What the member misses comes in so many large files: a store writes one when it is closed.
const FILES: usize = 3;
/// Values in each, and bytes of a value: ten megabytes that cannot be compressed.
const VALUES: usize = 150;
const VALUE_BYTES: usize = 64 * 1024;
const FILE_BYTES: u64 = (VALUES * VALUE_BYTES) as u64;
/// More than stay in the log.
const SMALL: usize = 200;
/// So that all of it takes seven seconds.
const SEND_RATE: &str = "--snapshot-send-rate=4194304";
/// How long a part of it may take, on a machine that does other things.
const WITHIN: Duration = Duration::from_secs(60);
/// How long a link is cut.
const CUT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_breaks_off_twice_and_then_its_leader_is_killed() {
    let flags = ["--snapshot-count=50", "--snapshot-catchup-entries=20", SEND_RATE];
    let mut cluster = ProcessCluster::start_all_with(3, &flags).await.unwrap();
    run(&mut cluster).await.unwrap();
}

async fn run(cluster: &mut ProcessCluster) -> Result<()> {
    let away = (leader(cluster).await? + 1) % 3;
    let others = [(away + 1) % 3, (away + 2) % 3];
    cluster.kill(away).await?;
    let client = cluster.client(others[0], ClientOptions::default());
    for file in 0..FILES {
        write(&client, &format!("missed/{file}/"), VALUES, VALUE_BYTES).await?;
        for member in others {
            cluster.stop(member).await?;
            cluster.start(member).await?;
            wait_until_serving(cluster, others).await?;
        }
    }
    // The log is purged when there is more, and only up to what is in files.
    write(&client, "after/", SMALL, 10).await?;

    cluster.start(away).await?;
    let part = FILE_BYTES / 5;
    // In the middle of the second file, and again in the middle of the third.
    for whole in 1..FILES as u64 {
        wait_until_received(cluster, away, whole * FILE_BYTES + part).await?;
        cluster.isolate(away)?;
        sleep(CUT).await;
        cluster.heal()?;
        wait_for_metric(cluster, away, "mainstay_network_snapshot_resumed_bytes_total", resumed_after(whole)).await?;
    }
    wait_until_received(cluster, away, (FILES as u64 - 1) * FILE_BYTES + 2 * part).await?;
    let received = metric(cluster, away, "mainstay_network_snapshot_received_bytes_total").await?;
    let size = FILES as u64 * FILE_BYTES;
    eprintln!("{received} bytes received of a snapshot of {size}");
    ensure!(received < size * 3 / 2, "{received} bytes came of a snapshot of {size} that is not there yet");

    let leading = leader(cluster).await?;
    let next = 3 - away - leading;
    cluster.kill(leading).await?;
    wait_until_serving(cluster, [next, away]).await?;
    let log = cluster.log(away)?;
    ensure!(log.contains("applied snapshot"), "it caught up by the log");
    ensure!(log.contains("a snapshot was not received whole"), "nothing is said of those that broke off");
    cluster.start(leading).await?;
    wait_until_serving(cluster, 0..3).await?;
    equal_members(cluster).await?;

    ensure!(received_bytes(cluster, away) == 0, "something is left of what was received");
    let links = cluster.data_dir(next).join("member").join("db").join("checkpoints");
    let begun = Instant::now();
    while std::fs::read_dir(&links).is_ok_and(|mut entries| entries.next().is_some()) {
        ensure!(begun.elapsed() < WITHIN, "{} is not empty", links.display());
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Bytes that did not have to come again when so many times a part of the snapshot was there: one file, then two.
fn resumed_after(times: u64) -> u64 {
    (1..=times).sum::<u64>() * FILE_BYTES
}

/// Bytes of a snapshot that are at a member, and wait for the rest.
fn received_bytes(cluster: &ProcessCluster, member: usize) -> u64 {
    let folder: PathBuf = cluster.data_dir(member).join("member").join("db").join("incoming").join("files");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

async fn wait_until_received(cluster: &ProcessCluster, member: usize, bytes: u64) -> Result<()> {
    let begun = Instant::now();
    while received_bytes(cluster, member) < bytes {
        let found = received_bytes(cluster, member);
        ensure!(begun.elapsed() < WITHIN, "{found} bytes of a snapshot arrived, and not {bytes}");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn wait_for_metric(cluster: &ProcessCluster, member: usize, name: &str, least: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found = metric(cluster, member, name).await?;
        if found >= least {
            return Ok(());
        }
        ensure!(begun.elapsed() < WITHIN, "{name} is {found}, and not {least}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The sum of a counter's series at a member.
async fn metric(cluster: &ProcessCluster, member: usize, name: &str) -> Result<u64> {
    let address = cluster.client_url(member).trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer comes in one piece, and ends with the connection.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    let series = page.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    Ok(series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}
