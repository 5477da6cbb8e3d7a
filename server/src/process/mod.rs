//! One member as a process: its files, its sockets, its signals.

mod observers;

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use mainstay_raft_log::disk::real::RealDisk;
use mainstay_server::api::Services;
use mainstay_server::config::{Config, Url, version};
use mainstay_server::engine::{self, rocks::RocksHome};
use mainstay_server::env::serve::{self, ConnectionCount, Content, Listener, Purpose, ServeOptions, SocketOptions};
use mainstay_server::env::system::{self, StopSignals};
use mainstay_server::http::{Access, Probe, ReadFailure, Site, client_router, metrics_router};
use mainstay_server::metrics::{Metrics, Options as MetricsOptions, RaftNumbers, StoreNumbers, WatchNumbers};
use mainstay_server::node::{Node, Storage, Surroundings};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long requests may take to end after the signal to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// A running member with everything around it.
pub(crate) struct Process {
    node: Node,
    signals: StopSignals,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

/// The sockets of a member, bound before anything is opened: an occupied port is found first.
struct Sockets {
    peers: Vec<Listener>,
    clients: Vec<Listener>,
    pages: Vec<Listener>,
    metrics: Vec<Listener>,
}

impl Process {
    /// Binds, opens, serves, and joins the cluster.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        let signals = StopSignals::catch()?;
        log_start(config);
        prepare_directory(config)?;
        let sockets = bind(config).await?;
        let metrics = Metrics::with(MetricsOptions {
            detail: config.metrics,
            feature_gates: config.feature_gates.clone(),
            process: Some(Box::new(system::process_numbers)),
        });
        let mut node = Node::open(config, storage(config)?, surroundings(config, &metrics)).await?;
        let (stop, stopping) = watch::channel(false);
        let servers = serve_all(config, sockets, &node, &metrics, &stopping);
        node.start().await?;
        tracing::info!("ready to serve client requests");
        if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
            system::notify_ready(&socket)
                .unwrap_or_else(|error| tracing::warn!(%error, "failed to notify systemd for readiness"));
        }
        Ok(Self { node, signals, stop, servers })
    }

    /// Runs until a signal or a failure; the failure's reason is returned.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let failed = self.node.failed();
        tokio::select! {
            // A failure goes first: after it there is nothing left to stop in order.
            biased;
            reason = failed => return Err(reason),
            signal = self.signals.next() => tracing::info!(signal, "received signal; shutting down"),
        }
        self.stop.send_replace(true);
        for server in self.servers {
            server.await.ok();
        }
        self.node.stop().await;
        tracing::info!("closed etcd server");
        Ok(())
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

/// Makes the data directory, readable by its owner alone; as in etcd.
fn prepare_directory(config: &Config) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|error| anyhow::anyhow!("cannot create the data directory {}: {error}", config.data_dir.display()))
}

async fn bind(config: &Config) -> Result<Sockets, serve::BindError> {
    let options = SocketOptions { reuse_port: config.socket_reuse_port };
    Ok(Sockets {
        peers: serve::bind(&config.listen_peer_urls, options).await?,
        clients: serve::bind(&config.listen_client_urls, options).await?,
        pages: serve::bind(&config.listen_client_http_urls, options).await?,
        metrics: serve::bind(&config.listen_metrics_urls, options).await?,
    })
}

fn storage(config: &Config) -> anyhow::Result<Storage> {
    let log = config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member").join("wal"));
    // The log's directory is locked while it is open; it goes first, so that a second process never reaches the store.
    let disk = Arc::new(RealDisk::open(&log)?);
    Ok(Storage { home: Arc::new(RocksHome::new(engine::directory(&config.data_dir))), disk })
}

fn surroundings(config: &Config, metrics: &Arc<Metrics>) -> Surroundings {
    Surroundings {
        run_log: Box::new(|task| drop(task.spawn_thread())),
        resolve: Box::new(resolve),
        log_observer: Some(Arc::new(observers::LogDisk(metrics.clone()))),
        rpc_observer: Arc::new(observers::Requests::new(metrics.clone(), config.warning_unary_request_duration)),
    }
}

/// The socket addresses behind a URL's host, as texts; none where it does not resolve.
fn resolve(url: &Url) -> BTreeSet<String> {
    match url.address().to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.to_string()).collect(),
        Err(_) => BTreeSet::new(),
    }
}

fn serve_all(
    config: &Config,
    sockets: Sockets,
    node: &Node,
    metrics: &Arc<Metrics>,
    stopping: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let connections = ConnectionCount::default();
    let options = |purpose| ServeOptions {
        purpose,
        max_concurrent_streams: config.max_concurrent_streams,
        keepalive_interval: config.grpc_keepalive_interval,
        keepalive_timeout: config.grpc_keepalive_timeout,
        drain: DRAIN,
        connections: connections.clone(),
    };
    let site = Arc::new(site(config, node, metrics));
    let pages = client_router(site.clone(), Access::new(&config.host_whitelist, &config.cors));
    let grpc = node.client_routes().into_axum_router();
    let peer = Content::Grpc(node.peer_routes().prepare().into_axum_router());
    let client = if sockets.pages.is_empty() {
        Content::GrpcAndHttp { grpc, http: pages.clone() }
    } else {
        Content::Grpc(grpc)
    };
    let all = [
        (sockets.peers, Purpose::Peer, peer),
        (sockets.clients, Purpose::Client, client),
        (sockets.pages, Purpose::Client, Content::Http(pages)),
        (sockets.metrics, Purpose::Metrics, Content::Http(metrics_router(site))),
    ];
    all.into_iter()
        .flat_map(|(listeners, purpose, content)| {
            let options = options(purpose);
            listeners
                .into_iter()
                .map(move |listener| serve::serve(listener, content.clone(), stopping.clone(), options.clone()))
        })
        .collect()
}

fn site(config: &Config, node: &Node, metrics: &Arc<Metrics>) -> Site {
    let services = node.services();
    metrics.set_member_id(services.gateway.status().member_id);
    metrics.set_cluster_version(version::CLUSTER_VERSION);
    metrics.set_quota(config.quota_backend_bytes);
    let gateway = services.gateway.clone();
    let probe = Probe::of_node(
        services.gateway.clone(),
        services.store.clone(),
        services.alarms.clone(),
        failure_text,
        // All members of this release agree on one cluster version; it is decided once there is a leader.
        move || (gateway.status().term > 0).then(|| version::CLUSTER_VERSION.to_owned()),
    );
    let measured = metrics.clone();
    Site {
        probe,
        metrics: metrics.clone(),
        before_scrape: Box::new(move || measure(&measured, &services)),
        command_line: std::env::args().collect(),
        gateway_paths: config.enable_grpc_gateway,
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
    let status = services.gateway.status();
    metrics.set_raft(&RaftNumbers {
        member_id: status.member_id,
        leader: status.leader,
        is_learner: status.is_learner,
        committed: status.committed,
        applied: status.applied,
        pending: services.gateway.pending(),
    });
    let size = services.store.size();
    metrics.set_store(&StoreNumbers {
        revision: services.store.revision(),
        compact_revision: services.store.compact_revision(),
        keys: services.store.key_count(),
        total_bytes: size.total_bytes,
        in_use_bytes: size.in_use_bytes,
    });
    let watch = services.hub.stats();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    metrics.set_watch(&WatchNumbers {
        streams: count(&watch.streams),
        watchers: count(&watch.watchers),
        slow_watchers: count(&watch.slow_watchers),
        pending_events: count(&watch.pending_events),
        events_total: count(&watch.events_total),
    });
    let alarms = services.alarms.all();
    metrics.set_alarms(alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm().as_str_name())));
}
