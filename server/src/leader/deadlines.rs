//! When leases end, as data: the caller brings the time. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_proto::etcdserverpb::LeaseCheckpoint;

use crate::env::clock::Instant;
use crate::env::probe;
use crate::lease::{LeaseTerm, Remaining};

/// How long a revocation that failed rests before it is tried again; as in etcd.
const REVOKE_RETRY: Duration = Duration::from_secs(3);

/// The longest time that a deadline lies ahead: enough for any lease, and small enough to be added.
const FAR: Duration = Duration::from_secs(10_000_000_000);

/// The deadlines of all leases, during one term of leadership.
///
/// Each change costs O(log n), and a round only what is due in it.
pub(super) struct Deadlines {
    leases: BTreeMap<i64, Tracked>,
    /// When to revoke what; a lease whose revocation is under way is not in it.
    due: BTreeSet<(Instant, i64)>,
    /// When to record what is left of which lease.
    checkpoints: BTreeSet<(Instant, i64)>,
    checkpoint_interval: Duration,
}

struct Tracked {
    granted_ttl: i64,
    deadline: Instant,
    /// Its place in `due`; `None` while a revocation is under way.
    due: Option<Instant>,
    /// Its place in `checkpoints`.
    checkpoint_at: Option<Instant>,
    /// Whether a checkpoint may be, or come to be, in the replicated state. A renewal must clear it
    /// before it is answered, or the next leader would end the lease too early.
    checkpointed: bool,
}

/// What a renewal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// There is no such lease, or it ran out.
    Ended,
    /// It has its whole time again.
    Renewed {
        /// Seconds that were granted.
        ttl: i64,
    },
    /// The same, but its checkpoint must be cleared before the client may count on it.
    Checkpointed {
        /// Seconds that were granted.
        ttl: i64,
    },
}

impl Deadlines {
    /// Begins a term: every lease has what was left of it, and `extension` more, for the time in which
    /// nobody could renew it.
    pub(super) fn new(now: Instant, terms: Vec<LeaseTerm>, extension: Duration, checkpoint_interval: Duration) -> Self {
        let mut deadlines =
            Self { leases: BTreeMap::new(), due: BTreeSet::new(), checkpoints: BTreeSet::new(), checkpoint_interval };
        for LeaseTerm { id, ttl, remaining } in terms {
            let left = if remaining > 0 { remaining } else { ttl };
            deadlines.track(now, id, ttl, seconds(left).saturating_add(extension), remaining > 0);
        }
        deadlines
    }

    /// A lease was granted, or granted anew after it was revoked.
    pub(super) fn granted(&mut self, now: Instant, id: i64, ttl: i64) {
        self.forget(id);
        self.track(now, id, ttl, seconds(ttl), false);
    }

    /// A lease is gone.
    pub(super) fn forget(&mut self, id: i64) {
        if let Some(tracked) = self.leases.remove(&id) {
            self.unschedule(id, &tracked);
        }
    }

    /// A checkpoint of a lease was recorded.
    pub(super) fn checkpointed(&mut self, id: i64) {
        if let Some(tracked) = self.leases.get_mut(&id) {
            tracked.checkpointed = true;
        }
    }

    /// The checkpoint of a lease was cleared, and none was proposed since.
    pub(super) fn cleared(&mut self, id: i64) {
        if let Some(tracked) = self.leases.get_mut(&id) {
            tracked.checkpointed = false;
        }
    }

    /// Gives a lease its whole time again, unless it has run out.
    pub(super) fn renew(&mut self, now: Instant, id: i64) -> Renewal {
        // Wrong where it is broken: what has run out is renewed as long as it was not revoked.
        let lives = |tracked: &&Tracked| tracked.deadline > now || probe::broken("renewal-after-the-end");
        let Some(tracked) = self.leases.get(&id).filter(lives) else {
            return Renewal::Ended;
        };
        let (ttl, checkpointed) = (tracked.granted_ttl, tracked.checkpointed);
        let mut left = seconds(ttl);
        if probe::broken("renewal-adds-up") {
            // Wrong: a renewal adds to what is left.
            left += tracked.deadline.saturating_duration_since(now);
        }
        self.forget(id);
        self.track(now, id, ttl, left, checkpointed);
        if checkpointed { Renewal::Checkpointed { ttl } } else { Renewal::Renewed { ttl } }
    }

    /// What is left of a lease; nothing of one that ran out and is still there.
    pub(super) fn remaining(&self, now: Instant, id: i64) -> Option<Remaining> {
        let tracked = self.leases.get(&id)?;
        let left = tracked.deadline.saturating_duration_since(now).as_secs();
        Some(Remaining { ttl: left as i64, granted_ttl: tracked.granted_ttl })
    }

    /// All leases, the one that ends next first.
    pub(super) fn order(&self) -> Vec<i64> {
        let mut order: Vec<_> = self.leases.iter().map(|(id, tracked)| (tracked.deadline, *id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes up to `max` leases that ran out, to be revoked. For each, [`Deadlines::forget`],
    /// [`Deadlines::revoked`] or [`Deadlines::not_revoked`] must follow.
    pub(super) fn take_expired(&mut self, now: Instant, max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < max
            && let Some((at, id)) = self.due.first().copied()
            && at <= now
        {
            self.due.remove(&(at, id));
            if let Some(tracked) = self.leases.get_mut(&id) {
                tracked.due = None;
                expired.push(id);
            }
        }
        expired
    }

    /// A revocation succeeded, or found nothing to revoke.
    pub(super) fn revoked(&mut self, id: i64) {
        // A lease that is due is another one, granted under the same id since.
        if self.leases.get(&id).is_some_and(|tracked| tracked.due.is_none()) {
            self.forget(id);
        }
    }

    /// A revocation failed, and is due again after a rest.
    pub(super) fn not_revoked(&mut self, now: Instant, id: i64) {
        if let Some(tracked) = self.leases.get_mut(&id)
            && tracked.due.is_none()
            // Wrong where it is broken: what could not be revoked is not looked at again.
            && !probe::broken("failed-revocation-forgotten")
        {
            let at = now + REVOKE_RETRY;
            tracked.due = Some(at);
            self.due.insert((at, id));
        }
    }

    /// Takes up to `max` checkpoints that are due, to be proposed.
    pub(super) fn take_checkpoints(&mut self, now: Instant, max: usize) -> Vec<LeaseCheckpoint> {
        let mut checkpoints = Vec::new();
        while checkpoints.len() < max
            && let Some((at, id)) = self.checkpoints.first().copied()
            && at <= now
        {
            self.checkpoints.remove(&(at, id));
            let Some(tracked) = self.leases.get_mut(&id) else { continue };
            let left = tracked.deadline.saturating_duration_since(now);
            tracked.checkpoint_at = next_checkpoint(now, left, self.checkpoint_interval);
            if let Some(at) = tracked.checkpoint_at {
                self.checkpoints.insert((at, id));
            }
            // Rounded up: a new leader may end a lease late, but not early.
            let remaining_ttl = left.as_secs() as i64 + i64::from(left.subsec_nanos() > 0);
            if (1..tracked.granted_ttl).contains(&remaining_ttl) {
                tracked.checkpointed = true;
                checkpoints.push(LeaseCheckpoint { id, remaining_ttl });
            }
        }
        checkpoints
    }

    fn track(&mut self, now: Instant, id: i64, granted_ttl: i64, left: Duration, checkpointed: bool) {
        // Wrong where it is broken: a lease has half of the time that its client was granted.
        let left = if probe::broken("lease-expires-early") { left / 2 } else { left };
        let left = left.min(FAR);
        let deadline = now + left;
        let checkpoint_at = next_checkpoint(now, left, self.checkpoint_interval);
        // Wrong where it is broken: a lease is revoked only when its time has gone by twice.
        let due = if probe::broken("lease-lives-twice-as-long") { deadline + left } else { deadline };
        self.due.insert((due, id));
        self.checkpoints.extend(checkpoint_at.map(|at| (at, id)));
        let tracked = Tracked { granted_ttl, deadline, due: Some(due), checkpoint_at, checkpointed };
        self.leases.insert(id, tracked);
    }

    fn unschedule(&mut self, id: i64, tracked: &Tracked) {
        if let Some(at) = tracked.due {
            self.due.remove(&(at, id));
        }
        if let Some(at) = tracked.checkpoint_at {
            self.checkpoints.remove(&(at, id));
        }
    }
}

/// A lease that ends before its next checkpoint needs none.
fn next_checkpoint(now: Instant, left: Duration, interval: Duration) -> Option<Instant> {
    (left > interval).then(|| now + interval)
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn empty(now: Instant) -> Deadlines {
        Deadlines::new(now, Vec::new(), secs(0), INTERVAL)
    }

    fn left(deadlines: &Deadlines, now: Instant, id: i64) -> Option<i64> {
        deadlines.remaining(now, id).map(|remaining| remaining.ttl)
    }

    #[test]
    fn a_term_begins_with_what_was_left_and_more() {
        let now = Instant::now();
        let term = |id, ttl, remaining| LeaseTerm { id, ttl, remaining };
        let deadlines =
            Deadlines::new(now, vec![term(1, 60, 0), term(2, 3600, 100), term(3, i64::MAX, 0)], secs(2), INTERVAL);
        assert_eq!(deadlines.remaining(now, 1), Some(Remaining { ttl: 62, granted_ttl: 60 }));
        assert_eq!(deadlines.remaining(now, 2), Some(Remaining { ttl: 102, granted_ttl: 3600 }));
        assert_eq!(left(&deadlines, now, 3), Some(FAR.as_secs() as i64));
        assert_eq!(left(&deadlines, now, 4), None);
        assert_eq!(deadlines.order(), [1, 2, 3]);
    }

    #[test]
    fn seconds_left_are_rounded_down_and_never_negative() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        deadlines.granted(now, 1, 10);
        deadlines.granted(now, 2, -5);
        for (millis, expected) in [(0, 10), (1, 9), (1_000, 9), (1_001, 8), (9_999, 0), (10_000, 0), (60_000, 0)] {
            assert_eq!(left(&deadlines, now + Duration::from_millis(millis), 1), Some(expected), "after {millis} ms");
        }
        assert_eq!(left(&deadlines, now, 2), Some(0));
    }

    #[test]
    fn renewing_begins_anew_until_the_lease_ran_out() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        deadlines.granted(now, 1, 10);
        assert_eq!(deadlines.renew(now + secs(9), 1), Renewal::Renewed { ttl: 10 });
        assert_eq!(deadlines.take_expired(now + secs(18), 9), [] as [i64; 0]);
        assert_eq!(deadlines.renew(now + secs(19), 1), Renewal::Ended);
        assert_eq!(deadlines.renew(now, 2), Renewal::Ended);
        assert_eq!(deadlines.take_expired(now + secs(19), 9), [1]);
    }

    #[test]
    fn what_ran_out_is_taken_once_and_in_order() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        for (id, ttl) in [(1, 3), (2, 1), (3, 2), (4, 9)] {
            deadlines.granted(now, id, ttl);
        }
        let later = now + secs(5);
        assert_eq!(deadlines.take_expired(later, 2), [2, 3]);
        assert_eq!(deadlines.take_expired(later, 2), [1]);
        assert_eq!(deadlines.take_expired(later, 2), [] as [i64; 0]);
        deadlines.revoked(2);
        deadlines.not_revoked(later, 3);
        assert_eq!(left(&deadlines, later, 2), None);
        assert_eq!(deadlines.take_expired(later + secs(2), 9), [] as [i64; 0]);
        assert_eq!(deadlines.take_expired(later + secs(3), 9), [3]);
        assert_eq!(deadlines.order(), [3, 1, 4]);
    }

    #[test]
    fn a_late_revocation_leaves_a_new_lease_of_the_same_id_alone() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        deadlines.granted(now, 1, 1);
        assert_eq!(deadlines.take_expired(now + secs(1), 9), [1]);
        deadlines.granted(now + secs(1), 1, 7);
        deadlines.revoked(1);
        deadlines.not_revoked(now + secs(1), 1);
        assert_eq!(left(&deadlines, now + secs(1), 1), Some(7));
        assert_eq!(deadlines.take_expired(now + secs(8), 9), [1]);
    }

    #[test]
    fn long_leases_are_checkpointed_until_their_end_is_near() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        deadlines.granted(now, 1, 300);
        deadlines.granted(now, 2, 1_000);
        let checkpoint = |remaining_ttl| LeaseCheckpoint { id: 2, remaining_ttl };
        assert_eq!(deadlines.take_checkpoints(now + secs(299), 9), []);
        let half = Duration::from_millis(500);
        assert_eq!(deadlines.take_checkpoints(now + secs(300) + half, 9), [checkpoint(700)]);
        assert_eq!(deadlines.take_checkpoints(now + secs(600), 9), []);
        assert_eq!(deadlines.take_checkpoints(now + secs(601), 9), [checkpoint(399)]);
        assert_eq!(deadlines.take_checkpoints(now + secs(901), 9), [checkpoint(99)]);
        assert_eq!(deadlines.take_checkpoints(now + secs(9_000), 9), []);
    }

    #[test]
    fn a_renewal_knows_of_the_checkpoint_until_it_is_cleared() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        deadlines.granted(now, 1, 1_000);
        assert_eq!(deadlines.take_checkpoints(now + secs(300), 9).len(), 1);
        assert_eq!(deadlines.renew(now + secs(301), 1), Renewal::Checkpointed { ttl: 1_000 });
        assert_eq!(deadlines.renew(now + secs(302), 1), Renewal::Checkpointed { ttl: 1_000 });
        deadlines.cleared(1);
        assert_eq!(deadlines.renew(now + secs(303), 1), Renewal::Renewed { ttl: 1_000 });
        assert_eq!(deadlines.take_checkpoints(now + secs(602), 9), []);
        deadlines.checkpointed(1);
        assert_eq!(deadlines.renew(now + secs(603), 1), Renewal::Checkpointed { ttl: 1_000 });
    }

    #[test]
    fn nothing_is_left_behind() {
        let now = Instant::now();
        let mut deadlines = empty(now);
        for id in 0..1_000 {
            deadlines.granted(now, id, 10 + id);
            deadlines.renew(now + secs(5), id);
            deadlines.granted(now + secs(6), id, 20);
        }
        deadlines.take_expired(now + secs(30), 500);
        for id in 0..1_000 {
            deadlines.forget(id);
        }
        assert!(deadlines.leases.is_empty() && deadlines.due.is_empty() && deadlines.checkpoints.is_empty());
    }
}
