//! Three members of the real server in one simulated process: what only the server itself can show.
//!
//! `RUSTFLAGS="--cfg madsim" cargo test -p mainstay-server --lib node::`

#![cfg(madsim)]

mod astray;
mod at_start;
mod forwarding;
mod sizes;
mod stages;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Node, StartError, Storage, Surroundings, log_identity};
use crate::api::Services;
use crate::command::command::Kind;
use crate::command::{self, Command};
use crate::config::{Config, Given, Invocation};
use crate::engine::layout::{self, meta};
use crate::engine::mem::{Fault, MemHome};
use crate::engine::{Batch, EngineHome, Family};
use crate::env::transport::LinkConditions;
use crate::env::{clock, probe, transport};
use crate::metrics::Metrics;
use crate::raft::{self, AppliedObserver, Leadership, Member, MemberChange, TransferError, Unavailable};
use crate::watch::Bounds;
use futures_util::StreamExt;
use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle, Runtime};
use madsim::task::NodeId;
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::cluster_server::Cluster;
use mainstay_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, LeaseGrantRequest, MemberAddRequest, MemberRemoveRequest,
    PutRequest,
};
use mainstay_proto::mainstay::peer_client::PeerClient;
use mainstay_proto::mainstay::{ForwardRequest, Identity, MemberKnownRequest, StateDigest};
use mainstay_raft_log::disk::sim::SimMedium;
use mainstay_raft_log::{Options as LogOptions, RaftLog};
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tonic::Request;
use tonic::service::Routes;

const MEMBERS: usize = 3;

const LOG_SEGMENT_BYTES: u64 = 64 * 1024;

/// etcd's default.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Whoever gets a snapshot of a megabyte gets it in three seconds.
const SNAPSHOT_SEND_RATE: u64 = 400_000;

/// What one member's state was made of, by index.
type Applied = Arc<Mutex<BTreeMap<u64, (u64, Vec<u8>)>>>;

/// Takes down what is applied, and how often a snapshot took the state's place.
struct Record(Applied, Arc<AtomicU64>);

impl AppliedObserver for Record {
    fn applying(&self, index: u64, term: u64, payload: &[u8]) {
        let before = self.0.lock().unwrap().insert(index, (term, payload.to_vec()));
        assert!(before.is_none_or(|before| before == (term, payload.to_vec())), "entry {index} changed");
    }

    fn restored(&self, _index: u64, _term: u64) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// A machine: what survives its member, and the member that runs on it.
struct Machine {
    index: usize,
    node: NodeId,
    log: SimMedium,
    store: MemHome,
    applied: Applied,
    restored: Arc<AtomicU64>,
    /// The newest format that its release knows.
    newest_format: u32,
}

/// What a running member is asked through.
struct Running {
    services: Arc<Services>,
    leadership: Leadership,
    /// Why it ended.
    ended: tokio::task::JoinHandle<String>,
}

fn address(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, index as u8 + 1])
}

fn config(index: usize) -> Config {
    config_with(index, MEMBERS, &[])
}

/// The configuration of one of so many members, with further flags.
fn config_with(index: usize, members: usize, flags: &[&str]) -> Config {
    let url = |index| format!("http://{}:2380", address(index));
    let cluster: Vec<String> = (0..members).map(|index| format!("m{index}={}", url(index))).collect();
    let mut arguments = vec![
        format!("--name=m{index}"),
        format!("--listen-peer-urls={}", url(index)),
        format!("--initial-advertise-peer-urls={}", url(index)),
        format!("--listen-client-urls=http://{}:2379", address(index)),
        format!("--advertise-client-urls=http://{}:2379", address(index)),
        format!("--initial-cluster={}", cluster.join(",")),
        "--snapshot-count=50".to_owned(),
        format!("--max-request-bytes={}", LOG_SEGMENT_BYTES / 2),
        "--snapshot-catchup-entries=20".to_owned(),
        format!("--snapshot-send-rate={SNAPSHOT_SEND_RATE}"),
    ];
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let read_file = &|_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    match (Given { arguments, variables: Vec::new(), read_file }).understand() {
        Ok(Invocation::Serve(config, _)) => *config,
        other => panic!("the flags are refused: {other:?}"),
    }
}

impl Machine {
    fn new(index: usize) -> Self {
        let node = Handle::current().create_node().name(format!("m{index}")).ip(address(index)).build().id();
        let (applied, restored) = Default::default();
        let (log, store) = (SimMedium::new(index as u64), MemHome::new());
        Self { index, node, log, store, applied, restored, newest_format: layout::FORMAT }
    }

    /// The machine as it is since its last start: a handle from before starts nothing any more.
    fn node(&self) -> NodeHandle {
        Handle::current().get_node(self.node).expect("the machine is there")
    }

    async fn start(&self) -> Result<Running, StartError> {
        self.start_with(config(self.index)).await
    }

    async fn start_with(&self, config: Config) -> Result<Running, StartError> {
        self.start_serving(config, |routes| routes).await
    }

    /// With other routes for its peers than its own.
    async fn start_serving(&self, config: Config, routes: fn(Routes) -> Routes) -> Result<Running, StartError> {
        let storage = Storage {
            home: Arc::new(self.store.clone()),
            disk: Arc::new(self.log.mount()),
            log_segment_bytes: LOG_SEGMENT_BYTES,
            store_flush_bytes: 16 * 1024,
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
            applied_observer: Some(Arc::new(Record(self.applied.clone(), self.restored.clone()))),
            read_key: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
            watch_bounds: Bounds::STANDARD,
            resident: None,
            newest_format: self.newest_format,
            gather_from: 2,
        };
        let peers = SocketAddr::new(address(self.index), 2380);
        let (started, running) = oneshot::channel();
        let ended = self.node().spawn(async move {
            let opened = Node::open(&config, storage, surroundings).await;
            let mut node = match opened {
                Ok(node) => node,
                Err(error) => {
                    started.send(Err(error)).ok();
                    return "not opened".to_owned();
                }
            };
            let serving = tokio::task::spawn(transport::serve(peers, routes(node.peer_routes())));
            node.compare().await;
            if let Err(error) = node.start().await {
                serving.abort();
                started.send(Err(error)).ok();
                return "not started".to_owned();
            }
            started.send(Ok((node.services(), node.leadership()))).ok();
            node.failed().await
        });
        let (services, leadership) = running.await.expect("a member says whether it started")?;
        Ok(Running { services, leadership, ended })
    }

    /// Ends the member, with nothing that was not made durable.
    fn kill(&self) {
        Handle::current().kill(self.node);
        self.log.crash();
        self.store.crash();
        Handle::current().restart(self.node);
    }
}

fn simulate<F: Future<Output = ()>>(seed: u64, run: impl FnOnce(Vec<Machine>, Vec<Running>) -> F) {
    simulate_with(seed, config, run);
}

fn simulate_with<F: Future<Output = ()>>(
    seed: u64,
    config: impl Fn(usize) -> Config,
    run: impl FnOnce(Vec<Machine>, Vec<Running>) -> F,
) {
    simulate_many(seed, MEMBERS, config, run);
}

/// The same, with so many members.
fn simulate_many<F: Future<Output = ()>>(
    seed: u64,
    members: usize,
    config: impl Fn(usize) -> Config,
    run: impl FnOnce(Vec<Machine>, Vec<Running>) -> F,
) {
    clock::reset();
    transport::clear_links();
    transport::clear_detours();
    let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_time_limit(Duration::from_secs(600));
    runtime.block_on(async {
        let machines: Vec<Machine> = (0..members).map(Machine::new).collect();
        let starts = machines.iter().map(|machine| machine.start_with(config(machine.index)));
        let members = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
        run(machines, members).await;
    });
}

impl Running {
    fn id(&self) -> u64 {
        self.leadership.view().member_id
    }
}

/// Proposes a command at a member, on its own machine, and waits for it.
async fn propose(machine: &Machine, member: &Running, kind: Kind) -> bool {
    let gateway = member.services.gateway.clone();
    machine.node().spawn(async move { gateway.propose(None, kind).await.is_ok() }).await.unwrap()
}

async fn put(machine: &Machine, member: &Running, key: &str) -> bool {
    let key = bytes::Bytes::copy_from_slice(key.as_bytes());
    propose(machine, member, Kind::Put(PutRequest { key, ..PutRequest::default() })).await
}

/// Cuts the links between one member and the others, both ways, or mends them.
fn cut_off_from_others(machines: &[Machine], one: usize, is_cut: bool) {
    for other in machines.iter().filter(|other| other.index != one) {
        cut_off(&machines[one], other, is_cut);
    }
}

/// The same, between two members.
fn cut_off(one: &Machine, other: &Machine, is_cut: bool) {
    let net = NetSim::current();
    for (from, to) in [(one.node, other.node), (other.node, one.node)] {
        if is_cut { net.clog_link(from, to) } else { net.unclog_link(from, to) }
    }
}

/// The member that is added to the first ones.
const JOINER: u64 = 7;

/// Has the joiner added, as a learner behind the address after the last.
async fn add_learner(machine: &Machine, member: &Running) {
    let peer_urls = vec![format!("http://{}:2380", address(MEMBERS))];
    let add = MemberChange::Add { id: JOINER, peer_urls, learner: true };
    let gateway = member.services.gateway.clone();
    machine.node().spawn(async move { gateway.change_members(add).await }).await.unwrap().unwrap().unwrap();
}

/// How the joiner is started.
fn config_of_joiner() -> Config {
    config_with(MEMBERS, MEMBERS + 1, &["--initial-cluster-state=existing"])
}

/// Waits until something was written and all have published themselves; who leads then.
async fn settled(machines: &[Machine], members: &[Running]) -> usize {
    assert!(put(&machines[0], &members[0], "a").await);
    sleep(Duration::from_secs(2)).await;
    leader(members).await
}

async fn leader(members: &[Running]) -> usize {
    loop {
        if let Some(leader) = members.iter().position(|member| member.leadership.view().leads) {
            return leader;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn the_leadership_is_handed_over_and_members_apply_alike() {
    simulate(1, |machines, members| async move {
        let first = leader(&members).await;
        assert!(put(&machines[0], &members[0], "a").await);
        let next = (first + 1) % MEMBERS;
        let to = members[next].id();
        let follower = members[next].leadership.clone();
        let refused = machines[next].node().spawn(async move { follower.transfer(to).await }).await.unwrap();
        assert_eq!(refused, Err(TransferError::NotLeader));
        let leading = members[first].leadership.clone();
        let stranger = machines[first].node().spawn({
            let leading = leading.clone();
            async move { leading.transfer(7).await }
        });
        assert_eq!(stranger.await.unwrap(), Err(TransferError::NotVoter));
        let mut views = Box::pin(members[next].leadership.views());
        machines[first].node().spawn(async move { leading.transfer(to).await }).await.unwrap().unwrap();
        while !views.next().await.unwrap().leads {}
        assert!(!members[first].leadership.view().leads);
        assert!(put(&machines[first], &members[first], "b").await);
        sleep(Duration::from_secs(2)).await;
        let states: Vec<_> = machines.iter().map(|machine| machine.applied.lock().unwrap().clone()).collect();
        assert!(states[0].len() > 2 && states[0] == states[1] && states[1] == states[2]);
    });
}

#[test]
fn a_member_that_lost_its_data_is_refused() {
    simulate(2, |mut machines, members| async move {
        let away = (leader(&members).await + 1) % MEMBERS;
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        machines[away].kill();
        machines[away].log = SimMedium::new(9);
        machines[away].store = MemHome::new();
        for _ in 0..2 {
            // The second time it knows its name again, but has still never voted.
            match machines[away].start().await {
                Err(StartError::AlreadyBootstrapped(id)) => assert_eq!(id, members[away].id()),
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("it came back as itself"),
            }
        }
        let other = (away + 1) % MEMBERS;
        assert!(put(&machines[other], &members[other], "b").await);
    });
}

#[test]
fn a_member_that_lost_its_log_is_refused_and_one_that_lost_its_store_too() {
    simulate(3, |mut machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await;
        machines[1].store.crash_keeping(usize::MAX); // as if its engine had flushed by itself
        Handle::current().kill(machines[1].node);
        Handle::current().restart(machines[1].node);
        let log = std::mem::replace(&mut machines[1].log, SimMedium::new(9));
        assert!(matches!(machines[1].start().await, Err(StartError::LogLost { applied, .. }) if applied > 0));
        machines[1].log = log;
        let store = std::mem::take(&mut machines[1].store);
        assert!(matches!(machines[1].start().await, Err(StartError::NoIdentity)));
        machines[1].store = store;
        let back = machines[1].start().await.map(|_| ());
        assert!(back.is_ok(), "{back:?}");
    });
}

#[test]
fn a_store_that_fails_ends_its_member_and_no_other() {
    for (seed, fault) in [(4, Some(Fault::Write)), (5, None)] {
        simulate(seed, |machines, mut members| async move {
            let victim = (leader(&members).await + 1) % MEMBERS;
            assert!(put(&machines[victim], &members[victim], "a").await);
            match fault {
                Some(fault) => machines[victim].store.fail_next(fault),
                None => machines[victim].store.set_room(Some(0)),
            }
            let other = (victim + 1) % MEMBERS;
            assert!(put(&machines[other], &members[other], "b").await);
            let failed = timeout(Duration::from_secs(5), &mut members[victim].ended).await.expect("it ends").unwrap();
            assert!(failed.contains("simulated"), "{failed}");
            // The rest is a majority, and the one that failed comes back when its disk is well.
            assert!(put(&machines[other], &members[other], "c").await);
            machines[victim].store.set_room(None);
            machines[victim].kill();
            members[victim] = machines[victim].start().await.unwrap();
            assert!(put(&machines[victim], &members[victim], "d").await);
        });
    }
}

#[test]
fn a_store_that_fails_while_it_removes_history_ends_its_member() {
    simulate(6, |machines, mut members| async move {
        for _ in 0..20 {
            assert!(put(&machines[0], &members[0], "again").await);
        }
        let compaction = CompactionRequest { revision: 15, physical: false };
        assert!(propose(&machines[0], &members[0], Kind::Compaction(compaction)).await);
        machines[0].store.fail_next(Fault::Write);
        let failed = timeout(Duration::from_secs(5), &mut members[0].ended).await.expect("it ends").unwrap();
        assert!(failed.contains("simulated I/O error"), "{failed}");
    });
}

#[test]
fn a_follower_whose_clock_jumps_stands_for_election_and_the_cluster_goes_on() {
    simulate(7, |machines, members| async move {
        let leading = leader(&members).await;
        assert!(put(&machines[0], &members[0], "a").await);
        for step in 0..20 {
            let machine = &machines[(leading + 1 + step) % MEMBERS];
            clock::jump(machine.node, Duration::from_secs(60));
            clock::set_rate(machine.node, if step % 2 == 0 { 1.3 } else { 0.8 });
            sleep(Duration::from_millis(300)).await;
        }
        sleep(Duration::from_secs(5)).await;
        for (machine, member) in machines.iter().zip(&members) {
            assert!(put(machine, member, "b").await);
        }
    });
}

/// The state that is sent holds the sender's identity, too: taken over, it would make a stranger of the member.
#[test]
fn a_member_that_got_a_snapshot_is_still_itself_when_it_starts_again() {
    simulate(8, |machines, mut members| async move {
        let away = (leader(&members).await + 1) % MEMBERS;
        let other = (away + 1) % MEMBERS;
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        machines[away].kill();
        for _ in 0..300 {
            let request = PutRequest { key: "a".into(), value: vec![0; 1024].into(), ..PutRequest::default() };
            assert!(propose(&machines[other], &members[other], Kind::Put(request)).await);
        }
        members[away] = machines[away].start().await.unwrap();
        assert!(put(&machines[away], &members[away], "b").await);
        assert!(machines[away].restored.load(Ordering::Relaxed) > 0, "the entries it missed are purged");
        machines[away].kill();
        members[away] = match machines[away].start().await {
            Ok(running) => running,
            Err(error) => panic!("{error}"),
        };
        assert!(put(&machines[away], &members[away], "c").await);
    });
}

/// Keys that a member misses, and bytes of each value: a megabyte.
const MISSED: usize = 1000;
const MISSED_BYTES: usize = 1000;

/// Ends a member that does not lead and lets it miss so much that it needs a snapshot. Which it is, who leads, and how
/// many bytes a snapshot has.
async fn leave_behind(machines: &[Machine], members: &[Running]) -> (usize, usize, u64) {
    sleep(Duration::from_secs(2)).await; // until all have published themselves
    let leads = leader(members).await;
    let away = (leads + 1) % MEMBERS;
    machines[away].kill();
    write_missed(&machines[leads], &members[leads], 0..MISSED).await;
    let checkpoint = machines[leads].store.open().unwrap().checkpoint().unwrap();
    let size: u64 = checkpoint.files().iter().map(|(_, size)| size).sum();
    assert!(size > (MISSED * MISSED_BYTES) as u64);
    (away, leads, size)
}

async fn write_missed(machine: &Machine, member: &Running, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let (key, value) = (format!("missed/{number:06}").into(), vec![number as u8; MISSED_BYTES].into());
        assert!(propose(machine, member, Kind::Put(PutRequest { key, value, ..PutRequest::default() })).await);
    }
}

/// Waits until something is so, for a minute.
async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} does not happen");
}

/// Breaks every connection from one machine to another that carries something now.
async fn break_connections(from: &Machine, to: &Machine) {
    transport::set_link(from.node, to.node, LinkConditions { reset: 1.0, ..LinkConditions::default() });
    sleep(Duration::from_millis(300)).await;
    transport::clear_links();
}

/// Waits until a member has installed a snapshot and caught up, and compares it with another.
async fn catches_up(machines: &[Machine], members: &[Running], behind: usize, other: usize) {
    wait_until("a snapshot", || machines[behind].restored.load(Ordering::Relaxed) > 0).await;
    assert!(put(&machines[behind], &members[behind], "caught up").await);
    let hash = |member: usize| {
        let store = &members[member].services.store;
        store.hash_kv(store.revision()).unwrap().hash
    };
    wait_until("the same state", || hash(behind) == hash(other)).await;
    assert_eq!(machines[behind].store.staged(), [], "nothing is left of it");
}

/// A link that breaks costs what was under way, and not what had arrived.
#[test]
fn a_snapshot_that_breaks_off_goes_on_where_it_was() {
    simulate(16, |machines, mut members| async move {
        let (away, leads, size) = leave_behind(&machines, &members).await;
        let to = members[away].services.gateway.status().member_id;
        members[away] = machines[away].start().await.unwrap();
        let sent = || members[leads].services.metrics.network.peer(to).snapshot_sent_bytes.get();
        let began = clock::now();
        for part in 1..=4 {
            wait_until("a part of a snapshot", || sent() >= part * size / 6).await;
            break_connections(&machines[leads], &machines[away]).await;
        }
        catches_up(&machines, &members, away, leads).await;
        let took = clock::now() - began;
        let failures = members[leads].services.metrics.network.peer(to).snapshots_sent.failures.get();
        let from = members[leads].services.gateway.status().member_id;
        let resumed = members[away].services.metrics.network.peer(from).snapshot_resumed_bytes.get();
        eprintln!("{} of {size} bytes sent, {failures} failures, {took:?}", sent());
        assert!(failures >= 4 && resumed > 0, "{failures} failures, {resumed} bytes resumed");
        assert!(sent() >= size && sent() < size * 3 / 2, "{} of {size} bytes were sent", sent());
        let least = Duration::from_secs(size / SNAPSHOT_SEND_RATE);
        assert!(took >= least, "{took:?} for {size} bytes at {SNAPSHOT_SEND_RATE} a second");
    });
}

/// The receiver's process ends in the middle, a bit of what it had turns over, and the sender's state moves on: what is
/// the same and whole is not sent again.
#[test]
fn a_member_that_was_killed_while_it_received_keeps_what_is_whole() {
    simulate(17, |machines, mut members| async move {
        let (away, leads, size) = leave_behind(&machines, &members).await;
        let to = members[away].services.gateway.status().member_id;
        members[away] = machines[away].start().await.unwrap();
        let sent = || members[leads].services.metrics.network.peer(to).snapshot_sent_bytes.get();
        wait_until("half of a snapshot", || sent() >= size / 2).await;
        machines[away].kill();
        let whole = machines[away].store.staged().len();
        assert!(whole > 3 && machines[away].store.rot_staged(3), "{whole} files are whole");
        // More than the log keeps, and later than the checkpoint is kept.
        sleep(Duration::from_secs(15)).await;
        write_missed(&machines[leads], &members[leads], MISSED..MISSED + 100).await;
        members[away] = machines[away].start().await.unwrap();
        catches_up(&machines, &members, away, leads).await;
        let from = members[leads].services.gateway.status().member_id;
        let resumed = members[away].services.metrics.network.peer(from).snapshot_resumed_bytes.get();
        let sent = members[leads].services.metrics.network.peer(to).snapshot_sent_bytes.get();
        // What was written since is sent, too.
        assert!(
            resumed >= size / 4 && sent < size * 3 / 2 + 100 * 2 * MISSED_BYTES as u64,
            "{resumed}, {sent}, {size}"
        );
    });
}

/// Whoever leads next goes on with what is the same at its own, and nothing of the former leader's is taken for it.
#[test]
fn the_next_leader_sends_its_own_snapshot() {
    simulate(18, |machines, mut members| async move {
        let (away, leads, size) = leave_behind(&machines, &members).await;
        let to = members[away].services.gateway.status().member_id;
        members[away] = machines[away].start().await.unwrap();
        wait_until("half of a snapshot", || {
            members[leads].services.metrics.network.peer(to).snapshot_sent_bytes.get() >= size / 2
        })
        .await;
        machines[leads].kill();
        let third = (leads + 2) % MEMBERS;
        catches_up(&machines, &members, away, third).await;
        members[leads] = machines[leads].start().await.unwrap();
        assert!(put(&machines[leads], &members[leads], "back").await);
    });
}

/// The question of what is here is not known to a member of an older release, which begins anew each time.
fn without_the_question(routes: Routes) -> Routes {
    let refuse = || async { tonic::Status::unimplemented("").into_http::<axum::body::Body>() };
    routes.into_axum_router().route("/mainstay.Peer/SnapshotKept", axum::routing::post(refuse)).into()
}

#[test]
fn a_member_of_an_older_release_is_sent_everything() {
    simulate(19, |machines, mut members| async move {
        let (away, leads, size) = leave_behind(&machines, &members).await;
        let to = members[away].services.gateway.status().member_id;
        members[away] = machines[away].start_serving(config(away), without_the_question).await.unwrap();
        let sent = || members[leads].services.metrics.network.peer(to).snapshot_sent_bytes.get();
        wait_until("half of a snapshot", || sent() >= size / 2).await;
        break_connections(&machines[leads], &machines[away]).await;
        catches_up(&machines, &members, away, leads).await;
        assert!(sent() >= size * 3 / 2, "{} of {size} bytes were sent", sent());
        let from = members[leads].services.gateway.status().member_id;
        assert_eq!(members[away].services.metrics.network.peer(from).snapshot_resumed_bytes.get(), 0);
    });
}

/// While a snapshot is on its way so much is written that the log would be purged beyond it, and the next one would be
/// needed at once.
#[test]
fn the_log_waits_for_who_gets_a_snapshot() {
    simulate(20, |machines, mut members| async move {
        let (away, leads, size) = leave_behind(&machines, &members).await;
        let to = members[away].services.gateway.status().member_id;
        members[away] = machines[away].start().await.unwrap();
        wait_until("the beginning of a snapshot", || {
            members[leads].services.metrics.network.peer(to).snapshot_sent_bytes.get() >= size / 10
        })
        .await;
        write_missed(&machines[leads], &members[leads], 0..120).await;
        assert_eq!(machines[away].restored.load(Ordering::Relaxed), 0, "it is still on its way");
        catches_up(&machines, &members, away, leads).await;
        assert_eq!(machines[away].restored.load(Ordering::Relaxed), 1);
        // When it is there the log goes on to be purged.
        sleep(Duration::from_secs(30)).await;
        write_missed(&machines[leads], &members[leads], 0..400).await;
        let own = members[leads].services.gateway.status();
        let owner = Identity { cluster_id: own.cluster_id, member_id: own.member_id, forced: false };
        let options =
            LogOptions { identity: log_identity(&owner), segment_bytes: LOG_SEGMENT_BYTES, ..LogOptions::default() };
        let (log, _) = RaftLog::open(Arc::new(machines[leads].log.fork().mount()), options).unwrap();
        let (first, last) = (log.first_index().unwrap(), log.last().unwrap().0);
        assert!(last - first < 400, "the log holds {first} to {last}");
    });
}

/// The next leader gives every lease its whole time again when it is elected; a renewal by the one before
/// is unknown to it, and the lease would end before its time.
#[test]
fn a_leader_that_was_deposed_without_knowing_it_renews_no_lease_and_denies_none() {
    simulate(9, |machines, members| async move {
        const LEASE: i64 = 7;
        const LATER: i64 = 8;
        let old = leader(&members).await;
        let grant = LeaseGrantRequest { ttl: 60, id: LEASE };
        assert!(propose(&machines[old], &members[old], Kind::LeaseGrant(grant)).await);
        let renew = async || {
            let gateway = members[old].services.gateway.clone();
            machines[old].node().spawn(async move { gateway.lease_renew(LEASE).await }).await.unwrap()
        };
        assert_eq!(renew().await, Ok(60));
        let others = || (0..MEMBERS).filter(|index| *index != old);
        cut_off_from_others(&machines, old, true);
        while !others().any(|other| members[other].leadership.view().leads) {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(members[old].leadership.view().leads, "it does not know yet");
        let renewed: Result<i64, Unavailable> = renew().await;
        assert!(renewed.is_err(), "{renewed:?}");
        let new = others().find(|other| members[*other].leadership.view().leads).unwrap();
        let grant = LeaseGrantRequest { ttl: 60, id: LATER };
        assert!(propose(&machines[new], &members[new], Kind::LeaseGrant(grant)).await);
        let remaining = async || {
            let gateway = members[old].services.gateway.clone();
            machines[old].node().spawn(async move { gateway.lease_remaining(LATER).await }).await.unwrap()
        };
        let unknown = remaining().await;
        assert!(unknown.is_err(), "{unknown:?}");
        cut_off_from_others(&machines, old, false);
        assert_eq!(renew().await, Ok(60), "by the one that leads");
        assert!(remaining().await.is_ok_and(|remaining| remaining.is_some()));
    });
}

/// Who has the only vote need not ask whether it still leads, once it has applied an entry of its term.
#[test]
fn the_only_voter_renews_leases_by_itself() {
    simulate(30, |machines, members| async move {
        const LEASE: i64 = 7;
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(1)).await; // until its log holds that
        machines.iter().for_each(Machine::kill);
        let forced = Config { force_new_cluster: true, ..config(0) };
        let alone = machines[0].start_with(forced).await.unwrap_or_else(|error| panic!("{error}"));
        let grant = LeaseGrantRequest { ttl: 60, id: LEASE };
        assert!(propose(&machines[0], &alone, Kind::LeaseGrant(grant)).await);
        let renew = async || {
            let gateway = alone.services.gateway.clone();
            machines[0].node().spawn(async move { gateway.lease_renew(LEASE).await }).await.unwrap()
        };
        assert_eq!(renew().await, Ok(60));
        let times = || probe::all_reached().get("renewal-by-the-only-voter").copied().unwrap_or(0);
        let before = times();
        assert_eq!(renew().await, Ok(60));
        assert!(times() > before, "it asked for a round");
    });
}

/// When all start at once nobody may be there yet whom it could ask. It has forgotten for whom it voted,
/// so it must not go on as itself meanwhile.
#[test]
fn a_member_that_lost_its_data_waits_for_someone_to_ask() {
    simulate(10, |mut machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let status = members[0].services.gateway.status();
        machines.iter().for_each(Machine::kill);
        machines[0].log = SimMedium::new(9);
        machines[0].store = MemHome::new();
        let mut alone = Box::pin(machines[0].start());
        let outcome = timeout(Duration::from_secs(30), &mut alone).await.map(|started| started.map(|_| ()));
        assert!(outcome.is_err(), "{outcome:?}");
        let owner = Identity { cluster_id: status.cluster_id, member_id: status.member_id, forced: false };
        let options =
            LogOptions { identity: log_identity(&owner), segment_bytes: LOG_SEGMENT_BYTES, ..LogOptions::default() };
        let (log, _) = RaftLog::open(Arc::new(machines[0].log.fork().mount()), options).unwrap();
        assert_eq!((log.vote(), log.last()), (None, None));
        let starts = machines[1..].iter().map(Machine::start);
        let members: Vec<Running> =
            futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
        match alone.await {
            Err(StartError::AlreadyBootstrapped(id)) => assert_eq!(id, status.member_id),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it came back as itself"),
        }
        assert!(put(&machines[1], &members[0], "b").await);
    });
}

/// A member that was added and lost before it had written anything, and removed meanwhile.
#[test]
fn a_removed_member_without_memory_learns_that_it_was_removed() {
    simulate(16, |mut machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let away = (leader(&members).await + 1) % MEMBERS;
        machines[away].kill();
        machines[away].log = SimMedium::new(9);
        machines[away].store = MemHome::new();
        let other = (away + 1) % MEMBERS;
        let (gateway, id) = (members[other].services.gateway.clone(), members[away].id());
        let removed = async move { gateway.change_members(MemberChange::Remove(id)).await };
        machines[other].node().spawn(removed).await.unwrap().unwrap().unwrap();
        assert!(matches!(machines[away].start().await, Err(StartError::Removed)));
    });
}

/// Within one second, or what a clock that is set back takes for one.
#[test]
fn who_is_added_again_at_once_is_another() {
    simulate(17, |machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let services = members[0].services.clone();
        let asked = machines[0].node().spawn(async move {
            let mut ids = BTreeSet::new();
            for _ in 0..3 {
                let peer_ur_ls = vec![format!("http://{}:2380", address(MEMBERS))];
                let added = services.member_add(Request::new(MemberAddRequest { peer_ur_ls, is_learner: true }));
                let id = added.await.unwrap().into_inner().member.unwrap().id;
                assert!(ids.insert(id), "{id:x} comes back");
                services.member_remove(Request::new(MemberRemoveRequest { id })).await.unwrap();
            }
        });
        asked.await.unwrap();
    });
}

/// Whoever was removed and is added again at its address would find its earlier self in an old list, take that id,
/// and be refused as one that was bootstrapped already at every start.
#[test]
fn who_is_cut_off_tells_nobody_that_joins_who_the_members_are() {
    simulate(11, |machines, members| async move {
        let cut_off = leader(&members).await;
        let asker = Handle::current().create_node().name("joins").ip(address(MEMBERS)).build();
        let ask = async || {
            let url = format!("http://{}:2380", address(cut_off));
            let asked =
                async move { raft::existing_cluster(&[url], &transport::Dialer, Duration::from_secs(30)).await };
            asker.spawn(asked).await.unwrap().map(|cluster| cluster.members.len())
        };
        assert_eq!(ask().await, Some(MEMBERS));
        cut_off_from_others(&machines, cut_off, true);
        assert_eq!(ask().await, None);
        cut_off_from_others(&machines, cut_off, false);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(ask().await, Some(MEMBERS));
    });
}

/// A leader that stood still finds, when it goes on, answers of the others to what it sent before; none of them says
/// that nobody else was elected meanwhile.
#[test]
fn a_leader_that_stood_still_takes_no_old_answer_for_one_to_its_question() {
    for seed in 100..120 {
        simulate(seed, |machines, members| async move {
            assert!(put(&machines[0], &members[0], "a").await);
            let old = leader(&members).await;
            let node = machines[old].node();
            let gateway = members[old].services.gateway.clone();
            let request = PutRequest { key: "b".into(), ..PutRequest::default() };
            drop(node.spawn(async move { gateway.propose(None, Kind::Put(request)).await.ok() }));
            // The entry or the answers to it are under way.
            sleep(Duration::from_millis(seed % 20)).await;
            Handle::current().pause(machines[old].node);
            let others = || (0..MEMBERS).filter(|index| *index != old);
            while !others().any(|other| members[other].leadership.view().leads) {
                sleep(Duration::from_millis(10)).await;
            }
            let new = others().find(|other| members[*other].leadership.view().leads).unwrap();
            assert!(put(&machines[new], &members[new], "later").await);
            let written = members[new].services.store.revision();
            let (gateway, store) = (members[old].services.gateway.clone(), members[old].services.store.clone());
            let read = node.spawn(async move { gateway.read_index().await.map(|()| store.revision()) });
            Handle::current().resume(machines[old].node);
            let read = read.await.unwrap();
            assert!(read.is_ok_and(|read| read >= written), "{read:?} where {written} was acknowledged, seed {seed}");
        });
    }
}

/// A member that joins was told of one that has been removed since, and never answers.
#[test]
fn who_joins_asks_anew_who_the_members_are() {
    simulate(13, |machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        add_learner(&machines[0], &members[0]).await;
        let cluster_id = members[0].services.gateway.status().cluster_id;
        let question = MemberKnownRequest { cluster_id, member_id: JOINER };
        let told = [address(0), address(MEMBERS + 1)].map(|peer| vec![format!("http://{peer}:2380")]);
        let asker = Handle::current().create_node().name("joins").ip(address(MEMBERS)).build();
        let asked = async move {
            raft::past_of(question, told.to_vec(), false, &transport::Dialer, Duration::from_secs(1)).await
        };
        let known = timeout(Duration::from_secs(60), asker.spawn(asked)).await.map(Result::unwrap);
        assert_eq!(known, Ok(raft::Past::Unknown));
    });
}

/// What a member that joins is, it is told by the first entries; before, it would serve what a learner does not.
#[test]
fn who_joins_serves_nobody_before_it_knows_what_it_is() {
    simulate(17, |machines, members| async move {
        let leads = settled(&machines, &members).await;
        let joiner = Machine::new(MEMBERS);
        // The others tell it whom it joins, and the leader sends it nothing.
        cut_off(&machines[leads], &joiner, true);
        let other = (leads + 1) % MEMBERS;
        add_learner(&machines[other], &members[other]).await;
        let joined = joiner.start_with(config_of_joiner()).await.unwrap_or_else(|error| panic!("{error}"));
        let status = || joined.services.gateway.status();
        sleep(Duration::from_secs(5)).await;
        assert!(status().is_outside && !status().is_learner, "{:?}", status());
        assert!(!members[other].services.gateway.status().is_outside);
        cut_off(&machines[leads], &joiner, false);
        let told = async {
            while status().is_outside {
                sleep(Duration::from_millis(1)).await;
            }
            status()
        };
        let told = timeout(Duration::from_secs(60), told).await.expect("it is told");
        assert!(told.is_learner, "from the first moment on: {told:?}");
    });
}

/// A learner that may hold something else than the others stays one until an operator has looked at it.
#[test]
fn a_learner_that_is_named_corrupt_is_not_promoted_unasked() {
    let promoting = |index| config_with(index, MEMBERS, &["--promote-learners=true"]);
    simulate_with(16, promoting, |machines, members| async move {
        let (machine, member) = (&machines[0], &members[0]);
        assert!(put(machine, member, "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        add_learner(machine, member).await;
        assert!(propose(machine, member, corrupt_alarm(AlarmAction::Activate)).await);
        let joiner = Machine::new(MEMBERS);
        assert!(joiner.start_with(config_of_joiner()).await.is_ok());
        let is_so =
            |what: fn(&Member) -> bool| member.services.gateway.members().iter().any(|it| it.id == JOINER && what(it));
        let until = async |what: fn(&Member) -> bool| {
            let wait = async {
                while !is_so(what) {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(Duration::from_secs(30), wait).await.is_ok()
        };
        assert!(until(|it| !it.name.is_empty()).await, "it takes part");
        sleep(Duration::from_secs(10)).await;
        assert!(is_so(|it| it.is_learner), "it was given a vote");
        assert!(propose(machine, member, corrupt_alarm(AlarmAction::Deactivate)).await);
        assert!(until(|it| !it.is_learner).await, "nothing stands against it any more");
    });
}

/// An alarm that the joiner's data differs from the others', raised or lifted.
fn corrupt_alarm(action: AlarmAction) -> Kind {
    Kind::Alarm(AlarmRequest { action: action.into(), member_id: JOINER, alarm: AlarmType::Corrupt.into() })
}

/// A disk that hangs: the leader is there and beats, but makes nothing durable any more.
#[test]
fn a_leader_whose_disk_hangs_is_followed_within_two_election_timeouts() {
    for seed in 15..25 {
        simulate(seed, |machines, members| async move {
            let old = settled(&machines, &members).await;
            machines[old].log.stall_next_sync(Duration::from_secs(30));
            let hangs = clock::now();
            let others = || (0..MEMBERS).filter(|index| *index != old);
            let one = others().next().unwrap();
            let mut longest = Duration::ZERO;
            let mut new = None;
            while clock::now() - hangs < Duration::from_secs(10) {
                let began = clock::now();
                let gateway = members[one].services.gateway.clone();
                let request = PutRequest { key: "b".into(), ..PutRequest::default() };
                let asked = async move { gateway.propose(None, Kind::Put(request)).await.map(drop) };
                let told = machines[one].node().spawn(asked).await.unwrap();
                // What was under way to the old leader may have been done.
                assert!(matches!(told, Ok(()) | Err(Unavailable::TimeoutLeaderFailure)), "seed {seed}: {told:?}");
                longest = longest.max(clock::now() - began);
                new = new.or_else(|| {
                    others().find(|other| members[*other].leadership.view().leads).map(|_| clock::now() - hangs)
                });
            }
            let bound = 2 * ELECTION_TIMEOUT;
            assert!(new.is_some_and(|new| new < bound), "seed {seed}: {new:?}");
            assert!(longest < bound, "seed {seed}: {longest:?}");
        });
    }
}

/// A way that loses what is large: heartbeats get through to the others, and entries do not.
#[test]
fn a_leader_whose_entries_do_not_arrive_is_followed() {
    for seed in 25..30 {
        simulate(seed, |machines, members| async move {
            let old = settled(&machines, &members).await;
            for other in machines.iter().filter(|other| other.index != old) {
                let loses = transport::LinkConditions { largest: Some(128), ..Default::default() };
                transport::set_link(machines[old].node, other.node, loses);
            }
            let begins = clock::now();
            let gateway = members[old].services.gateway.clone();
            let request = PutRequest { key: "b".into(), value: vec![7; 1024].into(), ..PutRequest::default() };
            let asked = async move { gateway.propose(None, Kind::Put(request)).await.map(drop) };
            let asked = machines[old].node().spawn(asked);
            let others = || (0..MEMBERS).filter(|index| *index != old);
            while !others().any(|other| members[other].leadership.view().leads) {
                let waited = clock::now() - begins;
                assert!(waited < 7 * ELECTION_TIMEOUT, "seed {seed}: the others wait for entries of {old}");
                sleep(Duration::from_millis(10)).await;
            }
            transport::clear_links();
            let told = asked.await.unwrap();
            assert!(told.is_err(), "seed {seed}: nobody else had it");
            assert!(put(&machines[old], &members[old], "c").await, "seed {seed}: it takes part as before");
        });
    }
}

/// As where a network card is broken whose checksums are right: entries arrive as something else than was sent, or the
/// answers to them.
#[test]
fn what_changed_on_its_way_is_refused_and_sent_again() {
    for (seed, answers) in [(18, false), (19, true)] {
        simulate(seed, |machines, members| async move {
            let leads = settled(&machines, &members).await;
            for other in machines.iter().filter(|other| other.index != leads) {
                let (leader, other) = (machines[leads].node, other.node);
                let (from, to) = if answers { (other, leader) } else { (leader, other) };
                transport::set_link(from, to, transport::LinkConditions { flip: 0.1, ..Default::default() });
            }
            let mut acknowledged = 0;
            for number in 0..200_u64 {
                let key = number.to_string().into();
                let request = PutRequest { key, value: vec![7; 1024].into(), ..PutRequest::default() };
                acknowledged += u64::from(propose(&machines[leads], &members[leads], Kind::Put(request)).await);
            }
            assert!(acknowledged > 100, "seed {seed}: {acknowledged}");
            transport::clear_links();
            sleep(Duration::from_secs(5)).await; // until all are sent entries again
            assert!(put(&machines[leads], &members[leads], "z").await);
            sleep(Duration::from_secs(2)).await;
            let refused = |member: &Running| member.services.metrics.network.checksum_failures.get();
            assert!(members.iter().map(refused).sum::<u64>() > 0, "seed {seed}: nothing was damaged");
            let states: Vec<_> = machines.iter().map(|machine| machine.applied.lock().unwrap().clone()).collect();
            for state in &states[1..] {
                assert_eq!(state.last_key_value(), states[0].last_key_value(), "seed {seed}");
                // Whoever got a snapshot was not shown what is in it.
                let differs = state.iter().find(|(index, of)| states[0].get(*index).is_some_and(|here| here != *of));
                assert!(differs.is_none(), "seed {seed}: {differs:?}");
            }
        });
    }
}

#[test]
fn a_command_that_changed_on_its_way_is_not_proposed() {
    simulate(20, |machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        let leads = leader(&members).await;
        let cluster_id = members[leads].services.gateway.status().cluster_id;
        let asker = Handle::current().create_node().name("forwards").ip(address(MEMBERS)).build();
        let forward = async |crc32: Option<u32>| {
            let put = Kind::Put(PutRequest { key: "b".into(), ..PutRequest::default() });
            let command = command::encode(&Command { kind: Some(put), caller: None });
            let crc32 = crc32.map(|damage| crc32fast::hash(&command) ^ damage);
            let request = ForwardRequest { cluster_id, command, crc32, member_id: 0 };
            let url = format!("http://{}:2380", address(leads));
            let asked = async move {
                let channel = transport::connect(&url, Duration::from_secs(1)).unwrap();
                PeerClient::new(channel).forward(request).await.map(|_| ()).map_err(|status| status.code())
            };
            asker.spawn(asked).await.unwrap()
        };
        let revision = || members[leads].services.store.revision();
        let before = revision();
        assert_eq!(forward(Some(1)).await, Err(tonic::Code::DataLoss));
        assert_eq!(revision(), before);
        assert_eq!(forward(Some(0)).await, Ok(()));
        assert_eq!(forward(None).await, Ok(()), "earlier releases send no checksum");
        assert_eq!(revision(), before + 2);
    });
}

#[test]
fn who_is_away_is_not_asked_all_the_time() {
    simulate(14, |machines, members| async move {
        let leads = leader(&members).await;
        let away = (leads + 1) % MEMBERS;
        let id = members[away].services.gateway.status().member_id;
        machines[away].kill();
        let failures = || members[leads].services.metrics.network.peer(id).sent_failures.get();
        sleep(Duration::from_secs(2)).await;
        let before = failures();
        for number in 0..100 {
            assert!(put(&machines[leads], &members[leads], &number.to_string()).await);
            sleep(Duration::from_millis(100)).await;
        }
        // Entries and heartbeats, ten times a second each.
        let failed = failures() - before;
        assert!((10..=300).contains(&failed), "{failed} in ten seconds");
    });
}

#[test]
fn who_is_sent_nothing_is_not_taken_for_silent() {
    for seed in 140..145 {
        simulate(seed, |machines, members| async move {
            let leads = leader(&members).await;
            sleep(Duration::from_secs(2)).await; // until all have published themselves
            let failures = || -> u64 {
                let network = &members[leads].services.metrics.network;
                let ids = members.iter().map(|member| member.services.gateway.status().member_id);
                ids.map(|id| network.peer(id).sent_failures.get()).sum()
            };
            let before = failures();
            for number in 0..10 {
                assert!(put(&machines[leads], &members[leads], &number.to_string()).await);
                sleep(Duration::from_secs(2)).await;
            }
            assert_eq!(failures() - before, 0, "seed {seed}");
        });
    }
}

#[test]
fn a_member_that_differs_is_named_and_the_others_go_on() {
    simulate(12, |machines, mut members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(12)).await;
        let alarms = |member: &Running| member.services.alarms.all();
        assert_eq!(alarms(&members[0]), [], "they agree");
        let other = (leader(&members).await + 1) % MEMBERS;
        machines[other].kill();
        at_start::make_differ(&machines[other]);
        members[other] = machines[other].start().await.unwrap();
        let id = members[other].services.gateway.status().member_id;
        let third = (other + 1) % MEMBERS;
        let named = [AlarmMember { member_id: id, alarm: AlarmType::Corrupt.into() }];
        for _ in 0..60 {
            if alarms(&members[third]) == named && alarms(&members[other]) == named {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        assert_eq!((alarms(&members[third]), alarms(&members[other])), (named.to_vec(), named.to_vec()));
        assert!(put(&machines[third], &members[third], "b").await, "the others serve");
    });
}

/// Whichever of them it is: what was acknowledged is there, and it is written on.
#[test]
fn one_member_is_made_a_cluster_of_its_own() {
    for seed in 150..159 {
        simulate(seed, |machines, members| async move {
            for number in 0..20 + seed as usize {
                assert!(put(&machines[0], &members[0], &number.to_string()).await);
            }
            let written = members[0].services.store.revision();
            let left = (seed % 3) as usize;
            let has_all = members[left].services.gateway.clone();
            machines[left].node().spawn(async move { has_all.read_index().await.is_ok() }).await.unwrap();
            sleep(Duration::from_secs(1)).await; // until its log holds all of that
            machines.iter().for_each(Machine::kill);
            // Twice, as where the flag is forgotten.
            for round in 0..2 {
                let forced = Config { force_new_cluster: true, ..config(left) };
                let alone = machines[left].start_with(forced).await.unwrap_or_else(|error| panic!("{error}"));
                assert!(put(&machines[left], &alone, "more").await, "seed {seed}, round {round}");
                assert_eq!(alone.services.store.revision(), written + 1 + round, "seed {seed}, round {round}");
                assert_eq!(alone.services.gateway.members().len(), 1);
                machines[left].kill();
            }
            let alone = machines[left].start().await.unwrap_or_else(|error| panic!("{error}"));
            assert!(put(&machines[left], &alone, "more").await);
        });
    }
}

/// Power fails everywhere, and one of three loses its data: the others find in their logs alone that it was a
/// member, and do not say that they do not know it before they have applied that.
#[test]
fn who_has_not_applied_its_log_yet_does_not_deny_a_member() {
    for seed in 20..25 {
        simulate(seed, |mut machines, members| async move {
            assert!(put(&machines[0], &members[0], "a").await);
            sleep(Duration::from_secs(2)).await; // until all have published themselves
            let lost = members[0].services.gateway.status().member_id;
            machines.iter().for_each(Machine::kill);
            machines[0].log = SimMedium::new(9);
            machines[0].store = MemHome::new();
            let starts = machines.iter().map(Machine::start);
            let mut started = futures_util::future::join_all(starts).await;
            match started.remove(0) {
                Err(StartError::AlreadyBootstrapped(id)) => assert_eq!(id, lost),
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("it came back as itself"),
            }
        });
    }
}
