//! The life of a cluster while clients write and one watches: it grows, every member is replaced, so are all
//! certificates and the CA that signed them, the leader moves, it is compacted and defragmented, it shrinks.
//!
//! etcd takes a new certificate and never a new CA, so that it does not pass.

use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use mainstay_client::{ClientOptions, Reason, revision};
use mainstay_tests::checker::history::linearizable;
use mainstay_tests::checker::{WatchOrder, equal_members, seen_once};
use mainstay_tests::secured::{Authority, Files};
use mainstay_tests::workload::{Registers, UniquePuts, is_retryable};
use mainstay_tests::{Cluster, ProcessCluster, binary, leader, wait_until_serving};
use tokio::time::{Instant, sleep};

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
/// after another. It is printed beside what was measured, which depends on the machine.
const TWO_ELECTION_TIMEOUTS: Duration = Duration::from_secs(2);
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
    let watch = WatchOrder::spawn(&cluster.client(0, ClientOptions::default()), PREFIX).await?;
    let load = Load::begin(cluster);
    load.step("one member").await?;

    for member in 1..5 {
        join(cluster, &load, member).await?;
    }
    renew(cluster, &load, files, old).await?;
    for turn in 0..MOVES {
        let (from, to) = move_leader(cluster).await.with_context(|| format!("move {turn}"))?;
        load.step(&format!("move {turn}: member {from} hands over to member {to}")).await?;
    }
    let client = cluster.client(0, ClientOptions::default());
    let newest = revision(&client.put("compacted at", "").await?.header);
    client.compact(newest - 100).await?;
    load.step("history is compacted").await?;
    for member in cluster.present() {
        cluster.client_of(member).defragment().await?;
        load.step(&format!("member {member} is defragmented")).await?;
    }
    for member in [5, 6] {
        leave(cluster, &load, member).await?;
    }
    load.step("three members").await?;
    load.judge(cluster, watch).await
}

/// Every member is replaced by another one, and meanwhile all certificates, and the authority: both are trusted, then
/// all certificates are of the new one, then it is trusted alone.
async fn renew(cluster: &mut ProcessCluster, load: &Load, files: &Files, old: &Authority) -> Result<()> {
    files.sign_all(old, 2)?;
    files.serve_by(cluster, cluster.present(), 2).await?;
    load.step("certificates are renewed").await?;
    replace(cluster, load, 0).await?;

    let new = Authority::new("new")?;
    files.trust(&[old, &new])?;
    files.serve_by(cluster, cluster.present(), 2).await?;
    load.step("two authorities are trusted").await?;
    replace(cluster, load, 1).await?;

    files.sign_all(&new, 3)?;
    files.serve_by(cluster, cluster.present(), 3).await?;
    load.step("certificates are of the new authority").await?;
    replace(cluster, load, 2).await?;

    files.trust(&[&new])?;
    files.serve_by(cluster, cluster.present(), 3).await?;
    let left = files.identity("left");
    old.sign(&left, "member", 9)?;
    files.keep_out(cluster, cluster.present(), &left).await.context("a certificate of the old authority")?;
    load.step("the new authority is trusted alone").await?;
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
    load.settle().await?;
    cluster.join(member).await.with_context(|| format!("member {member} joins"))?;
    load.step(&format!("member {member} joins")).await
}

async fn leave(cluster: &mut ProcessCluster, load: &Load, member: usize) -> Result<()> {
    load.settle().await?;
    cluster.leave(member).await.with_context(|| format!("member {member} leaves"))?;
    load.step(&format!("member {member} leaves")).await
}

/// Asks the leader to hand over to the member after it, and waits until that one leads; returns both.
async fn move_leader(cluster: &ProcessCluster) -> Result<(usize, usize)> {
    let asked = Instant::now();
    loop {
        let from = leader(cluster).await?;
        let members = cluster.present();
        let to = members.iter().copied().find(|member| *member > from).unwrap_or(members[0]);
        let target = cluster.id_of(to).await?;
        match cluster.client_of(from).move_leader(target).await {
            Ok(_) => {}
            // It was deposed meanwhile: the one that leads now is asked.
            Err(error) if error.reason() == Some(Reason::NotLeader) && asked.elapsed() < RECOVERS_WITHIN => continue,
            // It may take longer than the leader waits, on a machine that has much else to do.
            Err(error) => ensure!(error.to_string().contains("leader transfer took too long"), "{error}"),
        }
        while leader(cluster).await? != to {
            ensure!(asked.elapsed() < RECOVERS_WITHIN, "member {to} does not lead");
        }
        return Ok((from, to));
    }
}

/// The clients at work, and when they began.
struct Load {
    puts: UniquePuts,
    registers: Registers,
    begun: Instant,
}

impl Load {
    fn begin(cluster: &ProcessCluster) -> Self {
        let client = |number: usize| cluster.client(number % PLACES, ClientOptions::default());
        let puts = UniquePuts::spawn(PREFIX, (0..WRITERS).map(client).collect(), Duration::from_millis(10));
        let registers = Registers::spawn((0..SHARERS).map(client).collect(), Duration::from_millis(50));
        Self { puts, registers, begun: Instant::now() }
    }

    /// Waits until members may be changed again, and the cluster is at work.
    async fn settle(&self) -> Result<()> {
        sleep(SETTLED).await;
        self.puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await
    }

    /// Ends a step as soon as the cluster is at work, and tells how long a writer was held up meanwhile.
    async fn step(&self, what: &str) -> Result<()> {
        self.puts.wait_for_more(PUTS_BETWEEN, RECOVERS_WITHIN).await.with_context(|| what.to_owned())?;
        let (at, gap) = (self.begun.elapsed(), self.puts.take_longest_gap());
        eprintln!("{:6.1} s  {what}: longest gap of a writer {gap:.0?}", at.as_secs_f64());
        Ok(())
    }

    /// Ends the load, and holds what became of it against what clients were promised.
    async fn judge(self, cluster: &ProcessCluster, watch: WatchOrder) -> Result<()> {
        let lasted = self.begun.elapsed();
        let record = self.puts.finish().await?;
        let (history, errors) = self.registers.finish().await?;
        wait_until_serving(cluster, cluster.present()).await?;
        let client = cluster.client(0, ClientOptions::default());
        let found = seen_once(&client, PREFIX, &record, watch).await?;
        linearizable::check(&history).map_err(Error::msg)?;
        equal_members(cluster).await?;
        let members = client.member_list().await?.members.len();
        ensure!(members == 3, "{members} members are listed");
        for error in record.errors.iter().chain(&errors) {
            ensure!(is_retryable(error), "a client was told {error}");
        }
        let stall = record.longest_gap;
        let is_within = if stall <= TWO_ELECTION_TIMEOUTS { "within" } else { "longer than" };
        eprintln!(
            "{}: {lasted:.0?}; {} puts acknowledged, {} open of which {} happened, {} refused; \
             {} calls on shared keys; {} errors, all retryable; longest write stall {stall:.0?}, \
             {is_within} two election timeouts ({TWO_ELECTION_TIMEOUTS:?})",
            binary().display(),
            record.acknowledged.len(),
            record.open.len(),
            found.open,
            record.refused.len(),
            history.operations.len(),
            record.errors.len() + errors.len(),
        );
        Ok(())
    }
}
