//! One run: the plan of a seed, played; then quiet, and judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use madsim::runtime::Runtime;
use mainstay_raft_log::probe;
use mainstay_tests::checker::history::linearizable;
use mainstay_tests::history::{Call, History, Outcome, UNTOLD};

use crate::judge::Judged;
use crate::plan::Plan;
use crate::report::{Report, Violation};
use crate::workload::{self, Worker};
use crate::world::{OPERATOR, World};
use crate::{bounds, judge, report};

/// The cluster must serve every call that begins this long after the last disturbance: an election,
/// and what a cut connection takes to be used again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(12);
/// How long clients go on beyond that.
const CALM: Duration = Duration::from_secs(5);
/// A world that lives longer than this hangs.
const LIFE: Duration = Duration::from_secs(300);
/// The observer's number, and that of the first other watcher.
const OBSERVER: usize = 60;
/// A run is counted by this name in which nobody could say in the end what the store holds.
const UNDECIDABLE: &str = "undecidable end";
/// Who looks at the end.
const JUDGE: usize = 99;

/// What to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    /// Another number of members than the seed says.
    pub(crate) members: Option<usize>,
    /// Faults of the plan to leave out, by place.
    pub(crate) without: BTreeSet<usize>,
    /// A place of the code to make wrong.
    pub(crate) broken: Option<String>,
    /// Where to write the trace.
    pub(crate) trace: Option<PathBuf>,
}

/// Runs it; a panic of the simulated code ends the process.
pub(crate) fn run(run: &Run) -> Report {
    if let Some(place) = &run.broken {
        probe::break_at(place);
    }
    let plan = Plan::new(run.seed, run.members);
    let mut config = madsim::Config::default();
    config.net.send_latency = plan.latency.clone();
    let mut runtime = Runtime::with_seed_and_config(run.seed, config);
    runtime.set_time_limit(LIFE);
    runtime.block_on(play(run.clone(), Arc::new(plan)))
}

async fn play(run: Run, plan: Arc<Plan>) -> Report {
    let schedule: Vec<String> = plan.faults.iter().map(ToString::to_string).collect();
    report::begun(&Report { seed: run.seed, members: plan.members, schedule: schedule.clone(), ..Report::default() });
    let world = World::new(plan.clone(), run.seed);
    let faults: Vec<_> = plan.faults.iter().cloned().enumerate().filter(|(at, _)| !run.without.contains(at)).collect();
    let storm = faults.iter().map(|(_, fault)| fault.at + fault.lasts).max().unwrap_or_default();
    let until = world.recorder.moment(storm + RECOVERY + CALM);

    let observer = world.client_node(OBSERVER);
    let (client, recorder, observed) = (world.client(0), world.recorder.clone(), world.observed.clone());
    drop(observer.spawn(workload::observe(OBSERVER, client, recorder, observed)));
    for number in 1..=plan.watchers {
        let id = OBSERVER + number;
        let (client, recorder, observed) = (world.client(id), world.recorder.clone(), world.observed.clone());
        drop(world.client_node(id).spawn(workload::watch(id, client, recorder, observed, storm)));
    }
    drop(tokio::task::spawn(bounds::look_on(world.clone())));
    let mut work = Vec::new();
    for (id, workload) in plan.clients.iter().enumerate() {
        let worker = Worker {
            id,
            client: world.client(id),
            recorder: world.recorder.clone(),
            pace: plan.pace,
            padding: plan.padding,
            observed: world.observed.clone(),
            calm_from: world.recorder.moment(storm),
            until,
            calm: RECOVERY + CALM,
            written: 0,
        };
        work.push(world.client_node(id).spawn(workload.run(worker)));
    }
    let operator = world.client_node(OPERATOR);
    for (place, fault) in faults {
        work.push(operator.spawn(world.clone().suffer(place, fault)));
    }
    for task in work {
        task.await.expect("a client does not panic");
    }

    let judged = world.client_node(JUDGE).spawn(judge::judge(JUDGE, world.clone()));
    let judged = judged.await.expect("the judge does not panic");
    let is_undecidable = judged == Ok(Judged::TheWay);
    let mut report = report(&run, &world, schedule, judged.err());
    if is_undecidable {
        report.operations.insert(UNDECIDABLE.to_owned(), 1);
    }
    report
}

fn report(run: &Run, world: &World, schedule: Vec<String>, violation: Option<Violation>) -> Report {
    world.recorder.with(|history| Report {
        seed: run.seed,
        members: world.members.len(),
        simulated_seconds: world.recorder.now().as_secs_f64(),
        operations: operations(history),
        faults: world.faults(),
        schedule,
        revision: history.end.revision,
        violation,
        ..Report::default()
    })
}

/// How many calls of each kind there were, by outcome, and how much else there was to compare.
fn operations(history: &History) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for operation in &history.operations {
        if matches!(&operation.outcome, Outcome::Unknown(why) if why == UNTOLD) {
            continue; // no client's call
        }
        let kind = match &operation.call {
            Call::Txn(txn) if txn.may_write() => "write",
            Call::Txn(_) => "read",
            Call::Compact { .. } => "compact",
            Call::LeaseGrant { .. } => "lease grant",
            Call::LeaseKeepAlive { .. } => "lease keep-alive",
            Call::LeaseRevoke { .. } => "lease revoke",
            Call::LeaseTimeToLive { .. } | Call::LeaseKeys { .. } => "lease time-to-live",
            Call::Auth(_) => "users and roles",
            Call::Held(_) => "lock or election",
            Call::Member(_) => "membership",
        };
        let outcome = match &operation.outcome {
            Outcome::Done(_) => "answered",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        *counts.entry(format!("{kind}, {outcome}")).or_default() += 1;
    }
    for received in history.watches.iter().flat_map(|watch| &watch.received) {
        if let mainstay_tests::history::Received::Events { changes, .. } = received {
            *counts.entry("event, received".to_owned()).or_default() += changes.len() as u64;
        }
    }
    counts.insert("register, judged".to_owned(), linearizable::judged(history) as u64);
    counts.insert("reflection, compared".to_owned(), history.reflections.len() as u64);
    counts
}
