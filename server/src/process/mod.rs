//! One member as a process: its files, its sockets, its signals.

pub(crate) mod allocators;
mod data_dir;
pub(crate) mod discovery;
mod observers;
mod rebuild;
mod requests;
mod security;
pub(crate) mod tcp_proxy;
mod traces;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_proto::etcdserverpb::DowngradeInfo;
use mainstay_raft_log::disk::real::RealDisk;
use mainstay_server::admission::{Budget, Gate};
use mainstay_server::api::{GrpcServices, Services, Tracer};
use mainstay_server::config::{Config, Url, version};
use mainstay_server::engine::{self, layout, rocks::RocksHome};
use mainstay_server::env::processors;
use mainstay_server::env::serve::{
    self, ConnectionCount, Content, IoThreads, Listener, Placing, Purpose, ServeOptions, SocketOptions,
};
use mainstay_server::env::system::{self, ServiceState, StopSignals};
use mainstay_server::env::tls::Tls;
use mainstay_server::env::transport::Dialer;
use mainstay_server::http::{Access, JsonGateway, Probe, ReadFailure, Site, client_router, metrics_router};
use mainstay_server::limits;
use mainstay_server::metrics::{
    AdmissionNumbers, Metrics, Options as MetricsOptions, RaftNumbers, StoreNumbers, WatchNumbers,
};
use mainstay_server::node::{LOG_SEGMENT_BYTES, Node, Storage, Surroundings};
use mainstay_server::raft::{REMOVED, Status, probe_peers};
use mainstay_server::watch::Bounds;
pub(crate) use rebuild::rebuild;
pub(crate) use requests::dump as dump_requests;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use traces::Traces;

/// How long requests may take to end after the signal to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// How often a member that starts looks for a leader.
const READY_PERIOD: Duration = Duration::from_millis(10);

/// How often a member looks whether the leader changed, for the metric that counts that.
const LEADER_PERIOD: Duration = Duration::from_millis(100);

/// A running member with everything around it.
pub(crate) struct Process {
    node: Node,
    signals: StopSignals,
    /// For clients and monitoring.
    clients: Serving,
    /// For peers; they are answered until the node has stopped.
    peers: Serving,
    /// Where clients' connections live, until they have ended.
    io_threads: IoThreads,
    follow_leader: JoinHandle<()>,
    probe_peers: JoinHandle<Infallible>,
    traces: Option<Traces>,
}

/// The sockets of a member, bound before anything is opened: an occupied port is found first.
struct Sockets {
    peers: Vec<Listener>,
    clients: Vec<Listener>,
    pages: Vec<Listener>,
    metrics: Vec<Listener>,
}

impl Process {
    /// Binds, opens, serves, and joins the cluster; `None` where a signal ended that.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Option<Self>> {
        let mut signals = StopSignals::catch()?;
        log_start(config);
        if config.memory_limit.is_some() && !allocators::are_told() {
            tracing::warn!("the process could not begin anew: its allocators may keep memory that is free");
        }
        data_dir::prepare(config)?;
        let peer_tls = security::with_peers(config)?;
        let mut sockets = bind(config, &peer_tls).await?;
        let metrics = Metrics::with(MetricsOptions {
            detail: config.metrics,
            feature_gates: config.feature_gates.clone(),
            process: Some(Box::new(system::process_numbers)),
        });
        let traces = Traces::begin(&config.tracing)?;
        let tracer = traces.as_ref().map(Traces::tracer);
        let budget = Budget::of(config.memory_limit, config.max_request_bytes);
        let storage = storage(config, &budget)?;
        let surroundings = surroundings(config, &budget, peer_tls, &metrics, tracer);
        let discovers = surroundings.discover.is_some();
        // It may wait for members that are still to be found, and must be stoppable meanwhile.
        let opened = tokio::select! {
            biased;
            opened = Node::open(config, storage, surroundings) => opened,
            signal = signals.next(), if discovers => {
                tracing::info!(signal, "received signal while waiting for the first members; ending");
                return Ok(None);
            }
        };
        let mut node = opened.inspect_err(|error| discovery::explain(config, error))?;
        let io_threads = IoThreads::start(processors())?;
        let peers = serve_peers(config, std::mem::take(&mut sockets.peers), &node);
        node.compare().await;
        let clients = serve_clients(config, budget, sockets, &node, &metrics, io_threads.placing());
        // It may wait for peers, and must be stoppable meanwhile.
        tokio::select! {
            biased;
            started = node.start() => started?,
            signal = signals.next() => {
                tracing::info!(signal, "received signal while waiting for peers; ending");
                return Ok(None);
            }
        }
        let follow_leader = tokio::spawn(follow_leader(node.services(), metrics.clone()));
        let probe_peers = tokio::spawn(probe_peers(node.services().gateway.clone(), metrics));
        Ok(Some(Self { node, signals, clients, peers, io_threads, follow_leader, probe_peers, traces }))
    }

    /// Runs until a signal or a failure; the failure's reason is returned.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let failed = self.node.failed();
        let ready = announce_ready(self.node.services());
        tokio::select! {
            // A failure goes first: after it there is nothing left to stop in order.
            biased;
            // As etcd, which ends in peace: started again it would be told the same.
            reason = failed => match reason == REMOVED {
                true => tracing::warn!("{reason}; shutting down"),
                false => return Err(reason),
            },
            reason = self.clients.ended() => return Err(reason),
            reason = self.peers.ended() => return Err(reason),
            signal = self.signals.next() => tracing::info!(signal, "received signal; shutting down"),
            never = ready => match never {},
        }
        tell_service_manager(ServiceState::Stopping);
        let (clients, node, peers, traces) = (self.clients, self.node, self.peers, self.traces);
        // Watchers go on elsewhere while other requests come to their end.
        node.services().stopping.begin();
        let stop = async {
            clients.stop().await;
            // All requests have ended, and their spans with them.
            let send_traces = async {
                if let Some(traces) = traces {
                    traces.stop().await;
                }
            };
            tokio::join!(node.stop(), send_traces);
            self.follow_leader.abort();
            self.probe_peers.abort();
            peers.stop().await;
            drop(self.io_threads);
        };
        tokio::select! {
            // What has stopped needs no second signal.
            biased;
            () = stop => tracing::info!("closed etcd server"),
            // Whoever sent it, or sent one to the whole group, does not want to wait. Nothing is lost that was confirmed.
            signal = self.signals.next() => tracing::warn!(signal, "received another signal; ending at once"),
        }
        Ok(())
    }
}

/// Waits until a leader is known, and this member knows that it is one, so that requests can be answered; says so once.
async fn announce_ready(services: Arc<Services>) -> Infallible {
    let is_ready = |status: Status| status.leader.is_some() && !status.is_outside;
    while !is_ready(services.gateway.status()) {
        tokio::time::sleep(READY_PERIOD).await;
    }
    tracing::info!("ready to serve client requests");
    tell_service_manager(ServiceState::Ready);
    std::future::pending().await
}

/// Tells systemd, or whoever else started the process and wants to know. Nothing depends on its being told.
pub(crate) fn tell_service_manager(state: ServiceState) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = system::notify(&socket, state) {
        tracing::warn!(%error, ?state, "failed to notify the service manager");
    }
}

/// Counts changes of the leader as they happen; scrapes come too seldom for that.
async fn follow_leader(services: Arc<Services>, metrics: Arc<Metrics>) {
    loop {
        measure_raft(&metrics, &services);
        tokio::time::sleep(LEADER_PERIOD).await;
    }
}

fn log_start(config: &Config) {
    let urls = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    tracing::info!(
        "etcd-version" = version::ETCD_VERSION,
        "mainstay-version" = version::MAINSTAY_VERSION,
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "heartbeat-interval" = ?config.heartbeat_interval,
        "election-timeout" = ?config.election_timeout,
        "snapshot-count" = config.snapshot_count,
        "snapshot-catchup-entries" = config.snapshot_catchup_entries,
        "initial-advertise-peer-urls" = urls(&config.initial_advertise_peer_urls),
        "listen-peer-urls" = urls(&config.listen_peer_urls),
        "advertise-client-urls" = urls(&config.advertise_client_urls),
        "listen-client-urls" = urls(&config.listen_client_urls),
        "v2-deprecation" = "write-only",
        "starting an etcd server"
    );
}

async fn bind(config: &Config, peer_tls: &Tls) -> anyhow::Result<Sockets> {
    let reuse_port = config.socket_reuse_port;
    let peers = SocketOptions { reuse_port, tls: Some(peer_tls.clone()).filter(Tls::accepts), separate: true };
    let tls = security::with_clients(config)?;
    // As in etcd, where clients of this port show their certificates from where these are for.
    let metrics = SocketOptions { reuse_port, tls: tls.as_ref().map(Tls::checking_addresses), separate: false };
    let clients = SocketOptions { reuse_port, tls, separate: false };
    Ok(Sockets {
        peers: serve::bind(&config.listen_peer_urls, &peers).await?,
        clients: serve::bind(&config.listen_client_urls, &clients).await?,
        pages: serve::bind(&config.listen_client_http_urls, &clients).await?,
        metrics: serve::bind(&config.listen_metrics_urls, &metrics).await?,
    })
}

fn storage(config: &Config, budget: &Budget) -> anyhow::Result<Storage> {
    // The log's directory is locked while it is open; it goes first, so that a second process never reaches the store.
    let disk = RealDisk::open(&config.log_dir())?;
    let home = RocksHome::new(engine::directory(&config.data_dir)).with_memory(budget.blocks, budget.unflushed);
    Ok(Storage {
        home: Arc::new(home),
        disk: Arc::new(if config.unsafe_no_fsync { disk.without_sync() } else { disk }),
        log_segment_bytes: LOG_SEGMENT_BYTES,
        store_flush_bytes: budget.flush,
    })
}

fn surroundings(
    config: &Config,
    budget: &Budget,
    peer_tls: Tls,
    metrics: &Arc<Metrics>,
    tracer: Option<Arc<dyn Tracer>>,
) -> Surroundings {
    Surroundings {
        run_log: Box::new(|task| drop(task.spawn_thread())),
        resolve: Box::new(resolve),
        discover: discovery::of_flags(config),
        dialer: Dialer::with_tls(peer_tls),
        log_observer: Some(Arc::new(observers::LogDisk(metrics.clone()))),
        metrics: metrics.clone(),
        rpc_observer: Arc::new(observers::Requests::new(metrics.clone(), config.warning_unary_request_duration)),
        tracer,
        applied_observer: None,
        read_key: Box::new(|path| std::fs::read(path)),
        watch_bounds: Bounds::within(budget),
        resident: Some(Box::new(system::resident_bytes)),
        newest_format: layout::FORMAT,
        gather_from: limits::PROPOSALS_GATHERED_FROM,
    }
}

/// The socket addresses behind a URL's host, as texts; none where it does not resolve.
fn resolve(url: &Url) -> BTreeSet<String> {
    match url.address().to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.to_string()).collect(),
        Err(_) => BTreeSet::new(),
    }
}

/// Serves the sockets for clients and monitoring.
fn serve_clients(
    config: &Config,
    budget: Budget,
    sockets: Sockets,
    node: &Node,
    metrics: &Arc<Metrics>,
    placing: Placing,
) -> Serving {
    let (grpc, in_process) = (node.client_services(), node.client_routes().into_axum_router());
    let site = Arc::new(site(config, node, metrics, &in_process));
    let names_are_users = {
        let (certificates, services) = (config.client_tls.client_cert_auth, node.services());
        move || certificates && services.access.auth().is_enabled()
    };
    let access = Access::new(&config.host_whitelist, &config.cors);
    let access = if config.enable_grpc_gateway { access.refusing_names(names_are_users) } else { access };
    let pages = client_router(site.clone(), access);
    let client =
        if sockets.pages.is_empty() { Content::GrpcAndHttp { grpc, http: pages.clone() } } else { Content::Grpc(grpc) };
    let mut clients = Serving::new(config, node.services().admission.clone(), budget, placing);
    clients.add(sockets.clients, Purpose::Client, &client);
    clients.add(sockets.pages, Purpose::Client, &Content::Routed(pages));
    clients.add(sockets.metrics, Purpose::Metrics, &Content::Routed(metrics_router(site)));
    clients
}

/// Serves the sockets for peers: before those for clients, as members compare themselves with each other first.
fn serve_peers(config: &Config, sockets: Vec<Listener>, node: &Node) -> Serving {
    let peer = Content::Routed(node.peer_routes().prepare().into_axum_router());
    // There are few of them, and they must find one another.
    let mut peers = Serving::new(config, Gate::open(), Budget::of(None, config.max_request_bytes), Placing::here());
    peers.add(sockets, Purpose::Peer, &peer);
    peers
}

/// Sockets that are served, and stop together.
struct Serving {
    stop: watch::Sender<bool>,
    options: ServeOptions,
    servers: JoinSet<()>,
}

impl Serving {
    fn new(config: &Config, admission: Gate, budget: Budget, placing: Placing) -> Self {
        let options = ServeOptions {
            purpose: Purpose::Client,
            max_concurrent_streams: config.max_concurrent_streams,
            keepalive_interval: config.grpc_keepalive_interval,
            keepalive_timeout: config.grpc_keepalive_timeout,
            drain: DRAIN,
            connections: ConnectionCount::default(),
            admission,
            budget,
            placing,
        };
        Self { stop: watch::Sender::new(false), options, servers: JoinSet::new() }
    }

    fn add(&mut self, listeners: Vec<Listener>, purpose: Purpose, content: &Content<GrpcServices>) {
        for listener in listeners {
            let options = ServeOptions { purpose, ..self.options.clone() };
            let server = serve::serve(listener, content.clone(), self.stop.subscribe(), options);
            self.servers.spawn(async move {
                if let Err(error) = server.await {
                    std::panic::resume_unwind(error.into_panic());
                }
            });
        }
    }

    /// Resolves when a socket's owner is gone although nobody stopped it.
    async fn ended(&mut self) -> String {
        match self.servers.join_next().await {
            Some(Err(error)) => format!("listener failed: {error}"),
            Some(Ok(())) => "listener failed".to_owned(),
            None => std::future::pending().await,
        }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.servers.join_next().await.is_some() {}
    }
}

fn site(config: &Config, node: &Node, metrics: &Arc<Metrics>, grpc: &axum::Router) -> Site {
    let message_bytes_max = config.max_request_bytes + limits::GRPC_OVERHEAD_BYTES;
    let services = node.services();
    metrics.set_member_id(services.gateway.status().member_id);
    metrics.set_quota(services.quota.configured());
    let decided = Arc::new(Decided::default());
    let (gateway, downgrade, told) = (services.gateway.clone(), services.downgrade.clone(), decided.clone());
    let probe = Probe::of_node(
        services.gateway.clone(),
        services.store.clone(),
        services.alarms.clone(),
        failure_text,
        move || told.cluster_version(&gateway.status(), &downgrade.info()),
    );
    let (measured, admission) = (metrics.clone(), services.admission.clone());
    Site {
        probe,
        metrics: metrics.clone(),
        before_scrape: Box::new(move || {
            measure(&measured, &services);
            if let Some(version) = decided.cluster_version(&services.gateway.status(), &services.downgrade.info()) {
                measured.set_cluster_version(&version);
            }
        }),
        command_line: std::env::args().collect(),
        gateway: config.enable_grpc_gateway.then(|| JsonGateway::new(grpc.clone(), message_bytes_max, admission)),
    }
}

/// Whether the members have agreed on a version. Those of one release do so with the first entry
/// that a leader of theirs commits, and never take it back.
#[derive(Default)]
struct Decided(AtomicBool);

impl Decided {
    fn cluster_version(&self, status: &Status, downgrade: &DowngradeInfo) -> Option<String> {
        if status.leader.is_some() && status.applied > 0 {
            self.0.store(true, Ordering::Relaxed);
        }
        // A downgrade that is announced is told as if it had happened.
        let version = if downgrade.enabled { &downgrade.target_version } else { version::CLUSTER_VERSION };
        self.0.load(Ordering::Relaxed).then(|| version.to_owned())
    }
}

/// etcd's words for a health check that could not read; `api` owns them.
fn failure_text(failure: ReadFailure) -> String {
    let status = match failure {
        ReadFailure::Unavailable(error) => tonic::Status::from(error),
        ReadFailure::Store(error) => tonic::Status::from(error),
    };
    status.message().to_owned()
}

/// Brings the metrics that follow a state up to date.
fn measure(metrics: &Metrics, services: &Services) {
    measure_raft(metrics, services);
    let size = services.store.size();
    metrics.set_store(&StoreNumbers {
        revision: services.store.revision(),
        compact_revision: services.store.compact_revision(),
        keys: services.store.key_count(),
        total_bytes: size.total_bytes,
        in_use_bytes: size.in_use_bytes,
        auth_revision: services.access.auth().revision(),
    });
    let watch = services.hub.stats();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    metrics.set_watch(&WatchNumbers {
        streams: count(&watch.streams),
        watchers: count(&watch.watchers),
        slow_watchers: count(&watch.slow_watchers),
        pending_events: count(&watch.pending_events),
        events_total: count(&watch.events_total),
    });
    let admission = services.admission.numbers();
    metrics.set_admission(&AdmissionNumbers {
        held: admission.held,
        pool: admission.pool,
        reserve_held: admission.reserve_held,
        waiting: admission.waiting,
    });
    let alarms = services.alarms.all();
    metrics.set_data_format(services.gateway.format());
    metrics.set_alarms(alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm().as_str_name())));
}

fn measure_raft(metrics: &Metrics, services: &Services) {
    let status = services.gateway.status();
    metrics.set_raft(&RaftNumbers {
        member_id: status.member_id,
        leader: status.leader,
        is_learner: status.is_learner,
        committed: status.committed,
        applied: status.applied,
        pending: services.gateway.pending(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_decided_by_the_first_entry_and_stays_so() {
        let decided = Decided::default();
        let of = |leader, term, applied| {
            decided.cluster_version(&Status { leader, term, applied, ..Status::default() }, &DowngradeInfo::default())
        };
        // Elections without a winner raise the term and decide nothing.
        assert_eq!(of(None, 7, 0), None);
        assert_eq!(of(Some(1), 8, 0), None);
        assert_eq!(of(Some(1), 8, 1), Some("3.7.0".to_owned()));
        assert_eq!(of(None, 9, 1), Some("3.7.0".to_owned()));
        let downgrade = DowngradeInfo { enabled: true, target_version: "3.6.0".to_owned() };
        assert_eq!(decided.cluster_version(&Status::default(), &downgrade), Some("3.6.0".to_owned()));
    }
}
