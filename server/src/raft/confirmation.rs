//! Whether a leader still leads: a round of questions to the voters.
//!
//! Each voter is asked for its term. Whoever was elected in a later term before the question was asked has the votes of
//! a majority, and so of one of those who answer: that one is in the later term by then. So where a majority is in no
//! later term, nobody else led when the round began, and whatever was acknowledged before it this leader knows to be
//! committed (Ongaro, "Consensus: Bridging Theory and Practice", section 6.4).
//!
//! openraft has rounds of its own, by the time at which a follower acknowledged something. It takes the answer to one
//! request for the answer to a later one, too, where that adds no entry; a leader that stood still for a while then
//! finds answers that are older than the question. Here an answer belongs to the question that it answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mainstay_proto::mainstay::TermRequest;
use openraft::{RaftState, ServerState};
use tokio::sync::{Mutex, oneshot};

use super::gateway::Unavailable;
use super::network::RETRY_INTERVAL;
use super::peers::Peers;
use super::type_config::{Membership, Raft, StoredMembership, TypeConfig};
use crate::env::{clock, probe};

/// The one place of a member where it asks whether it still leads.
pub(crate) struct Confirmation {
    own: u64,
    cluster_id: u64,
    raft: Raft,
    peers: Arc<Peers>,
    /// How long a round may take.
    limit: Duration,
    questions: Mutex<Questions>,
}

/// What this member takes for true when a round begins.
struct Lead {
    term: u64,
    /// The last entry that is known to be committed; `None` before the first one of the term is.
    committed: Option<u64>,
    membership: Arc<StoredMembership>,
}

impl Confirmation {
    pub(crate) fn new(own: u64, cluster_id: u64, raft: Raft, peers: Arc<Peers>, limit: Duration) -> Self {
        Self { own, cluster_id, raft, peers, limit, questions: Mutex::default() }
    }

    /// Confirms that this member leads; an index that covers everything that was committed before the call.
    pub(crate) async fn confirm(&self) -> Result<u64, Unavailable> {
        let mut questions = self.questions.lock().await;
        let Lead { term, committed, membership } = self.lead().await?;
        // What earlier leaders committed is known to be so once an entry of this term is.
        let index = committed.ok_or(Unavailable::NotLeader)?;
        let configs = membership.membership().get_joint_config();
        let ask = |voter| self.ask(voter, membership.membership());
        match clock::timeout(self.limit, questions.round(self.own, term, configs, ask)).await {
            Ok(true) => Ok(index),
            Ok(false) => Err(Unavailable::NotLeader),
            Err(_) => Err(Unavailable::LeaderChanged),
        }
    }

    /// Asked of consensus itself: what it publishes may be a moment behind.
    async fn lead(&self) -> Result<Lead, Unavailable> {
        let own = self.own;
        let lead = look(&self.raft, move |state| {
            let vote = state.vote_ref();
            let term = vote.leader_id.term;
            let leads = vote.committed && vote.leader_id.voted_for == own && state.server_state == ServerState::Leader;
            let committed = state.cluster_committed().filter(|log_id| log_id.leader_id.term == term);
            let membership = state.membership_state.effective().clone();
            leads.then(|| Lead { term, committed: committed.map(|log_id| log_id.index), membership })
        });
        lead.await?.ok_or(Unavailable::NotLeader)
    }

    fn ask(&self, voter: u64, membership: &Membership) -> Asked {
        let (peers, limit) = (self.peers.clone(), self.limit);
        let client = peers.client(voter, membership);
        let request = TermRequest { cluster_id: self.cluster_id };
        async move {
            let asked = async { client.ok()?.term(request).await.ok() };
            match clock::timeout(limit, asked).await {
                Ok(Some(response)) => Some(response.into_inner().term),
                _ => {
                    peers.turn(voter);
                    clock::sleep(RETRY_INTERVAL).await;
                    None
                }
            }
        }
        .boxed()
    }
}

/// The term that this member is in, by what consensus has decided and not only published.
pub(crate) async fn term(raft: &Raft) -> Result<u64, Unavailable> {
    look(raft, |state| state.vote_ref().leader_id.term).await
}

/// Looks at the state of consensus, between two steps of it. Whoever asks may give up meanwhile, of which openraft's
/// `with_raft_state` complains.
async fn look<T: Send + 'static>(
    raft: &Raft,
    at: impl FnOnce(&RaftState<TypeConfig>) -> T + Send + 'static,
) -> Result<T, Unavailable> {
    let (reply, answer) = oneshot::channel();
    let tell = move |state: &RaftState<TypeConfig>| drop(reply.send(at(state)));
    raft.external_request(tell).await.map_err(|_| Unavailable::Stopped)?;
    answer.await.map_err(|_| Unavailable::Stopped)
}

/// The answer of a voter: the term that it is in.
type Asked = BoxFuture<'static, Option<u64>>;

/// What voters are asked; each one thing at a time, however many rounds begin meanwhile.
#[derive(Default)]
struct Questions {
    round: u64,
    /// Who has a question to answer.
    waiting: BTreeSet<u64>,
    /// The answers, with the voter and the round of the question.
    answers: FuturesUnordered<BoxFuture<'static, (u64, u64, Option<u64>)>>,
}

impl Questions {
    /// Asks until a majority of every configuration is in no later term than this one, or somebody is: whether it is
    /// the former.
    async fn round(&mut self, own: u64, term: u64, configs: &[BTreeSet<u64>], ask: impl Fn(u64) -> Asked) -> bool {
        self.round += 1;
        let round = self.round;
        let mut confirmed = BTreeSet::from([own]);
        while !configs.iter().all(|voters| voters.intersection(&confirmed).count() > voters.len() / 2) {
            for voter in configs.iter().flatten() {
                if !confirmed.contains(voter) && self.waiting.insert(*voter) {
                    let (voter, answer) = (*voter, ask(*voter));
                    self.answers.push(async move { (voter, round, answer.await) }.boxed());
                }
            }
            let Some((voter, of, answer)) = self.answers.next().await else {
                return false; // there is nobody to ask
            };
            self.waiting.remove(&voter);
            match answer {
                Some(theirs) if theirs > term => return false,
                // Wrong where it is broken: somebody else may have been elected since the question was asked.
                Some(_) if of == round || probe::broken("answer-to-an-earlier-question") => {
                    confirmed.insert(voter);
                }
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future;

    use super::*;

    fn config(voters: &[u64]) -> BTreeSet<u64> {
        voters.iter().copied().collect()
    }

    /// A round of member 1 in term 5, where others answer at once with these terms, or never.
    async fn confirmed(configs: &[&[u64]], answers: &[(u64, u64)]) -> Option<bool> {
        let configs: Vec<_> = configs.iter().map(|voters| config(voters)).collect();
        let ask = |voter| match answers.iter().find(|(id, _)| *id == voter) {
            Some((_, term)) => future::ready(Some(*term)).boxed(),
            None => future::pending().boxed(),
        };
        let mut questions = Questions::default();
        questions.round(1, 5, &configs, ask).now_or_never()
    }

    #[tokio::test]
    async fn a_majority_of_each_configuration_confirms() {
        assert_eq!(confirmed(&[&[1]], &[]).await, Some(true));
        assert_eq!(confirmed(&[&[1, 2, 3]], &[]).await, None);
        assert_eq!(confirmed(&[&[1, 2, 3]], &[(2, 5)]).await, Some(true));
        assert_eq!(confirmed(&[&[1, 2, 3]], &[(2, 3)]).await, Some(true), "one that does not know of the term yet");
        assert_eq!(confirmed(&[&[1, 2, 3, 4, 5]], &[(2, 5)]).await, None);
        assert_eq!(confirmed(&[&[1, 2, 3], &[3, 4, 5]], &[(2, 5), (3, 5)]).await, None);
        assert_eq!(confirmed(&[&[1, 2, 3], &[3, 4, 5]], &[(3, 5), (4, 5)]).await, Some(true));
        // A leader that removes itself has no vote in the new configuration.
        assert_eq!(confirmed(&[&[2, 3]], &[(2, 5)]).await, None);
        assert_eq!(confirmed(&[&[2, 3]], &[(2, 5), (3, 5)]).await, Some(true));
    }

    #[tokio::test]
    async fn a_later_term_ends_it() {
        assert_eq!(confirmed(&[&[1, 2, 3]], &[(2, 6)]).await, Some(false));
    }

    #[tokio::test]
    async fn an_answer_belongs_to_its_question() {
        let configs = [config(&[1, 2])];
        let asked = RefCell::new(Vec::new());
        let ask = |_| {
            let (answer, answered) = oneshot::channel();
            asked.borrow_mut().push(answer);
            async move { answered.await.ok() }.boxed()
        };
        let mut questions = Questions::default();
        assert_eq!(questions.round(1, 5, &configs, ask).now_or_never(), None);
        assert_eq!(questions.round(1, 5, &configs, ask).now_or_never(), None);
        assert_eq!(asked.borrow().len(), 1, "one question at a time");
        // That was the answer to the question of a round that is over.
        asked.borrow_mut().remove(0).send(5).unwrap();
        assert_eq!(questions.round(1, 5, &configs, ask).now_or_never(), None);
        assert_eq!(asked.borrow().len(), 1, "asked anew");
        asked.borrow_mut().remove(0).send(5).unwrap();
        // This one answers the third round; the fourth asks again.
        assert_eq!(questions.round(1, 5, &configs, ask).now_or_never(), None);
        asked.borrow_mut().remove(0).send(4).unwrap();
        let ask_and_tell = |_| future::ready(Some(5)).boxed();
        assert_eq!(questions.round(1, 5, &configs, ask_and_tell).now_or_never(), Some(true));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_asked_again() {
        let (configs, answers) = ([config(&[1, 2])], RefCell::new(vec![Some(5), None, None]));
        let ask = |_| future::ready(answers.borrow_mut().pop().unwrap()).boxed();
        assert_eq!(Questions::default().round(1, 5, &configs, ask).now_or_never(), Some(true));
    }
}
