//! Everything that can go wrong, as data.

use std::fmt;
use std::time::Duration;

use mainstay_tests::history::Effect;
use serde::{Deserialize, Serialize};

/// One thing that goes wrong, at a time and for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// When it begins, after the run's beginning.
    pub(crate) at: Duration,
    /// How long it lasts; a member that was lost is started again after this time.
    pub(crate) lasts: Duration,
    pub(crate) kind: FaultKind,
}

/// What goes wrong. Members are given by their place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    /// A process ends; what it wrote to files stays, synced or not.
    Kill { member: usize },
    /// Machines lose power: what was not synced is lost or torn.
    PowerCut { members: Vec<usize> },
    /// Power fails between two disk operations.
    CrashBetweenDiskOperations { member: usize, operations: u64 },
    /// A process stands still, and its clock with it as others see it.
    Pause { member: usize },
    /// No message passes between the members of one side and all others; clients reach both.
    Partition { side: Vec<usize> },
    /// No message passes from one member to another; the other way they do.
    OneWay { from: usize, to: usize },
    /// A member reaches nobody and is reached by nobody, clients included.
    Isolate { member: usize },
    /// The address of a member leads to another one, for whoever connects.
    Astray { member: usize, leads_to: usize },
    /// Messages between two members take longer.
    SlowLink { one: usize, other: usize, millis: u64 },
    /// Connections break, requests arrive twice, packets are lost, what replicates is damaged, everywhere.
    FlakyNetwork { resets_per_mille: u32, duplicates_per_mille: u32, loss_per_mille: u32, flips_per_mille: u32 },
    /// Every write and sync of the log takes longer.
    SlowDisk { member: usize, millis: u64 },
    /// One sync of the log takes very long.
    StalledSync { member: usize },
    /// One operation of the log's disk fails: of those that only a start makes, one of the next start, which comes
    /// right away. Where power fails later, too, what counted as written then shows whether it was.
    DiskError { member: usize, operation: DiskOperation, after: u64, then_power_fails: bool },
    /// The log's disk, or the store's, has no room left.
    FullDisk { member: usize, store: bool },
    /// One operation of the store fails.
    StoreError { member: usize, operation: StoreOperation },
    /// Bits turn over in the log; the member is down meanwhile.
    Rot { member: usize, bits: u32 },
    /// A member comes back with a state that is not what was applied, as after a fault that no checksum notices.
    Corrupt { member: usize },
    /// A member comes back without its disks.
    Wipe { member: usize, log: bool, store: bool },
    /// A member's clock runs at another rate, in per cent.
    ClockRate { member: usize, per_cent: u32 },
    /// A member's clock jumps ahead.
    ClockJump { member: usize, millis: u64 },
    /// The clock of whoever leads runs slow, in per cent, while no other member hears it or is heard by it;
    /// clients reach it.
    SlowLeader { per_cent: u32 },
    /// The leader is asked to hand over to another member.
    TransferLeader { to: usize },
    /// History is compacted, but for so many revisions.
    Compact { keep: i64 },
    /// A member defragments.
    Defragment { member: usize },
    /// Many leases are granted at once, with keys, and run out at once.
    LeaseStorm { leases: u32 },
    /// Messages between members take longer, so that several are under way, and bits turn over in many of those that pass
    /// commands on to the leader.
    DamagedForwards { millis: u64, flips_per_mille: u32 },
    /// Between whoever leads and all other members nothing arrives that is larger than so many bytes: heartbeats do, and
    /// hardly any entry.
    LargeLost { bytes: usize },
    /// A member falls so far behind that it needs a snapshot. When all but so many files of one have arrived, its process
    /// ends, and a file rots of those that have; or the leader's process ends.
    SnapshotCutShort { member: usize, sender: bool, missing: usize },
    /// A member is added, and started after a while.
    MemberAdd { member: usize, learner: bool },
    /// The leader is cut off from the other members, and asked to add a member.
    MemberAddCutOff { member: usize, learner: bool },
    /// A member is removed, and is to end by itself.
    MemberRemove { member: usize },
    /// A learner is to get its vote.
    MemberPromote { member: usize },
    /// A member loses its disks, is removed, and added anew where it was, under another id.
    MemberReplace { member: usize },
    /// A member gets another peer URL.
    MemberMove { member: usize },
    /// A member that was removed is started again with the disks it had.
    MemberReturn { member: usize },
}

/// An operation of a disk that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum DiskOperation {
    Read,
    Write,
    Sync,
    Name,
    SyncDirectory,
}

/// An operation of the store that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoreOperation {
    Read,
    Write,
    Flush,
}

impl FaultKind {
    /// The names of what an operator does to the members.
    pub(crate) const OF_MEMBERS: [&str; 7] = [
        "member-add",
        "member-add-cut-off",
        "member-remove",
        "member-promote",
        "member-replace",
        "member-move",
        "member-return",
    ];

    /// The names of what is rare by chance, and brought about in a few worlds.
    pub(crate) const RARE: [&str; 3] = ["damaged-forwards", "large-messages-lost", "snapshot-cut-short"];

    /// The name of what has dice of its own.
    pub(crate) const ASTRAY: &str = "address-leads-astray";

    /// The kind's name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::PowerCut { .. } => "power-cut",
            Self::CrashBetweenDiskOperations { .. } => "crash-between-disk-operations",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::OneWay { .. } => "one-way-partition",
            Self::Isolate { .. } => "isolate",
            Self::Astray { .. } => Self::ASTRAY,
            Self::SlowLink { .. } => "slow-link",
            Self::FlakyNetwork { .. } => "flaky-network",
            Self::SlowDisk { .. } => "slow-disk",
            Self::StalledSync { .. } => "stalled-sync",
            Self::DiskError { .. } => "disk-error",
            Self::FullDisk { .. } => "full-disk",
            Self::StoreError { .. } => "store-error",
            Self::Rot { .. } => "rot",
            Self::Corrupt { .. } => "corrupt",
            Self::Wipe { .. } => "wipe",
            Self::ClockRate { .. } => "clock-rate",
            Self::ClockJump { .. } => "clock-jump",
            Self::SlowLeader { .. } => "slow-leader",
            Self::TransferLeader { .. } => "transfer-leader",
            Self::Compact { .. } => "compact",
            Self::Defragment { .. } => "defragment",
            Self::LeaseStorm { .. } => "lease-storm",
            Self::DamagedForwards { .. } => "damaged-forwards",
            Self::LargeLost { .. } => "large-messages-lost",
            Self::SnapshotCutShort { .. } => "snapshot-cut-short",
            Self::MemberAdd { .. } => "member-add",
            Self::MemberAddCutOff { .. } => "member-add-cut-off",
            Self::MemberRemove { .. } => "member-remove",
            Self::MemberPromote { .. } => "member-promote",
            Self::MemberReplace { .. } => "member-replace",
            Self::MemberMove { .. } => "member-move",
            Self::MemberReturn { .. } => "member-return",
        }
    }

    /// Whether the member may never come back: it counts against the quorum.
    pub(crate) fn casualty(&self) -> Option<usize> {
        match self {
            Self::Rot { member, .. } | Self::Corrupt { member } | Self::Wipe { member, .. } => Some(*member),
            _ => None,
        }
    }

    /// What it does to the time that leases have.
    pub(crate) fn effect(&self) -> Option<Effect> {
        match *self {
            Self::ClockRate { member, per_cent } => Some(Effect::ClockRate { member, per_cent }),
            Self::ClockJump { member, millis } => Some(Effect::ClockJump { member, by: Duration::from_millis(millis) }),
            Self::Pause { member } => Some(Effect::Pause { member }),
            // A leader whose disk hangs hands over, and one whose entries do not arrive is followed.
            Self::TransferLeader { .. } | Self::StalledSync { .. } | Self::LargeLost { .. } => Some(Effect::Transfer),
            _ => None,
        }
    }

    /// Whether it is an order from an operator rather than a failure: the cluster goes on serving.
    pub(crate) fn is_an_order(&self) -> bool {
        matches!(self, Self::Compact { .. } | Self::Defragment { .. } | Self::LeaseStorm { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at {:.3} s for {:.3} s: {:?}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.kind)
    }
}
