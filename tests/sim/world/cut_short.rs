//! A snapshot that is cut short: the next one goes on with what is there of it.

use std::time::Duration;

use mainstay_server::engine::EngineHome;
use tokio::time::Instant;

use super::{Ending, World};

/// How often it is looked whether a member is so far behind that it needs a snapshot.
const PURGED: Duration = Duration::from_millis(200);
/// How long it may take from the start of a member to the last file.
const ARRIVES: Duration = Duration::from_secs(3);
/// For so long, at least, whoever was ended is down: the others elect in that time.
const DOWN: Duration = Duration::from_millis(1500);
/// Less than one file of a snapshot takes, where snapshots are slow.
const LOOK: Duration = Duration::from_millis(1);

impl World {
    /// Lets a member fall behind. When all but so many files of a snapshot have arrived, it ends, and one of them rots; or
    /// whoever leads ends.
    pub(super) async fn cut_a_snapshot_short(&self, member: usize, sender: bool, missing: usize, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.hold_down(member, Ending::Process);
        while Instant::now() + ARRIVES + DOWN < until && !self.needs_a_snapshot(member) {
            tokio::time::sleep(PURGED).await;
        }
        self.release(member);
        let mut whole = None;
        loop {
            let arrived = self.members[member].disks().store.staged().len();
            if arrived > 0 {
                whole = whole.or_else(|| self.files_of_a_snapshot(member));
            }
            if arrived > 0 && whole.is_some_and(|whole| arrived + missing >= whole) {
                break;
            }
            if Instant::now() + DOWN >= until {
                return; // it needed none, or another fault was in the way
            }
            tokio::time::sleep(LOOK).await;
        }
        let Some(ended) = (if sender { self.leader_beside(member) } else { Some(member) }) else { return };
        self.hold_down(ended, Ending::Process);
        if !sender {
            self.rot_what_is_staged(member);
        }
        tokio::time::sleep_until(until).await;
        self.release(ended);
    }

    /// Whether the leader's log begins behind the end of a member's.
    fn needs_a_snapshot(&self, member: usize) -> bool {
        let log = |index| self.stored_log(index).ok();
        let own = log(member).and_then(|log| log.last_key_value().map(|(last, _)| *last));
        let leaders = self.leader_beside(member).and_then(log);
        let first = leaders.and_then(|log| log.first_key_value().map(|(first, _)| *first));
        matches!((own, first), (Some(last), Some(first)) if first > last + 1)
    }

    /// How many files a snapshot has that is made now.
    fn files_of_a_snapshot(&self, member: usize) -> Option<usize> {
        let engine = self.members[self.leader_beside(member)?].disks().store.open().ok()?;
        Some(engine.checkpoint().ok()?.files().len())
    }

    /// Who leads of the others that run; the last one, where an earlier one does not know that it does not.
    fn leader_beside(&self, member: usize) -> Option<usize> {
        let leads = |index: usize| {
            let view = self.members[index].life()?.leadership.view();
            view.leads.then_some((view.term, index))
        };
        let up: Vec<bool> = self.state().conditions.iter().map(|condition| condition.up).collect();
        let others = (0..up.len()).filter(|index| *index != member && up[*index]);
        others.filter_map(leads).max().map(|(_, index)| index)
    }
}
