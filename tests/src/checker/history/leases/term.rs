//! When a lease may have ended, and when it must have.
//!
//! Its deadline is the leader's: the moment of the last grant, renewal or beginning of a leadership,
//! on that member's clock, and its time to live later. Clients know these moments as spans between a
//! question and an answer, so the deadline lies between two bounds.

use std::time::Duration;

use super::life::{Lease, keeps, seconds_told};
use super::service::Service;
use crate::checker::history::Bounds;
use crate::history::{Effect, History, Leadership, Operation, Outcome, Reply};
use crate::model::wrote;

/// How often a leader looks which leases are over.
const ROUND: Duration = Duration::from_millis(500);
/// What it takes a leader to propose their end then, and everything else that is not waited for.
const MOMENT: Duration = Duration::from_millis(300);
/// How long a leader that could not end a lease waits until it tries again.
const RETRY: Duration = Duration::from_secs(3);
/// How long after the first write of its term a leader may not have begun to look after leases.
const TAKES_OVER: Duration = Duration::from_millis(1500);

/// A write that was answered.
pub(super) struct Write<'a> {
    pub(super) revision: i64,
    pub(super) operation: &'a Operation,
}

/// What concerns all leases.
pub(super) struct World<'a> {
    history: &'a History,
    bounds: &'a Bounds,
    /// Every write that was answered.
    pub(super) writes: Vec<Write<'a>>,
    service: Service,
    /// Every leadership, and when at the latest it looked after leases.
    reigns: Vec<(&'a Leadership, Option<Duration>)>,
}

impl<'a> World<'a> {
    pub(super) fn of(history: &'a History, bounds: &'a Bounds) -> Self {
        let writes = history.operations.iter().filter_map(|operation| match &operation.outcome {
            Outcome::Done(Reply::Txn { revision, steps, .. }) if wrote(steps) => {
                Some(Write { revision: *revision, operation })
            }
            _ => None,
        });
        let writes: Vec<Write<'_>> = writes.collect();
        let service = Service::of(&writes, &history.disturbances);
        let mut world = Self { history, bounds, writes, service, reigns: Vec::new() };
        let reigns = history.leaderships.iter().map(|leadership| {
            // Whoever commits has a quorum, which is what a new leader waits for.
            let commits = world.writes.iter().filter(|write| write.operation.began >= leadership.at);
            let first = commits.map(|write| write.operation.ended).min();
            (leadership, first.map(|first| world.resumed(first + TAKES_OVER)))
        });
        world.reigns = reigns.collect();
        world
    }

    /// When what was due by a time is done, where nothing is done meanwhile.
    fn resumed(&self, due: Duration) -> Duration {
        let mut due = due;
        loop {
            let moved = self.history.disturbances.iter().filter(|disturbance| disturbance.from <= due);
            let moved = moved.filter_map(|disturbance| match disturbance.effect {
                Some(Effect::Pause { .. }) => Some(disturbance.until + ROUND + MOMENT),
                Some(Effect::Transfer) => Some(disturbance.until + RETRY + ROUND + MOMENT),
                _ => None,
            });
            match moved.max() {
                // It may have been moved into the next.
                Some(moved) if moved > due => due = moved,
                _ => return due,
            }
        }
    }

    /// Whether a member may have led at some moment of a span.
    fn may_have_led(&self, member: usize, from: Duration, to: Duration) -> bool {
        let mut unknown = true;
        for (place, (leadership, _)) in self.reigns.iter().enumerate() {
            unknown &= leadership.at > from;
            let until = self.reigns.get(place + 1).map(|(next, _)| next.at);
            if leadership.member == member && leadership.at <= to && until.is_none_or(|until| until >= from) {
                return true;
            }
        }
        unknown
    }

    /// By how much the clock of a member that may have led in a span showed more than went by, or
    /// less, at the most.
    fn clock_error(&self, from: Duration, to: Duration, ahead: bool) -> Duration {
        let members = self.history.disturbances.iter().filter_map(|disturbance| match disturbance.effect {
            Some(Effect::ClockRate { member, .. } | Effect::ClockJump { member, .. }) => Some(member),
            _ => None,
        });
        let led = members.filter(|member| self.may_have_led(*member, from, to));
        led.map(|member| self.error_of(member, from, to, ahead)).max().unwrap_or_default()
    }

    fn error_of(&self, member: usize, from: Duration, to: Duration, ahead: bool) -> Duration {
        let errors = self.history.disturbances.iter().map(|disturbance| match disturbance.effect {
            Some(Effect::ClockRate { member: whose, per_cent }) if whose == member => {
                let overlap = disturbance.until.min(to).saturating_sub(disturbance.from.max(from));
                let off = if ahead { per_cent.saturating_sub(100) } else { 100_u32.saturating_sub(per_cent) };
                overlap.mul_f64(f64::from(off) / 100.0)
            }
            Some(Effect::ClockJump { member: whose, by }) if whose == member && ahead => {
                let within = disturbance.from <= to && disturbance.until >= from;
                if within { by } else { Duration::ZERO }
            }
            _ => Duration::ZERO,
        });
        errors.sum()
    }
}

/// The time of one lease.
pub(super) struct Term<'a> {
    world: &'a World<'a>,
    lease: &'a Lease<'a>,
}

impl<'a> Term<'a> {
    pub(super) fn new(world: &'a World<'a>, lease: &'a Lease<'a>) -> Self {
        Self { world, lease }
    }

    /// When the lease may end at the earliest by what was asked for up to a time, and by which answer:
    /// whoever renewed it found it alive after it began to ask. Clocks count up to another time.
    pub(super) fn earliest_end(&self, asked_by: Duration, until: Duration) -> Option<(Duration, &'a Operation)> {
        let promises = self.promises().filter(|promise| promise.began <= asked_by);
        self.latest_of(promises, until)
    }

    /// When it may end at the earliest by what was answered before somebody asked.
    pub(super) fn earliest_end_promised(&self, question: &Operation) -> Option<(Duration, &'a Operation)> {
        let promises = self.promises().filter(|promise| promise.ended < question.began);
        self.latest_of(promises, question.ended)
    }

    fn promises(&self) -> impl Iterator<Item = &'a Operation> {
        let renewals = self.lease.renewals.iter().copied().filter(|answer| keeps(answer));
        self.lease.grants.iter().copied().filter(|grant| seconds_told(grant).is_some()).chain(renewals)
    }

    fn latest_of(
        &self,
        promises: impl Iterator<Item = &'a Operation>,
        until: Duration,
    ) -> Option<(Duration, &'a Operation)> {
        let ends = promises.filter_map(|promise| {
            let whole = time_to_live(seconds_told(promise)?);
            let missing = self.world.clock_error(promise.began, until, true);
            Some((promise.began + whole.saturating_sub(missing), promise))
        });
        ends.max_by_key(|(end, _)| *end)
    }

    /// The latest deadline that the lease may have by what happened up to a time, but for one renewal;
    /// `None` where there is no telling.
    pub(super) fn latest_end(&self, by: Duration, except: Option<&Operation>) -> Option<Duration> {
        let grant = self.lease.granted()?;
        let whole = time_to_live(seconds_told(grant)?);
        let late = self.world.clock_error(grant.began, by, false);
        let mut end = grant.ended + whole + late + MOMENT;
        let renewals = self.lease.renewals.iter().filter(|renewal| {
            renewal.began <= by
                && seconds_told(renewal) != Some(0)
                && except.is_none_or(|it| !std::ptr::eq(it, **renewal))
        });
        // By when they were done at the latest. Who has no answer may be behind in a member that stands still.
        let done = |renewal: &Operation| match keeps(renewal) {
            true => renewal.ended,
            false => self.world.resumed(renewal.ended + MOMENT),
        };
        let mut renewals: Vec<(Duration, &&Operation)> = renewals.map(|renewal| (done(renewal), renewal)).collect();
        renewals.sort_by_key(|(done, _)| *done);
        let mut renewals = renewals.into_iter().peekable();
        let mut reigns = self.world.reigns.iter().filter(|(leadership, _)| leadership.at <= by).peekable();
        loop {
            // In their order, since what comes too late renews nothing; one that was asked for in one reign may be done
            // in the next.
            let renews_first = match (renewals.peek(), reigns.peek()) {
                (None, None) => return Some(end),
                (Some((done, _)), Some((leadership, _))) => *done <= leadership.at,
                (renewal, _) => renewal.is_some(),
            };
            if renews_first {
                let Some((done, renewal)) = renewals.next() else { continue };
                if renewal.began <= end {
                    end = end.max(done.min(end) + whole + late + MOMENT);
                }
            } else if let Some((_, ready)) = reigns.next() {
                let ready = (*ready)?;
                if ready >= grant.began {
                    end = end.max(ready + whole + self.world.bounds.lease_extension + late + MOMENT);
                }
            }
        }
    }

    /// When the leader has proposed its end, by what happened up to a time, at the latest; `None` where
    /// there is no telling.
    ///
    /// It does so once its time is over. Where it cannot, because it has no quorum, it tries again and
    /// again; so within the time between two tries in which it could, it did.
    pub(super) fn removed_by(&self, by: Duration) -> Option<Duration> {
        let tried = self.latest_end(by, None)? + ROUND + MOMENT;
        let grant = self.lease.granted()?;
        let again = RETRY + ROUND + MOMENT + self.world.clock_error(grant.began, by, false);
        self.world.service.after(tried, again)
    }
}

fn time_to_live(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
