//! The composition root: opens, wires, starts and stops the rooms of one member, in order.
//!
//! It is the only file that knows every room. It knows no socket and no file: those come in as
//! [`Storage`] and go out as routes, so that a simulation runs the same node.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mainstay_proto::mainstay::{Identity, MemberAttributes};
use mainstay_raft_log::{Disk, LogTask, Observer, Options as LogOptions, RaftLog};
use prost::Message;
use tokio::task::JoinHandle;

use crate::admission::memory::{self, Resident};
use crate::admission::{Budget, Gate, GateOptions, overload};
use crate::api::{
    self, Access, ApiLimits, GrpcServices, LeaderLoss, OutOfService, RpcObserver, Services, Stopping, Tracer,
    Withdrawals,
};
use crate::apply::{State, StateOptions, stored_format};
use crate::auth::{Passwords, SimpleTokens, TokenError, TokenProvider};
use crate::command::command::Kind;
use crate::command::{self, cluster_itself};
use crate::config::{AutoCompaction, ClusterState, Config, Refusal, Url, identity};
use crate::discovery::{DiscoveryError, InitialCluster};
use crate::engine::layout::{self, NewerFormat, meta};
use crate::engine::{Batch, Engine, EngineError, EngineHome, Family};
use crate::env::clock;
use crate::env::transport::Dialer;
use crate::leader::{auto_compaction, consistency, format, lease_expirer};
use crate::lease::Lessor;
use crate::limits;
use crate::metrics::Metrics;
use crate::raft::{
    self, AppliedObserver, Consensus, ConsensusOptions, Evidence, Gateway, Leadership, Listeners, MemberRules, Past,
    PeerNode, REMOVED,
};
use crate::space::{self, Quota};
use crate::watch::{Bounds, Hub, HubOptions};

/// Pause before a member tells again under which name clients reach it.
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);

/// How long a member of the cluster that is to be joined may take to tell of it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a member keeps what must survive it.
pub struct Storage {
    /// The state machine's.
    pub home: Arc<dyn EngineHome>,
    /// The raft log's.
    pub disk: Arc<dyn Disk>,
    /// Size of a file of the raft log; [`LOG_SEGMENT_BYTES`] but where the disk is a simulated one.
    pub log_segment_bytes: u64,
    /// Bytes of the store that may wait to be flushed; [`limits::FLUSH_BYTES`] but in a simulation.
    pub store_flush_bytes: u64,
}

/// Size of a file of the raft log: written in full when it is made, so that a sync has no metadata to write.
pub const LOG_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Finds the addresses behind a URL's host.
pub type Resolve = Box<dyn Fn(&Url) -> BTreeSet<String> + Send + Sync>;

/// Finds out who the first members are.
pub type Discover = Box<dyn Fn() -> BoxFuture<'static, Result<InitialCluster, DiscoveryError>> + Send + Sync>;

/// Reads a file of a key.
pub type ReadKey = Box<dyn Fn(&str) -> io::Result<Vec<u8>> + Send>;

/// What the surroundings add to a node: how its tasks run, how names resolve, who counts.
pub struct Surroundings {
    /// Starts the owner of the log: a thread of its own, or a simulated task.
    pub run_log: Box<dyn FnOnce(LogTask) + Send>,
    /// The addresses behind a URL's host, to compare two ways to write one.
    pub resolve: Resolve,
    /// Finds the first members; `None` where the configuration names them.
    pub discover: Option<Discover>,
    /// Makes the connections to the other members.
    pub dialer: Dialer,
    /// Is told what the log's disk does.
    pub log_observer: Option<Arc<dyn Observer>>,
    /// Counts what the rooms do.
    pub metrics: Arc<Metrics>,
    /// Is told of every request.
    pub rpc_observer: Arc<dyn RpcObserver>,
    /// Makes the spans of requests; `None` where they are not traced.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Is shown what goes into the state.
    pub applied_observer: Option<Arc<dyn AppliedObserver>>,
    /// Reads a file of a key that the configuration names.
    pub read_key: ReadKey,
    /// How much may wait for watchers; [`Bounds::STANDARD`] but where the memory is limited, and in a simulation.
    pub watch_bounds: Bounds,
    /// Says how much memory the process takes; `None` where nobody can.
    pub resident: Option<Resident>,
    /// The newest format that is known; [`layout::FORMAT`] but in a simulation of several releases.
    pub newest_format: u32,
    /// From how many proposals under way on they wait for each other; [`limits::PROPOSALS_GATHERED_FROM`] but in a
    /// simulation, where so many never are.
    pub gather_from: usize,
}

/// How full the bounded places of a member are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Proposals under way, of [`limits::PROPOSALS_MAX`].
    pub proposals: u64,
    /// Open watch streams.
    pub watch_streams: u64,
    /// Watchers on them.
    pub watchers: u64,
    /// Events that wait in mailboxes.
    pub pending_events: u64,
    /// In so many messages.
    pub pending_messages: u64,
    /// Entries that are kept in the log.
    pub log_entries: u64,
    /// Bytes that requests hold.
    pub admitted_bytes: u64,
    /// Requests that wait for room.
    pub waiting_requests: u64,
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not fit the first start.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The first members are not found.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The raft log cannot be opened.
    #[error("raft log: {0}")]
    Log(#[from] mainstay_raft_log::OpenError),
    /// The store cannot be opened.
    #[error("store: {0}")]
    Store(String),
    /// A newer release wrote the data.
    #[error("{folder}: {newer}")]
    NewerFormat {
        /// Where they are.
        folder: String,
        /// What they are.
        newer: NewerFormat,
    },
    /// The cluster that is to be joined runs a newer release.
    #[error("cannot join the cluster: {0}")]
    NewerCluster(NewerFormat),
    /// The store holds a state, but the log from which it was made is gone.
    #[error(
        "the store holds the state up to entry {applied}, but the raft log in {log} is empty: \
         without it this member has forgotten its votes and what it confirmed; remove it from the cluster and add it anew"
    )]
    LogLost {
        /// The last entry in the state.
        applied: u64,
        /// Where the log should be.
        log: String,
    },
    /// The other members know of an earlier life of this one; etcd's words.
    #[error("member {0:x} has already been bootstrapped")]
    AlreadyBootstrapped(u64),
    /// This member was removed before it had written anything; etcd's words.
    #[error("{REMOVED}")]
    Removed,
    /// Nobody of the cluster that is to be joined tells of it; etcd's words.
    #[error("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")]
    NoCluster,
    /// The log holds entries, but the store does not know whose.
    #[error("the data directory has a raft log but no identity: it is incomplete or belongs to something else")]
    NoIdentity,
    /// Tokens cannot be given or verified as the flag says.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A request that is let in could not be written down.
    #[error("--max-request-bytes: {bytes} bytes do not fit into a record of the raft log; at most {max} do")]
    RequestsTooLarge {
        /// What the flag says.
        bytes: usize,
        /// What it may say.
        max: u64,
    },
    /// Consensus does not start.
    #[error(transparent)]
    Consensus(#[from] crate::raft::StartError),
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.to_string())
    }
}

/// One member, running.
pub struct Node {
    services: Arc<Services>,
    consensus: Consensus,
    lessor: Lessor,
    log: RaftLog,
    tasks: Vec<JoinHandle<()>>,
    attributes: MemberAttributes,
    /// Whether nothing on disk says that this member ever took part.
    is_first_start: bool,
    /// Whether it is to be the only member, whoever else there was.
    is_forced: bool,
    evidence: Evidence,
    election_timeout: Duration,
}

impl Node {
    /// Opens what is stored, or founds a new member, and wires the rooms; nothing is sent yet.
    ///
    /// # Errors
    /// When the configuration does not fit what is stored, or that cannot be read.
    pub async fn open(config: &Config, storage: Storage, surroundings: Surroundings) -> Result<Self, StartError> {
        let Storage { home, disk, log_segment_bytes, store_flush_bytes } = storage;
        let tokens = SimpleTokens::new(config.auth_token_ttl);
        let provider = TokenProvider::open(&config.auth_token, tokens.clone(), &surroundings.read_key)?;
        let newest_format = surroundings.newest_format;
        // Before anything is touched: what a newer release wrote has another meaning, if it has any here.
        mainstay_raft_log::check_version(&*disk)?;
        let engine = home.open()?;
        check_format(&*engine, newest_format, config)?;
        let stored = stored_identity(&*engine)?;
        let mut discovered = None;
        let founded = match stored {
            Some(identity) => identity,
            None => {
                discovered = with_discovered(config, surroundings.discover.as_ref()).await?;
                let config = discovered.as_ref().unwrap_or(config);
                config.check_first_start(&surroundings.resolve)?;
                match config.initial_cluster_state {
                    ClusterState::New => new_identity(config),
                    ClusterState::Existing => {
                        joining_identity(config, &surroundings.resolve, &surroundings.dialer, newest_format).await?
                    }
                }
            }
        };
        let budget = Budget::of(config.memory_limit, config.max_request_bytes);
        let options = LogOptions {
            identity: log_identity(&founded),
            observer: surroundings.log_observer,
            segment_bytes: log_segment_bytes,
            cache_bytes: budget.log_cache,
            inbox_bytes: budget.log_inbox,
            ..LogOptions::default()
        };
        let (log, task) = RaftLog::open(disk, options)?;
        let max = log.payload_bytes_max().saturating_sub(limits::LOG_RECORD_OVERHEAD_BYTES);
        if config.max_request_bytes as u64 > max {
            return Err(StartError::RequestsTooLarge { bytes: config.max_request_bytes, max });
        }
        if stored.is_none() && (log.last().is_some() || log.vote().is_some()) {
            return Err(StartError::NoIdentity);
        }
        // As far as its disk knows, this member has never taken part.
        let is_first_start = log.vote().is_none();
        if is_first_start && let Some(applied) = raft::applied_index(&*engine)? {
            return Err(StartError::LogLost { applied, log: config.log_dir().display().to_string() });
        }
        if stored.is_none() {
            store_identity(&*engine, &founded)?;
        } else if is_first_start {
            // It was stopped before it took part: it knows who it is, but not who else is.
            discovered = with_discovered(config, surroundings.discover.as_ref()).await?;
        } else if config.discovery.uses_token() {
            tracing::warn!(
                "wal-dir" = %config.log_dir().display(),
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
        let config = discovered.as_ref().unwrap_or(config);
        (surroundings.run_log)(task);
        tracing::info!(
            "local-member-id" = format!("{:x}", founded.member_id),
            "cluster-id" = format!("{:x}", founded.cluster_id),
            restarted = stored.is_some(),
            "starting local member"
        );

        let options = StateOptions { cache_bytes: config.value_cache_bytes, newest_format };
        let mut state = State::open(engine.clone(), options).map_err(|error| StartError::Store(error.to_string()))?;
        state.store.set_flush_bytes(store_flush_bytes);
        if let Some(records) = budget.fetched {
            state.store.set_fetched_at_once(records);
        }
        let (store, leases, alarms, downgrade) = (state.store(), state.leases(), state.alarms(), state.downgrade());
        let auth = state.auth();
        let hub_options = HubOptions {
            progress_interval: config.watch_progress_notify_interval,
            max_response_bytes: config.max_request_bytes + limits::GRPC_OVERHEAD_BYTES,
        };
        let (hub, hub_task) = Hub::spawn(store.clone(), hub_options, surroundings.watch_bounds);
        let (lessor, lessor_inbox) = Lessor::channel();
        let metrics = surroundings.metrics;
        let admission = gate(config, &budget, &metrics);
        let listeners = Listeners {
            hub: hub.clone(),
            lessor: lessor.clone(),
            tokens,
            metrics: metrics.clone(),
            observer: surroundings.applied_observer,
        };
        let mut options = consensus_options(config, &founded, surroundings.dialer, admission.clone(), newest_format);
        options.gather_from = surroundings.gather_from;
        let forces = config.force_new_cluster && may_be_forced(&founded, is_first_start);
        options.alone = forces.then(|| peer_node(&config.name, &config.initial_advertise_peer_urls));
        let consensus = Consensus::open(options, log.clone(), state, home, listeners).await?;
        if config.force_new_cluster != founded.forced && !is_first_start {
            store_identity(&*engine, &Identity { forced: config.force_new_cluster, ..founded })?;
        }
        let gateway = consensus.gateway();
        let quota = Quota::new(config.quota_backend_bytes);
        let mut tasks = vec![hub_task];
        tasks.push(spawn_expirer(config, &gateway, lessor_inbox, leases.clone(), &metrics));
        if let Some(mode) = &config.auto_compaction {
            tasks.push(auto_compaction::spawn(compaction_mode(mode), gateway.clone(), store.clone()));
        }
        tasks.push(space::spawn(quota, gateway.clone(), store.clone(), alarms.clone(), metrics.clone()));
        tasks.push(format::spawn(gateway.clone()));
        let evidence = consensus.evidence();
        tasks.push(consistency::spawn(gateway.clone(), evidence.clone(), alarms.clone(), metrics.clone()));
        let (out_of_service, out_of_service_task) =
            OutOfService::spawn(alarms.clone(), gateway.clone(), consensus.leadership());
        tasks.push(out_of_service_task);
        let (leader_loss, leader_loss_task) = LeaderLoss::spawn(gateway.clone(), config.election_timeout);
        tasks.push(leader_loss_task);
        let (withdrawals, withdrawals_task) = Withdrawals::spawn(gateway.clone());
        tasks.push(withdrawals_task);
        tasks.extend(spawn_guards(config, &budget, &admission, surroundings.resident, &metrics));
        let services = Services {
            leader_loss,
            out_of_service,
            stopping: Stopping::default(),
            withdrawals,
            access: Access::new(auth, provider, gateway.clone(), config.client_tls.client_cert_auth),
            passwords: Passwords::new(config.bcrypt_cost),
            gateway,
            store,
            leases,
            lessor: lessor.clone(),
            alarms,
            downgrade,
            leadership: consensus.leadership(),
            hub,
            limits: ApiLimits {
                max_txn_ops: config.max_txn_ops,
                max_request_bytes: config.max_request_bytes,
                lease_ttl_min_seconds: ApiLimits::lease_ttl_min_seconds(config.election_timeout),
            },
            admission,
            quota,
            observer: surroundings.rpc_observer,
            tracer: surroundings.tracer,
            metrics,
            slow_apply: config.warning_apply_duration,
        };
        let attributes = MemberAttributes {
            id: founded.member_id,
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.iter().map(|url| url.as_str().to_owned()).collect(),
            removed: false,
        };
        Ok(Self {
            services: Arc::new(services),
            consensus,
            lessor,
            log,
            tasks,
            attributes,
            is_first_start,
            is_forced: forces,
            evidence,
            election_timeout: config.election_timeout,
        })
    }

    /// What clients call, by a router.
    pub fn client_routes(&self) -> tonic::service::Routes {
        api::routes(&self.services)
    }

    /// The same, as a port serves it that is theirs.
    pub fn client_services(&self) -> GrpcServices {
        GrpcServices::new(&self.services)
    }

    /// What peers call.
    pub fn peer_routes(&self) -> tonic::service::Routes {
        self.consensus.routes()
    }

    /// The parts that health checks and metrics look at.
    pub fn services(&self) -> Arc<Services> {
        self.services.clone()
    }

    /// Who leads, as this member sees it, and handing that over. Usable beside the node.
    pub fn leadership(&self) -> Leadership {
        self.consensus.leadership()
    }

    /// Looks how full the bounded places are. Usable beside the node.
    pub fn occupancy(&self) -> impl Fn() -> Occupancy + Send + Sync + 'static {
        let (services, log) = (self.services.clone(), self.log.clone());
        move || {
            let watches = services.hub.stats();
            let admission = services.admission.numbers();
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let log_entries = match (log.first_index(), log.last()) {
                (Some(first), Some((last, _))) => (last + 1).saturating_sub(first),
                _ => 0,
            };
            Occupancy {
                proposals: services.gateway.pending(),
                watch_streams: read(&watches.streams),
                watchers: read(&watches.watchers),
                pending_events: read(&watches.pending_events),
                pending_messages: read(&watches.pending_messages),
                log_entries,
                admitted_bytes: admission.held + admission.reserve_held,
                waiting_requests: admission.waiting,
            }
        }
    }

    /// Compares what this member holds with what the others do, where it may have been changed since it last ran. Peers
    /// are to be answered by then, as they may be asking the same, and clients only after it: a member that differs is
    /// out of service from its first moment on.
    pub async fn compare(&mut self) {
        if self.is_first_start || self.is_forced {
            return;
        }
        let Services { gateway, alarms, out_of_service, .. } = &*self.services;
        let corrupt = consistency::differs_at_start(gateway, &self.evidence, alarms, self.election_timeout).await;
        if !corrupt.is_empty() {
            out_of_service.begin();
            self.evidence.doubt_own_until_named(true);
            let naming = consistency::name(corrupt, gateway.clone(), self.evidence.clone(), alarms.clone());
            self.tasks.push(tokio::task::spawn(naming));
        }
    }

    /// Begins to take part in the cluster. Peers can be answered from now on.
    ///
    /// # Errors
    /// When the others know of an earlier life of this member that it has forgotten, or consensus has failed.
    pub async fn start(&mut self) -> Result<(), StartError> {
        // Asked while peers are answered already, so that the members of a new cluster answer each other.
        if self.is_first_start {
            match self.consensus.past().await {
                Past::Unknown => {}
                Past::Member => return Err(StartError::AlreadyBootstrapped(self.attributes.id)),
                Past::Removed => return Err(StartError::Removed),
            }
        }
        self.consensus.start().await?;
        self.tasks.push(tokio::task::spawn(publish(self.services.clone(), self.attributes.clone())));
        Ok(())
    }

    /// Resolves with the reason when the member cannot go on.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        self.consensus.failed()
    }

    /// Stops in order: duties, consensus, log. The state is made durable on the way.
    pub async fn stop(self) {
        self.lessor.stop().await;
        for task in &self.tasks {
            task.abort();
        }
        self.consensus.stop().await;
        self.log.close().await;
    }
}

/// What the raft log calls its owner: a number for the member of the cluster.
pub fn log_identity(owner: &Identity) -> u64 {
    owner.cluster_id ^ owner.member_id.rotate_left(32)
}

/// Refuses data of a newer format.
fn check_format(engine: &dyn Engine, newest: u32, config: &Config) -> Result<(), StartError> {
    let stored = stored_format(engine).map_err(|error| StartError::Store(error.to_string()))?;
    let checked = layout::check_format(stored.unwrap_or(layout::FIRST_FORMAT), newest);
    checked.map_err(|newer| StartError::NewerFormat { folder: config.data_dir.display().to_string(), newer })
}

/// Reads who this member is; `None` before its first start.
fn stored_identity(engine: &dyn Engine) -> Result<Option<Identity>, StartError> {
    let Some(bytes) = engine.get(Family::Meta, meta::IDENTITY)? else {
        return Ok(None);
    };
    Identity::decode(bytes).map(Some).map_err(|error| StartError::Store(format!("identity: {error}")))
}

/// Writes who this member is, durably, before it does anything else.
fn store_identity(engine: &dyn Engine, identity: &Identity) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    batch.put(Family::Meta, meta::IDENTITY, Bytes::from(identity.encode_to_vec()));
    engine.write(batch)?;
    engine.flush()
}

/// Makes an empty store that of a member which the cluster has been told of, so that it joins when it is started.
///
/// # Errors
/// When the store cannot be written, or is not empty.
pub fn prepare(home: &dyn EngineHome, cluster_id: u64, member_id: u64) -> Result<(), StartError> {
    let engine = home.open()?;
    if stored_identity(&*engine)?.is_some() {
        return Err(StartError::Store("it is a member's already".to_owned()));
    }
    Ok(store_identity(&*engine, &Identity { cluster_id, member_id, forced: false })?)
}

/// The configuration with the first members that were discovered; `None` where it names them itself.
async fn with_discovered(config: &Config, discover: Option<&Discover>) -> Result<Option<Config>, StartError> {
    let Some(discover) = discover else { return Ok(None) };
    config.check_discovery()?;
    let initial_cluster = discover().await?;
    Ok(Some(Config { initial_cluster, ..config.clone() }))
}

/// etcd's ids: every first member computes the same from the same flags.
fn new_identity(config: &Config) -> Identity {
    let ids = member_ids(config);
    Identity {
        cluster_id: identity::cluster_id(&ids.values().copied().collect::<Vec<_>>()),
        member_id: ids.get(&config.name).copied().unwrap_or_default(),
        forced: false,
    }
}

/// The ids of a member that joins: the cluster has given them.
async fn joining_identity(
    config: &Config,
    resolve: &Resolve,
    dialer: &Dialer,
    newest_format: u32,
) -> Result<Identity, StartError> {
    let others = config.initial_cluster.iter().filter(|(name, _)| **name != config.name);
    let urls: Vec<String> = others.flat_map(|(_, urls)| urls).map(|url| url.as_str().to_owned()).collect();
    let cluster = raft::existing_cluster(&urls, dialer, JOIN_TIMEOUT).await.ok_or(StartError::NoCluster)?;
    layout::check_format(cluster.format, newest_format).map_err(StartError::NewerCluster)?;
    let member_id = config.find_in(&cluster.members, resolve)?;
    Ok(Identity { cluster_id: cluster.cluster_id, member_id, forced: false })
}

fn member_ids(config: &Config) -> BTreeMap<String, u64> {
    config
        .initial_cluster
        .iter()
        .map(|(name, urls)| {
            let urls: Vec<&str> = urls.iter().map(Url::as_str).collect();
            (name.clone(), identity::member_id(&urls, &config.initial_cluster_token))
        })
        .collect()
}

/// Whether `--force-new-cluster` may do what it says. It does so once: where it stands in a manifest, whoever was added
/// since would be thrown out at each start, with all that they hold.
fn may_be_forced(identity: &Identity, is_first_start: bool) -> bool {
    if is_first_start {
        tracing::warn!("this member holds nothing yet: --force-new-cluster has no effect");
    } else if identity.forced {
        tracing::warn!("--force-new-cluster had its effect and has none until this member was started without it");
    }
    !is_first_start && !identity.forced
}

/// A member as its peers find it, by the configuration.
fn peer_node(name: &str, urls: &[Url]) -> PeerNode {
    let peer_urls = urls.iter().map(|url| url.as_str().to_owned()).collect();
    PeerNode { name: name.to_owned(), peer_urls, learner: false }
}

fn consensus_options(
    config: &Config,
    identity: &Identity,
    dialer: Dialer,
    admission: Gate,
    newest_format: u32,
) -> ConsensusOptions {
    let ids = member_ids(config);
    // Whoever has an id that the cluster gave it joins, whatever its flags say.
    let joins = config.initial_cluster_state == ClusterState::Existing
        || ids.get(&config.name).is_some_and(|id| *id != identity.member_id);
    let initial_members = config
        .initial_cluster
        .iter()
        .filter_map(|(name, urls)| {
            // The others are only asked whether they know this member, for which their ids are of no matter.
            let id = if joins && *name == config.name { identity.member_id } else { *ids.get(name)? };
            Some((id, peer_node(name, urls)))
        })
        .collect();
    ConsensusOptions {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        initial_members,
        joins,
        alone: None,
        member_rules: MemberRules {
            strict: config.strict_reconfig_check,
            learners_max: config.max_learners,
            promotes_learners: config.promote_learners,
        },
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        snapshot_catchup_entries: if config.keep_raft_log { u64::MAX } else { config.snapshot_catchup_entries },
        snapshot_send_rate: config.snapshot_send_rate,
        request_bytes_max: config.max_request_bytes,
        gather_from: limits::PROPOSALS_GATHERED_FROM,
        newest_format,
        slow_apply: config.warning_apply_duration,
        dialer,
        admission,
    }
}

/// The way in for requests.
fn gate(config: &Config, budget: &Budget, metrics: &Metrics) -> Gate {
    if !config.admission {
        return Gate::open();
    }
    Gate::new(GateOptions { pool: budget.pool, reserve: budget.reserve, long_reads: budget.long_reads }, metrics)
}

/// Starts what looks after the way in: whether this member is late, and how much memory it takes.
fn spawn_guards(
    config: &Config,
    budget: &Budget,
    admission: &Gate,
    resident: Option<Resident>,
    metrics: &Arc<Metrics>,
) -> Vec<JoinHandle<()>> {
    if !config.admission {
        return Vec::new();
    }
    let mut guards = vec![overload::spawn(admission.clone(), config.election_timeout, metrics.clone())];
    if let (Some(limit), Some(resident)) = (config.memory_limit, resident) {
        guards.push(memory::spawn(admission.clone(), limit, budget, resident, metrics.clone()));
    }
    guards
}

fn spawn_expirer(
    config: &Config,
    gateway: &Gateway,
    inbox: tokio::sync::mpsc::Receiver<crate::lease::LessorMessage>,
    leases: crate::lease::LeaseView,
    metrics: &Arc<Metrics>,
) -> JoinHandle<()> {
    let (gateway, metrics) = (gateway.clone(), metrics.clone());
    let propose: lease_expirer::ProposeAsLeader = Arc::new(move |term, command| {
        let (gateway, metrics) = (gateway.clone(), metrics.clone());
        Box::pin(async move {
            let revokes = matches!(command, Kind::LeaseRevoke(_));
            let outcome = gateway.propose_as_leader(term, command).await?;
            if revokes && outcome.refusal() == command::Refusal::None {
                metrics.lease.expired_total.inc();
            }
            Ok(outcome)
        })
    });
    lease_expirer::spawn(inbox, leases, propose, lease_expirer::ExpirerOptions::new(config.election_timeout))
}

fn compaction_mode(mode: &AutoCompaction) -> auto_compaction::Mode {
    match mode {
        AutoCompaction::Periodic(period) => auto_compaction::Mode::Periodic(*period),
        AutoCompaction::Revision(kept) => auto_compaction::Mode::Revision(i64::try_from(*kept).unwrap_or(i64::MAX)),
    }
}

/// Tells the cluster this member's name and client URLs, until it is heard.
async fn publish(services: Arc<Services>, attributes: MemberAttributes) {
    loop {
        match services.gateway.propose(Some(cluster_itself()), Kind::MemberAttributes(attributes.clone())).await {
            Ok(_) => {
                tracing::info!(
                    "local-member-id" = format!("{:x}", attributes.id),
                    name = attributes.name,
                    "published local member to cluster through raft"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to publish local member to cluster through raft");
                clock::sleep(PUBLISH_PAUSE).await;
            }
        }
    }
}
