//! Looks at the world when all is quiet, writes its end into the history, and has all judged: what
//! clients saw by the checkers of the history, what members hold by looking at them.

use std::time::Duration;

use madsim::runtime::Handle;
use mainstay_client::{Client, Range};
use mainstay_proto::KeyRange;
use mainstay_proto::mvccpb::KeyValue;
use mainstay_server::mvcc::RangeOptions;
use mainstay_tests::checker::applied::LeaseEntry;
use mainstay_tests::checker::{check_all, check_without_end};
use mainstay_tests::history::{AuthEnd, Call, End, Received, Step, Txn};
use mainstay_tests::transactions::key_value;
use tokio::time::Instant;

use crate::report::Violation;
use crate::run::RECOVERY;
use crate::trace;
use crate::world::{World, lease_entries};
use crate::{bounds, deposed, perform_auth, quota};

/// What the longest lease of the workloads takes to be over, with an election and a round on top.
const LEASES_OVER: Duration = Duration::from_secs(12);
/// How often the store is looked at until it stays as it is.
const LOOKS: u32 = 5;
/// More tasks than a quiet member with these few clients can have use for.
const TASKS_MAX: usize = 400;
/// More than can wait anywhere in a quiet member.
const QUEUED_MAX: u64 = 100;
/// Entries that are purged together, and so may stay longer than planned.
const KEPT_BY_BATCHES: u64 = 600;
/// What a large entry of these workloads takes, and what a small one adds to the store.
const ENTRY_BYTES: u64 = 4096;
const SMALL_ENTRY_BYTES: u64 = 50;
/// How many entries are purged together, and some more.
const PURGED_TOGETHER: u64 = 400;
/// How many write in the end.
const WRITERS: u64 = 8;
const CHURN_BYTES: usize = 100;
/// More bytes than the log of a quiet member needs, in segments.
const SEGMENTS_MAX: u64 = 12;

fn violation(checker: &str, text: String) -> Violation {
    Violation { checker: checker.to_owned(), text }
}

/// What there was to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// All of it.
    All,
    /// What was seen on the way: in the end nobody can say any more who is right.
    TheWay,
}

/// Judges; the first violation is returned.
pub(crate) async fn judge(id: usize, world: World) -> Result<Judged, Violation> {
    if let Some(surprise) = world.surprises().into_iter().next() {
        return Err(violation("surprise", surprise));
    }
    tokio::time::sleep(LEASES_OVER).await;
    world.take_stock(id).await.map_err(|reason| violation("removed_members", reason))?;
    quota::is_kept(id, &world).await.map_err(|reason| violation("quota", reason))?;
    deposed::is_survived(id, &world).await.map_err(|reason| violation("deposed", reason))?;
    churn(id, &world).await;
    match see_the_end(id, &world).await {
        // Nobody can say any more who is right, and so nobody serves, as it has to be.
        Err(_) if world.is_beyond_deciding() => return the_way(&world).map(|()| Judged::TheWay),
        seen => seen?,
    }
    if let Some(surprise) = world.surprises().into_iter().next() {
        return Err(violation("surprise", surprise));
    }
    who_differs_is_out_of_service(&world).await.map_err(|reason| violation("corruption", reason))?;
    one_sequence(&world)?;
    let kept = bounded(&world).and_then(|()| bounds::watches(&world)).and_then(|()| bounds::requests(&world));
    kept.map_err(|reason| violation("bounded", reason))?;
    complaints(&world)?;
    world.recorder.with(|history| match check_all(history, RECOVERY) {
        Some((checker, text)) => Err(violation(checker, text)),
        None => Ok(Judged::All),
    })
}

/// Judges what holds of a run whatever came of it.
fn the_way(world: &World) -> Result<(), Violation> {
    if let Some(surprise) = world.surprises().into_iter().next() {
        return Err(violation("surprise", surprise));
    }
    one_sequence(world)?;
    complaints(world)?;
    world.recorder.with(|history| match check_without_end(history, RECOVERY) {
        Some((checker, text)) => Err(violation(checker, text)),
        None => Ok(()),
    })
}

/// What members applied, and what their logs hold, is one sequence.
fn one_sequence(world: &World) -> Result<(), Violation> {
    if let Some(contradiction) = world.ledger.contradictions().into_iter().next() {
        return Err(violation("state_machine_safety", contradiction));
    }
    world.logs_match().map_err(|reason| violation("log_matching", reason))
}

/// Nobody complained of anything that was not done to it.
fn complaints(world: &World) -> Result<(), Violation> {
    let complaints = trace::errors();
    let is_due = |complaint: &&trace::Complaint| !is_harmless(&complaint.text) && !world.accounts_for(complaint);
    match complaints.iter().find(is_due) {
        Some(complaint) => Err(violation("complaints", format!("{} said: {}", complaint.node, complaint.text))),
        None => Ok(()),
    }
}

/// Whether openraft calls an error what its caller expects: a change of the members that comes at the same moment as
/// another, or as the end of a leader.
fn is_harmless(complaint: &str) -> bool {
    let steps = ["the first step error", "the second step error"];
    steps.iter().any(|step| complaint.contains(&format!("openraft::raft::api::management: {step}")))
}

/// Writes so much in a world that is whole again that every member has to flush and purge, where that
/// does not take too long.
async fn churn(id: usize, world: &World) {
    if !looks_at_entries(world) {
        return;
    }
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (world, count) = (world.clone(), (2 * world.plan.snapshot_count + PURGED_TOGETHER) / WRITERS);
        writers.push(tokio::task::spawn(async move {
            let (id, client) = (id + writer as usize, world.client(writer as usize));
            for number in 0..count {
                let value = format!("{id}.{number}.{}", "x".repeat(CHURN_BYTES));
                let step = Step::put(format!("churn/{writer}"), value);
                world.recorder.call(id, &client, Call::Txn(Txn::of(step))).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer does not panic");
    }
}

/// Whether the log's entries are few enough to be looked at after some more.
fn looks_at_entries(world: &World) -> bool {
    world.plan.churn && world.plan.snapshot_count <= 100 && world.plan.flush_bytes <= 5_000
}

/// Waits until nothing happens any more, and writes down what is there then: what is told later than the
/// store was looked at would not fit what is written down.
async fn see_the_end(id: usize, world: &World) -> Result<(), Violation> {
    for _ in 0..LOOKS {
        let before = settle(id, world).await?;
        observe_the_end(world, before.revision).await.map_err(|reason| violation("recovery", reason))?;
        let end = settle(id, world).await?;
        let is_still = (before.revision, &before.leases) == (end.revision, &end.leases);
        if is_still && last_told(world) <= end.revision {
            world.recorder.with(|history| history.end = end);
            return Ok(());
        }
    }
    Err(violation("recovery", format!("the store goes on to change, {LOOKS} times in a row, and nobody writes")))
}

/// Whoever has another state than the others is named, nobody else is, and who is named does not serve.
async fn who_differs_is_out_of_service(world: &World) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY;
    while let Err(reason) = world.right_are_named() {
        if Instant::now() >= deadline {
            return Err(reason);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for index in world.named() {
        match only(world, index).get("nothing").await {
            Ok(_) => return Err(format!("{} is named, and serves", world.members[index].name())),
            // One that is down does not serve either.
            Err(error) => trace::note(format_args!("{} does not serve: {error}", world.members[index].name())),
        }
    }
    Ok(())
}

/// The last revision of which any watch was told an event.
fn last_told(world: &World) -> i64 {
    world.recorder.with(|history| {
        let received = history.watches.iter().flat_map(|watch| &watch.received);
        let events = received.filter_map(|received| match received {
            Received::Events { changes, .. } => changes.last(),
            _ => None,
        });
        events.map(|change| change.kv.modified).max().unwrap_or(0)
    })
}

/// Waits until every member serves and all have one state, and returns that.
async fn settle(id: usize, world: &World) -> Result<End, Violation> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        match look(id, world).await {
            Ok(end) => return Ok(end),
            Err(reason) if Instant::now() >= deadline => {
                let text = format!("within {RECOVERY:?} the cluster did not heal: {}", reason.text);
                return Err(violation(&reason.checker, text));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn look(id: usize, world: &World) -> Result<End, Violation> {
    let away = |name: &str, error: mainstay_client::Error| violation("recovery", format!("{name}: {error}"));
    let all = world.client(id);
    let response = all.range(Range::all()).await.map_err(|error| away("all", error))?;
    let revision = mainstay_client::revision(&response.header);
    let mut hashes = Vec::new();
    for index in world.survivors() {
        let one = only(world, index);
        let name = world.members[index].name();
        if world.learns(index) {
            // Where there are users it lets nobody log in.
            let kept = if world.plan.has_users { stored_keys(world, index) } else { told_keys(&one).await };
            let compared = kept.and_then(|kept| equal_keys(&kept, &response.kvs));
            compared.map_err(|reason| violation("equal_members", format!("{name}: {reason}")))?;
            continue;
        }
        // A linearizable read: the member takes part.
        one.get("nothing").await.map_err(|error| away(&name, error))?;
        let hash = one.hash_kv(revision).await.map_err(|error| away(&name, error))?;
        hashes.push((name, hash.hash, hash.compact_revision));
    }
    if hashes.iter().any(|(_, hash, compacted)| (*hash, *compacted) != (hashes[0].1, hashes[0].2)) {
        let text = format!("the members differ at revision {revision}: {hashes:08x?}");
        return Err(violation("equal_members", text));
    }
    let tables = tables(world);
    if let Some((name, other)) = tables.iter().find(|(_, table)| *table != tables[0].1) {
        let (first, table) = &tables[0];
        let text = format!("{name} has leases {other:?}\nand {first} has {table:?}");
        return Err(violation("equal_members", text));
    }
    let auth = equal_users(world).await?;
    let leases = all.leases().await.map_err(|error| away("all", error))?;
    // The hash of a revision at which history was compacted tells of the compaction before; as in etcd.
    let voter = world.survivors().into_iter().find(|index| !world.learns(*index)).unwrap_or_default();
    let compacted = only(world, voter).hash_kv(0).await.map_err(|error| away("all", error))?.compact_revision;
    let keys = response.kvs.into_iter().map(key_value).collect();
    Ok(End { at: world.recorder.now(), revision, keys, leases, compacted, auth })
}

/// A learner answers from what it has, or not at all.
async fn told_keys(learner: &Client) -> Result<Vec<KeyValue>, String> {
    let answer = learner.range(Range::all().serializable()).await;
    answer.map(|answer| answer.kvs).map_err(|error| error.to_string())
}

/// What a member has that tells nobody.
fn stored_keys(world: &World, index: usize) -> Result<Vec<KeyValue>, String> {
    let life = world.members[index].life().ok_or("it has no process")?;
    let found = life.store.range(&KeyRange::all(), &RangeOptions::default());
    found.map(|found| found.kvs).map_err(|error| error.to_string())
}

/// The keys of a learner are held against those of the others.
fn equal_keys(kept: &[KeyValue], keys: &[KeyValue]) -> Result<(), String> {
    let is_other = |pair: &(&KeyValue, &KeyValue)| pair.0 != pair.1;
    match kept.iter().zip(keys).find(is_other) {
        Some((one, other)) => Err(format!("has {one:?} where others have {other:?}")),
        None if kept.len() != keys.len() => Err(format!("has {} keys of {}", kept.len(), keys.len())),
        None => Ok(()),
    }
}

/// Users and roles, which all members have alike.
async fn equal_users(world: &World) -> Result<Option<AuthEnd>, Violation> {
    if !world.plan.has_users {
        return Ok(None);
    }
    let mut first = None;
    for index in world.survivors().into_iter().filter(|index| !world.learns(*index)) {
        let name = world.members[index].name();
        let auth = perform_auth::all(&only(world, index)).await;
        let auth = auth.map_err(|error| violation("recovery", format!("{name}: {error}")))?;
        match &first {
            None => first = Some((name, auth)),
            Some((_, same)) if *same == auth => {}
            Some((one, other)) => {
                let text = format!("users and roles differ: {one} has {other:?}\n{name} has {auth:?}");
                return Err(violation("equal_members", text));
            }
        }
    }
    Ok(first.map(|(_, auth)| auth))
}

/// The leases of each member, with their times and keys, as they are at this moment.
fn tables(world: &World) -> Vec<(String, Vec<LeaseEntry>)> {
    let lives = world.survivors().into_iter().filter_map(|index| Some((index, world.members[index].life()?)));
    lives.map(|(index, life)| (world.members[index].name(), lease_entries(&life.leases))).collect()
}

fn only(world: &World, index: usize) -> Client {
    world.client(0).only(index)
}

/// The watchers may be a moment behind the store.
async fn observe_the_end(world: &World, end: i64) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY;
    while world.observed.revision() < end {
        if Instant::now() >= deadline {
            return Err(format!("the observer is at {}, the store at {end}", world.observed.revision()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The others are told of the end by the same notices of progress.
    tokio::time::sleep(Duration::from_secs(6)).await;
    Ok(())
}

/// Entries that a log may keep: those that slow members may want, those that are looked at together and
/// purged together, and those that the store has not flushed yet.
fn kept_entries(world: &World) -> u64 {
    let plan = &world.plan;
    2 * plan.snapshot_count + plan.catchup_entries + KEPT_BY_BATCHES + plan.flush_bytes / SMALL_ENTRY_BYTES
}

/// What a quiet member holds on to has a bound.
fn bounded(world: &World) -> Result<(), String> {
    for (node, tasks) in Handle::current().metrics().num_tasks_by_node() {
        if tasks > TASKS_MAX {
            return Err(format!("{node} has {tasks} tasks"));
        }
    }
    for index in world.survivors() {
        let member = &world.members[index];
        if let Some(life) = member.life() {
            let occupancy = (life.occupancy)();
            let waits = occupancy.proposals + occupancy.pending_events;
            let kept = kept_entries(world);
            let keeps = looks_at_entries(world) && occupancy.log_entries > kept;
            if waits > QUEUED_MAX || keeps {
                return Err(format!("{}: {occupancy:?}, {kept} entries are to be kept at most", member.name()));
            }
        }
        let files = member.disks().log.files();
        let bytes: u64 = files.iter().map(|(_, size)| size).sum();
        let bound = SEGMENTS_MAX * world.plan.segment_bytes + kept_entries(world) * ENTRY_BYTES;
        if bytes > bound {
            return Err(format!("the log of {} takes {bytes} bytes in {} files", member.name(), files.len()));
        }
    }
    Ok(())
}
