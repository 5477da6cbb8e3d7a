//! Few keys that several clients write, read and swap at once, written down as a history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use mainstay_client::proto::etcdserverpb::RangeResponse;
use mainstay_client::proto::etcdserverpb::response_op::Response;
use mainstay_client::{Client, Compare, Error, Put, Range, Txn, revision};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::checker::history::linearizable::PREFIX;
use crate::dice::Dice;
use crate::history::{self, Call, Comparison, History, KeyValue, Operation, Outcome, Reply, Span, Step, StepReply};

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
        let txn = history::Txn::of(Step::put(key.clone(), value.clone()));
        let began = self.start.elapsed();
        let answer = self.client.put(key, value).await;
        let steps = vec![StepReply::Put { prev: None }];
        let reply = answer.map(|answer| Reply::Txn { revision: revision(&answer.header), succeeded: true, steps });
        self.ended(began, txn, reply);
    }

    /// The value, where there is one and it is told.
    async fn get(&mut self, key: String) -> Option<String> {
        let txn = history::Txn::of(Step::range(Span::key(key.clone())));
        let began = self.start.elapsed();
        let answer = self.client.range(Range::key(key)).await;
        let found = answer.as_ref().ok().and_then(|answer| answer.kvs.first()).map(|kv| text(&kv.value));
        let reply = answer.map(|answer| Reply::Txn {
            revision: revision(&answer.header),
            succeeded: true,
            steps: vec![range_reply(answer)],
        });
        self.ended(began, txn, reply);
        found
    }

    /// Replaces what it read, if that is still there.
    async fn swap(&mut self, key: String) {
        let Some(seen) = self.get(key.clone()).await else { return };
        let value = self.fresh();
        let txn = history::Txn {
            compares: vec![history::Compare::equal(key.clone(), Comparison::Value(seen.clone()))],
            then: vec![Step::put(key.clone(), value.clone())],
            otherwise: vec![Step::range(Span::key(key.clone()))],
            serializable: false,
        };
        let began = self.start.elapsed();
        let request = Txn::new()
            .when(Compare::value(key.clone()).equals(seen))
            .then(Put::new(key.clone(), value))
            .otherwise(Range::key(key));
        let answer = self.client.txn(request).await;
        let reply = answer.map(|answer| {
            let (revision, succeeded) = (revision(&answer.header), answer.succeeded);
            let steps = answer.responses.into_iter().filter_map(|step| match step.response? {
                Response::ResponsePut(_) => Some(StepReply::Put { prev: None }),
                Response::ResponseRange(answer) => Some(range_reply(answer)),
                Response::ResponseDeleteRange(_) | Response::ResponseTxn(_) => None,
            });
            Reply::Txn { revision, succeeded, steps: steps.collect() }
        });
        self.ended(began, txn, reply);
    }

    fn fresh(&mut self) -> String {
        self.written += 1;
        format!("{}.{}", self.id, self.written)
    }

    /// Writes a call down that has ended just now.
    fn ended(&mut self, began: Duration, txn: history::Txn, reply: Result<Reply, Error>) {
        let ended = self.start.elapsed();
        let outcome = match reply {
            Ok(reply) => Outcome::Done(reply),
            Err(error) => {
                let told = error.to_string();
                let is_open = error.may_have_taken_effect();
                self.errors.push(error);
                if is_open { Outcome::Unknown(told) } else { Outcome::Refused(told) }
            }
        };
        self.operations.push(Operation { client: self.id, member: None, call: Call::Txn(txn), began, ended, outcome });
    }
}

fn range_reply(answer: RangeResponse) -> StepReply {
    let keys = answer.kvs.iter().map(|kv| KeyValue {
        key: text(&kv.key),
        value: text(&kv.value),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    });
    StepReply::Range { keys: keys.collect(), count: answer.count, more: answer.more }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
