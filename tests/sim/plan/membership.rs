//! What an operator does to the members while a run goes on.

use std::time::Duration;

use madsim::rand::prelude::*;

use super::{Dice, Fault, FaultKind};

/// No world has more places than this.
const PLACES_MAX: usize = 7;
/// How often somebody is missing when a change is asked for, and since when.
const MISSING: f64 = 0.15;
const MISSED: Duration = Duration::from_secs(5);
/// How often whoever leads is cut off when it is asked to add a member, and how long at least.
const CUT_OFF: f64 = 0.25;
const CUT_OFF_FOR: u64 = 1500;
/// Before that the first members have not told their names, and whoever asks is refused.
const FROM: Duration = Duration::from_secs(2);

/// How many places there are beside those of the first members.
pub(super) fn spares(dice: &mut Dice, members: usize) -> usize {
    dice.gen_range(1..=3).min(PLACES_MAX.saturating_sub(members))
}

/// Draws changes of the members. Which of them make sense when their time comes depends on what became of
/// those before; here it is assumed that all of them succeed.
pub(super) fn changes(dice: &mut Dice, members: usize, spares: usize, storm: Duration) -> Vec<Fault> {
    let mut inside: Vec<usize> = (0..members).collect();
    let mut outside: Vec<usize> = (members..members + spares).collect();
    let mut learners: Vec<usize> = Vec::new();
    let mut removed: Vec<usize> = Vec::new();
    let mut changes = Vec::new();
    let gap = dice.gen_range(700..4000u64);
    let mut at = FROM + Duration::from_millis(dice.gen_range(0..2000));
    while at < storm {
        if dice.gen_bool(MISSING) && inside.len() > 2 {
            // Somebody is missing for so long that whoever leads knows it when the next change is asked for.
            let member = *inside.choose(dice).expect("there are some");
            let lasts = MISSED + Duration::from_millis(dice.gen_range(1000..4000));
            changes.push(Fault { at, lasts, kind: FaultKind::Kill { member } });
            at += MISSED;
        }
        let kind = match dice.gen_range(0..20u32) {
            0..=6 => add(dice, &mut inside, &mut outside, &mut learners, &mut removed),
            7..=10 => remove(dice, &mut inside, &mut learners, &mut removed),
            11..=13 => promote(dice, &mut learners),
            14..=15 => inside.choose(dice).map(|member| FaultKind::MemberReplace { member: *member }),
            16..=17 => inside.choose(dice).map(|member| FaultKind::MemberMove { member: *member }),
            _ => removed.choose(dice).map(|member| FaultKind::MemberReturn { member: *member }),
        };
        let millis = if dice.gen_bool(0.7) { dice.gen_range(50..1000) } else { dice.gen_range(500..5000) };
        let least = if matches!(kind, Some(FaultKind::MemberAddCutOff { .. })) { CUT_OFF_FOR } else { 0 };
        let lasts = Duration::from_millis(least + millis);
        changes.extend(kind.map(|kind| Fault { at, lasts, kind }));
        at += Duration::from_millis(dice.gen_range(gap / 4..2 * gap));
    }
    changes
}

fn add(
    dice: &mut Dice,
    inside: &mut Vec<usize>,
    outside: &mut Vec<usize>,
    learners: &mut Vec<usize>,
    removed: &mut Vec<usize>,
) -> Option<FaultKind> {
    let from = if outside.is_empty() || (!removed.is_empty() && dice.gen_bool(0.3)) { removed } else { outside };
    let place = dice.gen_range(0..from.len().max(1));
    let member = (place < from.len()).then(|| from.swap_remove(place))?;
    let learner = dice.gen_bool(0.5);
    inside.push(member);
    if learner {
        learners.push(member);
    }
    let is_cut_off = dice.gen_bool(CUT_OFF);
    Some(if is_cut_off {
        FaultKind::MemberAddCutOff { member, learner }
    } else {
        FaultKind::MemberAdd { member, learner }
    })
}

fn remove(
    dice: &mut Dice,
    inside: &mut Vec<usize>,
    learners: &mut Vec<usize>,
    removed: &mut Vec<usize>,
) -> Option<FaultKind> {
    if inside.len() < 2 {
        return None;
    }
    let member = inside.swap_remove(dice.gen_range(0..inside.len()));
    learners.retain(|learner| *learner != member);
    removed.push(member);
    Some(FaultKind::MemberRemove { member })
}

/// Now and then one that is promoted already, or has not been started yet.
fn promote(dice: &mut Dice, learners: &mut Vec<usize>) -> Option<FaultKind> {
    let member = *learners.choose(dice)?;
    if dice.gen_bool(0.5) {
        learners.retain(|learner| *learner != member);
    }
    Some(FaultKind::MemberPromote { member })
}
