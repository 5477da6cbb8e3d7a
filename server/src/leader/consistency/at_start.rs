//! Whether this member has what the others have, asked once at each start before it answers a client or takes part.
//!
//! Whoever was up meanwhile knows the digest at the entry to which this member had come, or at the last one for which
//! it has kept a mark. The judgement is the leader's: nothing is decided against this member that the leader would leave
//! open. Who does not answer is not waited for longer than a moment, and where nobody does the member starts, as in
//! etcd: without the others it serves nothing but what may be old, and the leader compares it when there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use mainstay_proto::etcdserverpb::AlarmType;
use mainstay_proto::mainstay::DigestsResponse;
use tracing::{debug, error, warn};

use super::judge::judge;
use super::{compared, corrupt_alarm};
use crate::apply::AlarmView;
use crate::command::cluster_itself;
use crate::env::{clock, probe};
use crate::raft::{Evidence, Gateway};

/// How long the others may take in all, where an election takes longer.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause before the alarm is asked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks the others what they have, for `election_timeout` at most; where this member differs from them, who is to be
/// named: this one, and whoever else nobody can rely on.
///
/// It takes no time where there are no others, and hardly any where nobody listens at their addresses.
pub async fn differs_at_start(
    gateway: &Gateway,
    evidence: &Evidence,
    alarms: &AlarmView,
    election_timeout: Duration,
) -> BTreeSet<u64> {
    let own = gateway.member_id();
    // Whoever is named already is out of service, and whoever has not said its name cannot be named.
    let (members, all) = compared(gateway, alarms);
    let ours = evidence.since(0);
    if members.len() < 2 || !members.contains(&own) || (ours.marks.is_empty() && ours.hashes.is_empty()) {
        return BTreeSet::new();
    }
    let indexes: Vec<u64> = ours.marks.iter().map(|mark| mark.index).collect();
    let mut told = BTreeMap::from([(own, ours)]);
    let ask = |id: u64| {
        let indexes = indexes.clone();
        async move { (id, gateway.digests_of(id, indexes).await) }
    };
    let mut answers: FuturesUnordered<_> = members.iter().filter(|id| **id != own).map(|id| ask(*id)).collect();
    let hear = async {
        while let Some((id, answer)) = answers.next().await {
            match answer {
                Ok(answer) => drop(told.insert(id, answer)),
                Err(error) => debug!(member = format!("{id:x}"), %error, "a member does not say what it has"),
            }
            if is_settled(own, all, &told) {
                break;
            }
        }
    };
    // Whether that took too long, or who was asked gave up a moment before, is the same.
    clock::timeout(election_timeout.min(LIMIT), hear).await.ok();
    if told.len() < all && !is_settled(own, all, &told) {
        warn!(answered = told.len() - 1, "some members do not say what they have: this one starts without");
    }
    let verdict = judge(own, all, &told);
    if let Some(reason) = verdict.corrupt.get(&own) {
        probe::reached("start-of-the-corrupt");
        error!(
            "local-member-id" = format!("{own:x}"),
            reason,
            "found data inconsistency with peers: this member differs from the others and is out of service; \
             stop it and run `mainstay rebuild` with its flags"
        );
        return verdict.corrupt.keys().copied().collect();
    }
    if verdict.is_open {
        warn!("members differ, and who was not heard decides which of them are right: this one starts meanwhile");
    }
    BTreeSet::new()
}

/// Whether those who were not heard yet cannot change what becomes of this member: it differs from a majority, or is one
/// of a majority who see no difference.
fn is_settled(own: u64, members: usize, told: &BTreeMap<u64, DigestsResponse>) -> bool {
    let verdict = judge(own, members, told);
    let is_calm = verdict.corrupt.is_empty() && !verdict.is_open;
    verdict.corrupt.contains_key(&own) || (is_calm && told.len() > members / 2)
}

/// Has the cluster name these members in the alarm CORRUPT, this one first, as soon as there is a leader to do so. The
/// leader would not find the others any more: who is named is not compared.
pub async fn name(corrupt: BTreeSet<u64>, gateway: Gateway, evidence: Evidence, alarms: AlarmView) {
    let own = gateway.member_id();
    for id in iter::once(own).chain(corrupt.into_iter().filter(|id| *id != own)) {
        while !alarms.is_raised_by(id, AlarmType::Corrupt) {
            if let Err(error) = gateway.propose(Some(cluster_itself()), corrupt_alarm(id)).await {
                warn!(member = format!("{id:x}"), %error, "failed to raise the alarm CORRUPT for a member");
            }
            clock::sleep(PAUSE).await;
        }
        if id == own {
            // From here on it is the alarm that decides, which an operator can lift.
            evidence.doubt_own_until_named(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::told;
    use super::*;

    #[test]
    fn a_majority_that_agrees_is_enough() {
        let (ours, same, other) = (&[(256, 7), (300, 8)], &[(256, 7)], &[(256, 9)]);
        assert!(!is_settled(1, 3, &told(&[(1, ours)])), "nobody was heard");
        assert!(is_settled(1, 3, &told(&[(1, ours), (2, same)])));
        assert!(is_settled(1, 2, &told(&[(1, ours), (2, same)])));
        assert!(!is_settled(1, 5, &told(&[(1, ours), (2, same)])), "the other three may agree on something else");
        assert!(is_settled(1, 5, &told(&[(1, ours), (2, same), (3, same)])));
        assert!(!is_settled(1, 3, &told(&[(1, ours), (2, other)])), "the third one decides");
        // Another differs, not this one: whoever is left may tell the same.
        assert!(!is_settled(1, 5, &told(&[(1, ours), (2, same), (3, other)])));
    }

    #[test]
    fn who_differs_from_a_majority_need_hear_no_more() {
        let (ours, other) = (&[(256, 7)], &[(256, 9)]);
        assert!(is_settled(1, 3, &told(&[(1, ours), (2, other), (3, other)])));
        assert!(!is_settled(1, 5, &told(&[(1, ours), (2, other), (3, other)])), "two of five are no majority");
        assert!(is_settled(1, 5, &told(&[(1, ours), (2, other), (3, other), (4, other)])));
        assert!(is_settled(1, 2, &told(&[(1, ours), (2, other)])), "nobody knows which of the two is right");
    }

    #[test]
    fn who_is_behind_cannot_be_compared_and_counts_as_heard() {
        let ours = &[(256, 7), (300, 8)];
        assert!(is_settled(1, 3, &told(&[(1, ours), (2, &[])])), "the third one alone is no majority");
        assert!(!is_settled(1, 5, &told(&[(1, ours), (2, &[])])));
    }
}
