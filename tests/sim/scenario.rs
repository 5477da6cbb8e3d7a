//! One run: three members, clients, faults from the seed, then quiet, then the checks.

use std::collections::BTreeMap;
use std::time::Duration;

use madsim::net::NetSim;
use madsim::rand::{Rng, thread_rng};
use madsim::runtime::{Handle, NodeHandle, Runtime};
use mainstay_client::{Client, ClientOptions, Range};
use mainstay_proto::mvccpb::KeyValue;
use tokio::time::Instant;

use crate::history::{History, Recorder};
use crate::member::{Member, SimConnector};
use crate::report::{Report, Run, Violation};
use crate::{checks, report, trace, workload};

const MEMBERS: usize = 3;
const CLIENTS: usize = 4;
/// Simulated time with faults.
const STORMY: Duration = Duration::from_secs(30);
/// Simulated time within which the cluster must serve again once faults have stopped.
const RECOVERY: Duration = Duration::from_secs(20);

/// Every kind of fault.
pub(crate) const FAULTS: &[&str] = &["kill", "power cut", "partition"];

/// How many faults of each kind took place.
type Faults = BTreeMap<String, u64>;

/// Runs a seed.
pub(crate) fn run(run: &Run) -> Report {
    let mut config = madsim::Config::default();
    config.net.send_latency = Duration::from_millis(1)..Duration::from_millis(8);
    let mut runtime = Runtime::with_seed_and_config(run.seed, config);
    runtime.set_time_limit(Duration::from_secs(300));
    runtime.block_on(simulate(run.seed, run.members.unwrap_or(MEMBERS)))
}

async fn simulate(seed: u64, size: usize) -> Report {
    let began = Instant::now();
    let handle = Handle::current();
    report::begun(&Report { seed, members: size, ..Report::default() });
    let members: Vec<Member> = (0..size).map(|index| Member::new(index, size, seed)).collect();
    let nodes: Vec<NodeHandle> = members.iter().map(|member| start(&handle, member)).collect();
    let endpoints: Vec<String> = members.iter().map(Member::endpoint).collect();

    let recorder = Recorder::default();
    let until = Instant::now() + STORMY;
    let mut work = Vec::new();
    for id in 0..CLIENTS {
        let node = client_node(&handle, id);
        let (mut endpoints, recorder) = (endpoints.clone(), recorder.clone());
        endpoints.rotate_left(id % size); // so that every member serves somebody
        work.push(node.spawn(async move {
            let client = client(&endpoints);
            workload::run(id, CLIENTS, client, recorder, until).await;
        }));
    }
    let watcher = client_node(&handle, CLIENTS);
    let (watch_endpoints, watch_recorder) = (endpoints.clone(), recorder.clone());
    drop(watcher.spawn(async move { workload::watch(client(&watch_endpoints), watch_recorder).await }));

    let faults = storm(&handle, &members, &nodes, until).await;
    for client in work {
        client.await.expect("a client does not panic");
    }

    let judge = client_node(&handle, CLIENTS + 1);
    let judged = judge.spawn(async move { settle(&endpoints).await }).await.expect("the judge does not panic");
    let mut report = Report { seed, members: size, faults, ..Report::default() };
    let found = match judged {
        Ok((state, revision, _)) => {
            report.revision = revision;
            wait_for_watcher(&recorder, &state).await;
            recorder.with(|history| {
                report.operations = operations(history);
                checks::check(history, &state)
            })
        }
        Err(reason) => Err(reason),
    };
    report.violation = found.err().map(|text| Violation { checker: "checks".to_owned(), text });
    for error in trace::errors() {
        trace::note(format_args!("an error was logged at {:?} by {}: {}", error.at, error.node, error.text));
    }
    report.simulated_seconds = began.elapsed().as_secs_f64();
    report
}

fn operations(history: &History) -> BTreeMap<String, u64> {
    let acknowledged = history.writes.iter().filter(|write| write.acknowledged.is_some()).count();
    let counts = [
        ("put ok", acknowledged),
        ("put unknown", history.writes.len() - acknowledged),
        ("get ok", history.reads.len()),
        ("event", history.seen.len()),
    ];
    counts.map(|(kind, count)| (kind.to_owned(), count as u64)).into()
}

fn start(handle: &Handle, member: &Member) -> NodeHandle {
    let run = member.clone();
    handle.create_node().name(member.name()).ip(member.address()).init(move || run.clone().run()).build()
}

fn client_node(handle: &Handle, id: usize) -> NodeHandle {
    let address = format!("10.0.1.{}", id + 1).parse().expect("a client's address is made from its number");
    handle.create_node().name(format!("c{id}")).ip(address).build()
}

fn client(endpoints: &[String]) -> Client {
    Client::with_connector(&SimConnector, endpoints, ClientOptions::default())
        .expect("the endpoints of simulated members are well-formed")
}

/// Kills members, cuts the power of all, or cuts one off, one thing at a time, until the given moment;
/// everybody is back when it returns.
async fn storm(handle: &Handle, members: &[Member], nodes: &[NodeHandle], until: Instant) -> Faults {
    let mut faults = Faults::default();
    while Instant::now() < until {
        pause(500, 4000).await;
        let victim = thread_rng().gen_range(0..members.len());
        let mut count = |kind: &str| {
            trace::note(format_args!("fault: {kind}, m{}", victim + 1));
            *faults.entry(kind.to_owned()).or_default() += 1;
        };
        match thread_rng().gen_range(0..5u32) {
            0 | 1 => {
                count("kill");
                crash(handle, members, nodes, &[victim]).await;
            }
            2 => {
                count("power cut");
                let all: Vec<usize> = (0..members.len()).collect();
                crash(handle, members, nodes, &all).await;
            }
            _ => {
                count("partition");
                cut_off(nodes, victim).await;
            }
        }
    }
    faults
}

/// Ends members at one moment, with what they had not synced, and starts them again.
async fn crash(handle: &Handle, members: &[Member], nodes: &[NodeHandle], victims: &[usize]) {
    for victim in victims {
        handle.kill(nodes[*victim].id());
        members[*victim].lose_unsynced();
    }
    pause(100, 4000).await;
    for victim in victims {
        handle.restart(nodes[*victim].id());
    }
}

/// Silences every link between one member and the others, then opens them again. Clients still reach it.
async fn cut_off(nodes: &[NodeHandle], victim: usize) {
    let net = NetSim::current();
    let victim_id = nodes[victim].id();
    let others = nodes.iter().enumerate().filter(|(index, _)| *index != victim).map(|(_, node)| node.id());
    let others: Vec<_> = others.collect();
    for other in &others {
        net.clog_link(victim_id, *other);
        net.clog_link(*other, victim_id);
    }
    pause(500, 6000).await;
    for other in &others {
        net.unclog_link(victim_id, *other);
        net.unclog_link(*other, victim_id);
    }
}

async fn pause(from_ms: u64, to_ms: u64) {
    let millis = thread_rng().gen_range(from_ms..to_ms);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Waits until every member serves and all have one state; returns it.
async fn settle(endpoints: &[String]) -> Result<(Vec<KeyValue>, i64, u32), String> {
    let deadline = Instant::now() + RECOVERY;
    let mut last = String::new();
    while Instant::now() < deadline {
        match look(endpoints).await {
            Ok(found) => return Ok(found),
            Err(reason) => last = reason,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(format!("the cluster did not heal within {RECOVERY:?}: {last}"))
}

async fn look(endpoints: &[String]) -> Result<(Vec<KeyValue>, i64, u32), String> {
    let all = client(endpoints);
    // A write proves that the cluster takes writes, and all that is counted comes before it.
    all.put("settled", "yes").await.map_err(|error| error.to_string())?;
    let response = all.range(Range::all()).await.map_err(|error| error.to_string())?;
    let revision = mainstay_client::revision(&response.header);
    let mut hashes = Vec::new();
    for endpoint in endpoints {
        let one = client(std::slice::from_ref(endpoint));
        one.get("settled").await.map_err(|error| format!("{endpoint}: {error}"))?;
        let hash = one.hash_kv(revision).await.map_err(|error| format!("{endpoint}: {error}"))?;
        hashes.push(hash.hash);
    }
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        return Err(format!("the members differ at revision {revision}: {hashes:08x?}"));
    }
    Ok((response.kvs, revision, hashes[0]))
}

/// The watcher may be a moment behind the state.
async fn wait_for_watcher(recorder: &Recorder, state: &[KeyValue]) {
    let last = state.iter().filter(|kv| kv.key.starts_with(b"r/")).map(|kv| kv.mod_revision).max().unwrap_or(0);
    let deadline = Instant::now() + RECOVERY;
    while Instant::now() < deadline {
        if recorder.with(|history| history.seen.last().is_some_and(|seen| seen.revision >= last)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
