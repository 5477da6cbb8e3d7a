//! Few keys that several clients write, read and swap at once, written down as a history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use mainstay_client::{Client, Error, revision};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::checker::history::linearizable::PREFIX;
use crate::dice::Dice;
use crate::history::{Call, Compare, Comparison, History, Operation, Outcome, Reply, Span, Step, StepReply, Txn};
use crate::transactions;

/// Few enough that clients meet.
const KEYS: usize = 3;

/// Clients that use the keys below [`PREFIX`] until they are told to finish.
pub struct Registers {
    clients: Vec<JoinHandle<Worker>>,
    stop: Arc<AtomicBool>,
}

impl Registers {
    /// Begins; each client waits for `pace` between two calls.
    pub fn spawn(clients: Vec<Client>, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let mut working = Vec::new();
        for (id, client) in clients.into_iter().enumerate() {
            let dice = Dice::new(id as u64);
            let worker = Worker { id, client, dice, start, operations: Vec::new(), errors: Vec::new(), written: 0 };
            working.push(tokio::spawn(worker.work(pace, stop.clone())));
        }
        Self { clients: working, stop }
    }

    /// Stops the clients; returns their calls, and what those failed with that did.
    pub async fn finish(self) -> Result<(History, Vec<Error>)> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut history, mut errors) = (History::default(), Vec::new());
        for client in self.clients {
            let worker = client.await?;
            history.operations.extend(worker.operations);
            errors.extend(worker.errors);
        }
        history.operations.sort_by_key(|operation| operation.began);
        Ok((history, errors))
    }
}

/// A client at work.
struct Worker {
    id: usize,
    client: Client,
    dice: Dice,
    /// When the history began.
    start: Instant,
    operations: Vec<Operation>,
    errors: Vec<Error>,
    /// Counts what it wrote, so that no value is written twice.
    written: u64,
}

impl Worker {
    async fn work(mut self, pace: Duration, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            let key = format!("{PREFIX}{}", self.dice.below(KEYS));
            match self.dice.below(3) {
                0 => self.put(key).await,
                1 => drop(self.get(key).await),
                _ => self.swap(key).await,
            }
            sleep(pace).await;
        }
        self
    }

    async fn put(&mut self, key: String) {
        let value = self.fresh();
        self.ask(Txn::of(Step::put(key, value))).await;
    }

    /// The value, where there is one and it is told.
    async fn get(&mut self, key: String) -> Option<String> {
        let steps = self.ask(Txn::of(Step::range(Span::key(key)))).await?;
        let StepReply::Range { keys, .. } = steps.into_iter().next()? else { return None };
        keys.into_iter().next().map(|kv| kv.value)
    }

    /// Replaces what it read, if that is still there.
    async fn swap(&mut self, key: String) {
        let Some(seen) = self.get(key.clone()).await else { return };
        let value = self.fresh();
        self.ask(Txn {
            compares: vec![Compare::equal(key.clone(), Comparison::Value(seen))],
            then: vec![Step::put(key.clone(), value)],
            otherwise: vec![Step::range(Span::key(key))],
            serializable: false,
        })
        .await;
    }

    fn fresh(&mut self) -> String {
        self.written += 1;
        format!("{}.{}", self.id, self.written)
    }

    /// Makes a call and writes it down; what its steps answered, where they did.
    async fn ask(&mut self, txn: Txn) -> Option<Vec<StepReply>> {
        let began = self.start.elapsed();
        let answer = transactions::perform(&self.client, &txn, || false).await;
        let ended = self.start.elapsed();
        let (outcome, told) = match answer {
            Ok((header, succeeded, steps)) => {
                let reply = Reply::Txn { revision: revision(&header), succeeded, steps: steps.clone() };
                (Outcome::Done(reply), Some(steps))
            }
            Err(error) => {
                let why = error.to_string();
                let is_open = error.may_have_taken_effect();
                self.errors.push(error);
                (if is_open { Outcome::Unknown(why) } else { Outcome::Refused(why) }, None)
            }
        };
        self.operations.push(Operation { client: self.id, member: None, call: Call::Txn(txn), began, ended, outcome });
        told
    }
}
