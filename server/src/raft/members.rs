//! Which changes of the members are let through, and what they are for openraft (pure).
//!
//! The rules and their order are etcd's (`mayAddMember` and its neighbours in etcd 3.7's server, and the checks
//! that follow when a change is applied). One thing differs: a voter that is added gets its vote only when it
//! has caught up. Until then it is a learner for consensus and a voter for everybody else, so that adding a
//! member that never starts costs no quorum.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_proto::mainstay::{
    ChangeMembersRequest, ChangeMembersResponse, MemberRefusal, change_members_request as wire,
};
use openraft::ChangeMembers;

use super::type_config::{Membership, PeerNode};
use crate::env::probe;

/// Of the leader's log a learner must hold this part, in per cent, to be promoted; etcd's.
const READY_PER_CENT: u64 = 90;
/// So many entries behind the leader a member that was added counts as caught up: it has them in a moment.
const CAUGHT_UP_ENTRIES: u64 = 500;

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member.
    Add {
        /// Its id, made by whoever was asked.
        id: u64,
        /// Where its peers will reach it.
        peer_urls: Vec<String>,
        /// Whether it stays without a vote until it is promoted.
        learner: bool,
    },
    /// A member goes.
    Remove(u64),
    /// A member moves.
    Update {
        /// Which.
        id: u64,
        /// Where its peers reach it from now on.
        peer_urls: Vec<String>,
    },
    /// A learner gets its vote.
    Promote(u64),
}

impl MemberChange {
    /// As it is sent to the leader.
    pub(super) fn to_wire(&self, cluster_id: u64) -> ChangeMembersRequest {
        let change = match self.clone() {
            Self::Add { id, peer_urls, learner } => wire::Change::Add(wire::Add { id, peer_urls, learner }),
            Self::Remove(id) => wire::Change::Remove(id),
            Self::Update { id, peer_urls } => wire::Change::Update(wire::Update { id, peer_urls }),
            Self::Promote(id) => wire::Change::Promote(id),
        };
        ChangeMembersRequest { cluster_id, change: Some(change) }
    }

    /// As it came from another member; `None` where that says nothing that this release knows.
    pub(super) fn from_wire(request: ChangeMembersRequest) -> Option<Self> {
        Some(match request.change? {
            wire::Change::Add(wire::Add { id, peer_urls, learner }) => Self::Add { id, peer_urls, learner },
            wire::Change::Remove(id) => Self::Remove(id),
            wire::Change::Update(wire::Update { id, peer_urls }) => Self::Update { id, peer_urls },
            wire::Change::Promote(id) => Self::Promote(id),
        })
    }
}

/// How a change ended, as another member tells it. A reason that only a newer release knows is one all the same.
pub(super) fn told_refusal(response: &ChangeMembersResponse) -> MemberRefusal {
    MemberRefusal::try_from(response.refusal).unwrap_or(MemberRefusal::Unhealthy)
}

/// What a member lets through.
#[derive(Clone, Copy, Debug)]
pub struct MemberRules {
    /// `--strict-reconfig-check`: no change that may cost the quorum.
    pub strict: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// `--promote-learners`: a learner that has caught up gets its vote without being asked for.
    pub promotes_learners: bool,
}

/// What a leader knows of the members at one moment.
pub(super) struct Situation<'a> {
    pub(super) membership: &'a Membership,
    /// Who leads, and judges.
    pub(super) leader: u64,
    /// Those who have told their name.
    pub(super) started: BTreeSet<u64>,
    /// Those who answered lately, the leader included.
    pub(super) active: BTreeSet<u64>,
    /// Of the others, the last entry that they hold.
    pub(super) matched: BTreeMap<u64, u64>,
    /// The leader's last entry.
    pub(super) last: u64,
    /// Those who were members once; their ids never come back.
    pub(super) removed: BTreeSet<u64>,
    /// Those whose data was found to differ from the others'.
    pub(super) corrupt: BTreeSet<u64>,
    pub(super) rules: MemberRules,
}

/// What openraft is asked for.
pub(super) type Plan = ChangeMembers<u64, PeerNode>;

impl Situation<'_> {
    /// What a change is for openraft, or why it is not let through.
    pub(super) fn plan(&self, change: &MemberChange) -> Result<Plan, MemberRefusal> {
        match change {
            MemberChange::Add { id, peer_urls, learner } => self.add(*id, peer_urls, *learner),
            MemberChange::Remove(id) => self.remove(*id),
            MemberChange::Update { id, peer_urls } => self.update(*id, peer_urls),
            MemberChange::Promote(id) => self.promote(*id),
        }
    }

    /// What is to be done without being asked: a change that a leader left half done, a member that was
    /// added as a voter and has caught up.
    pub(super) fn chore(&self) -> Option<Plan> {
        if self.membership.get_joint_config().len() > 1 {
            return Some(ChangeMembers::AddVoterIds(BTreeSet::new()));
        }
        let voters: BTreeSet<u64> = self.membership.voter_ids().collect();
        let joins = self.membership.nodes().find(|(id, node)| {
            if probe::broken("joiner-votes-at-once") && !node.learner && !voters.contains(id) {
                return true; // Wrong: whoever was added counts for the quorum before it is there.
            }
            !node.learner && !voters.contains(id) && self.has_caught_up(**id)
        });
        if let Some((id, _)) = joins {
            return Some(ChangeMembers::AddVoterIds(BTreeSet::from([*id])));
        }
        let voting = self.voting();
        // As for one that is added: with its vote the quorum must not hang on it alone.
        let is_healthy = voting.intersection(&self.active).count() >= quorum(voting.len() + 1);
        let promotes = self.rules.promotes_learners && is_healthy;
        let mut learners = self.membership.nodes().filter(|(_, node)| node.learner && promotes);
        // One that has not told its name yet would stand in the way of the next change, and one whose data is in doubt
        // might lead before anybody has looked at it.
        let may_vote = |id: u64| self.started.contains(&id) && !self.corrupt.contains(&id);
        let ready = learners.find(|(id, _)| self.has_caught_up(**id) && may_vote(**id));
        ready.and_then(|(id, _)| self.promote(*id).ok())
    }

    /// Whether a member answers, and has all but a moment's entries.
    fn has_caught_up(&self, id: u64) -> bool {
        let caught_up = self.matched.get(&id).is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= self.last);
        caught_up && self.active.contains(&id)
    }

    /// Those who are voters for everybody, whether they have their vote yet or not.
    fn voting(&self) -> BTreeSet<u64> {
        self.membership.nodes().filter(|(_, node)| !node.learner).map(|(id, _)| *id).collect()
    }

    fn add(&self, id: u64, peer_urls: &[String], learner: bool) -> Result<Plan, MemberRefusal> {
        let voting = self.voting();
        if self.rules.strict {
            let started = voting.intersection(&self.started).count();
            let is_second = voting.len() == 1 && started == 1;
            if !learner && !is_second && started < quorum(voting.len() + 1) {
                return Err(MemberRefusal::NotEnoughStarted);
            }
            if voting.len() > 1 && voting.intersection(&self.active).count() < quorum(voting.len() + 1) {
                return Err(MemberRefusal::Unhealthy);
            }
        }
        if self.removed.contains(&id) {
            return Err(MemberRefusal::NotFound); // as etcd says it
        }
        if self.membership.get_node(&id).is_some() {
            return Err(MemberRefusal::Exists);
        }
        self.check_urls(None, peer_urls)?;
        let learners = self.membership.nodes().filter(|(_, node)| node.learner).count();
        if learner && learners >= self.rules.learners_max {
            return Err(MemberRefusal::TooManyLearners);
        }
        let node = PeerNode { name: String::new(), peer_urls: peer_urls.to_vec(), learner };
        Ok(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])))
    }

    fn remove(&self, id: u64) -> Result<Plan, MemberRefusal> {
        let voting = self.voting();
        let node = self.membership.get_node(&id);
        if self.rules.strict && !node.is_some_and(|node| node.learner) {
            let others: BTreeSet<u64> = voting.iter().copied().filter(|other| *other != id).collect();
            if others.intersection(&self.started).count() < quorum(others.len()) {
                return Err(MemberRefusal::NotEnoughStarted);
            }
            // One that is down is no part of the quorum that works.
            let is_up = id == self.leader || self.active.contains(&id);
            if is_up && voting.intersection(&self.active).count() < 1 + quorum(voting.len().saturating_sub(1)) {
                return Err(MemberRefusal::Unhealthy);
            }
        }
        if node.is_none() {
            return Err(MemberRefusal::NotFound);
        }
        let votes: BTreeSet<u64> = self.membership.voter_ids().collect();
        if !votes.contains(&id) {
            return Ok(ChangeMembers::RemoveNodes(BTreeSet::from([id])));
        }
        // Whoever is left must have a vote, whatever the flag says: those who join have none yet.
        if votes.len() == 1 {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        Ok(ChangeMembers::RemoveVoters(BTreeSet::from([id])))
    }

    fn update(&self, id: u64, peer_urls: &[String]) -> Result<Plan, MemberRefusal> {
        let node = self.membership.get_node(&id).ok_or(MemberRefusal::NotFound)?;
        self.check_urls(Some(id), peer_urls)?;
        let node = PeerNode { peer_urls: peer_urls.to_vec(), ..node.clone() };
        Ok(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])))
    }

    fn promote(&self, id: u64) -> Result<Plan, MemberRefusal> {
        let node = self.membership.get_node(&id).ok_or(MemberRefusal::NotFound)?;
        let matched = if id == self.leader { self.last } else { self.matched.get(&id).copied().unwrap_or(0) };
        // Wrong where it is broken: a learner that holds nothing may count for the quorum.
        if matched * 100 < self.last * READY_PER_CENT && !probe::broken("promotion-without-catch-up") {
            return Err(MemberRefusal::LearnerNotReady);
        }
        let voting = self.voting();
        if self.rules.strict && voting.intersection(&self.started).count() + 1 < quorum(voting.len() + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if !node.learner {
            return Err(MemberRefusal::NotLearner);
        }
        let node = PeerNode { learner: false, ..node.clone() };
        Ok(ChangeMembers::Batch(vec![
            ChangeMembers::SetNodes(BTreeMap::from([(id, node)])),
            ChangeMembers::AddVoterIds(BTreeSet::from([id])),
        ]))
    }

    fn check_urls(&self, own: Option<u64>, peer_urls: &[String]) -> Result<(), MemberRefusal> {
        let others = self.membership.nodes().filter(|(id, _)| Some(**id) != own);
        match others.flat_map(|(_, node)| &node.peer_urls).any(|url| peer_urls.contains(url)) {
            true => Err(MemberRefusal::UrlExists),
            false => Ok(()),
        }
    }
}

pub(super) fn quorum(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: MemberRules = MemberRules { strict: true, learners_max: 1, promotes_learners: false };

    /// Members 1 to `size`, all voters that run, up to entry 1000 together; 1 leads.
    fn membership(size: u64) -> Membership {
        let nodes = (1..=size).map(|id| (id, node(&format!("http://{id}"), false)));
        Membership::new(vec![(1..=size).collect()], nodes.collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn node(url: &str, learner: bool) -> PeerNode {
        PeerNode { name: String::new(), peer_urls: vec![url.to_owned()], learner }
    }

    fn with(membership: &Membership, id: u64, learner: bool) -> Membership {
        let nodes = membership.nodes().map(|(id, node)| (*id, node.clone()));
        let nodes = nodes.chain([(id, node(&format!("http://{id}"), learner))]).collect::<BTreeMap<_, _>>();
        Membership::new(membership.get_joint_config().clone(), nodes).unwrap()
    }

    fn situation(membership: &Membership) -> Situation<'_> {
        let ids: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
        let matched = ids.iter().map(|id| (*id, 1000)).collect();
        let (started, removed, corrupt) = (ids.clone(), BTreeSet::new(), BTreeSet::new());
        Situation { membership, leader: 1, started, active: ids, matched, last: 1000, removed, corrupt, rules: RULES }
    }

    fn add(id: u64, learner: bool) -> MemberChange {
        MemberChange::Add { id, peer_urls: vec![format!("http://{id}")], learner }
    }

    fn refused(situation: &Situation<'_>, change: &MemberChange) -> Option<MemberRefusal> {
        situation.plan(change).err()
    }

    /// As observed on etcd 3.7.1.
    #[test]
    fn a_member_is_added_only_where_the_quorum_survives_it() {
        let cases = [(1, 0, true), (3, 0, true), (3, 1, false), (4, 1, true), (5, 1, true), (5, 2, false)];
        for (size, down, allowed) in cases {
            let members = membership(size);
            let mut now = situation(&members);
            now.active.retain(|id| *id <= size - down);
            for learner in [false, true] {
                let expected = (!allowed).then_some(MemberRefusal::Unhealthy);
                assert_eq!(refused(&now, &add(9, learner)), expected, "{size} members, {down} down, {learner}");
            }
            now.rules.strict = false;
            assert_eq!(refused(&now, &add(9, false)), None);
        }
    }

    #[test]
    fn an_id_never_comes_back() {
        let members = membership(3);
        let mut now = situation(&members);
        now.removed.insert(9);
        assert_eq!(refused(&now, &add(9, false)), Some(MemberRefusal::NotFound));
        assert_eq!(refused(&now, &add(8, false)), None);
    }

    #[test]
    fn a_voter_is_added_only_where_enough_have_started() {
        let one = membership(1);
        let two = with(&one, 2, false);
        let mut now = situation(&two);
        now.started.remove(&2);
        assert_eq!(refused(&now, &add(3, false)), Some(MemberRefusal::NotEnoughStarted));
        now.started.insert(2);
        assert_eq!(refused(&now, &add(3, false)), None);
    }

    #[test]
    fn ids_addresses_and_the_number_of_learners_are_checked() {
        let members = with(&membership(3), 4, true);
        let now = situation(&members);
        let url = |id| MemberChange::Add { id, peer_urls: vec!["http://2".into()], learner: false };
        assert_eq!(refused(&now, &url(2)), Some(MemberRefusal::Exists));
        assert_eq!(refused(&now, &url(9)), Some(MemberRefusal::UrlExists));
        assert_eq!(refused(&now, &add(9, true)), Some(MemberRefusal::TooManyLearners));
        let update = |id, url: &str| MemberChange::Update { id, peer_urls: vec![url.to_owned()] };
        assert_eq!(refused(&now, &update(9, "http://x")), Some(MemberRefusal::NotFound));
        assert_eq!(refused(&now, &update(3, "http://2")), Some(MemberRefusal::UrlExists));
        let moved = PeerNode { peer_urls: vec!["http://x".into()], ..node("", false) };
        let expected = ChangeMembers::SetNodes(BTreeMap::from([(3, moved)]));
        assert_eq!(now.plan(&update(3, "http://x")), Ok(expected));
        assert_eq!(refused(&now, &update(3, "http://3")), None, "its own address may stay");
    }

    #[test]
    fn a_member_is_removed_only_where_a_quorum_is_left() {
        let alone = membership(1);
        let now = situation(&alone);
        assert_eq!(refused(&now, &MemberChange::Remove(1)), Some(MemberRefusal::NotEnoughStarted));
        let three = membership(3);
        let mut now = situation(&three);
        assert_eq!(refused(&now, &MemberChange::Remove(9)), Some(MemberRefusal::NotFound));
        let plan = now.plan(&MemberChange::Remove(1));
        assert_eq!(plan, Ok(ChangeMembers::RemoveVoters(BTreeSet::from([1]))), "the leader may go");
        now.active.remove(&3);
        assert_eq!(refused(&now, &MemberChange::Remove(2)), Some(MemberRefusal::Unhealthy));
        assert_eq!(refused(&now, &MemberChange::Remove(3)), None, "it is down");
        let learner = with(&three, 4, true);
        let plan = situation(&learner).plan(&MemberChange::Remove(4));
        assert_eq!(plan, Ok(ChangeMembers::RemoveNodes(BTreeSet::from([4]))));
    }

    #[test]
    fn the_last_vote_stays() {
        let joining = with(&membership(1), 2, false);
        let mut now = situation(&joining);
        now.rules.strict = false;
        assert_eq!(refused(&now, &MemberChange::Remove(1)), Some(MemberRefusal::NotEnoughStarted));
    }

    #[test]
    fn a_learner_is_promoted_when_it_is_in_sync() {
        let members = with(&membership(3), 4, true);
        let mut now = situation(&members);
        assert_eq!(refused(&now, &MemberChange::Promote(9)), Some(MemberRefusal::NotFound));
        assert_eq!(refused(&now, &MemberChange::Promote(2)), Some(MemberRefusal::NotLearner));
        assert_eq!(refused(&now, &MemberChange::Promote(1)), Some(MemberRefusal::NotLearner));
        now.matched.insert(4, 899);
        assert_eq!(refused(&now, &MemberChange::Promote(4)), Some(MemberRefusal::LearnerNotReady));
        now.matched.insert(4, 900);
        let set = ChangeMembers::SetNodes(BTreeMap::from([(4, node("http://4", false))]));
        let batch = ChangeMembers::Batch(vec![set, ChangeMembers::AddVoterIds(BTreeSet::from([4]))]);
        assert_eq!(now.plan(&MemberChange::Promote(4)), Ok(batch));
    }

    #[test]
    fn who_was_added_votes_once_it_has_caught_up() {
        let members = with(&with(&membership(1), 2, false), 3, true);
        let mut now = situation(&members);
        assert_eq!(now.chore(), Some(ChangeMembers::AddVoterIds(BTreeSet::from([2]))), "and the learner does not");
        now.matched.insert(2, 400);
        assert_eq!(now.chore(), None, "it is behind");
        now.matched.insert(2, 1000);
        now.active.remove(&2);
        assert_eq!(now.chore(), None, "it is down");
    }

    #[test]
    fn a_learner_votes_once_it_has_caught_up_where_that_is_wished() {
        let members = with(&membership(3), 4, true);
        let mut now = situation(&members);
        assert_eq!(now.chore(), None);
        now.rules.promotes_learners = true;
        let promoted = now.plan(&MemberChange::Promote(4));
        assert_eq!(now.chore(), promoted.ok());
        now.active.remove(&3);
        assert_eq!(now.chore(), None, "one is down: with four votes the learner could not be missed");
        now.active.insert(3);
        now.started.remove(&4);
        assert_eq!(now.chore(), None, "its process has not said who it is");
        now.started.insert(4);
        now.matched.insert(4, 400);
        assert_eq!(now.chore(), None, "it is behind");
    }

    #[test]
    fn a_learner_whose_data_is_in_doubt_gets_its_vote_from_an_operator_only() {
        let members = with(&with(&membership(3), 4, true), 5, true);
        let mut now = situation(&members);
        now.rules.promotes_learners = true;
        now.corrupt.insert(4);
        assert_eq!(now.chore(), now.plan(&MemberChange::Promote(5)).ok(), "the other one is not held up");
        now.corrupt.insert(5);
        assert_eq!(now.chore(), None);
        assert_eq!(refused(&now, &MemberChange::Promote(4)), None, "as in etcd, which has no error for it");
        now.corrupt.clear();
        assert_eq!(now.chore(), now.plan(&MemberChange::Promote(4)).ok());
    }

    #[test]
    fn what_a_leader_left_half_done_is_completed() {
        let nodes = (1..=3).map(|id| (id, node("", false))).collect::<BTreeMap<_, _>>();
        let joint = Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2])], nodes).unwrap();
        assert_eq!(situation(&joint).chore(), Some(ChangeMembers::AddVoterIds(BTreeSet::new())));
    }

    #[test]
    fn changes_survive_the_wire() {
        let changes = [
            add(7, true),
            MemberChange::Remove(7),
            MemberChange::Update { id: 7, peer_urls: vec!["http://x".into()] },
            MemberChange::Promote(7),
        ];
        for change in changes {
            assert_eq!(MemberChange::from_wire(change.to_wire(1)), Some(change));
        }
    }

    #[test]
    fn a_refusal_that_is_not_known_is_no_success() {
        let told = |refusal| told_refusal(&ChangeMembersResponse { index: 7, refusal });
        assert_eq!(
            [told(0), told(3), told(99)],
            [MemberRefusal::None, MemberRefusal::NotFound, MemberRefusal::Unhealthy]
        );
    }
}
