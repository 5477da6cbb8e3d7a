//! Proposals that this member passes on: gathered, and sent to the leader as batches over one stream.
//!
//! One owner, [`Forwarding::run`], opens a stream when there is something for it, and keeps it for as long as the leader
//! leads. What a proposal's fate is depends on how far it has come:
//!
//! - It waits here, or was taken for a batch that was not handed over: it was certainly not proposed, and its caller may
//!   try again. Nothing is handed over before the leader has accepted the stream.
//! - It was handed to the transport and has no answer: if the stream breaks, or the leader is succeeded, its fate is open.
//! - The leader says that its batch arrived damaged, or does not lead: certainly not proposed.
//!
//! A stream on which an answer is late takes no more: it may be that something on it was lost, and what comes later must
//! not wait for that. What is under way on it is waited for all the same, as the leader may only be slow.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::forward_answers::Answer;
use mainstay_proto::mainstay::forward_batch::Proposal;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::gathering::{End, Gathering};
use super::{Unavailable, unavailable_from_status};
use crate::command::Outcome;
use crate::env::clock::{self, Instant};
use crate::env::probe;
use crate::limits;
use crate::metrics::{Metrics, PeerMetrics};
use crate::raft::checksum;
use crate::raft::codec::CodecError;
use crate::raft::network::Client;
use crate::raft::peers::Peers;
use crate::raft::removal::{REMOVED, Removal};
use crate::raft::type_config::Raft;

/// How long a leader that does not know the stream is sent proposals one by one, before it is asked again: it may have
/// been replaced by a newer release.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What forwarding needs to know of this member.
pub(super) struct ForwardingOptions {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
    pub(super) election_timeout: Duration,
    /// From how many proposals under way on they wait for each other.
    pub(super) gather_from: usize,
    pub(super) removal: Removal,
}

/// The way of this member's proposals to another one that leads.
pub(super) struct Forwarding {
    options: ForwardingOptions,
    raft: Raft,
    peers: Arc<Peers>,
    metrics: Arc<Metrics>,
    queue: Gathering<Passed>,
    /// A leader that takes proposals one by one only, and until when that is taken for so. A leaf lock.
    one_by_one: Mutex<Option<(u64, Instant)>>,
}

/// A proposal on its way.
struct Passed {
    /// Who was taken for the leader when it came.
    leader: u64,
    command: Bytes,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Told, Unavailable>>;

/// What a caller is told.
enum Told {
    Answer(Answer),
    OneByOne,
}

/// A stream to a leader that was accepted.
struct Line {
    leader: u64,
    answers: Streaming<wire::ForwardAnswers>,
    /// What was handed over and not answered, by number.
    under_way: BTreeMap<u64, Sent>,
    /// The last number and the last batch that were given.
    number: u64,
    batch: u64,
    peer: Arc<PeerMetrics>,
}

struct Sent {
    batch: u64,
    at: Instant,
    reply: Reply,
}

/// What an answer says of its stream.
#[derive(PartialEq, Eq)]
enum Then {
    GoesOn,
    /// What is under way may still be answered.
    TakesNoMore,
    IsOver,
}

impl Forwarding {
    pub(super) fn new(options: ForwardingOptions, raft: Raft, peers: Arc<Peers>, metrics: Arc<Metrics>) -> Self {
        let queue = Gathering::new(options.gather_from);
        Self { options, raft, peers, metrics, queue, one_by_one: Mutex::default() }
    }

    /// Passes a command on with others; its entry and the outcome, or `None` where the leader takes commands one by one
    /// only.
    pub(super) async fn pass_on(&self, leader: u64, command: Bytes) -> Result<Option<(u64, Outcome)>, Unavailable> {
        if self.takes_one_by_one(leader) {
            return Ok(None);
        }
        let (_under_way, _) = self.queue.begin(1);
        let (reply, told) = oneshot::channel();
        self.queue.push(Passed { leader, command, reply }, 1)?;
        match told.await.map_err(|_| Unavailable::Stopped)?? {
            Told::OneByOne => Ok(None),
            Told::Answer(answer) if answer.code != 0 => {
                let code = Code::from_i32(answer.code.cast_signed());
                Err(unavailable_from_status(&Status::new(code, answer.error)))
            }
            // It was proposed, whatever became of it.
            Told::Answer(answer) => {
                let outcome = Outcome::decode(answer.outcome).map_err(|_| Unavailable::TimeoutConnectionLost)?;
                Ok(Some((answer.index, outcome)))
            }
        }
    }

    fn takes_one_by_one(&self, leader: u64) -> bool {
        let known = *self.one_by_one.lock();
        known.is_some_and(|(of, until)| of == leader && clock::now() < until)
    }

    /// Sends what is passed on, until it is dropped.
    pub(super) async fn run(&self) {
        let _end = End(&self.queue);
        // Streams that take no more, on which something is under way.
        let mut left: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            let mut serving = pin!(self.serve());
            let line = loop {
                tokio::select! {
                    biased;
                    line = &mut serving => break line,
                    Some(()) = left.next() => {}
                }
            };
            if let Some(line) = line {
                left.push(self.wait_for_the_rest(line).boxed());
            }
        }
    }

    /// Opens a stream when there is something for it, and uses it for as long as that is right; what is left of it where
    /// something on it is not answered.
    async fn serve(&self) -> Option<Line> {
        self.queue.has_some().await;
        let opened = match self.leader() {
            Some(leader) => {
                tokio::select! {
                    biased;
                    opened = self.open(leader) => opened,
                    // Nobody waits for one who leads no more.
                    () = is_moved(&self.raft, leader) => None,
                }
            }
            None => None,
        };
        let Some((mut line, batches)) = opened else {
            self.queue.take().into_iter().for_each(go_again);
            return None;
        };
        let mut taken = VecDeque::new();
        let then = self.send(&mut line, &batches, &mut taken).await;
        taken.into_iter().for_each(go_again);
        // From here on the leader knows that nothing more comes.
        drop(batches);
        match then {
            Then::IsOver => {
                line.breaks();
                None
            }
            Then::GoesOn | Then::TakesNoMore => Some(line).filter(|line| !line.under_way.is_empty()),
        }
    }

    /// Who leads instead of this member.
    fn leader(&self) -> Option<u64> {
        let metrics = self.raft.server_metrics();
        let leader = metrics.borrow_watched().current_leader;
        leader.filter(|leader| *leader != self.options.member_id)
    }

    fn client(&self, leader: u64) -> Result<Client, Unavailable> {
        let metrics = self.raft.metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        self.peers.client(leader, stored.membership())
    }

    /// Opens a stream. As long as it is not accepted, nothing is handed over.
    async fn open(&self, leader: u64) -> Option<(Line, mpsc::Sender<wire::ForwardBatch>)> {
        let mut client = self.client(leader).ok()?;
        let (batches, outgoing) = mpsc::channel(1);
        let opening = client.forward_many(ReceiverStream::new(outgoing));
        match clock::timeout(self.options.election_timeout, opening).await {
            Ok(Ok(response)) => {
                let peer = self.metrics.network.peer(leader);
                let answers = response.into_inner();
                let line = Line { leader, answers, under_way: BTreeMap::new(), number: 0, batch: 0, peer };
                return Some((line, batches));
            }
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                probe::reached("forwarded-one-by-one");
                *self.one_by_one.lock() = Some((leader, clock::now() + ASK_AGAIN));
                for passed in self.queue.take() {
                    // Who waited may have given up.
                    passed.reply.send(Ok(Told::OneByOne)).ok();
                }
            }
            Ok(Err(_)) | Err(_) => self.peers.turn(leader),
        }
        None
    }

    /// Sends batches over a stream and hands answers out, until it takes no more. What was taken to be sent, and was not,
    /// stays in `taken`.
    async fn send(
        &self,
        line: &mut Line,
        batches: &mpsc::Sender<wire::ForwardBatch>,
        taken: &mut VecDeque<Passed>,
    ) -> Then {
        let late = self.options.election_timeout;
        let mut moved = pin!(is_moved(&self.raft, line.leader));
        let mut together = pin!(self.queue.is_together());
        let mut look = pin!(clock::sleep(late / 2));
        loop {
            let has_room = line.under_way.len() < limits::FORWARDED_UNDER_WAY;
            tokio::select! {
                biased;
                // Answers make room.
                answers = line.answers.next() => {
                    let then = self.take_answers(line, answers);
                    if then != Then::GoesOn {
                        return then;
                    }
                }
                () = &mut moved => return Then::TakesNoMore,
                () = &mut look, if !line.under_way.is_empty() => {
                    if line.under_way.values().next().is_some_and(|oldest| clock::elapsed(oldest.at) >= late) {
                        probe::reached("forward-stream-late");
                        return Then::TakesNoMore;
                    }
                    look.set(clock::sleep(late / 2));
                }
                place = batches.reserve(), if !taken.is_empty() && has_room => match place {
                    Ok(place) => {
                        if let Some(batch) = self.batch(line, taken) {
                            place.send(batch);
                        }
                    }
                    // The transport takes nothing any more, and may bring answers.
                    Err(_) => return Then::TakesNoMore,
                },
                () = &mut together, if taken.is_empty() => {
                    together.set(self.queue.is_together());
                    for passed in self.queue.take() {
                        // Who came for another leader looks again.
                        if passed.leader == line.leader { taken.push_back(passed) } else { go_again(passed) }
                    }
                }
            }
        }
    }

    /// Makes a batch of what was taken, from the front, and counts it as under way. `None` where everybody gave up.
    fn batch(&self, line: &mut Line, taken: &mut VecDeque<Passed>) -> Option<wire::ForwardBatch> {
        let at = clock::now();
        let number = line.batch + 1;
        let mut proposals = Vec::new();
        let mut bytes = 0;
        while let Some(next) = taken.front() {
            bytes += next.command.len();
            let is_full = line.under_way.len() >= limits::FORWARDED_UNDER_WAY || bytes > limits::FORWARD_BATCH_BYTES;
            if is_full && !proposals.is_empty() {
                break;
            }
            let Some(Passed { command, reply, .. }) = taken.pop_front() else { break };
            // Whoever gave up before anything happened need not be served.
            if reply.is_closed() {
                bytes -= command.len();
                continue;
            }
            line.number += 1;
            line.peer.sent_bytes.inc_by(command.len() as u64);
            line.under_way.insert(line.number, Sent { batch: number, at, reply });
            proposals.push(Proposal { number: line.number, command });
        }
        if proposals.is_empty() {
            return None;
        }
        line.batch = number;
        let (cluster_id, member_id) = (self.options.cluster_id, self.options.member_id);
        let batch = wire::ForwardBatch { cluster_id, member_id, batch: number, proposals, crc32: 0 };
        Some(wire::ForwardBatch { crc32: checksum::of_batch(&batch), ..batch })
    }

    /// Hands answers to those who wait for them.
    fn take_answers(&self, line: &mut Line, answers: Option<Result<wire::ForwardAnswers, Status>>) -> Then {
        let answers = match answers {
            Some(Ok(answers)) => answers,
            Some(Err(status)) => {
                if status.message() == REMOVED {
                    self.options.removal.told_by_peer();
                }
                return Then::IsOver;
            }
            None => return Then::IsOver,
        };
        if answers.crc32 != checksum::of_answers(&answers) {
            self.metrics.network.checksum_failures.inc();
            let (from, error) = (format!("{:x}", line.leader), CodecError::Checksum);
            tracing::warn!("remote-peer-id" = from, %error, "refused answers from a peer");
            return Then::IsOver;
        }
        for answer in answers.answers {
            let Some(sent) = line.under_way.remove(&answer.number) else {
                tracing::warn!("remote-peer-id" = format!("{:x}", line.leader), "a peer answers what it was not asked");
                return Then::IsOver;
            };
            // Who waited may have given up.
            sent.reply.send(Ok(Told::Answer(answer))).ok();
        }
        match answers.refused_from {
            0 => Then::GoesOn,
            from => {
                probe::reached("forward-batch-damaged");
                line.are_refused(from);
                Then::TakesNoMore
            }
        }
    }

    /// Waits for the answers to what is under way on a stream that takes no more, for as long as anybody waits for them.
    async fn wait_for_the_rest(&self, mut line: Line) {
        let mut succeeded = pin!(is_succeeded(&self.raft, line.leader, self.options.election_timeout));
        let mut look = pin!(clock::sleep(self.options.election_timeout));
        while !line.under_way.is_empty() {
            tokio::select! {
                biased;
                answers = line.answers.next() => {
                    if self.take_answers(&mut line, answers) == Then::IsOver {
                        return line.breaks();
                    }
                }
                // Whoever was asked may hang, and its term is over: whether the commands take effect stays open.
                () = &mut succeeded => return line.end(Unavailable::TimeoutLeaderFailure),
                () = &mut look => {
                    // Who gave up is answered all the same, and with the others.
                    if line.under_way.values().all(|sent| sent.reply.is_closed()) {
                        return;
                    }
                    look.set(clock::sleep(self.options.election_timeout));
                }
            }
        }
    }
}

impl Line {
    /// The leader has looked at nothing from a batch on.
    fn are_refused(&mut self, from: u64) {
        // Batches are numbered as proposals are.
        let first = self.under_way.iter().find(|(_, sent)| sent.batch >= from).map(|(number, _)| *number);
        if let Some(first) = first {
            for sent in self.under_way.split_off(&first).into_values() {
                // Who waited may have given up.
                sent.reply.send(Err(Unavailable::NotLeader)).ok();
            }
        }
    }

    /// What is under way may have been proposed, or not.
    fn breaks(self) {
        if self.under_way.is_empty() {
            return;
        }
        probe::reached("forward-stream-broken");
        if probe::broken("forwarded-again-after-break") {
            // Wrong: what the leader had got by then takes effect twice.
            return self.end(Unavailable::NotLeader);
        }
        self.end(Unavailable::TimeoutConnectionLost);
    }

    fn end(self, why: Unavailable) {
        for sent in self.under_way.into_values() {
            // Who waited may have given up.
            sent.reply.send(Err(why)).ok();
        }
    }
}

/// Has a proposal go again that was never sent.
fn go_again(passed: Passed) {
    probe::reached("forward-never-sent");
    // Who waited may have given up.
    passed.reply.send(Err(Unavailable::NotLeader)).ok();
}

/// Resolves when another member is known to lead.
async fn is_moved(raft: &Raft, leader: u64) {
    let mut metrics = raft.server_metrics();
    while metrics.borrow_and_update().current_leader.is_none_or(|now| now == leader) {
        if metrics.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Resolves when another member has been known to lead for so long that the one before would have answered.
pub(super) async fn is_succeeded(raft: &Raft, leader: u64, election_timeout: Duration) {
    is_moved(raft, leader).await;
    clock::sleep(election_timeout / 2).await;
    probe::reached("forward-given-up");
}
