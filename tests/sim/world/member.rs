//! A simulated member: the node on disks that forget, behind the simulated network.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use madsim::runtime::{Handle, NodeHandle};
use mainstay_proto::mainstay::StateDigest;
use mainstay_raft_log::disk::sim::{SimLatency, SimMedium};
use mainstay_server::apply::AlarmView;
use mainstay_server::config::{Config, Given, Invocation};
use mainstay_server::engine::layout::{self, meta};
use mainstay_server::engine::mem::MemHome;
use mainstay_server::engine::{Batch, EngineError, EngineHome, Family, mem};
use mainstay_server::env::transport;
use mainstay_server::lease::LeaseView;
use mainstay_server::metrics::Metrics;
use mainstay_server::mvcc::Store;
use mainstay_server::node::{Node, Occupancy, Storage, Surroundings};
use mainstay_server::raft::{self, Leadership};
use mainstay_server::watch::Bounds;
use mainstay_tests::checker::applied::Position;
use prost::Message;
use tokio_stream::StreamExt;

use super::ledger::Ledger;
use crate::plan::Plan;
use crate::recorder::Recorder;

/// What survives a crash of a member, and how it is started again.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) index: usize,
    disks: Arc<Mutex<Disks>>,
    plan: Arc<Plan>,
    seed: u64,
    ledger: Ledger,
    recorder: Recorder,
    life: Arc<Mutex<Option<Life>>>,
    way: Arc<Mutex<Way>>,
}

/// How a member comes into the cluster, and where its peers find it.
#[derive(Clone, Debug)]
struct Way {
    /// The members that it is to join, itself among them; `None` for a first member.
    joins: Option<String>,
    /// Whether a process of it has come so far as to take part.
    has_started: bool,
    /// The ports for its peers; the last one is the one that it is to be found at.
    ports: Vec<u16>,
}

/// Where peers reach a member at first, and where when it has moved.
const PEER_PORTS: [u16; 2] = [2380, 2382];

impl Way {
    /// The port that it is to be found at.
    fn port(&self) -> u16 {
        self.ports.last().copied().unwrap_or(PEER_PORTS[0])
    }
}

fn peer_url(index: usize, port: u16) -> String {
    format!("http://{}:{port}", address(index))
}

/// What can be asked of a member that runs.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) leadership: Leadership,
    pub(crate) occupancy: Arc<dyn Fn() -> Occupancy + Send + Sync>,
    pub(crate) leases: LeaseView,
    pub(crate) alarms: AlarmView,
    pub(crate) store: Store,
    /// Whether it knows of a member that was removed.
    pub(crate) knows_removed: Arc<dyn Fn(u64) -> bool + Send + Sync>,
    /// What peers call.
    peer_routes: tonic::service::Routes,
}

/// A member's disks. They are replaced when it loses them.
#[derive(Clone)]
pub(crate) struct Disks {
    pub(crate) log: SimMedium,
    pub(crate) store: MemHome,
}

/// The address of a member on the simulated network.
fn address(index: usize) -> String {
    format!("10.0.0.{}", index + 1)
}

impl Member {
    pub(crate) fn new(index: usize, plan: Arc<Plan>, seed: u64, ledger: Ledger, recorder: Recorder) -> Self {
        let seed = seed.wrapping_mul(31).wrapping_add(index as u64);
        let disks = Disks { log: new_log(&plan, seed), store: new_store(&plan) };
        let way = Way { joins: None, has_started: false, ports: vec![PEER_PORTS[0]] };
        let way = Arc::new(Mutex::new(way));
        Self { index, disks: Arc::new(Mutex::new(disks)), plan, seed, ledger, recorder, life: Arc::default(), way }
    }

    /// The disks that it has now.
    pub(crate) fn disks(&self) -> Disks {
        self.disks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Gives it empty disks in place of some.
    pub(crate) fn replace_disks(&self, log: bool, store: bool) {
        let mut disks = self.disks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log {
            disks.log = new_log(&self.plan, self.seed.wrapping_add(1));
        }
        if store {
            disks.store = new_store(&self.plan);
        }
    }

    /// Makes its stored state another than what was applied, while it is down; whether there was one, where that is
    /// certain. What clients could read stays as it is, as nobody may be told anything else before it is found.
    pub(crate) fn corrupt(&self) -> Option<bool> {
        let corrupt = || -> Result<bool, EngineError> {
            let engine = self.disks().store.open()?;
            let Some(stored) = engine.get(Family::Meta, meta::DIGEST)? else { return Ok(false) };
            let mut digest = StateDigest::decode(stored).expect("a member stored it");
            let Some(value) = &mut digest.value else { return Ok(false) };
            *value = value.wrapping_add(1 << self.index);
            let mut batch = Batch::default();
            batch.put(Family::Meta, meta::DIGEST, digest.encode_to_vec());
            engine.write(batch)?;
            engine.flush()?;
            Ok(true)
        };
        // Another fault of the disk may hinder it half way.
        corrupt().ok()
    }

    /// What can be asked of its present process, or of the last one.
    pub(crate) fn life(&self) -> Option<Life> {
        self.life.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Sets how long the log's disk takes: as planned, and so much more.
    pub(crate) fn slow_down(&self, more: Duration) {
        self.disks().log.set_latency(latency(&self.plan, more));
    }

    pub(crate) fn name(&self) -> String {
        format!("m{}", self.index + 1)
    }

    pub(crate) fn address(&self) -> IpAddr {
        address(self.index).parse().expect("a member's address is made from its number")
    }

    /// Where clients reach it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:2379", address(self.index))
    }

    fn config(&self) -> Config {
        let way = self.way().clone();
        let port = way.port();
        let founders = || {
            let founder = |index| format!("m{}={}", index + 1, peer_url(index, PEER_PORTS[0]));
            (0..self.plan.members).map(founder).collect::<Vec<String>>().join(",")
        };
        let state = if way.joins.is_some() { "existing" } else { "new" };
        let cluster = way.joins.unwrap_or_else(founders);
        let own = address(self.index);
        let mut arguments = vec![
            format!("--name={}", self.name()),
            format!("--listen-peer-urls=http://{own}:{port}"),
            format!("--initial-advertise-peer-urls=http://{own}:{port}"),
            format!("--initial-cluster-state={state}"),
            format!("--listen-client-urls=http://{own}:2379"),
            format!("--advertise-client-urls=http://{own}:2379"),
            format!("--initial-cluster={}", cluster),
            format!("--heartbeat-interval={}", self.plan.heartbeat.as_millis()),
            format!("--election-timeout={}", self.plan.heartbeat.as_millis() * 10),
            format!("--snapshot-count={}", self.plan.snapshot_count),
            format!("--experimental-snapshot-catchup-entries={}", self.plan.catchup_entries),
            format!("--snapshot-send-rate={}", self.plan.snapshot_send_rate),
            // A request fits into a record of a log with segments so small.
            format!("--max-request-bytes={}", self.plan.segment_bytes / 2),
            "--watch-progress-notify-interval=3s".to_owned(),
            // The least that there is.
            "--bcrypt-cost=4".to_owned(),
        ];
        arguments.extend(self.plan.quota.map(|quota| format!("--quota-backend-bytes={}", quota.bytes)));
        let given =
            Given { arguments, variables: Vec::new(), read_file: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        match given.understand() {
            Ok(Invocation::Serve(config, _)) => *config,
            other => panic!("the flags of a simulated member are refused: {other:?}"),
        }
    }

    /// Runs until it fails, and says why.
    pub(crate) async fn run(self) -> String {
        let config = self.config();
        let disks = self.disks();
        let view = self.ledger.of(self.name(), stored_position(&disks.store));
        let storage = Storage {
            home: Arc::new(disks.store),
            disk: Arc::new(disks.log.mount()),
            log_segment_bytes: self.plan.segment_bytes,
            store_flush_bytes: self.plan.flush_bytes,
        };
        let surroundings = Surroundings {
            run_log: Box::new(|task| drop(tokio::task::spawn(task.run()))),
            resolve: Box::new(|url| BTreeSet::from([url.as_str().to_owned()])),
            discover: None,
            dialer: transport::Dialer,
            log_observer: None,
            metrics: Metrics::new(),
            rpc_observer: Arc::new(()),
            tracer: None,
            applied_observer: Some(view.clone()),
            read_key: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
            watch_bounds: if self.plan.small_watches { Bounds::SMALL } else { Bounds::STANDARD },
            resident: None,
            newest_format: layout::FORMAT,
            gather_from: 2,
        };
        let mut node = match Node::open(&config, storage, surroundings).await {
            Ok(node) => node,
            Err(error) => return format!("does not start: {error}"),
        };
        let serve = |port, routes| {
            let address = SocketAddr::new(self.address(), port);
            tokio::task::spawn(async move { transport::serve(address, routes).await })
        };
        let ports = self.way().ports.clone();
        let _peers: Vec<_> = ports.into_iter().map(|port| serve(port, node.peer_routes())).collect();
        let _clients = serve(2379, node.client_routes());
        let (leadership, occupancy) = (node.leadership(), Arc::new(node.occupancy()));
        let views = note_leaderships(leadership.clone(), self.index, self.recorder.clone());
        drop(tokio::task::spawn(views));
        let (leases, alarms) = (node.services().leases.clone(), node.services().alarms.clone());
        view.has_state(leases.clone(), alarms.clone());
        let services = node.services();
        let store = services.store.clone();
        let knows_removed = Arc::new(move |id| services.gateway.is_removed(id));
        let peer_routes = node.peer_routes();
        let life = Life { leadership, occupancy, leases, alarms, store, knows_removed, peer_routes };
        self.life.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(life);
        if let Err(error) = node.start().await {
            return format!("does not start: {error}");
        }
        self.way().has_started = true;
        node.failed().await
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// It is to join these members, itself among them.
    pub(crate) fn is_to_join(&self, cluster: String) {
        self.way().joins = Some(cluster);
    }

    /// Whether it was told to join, and no process of it has come so far as to take part.
    pub(crate) fn is_joining(&self) -> bool {
        let way = self.way();
        way.joins.is_some() && !way.has_started
    }

    /// Whether a process of it has come so far as to take part.
    pub(crate) fn has_started(&self) -> bool {
        self.way().has_started
    }

    /// Another member takes its place.
    pub(crate) fn forget(&self) {
        self.dies();
        *self.way() = Way { joins: None, has_started: false, ports: vec![PEER_PORTS[0]] };
    }

    /// There is no process of it that could be asked.
    pub(crate) fn dies(&self) {
        self.life.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Where peers are to find it.
    pub(crate) fn peer_url(&self) -> String {
        peer_url(self.index, self.way().port())
    }

    /// Where peers find it that has not moved.
    pub(crate) fn first_peer_url(&self) -> String {
        peer_url(self.index, PEER_PORTS[0])
    }

    /// Whether a peer URL is one of this machine's.
    pub(crate) fn has_url(&self, url: &str) -> bool {
        url.starts_with(&format!("http://{}:", address(self.index)))
    }

    /// It listens at another port, too, from now on and after each start; the URL there.
    pub(crate) fn moves(&self, node: &NodeHandle, is_up: bool) -> String {
        let port = {
            let mut way = self.way();
            let new = if way.port() == PEER_PORTS[0] { PEER_PORTS[1] } else { PEER_PORTS[0] };
            let listens = way.ports.contains(&new);
            way.ports.retain(|port| *port != new);
            way.ports.push(new);
            (!listens).then_some(new)
        };
        // The handle of a node that was ended once is one of its first life.
        let node = Handle::current().get_node(node.id());
        if let (Some(port), Some(life), Some(node), true) = (port, self.life(), node, is_up) {
            let address = SocketAddr::new(self.address(), port);
            drop(node.spawn(async move { transport::serve(address, life.peer_routes).await }));
        }
        self.peer_url()
    }

    /// It is found at its new port alone, from the next start on.
    pub(crate) fn has_moved(&self) {
        let mut way = self.way();
        let old = way.ports.len().saturating_sub(1);
        way.ports.drain(..old);
    }

    /// Whoever connects to it as a peer finds another member, or itself again.
    pub(super) fn leads_to(&self, other: Option<&Self>) {
        let to = other.map(|other| SocketAddr::new(other.address(), other.way().port()));
        for port in PEER_PORTS {
            transport::set_detour(SocketAddr::new(self.address(), port), to);
        }
    }

    /// The others look for it at this URL of its, whatever it was told of its moves.
    pub(super) fn is_found_at(&self, url: &str) {
        let Some(port) = PEER_PORTS.into_iter().find(|port| peer_url(self.index, *port) == url) else { return };
        let mut way = self.way();
        way.ports.retain(|other| *other != port);
        way.ports.push(port);
    }

    /// It is found where it was.
    pub(crate) fn has_stayed(&self) {
        let mut way = self.way();
        if way.ports.len() > 1 {
            way.ports.pop();
        }
    }
}

async fn note_leaderships(leadership: Leadership, member: usize, recorder: Recorder) {
    let mut views = std::pin::pin!(leadership.views());
    while let Some(view) = views.next().await {
        if view.leads {
            recorder.leadership(member, view.term);
        }
    }
}

/// Up to where the state in a store goes.
fn stored_position(store: &MemHome) -> Position {
    match store.open().and_then(|engine| raft::applied_index(&*engine)) {
        Ok(applied) => applied.map_or(Position::Empty, Position::At),
        Err(_) => {
            // The failure was meant for the member.
            store.fail_next(mem::Fault::Read);
            Position::Unknown
        }
    }
}

fn new_store(plan: &Plan) -> MemHome {
    let store = MemHome::new();
    store.set_flush_takes(plan.flush_takes);
    store
}

fn new_log(plan: &Plan, seed: u64) -> SimMedium {
    let log = SimMedium::new(seed);
    // A sync takes its time, so that there is something that was written and is not safe yet.
    log.set_latency(latency(plan, Duration::ZERO));
    log
}

fn latency(plan: &Plan, more: Duration) -> SimLatency {
    let sync = *plan.sync.start() + more..=*plan.sync.end() + more;
    SimLatency { write: Duration::ZERO..=more, sync, ..SimLatency::default() }
}

/// Connects a client over the simulated network.
pub(crate) struct SimConnector;

impl mainstay_client::Connector for SimConnector {
    type Service = transport::PeerChannel;

    fn connect(&self, endpoint: &str) -> Result<Self::Service, Box<dyn std::error::Error + Send + Sync>> {
        Ok(transport::connect(endpoint, Duration::from_secs(1))?)
    }
}
