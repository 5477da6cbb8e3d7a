//! Whole stories, told once for any kind of cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use mainstay_client::{ClientOptions, Range};
use tokio::time::Instant;

use crate::checker::{WatchOrder, equal_members, exactly_once, seen_once};
use crate::cluster::{Cluster, leader, wait_until_serving};
use crate::workload::UniquePuts;

/// Puts that must succeed between two faults, so that each of them hits a cluster at work.
const PUTS_BETWEEN_FAULTS: u64 = 500;
/// How long that may take, elections included.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// While 64 clients write and one watches, the leader is killed twice, then each member in turn.
///
/// Nothing that was acknowledged may be lost or done twice, the watch must have seen exactly what
/// is there, and all members must end up equal.
pub async fn members_are_killed<C: Cluster>(cluster: &mut C) -> Result<()> {
    let prefix = "unique/";
    let watch = WatchOrder::spawn(&cluster.client(0, ClientOptions::default()), prefix).await?;
    let clients = (0..64).map(|number| cluster.client(number % cluster.size(), ClientOptions::default())).collect();
    let puts = UniquePuts::spawn(prefix, clients, Duration::from_millis(20));
    puts.wait_for_more(PUTS_BETWEEN_FAULTS, RECOVERS_WITHIN).await?;

    for _ in 0..2 {
        let victim = leader(cluster).await?;
        kill_and_restart(cluster, &puts, victim).await?;
    }
    for victim in 0..cluster.size() {
        kill_and_restart(cluster, &puts, victim).await?;
    }

    let record = puts.finish().await?;
    wait_until_serving(cluster, 0..cluster.size()).await?;
    let client = cluster.client(0, ClientOptions::default());
    let found = seen_once(&client, prefix, &record, watch).await?;
    let (revision, hash) = equal_members(cluster).await?;
    eprintln!(
        "{} puts acknowledged, {} open of which {} happened, {} refused; longest gap of a client {:?}; hash {hash} at revision {revision}",
        record.acknowledged.len(),
        record.open.len(),
        found.open,
        record.refused.len(),
        record.longest_gap,
    );
    Ok(())
}

async fn kill_and_restart<C: Cluster>(cluster: &mut C, puts: &UniquePuts, victim: usize) -> Result<()> {
    cluster.kill(victim).await?;
    puts.wait_for_more(PUTS_BETWEEN_FAULTS, RECOVERS_WITHIN).await?;
    cluster.start(victim).await?;
    wait_until_serving(cluster, [victim]).await?;
    puts.wait_for_more(PUTS_BETWEEN_FAULTS, RECOVERS_WITHIN).await
}

/// The leader is cut off from the others, or hangs, while clients write: the others go on without
/// it, it serves no stale answer meanwhile, and it comes back as one of them.
pub async fn leader_is_cut_off<C: Cluster>(cluster: &mut C) -> Result<()> {
    let prefix = "cut/";
    let clients = (0..16).map(|number| cluster.client(number % cluster.size(), ClientOptions::default())).collect();
    let puts = UniquePuts::spawn(prefix, clients, Duration::from_millis(20));
    puts.wait_for_more(PUTS_BETWEEN_FAULTS, RECOVERS_WITHIN).await?;

    let cut_off = leader(cluster).await?;
    cluster.isolate(cut_off)?;
    let others: Vec<usize> = (0..cluster.size()).filter(|member| *member != cut_off).collect();
    wait_until_serving(cluster, others.iter().copied()).await?;
    ensure!(leader(cluster).await? != cut_off, "the leader that was cut off still leads the others");
    cluster.client_of(others[0]).put("moved on", "yes").await?;
    // Its answer may be late or an error, but never the past.
    if let Ok(answer) = cluster.client_of(cut_off).with_timeout(Duration::from_secs(3)).get("moved on").await {
        ensure!(answer.is_some(), "the leader that was cut off answered a linearizable read with the past");
    }
    puts.wait_for_more(PUTS_BETWEEN_FAULTS, RECOVERS_WITHIN).await?;
    cluster.heal()?;
    wait_until_serving(cluster, 0..cluster.size()).await?;

    let hanging = leader(cluster).await?;
    cluster.pause(hanging)?;
    let others: Vec<usize> = (0..cluster.size()).filter(|member| *member != hanging).collect();
    wait_until_serving(cluster, others).await?;
    cluster.resume(hanging)?;
    wait_until_serving(cluster, 0..cluster.size()).await?;
    puts.wait_for_more(PUTS_BETWEEN_FAULTS, RECOVERS_WITHIN).await?;

    let record = puts.finish().await?;
    let client = cluster.client(0, ClientOptions::default());
    exactly_once(&client, prefix, &record).await?;
    equal_members(cluster).await?;
    Ok(())
}

/// With one of three members left, writes and linearizable reads fail in time, serializable reads
/// answer; with two, all is well again and nothing was lost.
pub async fn quorum_is_lost<C: Cluster>(cluster: &mut C) -> Result<()> {
    // etcd's own limit: 5 s and two election timeouts of 1 s.
    let server_gives_up = Duration::from_secs(7);
    cluster.client_of(0).put("before", "1").await?;
    let survivor = cluster.size() - 1;
    wait_until_serving(cluster, [survivor]).await?;
    for member in 0..survivor {
        cluster.kill(member).await?;
    }

    let alone = cluster.client_of(survivor).with_timeout(server_gives_up + Duration::from_secs(8));
    let local = alone.range(Range::key("before").serializable()).await?;
    ensure!(local.kvs.len() == 1, "a serializable read does not find what was written");
    let limit = server_gives_up + Duration::from_secs(1);
    let asked = Instant::now();
    let (write, read) = tokio::join!(async { (alone.put("during", "1").await.map(drop), asked.elapsed()) }, async {
        // A client repeats reads while its time is not over; here the server's own answer counts.
        let answer = alone.only(0).with_timeout(limit).range(Range::key("before")).await;
        (answer.map(drop), asked.elapsed())
    },);
    for (what, (answer, took)) in [("write", write), ("linearizable read", read)] {
        let Err(error) = answer else { anyhow::bail!("a {what} succeeded without a quorum") };
        ensure!(took <= limit + Duration::from_millis(500), "a {what} failed only after {took:?}: {error}");
        eprintln!("without quorum a {what} failed after {took:?}: {error}");
    }
    let local = alone.range(Range::key("before").serializable()).await?;
    ensure!(local.kvs.len() == 1, "a serializable read does not find what was written");

    cluster.start(0).await?;
    let healed = wait_until_serving(cluster, [0, survivor]).await?;
    eprintln!("served again {healed:?} after a majority was back");
    cluster.client_of(survivor).put("after", "1").await?;
    ensure!(cluster.client_of(0).get("before").await?.is_some(), "what was written before is lost");
    for member in 1..survivor {
        cluster.start(member).await?;
    }
    wait_until_serving(cluster, 0..cluster.size()).await?;
    equal_members(cluster).await?;
    Ok(())
}
