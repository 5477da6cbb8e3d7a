//! A simulated member: the node on a disk that forgets, behind the simulated network.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_raft_log::disk::sim::{SimLatency, SimMedium};
use mainstay_server::api::{Rpc, RpcKind, RpcObserver};
use mainstay_server::config::{Config, Given, Invocation};
use mainstay_server::engine::mem::MemHome;
use mainstay_server::env::transport;
use mainstay_server::node::{Node, Storage, Surroundings};

/// What survives a crash of a member, and how it is started again.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) index: usize,
    pub(crate) log: SimMedium,
    pub(crate) store: MemHome,
    size: usize,
}

/// The address of a member on the simulated network.
fn ip(index: usize) -> String {
    format!("10.0.0.{}", index + 1)
}

impl Member {
    pub(crate) fn new(index: usize, size: usize, seed: u64) -> Self {
        let log = SimMedium::new(seed.wrapping_mul(31).wrapping_add(index as u64));
        // A sync takes its time, so that there is something that was written and is not safe yet.
        let millis = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
        log.set_latency(SimLatency { sync: millis(1, 12), ..SimLatency::default() });
        Self { index, log, store: MemHome::new(), size }
    }

    pub(crate) fn name(&self) -> String {
        format!("m{}", self.index + 1)
    }

    pub(crate) fn address(&self) -> std::net::IpAddr {
        ip(self.index).parse().expect("a member's address is made from its number")
    }

    /// Where clients reach it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:2379", ip(self.index))
    }

    /// What a power cut leaves: of the log what was synced and some of the rest, of the store what was flushed.
    pub(crate) fn lose_unsynced(&self) {
        self.log.crash();
        self.store.crash();
    }

    fn config(&self) -> Config {
        let cluster: Vec<String> =
            (0..self.size).map(|index| format!("m{}=http://{}:2380", index + 1, ip(index))).collect();
        let own = ip(self.index);
        let arguments = [
            "--name".to_owned(),
            self.name(),
            format!("--listen-peer-urls=http://{own}:2380"),
            format!("--initial-advertise-peer-urls=http://{own}:2380"),
            format!("--listen-client-urls=http://{own}:2379"),
            format!("--advertise-client-urls=http://{own}:2379"),
            format!("--initial-cluster={}", cluster.join(",")),
            // Small enough that snapshots and purges happen within a run.
            "--snapshot-count=200".to_owned(),
            "--snapshot-catchup-entries=50".to_owned(),
        ];
        let given = Given {
            arguments: arguments.to_vec(),
            variables: Vec::new(),
            read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        match given.understand() {
            Ok(Invocation::Serve(config, _)) => *config,
            other => panic!("the flags of a simulated member are refused: {other:?}"),
        }
    }

    /// Runs until it fails; a failure is a finding, for the scenarios break nothing that a member may not survive.
    pub(crate) async fn run(self) {
        let config = self.config();
        let storage = Storage {
            home: Arc::new(self.store.clone()),
            disk: Arc::new(self.log.mount()),
            log_segment_bytes: 256 * 1024,
        };
        let surroundings = Surroundings {
            run_log: Box::new(|task| drop(tokio::task::spawn(task.run()))),
            resolve: Box::new(|url| BTreeSet::from([url.as_str().to_owned()])),
            log_observer: None,
            rpc_observer: Arc::new(Silent),
            applied_observer: None,
        };
        let mut node = match Node::open(&config, storage, surroundings).await {
            Ok(node) => node,
            Err(error) => panic!("{} does not start: {error}", self.name()),
        };
        let serve = |port, routes| {
            let address = SocketAddr::new(self.address(), port);
            tokio::task::spawn(async move { transport::serve(address, routes).await })
        };
        let _peers = serve(2380, node.peer_routes());
        let _clients = serve(2379, node.client_routes());
        if let Err(error) = node.start().await {
            panic!("{} does not start: {error}", self.name());
        }
        let reason = node.failed().await;
        panic!("{} failed: {reason}", self.name());
    }
}

/// Nobody counts requests in a simulation.
struct Silent;

impl RpcObserver for Silent {
    fn started(&self, _rpc: &'static Rpc) {}
    fn received(&self, _rpc: &'static Rpc) {}
    fn sent(&self, _rpc: &'static Rpc) {}
    fn handled(&self, _rpc: &'static Rpc, _code: tonic::Code, _elapsed: Duration) {}
    fn client_request(&self, _kind: RpcKind, _version: &str) {}
}

/// Connects a client over the simulated network.
pub(crate) struct SimConnector;

impl mainstay_client::Connector for SimConnector {
    type Service = transport::PeerChannel;

    fn connect(&self, endpoint: &str) -> Result<Self::Service, Box<dyn std::error::Error + Send + Sync>> {
        Ok(transport::connect(endpoint, Duration::from_secs(1))?)
    }
}
