//! Whose votes count: nobody's who was never there, and no change that may cost the quorum.

use std::collections::BTreeSet;
use std::time::Duration;

use madsim::time::TimeHandle;
use mainstay_tests::history::Listed;

use super::World;

/// How often members are asked whose votes they count on.
const INTERVAL: Duration = Duration::from_millis(100);
/// Whoever has been down for so long is known to be down: twice what it takes to be missed.
const MISSED: Duration = Duration::from_secs(4);

impl World {
    /// Looks at whose votes the members count on: only at those of members whose process was there once.
    pub(super) async fn watch_votes(self) {
        let mut seen = BTreeSet::new();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let lives: Vec<_> = self.members.iter().map(|member| (member, member.life())).collect();
            seen.extend(lives.iter().filter_map(|(_, life)| Some(life.as_ref()?.leadership.view().member_id)));
            for (member, life) in lives {
                let voters = life.map(|life| life.leadership.voters()).unwrap_or_default();
                if let Some(ghost) = voters.iter().find(|id| !seen.contains(id)) {
                    let surprise =
                        format!("{} counts on the vote of {ghost:x}, which was never started", member.name());
                    return self.surprise(surprise);
                }
            }
        }
    }

    /// The voters among some members that have been down for long.
    pub(super) fn missed(&self, members: &[Listed]) -> BTreeSet<u64> {
        let now = TimeHandle::current().elapsed();
        let state = self.state();
        let is_missed = |listed: &&Listed| {
            let since = self.place_of(listed).and_then(|index| state.conditions[index].down_since);
            // For whoever has a slow clock it may have been a moment.
            !listed.is_learner && since.is_some_and(|since| since.max(state.slow_until) + MISSED < now)
        };
        members.iter().filter(is_missed).map(|listed| listed.id).collect()
    }

    /// Holds a change that was made against those who were down before and behind it: a quorum had to be up, counted
    /// as strictly as etcd does.
    pub(super) fn was_safe(&self, before: &[Listed], missed: &BTreeSet<u64>, after: &[Listed]) {
        let voters = |members: &[Listed]| -> BTreeSet<u64> {
            members.iter().filter(|listed| !listed.is_learner).map(|listed| listed.id).collect()
        };
        let ids = |members: &[Listed]| -> BTreeSet<u64> { members.iter().map(|listed| listed.id).collect() };
        let still: BTreeSet<u64> = self.missed(before).intersection(missed).copied().collect();
        let (old, new) = (voters(before), voters(after));
        let active = old.difference(&still).count();
        let gone: BTreeSet<u64> = ids(before).difference(&ids(after)).copied().collect();
        let come: BTreeSet<u64> = ids(after).difference(&ids(before)).copied().collect();
        // Somebody got or lost a vote meanwhile: nobody knows with whom the change was held.
        if old.symmetric_difference(&new).any(|id| !gone.contains(id) && !come.contains(id)) {
            return;
        }
        let needed = match (gone.len(), come.len()) {
            // Whoever is down may go, and so may a learner.
            (1, 0) if gone.iter().all(|id| old.contains(id) && !still.contains(id)) => 1 + (old.len() - 1) / 2 + 1,
            (0, 1) if old.len() > 1 => (old.len() + 1) / 2 + 1,
            _ => return,
        };
        if active < needed {
            let surprise = format!("of {old:x?} {still:x?} were down, and the members became {new:x?}");
            self.surprise(surprise);
        }
    }
}
