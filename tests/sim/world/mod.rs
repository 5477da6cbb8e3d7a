//! The simulated world: members and clients on a network, what befalls them, and who puts members
//! that ended on their feet again.
//!
//! To add something that goes wrong, add a kind to [`crate::plan::FaultKind`], draw it in the plan,
//! and say in `faults.rs` how it begins and ends. To add something that clients do, add a
//! [`crate::workload::Workload`].

mod cut_short;
mod faults;
mod ledger;
mod links;
mod logs;
mod member;
mod operator;
mod standing;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use madsim::rand::prelude::*;
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use mainstay_client::{Client, ClientOptions};
use mainstay_proto::etcdserverpb::AlarmType;
use mainstay_server::env::transport::{clear_detours, set_window};
use mainstay_tests::excuses::Excuses;
use tokio::sync::mpsc;

use self::ledger::Ledger;
use self::links::Links;
use self::standing::Standing;
use crate::perform_auth::{ROOT, user};
use crate::plan::Plan;
use crate::recorder::Recorder;
use crate::trace::{self, Complaint};
use crate::workload::Observed;

pub(crate) use faults::OPERATOR;
pub(crate) use ledger::entries as lease_entries;
pub(crate) use member::{Life, Member, SimConnector};

/// Within this time a process is gone with all its parts.
const MOMENT: Duration = Duration::from_millis(1);
/// How probably a file that waits for the rest of a snapshot rots when its member's process ends.
const STAGED_ROTS: f64 = 0.5;

/// The world of one run. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) plan: Arc<Plan>,
    pub(crate) recorder: Recorder,
    pub(crate) observed: Observed,
    pub(crate) members: Arc<Vec<Member>>,
    pub(crate) ledger: Ledger,
    nodes: Arc<Vec<NodeHandle>>,
    state: Arc<Mutex<WorldState>>,
    /// Held by whoever takes a vote away, so that a quorum is left.
    changes: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct WorldState {
    conditions: Vec<Condition>,
    links: Links,
    clients: BTreeMap<usize, NodeId>,
    /// Where the operator's calls are made.
    operator: Option<NodeHandle>,
    faults: BTreeMap<String, u64>,
    /// Up to when some member's clock runs slow.
    slow_until: Duration,
    /// What happened that nobody announced.
    surprises: Vec<String>,
}

/// How a member is.
#[derive(Clone, Default)]
struct Condition {
    /// How many reasons there are to leave it down.
    held_down: u32,
    /// Whether its process was started and has not ended since.
    up: bool,
    /// What was done to it that a process may die of.
    excuses: Excuses,
    /// Something was done to it that it may never come back from.
    may_be_lost: bool,
    /// It does not come back.
    lost: bool,
    /// Since when its state was made to differ from the others', or was to be and may not.
    corrupt_since: Option<Duration>,
    /// It was, certainly.
    surely_corrupt: bool,
    /// When its processes were ended.
    ended: Vec<Duration>,
    /// How the place stands to the cluster.
    standing: Standing,
    /// Whether one of the reasons to leave it down is that no process is wanted there.
    rests: bool,
    /// Whether somebody is about to change that, or where the member is reached.
    is_changed: bool,
    /// How many members have had the place before.
    lives: u32,
    /// Whether the last process of this member ended as one that was removed.
    ended_as_removed: bool,
    /// Since when it has no process.
    down_since: Option<Duration>,
    /// Whether it has no vote, by the stock that was taken last.
    learns: bool,
}

/// How a process ends from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The files keep what was written.
    Process,
    /// The files keep what was synced, and some of the rest.
    Power,
}

impl World {
    /// Makes a world and starts its members.
    pub(crate) fn new(plan: Arc<Plan>, seed: u64) -> Self {
        let handle = Handle::current();
        set_window(plan.window);
        clear_detours();
        let (recorder, ledger) = (Recorder::new(), Ledger::default());
        if let Some(quota) = &plan.quota {
            trace::note(format_args!("{quota:?}"));
            recorder.with(|history| history.quota = Some(quota.bytes));
        }
        let new = |index| Member::new(index, plan.clone(), seed, ledger.clone(), recorder.clone());
        let members: Vec<Member> = (0..plan.places()).map(new).collect();
        let (ended, endings) = mpsc::unbounded_channel();
        let nodes: Vec<NodeHandle> = members.iter().map(|member| create_node(&handle, member, ended.clone())).collect();
        nodes[plan.members..].iter().for_each(|spare| handle.kill(spare.id()));
        if plan.spares > 0 {
            // From the beginning some places have nobody.
            recorder.disturbed(Duration::ZERO, Duration::ZERO, "spare", None);
        }
        let mut conditions = vec![Condition { up: true, ..Condition::default() }; plan.members];
        conditions.resize(plan.places(), Condition::spare());
        let world = Self {
            plan,
            recorder,
            ledger,
            observed: Observed::default(),
            members: Arc::new(members),
            nodes: Arc::new(nodes),
            state: Arc::new(Mutex::new(WorldState { conditions, ..WorldState::default() })),
            changes: Arc::default(),
        };
        drop(tokio::task::spawn(world.clone().supervise(endings)));
        if world.plan.spares > 0 {
            drop(tokio::task::spawn(world.clone().watch_votes()));
        }
        world
    }

    fn state(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A machine for a client.
    pub(crate) fn client_node(&self, id: usize) -> NodeHandle {
        let address = format!("10.0.1.{}", id + 1).parse().expect("a client's address is made from its number");
        let node = Handle::current().create_node().name(format!("c{id}")).ip(address).build();
        self.state().clients.insert(id, node.id());
        if id == OPERATOR {
            self.state().operator = Some(node.clone());
        }
        node
    }

    /// A client that knows all members, and begins with one that depends on its number.
    pub(crate) fn client(&self, id: usize) -> Client {
        let mut endpoints: Vec<String> = self.members.iter().map(Member::endpoint).collect();
        endpoints.rotate_left(id % self.members.len()); // so that every member serves somebody
        let client = Client::with_connector(&SimConnector, endpoints, ClientOptions::default())
            .expect("the endpoints of simulated members are well-formed");
        // Where names count, whoever has no other is allowed everything.
        if self.plan.has_users { client.with_user(user(ROOT)) } else { client }
    }

    /// The members that are not lost for good, and in service.
    pub(crate) fn survivors(&self) -> Vec<usize> {
        let named = self.named();
        let state = self.state();
        let survives = |index: &usize| {
            let condition = &state.conditions[*index];
            !condition.lost && condition.standing == Standing::Member && !named.contains(index)
        };
        (0..self.members.len()).filter(survives).collect()
    }

    /// The members that are named in an alarm CORRUPT, as far as any member knows.
    pub(crate) fn named(&self) -> BTreeSet<usize> {
        let lives = || self.members.iter().filter_map(|member| Some((member.index, member.life()?)));
        let alarms = lives().flat_map(|(_, life)| life.alarms.all());
        let corrupt = i32::from(AlarmType::Corrupt);
        let ids: BTreeSet<u64> = alarms.filter(|alarm| alarm.alarm == corrupt).map(|alarm| alarm.member_id).collect();
        let is_named = |life: &Life| ids.contains(&life.leadership.view().member_id);
        lives().filter(|(_, life)| is_named(life)).map(|(index, _)| index).collect()
    }

    /// Whether a member that differs gave its state to others, so that none of them is trusted.
    pub(crate) fn is_beyond_deciding(&self) -> bool {
        self.has_given_on() && self.survivors().is_empty()
    }

    /// Whether a member that differs may have given its state to another: it had led since, and then that one got a
    /// snapshot.
    fn has_given_on(&self) -> bool {
        let conditions = self.state().conditions.clone();
        let differs = conditions.iter().enumerate().filter_map(|(index, it)| Some((index, it.corrupt_since?)));
        let restored = self.ledger.restored();
        self.recorder.with(|history| {
            let led = |index: usize, since: Duration| {
                let led = history.leaderships.iter().filter(move |it| it.member == index && it.at >= since);
                led.map(|it| it.at).min()
            };
            differs
                .filter_map(|(index, since)| Some((index, led(index, since)?)))
                .any(|(index, led)| restored.iter().any(|it| it.member != self.members[index].name() && it.at >= led))
        })
    }

    /// Whether the right members are named in alarms CORRUPT.
    pub(crate) fn right_are_named(&self) -> Result<(), String> {
        let named = self.named();
        // Where several have the state of who differs, it may be the others that are taken for wrong.
        if self.has_given_on() {
            return Ok(());
        }
        let restored = self.ledger.restored();
        let state = self.state();
        let all = || state.conditions.iter().enumerate();
        let corrupt: BTreeSet<usize> =
            all().filter(|(_, it)| it.corrupt_since.is_some()).map(|(index, _)| index).collect();
        let must_be = |index: &&usize| {
            let condition = &state.conditions[**index];
            // A snapshot brings a state with it, which mends who differs.
            let name = self.members[**index].name();
            let is_mended = restored.iter().any(|it| it.member == name && Some(it.at) >= condition.corrupt_since);
            condition.surely_corrupt && !condition.may_be_lost && !is_mended
        };
        let missed: Vec<&usize> = corrupt.difference(&named).filter(must_be).collect();
        let wrongly: Vec<&usize> = named.difference(&corrupt).collect();
        if missed.is_empty() && wrongly.is_empty() {
            return Ok(());
        }
        Err(format!("of the members {corrupt:?}, that differ, {missed:?} are not named, and {wrongly:?} are wrongly"))
    }

    /// How often each kind of fault took place.
    pub(crate) fn faults(&self) -> BTreeMap<String, u64> {
        self.state().faults.clone()
    }

    /// What happened that nobody announced.
    pub(crate) fn surprises(&self) -> Vec<String> {
        self.state().surprises.clone()
    }

    /// Notes what nobody announced.
    pub(crate) fn surprise(&self, what: String) {
        self.state().surprises.push(what);
    }

    /// Whether the world did something to the member that said this, of which it may complain: it broke
    /// a disk, or ended the process at that moment, and the parts of it that went last miss those that
    /// went first.
    pub(crate) fn accounts_for(&self, complaint: &Complaint) -> bool {
        let state = self.state();
        let just_ended =
            |condition: &Condition| condition.ended.iter().any(|ended| complaint.at.abs_diff(*ended) < MOMENT);
        // Who finds another that differs says so, from when it does.
        let differs = |it: &Condition| it.corrupt_since.is_some_and(|since| since <= complaint.at);
        if complaint.text.contains("differs from the others") && state.conditions.iter().any(differs) {
            return true;
        }
        match self.members.iter().find(|member| member.name() == complaint.node) {
            Some(member) => {
                let condition = &state.conditions[member.index];
                condition.excuses.cover(complaint.at) || just_ended(condition)
            }
            // Said in the name of whoever ended a process.
            None => state.conditions.iter().any(just_ended),
        }
    }

    /// Ends a member's process, if it runs, and keeps it down until it is [released](Self::release).
    fn hold_down(&self, index: usize, ending: Ending) {
        let was_up = {
            let mut state = self.state();
            state.conditions[index].held_down += 1;
            std::mem::take(&mut state.conditions[index].up)
        };
        if was_up || ending == Ending::Power {
            self.end(index, ending);
        }
    }

    fn end(&self, index: usize, ending: Ending) {
        trace::note(format_args!("{} ends", self.members[index].name()));
        let now = TimeHandle::current().elapsed();
        self.state().conditions[index].ended.push(now);
        self.state().conditions[index].down_since.get_or_insert(now);
        Handle::current().kill(self.nodes[index].id());
        let disks = self.members[index].disks();
        match ending {
            Ending::Process => {
                disks.log.kill();
                // The store writes to its files when it pleases.
                let kept = thread_rng().gen_range(0..50);
                disks.store.crash_keeping(kept);
            }
            Ending::Power => {
                disks.log.crash();
                disks.store.crash();
            }
        }
        // What waits there for the rest of a snapshot may rot: it has to be found, and costs nothing but time.
        if !disks.store.staged().is_empty() && thread_rng().gen_bool(STAGED_ROTS) {
            self.rot_what_is_staged(index);
        }
    }

    /// Turns over a bit of what a member that is down has of a snapshot.
    fn rot_what_is_staged(&self, index: usize) {
        self.members[index].disks().store.rot_staged(thread_rng().gen_range(0..u64::MAX));
        trace::note(format_args!("a file rots that {} has of a snapshot", self.members[index].name()));
    }

    /// Takes back one reason to leave a member down, and starts it when none is left.
    fn release(&self, index: usize) {
        let start = {
            let mut state = self.state();
            let condition = &mut state.conditions[index];
            condition.held_down -= 1;
            let start = condition.held_down == 0 && !condition.up && !condition.lost;
            condition.up |= start;
            if start {
                condition.down_since = None;
                condition.excuses.started(TimeHandle::current().elapsed());
            }
            start
        };
        if start {
            trace::note(format_args!("{} starts", self.members[index].name()));
            Handle::current().restart(self.nodes[index].id());
        }
    }

    /// Buries processes that ended by themselves, and starts them again where that was to be expected.
    async fn supervise(self, mut endings: mpsc::UnboundedReceiver<(usize, String)>) {
        while let Some((index, reason)) = endings.recv().await {
            let (began, now) = (self.recorder.now(), TimeHandle::current().elapsed());
            trace::note(format_args!("{} ended: {reason}", self.members[index].name()));
            let (announced, lost, joins) = {
                let mut state = self.state();
                let condition = &mut state.conditions[index];
                if !condition.up {
                    continue; // it was ended from outside at the same moment
                }
                condition.up = false;
                condition.held_down += 1;
                condition.lost |= condition.may_be_lost;
                condition.ended_as_removed = condition.may_end_as_removed(&reason);
                condition.rests |= condition.ended_as_removed;
                let joins = self.members[index].is_joining();
                // Who joins finds out that it knows the wrong members, or nobody who tells.
                let accounted = condition.ended_as_removed || (joins && reason.starts_with("does not start"));
                let announced = accounted || condition.excuses.cover(now);
                let lost = condition.lost || condition.ended_as_removed;
                if !announced {
                    let surprise = format!("{} ended at {began:?}: {reason}", self.members[index].name());
                    state.surprises.push(surprise);
                }
                (announced, lost, joins)
            };
            self.end(index, Ending::Process);
            if lost {
                trace::note(format_args!("{} is lost", self.members[index].name()));
                self.members[index].dies();
                continue;
            }
            let world = self.clone();
            let pause = Duration::from_millis(thread_rng().gen_range(200..1500));
            // Written down at once: who would have stopped by now goes on until all is quiet again. What is a
            // surprise fails the run, and may come again and again.
            if announced {
                self.recorder.disturbed(began, began + pause, "a process ended by itself", None);
            }
            drop(tokio::task::spawn(async move {
                tokio::time::sleep(pause).await;
                let operator = world.state().operator.clone();
                if joins && let Some(operator) = operator {
                    let asking = world.clone();
                    let known = operator.spawn(async move { asking.know_the_cluster(faults::SUPERVISOR, index).await });
                    if !known.await.expect("an operator does not panic") {
                        trace::note(format_args!("{} has nothing to join", world.members[index].name()));
                    }
                }
                world.release(index);
            }));
        }
    }
}

fn create_node(handle: &Handle, member: &Member, ended: mpsc::UnboundedSender<(usize, String)>) -> NodeHandle {
    let run = member.clone();
    let init = move || {
        let (run, ended) = (run.clone(), ended.clone());
        async move {
            let index = run.index;
            let reason = run.run().await;
            // Without a world nobody wants to know.
            drop(ended.send((index, reason)));
        }
    };
    handle.create_node().name(member.name()).ip(member.address()).init(init).build()
}
