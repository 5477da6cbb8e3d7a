//! Where no leader is heard of, a member asks the others whether it was removed.
//!
//! A member that has a vote learns it when it asks for theirs. One without never asks, and is sent nothing any more
//! from the moment on in which the leader has its removal in the log: a learner that was removed would wait for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_proto::mainstay::MemberKnownRequest;

use super::bootstrap;
use super::consensus::ConsensusOptions;
use super::envelope::Envelope;
use super::gateway::Gateway;
use super::removal::Removal;
use crate::env::transport::Dialer;
use crate::env::{clock, probe};

/// What one member needs to ask the others.
pub(super) struct Silence {
    question: MemberKnownRequest,
    gateway: Gateway,
    dialer: Dialer,
    removal: Removal,
    /// Where the others are, as this member was told when it was started: it may have joined and be told nothing.
    first_urls: BTreeSet<String>,
    election_timeout: Duration,
}

impl Silence {
    pub(super) fn new(options: &ConsensusOptions, gateway: Gateway, removal: Removal) -> Self {
        let (cluster_id, member_id) = (options.cluster_id, options.member_id);
        let others = options.initial_members.iter().filter(|(id, _)| **id != member_id);
        Self {
            question: MemberKnownRequest { cluster_id, member_id },
            gateway,
            dialer: options.dialer.clone(),
            removal,
            first_urls: others.flat_map(|(_, node)| node.peer_urls.clone()).collect(),
            election_timeout: options.election_timeout,
        }
    }

    /// Asks whenever nobody is heard of, for as long as the task runs.
    pub(super) async fn watch(&self) {
        loop {
            clock::sleep(2 * self.election_timeout).await;
            let is_silent = self.gateway.status().leader.is_none();
            // Wrong where it is broken: a learner that was removed waits for a leader.
            if is_silent && !probe::broken("removed-learner-waits") && self.is_removed().await {
                probe::reached("removed-member-asked");
                self.removal.told_by_peer();
                return;
            }
        }
    }

    /// Whether another member says that this one was removed.
    async fn is_removed(&self) -> bool {
        let known = self.gateway.members().into_iter().filter(|member| member.id != self.question.member_id);
        let mut urls = self.first_urls.clone();
        urls.extend(known.flat_map(|member| member.peer_urls));
        for url in urls {
            // Whoever belongs to another cluster refuses.
            let envelope = Envelope::from(self.question.member_id);
            let answer = bootstrap::ask_at(&url, self.question, envelope, &self.dialer, self.election_timeout).await;
            if answer.is_some_and(|answer| answer.removed) {
                return true;
            }
        }
        false
    }
}
