//! Users do what they may, and nothing else.
//!
//! - `register.rs` says which values something may have had in a time, by the calls that set it.
//! - `granted.rs` makes of the administrator's calls what a user may have been allowed, and certainly was.

mod granted;
mod register;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::granted::{Granted, Need, needs};
use super::text::{seconds, told};
use crate::history::{AuthCall, AuthReply, Call, History, Operation, Outcome, Reply};
use crate::model::Truth;

const DENIED: &str = "permission denied";
/// What a client is told whose token does not count, and which it answers by logging in.
const LOG_IN: [&str; 3] = ["invalid auth token", "revision of auth store is old", "user name is empty"];

/// Checks of every call of a user, by what may have been allowed while it was under way:
/// - what was carried out was allowed: a revocation that was acknowledged before is obeyed;
/// - what was refused was not certainly allowed;
/// - once all is quiet, whoever logs in is known;
///
/// and of users and roles:
/// - their revision counts every change that was acknowledged, and no more than were asked for;
/// - they end as the administrator was told.
///
/// A serializable read may be judged by anything that was once allowed.
pub fn check(history: &History, truth: &Truth, recovery: Duration) -> Result<(), String> {
    let granted = Granted::of(history);
    let quiet = history.disturbances.iter().map(|disturbance| disturbance.until).max().unwrap_or_default() + recovery;
    for operation in &history.operations {
        let Some(user) = history.users.get(&operation.client) else { continue };
        judge(&granted, truth, user, operation)?;
        if let Outcome::Refused(why) = &operation.outcome
            && operation.began >= quiet
            && LOG_IN.iter().any(|text| why.contains(text))
        {
            let text = format!("all was quiet from {} on, and {user} was not known", seconds(quiet));
            return Err(format!("{text}: {}", told(operation)));
        }
    }
    revisions(history)?;
    match &history.end.auth {
        Some(end) => granted.ends_as(end, history.end.at),
        None => Ok(()),
    }
}

fn judge(granted: &Granted<'_>, truth: &Truth, user: &str, operation: &Operation) -> Result<(), String> {
    let Call::Txn(txn) = &operation.call else { return Ok(()) };
    let from = if txn.may_be_stale() { Duration::ZERO } else { operation.began };
    let needs = needs(txn);
    let lacks = |until| needs.iter().find(|need| !granted.may_have(user, need, from, until));
    match &operation.outcome {
        Outcome::Done(_) => match lacks(operation.ended) {
            Some(need) => Err(format!("{user} was not allowed to {need}, and was: {}", told(operation))),
            None => Ok(()),
        },
        Outcome::Unknown(_) => match carried_out(truth, txn).and_then(|at| Some((at, lacks(at)?))) {
            Some((at, need)) => {
                let at = seconds(at);
                Err(format!("{user} was not allowed to {need}, which was done by {at}: {}", told(operation)))
            }
            None => Ok(()),
        },
        Outcome::Refused(why) if why.contains(DENIED) => {
            let has = |need: &Need| granted.certainly_has(user, need, from, operation.ended);
            match needs.iter().all(has) {
                true => Err(format!("{user} was allowed to, and was not: {}", told(operation))),
                false => Ok(()),
            }
        }
        Outcome::Refused(_) => Ok(()),
    }
}

/// When a write that nobody was told of was seen to be there. Its values name it.
fn carried_out(truth: &Truth, txn: &crate::history::Txn) -> Option<Duration> {
    let mut puts = Vec::new();
    granted::each_put(txn, &mut |value| puts.push(value.to_owned()));
    let is_it = |commit: &&crate::model::Commit| {
        commit.changes.iter().any(|change| !change.deleted && puts.contains(&change.kv.value))
    };
    truth.commits.values().find(is_it).map(|commit| commit.at)
}

/// Holds every two looks at the revision of users and roles against each other.
fn revisions(history: &History) -> Result<(), String> {
    let mut looks = Vec::new();
    let mut changes = Vec::new();
    for operation in &history.operations {
        match (&operation.call, &operation.outcome) {
            (Call::Auth(AuthCall::Status), Outcome::Done(Reply::Auth(AuthReply::Status { revision, .. }))) => {
                looks.push((operation, *revision));
            }
            (Call::Auth(call), Outcome::Done(_)) => changes.push((operation, call)),
            (Call::Auth(call), Outcome::Unknown(_)) => changes.push((operation, call)),
            _ => {}
        }
    }
    for (place, (first, before)) in looks.iter().enumerate() {
        for (second, after) in looks[place + 1..].iter().filter(|(second, _)| second.began > first.ended) {
            let within = changes.iter().filter(|(change, call)| {
                let is_done = matches!(change.outcome, Outcome::Done(_));
                is_done && call.always_counts() && change.began > first.ended && change.ended < second.began
            });
            let least = before + within.count() as u64;
            let possible = changes.iter().filter(|(change, call)| {
                let is_done = matches!(change.outcome, Outcome::Done(_));
                call.may_count() && change.began < second.ended && (!is_done || change.ended > first.began)
            });
            let most = before + possible.count() as u64;
            if !(least..=most).contains(after) {
                let (first, second) = (told(first), told(second));
                let text = format!("the revision of users and roles is {after}, and was to be {least} to {most}");
                return Err(format!("{text}: {second}\nafter {first}"));
            }
        }
    }
    Ok(())
}
