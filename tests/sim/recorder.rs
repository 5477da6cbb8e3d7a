//! Writes the history down while it happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_client::Client;
use mainstay_tests::history::{Call, Disturbance, Effect, History, Leadership, Operation, Outcome, Received, Watch};
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
        let outcome = perform::perform(client, &call).await;
        trace::note(format_args!("c{id} ends {outcome:?}"));
        let ended = self.now();
        self.with(|history| {
            history.operations[place].ended = ended;
            history.operations[place].outcome = outcome.clone();
        });
        outcome
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

    /// Adds a disturbance that is over.
    pub(crate) fn disturbance(&self, from: Duration, what: &str, effect: Option<Effect>) {
        let until = self.now();
        self.with(|history| {
            history.disturbances.push(Disturbance { from, until, what: what.to_owned(), effect });
        });
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
