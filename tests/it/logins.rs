//! A storm of logins. Hashing a password takes tens of milliseconds by design: 1,000 a second is far
//! more than two processors can answer, and must cost those who log in, not the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mainstay_client::{Client, User};
use mainstay_tests::{Cluster, ProcessCluster};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// For how long logins are asked for, and how often.
const STORM: Duration = Duration::from_secs(10);
const LOGIN_EVERY: Duration = Duration::from_millis(1);
/// How long a put may wait meanwhile. Far above what one takes, far below a cluster that is stuck.
const PUT_WITHIN: Duration = Duration::from_secs(5);
/// How many put side by side.
const WRITERS: usize = 8;
/// How long whoever logs in waits.
const LOGIN_WITHIN: Duration = Duration::from_secs(5);

/// etcd 3.7.1 does not pass this one on two processors: its puts wait for more than five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_moves_no_leader() {
    let cluster = ProcessCluster::start_all(3).await.unwrap();
    storm(&cluster).await.unwrap();
}

async fn storm(cluster: &ProcessCluster) -> Result<()> {
    let open: Vec<Client> = (0..3).map(|member| cluster.client_of(member)).collect();
    open[0].role_add("root").await?;
    open[0].user_add("root", "secret").await?;
    open[0].user_grant_role("root", "root").await?;
    open[0].auth_enable().await?;
    let root = User::new("root", "secret");
    let clients: Vec<Client> = open.iter().map(|client| client.with_user(root.clone())).collect();
    // All of them share this token.
    clients[0].log_in().await?;
    let before = terms(&clients).await?;

    let puts = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let until = Instant::now() + STORM;
    for writer in 0..WRITERS {
        writers.spawn(put_until(until, writer, clients[writer % 3].clone(), Arc::clone(&puts)));
    }
    let (asked, answered) = log_in_until(until, &open).await?;
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let puts = puts.load(Ordering::Relaxed);
    #[allow(clippy::print_stdout)] // figures for whoever reads the run
    {
        println!("{asked} logins asked for in {STORM:?}, {answered} answered with a token, {puts} puts meanwhile");
    }
    // Otherwise this was no storm.
    ensure!(asked >= 5_000, "{asked} logins were asked for");
    ensure!(answered > 0 && puts > 0, "nobody is served");
    let after = terms(&clients).await?;
    ensure!(after == before, "terms were {before:?} and are {after:?}");
    Ok(())
}

async fn terms(clients: &[Client]) -> Result<Vec<u64>> {
    let mut terms = Vec::new();
    for client in clients {
        terms.push(client.status().await?.raft_term);
    }
    Ok(terms)
}

async fn put_until(until: Instant, writer: usize, client: Client, puts: Arc<AtomicU64>) -> Result<()> {
    let key = format!("k{writer}");
    while Instant::now() < until {
        let put = timeout(PUT_WITHIN, client.put(key.clone(), "v")).await;
        put.with_context(|| format!("a put is not answered in {PUT_WITHIN:?}"))??;
        puts.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks at its own pace, whether answers come or not; returns how many were asked for and answered.
async fn log_in_until(until: Instant, open: &[Client]) -> Result<(u64, u64)> {
    let mut ticks = interval(LOGIN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut logins, mut asked, mut answered) = (JoinSet::new(), 0, 0);
    while Instant::now() < until {
        ticks.tick().await;
        asked += 1;
        // One without a token, each time.
        let client = open[asked % open.len()].with_user(User::new("root", "secret"));
        logins.spawn(async move { timeout(LOGIN_WITHIN, client.log_in()).await.is_ok_and(|answer| answer.is_ok()) });
        while let Some(done) = logins.try_join_next() {
            answered += u64::from(done?);
        }
    }
    sleep(Duration::from_millis(200)).await;
    logins.shutdown().await;
    Ok((asked as u64, answered))
}
