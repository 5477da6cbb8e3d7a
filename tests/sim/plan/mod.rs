//! What a seed stands for: the size of the world, its manners, its load and its faults, decided
//! before it begins. A fault that is left out changes nothing else of the plan, which is what makes
//! a failing plan easy to shorten.

mod dice;
mod fault;
mod membership;
mod rare;

use std::time::Duration;

use madsim::rand::prelude::*;

pub(crate) use dice::Dice;
pub(crate) use fault::{DiskOperation, Fault, FaultKind, StoreOperation};

use crate::workload::Workload;

/// What happens in a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The first members.
    pub(crate) members: usize,
    /// How many further places there are for members that come later; where there are some, members come and go.
    pub(crate) spares: usize,
    /// Whether there are users and roles, and at times they count.
    pub(crate) has_users: bool,
    /// What each client does.
    pub(crate) clients: Vec<Workload>,
    /// How many clients watch, beside the observer.
    pub(crate) watchers: usize,
    /// The longest pause of a client between two calls.
    pub(crate) pace: Duration,
    /// How many bytes a value is filled up with at most.
    pub(crate) padding: usize,
    /// How long a message is under way.
    pub(crate) latency: std::ops::Range<Duration>,
    /// How many messages of a stream may be under way before its sender waits.
    pub(crate) window: usize,
    /// How long a sync of the log takes.
    pub(crate) sync: std::ops::RangeInclusive<Duration>,
    /// Time between heartbeats; elections take ten times as long.
    pub(crate) heartbeat: Duration,
    /// Entries between two looks at what may be purged.
    pub(crate) snapshot_count: u64,
    /// Entries kept for slow members.
    pub(crate) catchup_entries: u64,
    /// Bytes a second that a member sends of snapshots; 0 is no limit.
    pub(crate) snapshot_send_rate: u64,
    /// Bytes of a segment of the log.
    pub(crate) segment_bytes: u64,
    /// Bytes of the store that may wait to be flushed.
    pub(crate) flush_bytes: u64,
    /// How many runs of commands a flush of the store in the background takes.
    pub(crate) flush_takes: u32,
    /// Whether little may wait for watchers.
    pub(crate) small_watches: bool,
    /// Whether much is written in the end, to see that the log is purged.
    pub(crate) churn: bool,
    /// Where the store may retain little, and clients use that up.
    pub(crate) quota: Option<Quota>,
    /// What hinders the leader once all is quiet.
    pub(crate) hindrances: Vec<Hindrance>,
    /// In the order in which they begin.
    pub(crate) faults: Vec<Fault>,
}

/// What a leader gets nothing done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// Its log's disk takes no more.
    DiskHangs,
    /// Heartbeats get through to the others, and entries do not.
    LargeLost,
}

impl Hindrance {
    /// The name in reports, among the faults.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DiskHangs => "leader-hangs-in-the-end",
            Self::LargeLost => "leader-unheard-in-the-end",
        }
    }
}

/// A quota that is used up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    /// `--quota-backend-bytes`.
    pub(crate) bytes: u64,
    /// Whether an operator disarms the alarm in the end. Elsewhere the member that raised it has to.
    pub(crate) disarmed_by_hand: bool,
}

/// The kinds of fault, as makers of one. Each run takes a few of them and leaves the others out, so
/// that rare combinations come up and none drowns the others (swarm testing, Groce et al. 2012).
const KINDS: &[(u32, Maker)] = &[
    (6, |dice, members| FaultKind::Kill { member: dice.gen_range(0..members) }),
    (6, |dice, members| FaultKind::PowerCut { members: some_members(dice, members) }),
    (5, |dice, members| FaultKind::CrashBetweenDiskOperations {
        member: dice.gen_range(0..members),
        operations: dice.gen_range(0..60),
    }),
    (4, |dice, members| FaultKind::Pause { member: dice.gen_range(0..members) }),
    (5, |dice, members| FaultKind::Partition { side: minority(dice, members) }),
    (4, |dice, members| {
        let (from, to) = two(dice, members);
        FaultKind::OneWay { from, to }
    }),
    (3, |dice, members| FaultKind::Isolate { member: dice.gen_range(0..members) }),
    (3, |dice, members| {
        let (one, other) = two(dice, members);
        FaultKind::SlowLink { one, other, millis: dice.gen_range(20..600) }
    }),
    (4, |dice, _| FaultKind::FlakyNetwork {
        resets_per_mille: dice.gen_range(0..20),
        duplicates_per_mille: dice.gen_range(0..200),
        loss_per_mille: dice.gen_range(0..100),
        flips_per_mille: dice.gen_range(0..10),
    }),
    (3, |dice, members| FaultKind::SlowDisk { member: dice.gen_range(0..members), millis: dice.gen_range(20..400) }),
    (3, |dice, members| FaultKind::StalledSync { member: dice.gen_range(0..members) }),
    (3, |dice, members| {
        // The rarer an operation, the earlier one of them fails.
        let (operation, after) = *[
            (DiskOperation::Read, 5),
            (DiskOperation::Write, 40),
            (DiskOperation::Sync, 40),
            (DiskOperation::Name, 5),
            (DiskOperation::SyncDirectory, 2),
        ]
        .choose(dice)
        .expect("there are some");
        FaultKind::DiskError {
            member: dice.gen_range(0..members),
            operation,
            after: dice.gen_range(0..after),
            then_power_fails: dice.gen_bool(0.5),
        }
    }),
    (2, |dice, members| FaultKind::FullDisk { member: dice.gen_range(0..members), store: dice.gen_bool(0.3) }),
    (2, |dice, members| FaultKind::StoreError {
        member: dice.gen_range(0..members),
        operation: *[StoreOperation::Read, StoreOperation::Write, StoreOperation::Flush]
            .choose(dice)
            .expect("there are some"),
    }),
    (1, |dice, members| FaultKind::Rot { member: dice.gen_range(0..members), bits: dice.gen_range(1..4) }),
    (1, |dice, members| FaultKind::Corrupt { member: dice.gen_range(0..members) }),
    (1, |dice, members| {
        let both = dice.gen_bool(0.5);
        let log = both || dice.gen_bool(0.5);
        FaultKind::Wipe { member: dice.gen_range(0..members), log, store: both || !log }
    }),
    (2, |dice, members| FaultKind::ClockRate {
        member: dice.gen_range(0..members),
        per_cent: *[50, 80, 95, 105, 125, 200].choose(dice).expect("there are some"),
    }),
    (2, |dice, members| FaultKind::ClockJump {
        member: dice.gen_range(0..members),
        millis: dice.gen_range(200..20_000),
    }),
    (4, |dice, members| FaultKind::TransferLeader { to: dice.gen_range(0..members) }),
    (5, |dice, _| FaultKind::Compact { keep: dice.gen_range(0..60) }),
    (3, |dice, members| FaultKind::Defragment { member: dice.gen_range(0..members) }),
    (2, |dice, _| FaultKind::LeaseStorm { leases: dice.gen_range(10..60) }),
    (2, |dice, _| FaultKind::SlowLeader { per_cent: dice.gen_range(20..60) }),
];

/// The name of every kind of fault that a plan can hold.
pub(crate) fn kinds() -> Vec<&'static str> {
    // What is made is of no matter here; three members are enough for every kind.
    let drawn = KINDS.iter().map(|(_, make)| make(&mut Dice::new(0), 3).name());
    let of_leaders = HINDRANCES.map(|(hindrance, _)| hindrance.name());
    drawn.chain([FaultKind::ASTRAY]).chain(FaultKind::OF_MEMBERS).chain(FaultKind::RARE).chain(of_leaders).collect()
}

/// How many of the worlds have members that come and go.
const MEMBERS_CHANGE: f64 = 0.2;

/// How many of the worlds have a quota that is used up.
const SPACE_RUNS_OUT: f64 = 0.125;
/// What that is drawn with, beside the seed: dice of its own, so that all other worlds are what they would be without.
const SPACE: u64 = 0x7370_6163_6500;
/// That quota: several times what there is in the end of whatever does not fill it on purpose (some 20 kB, at most 50),
/// and what one who does fills in a few seconds.
const QUOTA_BYTES: std::ops::Range<u64> = 80_000..240_000;

/// How many of the worlds send snapshots slowly.
const SNAPSHOTS_ARE_SLOW: f64 = 0.5;
/// What that is drawn with, beside the seed.
const SNAPSHOTS: u64 = 0x736e_6170_7300;

/// In how many of the worlds a leader is hindered when all is quiet, in each way, of those where everybody is to be there
/// then.
const LEADER_IS_HINDERED: f64 = 0.3;
/// What that is drawn with, beside the seed.
const HINDRANCES: [(Hindrance, u64); 2] =
    [(Hindrance::DiskHangs, 0x6861_6e67_7300), (Hindrance::LargeLost, 0x6c61_7267_6500)];

/// Where the log is tiny: entries between two looks at what may be purged.
const TINY_LOG: u64 = 10;

/// In how many of the worlds addresses of members lead to other members.
const ADDRESSES_LEAD_ASTRAY: f64 = 0.1;
/// What that is drawn with, beside the seed.
const ASTRAY: u64 = 0x6173_7472_6179;

type Maker = fn(&mut Dice, usize) -> FaultKind;

impl Plan {
    /// The plan of a seed; of another size where one is given.
    pub(crate) fn new(seed: u64, members: Option<usize>) -> Self {
        let mut dice = Dice::new(seed);
        let drawn = *[1, 3, 3, 3, 5].choose(&mut dice).expect("there are some");
        let members = members.unwrap_or(drawn);
        let millis = Duration::from_millis;
        let fast = dice.gen_bool(0.5);
        // Whoever is away for a few seconds then finds the log purged, and gets a snapshot.
        let tiny_log = dice.gen_bool(0.4);
        let storm = Duration::from_secs(dice.gen_range(15..35));
        let clients = (0..dice.gen_range(3..7)).map(|_| Workload::draw(&mut dice)).collect();
        let mut plan = Self {
            members,
            spares: 0,
            clients,
            watchers: dice.gen_range(1..4),
            pace: millis(*[60, 150, 400].choose(&mut dice).expect("there are some")),
            padding: *[0, 0, 0, 3000].choose(&mut dice).expect("there are some"),
            latency: if fast { millis(1)..millis(3) } else { millis(1)..millis(15) },
            sync: if dice.gen_bool(0.5) { millis(1)..=millis(4) } else { millis(1)..=millis(12) },
            heartbeat: millis(100),
            snapshot_count: if tiny_log {
                TINY_LOG
            } else {
                *[20, 100, 400].choose(&mut dice).expect("there are some")
            },
            catchup_entries: if tiny_log { 2 } else { *[5, 50, 200].choose(&mut dice).expect("there are some") },
            snapshot_send_rate: 0,
            segment_bytes: *[64 << 10, 128 << 10, 256 << 10].choose(&mut dice).expect("there are some"),
            small_watches: dice.gen_bool(0.5),
            churn: dice.gen_bool(0.3),
            quota: None,
            hindrances: Vec::new(),
            flush_bytes: if tiny_log { 500 } else { *[500, 5_000, 50_000].choose(&mut dice).expect("there are some") },
            faults: faults(&mut dice, members, storm),
            window: *[1, 16].choose(&mut dice).expect("there are some"),
            flush_takes: *[0, 2, 10].choose(&mut dice).expect("there are some"),
            has_users: dice.gen_bool(0.2),
        };
        if plan.has_users {
            plan.clients.truncate(4);
            plan.clients.extend([Workload::Administrator, Workload::Users, Workload::Users]);
        }
        if dice.gen_bool(MEMBERS_CHANGE) {
            plan.let_members_change(&mut dice, storm);
        }
        plan.let_space_run_out(&mut Dice::new(seed ^ SPACE));
        plan.slow_snapshots_down(&mut Dice::new(seed ^ SNAPSHOTS));
        plan.lead_addresses_astray(&mut Dice::new(seed ^ ASTRAY), storm);
        plan.add_the_rare(seed);
        plan.hinder_leaders(seed);
        plan
    }

    /// How many places for members there are.
    pub(crate) fn places(&self) -> usize {
        self.members + self.spares
    }

    fn let_members_change(&mut self, dice: &mut Dice, storm: Duration) {
        self.spares = membership::spares(dice, self.members);
        self.clients.truncate(5);
        self.clients.push(Workload::Members);
        self.faults = faults(dice, self.places(), storm);
        // Whose disks are lost is replaced here.
        self.faults.retain(|fault| fault.kind.casualty().is_none());
        self.faults.extend(membership::changes(dice, self.members, self.spares, storm));
        self.faults.sort_by_key(|fault| fault.at);
    }

    /// Whoever gets a snapshot gets it in a second or so, and in that time something happens.
    fn slow_snapshots_down(&mut self, dice: &mut Dice) {
        if dice.gen_bool(SNAPSHOTS_ARE_SLOW) {
            self.snapshot_send_rate = self.slow_snapshots();
        }
    }

    fn slow_snapshots(&self) -> u64 {
        match self.padding {
            0 if self.clients.contains(&Workload::Sets) => 300_000,
            0 => 150_000,
            _ => 2_000_000,
        }
    }

    /// Once or a few times, each for long enough that who is mistaken for another could vote, and count for a write.
    fn lead_addresses_astray(&mut self, dice: &mut Dice, storm: Duration) {
        let places = self.places();
        // Where members come and go, one that has not joined yet finds nobody any more once the others have moved: its
        // operator would have to tell it.
        if places < 2 || places > self.members || !dice.gen_bool(ADDRESSES_LEAD_ASTRAY) {
            return;
        }
        for _ in 0..dice.gen_range(1..5) {
            let at = dice.gen_range(Duration::from_secs(3)..storm);
            let lasts = Duration::from_millis(dice.gen_range(500..8000));
            let member = dice.gen_range(0..places);
            let leads_to = (member + dice.gen_range(1..places)) % places;
            self.faults.push(Fault { at, lasts, kind: FaultKind::Astray { member, leads_to } });
            // Who was there loses its connections with its life: only new ones go astray.
            self.faults.push(Fault { at, lasts: lasts / 2, kind: FaultKind::Kill { member } });
        }
        self.faults.sort_by_key(|fault| fault.at);
    }

    fn hinder_leaders(&mut self, seed: u64) {
        if self.members < 3 || self.spares > 0 || self.quota.is_some() {
            return;
        }
        let planned = HINDRANCES.iter().filter(|(_, dice)| Dice::new(seed ^ dice).gen_bool(LEADER_IS_HINDERED));
        self.hindrances = planned.map(|(hindrance, _)| *hindrance).collect();
    }

    fn let_space_run_out(&mut self, dice: &mut Dice) {
        if !dice.gen_bool(SPACE_RUNS_OUT) {
            return;
        }
        self.quota = Some(Quota { bytes: dice.gen_range(QUOTA_BYTES), disarmed_by_hand: dice.gen_bool(0.3) });
        // What nobody may delete has to stay small, or there would never be room again: values are short, and who adds
        // to sets fills instead.
        self.padding = 0;
        self.churn = false;
        for client in &mut self.clients {
            if *client == Workload::Sets {
                *client = Workload::Filler;
            }
        }
        if !self.clients.contains(&Workload::Filler) {
            self.clients.push(Workload::Filler);
        }
        self.clients.push(Workload::Relief);
    }
}

fn faults(dice: &mut Dice, members: usize, storm: Duration) -> Vec<Fault> {
    let kinds = dice.gen_range(1..9);
    let mut taken: Vec<&(u32, Maker)> = KINDS.choose_multiple(dice, kinds).collect();
    taken.sort_by_key(|(weight, _)| *weight);
    let gap = Duration::from_millis(*[700, 1500, 3000].choose(dice).expect("there are some"));
    let mut faults = Vec::new();
    let mut casualties = Vec::new();
    let mut at = Duration::from_millis(dice.gen_range(200..4000));
    while at < storm {
        let (_, make) = taken.choose_weighted(dice, |(weight, _)| *weight).expect("some kind was taken");
        let kind = make(dice, members);
        let lasts = Duration::from_millis(match dice.gen_range(0..10u32) {
            0..=5 => dice.gen_range(50..1500),
            6..=8 => dice.gen_range(500..5000),
            _ => dice.gen_range(3000..9000),
        });
        // The others wait for a while before they elect.
        let needs_time = matches!(kind, FaultKind::SlowLeader { .. });
        let lasts = if needs_time { lasts + Duration::from_secs(3) } else { lasts };
        let affordable = match kind.casualty() {
            Some(member) if !casualties.contains(&member) => casualties.len() < (members - 1) / 2,
            _ => true,
        };
        // Before that, a member may not have told the others that it is there.
        let early = kind.casualty().is_some() && at < Duration::from_secs(6);
        // A second one could meet what a snapshot brought the first one's state to, and nobody would be left.
        let corrupts = |kind: &FaultKind| matches!(kind, FaultKind::Corrupt { .. });
        let again = corrupts(&kind) && faults.iter().any(|fault: &Fault| corrupts(&fault.kind));
        if affordable && !early && !again && fits(&kind, members) {
            casualties.extend(kind.casualty());
            faults.push(Fault { at, lasts, kind });
        }
        at += Duration::from_millis(dice.gen_range(50..2 * gap.as_millis() as u64));
    }
    faults
}

/// Whether a fault means anything in a world of this size.
fn fits(kind: &FaultKind, members: usize) -> bool {
    match kind {
        FaultKind::Partition { side } => !side.is_empty() && members > 1,
        FaultKind::OneWay { from, to } => from != to,
        FaultKind::SlowLink { one, other, .. } => one != other,
        FaultKind::TransferLeader { .. } | FaultKind::SlowLeader { .. } => members > 1,
        _ => true,
    }
}

fn some_members(dice: &mut Dice, members: usize) -> Vec<usize> {
    if dice.gen_bool(0.4) {
        return (0..members).collect();
    }
    let mut some = (0..members).collect::<Vec<_>>();
    some.shuffle(dice);
    some.truncate(dice.gen_range(1..=members));
    some
}

fn minority(dice: &mut Dice, members: usize) -> Vec<usize> {
    let mut all = (0..members).collect::<Vec<_>>();
    all.shuffle(dice);
    all.truncate(members / 2);
    if all.len() > 1 && dice.gen_bool(0.5) {
        all.truncate(1);
    }
    all
}

fn two(dice: &mut Dice, members: usize) -> (usize, usize) {
    (dice.gen_range(0..members), dice.gen_range(0..members))
}
