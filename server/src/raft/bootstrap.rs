//! Before a first start: what the store already holds, who the members are of a cluster that is joined, and
//! whether the others know this member.
//!
//! A member that lost its data and starts as if it were new has forgotten for whom it voted and which
//! entries it confirmed. Taken back, it could help to elect a leader without an entry that it had
//! helped to commit. So whoever finds no vote in its log, which is the first thing that a member
//! writes, asks the others first, as etcd does.
//!
//! It waits for as many answers as it takes to be sure, for without the others it could do nothing
//! anyway. Where a quorum has no memory at all, the cluster is new. Otherwise so many must say that they
//! do not know it that one of them would: any quorum that committed what the member published of itself
//! has one in common with them. etcd starts when nobody answers, and then takes the member back.
//!
//! What remains open: a member that was lost before a quorum held what it published of itself. It has
//! confirmed next to nothing by then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mainstay_proto::mainstay::{MemberKnownRequest, MemberKnownResponse, MembersRequest};

use super::codec;
use super::envelope::Envelope;
use super::members::quorum;
use super::network::peer_client;
use crate::engine::layout::meta;
use crate::engine::{Engine, EngineError, Family};
use crate::env::transport::Dialer;
use crate::env::{clock, probe};

/// Pause between two rounds of questions: a peer's process may be about to start.
const PAUSE: Duration = Duration::from_millis(50);

/// Rounds after which it is said what is waited for, and asked anew who the members are.
const ROUNDS_IN_SILENCE: u32 = 100;

/// The last entry in the state that a store holds; `None` where it holds none.
///
/// # Errors
/// When the store cannot be read.
pub fn applied_index(engine: &dyn Engine) -> Result<Option<u64>, EngineError> {
    let stored = engine.get(Family::Meta, meta::APPLIED)?.unwrap_or_default();
    let (log_id, _) = codec::applied_from_bytes(stored).map_err(|error| EngineError(error.to_string()))?;
    Ok(log_id.map(|log_id| log_id.index))
}

/// What the others know of an earlier life of a member, the better answer the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Past {
    /// Nothing.
    Unknown,
    /// It was a member when this was last heard of.
    Member,
    /// It was a member, and was removed.
    Removed,
}

impl Past {
    fn told_by(answer: Option<MemberKnownResponse>) -> Self {
        match answer {
            Some(answer) if answer.known && answer.removed => Past::Removed,
            Some(answer) if answer.known => Past::Member,
            Some(_) | None => Past::Unknown,
        }
    }
}

/// Asks all peers what they know of an earlier life of a member, until enough have answered.
///
/// `peers` are the peer URLs of each, as this member was told when it was started; with them it may be about to
/// found the cluster. Each question may take `limit`.
pub async fn past_of(
    question: MemberKnownRequest,
    mut peers: Vec<Vec<String>>,
    mut may_be_new: bool,
    dialer: &Dialer,
    limit: Duration,
) -> Past {
    if peers.is_empty() {
        return Past::Unknown;
    }
    loop {
        if let Some(past) = ask_for_a_while(question, &peers, may_be_new, dialer, limit).await {
            return past;
        }
        // Who is asked in vain may be no member any more. What others say of the members they have applied, so
        // whoever published its name is known to them.
        let urls: Vec<String> = peers.iter().flatten().cloned().collect();
        let told = existing_cluster(&urls, dialer, limit).await.filter(|told| told.cluster_id == question.cluster_id);
        if let Some(mut told) = told
            && told.members.remove(&question.member_id).is_some()
            && !told.members.is_empty()
        {
            probe::reached("first-start-told-of-members");
            (peers, may_be_new) = (told.members.into_values().collect(), false);
        }
    }
}

/// Asks in rounds; `None` where those that answer do not suffice for long.
async fn ask_for_a_while(
    question: MemberKnownRequest,
    peers: &[Vec<String>],
    may_be_new: bool,
    dialer: &Dialer,
    limit: Duration,
) -> Option<Past> {
    let nobody = Tally { peers: peers.len(), may_be_new, fresh: 0, strangers: 0 };
    let mut tally = nobody;
    for _ in 0..ROUNDS_IN_SILENCE {
        let mut answers: FuturesUnordered<_> = peers.iter().map(|urls| ask(urls, question, dialer, limit)).collect();
        tally = nobody;
        let mut heard = BTreeSet::new();
        while let Some(answer) = answers.next().await {
            let answer = answer.filter(|answer| is_another(answer, &mut heard));
            let mut past = Past::told_by(answer);
            if past == Past::Unknown && !tally.count(answer) {
                continue;
            }
            // Whoever is about to answer may still know better.
            let hear = async {
                while past < Past::Removed
                    && let Some(answer) = answers.next().await
                {
                    past = past.max(Past::told_by(answer));
                }
            };
            clock::timeout(PAUSE, hear).await.ok();
            return Some(past);
        }
        clock::sleep(PAUSE).await;
    }
    tracing::warn!(
        answered = tally.fresh + tally.strangers,
        peers = peers.len(),
        "waiting for peers, to learn whether this member has lost its data"
    );
    None
}

/// A cluster that is running, as one of its members tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingCluster {
    /// Its id.
    pub cluster_id: u64,
    /// The peer URLs of every member, by id.
    pub members: BTreeMap<u64, Vec<String>>,
    /// The format of its data.
    pub format: u32,
}

/// Asks a running cluster who its members are, at any of these URLs; `None` where nobody says.
pub async fn existing_cluster(urls: &[String], dialer: &Dialer, limit: Duration) -> Option<ExistingCluster> {
    for url in urls {
        let Ok(channel) = dialer.connect(url, limit) else { continue };
        match clock::timeout(limit, peer_client(channel, Envelope::of_nobody()).members(MembersRequest {})).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                let members = response.nodes.into_iter().map(|(id, node)| (id, node.peer_urls)).collect();
                return Some(ExistingCluster { cluster_id: response.cluster_id, members, format: response.format });
            }
            Ok(Err(status)) => tracing::warn!(url, %status, "failed to get cluster response"),
            Err(_elapsed) => tracing::warn!(url, "failed to get cluster response: no answer in time"),
        }
    }
    None
}

/// The answers of one round so far; none of them was yes.
#[derive(Clone, Copy, Debug)]
struct Tally {
    peers: usize,
    /// Whether all of them together may found a cluster; whoever joins one knows that it is there.
    may_be_new: bool,
    /// Those without any memory.
    fresh: usize,
    /// Those who remember something, but not this member.
    strangers: usize,
}

impl Tally {
    /// Counts an answer; whether all of them together say that this member is new.
    fn count(&mut self, answer: Option<MemberKnownResponse>) -> bool {
        match answer {
            Some(answer) if answer.fresh => self.fresh += 1,
            Some(_) => self.strangers += 1,
            None => {}
        }
        let quorum = quorum(self.peers + 1);
        let all_new = self.may_be_new && self.strangers == 0 && self.fresh + 1 >= quorum;
        // A quorum without this member has `quorum - 1` of its peers: so many of them cannot all be others.
        all_new || self.fresh + self.strangers > self.peers - (quorum - 1)
    }
}

/// Whether an answer is of somebody who was not heard yet: the addresses of two members may lead to one, which counts
/// once. Earlier releases do not say who they are.
fn is_another(answer: &MemberKnownResponse, heard: &mut BTreeSet<u64>) -> bool {
    answer.answered_by == 0 || heard.insert(answer.answered_by)
}

/// Asks one peer, at any of its addresses; `None` where it does not say.
async fn ask(
    urls: &[String],
    request: MemberKnownRequest,
    dialer: &Dialer,
    limit: Duration,
) -> Option<MemberKnownResponse> {
    for url in urls {
        // What leads back to this member is no answer of another.
        let envelope = Envelope::from(request.member_id);
        if let Some(answer) = ask_at(url, request, envelope, dialer, limit).await {
            return Some(answer);
        }
    }
    None
}

/// Asks whoever is at an address whether it knows a member; `None` where it does not say.
pub(super) async fn ask_at(
    url: &str,
    request: MemberKnownRequest,
    envelope: Envelope,
    dialer: &Dialer,
    limit: Duration,
) -> Option<MemberKnownResponse> {
    // Where this fails it does so again, and is said, when the peer is to be connected in earnest.
    let channel = dialer.connect(url, limit).ok()?;
    match clock::timeout(limit, peer_client(channel, envelope).member_known(request)).await {
        Ok(Ok(response)) => return Some(response.into_inner()),
        Ok(Err(status)) => tracing::debug!(url, %status, "a peer does not say whether it knows this member"),
        Err(_elapsed) => tracing::debug!(url, "a peer takes long to say whether it knows this member"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(peers: usize, answers: &[&str]) -> bool {
        let mut tally = Tally { peers, may_be_new: true, fresh: 0, strangers: 0 };
        let answer = |text: &str| MemberKnownResponse { fresh: text == "fresh", ..MemberKnownResponse::default() };
        answers.iter().any(|text| tally.count((*text != "silent").then(|| answer(text))))
    }

    #[test]
    fn a_quorum_without_memory_is_a_new_cluster() {
        assert!(decided(2, &["fresh"]));
        assert!(decided(2, &["silent", "fresh"]));
        assert!(!decided(4, &["fresh"]));
        assert!(decided(4, &["fresh", "fresh"]));
    }

    #[test]
    fn who_joins_does_not_found_a_cluster() {
        let mut tally = Tally { peers: 2, may_be_new: false, fresh: 0, strangers: 0 };
        let fresh = MemberKnownResponse { fresh: true, ..MemberKnownResponse::default() };
        assert!(!tally.count(Some(fresh)), "the other one may know it");
        assert!(tally.count(Some(fresh)));
    }

    #[test]
    fn who_remembers_something_is_not_enough_alone() {
        assert!(!decided(2, &["stranger"]), "the one that is silent may know");
        assert!(!decided(2, &["stranger", "silent"]));
        assert!(decided(2, &["stranger", "stranger"]));
        assert!(decided(2, &["stranger", "fresh"]));
        assert!(!decided(4, &["stranger", "fresh"]));
        assert!(decided(4, &["stranger", "stranger", "stranger"]));
    }

    #[test]
    fn who_answers_for_two_counts_once() {
        let by = |answered_by| MemberKnownResponse { answered_by, ..MemberKnownResponse::default() };
        let mut heard = BTreeSet::new();
        let counted: Vec<bool> = [7, 7, 8, 0, 0].map(|id| is_another(&by(id), &mut heard)).into();
        assert_eq!(counted, [true, false, true, true, true], "earlier releases are told apart by their addresses");
    }

    #[test]
    fn silence_decides_nothing() {
        assert!(!decided(2, &["silent", "silent"]));
        assert!(!decided(4, &["silent", "silent", "silent", "silent"]));
    }
}
