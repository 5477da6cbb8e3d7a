//! What an operator does to the members, and what the machines of those have to do for it.

use std::time::Duration;

use mainstay_tests::history::{Call, Listed, MemberCall, MemberReply, Outcome, Reply, Started};
use tokio::time::Instant;

use super::faults::CALLER;
use super::links::between;
use super::standing::Standing;
use super::{Ending, World};
use crate::trace;

/// Pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(300);
/// What an operator is told that does not change by asking again at once.
const REFUSALS: [&str; 9] = [
    "etcdserver: member not found",
    "etcdserver: member ID already exist",
    "etcdserver: Peer URLs already exists",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: too many learner members in cluster",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: unhealthy cluster",
    "etcdserver: given member URLs are invalid",
];

/// What came of a change.
enum Came {
    Done(MemberReply),
    /// It was refused; the second says whether an earlier attempt may have happened.
    Refused(String, bool),
    /// Nobody knows.
    Open,
}

impl World {
    /// Adds a member in an empty place, and starts it after a while.
    pub(super) async fn add_member(&self, fault: usize, index: usize, learner: bool, lasts: Duration) {
        if let Some(before) = self.make_room(fault, index).await {
            self.add(fault, index, learner, lasts, &before, false).await;
        }
    }

    /// Asks a leader that is cut off from the others to add a member, and who the members are: what is in its log
    /// alone may never be so. Adds the member when it is back.
    pub(super) async fn add_at_the_cut_off(&self, fault: usize, index: usize, learner: bool, lasts: Duration) {
        let Some(before) = self.make_room(fault, index).await else { return };
        let leader = self.who_leads();
        if let Some(leader) = leader {
            let (ones, others) = self.sides(&[leader]);
            let call = MemberCall::Add { urls: vec![self.members[index].peer_url()], learner };
            let client = self.client(fault).only(leader);
            let ask = async |call: MemberCall| {
                drop(self.recorder.call(CALLER + fault, &client, Call::Member(call)).await);
            };
            let insist = async {
                // Changes are made one after the other: the first must not be waited for by whoever asks again.
                drop(tokio::time::timeout(PAUSE, ask(call.clone())).await);
                ask(MemberCall::List { linearizable: false }).await;
                ask(call.clone()).await;
            };
            let cut = between(&ones, &others);
            tokio::join!(self.cut(&cut, lasts), insist);
        }
        let now = self.members_now(fault).await.unwrap_or(before);
        self.add(fault, index, learner, PAUSE, &now, leader.is_some()).await;
    }

    /// Gets an empty place ready for a new member; who the members are, where there is one.
    async fn make_room(&self, fault: usize, index: usize) -> Option<Vec<Listed>> {
        if !matches!(self.standing(index), Standing::Outside | Standing::Removed) {
            trace::note(format_args!("{} is a member", self.members[index].name()));
            return None;
        }
        // The first change of all is made to members that are known.
        let before = self.members_now(fault).await?;
        // A process that was removed and goes on, or waits for another fault to be over, has to make room.
        self.lay_to_rest(index, Ending::Process);
        self.begin_anew(index);
        self.set_standing(index, Standing::Leaving);
        Some(before)
    }

    /// Has a member added where there is room for it, and starts it; an earlier attempt may have done so already.
    async fn add(
        &self,
        fault: usize,
        index: usize,
        learner: bool,
        lasts: Duration,
        before: &[Listed],
        may_have_happened: bool,
    ) {
        let url = self.members[index].peer_url();
        let call = MemberCall::Add { urls: vec![url], learner };
        let missed = self.missed(before);
        let added = match self.insist(fault, call).await {
            Came::Done(reply) => {
                self.was_safe(before, &missed, &reply.members);
                true
            }
            Came::Refused(_, may_have) => may_have || may_have_happened,
            // It may be added at any time.
            Came::Open => true,
        };
        if !added {
            return self.set_standing(index, Standing::Outside);
        }
        self.set_standing(index, Standing::Member);
        let life = self.state().conditions[index].lives;
        tokio::time::sleep(lasts).await;
        let is_same = self.state().conditions[index].lives == life && self.standing(index) == Standing::Member;
        if is_same {
            self.join(fault, index).await;
        }
    }

    /// Starts a member that was added.
    pub(super) async fn join(&self, fault: usize, index: usize) {
        if self.know_the_cluster(fault, index).await {
            let (url, at) = (self.members[index].peer_url(), self.recorder.now());
            self.recorder.with(|history| history.joined.push(Started { url, at }));
            self.wake(index);
        } else if self.standing(index) == Standing::Member {
            self.set_standing(index, Standing::Outside);
        }
    }

    /// Tells a member that is to join who the others are; `false` where it is none of them.
    pub(super) async fn know_the_cluster(&self, fault: usize, index: usize) -> bool {
        let Some(members) = self.members_now(fault).await else { return false };
        let mut cluster = Vec::new();
        for listed in &members {
            let name = self.place_of(listed).map_or_else(|| format!("{:x}", listed.id), |at| self.members[at].name());
            cluster.extend(listed.peer_urls.iter().map(|url| format!("{name}={url}")));
        }
        let own = members.iter().find(|listed| self.place_of(listed) == Some(index));
        if let Some(own) = own {
            // A move that was asked for under its former id may have been made after it was given up.
            own.peer_urls.iter().for_each(|url| self.members[index].is_found_at(url));
            self.members[index].is_to_join(cluster.join(","));
        }
        own.is_some()
    }

    /// Removes a member.
    pub(super) async fn remove_member(&self, fault: usize, index: usize) {
        let _turn = self.changes.lock().await;
        if self.standing(index) != Standing::Member {
            return trace::note(format_args!("{} is no member", self.members[index].name()));
        }
        let Some(members) = self.members_now(fault).await else { return };
        let Some(id) = self.id_in(&members, index) else { return };
        if !self.can_spare(&members, index, 0) {
            return trace::note(format_args!("{} is needed", self.members[index].name()));
        }
        self.remove(fault, index, id, &members).await;
    }

    /// Has a member removed whose id is known; whether it was.
    async fn remove(&self, fault: usize, index: usize, id: u64, before: &[Listed]) -> bool {
        self.set_standing(index, Standing::Leaving);
        let missed = self.missed(before);
        let is_gone = match self.insist(fault, MemberCall::Remove { id }).await {
            Came::Done(reply) => {
                self.was_safe(before, &missed, &reply.members);
                true
            }
            Came::Refused(text, _) if text.ends_with("member not found") => true,
            Came::Refused(_, false) => false,
            // An earlier attempt may be carried out yet: it stays as one that leaves.
            Came::Refused(_, true) | Came::Open => return false,
        };
        let has_started = self.members[index].has_started();
        let standing = match (is_gone, has_started) {
            (false, _) => Standing::Member,
            (true, true) => Standing::Removed,
            (true, false) => Standing::Outside,
        };
        // It may have ended meanwhile, and said why.
        if is_gone || !self.state().conditions[index].ended_as_removed {
            self.set_standing(index, standing);
        }
        if standing == Standing::Outside {
            self.lay_to_rest(index, Ending::Process);
        }
        if let Some(members) = self.members_now(fault).await {
            self.end_the_cut_off(&members);
        }
        is_gone
    }

    /// Asks for a learner's vote.
    pub(super) async fn promote_member(&self, fault: usize, index: usize) {
        let Some(members) = self.members_now(fault).await else { return };
        let Some(id) = self.id_in(&members, index) else { return };
        self.insist(fault, MemberCall::Promote { id }).await;
    }

    /// Replaces a member that loses its disks.
    pub(super) async fn replace_member(&self, fault: usize, index: usize, lasts: Duration) {
        let _turn = self.changes.lock().await;
        if self.standing(index) != Standing::Member {
            return;
        }
        let Some(members) = self.members_now(fault).await else { return };
        let Some(id) = self.id_in(&members, index) else { return };
        if !self.can_spare(&members, index, 1) {
            return trace::note(format_args!("{} is needed", self.members[index].name()));
        }
        self.lose(index);
        self.lay_to_rest(index, Ending::Power);
        self.members[index].replace_disks(true, true);
        tokio::time::sleep(lasts).await;
        let until = Instant::now() + Self::operators_patience();
        while !self.remove(fault, index, id, &members).await {
            if Instant::now() > until {
                return; // it stays lost
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.set_standing(index, Standing::Outside);
        self.add_member(fault, index, false, Duration::ZERO).await;
    }

    /// Gives a member another peer URL.
    pub(super) async fn move_member(&self, fault: usize, index: usize) {
        let Some(members) = self.members_now(fault).await else { return };
        let Some(id) = self.id_in(&members, index) else { return };
        let is_up = self.state().conditions[index].up;
        let url = self.members[index].moves(&self.nodes[index], is_up);
        match self.insist(fault, MemberCall::Update { id, urls: vec![url] }).await {
            Came::Done(reply) => {
                self.members[index].has_moved();
                self.end_the_cut_off(&reply.members);
            }
            Came::Refused(_, false) => self.members[index].has_stayed(),
            // It is found at both.
            Came::Refused(_, true) | Came::Open => {}
        }
    }

    /// Starts a member that was removed, with what it has; where it can find out.
    pub(super) async fn let_return(&self, fault: usize, index: usize) {
        let Some(members) = self.members_now(fault).await else { return };
        if !self.can_be_asked(&members) {
            return trace::note(format_args!("{} would know nobody", self.members[index].name()));
        }
        let starts = {
            let state = self.state();
            let condition = &state.conditions[index];
            condition.standing == Standing::Removed && condition.ended_as_removed && !condition.up
        };
        if starts {
            self.wake(index);
        }
    }

    fn id_in(&self, members: &[Listed], index: usize) -> Option<u64> {
        members.iter().find(|listed| self.place_of(listed) == Some(index)).map(|listed| listed.id)
    }

    /// Whether those others that have a vote and their disks are a quorum, while so many count beside the others.
    fn can_spare(&self, members: &[Listed], index: usize, besides: usize) -> bool {
        let state = self.state();
        let others = members.iter().filter(|listed| !listed.is_learner).filter_map(|listed| self.place_of(listed));
        let others: Vec<usize> = others.filter(|place| *place != index).collect();
        let is_whole = |place: &&usize| {
            let condition = &state.conditions[**place];
            let votes = self.members[**place].life().is_some_and(|life| life.leadership.has_vote());
            !condition.lost && condition.standing == Standing::Member && votes
        };
        others.iter().filter(is_whole).count() > (others.len() + besides) / 2
    }

    /// Who the members are; `None` where nobody says so for long.
    async fn members_now(&self, fault: usize) -> Option<Vec<Listed>> {
        match self.insist(fault, MemberCall::List { linearizable: true }).await {
            Came::Done(reply) => Some(reply.members),
            Came::Refused(..) | Came::Open => None,
        }
    }

    /// Makes a call until it is known what came of it.
    async fn insist(&self, fault: usize, call: MemberCall) -> Came {
        let until = Instant::now() + Self::operators_patience();
        let mut may_have_happened = false;
        while Instant::now() < until {
            let outcome = self.recorder.call(CALLER + fault, &self.client(fault), Call::Member(call.clone())).await;
            match outcome {
                Outcome::Done(Reply::Members(reply)) => return Came::Done(reply),
                Outcome::Refused(text) | Outcome::Unknown(text) if REFUSALS.iter().any(|it| text.ends_with(it)) => {
                    return Came::Refused(text, may_have_happened);
                }
                Outcome::Unknown(_) => may_have_happened = true,
                Outcome::Done(_) | Outcome::Refused(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        Came::Open
    }
}
