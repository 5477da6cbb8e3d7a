//! Who is a member of the cluster, as far as the world knows.

use std::time::Duration;

use madsim::time::TimeHandle;
use mainstay_server::raft::REMOVED;
use mainstay_tests::history::{Call, Listed, MemberCall, Outcome, Reply};

use super::faults::SUPERVISOR;
use super::{Condition, Ending, World};

/// How a place stands to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its process is one of a member.
    #[default]
    Member,
    /// There is none, or one with empty disks that nobody has added.
    Outside,
    /// Somebody asked for its removal, and it is not known yet what came of it.
    Leaving,
    /// It was removed, and has its disks.
    Removed,
}

impl Condition {
    /// A place that is to be used later.
    pub(super) fn spare() -> Self {
        Self { held_down: 1, rests: true, standing: Standing::Outside, ..Self::default() }
    }

    /// Whether a process ends as who was removed has to. One that had written nothing yet may hear of its past from
    /// a member that lags, which does not know that it was removed.
    pub(super) fn may_end_as_removed(&self, reason: &str) -> bool {
        let is_told = reason.contains(REMOVED) || reason.contains("has already been bootstrapped");
        is_told && matches!(self.standing, Standing::Leaving | Standing::Removed)
    }
}

/// That a member is about to be changed; over when this is dropped.
struct Change {
    world: World,
    index: usize,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.world.state().conditions[self.index].is_changed = false;
    }
}

impl World {
    /// Changes a member, where no other fault is about to.
    pub(super) async fn alone(&self, index: usize, change: impl Future<Output = ()>) {
        let was = std::mem::replace(&mut self.state().conditions[index].is_changed, true);
        if !was {
            let _change = Change { world: self.clone(), index };
            change.await;
        }
    }

    pub(crate) fn standing(&self, index: usize) -> Standing {
        self.state().conditions[index].standing
    }

    pub(super) fn set_standing(&self, index: usize, standing: Standing) {
        self.state().conditions[index].standing = standing;
    }

    /// The place that a listed member has.
    pub(super) fn place_of(&self, listed: &Listed) -> Option<usize> {
        let has = |index: &usize| listed.peer_urls.iter().any(|url| self.members[*index].has_url(url));
        (0..self.members.len()).find(has)
    }

    /// Asks who the members are when all is quiet, and holds every place against that: who is a member did not end as
    /// one that was removed, and who was removed has ended. Who was added in the end is started, and the places of the
    /// learners stay known.
    pub(crate) async fn take_stock(&self, id: usize) -> Result<(), String> {
        if self.plan.spares == 0 {
            return Ok(());
        }
        let call = Call::Member(MemberCall::List { linearizable: true });
        let reply = match self.recorder.call(id, &self.client(0), call).await {
            Outcome::Done(Reply::Members(reply)) => reply,
            other => return Err(format!("nobody says who the members are: {other:?}")),
        };
        let places: Vec<Option<usize>> = reply.members.iter().map(|listed| self.place_of(listed)).collect();
        if places.contains(&None) {
            return Err(format!("somebody is a member whom nobody added: {:?}", reply.members));
        }
        let removed: Vec<u64> = self.recorder.with(|history| {
            let of = history.operations.iter().filter_map(|operation| match (&operation.call, &operation.outcome) {
                (Call::Member(MemberCall::Remove { id }), Outcome::Done(_)) => Some(*id),
                _ => None,
            });
            of.collect()
        });
        // They were added after whoever asked for it had given up.
        for index in self.hold_against(&reply.members, &places, &removed)? {
            self.join(SUPERVISOR, index).await;
        }
        Ok(())
    }

    /// Holds every place against a list of the members; which of these nobody has started.
    fn hold_against(
        &self,
        members: &[Listed],
        places: &[Option<usize>],
        removed: &[u64],
    ) -> Result<Vec<usize>, String> {
        let can_be_asked = self.can_be_asked(members);
        let mut late = Vec::new();
        let mut state = self.state();
        for (index, condition) in state.conditions.iter_mut().enumerate() {
            let name = self.members[index].name();
            let listed = members.iter().zip(places).find(|(_, place)| **place == Some(index));
            match listed {
                Some((listed, _)) => {
                    if condition.ended_as_removed {
                        return Err(format!("{name} ended as one that was removed, and is a member: {listed:?}"));
                    }
                    let life = self.members[index].life().filter(|_| condition.up && !condition.lost);
                    let forgotten =
                        life.and_then(|life| removed.iter().find(|id| !(life.knows_removed)(**id)).copied());
                    if let Some(forgotten) = forgotten {
                        return Err(format!("{name} does not know that {forgotten:x} was removed"));
                    }
                    condition.standing = Standing::Member;
                    condition.learns = listed.is_learner;
                    if condition.rests && !condition.lost {
                        late.push(index);
                    }
                }
                None => {
                    if condition.standing != Standing::Outside {
                        condition.standing = Standing::Removed;
                    }
                    if condition.up && can_be_asked {
                        return Err(format!("{name} was removed, and did not end"));
                    }
                }
            }
        }
        Ok(late)
    }

    /// Whether a member that was away while it was removed can find out: it asks at the addresses that it knows.
    pub(super) fn can_be_asked(&self, members: &[Listed]) -> bool {
        let founders = &self.members[..self.plan.members];
        founders.iter().any(|founder| members.iter().any(|listed| listed.peer_urls.contains(&founder.first_peer_url())))
    }

    /// Ends the processes of members that were removed and cannot find out, as operators do: clients would wait there.
    pub(super) fn end_the_cut_off(&self, members: &[Listed]) {
        if self.can_be_asked(members) {
            return;
        }
        for index in 0..self.members.len() {
            if self.standing(index) == Standing::Removed {
                self.lay_to_rest(index, Ending::Process);
            }
        }
    }

    /// Whether a member has no vote, by the stock that was taken.
    pub(crate) fn learns(&self, index: usize) -> bool {
        self.state().conditions[index].learns
    }

    /// Notes that a member is held to have lost its disks.
    pub(super) fn lose(&self, index: usize) {
        let condition = &mut self.state().conditions[index];
        condition.excuses.lasting(TimeHandle::current().elapsed());
        condition.lost = true;
    }

    /// A place has disks that were never used, and what was is forgotten.
    pub(super) fn begin_anew(&self, index: usize) {
        self.members[index].replace_disks(true, true);
        self.members[index].forget();
        let condition = &mut self.state().conditions[index];
        condition.excuses.renewed(TimeHandle::current().elapsed());
        (condition.lost, condition.may_be_lost, condition.ended_as_removed) = (false, false, false);
        condition.lives += 1;
    }

    /// No process is wanted in a place: one that runs is ended, and none is started.
    pub(super) fn lay_to_rest(&self, index: usize, ending: Ending) {
        if !std::mem::replace(&mut self.state().conditions[index].rests, true) {
            self.hold_down(index, ending);
        }
    }

    /// A process is wanted again.
    pub(super) fn wake(&self, index: usize) {
        if std::mem::take(&mut self.state().conditions[index].rests) {
            self.release(index);
        }
    }

    /// How long a fault may wait for something to become known.
    pub(super) fn operators_patience() -> Duration {
        Duration::from_secs(25)
    }
}
