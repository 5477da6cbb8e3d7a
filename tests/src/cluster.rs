//! What a test can do to the members of a cluster, whatever they are made of.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use mainstay_client::{Client, ClientOptions, Range};
use tokio::time::{Instant, sleep};

/// Members that serve etcd's API, numbered from 0. All of them run when a cluster is made.
///
/// A member that is killed loses everything but what it made durable; one that is started again
/// finds its data and its addresses as before.
pub trait Cluster: Send {
    /// How many members there are, running or not, or may be one day.
    fn size(&self) -> usize;

    /// Those that are members now, running or not.
    fn present(&self) -> Vec<usize> {
        (0..self.size()).collect()
    }

    /// A client of all members, beginning with the member `first`, with connections of its own.
    fn client(&self, first: usize, options: ClientOptions) -> Client;

    /// A client of one member.
    fn client_of(&self, member: usize) -> Client {
        self.client(member, ClientOptions::default()).only(0)
    }

    /// Starts a member that is not running; does not wait until it serves.
    fn start(&mut self, member: usize) -> impl Future<Output = Result<()>> + Send;

    /// Ends a member without warning, as `kill -9` or a power cut.
    fn kill(&mut self, member: usize) -> impl Future<Output = Result<()>> + Send;

    /// Asks a member to end, and waits until it did.
    fn stop(&mut self, member: usize) -> impl Future<Output = Result<()>> + Send;

    /// Halts a member with its connections open, as a machine that hangs.
    fn pause(&mut self, member: usize) -> Result<()>;

    /// Lets a paused member go on.
    fn resume(&mut self, member: usize) -> Result<()>;

    /// Cuts a member off from the other members, in both directions; its clients still reach it.
    fn isolate(&mut self, member: usize) -> Result<()>;

    /// Ends every isolation.
    fn heal(&mut self) -> Result<()>;
}

/// How long a cluster may take to serve again once a majority of it can.
const SERVING_WITHIN: Duration = Duration::from_secs(60);

/// Waits until each of these members answers a linearizable read; returns how long it took.
pub async fn wait_until_serving<C: Cluster>(cluster: &C, members: impl IntoIterator<Item = usize>) -> Result<Duration> {
    let begun = Instant::now();
    for member in members {
        let client = cluster.client_of(member).with_timeout(Duration::from_secs(2));
        while let Err(error) = client.range(Range::key("serving?")).await {
            if begun.elapsed() > SERVING_WITHIN {
                bail!("member {member} does not serve after {SERVING_WITHIN:?}: {error}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(begun.elapsed())
}

/// Waits until a member says of itself that it leads, and returns it.
pub async fn leader<C: Cluster>(cluster: &C) -> Result<usize> {
    let begun = Instant::now();
    while begun.elapsed() < SERVING_WITHIN {
        // The highest term decides: a leader that was cut off still believes in itself.
        let mut found = None;
        for member in cluster.present() {
            let client = cluster.client_of(member).with_timeout(Duration::from_secs(1));
            if let Ok(status) = client.status().await
                && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
            {
                found = found.max(Some((status.raft_term, member)));
            }
        }
        if let Some((_, member)) = found {
            return Ok(member);
        }
        sleep(Duration::from_millis(20)).await;
    }
    bail!("no member leads after {SERVING_WITHIN:?}")
}
