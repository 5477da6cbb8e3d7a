//! A member alone that ends and comes back on the data it left.

use std::time::Duration;

use anyhow::{Context, ensure};
use mainstay_client::proto::etcdserverpb::RangeRequest;
use mainstay_client::proto::etcdserverpb::kv_client::KvClient;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use super::session::Session;
use crate::keyspace::{PREFIX, key};
use crate::latency::{Recorder, Summary};
use crate::launch::Cluster;
use crate::options::Options;
use crate::process::Usage;

/// How long a member may take until it answers.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// How long to wait after a refusal. Small beside what is measured.
const POLL: Duration = Duration::from_millis(1);
/// How long a member gets to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// How a member came back after it was killed.
pub(crate) struct Restarted {
    /// From the kill to the first answer.
    pub(crate) latency: Summary,
    /// What the last start cost until then.
    pub(crate) usage: Usage,
}

/// Fills the store, kills the member and starts it again, some times, and waits each time for the first
/// linearizable read.
pub(crate) async fn kill_and_read(cluster: &mut Cluster, options: &Options, kills: u32) -> anyhow::Result<Restarted> {
    fill(cluster, options).await?;
    let recorder = Recorder::default();
    let mut usage = Usage::default();
    for _ in 0..kills {
        let began = Instant::now();
        cluster.kill(0)?;
        cluster.restart(0)?;
        first_read(cluster).await?;
        recorder.record(0, began.elapsed());
        usage = Usage::of(&cluster.pids())?;
    }
    expect_all(cluster, options).await?;
    Ok(Restarted { latency: recorder.summary(), usage })
}

/// What a member needs in memory.
pub(crate) struct Loaded {
    /// After the store was filled.
    pub(crate) loaded: Usage,
    /// After the member was stopped and started again.
    pub(crate) restarted: Usage,
}

/// Fills the store, stops the member and starts it again.
pub(crate) async fn load_and_restart(cluster: &mut Cluster, options: &Options) -> anyhow::Result<Loaded> {
    fill(cluster, options).await?;
    sleep(REST).await;
    let loaded = Usage::of(&cluster.pids())?;
    cluster.terminate(0).await?;
    cluster.restart(0)?;
    cluster.wait_until_ready().await?;
    sleep(REST).await;
    let restarted = Usage::of(&cluster.pids())?;
    expect_all(cluster, options).await?;
    Ok(Loaded { loaded, restarted })
}

async fn fill(cluster: &Cluster, options: &Options) -> anyhow::Result<()> {
    let session = Session::connect(&cluster.endpoints(), options)?;
    session.warm_up().await?;
    session.fill(options).await
}

/// Waits for the answer to a linearizable read of one key. Each attempt is one request, at once: a client that
/// waits longer after each failure would be what is measured.
async fn first_read(cluster: &mut Cluster) -> anyhow::Result<()> {
    let deadline = Instant::now() + ANSWER_MAX;
    let endpoint = cluster.endpoints().remove(0);
    let channel = Endpoint::from_shared(endpoint)?.tcp_nodelay(true).timeout(ANSWER_MAX).connect_lazy();
    let mut client = KvClient::new(channel);
    loop {
        let request = RangeRequest { key: key(0), ..RangeRequest::default() };
        match client.range(request).await {
            Ok(response) => {
                ensure!(response.into_inner().kvs.len() == 1, "a key that was written is not there");
                return Ok(());
            }
            Err(status) => {
                cluster.check_alive()?;
                ensure!(Instant::now() < deadline, "no answer after a restart: {status}");
                sleep(POLL).await;
            }
        }
    }
}

/// A server that is back fast because it lost keys shall not win.
async fn expect_all(cluster: &Cluster, options: &Options) -> anyhow::Result<()> {
    let session = Session::connect(&cluster.endpoints(), options)?;
    let count = session.client(0).range(mainstay_client::Range::prefix(PREFIX).count_only()).await;
    let count = count.context("counting the keys after a restart")?.count;
    ensure!(count as u64 == options.keys, "{count} keys after a restart, not {}", options.keys);
    Ok(())
}
