//! The life of a cluster while clients write and one watches: it grows, every member is replaced, so are all
//! certificates and the CA that signed them, the leader moves, it is compacted and defragmented, it shrinks.
//!
//! etcd takes a new certificate and never a new CA, so that it does not pass.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mainstay_client::{ClientOptions, Reason, revision};
use mainstay_tests::secured::{Authority, Files};
use mainstay_tests::workload::is_retryable;
use mainstay_tests::{Cluster, ProcessCluster, binary, leader};
use tokio::time::{Instant, sleep};

use super::load::Load;

/// How many members there are in the course of time, three at the beginning of the end.
const PLACES: usize = 10;
/// How often the leader is asked to hand over.
const MOVES: usize = 20;
/// Clients that write keys of their own, and those that share a few.
const WRITERS: usize = 16;
const SHARERS: usize = 4;
/// Puts that must succeed between two events, so that each of them hits a cluster at work.
const PUTS_BETWEEN: u64 = 100;
/// How long that may take.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// Pause before the members are changed again. etcd needs more than five seconds: it takes no younger connection for
/// one to rely on, and calls the cluster unhealthy.
const SETTLED: Duration = Duration::from_millis(1500);
/// What a write may be held up for by design: a leader that is lost is missed after one, and the next one is there
/// after another.
const TWO_ELECTION_TIMEOUTS: Duration = Duration::from_secs(2);
/// So many times that it may be on a machine that is shared with others, where members wait for the processor and their
/// disk: where `CI` is set, as services that test have it.
const SHARED_MACHINE: u32 = 3;
/// What is written and watched.
const PREFIX: &str = "life/";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_is_renewed_and_shrinks() {
    let files = Files::new(PLACES).unwrap();
    let old = Authority::new("old").unwrap();
    files.found(&old).unwrap();
    let mut cluster = ProcessCluster::start_secured(1, PLACES, &[], Some(files.security())).await.unwrap();
    life(&mut cluster, &files, &old).await.unwrap();
}

async fn life(cluster: &mut ProcessCluster, files: &Files, old: &Authority) -> Result<()> {
    let load = Load::begin(cluster, PLACES, PREFIX, (WRITERS, SHARERS)).await?;
    step(&load, "one member").await?;

    for member in 1..5 {
        join(cluster, &load, member).await?;
    }
    renew(cluster, &load, files, old).await?;
    for turn in 0..MOVES {
        let (from, to) = move_leader(cluster).await.with_context(|| format!("move {turn}"))?;
        step(&load, &format!("move {turn}: member {from} hands over to member {to}")).await?;
    }
    let client = cluster.client(0, ClientOptions::default());
    let newest = revision(&client.put("compacted at", "").await?.header);
    client.compact(newest - 100).await?;
    step(&load, "history is compacted").await?;
    for member in cluster.present() {
        cluster.client_of(member).defragment().await?;
        step(&load, &format!("member {member} is defragmented")).await?;
    }
    for member in [5, 6] {
        leave(cluster, &load, member).await?;
    }
    step(&load, "three members").await?;
    judge(load, cluster).await
}

/// Every member is replaced by another one, and meanwhile all certificates, and the authority: both are trusted, then
/// all certificates are of the new one, then it is trusted alone.
async fn renew(cluster: &mut ProcessCluster, load: &Load, files: &Files, old: &Authority) -> Result<()> {
    files.sign_all(old, 2)?;
    files.serve_by(cluster, cluster.present(), 2).await?;
    step(load, "certificates are renewed").await?;
    replace(cluster, load, 0).await?;

    let new = Authority::new("new")?;
    files.trust(&[old, &new])?;
    files.serve_by(cluster, cluster.present(), 2).await?;
    step(load, "two authorities are trusted").await?;
    replace(cluster, load, 1).await?;

    files.sign_all(&new, 3)?;
    files.serve_by(cluster, cluster.present(), 3).await?;
    step(load, "certificates are of the new authority").await?;
    replace(cluster, load, 2).await?;

    files.trust(&[&new])?;
    files.serve_by(cluster, cluster.present(), 3).await?;
    let left = files.identity("left");
    old.sign(&left, "member", 9)?;
    files.keep_out(cluster, cluster.present(), &left).await.context("a certificate of the old authority")?;
    step(load, "the new authority is trusted alone").await?;
    for member in [3, 4] {
        replace(cluster, load, member).await?;
    }
    Ok(())
}

/// Another member comes for one that goes, which goes first.
async fn replace(cluster: &mut ProcessCluster, load: &Load, member: usize) -> Result<()> {
    leave(cluster, load, member).await?;
    join(cluster, load, 5 + member).await
}

async fn join(cluster: &mut ProcessCluster, load: &Load, member: usize) -> Result<()> {
    settle(load).await?;
    cluster.join(member).await.with_context(|| format!("member {member} joins"))?;
    step(load, &format!("member {member} joins")).await
}

async fn leave(cluster: &mut ProcessCluster, load: &Load, member: usize) -> Result<()> {
    settle(load).await?;
    cluster.leave(member).await.with_context(|| format!("member {member} leaves"))?;
    step(load, &format!("member {member} leaves")).await
}

/// Asks the leader to hand over to the member after it, and waits until that one leads; returns both. On a machine that
/// has much else to do it may take longer than the leader waits, and somebody else may be elected: then it is asked again.
async fn move_leader(cluster: &ProcessCluster) -> Result<(usize, usize)> {
    let asked = Instant::now();
    loop {
        let from = leader(cluster).await?;
        let members = cluster.present();
        let to = members.iter().copied().find(|member| *member > from).unwrap_or(members[0]);
        let target = cluster.id_of(to).await?;
        let moved = cluster.client_of(from).move_leader(target).await;
        let took_too_long = match &moved {
            Ok(_) => false,
            // It was deposed meanwhile.
            Err(error) if error.reason() == Some(Reason::NotLeader) && asked.elapsed() < RECOVERS_WITHIN => continue,
            Err(error) => {
                ensure!(error.to_string().contains("leader transfer took too long"), "{error}");
                true
            }
        };
        let answered = Instant::now();
        while answered.elapsed() < TWO_ELECTION_TIMEOUTS {
            if leader(cluster).await? == to {
                return Ok((from, to));
            }
        }
        ensure!(took_too_long && asked.elapsed() < RECOVERS_WITHIN, "member {to} does not lead");
    }
}

/// Waits until members may be changed again, and the cluster is at work.
async fn settle(load: &Load) -> Result<()> {
    sleep(SETTLED).await;
    load.puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await
}

/// Ends a step as soon as the cluster is at work, and tells how long a writer was held up meanwhile.
async fn step(load: &Load, what: &str) -> Result<()> {
    load.puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await.with_context(|| what.to_owned())?;
    let (at, gap) = (load.begun.elapsed(), load.puts.take_longest_gap());
    eprintln!("{:6.1} s  {what}: longest gap of a writer {gap:.0?}", at.as_secs_f64());
    Ok(())
}

/// Holds what became of the load against what clients were promised, and tells it.
async fn judge(load: Load, cluster: &ProcessCluster) -> Result<()> {
    let client = cluster.client(0, ClientOptions::default());
    let judged = load.judge(cluster, &client).await?;
    let members = client.member_list().await?.members.len();
    ensure!(members == 3, "{members} members are listed");
    for error in judged.all_errors() {
        ensure!(is_retryable(error), "a client was told {error}");
    }
    let stall = judged.record.longest_gap;
    let allowed = allowed_stall(std::env::var_os("CI").is_some());
    eprintln!(
        "{}: {:.0?}; {} puts acknowledged, {} open of which {} happened, {} refused; \
         {} calls on shared keys; {} errors, all retryable; longest write stall {stall:.0?} of {allowed:?} allowed",
        binary().display(),
        judged.lasted,
        judged.record.acknowledged.len(),
        judged.record.open.len(),
        judged.found.open,
        judged.record.refused.len(),
        judged.calls,
        judged.all_errors().count(),
    );
    ensure!(stall <= allowed, "a write was held up for {stall:.0?}, longer than {allowed:?}");
    Ok(())
}

/// How long a write may be held up.
fn allowed_stall(is_shared: bool) -> Duration {
    TWO_ELECTION_TIMEOUTS * if is_shared { SHARED_MACHINE } else { 1 }
}
