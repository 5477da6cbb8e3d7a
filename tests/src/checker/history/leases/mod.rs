//! A lease lives as long as it was promised to, and no longer.
//!
//! - `life.rs` gathers what is known of each lease.
//! - `service.rs` finds when a leader certainly took commands.
//! - `term.rs` computes when a lease may have ended and must have, from who led and whose clock was wrong.

mod life;
mod service;
mod term;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::life::{Lease, keeps, leases, seconds_told};
use self::term::{Term, World};
use super::Bounds;
use super::text::{seconds, told};
use crate::history::{Call, History, Operation, Outcome, Reply};
use crate::model::{Truth, written};

/// Checks of every lease:
/// - it is granted for the time that was asked for, or the shortest there is;
/// - it does not end before its time is over since the last grant or renewal that was answered, unless
///   it was revoked: neither are its keys removed, nor is anybody told that it is gone;
/// - it ends: once its time is over and the leader could end it, no write that is asked for later comes
///   before the end of its keys, and nobody renews it; when all is over, neither it nor a key of it is there;
/// - the seconds that are told to be left lie between what it was promised and what it may have;
/// - once it is gone, its keys are gone, no key is tied to it, and nobody who asks is told that it lives.
///
/// Time is the world's. A member whose clock was wrong moves these bounds if it may have led during
/// the lease's life, and by no more than its clock was wrong meanwhile. Ids are granted once; of one
/// that was granted again only the end is looked at.
pub fn check(history: &History, truth: &Truth, bounds: &Bounds) -> Result<(), String> {
    let causes = truth.causes(history);
    let leases = leases(history, truth, causes);
    let world = World::of(history, bounds);
    for (id, lease) in &leases {
        let term = Term::new(&world, lease);
        let run = Run { id: *id, lease, history, truth, bounds, world: &world, term };
        run.granted_as_asked()?;
        if lease.grants.len() == 1 {
            run.not_early()?;
            run.gone_after_its_end()?;
            run.not_late()?;
            run.told_possible_seconds()?;
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

struct Run<'a> {
    id: i64,
    lease: &'a Lease<'a>,
    history: &'a History,
    truth: &'a Truth,
    bounds: &'a Bounds,
    world: &'a World<'a>,
    term: Term<'a>,
}

/// Why a lease is known to be gone.
struct End {
    /// By when it was.
    at: Duration,
    /// The revision that removed its keys, where there is one.
    revision: Option<i64>,
    why: String,
}

impl Run<'_> {
    fn granted_as_asked(&self) -> Result<(), String> {
        for grant in &self.lease.grants {
            let Call::LeaseGrant { ttl: asked, .. } = grant.call else { continue };
            let due = asked.max(self.bounds.lease_ttl_min);
            if seconds_told(grant).is_some_and(|granted| granted != due) {
                return Err(format!("lease {} was to be granted for {due} s: {}", self.id, told(grant)));
            }
        }
        Ok(())
    }

    fn not_early(&self) -> Result<(), String> {
        let id = self.id;
        if let Some(revision) = self.lease.expired {
            let at = self.truth.commits[&revision].at;
            if let Some((end, promise)) = self.term.earliest_end(at, at)
                && at < end
            {
                let text = format!("lease {id} ended at revision {revision}, seen at {}", seconds(at));
                return Err(format!("{text}, and was to live until {} by {}", seconds(end), told(promise)));
            }
        }
        for told_gone in self.lease.told_gone() {
            let revoked = self.lease.revokes.iter().any(|revoke| revoke.began <= told_gone.ended);
            // The promise must have been there before.
            let Some(grant) = self.lease.granted() else { continue };
            if revoked || grant.ended >= told_gone.began {
                continue;
            }
            let Some((end, promise)) = self.term.earliest_end(told_gone.began, told_gone.ended) else { continue };
            // A renewal under way may be carried out later than one that was told that it is too late.
            if told_gone.ended < end && promise.ended < told_gone.began {
                let (end, promise, answer) = (seconds(end), told(promise), told(told_gone));
                return Err(format!("lease {id} was to live until {end} by {promise}\nand was gone for {answer}"));
            }
        }
        Ok(())
    }

    /// When the lease was known to be gone first, and why.
    fn end(&self) -> Option<End> {
        let revoked = self.lease.revokes.iter().filter_map(|revoke| match revoke.outcome {
            Outcome::Done(Reply::Revoked { revision }) => {
                Some(End { at: revoke.ended, revision: Some(revision), why: told(revoke) })
            }
            _ => None,
        });
        let expired = self.lease.expired.map(|revision| {
            let at = self.truth.commits[&revision].at;
            End {
                at,
                revision: Some(revision),
                why: format!("its end at revision {revision}, seen at {}", seconds(at)),
            }
        });
        // Whose grant is not known to be over may be granted yet.
        let granted = self.lease.granted().map(|grant| grant.ended);
        let missed = self.lease.told_gone_for_good().filter(|answer| granted.is_some_and(|at| answer.began > at));
        let missed = missed.map(|answer| End { at: answer.ended, revision: None, why: told(answer) });
        revoked.chain(expired).chain(missed).min_by_key(|end| end.at)
    }

    fn gone_after_its_end(&self) -> Result<(), String> {
        let id = self.id;
        let Some(End { at, revision, why }) = self.end() else { return Ok(()) };
        if let Some(revision) = revision.filter(|revision| self.truth.knows_state(*revision)) {
            if let Some(kv) = self.truth.versions.all(revision).find(|kv| kv.lease == id) {
                return Err(format!("at revision {revision} lease {id} still has {kv:?} after {why}"));
            }
            for (later, commit) in self.truth.commits.range(revision + 1..) {
                if let Some(change) = commit.changes.iter().find(|change| change.kv.lease == id) {
                    return Err(format!("at revision {later} a key was tied to lease {id} after {why}: {change:?}"));
                }
            }
        }
        if let Some(answer) = self.lease.told_alive().find(|answer| answer.began > at) {
            return Err(format!("lease {id} lives after {why}\nby {}", told(answer)));
        }
        let ties = |operation: &&Operation| match (&operation.call, &operation.outcome) {
            (Call::Txn(txn), Outcome::Done(Reply::Txn { succeeded, steps, .. })) => {
                written(txn, *succeeded, steps).iter().any(|put| put.lease == id)
            }
            _ => false,
        };
        match self.history.operations.iter().filter(|operation| operation.began > at).find(ties) {
            Some(put) => Err(format!("a key was tied to lease {id} after {why}\nby {}", told(put))),
            None => Ok(()),
        }
    }

    fn not_late(&self) -> Result<(), String> {
        let id = self.id;
        // Whoever asks for a write asks after the leader ended the lease: the end comes first in the log.
        let removed = self.end().and_then(|end| end.revision).filter(|revision| self.truth.knows(*revision));
        if let Some(removed) = removed.filter(|revision| self.lease.had_keys_before(self.truth, *revision, id)) {
            for write in self.world.writes.iter().filter(|write| write.revision < removed) {
                if let Some(due) = self.term.removed_by(write.operation.ended)
                    && write.operation.began > due
                {
                    let (due, write) = (seconds(due), told(write.operation));
                    return Err(format!(
                        "the keys of lease {id} were to go by {due}, and went at revision {removed}, after {write}"
                    ));
                }
            }
        }
        for answer in self.lease.renewals.iter().filter(|answer| keeps(answer)) {
            if let Some(end) = self.term.latest_end(answer.ended, Some(answer))
                && answer.began > end
            {
                return Err(format!(
                    "lease {id} ended by {} at the latest, and was renewed: {}",
                    seconds(end),
                    told(answer)
                ));
            }
        }
        Ok(())
    }

    fn told_possible_seconds(&self) -> Result<(), String> {
        let id = self.id;
        let granted = self.lease.granted().and_then(seconds_told);
        for renewal in self.lease.renewals.iter().filter(|answer| keeps(answer)) {
            if granted.is_some_and(|granted| seconds_told(renewal) != Some(granted)) {
                return Err(format!("lease {id} is renewed for other seconds than granted: {}", told(renewal)));
            }
        }
        for question in &self.lease.questions {
            let Some(left) = seconds_told(question).filter(|left| *left >= 0) else { continue };
            let whole = |time: Duration| time.as_secs() as i64;
            if let Some(end) = self.term.latest_end(question.ended, None) {
                let most = whole(end.saturating_sub(question.began));
                if left > most {
                    let told = told(question);
                    return Err(format!(
                        "lease {id} ended by {} at the latest, with {most} s left: {told}",
                        seconds(end)
                    ));
                }
            }
            if let Some((end, promise)) = self.term.earliest_end_promised(question)
                && left < whole(end.saturating_sub(question.ended))
            {
                let (end, promise, told) = (seconds(end), told(promise), told(question));
                return Err(format!("lease {id} was to live until {end} by {promise}\nand had less left for {told}"));
            }
        }
        Ok(())
    }

    fn not_outliving(&self) -> Result<(), String> {
        let (id, end) = (self.id, &self.history.end);
        let is_there = end.leases.contains(&id);
        let key = end.keys.iter().find(|kv| kv.lease == id);
        if !is_there && key.is_none() {
            return Ok(());
        }
        let given = || self.lease.grants.iter().chain(&self.lease.renewals);
        let longest = given().filter_map(|operation| match (&operation.call, seconds_told(operation)) {
            (Call::LeaseGrant { ttl: asked, .. }, told) => Some(*asked.max(&told.unwrap_or(0))),
            (_, told) => told,
        });
        let ttl = longest.max().unwrap_or(0).max(self.bounds.lease_ttl_min);
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
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
