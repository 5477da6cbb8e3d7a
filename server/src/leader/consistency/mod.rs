//! Compares what the members have, while this member leads, and takes who differs out of service.
//!
//! A task that owns nothing but how far it has compared. Every few seconds it asks all members for what their states
//! were made of ([`Evidence`]): a number that takes in what each applied entry wrote, and the hashes that compactions
//! took of what they left. Both are made on the way, so that a comparison costs a few kilobytes for each member.
//!
//! Who differs from a majority is named in the alarm CORRUPT, and does not serve from then on (`api`); where there
//! is no majority, all who differ are. The others go on. (etcd stops the whole cluster.) As long as somebody who may
//! decide it is not heard, that is waited for, but not for ever. Releases that make one of the two in different ways say
//! so, and are not compared in it.
//!
//! Each member asks the same at its start, whoever leads ([`differs_at_start`]).

mod at_start;
mod judge;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{AlarmRequest, AlarmType};
use mainstay_proto::mainstay::DigestsResponse;
use tokio::task::JoinHandle;
use tracing::{debug, error, warn};

pub use self::at_start::{differs_at_start, name};
use self::judge::judge;
use crate::apply::AlarmView;
use crate::command::command;
use crate::env::clock;
use crate::env::probe;
use crate::metrics::Metrics;
use crate::raft::{Evidence, Gateway};

/// Time between two comparisons.
const INTERVAL: Duration = Duration::from_secs(5);
/// After so many comparisons in a row that leave it open who is right, those that are not heard count no more: a
/// minute, in which a member is restarted.
const PATIENCE: u32 = 12;

/// Starts to compare; ends with the handle's abortion.
pub fn spawn(gateway: Gateway, evidence: Evidence, alarms: AlarmView, metrics: Arc<Metrics>) -> JoinHandle<()> {
    let mut comparison = Comparison { gateway, evidence, alarms, metrics, term: 0, agreed: 0, open: 0 };
    tokio::spawn(async move {
        loop {
            clock::sleep(INTERVAL).await;
            let status = comparison.gateway.status();
            if status.leader != Some(status.member_id) {
                continue;
            }
            if comparison.term != status.term {
                (comparison.term, comparison.agreed, comparison.open) = (status.term, 0, 0);
            }
            comparison.compare(status.member_id).await;
        }
    })
}

/// The members that can be compared, and named, and how many count: all in service.
fn compared(gateway: &Gateway, alarms: &AlarmView) -> (Vec<u64>, usize) {
    let is_in_service = |id: u64| !alarms.is_raised_by(id, AlarmType::Corrupt);
    let members: Vec<_> = gateway.members().into_iter().filter(|member| is_in_service(member.id)).collect();
    // An alarm that names somebody who has not said who it is would be taken for one of the whole cluster. It decides
    // with the others nevertheless which of them are right.
    let named = members.iter().filter(|member| !member.name.is_empty()).map(|member| member.id).collect();
    (named, members.len())
}

/// The command that names a member.
fn corrupt_alarm(member_id: u64) -> command::Kind {
    let (action, alarm) = (AlarmAction::Activate.into(), AlarmType::Corrupt.into());
    command::Kind::Alarm(AlarmRequest { action, member_id, alarm })
}

struct Comparison {
    gateway: Gateway,
    evidence: Evidence,
    alarms: AlarmView,
    metrics: Arc<Metrics>,
    /// In which this member leads.
    term: u64,
    /// Up to which entry all members were found to agree in this term.
    agreed: u64,
    /// How many of the last comparisons have left it open who is right.
    open: u32,
}

impl Comparison {
    /// Compares the members once, from the entry on up to which they agree.
    async fn compare(&mut self, own: u64) {
        let (members, all) = compared(&self.gateway, &self.alarms);
        if members.len() < 2 || !members.contains(&own) {
            return;
        }
        // That one again, as one of them may have been started with something else since, and nothing been written.
        let ours = self.evidence.since(self.agreed.saturating_sub(1));
        let indexes: Vec<u64> = ours.marks.iter().map(|mark| mark.index).collect();
        let gateway = &self.gateway;
        let ask = |id: u64| {
            let indexes = indexes.clone();
            async move { (id, gateway.digests_of(id, indexes).await) }
        };
        let answers = join_all(members.iter().filter(|id| **id != own).map(|id| ask(*id))).await;
        let ways = |it: &DigestsResponse| (it.digest_version, it.hash_version);
        let our_ways = ways(&ours);
        let mut told: BTreeMap<u64, DigestsResponse> = BTreeMap::from([(own, ours)]);
        for (id, answer) in answers {
            match answer {
                Ok(answer) => {
                    if ways(&answer) != our_ways {
                        let (member, theirs) = (format!("{id:x}"), ways(&answer));
                        debug!(member, ?theirs, ours = ?our_ways, "a member of another release is not compared in all");
                    }
                    told.insert(id, answer);
                }
                Err(error) => debug!(member = format!("{id:x}"), %error, "a member does not say what it has"),
            }
        }
        let counted = if self.open < PATIENCE { all } else { told.len() };
        let verdict = judge(own, counted, &told);
        self.metrics.server.consistency_checks.inc();
        // Who was heard and does not know a place any more decides at the next one.
        let waits = verdict.is_open && told.len() < all;
        self.open = if waits { self.open + 1 } else { 0 };
        if self.open == 1 {
            warn!("members differ, and who was not heard decides which of them are right");
        }
        for (id, reason) in &verdict.corrupt {
            probe::reached("member-found-corrupt");
            error!(member = format!("{id:x}"), reason, "a member differs from the others: it is taken out of service");
            // The alarm takes a while, in which somebody who is behind could get this state.
            if *id == own {
                self.evidence.doubt_own(self.term);
            }
            self.raise(*id).await;
        }
        self.agreed = verdict.agreed.map_or(self.agreed, |agreed| agreed.max(self.agreed));
    }

    async fn raise(&self, member_id: u64) {
        // Nothing was lost: the next comparison finds the same.
        if let Err(error) = self.gateway.propose_as_leader(self.term, corrupt_alarm(member_id)).await {
            warn!(%error, "failed to raise the alarm CORRUPT");
        }
    }
}
