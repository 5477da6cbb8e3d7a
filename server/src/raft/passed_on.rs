//! What other members pass on to this one as the leader: commands of their clients, alone or as a stream.
//!
//! Each command is let in, checked, proposed and counted alike, whichever way it comes. On a stream, those of one batch
//! that find room are proposed together and answered together. What arrives damaged ends the reading of its stream: its
//! sender is told from which batch on nothing was looked at, and may send that again.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use futures_util::{FutureExt, Stream};
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::forward_answers::Answer;
use prometheus::IntCounter;
use prost::Message;
use tonic::Status;

use super::checksum;
use super::codec::CodecError;
use super::gateway::{Gateway, Unavailable};
use super::peer::{same_cluster, unavailable_to_status};
use super::removal::REMOVED;
use crate::admission::{Entering, Gate, Hold, Identity, Origin, Refused, Traffic};
use crate::apply::txn_grows;
use crate::command::{self, Outcome, command::Kind};
use crate::env::probe;
use crate::limits;
use crate::metrics::Metrics;

/// The answers on one stream.
pub(super) type AnswerStream = BoxStream<'static, Result<wire::ForwardAnswers, Status>>;

/// The way in for what members pass on.
pub(super) struct PassedOn {
    gateway: Gateway,
    admission: Gate,
    origin: Origin,
    metrics: Arc<Metrics>,
    /// Bytes of commands that members pass on; counted to nobody, as earlier releases do not say who they are.
    bytes: IntCounter,
}

/// What is to be proposed, and what it holds meanwhile.
struct Entered {
    hold: Hold,
    /// What it has to wait for first.
    entering: Option<Entering>,
}

impl PassedOn {
    pub(super) fn new(gateway: Gateway, admission: Gate, metrics: Arc<Metrics>) -> Self {
        let bytes = metrics.network.received_from_unknown();
        let origin = Origin { caller: Arc::new(Identity::Peers), is_json: false };
        Self { gateway, admission, origin, metrics, bytes }
    }

    /// Proposes a command that comes by itself.
    pub(super) async fn alone(&self, request: wire::ForwardRequest) -> Result<wire::ForwardResponse, Status> {
        same_cluster(&self.gateway, request.cluster_id)?;
        self.bytes.inc_by(request.command.len() as u64);
        if request.crc32.is_some_and(|sent| sent != checksum::of_command(&request.command)) {
            return Err(self.damaged(request.member_id));
        }
        let Entered { hold: _hold, entering } = self.enter(&request.command)?;
        let (index, outcome) = propose(&self.gateway, entering, request.command).await.map_err(refused)?;
        Ok(wire::ForwardResponse { index, outcome: Some(outcome) })
    }

    /// Proposes the commands of a stream as they come.
    pub(super) fn stream<S>(self: &Arc<Self>, batches: S) -> AnswerStream
    where
        S: Stream<Item = Result<wire::ForwardBatch, Status>> + Send + Unpin + 'static,
    {
        let serving = Serving {
            has_ended: self.gateway.has_ended(),
            passed_on: self.clone(),
            batches: Some(batches),
            last: 0,
            refused_from: 0,
            proposals: 0,
            under_way: FuturesUnordered::new(),
            answers: Vec::new(),
        };
        stream::unfold(Some(serving), Serving::next).boxed()
    }

    /// Refuses what arrived as something else than was sent.
    fn damaged(&self, from: u64) -> Status {
        self.metrics.network.checksum_failures.inc();
        let (from, error) = (format!("{from:x}"), CodecError::Checksum);
        tracing::warn!("remote-peer-id" = from, %error, "refused a command from a peer");
        Status::data_loss(error.to_string())
    }

    /// Lets a command in, or says what it has to wait for.
    fn enter(&self, command: &bytes::Bytes) -> Result<Entered, Status> {
        // Decoded before it is replicated: a command that cannot be applied must never be committed.
        let decoded = command::decode(command.clone());
        let (kind, _) = decoded.map_err(|error| Status::invalid_argument(error.to_string()))?;
        // Small commands are in what every request takes.
        let len = command.len() as u64;
        let bytes = if len > limits::MESSAGE_FREE_BYTES { limits::WRITE_COPIES * len } else { 0 };
        let entered = self.admission.enter(traffic(&kind), &self.origin, bytes);
        let (hold, entering) = entered.map_err(|Refused| unavailable_to_status(Unavailable::TooManyRequests))?;
        Ok(Entered { hold, entering })
    }
}

/// Proposes a command once there is room for it.
async fn propose(
    gateway: &Gateway,
    entering: Option<Entering>,
    command: bytes::Bytes,
) -> Result<(u64, Outcome), Unavailable> {
    if let Some(entering) = entering {
        entering.await.map_err(|Refused| Unavailable::TooManyRequests)?;
    }
    gateway.propose_for_peer(command).await
}

/// Why a command was not proposed, or what is not known of it.
fn refused(error: Unavailable) -> Status {
    probe::reached("forward-refused");
    unavailable_to_status(error)
}

/// What a command is to the server that another member passes on: that one does not say of which method it is.
fn traffic(command: &Kind) -> Traffic {
    match command {
        Kind::Put(_) => Traffic::Ordinary,
        // Some ends a leadership, or gives a lock back.
        Kind::Txn(request) => match txn_grows::<Infallible>(request, &mut |_| Ok(None)) {
            Ok(true) => Traffic::Ordinary,
            Ok(false) => Traffic::Control,
        },
        Kind::DeleteRange(_) => Traffic::Relief,
        _ => Traffic::Control,
    }
}

/// The answer to a proposal of a stream.
fn answer(number: u64, result: Result<(u64, Outcome), Status>) -> Answer {
    let result = result.and_then(|(index, outcome)| {
        let len = outcome.encoded_len();
        if len > limits::FORWARD_OUTCOME_BYTES {
            return Err(Status::out_of_range(format!("an outcome of {len} bytes is too large for a message")));
        }
        Ok((index, outcome.encode_to_vec().into()))
    });
    match result {
        Ok((index, outcome)) => Answer { number, index, outcome, code: 0, error: String::new() },
        Err(status) => {
            let (code, error) = (i32::from(status.code()).cast_unsigned(), status.message().to_owned());
            Answer { number, code, error, ..Answer::default() }
        }
    }
}

/// One stream: what comes in, and what is under way of it.
struct Serving<S> {
    passed_on: Arc<PassedOn>,
    /// `None` once nothing more is read.
    batches: Option<S>,
    /// The last batch that was looked at.
    last: u64,
    /// From which batch on nothing is looked at, until that was said.
    refused_from: u64,
    /// How many are under way.
    proposals: usize,
    under_way: FuturesUnordered<BoxFuture<'static, Vec<Answer>>>,
    /// Answers that wait to be sent.
    answers: Vec<Answer>,
    has_ended: BoxFuture<'static, ()>,
}

impl<S> Serving<S>
where
    S: Stream<Item = Result<wire::ForwardBatch, Status>> + Send + Unpin + 'static,
{
    /// The next answers, as soon as there are some.
    async fn next(serving: Option<Self>) -> Option<(Result<wire::ForwardAnswers, Status>, Option<Self>)> {
        let mut serving = serving?;
        loop {
            while let Some(Some(answers)) = serving.under_way.next().now_or_never() {
                serving.are_answered(answers);
            }
            if !serving.answers.is_empty() || serving.refused_from > 0 {
                let message = serving.message();
                return Some((Ok(message), Some(serving)));
            }
            if serving.batches.is_none() && serving.under_way.is_empty() {
                return None;
            }
            let has_room = serving.proposals < limits::FORWARDED_UNDER_WAY;
            tokio::select! {
                biased;
                // Answers make room.
                Some(answers) = serving.under_way.next() => serving.are_answered(answers),
                batch = next_of(&mut serving.batches), if has_room => match batch {
                    Some(Ok(batch)) => {
                        if let Err(status) = serving.take(batch) {
                            return Some((Err(status), None));
                        }
                    }
                    // What cannot be read was not looked at, nor is what comes behind it.
                    Some(Err(_)) => serving.reads_no_more(),
                    None => serving.batches = None,
                },
                () = &mut serving.has_ended => return None,
            }
        }
    }

    fn are_answered(&mut self, answers: Vec<Answer>) {
        self.proposals = self.proposals.saturating_sub(answers.len());
        self.answers.extend(answers);
    }

    fn reads_no_more(&mut self) {
        self.batches = None;
        self.refused_from = self.last + 1;
        // Wrong where it is broken: the batch before, which was proposed, is sent again, too.
        if self.last > 0 && probe::broken("refused-from-one-too-early") {
            self.refused_from = self.last;
        }
    }

    /// Proposes what a batch holds.
    fn take(&mut self, batch: wire::ForwardBatch) -> Result<(), Status> {
        let passed_on = &self.passed_on;
        if batch.crc32 != checksum::of_batch(&batch) || batch.batch != self.last + 1 {
            drop(passed_on.damaged(batch.member_id));
            self.reads_no_more();
            return Ok(());
        }
        same_cluster(&passed_on.gateway, batch.cluster_id)?;
        if passed_on.gateway.is_removed(batch.member_id) {
            return Err(Status::failed_precondition(REMOVED));
        }
        self.last = batch.batch;
        let (mut numbers, mut commands, mut holds) = (Vec::new(), Vec::new(), Vec::new());
        for wire::forward_batch::Proposal { number, command } in batch.proposals {
            passed_on.bytes.inc_by(command.len() as u64);
            match passed_on.enter(&command) {
                Ok(Entered { hold, entering: None }) => {
                    numbers.push(number);
                    commands.push(command);
                    holds.push(hold);
                }
                // The others do not wait for it.
                Ok(Entered { hold, entering }) => {
                    let gateway = passed_on.gateway.clone();
                    self.proposals += 1;
                    self.under_way.push(
                        async move {
                            let result = propose(&gateway, entering, command).await;
                            drop(hold);
                            vec![answer(number, result.map_err(refused))]
                        }
                        .boxed(),
                    );
                }
                Err(status) => self.answers.push(answer(number, Err(status))),
            }
        }
        if !numbers.is_empty() {
            let gateway = passed_on.gateway.clone();
            self.proposals += numbers.len();
            self.under_way.push(propose_together(gateway, numbers, commands, holds).boxed());
        }
        Ok(())
    }

    /// A message with as many of the answers as it may have.
    fn message(&mut self) -> wire::ForwardAnswers {
        let mut bytes = 0;
        let fits = self.answers.iter().take_while(|answer| {
            bytes += answer.outcome.len();
            bytes <= limits::FORWARD_BATCH_BYTES
        });
        let count = fits.count().max(1).min(self.answers.len());
        let later = self.answers.split_off(count);
        let answers = std::mem::replace(&mut self.answers, later);
        let message = wire::ForwardAnswers { answers, refused_from: std::mem::take(&mut self.refused_from), crc32: 0 };
        wire::ForwardAnswers { crc32: checksum::of_answers(&message), ..message }
    }
}

/// Proposes commands together; the answers to them.
async fn propose_together(
    gateway: Gateway,
    numbers: Vec<u64>,
    mut commands: Vec<bytes::Bytes>,
    holds: Vec<Hold>,
) -> Vec<Answer> {
    let results = match commands.pop() {
        // By itself it goes where no other waits.
        Some(single) if commands.is_empty() => vec![gateway.propose_for_peer(single).await],
        last => {
            commands.extend(last);
            gateway.propose_for_peer_together(commands).await
        }
    };
    drop(holds);
    let results = numbers.into_iter().zip(results);
    results.map(|(number, result)| answer(number, result.map_err(refused))).collect()
}

/// The next item, of a stream that is still read.
async fn next_of<S: Stream + Unpin>(stream: &mut Option<S>) -> Option<S::Item> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}
