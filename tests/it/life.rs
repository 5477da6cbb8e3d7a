//! The life of a cluster while clients write and one watches: it grows, every member is replaced, the
//! leader moves, it is compacted and defragmented, it shrinks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mainstay_client::{ClientOptions, revision};
use mainstay_tests::checker::{WatchOrder, equal_members, seen_once};
use mainstay_tests::workload::UniquePuts;
use mainstay_tests::{Cluster, ProcessCluster, binary, leader, wait_until_serving};
use tokio::time::{Instant, sleep};

/// How many members there are in the course of time, three at the beginning of the end.
const PLACES: usize = 10;
/// How often the leader is asked to hand over.
const MOVES: usize = 20;
/// Puts that must succeed between two events, so that each of them hits a cluster at work.
const PUTS_BETWEEN: u64 = 100;
/// How long that may take.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// Pause before the members are changed again. etcd needs more than five seconds: it takes no younger connection for
/// one to rely on, and calls the cluster unhealthy.
const SETTLED: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_is_renewed_and_shrinks() {
    let mut cluster = ProcessCluster::start_some(1, PLACES, &[]).await.unwrap();
    life(&mut cluster).await.unwrap();
}

async fn life(cluster: &mut ProcessCluster) -> Result<()> {
    let prefix = "life/";
    let watch = WatchOrder::spawn(&cluster.client(0, ClientOptions::default()), prefix).await?;
    let clients = (0..16).map(|number| cluster.client(number % PLACES, ClientOptions::default())).collect();
    let puts = UniquePuts::spawn(prefix, clients, Duration::from_millis(10));

    for member in 1..5 {
        settle(&puts).await?;
        cluster.join(member).await.with_context(|| format!("member {member} joins"))?;
    }
    for member in 0..5 {
        settle(&puts).await?;
        cluster.leave(member).await.with_context(|| format!("member {member} leaves"))?;
        settle(&puts).await?;
        cluster.join(5 + member).await.with_context(|| format!("member {} joins", 5 + member))?;
    }
    for turn in 0..MOVES {
        let to = cluster.present()[turn % 5];
        move_leader(cluster, to).await.with_context(|| format!("move {turn}, to member {to}"))?;
        puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await?;
    }
    let client = cluster.client(0, ClientOptions::default());
    let newest = revision(&client.put("compacted at", "").await?.header);
    client.compact(newest - 100).await?;
    for member in cluster.present() {
        cluster.client_of(member).defragment().await?;
        puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await?;
    }
    for member in [5, 6] {
        settle(&puts).await?;
        cluster.leave(member).await.with_context(|| format!("member {member} leaves"))?;
    }
    puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await?;

    let record = puts.finish().await?;
    wait_until_serving(cluster, cluster.present()).await?;
    let found = seen_once(&client, prefix, &record, watch).await?;
    equal_members(cluster).await?;
    let ids = cluster.client(0, ClientOptions::default()).member_list().await?.members.len();
    ensure!(ids == 3, "{ids} members are listed");
    eprintln!(
        "{}: {} puts acknowledged, {} open of which {} happened, {} refused; longest gap of a client {:?}",
        binary().display(),
        record.acknowledged.len(),
        record.open.len(),
        found.open,
        record.refused.len(),
        record.longest_gap,
    );
    Ok(())
}

/// Waits until members may be changed again, and the cluster is at work.
async fn settle(puts: &UniquePuts) -> Result<()> {
    sleep(SETTLED).await;
    puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await
}

/// Asks the leader to hand over, and waits until the other one leads.
async fn move_leader(cluster: &ProcessCluster, to: usize) -> Result<()> {
    let from = leader(cluster).await?;
    let target = cluster.id_of(to).await?;
    let asked = Instant::now();
    if let Err(error) = cluster.client_of(from).move_leader(target).await {
        // It may take longer than the leader waits, on a machine that has much else to do.
        ensure!(error.to_string().contains("leader transfer took too long"), "{error}");
    }
    while leader(cluster).await? != to {
        ensure!(asked.elapsed() < RECOVERS_WITHIN, "member {to} does not lead");
    }
    Ok(())
}
