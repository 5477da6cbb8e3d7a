//! How each kind of fault begins and ends.

use std::time::Duration;

use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use mainstay_raft_log::disk::sim::Fault as DiskFault;
use mainstay_server::engine::mem::Fault as StoreFault;
use mainstay_server::env::clock;
use mainstay_server::env::transport::LinkConditions;
use mainstay_tests::history::{Call, Effect};

use super::links::between;
use super::{Ending, World};
use crate::plan::{DiskOperation, Fault, FaultKind, StoreOperation};
use crate::trace;
use crate::workload::lease_storm;

/// The client that makes an operator's calls.
pub(crate) const OPERATOR: usize = 90;

/// The number of the client that makes the calls of the first fault; the others follow.
pub(super) const CALLER: usize = 1000;
/// The same for the calls that are made for a member that did not find whom it joins.
pub(super) const SUPERVISOR: usize = 900;

/// Bytes that still find room on a store's disk that fills up.
const ROOM_LEFT: u64 = 500;

impl World {
    /// Lets a fault happen, from its beginning to its end.
    pub(crate) async fn suffer(self, place: usize, fault: Fault) {
        tokio::time::sleep_until(self.recorder.moment(fault.at)).await;
        trace::note(format_args!("fault {place} begins: {:?}", fault.kind));
        self.comes_about(fault.kind.name());
        let began = self.recorder.now();
        self.happen(place, &fault).await;
        trace::note(format_args!("fault {place} ends"));
        if !fault.kind.is_an_order() {
            self.recorder.disturbance(began, fault.kind.name(), fault.kind.effect());
        }
    }

    /// Counts something that goes wrong.
    pub(crate) fn comes_about(&self, name: &str) {
        *self.state().faults.entry(name.to_owned()).or_default() += 1;
    }

    async fn happen(&self, place: usize, fault: &Fault) {
        let lasts = || tokio::time::sleep(fault.lasts);
        match &fault.kind {
            FaultKind::Kill { member } => {
                self.hold_down(*member, Ending::Process);
                lasts().await;
                self.release(*member);
            }
            FaultKind::PowerCut { members } => {
                members.iter().for_each(|member| self.hold_down(*member, Ending::Power));
                lasts().await;
                members.iter().for_each(|member| self.release(*member));
            }
            FaultKind::CrashBetweenDiskOperations { member, operations } => {
                let excuse = self.may_fail(*member);
                let log = self.members[*member].disks().log;
                let off = log.operations() + operations;
                log.fail_power_after(*operations);
                let patience = fault.lasts.min(Duration::from_secs(2));
                let until = tokio::time::Instant::now() + patience;
                // The operation fails, and in the same moment the machine is gone.
                while log.operations() < off && tokio::time::Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.hold_down(*member, Ending::Power);
                lasts().await;
                self.is_whole(*member, excuse);
                self.release(*member);
            }
            FaultKind::Pause { member } => {
                let node = self.nodes[*member].id();
                Handle::current().pause(node);
                lasts().await;
                Handle::current().resume(node);
            }
            FaultKind::Partition { side } => {
                let (ones, others) = self.sides(side);
                self.cut(&between(&ones, &others), fault.lasts).await;
            }
            FaultKind::OneWay { from, to } => {
                self.cut(&[(self.nodes[*from].id(), self.nodes[*to].id())], fault.lasts).await;
            }
            FaultKind::Isolate { member } => {
                let (ones, mut others) = self.sides(&[*member]);
                others.extend(self.state().clients.values());
                self.cut(&between(&ones, &others), fault.lasts).await;
            }
            FaultKind::Astray { member, leads_to } => {
                self.members[*member].leads_to(Some(&self.members[*leads_to]));
                lasts().await;
                self.members[*member].leads_to(None);
            }
            FaultKind::SlowLink { one, other, millis } => {
                let links = between(&[self.nodes[*one].id()], &[self.nodes[*other].id()]);
                let least = Duration::from_millis(*millis);
                let conditions = LinkConditions { delay: Some(least..least * 2), ..LinkConditions::default() };
                self.state().links.spoil(place, links, conditions);
                lasts().await;
                self.state().links.restore(place);
            }
            FaultKind::FlakyNetwork { resets_per_mille, duplicates_per_mille, loss_per_mille, flips_per_mille } => {
                let share = |per_mille: &u32| f64::from(*per_mille) / 1000.0;
                let conditions = LinkConditions {
                    reset: share(resets_per_mille),
                    duplicate: share(duplicates_per_mille),
                    refuse: share(resets_per_mille),
                    ignore: share(resets_per_mille) / 2.0,
                    flip: share(flips_per_mille),
                    ..LinkConditions::default()
                };
                let (members, _) = self.sides(&(0..self.nodes.len()).collect::<Vec<_>>());
                let clients: Vec<NodeId> = self.state().clients.values().copied().collect();
                let mut links = between(&members, &clients);
                links.extend(between(&members, &members));
                self.state().links.spoil(place, links, conditions);
                NetSim::current().update_config(|config| config.packet_loss_rate = share(loss_per_mille));
                lasts().await;
                NetSim::current().update_config(|config| config.packet_loss_rate = 0.0);
                self.state().links.restore(place);
            }
            FaultKind::SlowDisk { member, millis } => {
                self.members[*member].slow_down(Duration::from_millis(*millis));
                lasts().await;
                self.members[*member].slow_down(Duration::ZERO);
            }
            FaultKind::StalledSync { member } => {
                let log = self.members[*member].disks().log;
                log.stall_next_sync(fault.lasts);
                lasts().await;
                log.fail_no_more();
            }
            FaultKind::DiskError { member, operation, after, then_power_fails } => {
                let excuse = self.may_fail(*member);
                let kind = match operation {
                    DiskOperation::Read => DiskFault::Read,
                    DiskOperation::Write => DiskFault::Write,
                    DiskOperation::Sync => DiskFault::Sync,
                    DiskOperation::Name => DiskFault::Name,
                    DiskOperation::SyncDirectory => DiskFault::SyncDir,
                };
                let log = self.members[*member].disks().log;
                if matches!(operation, DiskOperation::Read | DiskOperation::Name) {
                    // A log that is open reads from memory, and has its names.
                    self.hold_down(*member, Ending::Process);
                    log.fail_after_mount(kind, *after);
                    self.release(*member);
                } else {
                    log.fail_after(kind, *after);
                }
                lasts().await;
                log.fail_no_more();
                self.is_whole(*member, excuse);
                if *then_power_fails {
                    self.hold_down(*member, Ending::Power);
                    self.release(*member);
                }
            }
            FaultKind::FullDisk { member, store: false } => {
                let excuse = self.may_fail(*member);
                let log = self.members[*member].disks().log;
                log.set_capacity(Some(log.files().iter().map(|(_, size)| size).sum()));
                lasts().await;
                log.set_capacity(None);
                self.is_whole(*member, excuse);
            }
            FaultKind::FullDisk { member, store: true } => {
                let excuse = self.may_fail(*member);
                let store = self.members[*member].disks().store;
                store.set_room(Some(ROOM_LEFT));
                lasts().await;
                store.set_room(None);
                self.is_whole(*member, excuse);
            }
            FaultKind::StoreError { member, operation } => {
                let excuse = self.may_fail(*member);
                let store = self.members[*member].disks().store;
                store.fail_next(match operation {
                    StoreOperation::Read => StoreFault::Read,
                    StoreOperation::Write => StoreFault::Write,
                    StoreOperation::Flush => StoreFault::Flush,
                });
                lasts().await;
                store.fail_no_more();
                self.is_whole(*member, excuse);
            }
            FaultKind::Rot { member, bits } => {
                self.may_be_lost(*member);
                self.hold_down(*member, Ending::Process);
                let before = self.stored_log(*member);
                let log = self.members[*member].disks().log;
                for _ in 0..*bits {
                    log.rot(|_| true);
                }
                self.rot_is_found(*member, before);
                lasts().await;
                self.release(*member);
            }
            FaultKind::Corrupt { member } => {
                self.hold_down(*member, Ending::Process);
                match self.members[*member].corrupt() {
                    Some(false) => {}
                    is_certain => self.is_corrupt(*member, is_certain.is_some()),
                }
                lasts().await;
                self.release(*member);
            }
            FaultKind::Wipe { member, log, store } => {
                self.may_be_lost(*member);
                self.hold_down(*member, Ending::Process);
                self.members[*member].replace_disks(*log, *store);
                lasts().await;
                self.release(*member);
            }
            FaultKind::ClockRate { member, per_cent } => {
                let node = self.nodes[*member].id();
                self.set_rate(node, *per_cent, fault.lasts);
                lasts().await;
                clock::set_rate(node, 1.0);
            }
            FaultKind::ClockJump { member, millis } => {
                clock::jump(self.nodes[*member].id(), Duration::from_millis(*millis));
            }
            FaultKind::SlowLeader { per_cent } => {
                let Some(leader) = self.who_leads() else { return };
                let node = self.nodes[leader].id();
                let began = self.recorder.now();
                self.set_rate(node, *per_cent, fault.lasts);
                let (ones, others) = self.sides(&[leader]);
                self.cut(&between(&ones, &others), fault.lasts).await;
                clock::set_rate(node, 1.0);
                // Whose clock it is shows only now.
                let slow = Effect::ClockRate { member: leader, per_cent: *per_cent };
                self.recorder.disturbance(began, "slow clock", Some(slow));
            }
            FaultKind::TransferLeader { to } => self.transfer_leader(*to).await,
            FaultKind::Compact { keep } => {
                // Not ahead of the observer, whose record must be whole.
                let revision = self.observed.revision() - keep;
                if revision > 1 {
                    self.recorder
                        .call(CALLER + place, &self.client(place), Call::Compact { revision, physical: false })
                        .await;
                }
            }
            FaultKind::Defragment { member } => {
                // Whether it answers is of no matter: it must do no harm.
                drop(self.client(place).only(*member).defragment().await);
            }
            FaultKind::DamagedForwards { millis, flips_per_mille } => {
                let (members, _) = self.sides(&(0..self.nodes.len()).collect::<Vec<_>>());
                let least = Duration::from_millis(*millis);
                let conditions = LinkConditions {
                    delay: Some(least..least * 2),
                    flip_forwarded: f64::from(*flips_per_mille) / 1000.0,
                    ..LinkConditions::default()
                };
                self.state().links.spoil(place, between(&members, &members), conditions);
                lasts().await;
                self.state().links.restore(place);
            }
            FaultKind::LargeLost { bytes } => {
                let Some(leader) = self.who_leads() else { return };
                self.lose_the_large(place, leader, *bytes);
                lasts().await;
                self.lose_nothing(place);
            }
            FaultKind::SnapshotCutShort { member, sender, missing } => {
                self.cut_a_snapshot_short(*member, *sender, *missing, fault.lasts).await;
            }
            FaultKind::MemberAdd { member, learner } => {
                self.alone(*member, self.add_member(place, *member, *learner, fault.lasts)).await;
            }
            FaultKind::MemberAddCutOff { member, learner } => {
                self.alone(*member, self.add_at_the_cut_off(place, *member, *learner, fault.lasts)).await;
            }
            FaultKind::MemberRemove { member } => {
                self.alone(*member, self.remove_member(place, *member)).await;
            }
            FaultKind::MemberReplace { member } => {
                self.alone(*member, self.replace_member(place, *member, fault.lasts)).await;
            }
            FaultKind::MemberPromote { member } => self.promote_member(place, *member).await,
            FaultKind::MemberMove { member } => {
                self.alone(*member, self.move_member(place, *member)).await;
            }
            FaultKind::MemberReturn { member } => self.let_return(place, *member).await,
            FaultKind::LeaseStorm { leases } => {
                let id = CALLER + place;
                lease_storm(id, self.client(place), self.recorder.clone(), place as u32, *leases).await;
            }
        }
    }

    /// The nodes of some members, and those of all others.
    pub(super) fn sides(&self, side: &[usize]) -> (Vec<NodeId>, Vec<NodeId>) {
        let nodes = |inside: bool| {
            let these = (0..self.nodes.len()).filter(|index| side.contains(index) == inside);
            these.map(|index| self.nodes[index].id()).collect()
        };
        (nodes(true), nodes(false))
    }

    pub(super) async fn cut(&self, links: &[(NodeId, NodeId)], lasts: Duration) {
        self.state().links.cut(links);
        tokio::time::sleep(lasts).await;
        self.state().links.mend(links);
    }

    /// Lets nothing that is larger arrive between a member and all others, because of a fault.
    pub(crate) fn lose_the_large(&self, fault: usize, member: usize, bytes: usize) {
        let (ones, others) = self.sides(&[member]);
        let conditions = LinkConditions { largest: Some(bytes), ..LinkConditions::default() };
        self.state().links.spoil(fault, between(&ones, &others), conditions);
    }

    /// Takes that back.
    pub(crate) fn lose_nothing(&self, fault: usize) {
        self.state().links.restore(fault);
    }

    /// Lets a member's clock run at another rate; it is set back after so long.
    fn set_rate(&self, node: NodeId, per_cent: u32, lasts: Duration) {
        clock::set_rate(node, f64::from(per_cent) / 100.0);
        if per_cent < 100 {
            let mut state = self.state();
            state.slow_until = state.slow_until.max(TimeHandle::current().elapsed() + lasts);
        }
    }

    /// The first member that leads, as far as it knows.
    pub(super) fn who_leads(&self) -> Option<usize> {
        let leads = |index: &usize| self.members[*index].life().is_some_and(|life| life.leadership.view().leads);
        (0..self.members.len()).find(leads)
    }

    /// Asks whoever leads to hand over.
    async fn transfer_leader(&self, to: usize) {
        let lives: Vec<_> = self.members.iter().map(super::Member::life).collect();
        let Some(id) = lives[to].as_ref().map(|life| life.leadership.view().member_id) else { return };
        let leader = lives.iter().flatten().find(|life| life.leadership.view().leads);
        if let Some(leader) = leader {
            // It may well fail: the leader is deposed, the other down.
            let outcome = leader.leadership.transfer(id).await;
            trace::note(format_args!("transfer to {}: {outcome:?}", self.members[to].name()));
        }
    }

    /// Says that a member's state differs from the others', or may.
    fn is_corrupt(&self, member: usize, is_certain: bool) {
        let condition = &mut self.state().conditions[member];
        condition.corrupt_since.get_or_insert(TimeHandle::current().elapsed());
        condition.surely_corrupt |= is_certain;
    }

    /// Says that something is done to a member that its process may die of; returns which of these it is.
    fn may_fail(&self, member: usize) -> usize {
        self.state().conditions[member].excuses.begin(TimeHandle::current().elapsed())
    }

    /// Says that it is over.
    fn is_whole(&self, member: usize, excuse: usize) {
        self.state().conditions[member].excuses.end(excuse, TimeHandle::current().elapsed());
    }

    /// Says that something is done to a member that it may never come back from, whenever it finds out.
    fn may_be_lost(&self, member: usize) {
        let condition = &mut self.state().conditions[member];
        condition.excuses.lasting(TimeHandle::current().elapsed());
        condition.may_be_lost = true;
    }
}
