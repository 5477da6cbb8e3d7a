//! The members are one sequence of changes, which every answer about them fits into.

mod register;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use self::register::Register;
use self::search::{Verdict, search};
use super::text::told;
use crate::history::{Call, History, MemberCall, Operation, Outcome, Reply};

/// Orders that are looked at before it is left open whether there is one.
const STEPS: usize = 100_000;
/// How long a member that was removed may go on before it knows of it.
const GRACE: Duration = Duration::from_secs(5);

/// Checks that changes of the members, what was refused because of who they are, and the lists that the cluster
/// agreed on have an order within their times that explains all of them: none of these lists does not show what was
/// acknowledged, and no list at all shows what was never made; no id comes back, no address belongs to two members, and
/// there is no second learner. That the list in the answer to a change shows the change. That no learner got its vote that was never
/// started; and that no member that was removed goes on to serve what needs the others.
pub fn check(history: &History) -> Result<(), String> {
    if !history.has_changing_members() {
        return Ok(());
    }
    for operation in &history.operations {
        let Call::Member(call) = &operation.call else { continue };
        answered(operation, call)?;
        promoted(history, operation, call)?;
        removed(history, operation, call)?;
    }
    never_made(history)?;
    let Some(register) = Register::of(history) else { return Ok(()) };
    match search(&register, STEPS) {
        Verdict::Explained | Verdict::Undecided => Ok(()),
        Verdict::Violated { state, left } => {
            let left: Vec<String> = left.iter().map(|place| told(&history.operations[*place])).collect();
            Err(format!(
                "no order explains what was told of the members: after {state:?} comes none of\n{}",
                left.join("\n")
            ))
        }
    }
}

/// The answer to a change shows it.
fn answered(operation: &Operation, call: &MemberCall) -> Result<(), String> {
    let Outcome::Done(Reply::Members(reply)) = &operation.outcome else { return Ok(()) };
    let has = |id: u64| reply.members.iter().any(|listed| listed.id == id);
    let fits = match call {
        MemberCall::Add { .. } => reply.added.is_some(),
        MemberCall::Remove { id } => !has(*id),
        // Who joins has been told of nobody yet.
        MemberCall::List { linearizable: false } => true,
        MemberCall::List { linearizable: true } | MemberCall::Promote { .. } | MemberCall::Update { .. } => {
            !reply.members.is_empty()
        }
    };
    if fits { Ok(()) } else { Err(format!("the answer does not show the change: {}", told(operation))) }
}

/// A list that the cluster did not agree on may be old, and shows nothing that never was: who was made a member is
/// one still when somebody agreed on asks later, or was removed by somebody who had its id.
fn never_made(history: &History) -> Result<(), String> {
    let (mut known, mut agreed, mut old) = (BTreeSet::new(), Duration::ZERO, Vec::new());
    for operation in &history.operations {
        let Call::Member(call) = &operation.call else { continue };
        if let MemberCall::Remove { id } = call {
            known.insert(*id);
        }
        match (call, register::members_in(operation)) {
            (MemberCall::List { linearizable: false }, Some(members)) => old.push((operation, members)),
            (_, Some(members)) => {
                known.extend(members.iter().map(|listed| listed.id));
                agreed = agreed.max(operation.began);
            }
            (_, None) => {}
        }
    }
    for (operation, members) in old.into_iter().filter(|(operation, _)| operation.ended < agreed) {
        if let Some(ghost) = members.iter().find(|listed| !known.contains(&listed.id)) {
            return Err(format!("member {:x} was never made one: {}", ghost.id, told(operation)));
        }
    }
    Ok(())
}

/// Who was never started holds nothing, and gets no vote by promotion.
fn promoted(history: &History, operation: &Operation, call: &MemberCall) -> Result<(), String> {
    let (MemberCall::Promote { id }, Outcome::Done(_)) = (call, &operation.outcome) else { return Ok(()) };
    let adds = history.operations.iter().filter_map(|it| match (&it.call, &it.outcome) {
        (Call::Member(MemberCall::Add { urls, .. }), Outcome::Done(Reply::Members(reply))) => {
            (reply.added == Some(*id)).then_some((urls, it.began))
        }
        _ => None,
    });
    for (urls, added) in adds {
        let started =
            |it: &crate::history::Started| urls.contains(&it.url) && it.at >= added && it.at <= operation.ended;
        if !history.joined.iter().any(started) {
            return Err(format!("member {id:x} was promoted before it was started: {}", told(operation)));
        }
    }
    Ok(())
}

/// Who was removed does not go on.
fn removed(history: &History, operation: &Operation, call: &MemberCall) -> Result<(), String> {
    let (MemberCall::Remove { id }, Outcome::Done(_)) = (call, &operation.outcome) else { return Ok(()) };
    let serves = |it: &&Operation| {
        let needs_others = matches!(&it.call, Call::Txn(txn) if !txn.may_be_stale());
        needs_others && it.began > operation.ended + GRACE && matches!(it.outcome, Outcome::Done(_))
    };
    let of = history.headers.iter().filter(|header| header.member == *id);
    match of.map(|header| &history.operations[header.operation]).find(serves) {
        Some(it) => Err(format!("member {id:x} goes on: {}\nit was removed by {}", told(it), told(operation))),
        None => Ok(()),
    }
}
