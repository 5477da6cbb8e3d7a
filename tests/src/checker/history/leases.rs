//! A lease lives as long as it was promised to, and no longer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Bounds;
use super::text::{seconds, told};
use crate::history::{Call, Disturbance, History, Operation, Outcome, Reply, Step, Txn};
use crate::model::{Causes, Truth};

/// Checks of every lease:
/// - it does not end before its time is over since the last grant or renewal that was answered,
///   unless it was revoked or a clock ran wrong: neither are its keys removed, nor is anybody told
///   that it is gone;
/// - it ends: when its time and the overtime are over, neither it nor a key of it is there;
/// - where it was revoked, its keys are gone, and no key is tied to it later;
/// - nobody who asks later is told that it lives.
///
/// Ids are granted once; one that was granted again is only looked at for its end.
pub fn check(history: &History, truth: &Truth, bounds: &Bounds) -> Result<(), String> {
    let causes = truth.causes(history);
    let leases = leases(history, truth, causes);
    for (id, lease) in &leases {
        let run = Run { id: *id, lease, history, truth, bounds };
        if lease.grants.len() == 1 {
            run.not_early()?;
            run.gone_after_its_end()?;
        }
        run.not_outliving()?;
    }
    // Nobody knows the ids of these.
    let is_unknown = |it: &Operation| it.granted().is_none() && matches!(it.outcome, Outcome::Unknown(_));
    let unknown = |it: &&Operation| matches!(it.call, Call::LeaseGrant { .. }) && is_unknown(it);
    let mut unknown = history.operations.iter().filter(unknown).count();
    for id in &history.end.leases {
        if leases.get(id).is_none_or(|lease| lease.grants.is_empty()) {
            if unknown > 0 {
                unknown -= 1;
                continue;
            }
            return Err(format!("lease {id} is there in the end, and nobody was granted it"));
        }
    }
    Ok(())
}

/// What is known of one lease.
#[derive(Default)]
struct Lease<'a> {
    /// Grants that may have happened.
    grants: Vec<&'a Operation>,
    /// Renewals that may have happened.
    renewals: Vec<&'a Operation>,
    /// Revocations that may have happened.
    revokes: Vec<&'a Operation>,
    /// Questions that were answered.
    questions: Vec<&'a Operation>,
    /// Calls that were refused because there was no such lease.
    missed: Vec<&'a Operation>,
    /// The revision that removed its keys with no call to explain it.
    expired: Option<i64>,
}

fn leases<'a>(history: &'a History, truth: &Truth, causes: &Causes) -> BTreeMap<i64, Lease<'a>> {
    let mut leases: BTreeMap<i64, Lease<'a>> = BTreeMap::new();
    for operation in &history.operations {
        if let Outcome::Refused(why) = &operation.outcome {
            if why.contains("requested lease not found")
                && let Some(id) = only_lease(&operation.call)
            {
                leases.entry(id).or_default().missed.push(operation);
            }
            continue;
        }
        match &operation.call {
            Call::LeaseGrant { .. } => {
                if let Some(id) = operation.granted() {
                    leases.entry(id).or_default().grants.push(operation);
                }
            }
            Call::LeaseKeepAlive { id } => leases.entry(*id).or_default().renewals.push(operation),
            Call::LeaseRevoke { id } => leases.entry(*id).or_default().revokes.push(operation),
            Call::LeaseTimeToLive { id } | Call::LeaseKeys { id } => {
                leases.entry(*id).or_default().questions.push(operation)
            }
            Call::Txn(_) | Call::Compact { .. } => {}
        }
    }
    for (revision, id) in &causes.ends_lease {
        let is_unexplained = causes.possible.get(revision).is_none_or(Vec::is_empty);
        if is_unexplained && truth.knows_state(*revision) {
            leases.entry(*id).or_default().expired.get_or_insert(*revision);
        }
    }
    leases
}

/// The lease of a call that names only one.
fn only_lease(call: &Call) -> Option<i64> {
    match call {
        Call::LeaseRevoke { id } => Some(*id),
        Call::Txn(Txn { compares, then, otherwise, .. }) if compares.is_empty() && otherwise.is_empty() => {
            match then.as_slice() {
                [Step::Put { lease, .. }] => Some(*lease),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The seconds that an answer grants or says are left.
fn ttl(operation: &Operation) -> Option<i64> {
    match operation.outcome {
        Outcome::Done(Reply::Lease { ttl } | Reply::Granted { ttl, .. } | Reply::LeaseKeys { ttl, .. }) => Some(ttl),
        _ => None,
    }
}

struct Run<'a> {
    id: i64,
    lease: &'a Lease<'a>,
    history: &'a History,
    truth: &'a Truth,
    bounds: &'a Bounds,
}

impl Run<'_> {
    /// When the lease may end at the earliest, as was known at a time, and by which answer: whoever
    /// renewed it found it alive after it began to ask.
    fn earliest_end(&self, at: Duration) -> Option<(Duration, &Operation)> {
        let given = self.lease.grants.iter().chain(&self.lease.renewals);
        let ends = given.filter(|operation| operation.began <= at).filter_map(|operation| {
            let ttl = u64::try_from(ttl(operation)?).ok().filter(|ttl| *ttl > 0)?;
            let least = Duration::from_secs(ttl).mul_f64(self.bounds.lease_tolerance);
            Some((operation.began + least, *operation))
        });
        ends.max_by_key(|(end, _)| *end)
    }

    /// Whether a clock ran wrong while the lease lived up to a time.
    fn clock_was_wrong(&self, at: Duration) -> bool {
        let born = self.lease.grants.iter().map(|grant| grant.began).min().unwrap_or_default();
        let overlaps = |it: &Disturbance| it.clock && it.from <= at && it.until >= born;
        self.history.disturbances.iter().any(overlaps)
    }

    fn not_early(&self) -> Result<(), String> {
        let id = self.id;
        if let Some(revision) = self.lease.expired {
            let at = self.truth.commits[&revision].at;
            if let Some((end, promise)) = self.earliest_end(at)
                && at < end
                && !self.clock_was_wrong(at)
            {
                let text = format!("lease {id} ended at revision {revision}, seen at {}", seconds(at));
                return Err(format!("{text}, and was to live until {} by {}", seconds(end), told(promise)));
            }
        }
        let answers = self.lease.renewals.iter().chain(&self.lease.questions);
        let gone = answers.filter(|answer| ttl(answer).is_some_and(|ttl| ttl < 0 || (ttl == 0 && renews(answer))));
        for told_gone in gone.chain(&self.lease.missed) {
            let revoked = self.lease.revokes.iter().any(|revoke| revoke.began <= told_gone.ended);
            // The promise must have been there before.
            let Some(grant) = self.lease.grants.first().filter(|grant| ttl(grant).is_some()) else { continue };
            if revoked || grant.ended >= told_gone.began || self.clock_was_wrong(told_gone.ended) {
                continue;
            }
            let Some((end, promise)) = self.earliest_end(told_gone.began) else { continue };
            // A renewal under way may be carried out later than one that was told that it is too late.
            if told_gone.ended < end && promise.ended < told_gone.began {
                let (end, promise, answer) = (seconds(end), told(promise), told(told_gone));
                return Err(format!("lease {id} was to live until {end} by {promise}\nand was gone for {answer}"));
            }
        }
        Ok(())
    }

    /// When the lease was known to be gone, at which revision, and why.
    fn end(&self) -> Option<(Duration, i64, String)> {
        let revoked = self.lease.revokes.iter().filter_map(|revoke| match revoke.outcome {
            Outcome::Done(Reply::Revoked { revision }) => Some((revoke.ended, revision, told(revoke))),
            _ => None,
        });
        let expired = self.lease.expired.map(|revision| {
            let at = self.truth.commits[&revision].at;
            (at, revision, format!("its end at revision {revision}, seen at {}", seconds(at)))
        });
        revoked.chain(expired).min_by_key(|(at, ..)| *at)
    }

    fn gone_after_its_end(&self) -> Result<(), String> {
        let id = self.id;
        let Some((at, revision, why)) = self.end() else { return Ok(()) };
        if self.truth.knows_state(revision) {
            if let Some(kv) = self.truth.versions.all(revision).find(|kv| kv.lease == id) {
                return Err(format!("at revision {revision} lease {id} still has {kv:?} after {why}"));
            }
            for (later, commit) in self.truth.commits.range(revision + 1..) {
                if let Some(change) = commit.changes.iter().find(|change| change.kv.lease == id) {
                    return Err(format!("at revision {later} a key was tied to lease {id} after {why}: {change:?}"));
                }
            }
        }
        let answers = self.lease.renewals.iter().chain(&self.lease.questions);
        let mut alive = answers.filter(|answer| {
            answer.began > at && ttl(answer).is_some_and(|ttl| ttl > 0 || (ttl == 0 && !renews(answer)))
        });
        match alive.next() {
            Some(answer) => Err(format!("lease {id} lives after {why}\nby {}", told(answer))),
            None => Ok(()),
        }
    }

    fn not_outliving(&self) -> Result<(), String> {
        let (id, end) = (self.id, &self.history.end);
        let is_there = end.leases.contains(&id);
        let key = end.keys.iter().find(|kv| kv.lease == id);
        if !is_there && key.is_none() {
            return Ok(());
        }
        let given = || self.lease.grants.iter().chain(&self.lease.renewals);
        let longest = given().filter_map(|operation| match (&operation.call, ttl(operation)) {
            (Call::LeaseGrant { ttl: asked, .. }, told) => Some(*asked.max(&told.unwrap_or(0))),
            (_, told) => told,
        });
        let ttl = Duration::from_secs(longest.max().and_then(|ttl| u64::try_from(ttl).ok()).unwrap_or(0));
        // A new leader lets every lease begin anew, and does not know better while it is disturbed.
        let latest = given().map(|operation| operation.ended);
        let latest = latest.chain(self.history.leaderships.iter().map(|leadership| leadership.at));
        let latest = latest.chain(self.history.disturbances.iter().map(|disturbance| disturbance.until));
        let due = latest.max().unwrap_or_default() + ttl + self.bounds.lease_overtime;
        if due >= end.at {
            return Ok(());
        }
        let (due, at) = (seconds(due), seconds(end.at));
        Err(format!("lease {id} was to end by {due}; at {at} it is listed: {is_there}, and has {key:?}"))
    }
}

fn renews(operation: &Operation) -> bool {
    matches!(operation.call, Call::LeaseKeepAlive { .. })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, expect, leased, millis, put};
    use super::*;

    const NOT_FOUND: &str = "etcdserver: requested lease not found";

    fn found(sample: Sample) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history), &Bounds::of(Duration::from_secs(15)))
    }

    /// A lease of ten seconds with a key, renewed after five.
    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.grant(1, 7, 10);
        sample.txn(1, leased("a", "1", 7));
        sample.now += millis(5000);
        sample.keep_alive(1, 7, 10);
        sample
    }

    fn clock(sample: &mut Sample) {
        let (from, until) = (millis(100), millis(200));
        sample.history.disturbances.push(Disturbance { from, until, what: "drift".into(), clock: true });
    }

    #[test]
    fn a_lease_that_ends_in_time_passes() {
        let mut sample = sample();
        sample.now += millis(10_000);
        sample.expire(7);
        sample.now += millis(10);
        sample.keep_alive(1, 7, 0);
        sample.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl: -1 }));
        sample.refused(1, Call::Txn(leased("b", "2", 7)), NOT_FOUND);
        assert_eq!(found(sample), Ok(()));
    }

    #[test]
    fn an_early_end_is_found_unless_it_has_a_reason() {
        let mut early = sample();
        early.now += millis(8000);
        let before = early.clone();
        early.expire(7);
        let mut drifted = early.clone();
        let mut revoked = early.clone();
        expect(found(early), "lease 7 ended at revision 3");
        clock(&mut drifted);
        assert_eq!(found(drifted), Ok(()));
        let revoke = revoked.call(2, Call::LeaseRevoke { id: 7 }, Outcome::Unknown("timeout".into()));
        revoke.began = millis(100);
        assert_eq!(found(revoked), Ok(()));
        // A renewal that nobody was told of promises nothing.
        let mut unknown = before.clone();
        unknown.now += millis(2000);
        unknown.call(1, Call::LeaseKeepAlive { id: 7 }, Outcome::Unknown("timeout".into()));
        unknown.expire(7);
        assert_eq!(found(unknown), Ok(()));
        // One that was answered while the end was seen found the lease alive.
        let mut under_way = before;
        under_way.now += millis(2000);
        under_way.keep_alive(1, 7, 10);
        under_way.expire(7);
        expect(found(under_way), "lease 7 ended at revision 3");
    }

    #[test]
    fn being_told_early_that_it_is_gone_is_found() {
        let wrong: [fn(&mut Sample); 4] = [
            |sample| drop(sample.keep_alive(1, 7, 0).clone()),
            |sample| {
                sample.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl: -1 }));
            },
            |sample| drop(sample.refused(1, Call::Txn(leased("b", "2", 7)), NOT_FOUND).clone()),
            |sample| drop(sample.refused(1, Call::LeaseRevoke { id: 7 }, NOT_FOUND).clone()),
        ];
        for wrong in wrong {
            let mut early = sample();
            wrong(&mut early);
            let mut drifted = early.clone();
            expect(found(early), "and was gone for");
            clock(&mut drifted);
            assert_eq!(found(drifted), Ok(()));
            let mut late = sample();
            late.now += millis(9500);
            wrong(&mut late);
            assert_eq!(found(late), Ok(()));
        }
    }

    #[test]
    fn a_lease_that_outlives_its_time_is_found() {
        let mut sample = sample();
        sample.now += millis(24_000);
        assert_eq!(found(sample.clone()), Ok(()));
        sample.now += millis(2000);
        expect(found(sample.clone()), "lease 7 was to end by");
        sample.txn(1, put("a", "2"));
        assert_eq!(found(sample.clone()), Ok(()));
        sample.history.end.leases.push(7);
        expect(found(sample.clone()), "lease 7 was to end by");
        sample.call(1, Call::LeaseKeepAlive { id: 7 }, Outcome::Unknown("timeout".into()));
        assert_eq!(found(sample.clone()), Ok(()));
        sample.history.end.leases.push(8);
        expect(found(sample), "nobody was granted it");
    }

    #[test]
    fn a_revoked_lease_is_gone() {
        let mut sample = sample();
        sample.revoke(1, 7);
        assert_eq!(found(sample.clone()), Ok(()));
        let mut tied = sample.clone();
        tied.txn(1, leased("b", "2", 7));
        expect(found(tied), "a key was tied to lease 7");
        let mut renewed = sample.clone();
        renewed.keep_alive(1, 7, 10);
        expect(found(renewed), "lease 7 lives after client 1");
        let mut asked = sample;
        asked.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl: 3 }));
        expect(found(asked), "lease 7 lives after client 1");
    }

    #[test]
    fn a_key_that_a_revocation_leaves_is_found() {
        let mut sample = sample();
        let revision = sample.revision;
        let outcome = Outcome::Done(Reply::Revoked { revision });
        sample.call(1, Call::LeaseRevoke { id: 7 }, outcome);
        expect(found(sample), "still has");
    }

    #[test]
    fn a_lease_that_ended_by_itself_is_not_renewed() {
        let mut sample = sample();
        sample.now += millis(10_000);
        sample.expire(7);
        sample.now += millis(10);
        sample.keep_alive(1, 7, 10);
        expect(found(sample), "lease 7 lives after its end at revision 3");
    }
}
