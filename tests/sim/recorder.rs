//! Writes the history down while it happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_client::Client;
use mainstay_tests::history::{
    Call, Disturbance, Effect, Header, HeldCall, History, Leadership, Led, Observation, Operation, Outcome, Received,
    Reflection, Said, Txn, UNTOLD, Watch, WatchStream,
};
use tokio::time::Instant;

use crate::{perform, trace};

/// The history, shared by all who take part. They run on one thread and hold it only between two
/// waits.
#[derive(Clone)]
pub(crate) struct Recorder {
    history: Arc<Mutex<History>>,
    start: Instant,
}

impl Recorder {
    /// Begins a history now.
    pub(crate) fn new() -> Self {
        Self { history: Arc::default(), start: Instant::now() }
    }

    /// Looks at the history, or adds to it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.history.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The moment of a time since the run began.
    pub(crate) fn moment(&self, time: Duration) -> Instant {
        self.start + time
    }

    /// Makes a call and writes down what came of it.
    pub(crate) async fn call(&self, id: usize, client: &Client, call: Call) -> Outcome {
        self.call_at(id, None, client, call).await
    }

    /// Makes a call of one member and writes down what came of it.
    pub(crate) async fn call_at(&self, id: usize, member: Option<usize>, client: &Client, call: Call) -> Outcome {
        let began = self.now();
        // It is entered before it ends, because a run may end before the call does.
        let place = self.with(|history| {
            let outcome = Outcome::Unknown("under way".to_owned());
            let ended = Duration::MAX;
            history.operations.push(Operation { client: id, member, call: call.clone(), began, ended, outcome });
            history.operations.len() - 1
        });
        trace::note(format_args!("c{id} begins {call:?}"));
        let mut header = None;
        let outcome = perform::perform(client, &call, &mut header).await;
        trace::note(format_args!("c{id} ends {outcome:?}"));
        let ended = self.now();
        self.with(|history| {
            history.operations[place].ended = ended;
            history.operations[place].outcome = outcome.clone();
            history.headers.extend(header.map(|header| Header {
                operation: place,
                cluster: header.cluster_id,
                member: header.member_id,
                term: header.raft_term,
            }));
        });
        outcome
    }

    /// Makes a call about a lock or an election, and writes down what came of it, and what the server does
    /// with keys for it.
    pub(crate) async fn held(&self, id: usize, member: Option<usize>, client: &Client, call: HeldCall) -> Outcome {
        let effects: Vec<usize> = call.effects().into_iter().map(|txn| self.untold(id, txn)).collect();
        let withdrawal = call.withdrawal().map(|txn| self.untold(id, txn));
        let outcome = self.call_at(id, member, client, Call::Held(call)).await;
        self.with(|history| {
            let mut never = |place: usize| history.operations[place].outcome = Outcome::Refused(String::new());
            match &outcome {
                Outcome::Refused(_) => effects.into_iter().chain(withdrawal).for_each(never),
                Outcome::Done(_) => withdrawal.into_iter().for_each(&mut never),
                Outcome::Unknown(_) => {}
            }
        });
        outcome
    }

    /// Makes a call whose answer nobody is owed, and says nothing of what came of it: it may have been carried out.
    pub(crate) async fn call_unheard(&self, id: usize, client: &Client, txn: Txn) {
        self.untold(id, txn.clone());
        perform::perform(client, &Call::Txn(txn), &mut None).await;
    }

    /// Enters something that the server does by itself.
    fn untold(&self, id: usize, txn: Txn) -> usize {
        let (began, ended) = (self.now(), Duration::MAX);
        let outcome = Outcome::Unknown(UNTOLD.to_owned());
        self.with(|history| {
            let call = Call::Txn(txn);
            history.operations.push(Operation { client: id, member: None, call, began, ended, outcome });
            history.operations.len() - 1
        })
    }

    /// Enters that somebody begins to observe an election, and returns its place.
    pub(crate) fn observation(&self, client: usize, name: &str) -> usize {
        self.with(|history| {
            history.observations.push(Observation { client, name: name.to_owned(), told: Vec::new() });
            history.observations.len() - 1
        })
    }

    /// Adds what somebody was told who observes an election.
    pub(crate) fn observed(&self, place: usize, led: Led) {
        trace::note(format_args!("o{place} {led:?}"));
        self.with(|history| history.observations[place].told.push(led));
    }

    /// Adds what somebody has who lists once and watches from there on.
    pub(crate) fn reflected(&self, reflection: Reflection) {
        trace::note(format_args!("{reflection:?}"));
        self.with(|history| history.reflections.push(reflection));
    }

    /// Notes as which user a client calls.
    pub(crate) fn user(&self, client: usize, user: &str) {
        self.with(|history| history.users.insert(client, user.to_owned()));
    }

    /// Enters a watch and returns its place.
    pub(crate) fn watch(&self, watch: Watch) -> usize {
        self.with(|history| {
            history.watches.push(watch);
            history.watches.len() - 1
        })
    }

    /// Adds what a watch received.
    pub(crate) fn received(&self, place: usize, received: Received) {
        trace::note(format_args!("w{place} {received:?}"));
        self.with(|history| history.watches[place].received.push(received));
    }

    /// Enters a stream of watches and returns its place.
    pub(crate) fn stream(&self, client: usize) -> usize {
        self.with(|history| {
            history.streams.push(WatchStream { client, said: Vec::new() });
            history.streams.len() - 1
        })
    }

    /// Adds what was said on a stream.
    pub(crate) fn said(&self, place: usize, said: Said) {
        let at = self.now();
        trace::note(format_args!("s{place} {said:?}"));
        self.with(|history| history.streams[place].said.push((at, said)));
    }

    /// Adds a disturbance that is over.
    pub(crate) fn disturbance(&self, from: Duration, what: &str, effect: Option<Effect>) {
        self.disturbed(from, self.now(), what, effect);
    }

    /// Adds a disturbance whose end is known.
    pub(crate) fn disturbed(&self, from: Duration, until: Duration, what: &str, effect: Option<Effect>) {
        self.with(|history| {
            history.disturbances.push(Disturbance { from, until, what: what.to_owned(), effect });
        });
    }

    /// When the last disturbance that is known by now is over.
    pub(crate) fn disturbed_until(&self) -> Duration {
        self.with(|history| history.disturbances.iter().map(|disturbance| disturbance.until).max().unwrap_or_default())
    }

    /// Notes that a member takes itself for the leader of a term.
    pub(crate) fn leadership(&self, member: usize, term: u64) {
        let at = self.now();
        self.with(|history| {
            if !history.leaderships.iter().any(|known| known.member == member && known.term == term) {
                history.leaderships.push(Leadership { member, term, at });
            }
        });
    }
}
