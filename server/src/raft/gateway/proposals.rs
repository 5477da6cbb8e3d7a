//! From a command to its outcome: here or at the leader, within the request timeout.

use std::future::Future;
use std::pin::{Pin, pin};

use bytes::Bytes;
use mainstay_proto::mainstay as wire;
use openraft::error::ClientWriteError;
use openraft::impls::ProgressResponder;

use super::forwarding::is_succeeded;
use super::gathering::Answer as Answered;
use super::{Gateway, RETRY_INTERVAL, Unavailable, ask};
use crate::command::{self, Caller, Command, Outcome, command as kind};
use crate::env::clock::Instant;
use crate::env::{clock, probe};
use crate::metrics::Operation;
use crate::raft::type_config::{Applied, EncodedCommand, Times, TypeConfig};
use crate::raft::{checksum, codec};

/// An outcome, and when its entry was proposed and applied, where this member led.
type Answer = (Outcome, Option<Times>);

impl Gateway {
    /// Replicates a command of a caller and returns its outcome, from any member.
    ///
    /// When it returns, this member's own state includes the command. A timeout leaves open whether
    /// the command takes effect.
    pub async fn propose(&self, caller: Option<Caller>, command: kind::Kind) -> Result<Outcome, Unavailable> {
        let operation = Operation::of(&command);
        self.measured(operation, pin!(self.admit(caller, command))).await
    }

    /// Proposes unless that would be too large or too much.
    async fn admit(&self, caller: Option<Caller>, command: kind::Kind) -> Result<Answer, Unavailable> {
        let bytes = command::encode(&Command { kind: Some(command), caller });
        if bytes.len() > self.inner.options.request_bytes_max {
            return Err(Unavailable::TooLarge);
        }
        let _permit = self.inner.proposals.try_acquire().map_err(|_| {
            probe::reached("proposal-refused-for-number");
            Unavailable::TooManyRequests
        })?;
        if self.lags() {
            probe::reached("proposal-refused-for-load");
            return Err(Unavailable::TooManyRequests);
        }
        self.within_timeout(pin!(self.propose_anywhere(bytes))).await
    }

    /// Replicates a command only if this member leads in `term`; for duties that a deposed leader must not carry out.
    pub async fn propose_as_leader(&self, term: u64, command: kind::Kind) -> Result<Outcome, Unavailable> {
        let operation = Operation::of(&command);
        let bytes = command::encode(&Command { kind: Some(command), caller: Some(command::cluster_itself()) });
        let proposed = async {
            let proposed = self.within_timeout(pin!(self.propose_here(bytes, Some(term)))).await;
            proposed.map(|(_, applied)| here(applied))
        };
        self.measured(operation, pin!(proposed)).await
    }

    /// Counts how long a proposal takes and whether it fails; a refusal is no failure of consensus.
    async fn measured(
        &self,
        operation: Operation,
        proposal: Pin<&mut impl Future<Output = Result<Answer, Unavailable>>>,
    ) -> Result<Outcome, Unavailable> {
        let received = clock::now();
        let result = proposal.await;
        let replied = clock::now();
        let server = &self.inner.metrics.server;
        let took = replied.saturating_duration_since(received);
        server.request_duration_seconds.observe(operation, result.is_ok(), took);
        match &result {
            Ok((_, Some(times))) => self.count_stages(received, times, replied),
            Ok((_, None)) => server.proposal_stages.forwarded.observe(took.as_secs_f64()),
            // These were not proposed at all.
            Err(Unavailable::TooLarge | Unavailable::TooManyRequests | Unavailable::Stopped) => {}
            Err(_) => server.proposals_failed_total.inc(),
        }
        result.map(|(outcome, _)| outcome)
    }

    /// Counts the first and the last stage of a proposal; those in between the state machine counts.
    fn count_stages(&self, received: Instant, times: &Times, replied: Instant) {
        let stages = &self.inner.metrics.server.proposal_stages;
        stages.proposed.observe(times.proposed.saturating_duration_since(received).as_secs_f64());
        stages.replied.observe(replied.saturating_duration_since(times.applied).as_secs_f64());
    }

    /// Proposes on this member as the leader what another one passes on; the index and the outcome of the entry.
    pub(crate) async fn propose_for_peer(&self, command: Bytes) -> Result<(u64, Outcome), Unavailable> {
        let received = clock::now();
        let (index, applied) = self.propose_here(command, None).await?;
        self.count_stages(received, &applied.times, clock::now());
        Ok((index, applied.outcome))
    }

    /// The same for commands that another one passes on together; what came of each, in order.
    pub(crate) async fn propose_for_peer_together(
        &self,
        commands: Vec<Bytes>,
    ) -> Vec<Result<(u64, Outcome), Unavailable>> {
        let received = clock::now();
        let (_under_way, _) = self.inner.gathering.begin(commands.len());
        let commands = commands.into_iter().map(EncodedCommand).collect();
        let answers = self.inner.gathering.propose_together(commands).await;
        let replied = clock::now();
        let outcomes = answers.into_iter().map(|answer| {
            let (index, applied) = in_place(answer?)?;
            self.count_stages(received, &applied.times, replied);
            Ok((index, applied.outcome))
        });
        outcomes.collect()
    }

    /// Proposes on this member as the leader; the index of the entry, and what came of it.
    async fn propose_here(&self, command: Bytes, term: Option<u64>) -> Result<(u64, Applied), Unavailable> {
        let (_under_way, gathers) = self.inner.gathering.begin(1);
        let answer = match term {
            None if gathers => self.inner.gathering.propose(EncodedCommand(command)).await?,
            _ => self.propose_alone(EncodedCommand(command), term).await?,
        };
        in_place(answer)
    }

    async fn propose_alone(&self, command: EncodedCommand, term: Option<u64>) -> Result<Answered, Unavailable> {
        let (responder, answer) = ProgressResponder::<TypeConfig, _>::complete_only();
        let write = self.inner.raft.write(command).responder(responder);
        let sent = match term {
            Some(term) => write.with_leader(codec::log_id(term, 0).leader_id).await,
            None => write.await,
        };
        sent.map_err(|_| Unavailable::Stopped)?;
        let answer = answer.await.map_err(|_| Unavailable::Stopped)?;
        Ok(answer.map(|response| (response.log_id, response.data)))
    }

    /// Proposes here or at the leader, again where it was certainly not appended.
    async fn propose_anywhere(&self, command: Bytes) -> Result<Answer, Unavailable> {
        loop {
            let result = match self.reachable_leader() {
                Some(leader) if leader == self.inner.options.member_id => {
                    self.propose_here(command.clone(), None).await.map(|(_, applied)| here(applied))
                }
                Some(leader) => Box::pin(self.forward(leader, command.clone())).await.map(|outcome| (outcome, None)),
                None => Err(Unavailable::NotLeader),
            };
            match result {
                Err(Unavailable::NotLeader) => clock::sleep(RETRY_INTERVAL).await,
                Err(Unavailable::TimeoutConnectionLost | Unavailable::TimeoutLeaderFailure)
                    if probe::broken("retry-unknown-write") =>
                {
                    // Wrong: the command may have been appended, and then takes effect twice.
                    clock::sleep(RETRY_INTERVAL).await;
                }
                result => return result,
            }
        }
    }

    /// Has the leader propose a command, which is applied here by then, too.
    async fn forward(&self, leader: u64, command: Bytes) -> Result<Outcome, Unavailable> {
        probe::reached("proposal-forwarded");
        let (index, outcome) = match self.inner.forwarding.pass_on(leader, command.clone()).await? {
            Some(answer) => answer,
            None => Box::pin(self.forward_alone(leader, command)).await?,
        };
        // Whoever wrote through this member must find the write here. Wrong where it is broken: it may not.
        if !probe::broken("reply-before-apply") {
            self.wait_applied(index).await?;
        }
        Ok(outcome)
    }

    /// Has a leader of an older release propose a command, which takes them one by one; its entry and the outcome.
    async fn forward_alone(&self, leader: u64, command: Bytes) -> Result<(u64, Outcome), Unavailable> {
        let (cluster_id, member_id) = (self.inner.options.cluster_id, self.inner.options.member_id);
        let crc32 = Some(checksum::of_command(&command));
        let request = wire::ForwardRequest { cluster_id, command, crc32, member_id };
        let client = self.client(leader)?;
        self.inner.metrics.network.peer(leader).sent_bytes.inc_by(request.command.len() as u64);
        let answer = ask(client, |mut client| async move { client.forward(request).await });
        let response = tokio::select! {
            biased;
            answer = answer => answer?,
            // Whoever was asked may hang, and its term is over: whether the command takes effect stays open.
            () = is_succeeded(&self.inner.raft, leader, self.inner.options.election_timeout) => {
                return Err(Unavailable::TimeoutLeaderFailure);
            }
        };
        let outcome = response.outcome.ok_or(Unavailable::TimeoutConnectionLost)?;
        Ok((response.index, outcome))
    }
}

/// The index of an entry and what came of it, or how far the command got otherwise.
fn in_place(answer: Answered) -> Result<(u64, Applied), Unavailable> {
    match answer {
        Ok((log_id, applied)) => Ok((log_id.index, applied)),
        // Never appended: the caller may ask another member.
        Err(ClientWriteError::ForwardToLeader(_)) => Err(Unavailable::NotLeader),
        // It may or may not have been committed elsewhere.
        Err(_) => Err(Unavailable::TimeoutLeaderFailure),
    }
}

/// The answer where this member led.
fn here(applied: Applied) -> Answer {
    (applied.outcome, Some(applied.times))
}
