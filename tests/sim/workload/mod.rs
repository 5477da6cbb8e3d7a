//! What clients do. Each kind keeps to keys of its own, so that a checker can tell from a key which
//! promises hold for it; all are held against the same record of revisions.

mod apiserver;
mod elections;
mod filler;
mod leases;
mod lists;
mod locks;
mod members;
mod past;
mod registers;
mod server_locks;
mod sets;
mod txns;
mod users;
mod watch_stream;
mod watching;

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::Client;
use mainstay_tests::history::{Call, HeldCall, KeyValue, Outcome, Reply, Span, Step, StepReply, Txn};
use tokio::time::Instant;

use crate::plan::Dice;
use crate::recorder::Recorder;

pub(crate) use filler::{FILLER, disarm, disarm_all, is_for_space};
pub(crate) use leases::storm as lease_storm;
pub(crate) use watching::{Observed, observe, watch};

/// How long a client waits for one member that it insists on, which may never come back.
const PATIENCE: Duration = Duration::from_secs(3);

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Puts, gets, deletes and compare-and-swaps on few keys.
    Registers,
    /// Adds to a set, and listings of it.
    Sets,
    /// Appends to lists.
    Lists,
    /// Transactions across keys, of every shape.
    Txns,
    /// kube-apiserver's pattern.
    Apiserver,
    /// Leases that are kept, left to run out, and revoked.
    Leases,
    /// Locks, with writes that are fenced by them.
    Locks,
    /// Compactions, and reads about there.
    Past,
    /// Locks that the server holds, with such writes.
    ServerLocks,
    /// Elections that the server holds.
    Elections,
    /// Users who may do a part of what they ask for.
    Users,
    /// Who decides what users may do.
    Administrator,
    /// Questions who the members are.
    Members,
    /// Large values, until there is no space.
    Filler,
    /// Who makes room again.
    Relief,
}

impl Workload {
    /// Draws one.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let kinds = [
            (4, Self::Registers),
            (2, Self::Sets),
            (2, Self::Lists),
            (4, Self::Txns),
            (3, Self::Apiserver),
            (3, Self::Leases),
            (2, Self::Locks),
            (1, Self::Past),
            (2, Self::ServerLocks),
            (2, Self::Elections),
        ];
        kinds.choose_weighted(dice, |(weight, _)| *weight).expect("there are some").1
    }

    /// Does it until the worker's time is over.
    pub(crate) async fn run(self, worker: Worker) {
        match self {
            Self::Registers => registers::run(worker).await,
            Self::Sets => sets::run(worker).await,
            Self::Lists => lists::run(worker).await,
            Self::Txns => txns::run(worker).await,
            Self::Apiserver => apiserver::run(worker).await,
            Self::Leases => leases::run(worker).await,
            Self::Locks => locks::run(worker).await,
            Self::Past => past::run(worker).await,
            Self::ServerLocks => server_locks::run(worker).await,
            Self::Elections => elections::run(worker).await,
            Self::Users => users::run(worker).await,
            Self::Administrator => users::administer(worker).await,
            Self::Members => members::run(worker).await,
            Self::Filler => filler::run(worker).await,
            Self::Relief => filler::relieve(worker).await,
        }
    }
}

/// A client at work.
pub(crate) struct Worker {
    pub(crate) id: usize,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    /// How far the observer is.
    pub(crate) observed: Observed,
    /// The longest pause between two calls.
    pub(crate) pace: Duration,
    /// When the last fault ends.
    pub(crate) calm_from: Instant,
    pub(crate) until: Instant,
    /// How long it goes on after the last disturbance, if that comes later than planned.
    pub(crate) calm: Duration,
    /// How many bytes a value is filled up with at most.
    pub(crate) padding: usize,
    /// Counts what it wrote, so that no value is written twice.
    pub(crate) written: u64,
}

impl Worker {
    /// Whether there is time left; waits a moment first.
    pub(crate) async fn goes_on(&self) -> bool {
        // When the storm is over little is left to be found: a few calls show that all are answered.
        let slower = if Instant::now() < self.calm_from { 1 } else { 4 };
        let pause = thread_rng().gen_range(Duration::ZERO..self.pace);
        tokio::time::sleep(pause * slower).await;
        let now = Instant::now();
        now < self.until || now < self.recorder.moment(self.recorder.disturbed_until() + self.calm)
    }

    /// A value that nobody wrote before.
    pub(crate) fn fresh(&mut self) -> String {
        self.written += 1;
        let padding = if self.padding == 0 { 0 } else { thread_rng().gen_range(0..self.padding) };
        format!("{}.{}{}", self.id, self.written, "x".repeat(padding))
    }

    /// Makes a call: mostly at the member that the client is used to, now and then at just any, so
    /// that a member that is cut off is asked, too.
    pub(crate) async fn ask(&self, call: Call) -> Outcome {
        if thread_rng().gen_bool(0.4) {
            let member = thread_rng().gen_range(0..self.client.endpoints().len());
            self.ask_one(member, call).await
        } else {
            self.recorder.call(self.id, &self.client, call).await
        }
    }

    /// An id that no lease had before.
    pub(crate) fn fresh_lease(&mut self) -> i64 {
        self.written += 1;
        (self.id as i64 + 1) * 1_000_000 + self.written as i64
    }

    /// Makes a call about a lock or an election, and waits no longer than this.
    pub(crate) async fn held(&self, call: HeldCall, patience: Duration) -> Outcome {
        let client = self.client.with_timeout(patience);
        if thread_rng().gen_bool(0.4) {
            let member = thread_rng().gen_range(0..client.endpoints().len());
            self.recorder.held(self.id, Some(member), &client.only(member), call).await
        } else {
            self.recorder.held(self.id, None, &client, call).await
        }
    }

    /// Makes a call of one member alone.
    async fn ask_one(&self, member: usize, call: Call) -> Outcome {
        let client = self.client.only(member).with_timeout(PATIENCE);
        self.recorder.call_at(self.id, Some(member), &client, call).await
    }

    /// Runs a transaction; `None` where its fate or answer is not known.
    pub(crate) async fn txn(&self, txn: Txn) -> Option<(i64, bool, Vec<StepReply>)> {
        match self.ask(Call::Txn(txn)).await {
            Outcome::Done(Reply::Txn { revision, succeeded, steps }) => Some((revision, succeeded, steps)),
            _ => None,
        }
    }

    /// Reads keys, linearizably.
    pub(crate) async fn read(&self, span: Span) -> Option<(i64, Vec<KeyValue>)> {
        let (revision, _, mut steps) = self.txn(Txn::of(Step::range(span))).await?;
        match steps.pop() {
            Some(StepReply::Range { keys, .. }) => Some((revision, keys)),
            _ => None,
        }
    }
}
