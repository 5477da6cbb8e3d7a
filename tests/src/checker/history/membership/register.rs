use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Call, History, Listed, MemberCall, Operation, Outcome, Reply};

/// So many learners there may be at most, by the flag's default.
const LEARNERS_MAX: usize = 1;

/// Who the members are, and who were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// By id: where peers reach it, and whether it has no vote.
    pub(super) members: BTreeMap<u64, (Vec<String>, bool)>,
    removed: BTreeSet<u64>,
}

/// What was asked and told of the members.
#[derive(Debug)]
pub(super) struct Register {
    pub(super) first: State,
    /// What surely happened, by its begin.
    pub(super) required: Vec<Action>,
    /// What may have happened at any time after its begin.
    pub(super) possible: Vec<Action>,
    /// When a list was asked for last that the cluster agreed on, and was answered.
    last_list: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Action {
    /// Its place in the history.
    pub(super) call: usize,
    pub(super) began: Duration,
    pub(super) ended: Duration,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Is(State),
    Add { id: u64, urls: Vec<String>, learner: bool },
    Remove(u64),
    Promote(u64),
    Update(u64, Vec<String>),
    NotFound(u64),
    NotLearner(u64),
    UrlExists(Vec<String>),
    TooManyLearners,
    Never,
}

impl Register {
    /// Takes a history apart; `None` where nobody said who the members were before the first change.
    pub(super) fn of(history: &History) -> Option<Self> {
        let calls = history.operations.iter().enumerate().filter_map(|(place, operation)| match &operation.call {
            Call::Member(call) => Some((place, operation, call)),
            _ => None,
        });
        let calls: Vec<(usize, &Operation, &MemberCall)> = calls.collect();
        let is_list = |call: &MemberCall| matches!(call, MemberCall::List { .. });
        let first_change = calls.iter().filter(|it| !is_list(it.2)).map(|it| it.1.began).min().unwrap_or(Duration::MAX);
        let first = calls.iter().find_map(|(_, operation, call)| {
            let is_before = matches!(call, MemberCall::List { linearizable: true }) && operation.ended <= first_change;
            members_in(operation).filter(|_| is_before).map(state_of)
        })?;
        let agreed = calls.iter().filter(|it| matches!(it.2, MemberCall::List { linearizable: true }));
        let last_list = agreed.filter(|it| members_in(it.1).is_some()).map(|it| it.1.began).max().unwrap_or_default();
        let mut register = Self { first, required: Vec::new(), possible: Vec::new(), last_list };
        let unexplained = unexplained(&calls, &register.first);
        for (call, operation, asked) in &calls {
            register.take(*call, operation, asked, &unexplained);
        }
        register.required.sort_by_key(|action| action.began);
        Some(register)
    }

    fn take(&mut self, call: usize, operation: &Operation, asked: &MemberCall, unexplained: &BTreeMap<u64, &Listed>) {
        let Operation { began, ended, .. } = *operation;
        let mut is_required = true;
        let what = match (&operation.outcome, asked) {
            (_, MemberCall::List { linearizable: false }) => return,
            (Outcome::Refused(text) | Outcome::Unknown(text), _) if text.starts_with("etcdserver: ") => {
                match refusal(text, asked) {
                    Some(What::UrlExists(urls)) if self.may_be_taken(&urls, ended) => return,
                    Some(what) => what,
                    None if matches!(operation.outcome, Outcome::Refused(_)) => return,
                    None => return self.may_happen(call, operation, asked, unexplained),
                }
            }
            (Outcome::Refused(_), _) => return,
            (Outcome::Unknown(_), _) => return self.may_happen(call, operation, asked, unexplained),
            (Outcome::Done(_), MemberCall::List { .. }) => {
                let Some(reply) = members_in(operation) else { return };
                What::Is(state_of(reply))
            }
            (Outcome::Done(Reply::Members(reply)), MemberCall::Add { urls, learner }) => {
                What::Add { id: reply.added.unwrap_or_default(), urls: urls.clone(), learner: *learner }
            }
            (Outcome::Done(_), other) => match of(other) {
                Some(what) => what,
                None => return,
            },
        };
        if let What::TooManyLearners = what {
            // A learner whose adding nobody answered need not have been listed by anybody.
            is_required = !self.possible.iter().any(|it| match it.what {
                What::Add { learner, .. } => learner,
                What::Never => self.may_be_unseen(ended),
                _ => false,
            });
        }
        if is_required {
            self.required.push(Action { call, began, ended, what });
        }
    }

    fn may_happen(
        &mut self,
        call: usize,
        operation: &Operation,
        asked: &MemberCall,
        unexplained: &BTreeMap<u64, &Listed>,
    ) {
        let (began, ended) = (operation.began, Duration::MAX);
        let mut possible = |what| self.possible.push(Action { call, began, ended, what });
        match asked {
            MemberCall::Add { urls, learner } => {
                let seen = unexplained.values().filter(|listed| urls.iter().any(|url| same_host(listed, url)));
                let ids: Vec<u64> = seen.map(|listed| listed.id).collect();
                if ids.is_empty() {
                    possible(What::Never);
                }
                ids.into_iter().for_each(|id| possible(What::Add { id, urls: urls.clone(), learner: *learner }));
            }
            other => of(other).into_iter().for_each(possible),
        }
    }

    /// Whether a member may have been added before a moment that no list shows: nobody removes it who has not seen its
    /// id, so every later list would.
    fn may_be_unseen(&self, before: Duration) -> bool {
        self.last_list <= before
    }

    /// Whether a call that was not answered may have taken an address before a moment.
    fn may_be_taken(&self, urls: &[String], before: Duration) -> bool {
        self.possible.iter().any(|it| match &it.what {
            What::Never => self.may_be_unseen(before),
            What::Update(_, taken) | What::Add { urls: taken, .. } => taken.iter().any(|url| urls.contains(url)),
            _ => false,
        })
    }
}

impl Action {
    /// The state behind it; `None` where it does not fit.
    pub(super) fn step(&self, state: &State) -> Option<State> {
        let taken = |id: u64, urls: &[String]| {
            let mut others = state.members.iter().filter(|(other, _)| **other != id);
            others.any(|(_, (own, _))| own.iter().any(|url| urls.contains(url)))
        };
        let learners = || state.members.values().filter(|(_, learns)| *learns).count();
        let mut next = state.clone();
        let fits = match &self.what {
            What::Is(told) => told.members == state.members,
            What::Add { id, urls, learner } => {
                next.members.insert(*id, (urls.clone(), *learner));
                let is_new = !state.members.contains_key(id) && !state.removed.contains(id);
                is_new && !taken(*id, urls) && !(*learner && learners() >= LEARNERS_MAX)
            }
            What::Remove(id) => {
                next.removed.insert(*id);
                next.members.remove(id).is_some()
            }
            What::Promote(id) => match next.members.get_mut(id) {
                Some((_, learns)) => std::mem::take(learns),
                None => false,
            },
            What::Update(id, urls) => match next.members.get_mut(id) {
                Some((own, _)) => {
                    own.clone_from(urls);
                    !taken(*id, urls)
                }
                None => false,
            },
            What::NotFound(id) => !state.members.contains_key(id),
            What::NotLearner(id) => state.members.get(id).is_some_and(|(_, learns)| !learns),
            What::UrlExists(urls) => taken(0, urls),
            What::TooManyLearners => learners() >= LEARNERS_MAX,
            What::Never => false,
        };
        fits.then_some(next)
    }
}

/// The members that an answer lists.
pub(super) fn members_in(operation: &Operation) -> Option<&[Listed]> {
    match &operation.outcome {
        Outcome::Done(Reply::Members(reply)) => Some(&reply.members),
        _ => None,
    }
}

fn state_of(listed: &[Listed]) -> State {
    let members = listed.iter().map(|it| (it.id, (it.peer_urls.clone(), it.is_learner)));
    State { members: members.collect(), removed: BTreeSet::new() }
}

/// Members that were listed, and whose adding nobody answered.
fn unexplained<'a>(calls: &[(usize, &'a Operation, &MemberCall)], first: &State) -> BTreeMap<u64, &'a Listed> {
    let added = calls.iter().filter_map(|(_, operation, _)| match &operation.outcome {
        Outcome::Done(Reply::Members(reply)) => reply.added,
        _ => None,
    });
    let added: BTreeSet<u64> = added.collect();
    let listed = calls.iter().filter_map(|(_, operation, _)| members_in(operation)).flatten();
    let others = listed.filter(|it| !added.contains(&it.id) && !first.members.contains_key(&it.id));
    others.map(|it| (it.id, it)).collect()
}

/// Whether a member may have been added under an address; it may have moved to another port since.
fn same_host(listed: &Listed, url: &str) -> bool {
    let host = |url: &str| url.rsplit_once(':').map(|(host, _)| host.to_owned());
    listed.peer_urls.iter().any(|own| host(own) == host(url))
}

fn of(asked: &MemberCall) -> Option<What> {
    match asked {
        MemberCall::Remove { id } => Some(What::Remove(*id)),
        MemberCall::Promote { id } => Some(What::Promote(*id)),
        MemberCall::Update { id, urls } => Some(What::Update(*id, urls.clone())),
        MemberCall::List { .. } | MemberCall::Add { .. } => None,
    }
}

/// What a refusal says of who the members are; `None` where it says nothing of that.
fn refusal(text: &str, asked: &MemberCall) -> Option<What> {
    match (text.strip_prefix("etcdserver: ")?, asked) {
        (
            "member not found",
            MemberCall::Remove { id } | MemberCall::Promote { id } | MemberCall::Update { id, .. },
        ) => Some(What::NotFound(*id)),
        // Only where its id had been another's.
        ("member not found", MemberCall::Add { .. }) => Some(What::Never),
        // Its id is made of its addresses and the second.
        ("Peer URLs already exists" | "member ID already exist", MemberCall::Add { urls, .. }) => {
            Some(What::UrlExists(urls.clone()))
        }
        ("can only promote a learner member", MemberCall::Promote { id }) => Some(What::NotLearner(*id)),
        ("too many learner members in cluster", MemberCall::Add { .. }) => Some(What::TooManyLearners),
        _ => None,
    }
}
