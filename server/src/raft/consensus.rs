//! Opens openraft on the log and the state, starts it, and stops it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_proto::mainstay::MemberKnownRequest;
use mainstay_raft_log::RaftLog;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{InitializeError, RaftError};
use openraft::{ReadPolicy, ServerState, SnapshotPolicy};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::addresses::Addresses;
use super::bootstrap::{self, Past};
use super::confirmation::Confirmation;
use super::departures::Departures;
use super::envelope::Seldom;
use super::evidence::Evidence;
use super::forced;
use super::gateway::{Gateway, GatewayOptions};
use super::leadership::Leadership;
use super::log_store::LogStore;
use super::members::MemberRules;
use super::network::Network;
use super::peer::PeerService;
use super::peers::Peers;
use super::progress::Progress;
use super::receiving::Receiving;
use super::reconfigure::Reconfigure;
use super::removal::{REMOVED, Removal};
use super::silence::Silence;
use super::stall::{Pressure, Stall};
use super::standstill::{Standstill, Voice};
use super::state_machine::{AppliedObserver, Audience, StateMachine};
use super::throttle::Throttle;
use super::timeline::Timeline;
use super::type_config::{PeerNode, Raft};
use crate::admission::Gate;
use crate::apply::State;
use crate::auth::SimpleTokens;
use crate::engine::EngineHome;
use crate::env::transport::Dialer;
use crate::env::{blocking, clock, probe};
use crate::lease::Lessor;
use crate::metrics::Metrics;
use crate::watch::Hub;

/// Pause between two slices of background compaction, so that commands are not held up.
const COMPACTION_PAUSE: Duration = Duration::from_millis(4);

/// Entries that are purged together, unless the log is to be kept shorter than that.
const PURGE_BATCH: u64 = 256;

/// How often a member looks whether consensus has failed, which ends it.
const FAILURE_LOOK: Duration = Duration::from_millis(50);

/// How often it is looked whether there is something left of snapshots that is of no more use.
const SNAPSHOT_TIDY_INTERVAL: Duration = Duration::from_secs(2);

/// Pause before a new leader asks again whether it has a quorum.
const LEADERSHIP_PAUSE: Duration = Duration::from_millis(50);

/// What consensus has to know of this member and its cluster.
#[derive(Clone, Debug)]
pub struct ConsensusOptions {
    /// The cluster; messages of another one are refused.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// The first members of a cluster that is new, or those of the one that this member joins. Ignored where
    /// the log has some.
    pub initial_members: BTreeMap<u64, PeerNode>,
    /// Whether this member joins a cluster that is there already.
    pub joins: bool,
    /// This member, where it is to be the only one from now on, whoever else there was.
    pub alone: Option<PeerNode>,
    /// Which changes of the members are let through.
    pub member_rules: MemberRules,
    /// Time between two heartbeats of the leader.
    pub heartbeat_interval: Duration,
    /// Shortest silence of the leader after which a member stands for election.
    pub election_timeout: Duration,
    /// Whether a member asks before it disturbs a leader.
    pub pre_vote: bool,
    /// Entries after which the durable state is looked at for what may be purged of the log.
    pub snapshot_count: u64,
    /// Entries that stay in the log for slow followers.
    pub snapshot_catchup_entries: u64,
    /// Bytes a second that are sent of snapshots, to all members together; 0 is no limit.
    pub snapshot_send_rate: u64,
    /// Largest command.
    pub request_bytes_max: usize,
    /// From how many proposals under way on they wait for each other.
    pub gather_from: usize,
    /// The newest format that this release knows.
    pub newest_format: u32,
    /// A command that takes longer to apply is slow.
    pub slow_apply: Duration,
    /// Makes the connections to the other members.
    pub dialer: Dialer,
    /// The way in for what other members pass on.
    pub admission: Gate,
}

/// Why consensus did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timing does not fit together.
    #[error("consensus configuration: {0}")]
    Config(#[from] openraft::ConfigError),
    /// What is stored cannot be read.
    #[error("stored state: {0}")]
    Stored(String),
    /// openraft refused to start.
    #[error("consensus: {0}")]
    Raft(String),
}

/// Whom consensus tells what it applied.
pub struct Listeners {
    /// Gets the events of every revision.
    pub hub: Hub,
    /// Learns which leases came and went, and whether this member leads.
    pub lessor: Lessor,
    /// Learn which tokens were given and which no longer count.
    pub tokens: SimpleTokens,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Is shown what goes into the state.
    pub observer: Option<Arc<dyn AppliedObserver>>,
}

/// A member's consensus, opened.
pub struct Consensus {
    raft: Raft,
    log: RaftLog,
    gateway: Gateway,
    evidence: Evidence,
    departures: Departures,
    receiving: Arc<Receiving>,
    pressure: Pressure,
    voice: Voice,
    options: ConsensusOptions,
    reconfigure: Arc<Reconfigure>,
    removal: Removal,
    lessor: Lessor,
    compaction: Arc<Notify>,
    metrics: Arc<Metrics>,
    /// What the store failed with, where openraft does not hear of it.
    store_failure: watch::Receiver<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Consensus {
    /// Reads what is stored and prepares everything; nothing is sent before [`Self::start`].
    ///
    /// # Errors
    /// When the stored log or state cannot be taken up.
    pub async fn open(
        options: ConsensusOptions,
        log: RaftLog,
        state: State,
        home: Arc<dyn EngineHome>,
        listeners: Listeners,
    ) -> Result<Self, StartError> {
        let Listeners { hub, lessor, tokens, metrics, observer } = listeners;
        let config = Arc::new(raft_config(&options).validate()?);
        let (applied, progress) = Progress::new();
        let (failure, store_failure) = watch::channel(None);
        let compaction = Arc::new(Notify::new());
        let started = Arc::new(AtomicBool::new(false));
        let (members, format) = (state.members(), state.format());
        let evidence = Evidence::new(state.digest(), state.store());
        let alarms = state.alarms();
        let (addresses, removal) = (Addresses::default(), Removal::of(options.member_id));
        let audience = Audience {
            hub,
            lessor: lessor.clone(),
            tokens,
            applied,
            compaction: compaction.clone(),
            metrics: metrics.clone(),
            slow_apply: options.slow_apply,
            failure,
            addresses: addresses.clone(),
            removal: removal.clone(),
            observer,
        };
        let (departures, pressure) = (Departures::default(), Pressure::default());
        let timeline = Timeline::default();
        let mut machine = StateMachine::new(state, audience, started.clone(), departures.clone(), timeline.clone())
            .map_err(|error| StartError::Stored(error.to_string()))?;
        let mut log_store = LogStore::new(log.clone(), timeline);
        if let Some(node) = &options.alone {
            let stand = forced::stand_alone(options.member_id, node, &mut log_store, &mut machine);
            stand.await.map_err(|error| StartError::Stored(error.to_string()))?;
        }
        let voice = Voice::default();
        let network = Network {
            cluster_id: options.cluster_id,
            rpc_timeout: options.election_timeout,
            dialer: options.dialer.clone(),
            addresses: addresses.clone(),
            removal: removal.clone(),
            voice: voice.clone(),
            astray: Seldom::default(),
            withheld: Seldom::default(),
            own: options.member_id,
            alarms: alarms.clone(),
            doubt: evidence.doubt(),
            format: format.clone(),
            throttle: Throttle::new(options.snapshot_send_rate, pressure.clone()),
            metrics: metrics.clone(),
        };
        let log_at_start = log.last().map(|(index, _)| index);
        let raft = Raft::build(options.member_id, config, network, log_store, machine)
            .await
            .map_err(|error| StartError::Stored(error.to_string()))?;
        started.store(true, Ordering::Release);
        let gateway_options = GatewayOptions {
            cluster_id: options.cluster_id,
            member_id: options.member_id,
            election_timeout: options.election_timeout,
            request_bytes_max: options.request_bytes_max,
            gather_from: options.gather_from,
            joins: options.joins,
            newest_format: options.newest_format,
            log_at_start,
            removal: removal.clone(),
        };
        let (rules, timeout) = (options.member_rules, options.election_timeout);
        let (own, cluster_id) = (options.member_id, options.cluster_id);
        let peers = Arc::new(Peers::new(own, options.dialer.clone(), timeout));
        let confirmation = Arc::new(Confirmation::new(own, cluster_id, raft.clone(), peers.clone(), timeout));
        let views = (members.clone(), alarms);
        let reconfigure = Arc::new(Reconfigure::new(raft.clone(), confirmation.clone(), views, rules, timeout));
        let (gateway, tasks) = Gateway::new(
            gateway_options,
            raft.clone(),
            (members, format, addresses),
            (peers, confirmation, reconfigure.clone()),
            lessor.clone(),
            metrics.clone(),
            progress,
        );
        Ok(Self {
            raft,
            log,
            gateway,
            evidence,
            departures,
            receiving: Arc::new(Receiving::new(home)),
            pressure,
            voice,
            options,
            reconfigure,
            removal,
            lessor,
            compaction,
            metrics,
            store_failure,
            tasks: tasks.into(),
        })
    }

    /// The way in for everything else.
    pub fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// What this member can say of its state.
    pub fn evidence(&self) -> Evidence {
        self.evidence.clone()
    }

    /// Who leads, and handing that over.
    pub fn leadership(&self) -> Leadership {
        Leadership::new(self.raft.clone(), self.options.election_timeout)
    }

    /// What peers call.
    pub fn routes(&self) -> tonic::service::Routes {
        tonic::service::Routes::new(PeerService::server(
            self.raft.clone(),
            self.gateway(),
            self.evidence(),
            self.receiving.clone(),
            self.options.admission.clone(),
            self.metrics.clone(),
        ))
    }

    /// What the others know of an earlier life of this member.
    pub async fn past(&self) -> Past {
        let options = &self.options;
        let others = options.initial_members.iter().filter(|(id, _)| **id != options.member_id);
        let peers: Vec<Vec<String>> = others.map(|(_, node)| node.peer_urls.clone()).collect();
        let question = MemberKnownRequest { cluster_id: options.cluster_id, member_id: options.member_id };
        bootstrap::past_of(question, peers, !options.joins, &options.dialer, options.election_timeout).await
    }

    /// Starts to take part; with the initial members where this is the first start of all.
    ///
    /// # Errors
    /// When openraft has failed meanwhile.
    pub async fn start(&mut self) -> Result<(), StartError> {
        self.raft.run();
        self.tasks.push(tokio::task::spawn(tell_lessor(self.raft.clone(), self.lessor.clone())));
        self.tasks.push(tokio::task::spawn(compact(self.raft.clone(), self.compaction.clone(), self.metrics.clone())));
        let (reconfigure, interval) = (self.reconfigure.clone(), self.options.heartbeat_interval);
        self.tasks.push(tokio::task::spawn(async move { reconfigure.chores(interval).await }));
        let pressure = self.pressure.clone();
        let stall = Stall::new(self.log.clone(), self.leadership(), self.options.election_timeout, pressure);
        self.tasks.push(tokio::task::spawn(async move { stall.watch().await }));
        let standstill = Standstill::new(self.raft.clone(), self.voice.clone(), self.options.election_timeout);
        self.tasks.push(tokio::task::spawn(async move { standstill.watch().await }));
        let tidy = tidy_snapshots(self.departures.clone(), self.receiving.clone(), self.gateway());
        self.tasks.push(tokio::task::spawn(tidy));
        let silence = Silence::new(&self.options, self.gateway(), self.removal.clone());
        self.tasks.push(tokio::task::spawn(async move { silence.watch().await }));
        self.compaction.notify_one(); // takes up what an earlier run left
        // Whoever joins is sent the list of members by the leader, and all else.
        if !self.options.joins {
            match self.raft.initialize(self.options.initial_members.clone()).await {
                // Every first member writes the same first entry; whoever is past it goes on from its log.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(StartError::Raft(error.to_string())),
            }
        }
        let alone = self.raft.metrics().borrow_watched().membership_config.voter_ids().eq([self.options.member_id]);
        if alone {
            // Nobody else could win: there is no reason to sit out the election timeout.
            self.raft.trigger().elect(false).await.map_err(|error| StartError::Raft(error.to_string()))?;
        }
        Ok(())
    }

    /// Resolves with the reason when consensus cannot go on: a failed disk, a command that cannot be applied.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let (metrics, mut server) = (self.raft.metrics(), self.raft.server_metrics());
        let mut store_failure = self.store_failure.clone();
        let removal = self.removal.clone();
        let of_store = async move {
            let failure = store_failure.wait_for(Option::is_some).await.map(|failure| failure.clone());
            match failure {
                Ok(failure) => failure.unwrap_or_default(),
                // The state machine has ended, of which consensus tells more.
                Err(_) => std::future::pending().await,
            }
        };
        let of_consensus = async move {
            let mut has_ended = false;
            loop {
                if let Err(fatal) = &metrics.borrow_watched().running_state {
                    return fatal.to_string();
                }
                if has_ended {
                    return "consensus ended".to_owned();
                }
                // With each entry there are new ones: to be woken by them costs more than to look now and then.
                has_ended = matches!(clock::timeout(FAILURE_LOOK, server.changed()).await, Ok(Err(_)));
            }
        };
        async move {
            // The first is the cause where both are there.
            tokio::select! {
                biased;
                () = removal.takes_effect() => REMOVED.to_owned(),
                reason = of_store => reason,
                reason = of_consensus => reason,
            }
        }
    }

    /// Stops taking part and makes the state durable, so that the next start replays nothing.
    pub async fn stop(self) {
        let flushed = self.raft.with_state_machine(|machine| Box::pin(async move { machine.flush() })).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "failed to flush the state; the next start replays the log");
        }
        for task in &self.tasks {
            task.abort();
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop in order");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn raft_config(options: &ConsensusOptions) -> openraft::Config {
    openraft::Config {
        cluster_name: format!("{:x}", options.cluster_id),
        heartbeat_interval: millis(options.heartbeat_interval),
        // openraft waits for the leader's lease (the maximum) and then for a random time between the
        // two: together one and a half to two election timeouts, the upper half of what etcd waits.
        election_timeout_min: millis(options.election_timeout / 2),
        election_timeout_max: millis(options.election_timeout),
        enable_pre_vote: Some(options.pre_vote),
        // A leader that comes back resumes its term without a new entry, and ReadIndex would then
        // answer from before the restart: it has to be elected anew.
        enable_leader_restore: Some(probe::broken("leader-resumes-after-restart")),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_count),
        max_in_snapshot_log_to_keep: options.snapshot_catchup_entries,
        // A follower is sent the log for as long as the log is there.
        replication_lag_threshold: u64::MAX,
        purge_batch_size: options.snapshot_count.min(PURGE_BATCH),
        max_payload_entries: 1024,
        install_snapshot_timeout: 60 * 60 * 1000,
        backoff: "50ms 100ms 200ms ..1s".to_owned(),
        ..openraft::Config::default()
    }
}

/// Tells the lessor when this member gains and loses the leadership.
///
/// It gains it, as far as leases go, once its state covers everything that was committed before its
/// term: earlier, a revocation by its predecessor may be ahead of what is applied here.
async fn tell_lessor(raft: Raft, lessor: Lessor) {
    let mut metrics = raft.server_metrics();
    let mut told = None;
    loop {
        let leading = {
            let metrics = metrics.borrow_and_update();
            (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id.term)
        };
        if let Some(term) = told
            && leading != told
        {
            probe::reached("leadership-lost");
            tracing::info!(term, "lost the leadership");
            lessor.leadership(false, term).await;
            told = None;
        }
        if let Some(term) = leading
            && told.is_none()
        {
            if raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_err() {
                clock::sleep(LEADERSHIP_PAUSE).await;
                continue; // no quorum yet, or deposed meanwhile: look again
            }
            if metrics.borrow_watched().vote.leader_id.term == term {
                probe::reached("leadership-gained");
                tracing::info!(term, "became leader");
                lessor.leadership(true, term).await;
                told = leading;
            }
            continue;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Removes what is left of snapshots that were sent or received, when nobody needs it any more.
async fn tidy_snapshots(departures: Departures, receiving: Arc<Receiving>, gateway: Gateway) {
    loop {
        clock::sleep(SNAPSHOT_TIDY_INTERVAL).await;
        if let Some(former) = departures.tidy() {
            blocking(move || drop(former)).await;
        }
        receiving.tidy(gateway.status().applied).await;
    }
}

/// Removes compacted history between runs, slice by slice, whenever there is some.
async fn compact(raft: Raft, wake: Arc<Notify>, metrics: Arc<Metrics>) {
    loop {
        wake.notified().await;
        let began = clock::now();
        let mut slices = 0;
        loop {
            let slice = raft
                .with_state_machine(|machine| {
                    Box::pin(async move {
                        let began = clock::now();
                        let more = machine.compact_slice()?;
                        Ok::<_, std::io::Error>((more, clock::elapsed(began)))
                    })
                })
                .await;
            match slice {
                Ok(Ok((true, took))) => {
                    slices += 1;
                    // A slice keeps both the store and its index from others.
                    let millis = took.as_secs_f64() * 1e3;
                    metrics.mvcc.db_compaction_pause_duration_milliseconds.observe(millis);
                    metrics.mvcc.index_compaction_pause_duration_milliseconds.observe(millis);
                    clock::sleep(COMPACTION_PAUSE).await;
                }
                Ok(Ok((false, _))) => break,
                Ok(Err(error)) => {
                    tracing::error!(%error, "compaction failed");
                    return; // the state machine has said so: this member ends
                }
                Err(_) => return, // consensus has ended
            }
        }
        if slices > 0 {
            let total = &metrics.mvcc.db_compaction_total_duration_milliseconds;
            total.observe(clock::elapsed(began).as_secs_f64() * 1e3);
            metrics.mvcc.db_compaction_last.set(clock::since_epoch().as_secs().cast_signed());
        }
    }
}
