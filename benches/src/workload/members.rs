//! The members of a cluster, each asked for itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use mainstay_client::{Client, ClientOptions, Range};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::keyspace::PREFIX;
use crate::launch::Cluster;

/// How long a member may take to say where it stands; one that does not serve takes all of it.
const STATUS_MAX: Duration = Duration::from_millis(500);
/// How often members are asked.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// How long a cluster may be without a leader.
const LEADER_MAX: Duration = Duration::from_secs(60);
/// How long counting all the keys may take.
const COUNT_MAX: Duration = Duration::from_secs(120);
/// How long a member may take to show its metrics.
const METRICS_MAX: Duration = Duration::from_secs(10);

/// A client of each member alone.
pub(super) struct Members {
    clients: Vec<Client>,
}

impl Members {
    pub(super) fn connect(endpoints: &[String]) -> anyhow::Result<Self> {
        let connect = |endpoint: &String| {
            Client::connect([endpoint], ClientOptions { request_timeout: STATUS_MAX, ..ClientOptions::default() })
        };
        Ok(Self { clients: endpoints.iter().map(connect).collect::<Result<_, _>>()? })
    }

    /// The client of a member.
    pub(super) fn client(&self, member: usize, request_timeout: Duration) -> Client {
        self.clients[member].with_timeout(request_timeout)
    }

    /// Which member leads. Waits until one does.
    pub(super) async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + LEADER_MAX;
        loop {
            for (member, client) in self.clients.iter().enumerate() {
                let Ok(status) = client.status().await else { continue };
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Ok(member);
                }
            }
            ensure!(Instant::now() < deadline, "no member leads");
            sleep(POLL).await;
        }
    }

    /// The applied index of each member; `None` where it does not say.
    pub(super) async fn applied(&self) -> Vec<Option<u64>> {
        let mut applied = Vec::with_capacity(self.clients.len());
        for client in &self.clients {
            applied.push(client.status().await.ok().map(|status| status.raft_applied_index));
        }
        applied
    }

    /// Waits until all members have applied the same.
    pub(super) async fn wait_until_level(&self, cluster: &mut Cluster, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut level = Level::default();
        loop {
            let applied = self.applied().await;
            if level.reached(&applied) {
                return Ok(());
            }
            // One that ended would be waited for until the limit.
            cluster.check_alive()?;
            ensure!(Instant::now() < deadline, "not level after {limit:?}, the applied indexes are {applied:?}");
            sleep(POLL).await;
        }
    }

    /// Makes sure that each member has so many keys: one that is fast because it lost some shall not win.
    pub(super) async fn expect_keys(&self, expected: u64) -> anyhow::Result<()> {
        for (member, client) in self.clients.iter().enumerate() {
            // Linearizable: the member answers from what it has, but not before it has all.
            let range = Range::prefix(PREFIX).count_only();
            let response = client.with_timeout(COUNT_MAX).range(range).await.context("counting the keys")?;
            let count = response.count;
            ensure!(count as u64 == expected, "member {member} has {count} keys, not {expected}");
        }
        Ok(())
    }
}

/// Whether the members have applied the same.
///
/// The load goes on meanwhile, and the members are asked one after the other. So they count as level
/// when each has what the foremost one had at the look before.
#[derive(Debug, Default)]
pub(super) struct Level {
    foremost: Option<u64>,
}

impl Level {
    /// Takes another look at the applied indexes.
    pub(super) fn reached(&mut self, applied: &[Option<u64>]) -> bool {
        let all: Option<Vec<u64>> = applied.iter().copied().collect();
        let before = self.foremost;
        // Without an answer of each, nobody knows who was foremost.
        self.foremost = all.as_ref().and_then(|all| all.iter().copied().max());
        match (all, before) {
            (Some(all), Some(before)) => all.iter().all(|applied| *applied >= before),
            _ => false,
        }
    }
}

/// How many snapshots a member has received since it was started, by its metrics; `None` where they
/// cannot be read.
pub(super) async fn snapshots_received(endpoint: &str) -> Option<u64> {
    let page = timeout(METRICS_MAX, metrics(endpoint)).await.ok()?.ok()?;
    Some(sum(&page, "etcd_network_snapshot_receive_success"))
}

/// How many bytes of snapshots have come to a member since it was started, also of those that broke off; `None` where
/// its metrics do not tell, as etcd's.
pub(super) async fn snapshot_bytes_received(endpoint: &str) -> Option<u64> {
    const NAME: &str = "mainstay_network_snapshot_received_bytes_total";
    let page = timeout(METRICS_MAX, metrics(endpoint)).await.ok()?.ok()?;
    page.contains(NAME).then(|| sum(&page, NAME))
}

async fn metrics(endpoint: &str) -> std::io::Result<String> {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer comes in one piece, and ends with the connection.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// The sum of a counter's series.
fn sum(page: &str, name: &str) -> u64 {
    let series = page.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_level_when_each_has_what_the_foremost_had() {
        let mut level = Level::default();
        assert!(!level.reached(&[Some(10), Some(10), Some(10)]), "there was no look before");
        assert!(level.reached(&[Some(12), Some(10), Some(11)]));
        assert!(!level.reached(&[Some(15), Some(15), Some(11)]));
        assert!(!level.reached(&[Some(15), None, Some(15)]));
        assert!(!level.reached(&[Some(15), Some(15), Some(15)]), "one had not answered before");
        assert!(level.reached(&[Some(15), Some(15), Some(15)]));
    }

    #[test]
    fn the_series_of_a_counter_are_added_up() {
        let page = "HTTP/1.0 200 OK\r\n\r\n# TYPE snapshots counter\nsnapshots{From=\"a\"} 2\nsnapshots{From=\"b\"} 1\n\
                    snapshots_failed{From=\"a\"} 7\n";
        assert_eq!(sum(page, "snapshots"), 3);
        assert_eq!(sum(page, "snapshots_failed"), 7);
        assert_eq!(sum(page, "nothing"), 0);
    }
}
