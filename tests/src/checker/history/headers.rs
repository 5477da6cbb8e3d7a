//! An answer's header says who answered, of which cluster and in which term.

use std::collections::{BTreeMap, BTreeSet};

use super::text::told;
use crate::history::{Header, History, Operation};

/// Checks that all answers name one cluster; that who asked one member alone was answered by that one, and
/// by no other under its name, but for one that was added in its place later; and that the term which a member names
/// is not below one that it named in an answer before the question. A member that lost its disks may have forgotten
/// its term.
pub fn check(history: &History) -> Result<(), String> {
    let Some(first) = history.headers.first() else { return Ok(()) };
    // Clients count the members in orders of their own.
    let mut members: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    // Who had a place before the one that has it now.
    let mut gone: BTreeSet<(usize, usize, u64)> = BTreeSet::new();
    for header in &history.headers {
        let operation = &history.operations[header.operation];
        if header.cluster != first.cluster {
            let (one, other) = (first.cluster, header.cluster);
            return Err(format!("the cluster is {one:x}, and {other:x} for {}", told(operation)));
        }
        let Some(asked) = operation.member else { continue };
        let client = operation.client;
        let known = members.entry((client, asked)).or_insert(header.member);
        if *known != header.member && takes_a_place(history, operation) && gone.insert((client, asked, *known)) {
            *known = header.member;
        }
        let known = *known;
        if known != header.member || gone.contains(&(client, asked, known)) {
            let answered = header.member;
            return Err(format!(
                "member {asked} is {known:x}, and {answered:x} was the one that answered {}",
                told(operation)
            ));
        }
        let others = members.range((client, 0)..=(client, usize::MAX));
        if let Some(((_, other), _)) = others.into_iter().find(|((_, other), id)| *other != asked && **id == known) {
            return Err(format!("members {other} and {asked} are both {known:x}: {}", told(operation)));
        }
    }
    terms(history)
}

/// Whether another member may have been added in the place of an earlier one.
fn takes_a_place(history: &History, operation: &Operation) -> bool {
    let adds = ["member-add", "member-add-cut-off", "member-replace"];
    history.disturbances.iter().any(|it| adds.contains(&it.what.as_str()) && it.from <= operation.ended)
}

/// Holds each answer's term against the highest that its member named before.
fn terms(history: &History) -> Result<(), String> {
    let of = |header: &Header| &history.operations[header.operation];
    let mut by_end: Vec<&Header> = history.headers.iter().collect();
    by_end.sort_by_key(|header| of(header).ended);
    let mut by_begin: Vec<&Header> = history.headers.iter().collect();
    by_begin.sort_by_key(|header| of(header).began);
    let mut highest: BTreeMap<u64, &Header> = BTreeMap::new();
    let mut ended = by_end.into_iter().peekable();
    for header in by_begin {
        let operation = of(header);
        while let Some(before) = ended.next_if(|before| of(before).ended < operation.began) {
            let known = highest.entry(before.member).or_insert(before);
            if known.term < before.term {
                *known = before;
            }
        }
        let Some(before) = highest.get(&header.member).filter(|before| before.term > header.term) else { continue };
        if !lost_its_disks(history, of(before), operation) {
            let (from, to, member) = (before.term, header.term, header.member);
            let (before, now) = (told(of(before)), told(operation));
            return Err(format!("member {member:x} went back from term {from} to {to}\nfrom {before}\nto {now}"));
        }
    }
    Ok(())
}

fn lost_its_disks(history: &History, from: &Operation, to: &Operation) -> bool {
    let loses = ["rot", "wipe"];
    let lost = |what: &str| loses.contains(&what);
    history.disturbances.iter().any(|it| lost(&it.what) && it.from <= to.ended && it.until >= from.began)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample::{Sample, expect, get, millis};
    use super::*;
    use crate::history::Disturbance;

    const CLUSTER: u64 = 0xc;

    /// Reads of two members, each in its term.
    fn sample(answers: &[(usize, u64, u64)]) -> History {
        let mut sample = Sample::new();
        for (place, (asked, member, term)) in answers.iter().enumerate() {
            sample.txn(1, get("a")).member = Some(*asked);
            let header = Header { operation: place, cluster: CLUSTER, member: *member, term: *term };
            sample.history.headers.push(header);
        }
        sample.end()
    }

    #[test]
    fn terms_rise_at_each_member() {
        assert_eq!(check(&sample(&[])), Ok(()));
        assert_eq!(check(&sample(&[(0, 7, 2), (1, 8, 1), (0, 7, 2), (1, 8, 3), (0, 7, 3)])), Ok(()));
        expect(check(&sample(&[(0, 7, 2), (1, 8, 1), (0, 7, 1)])), "member 7 went back from term 2 to 1");
    }

    #[test]
    fn answers_that_cross_have_no_order() {
        let mut history = sample(&[(0, 7, 2), (0, 7, 1)]);
        history.operations[1].began = history.operations[0].began;
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_member_that_lost_its_disks_may_have_forgotten() {
        let mut history = sample(&[(0, 7, 2), (0, 7, 1)]);
        let (from, until) = (history.operations[1].began, history.operations[1].began + millis(1));
        let disturbance = Disturbance { from, until, what: "kill".into(), effect: None };
        history.disturbances.push(disturbance.clone());
        expect(check(&history), "went back");
        history.disturbances.push(Disturbance { what: "wipe".into(), ..disturbance });
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn another_member_or_cluster_is_found() {
        expect(check(&sample(&[(0, 7, 1), (0, 8, 1)])), "member 0 is 7, and 8 was the one that answered");
        expect(check(&sample(&[(0, 7, 1), (1, 7, 1)])), "members 0 and 1 are both 7");
        let mut rotated = sample(&[(0, 7, 1), (1, 7, 1)]);
        rotated.operations[1].client += 1;
        let place = |answers: &[(usize, u64, u64)]| {
            let mut history = sample(answers);
            let what = "member-replace".to_owned();
            history.disturbances.push(Disturbance { from: Duration::ZERO, until: Duration::ZERO, what, effect: None });
            check(&history)
        };
        assert_eq!(place(&[(0, 7, 3), (0, 8, 1)]), Ok(()));
        expect(place(&[(0, 7, 1), (0, 8, 1), (0, 7, 1)]), "7 was the one that answered");
        assert_eq!(check(&rotated), Ok(()));
        let mut history = sample(&[(0, 7, 1), (1, 8, 1)]);
        history.headers[1].cluster = 0xd;
        expect(check(&history), "the cluster is c, and d for");
    }
}
