//! Committed entries, run by run, into the state: one engine write a run, then readers, watchers
//! and callers learn of it, in that order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use mainstay_proto::mvccpb::event::EventType;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::addresses::Addresses;
use super::codec;
use super::departures::Departures;
use super::progress::Progress;
use super::removal::Removal;
use super::snapshot::{Position, Snapshot, SnapshotBuilder, SnapshotData};
use super::timeline::{Passage, Timeline};
use super::type_config::{Applied, EncodedCommand, Entry, LogId, StoredMembership, Times, TypeConfig};
use crate::apply::{self, Origin, State};
use crate::auth::{SimpleTokens, TokenChange};
use crate::command::{self, Outcome, Refusal};
use crate::engine::layout::meta;
use crate::engine::{Batch, EngineError, Family};
use crate::env::{blocking, clock, probe};
use crate::lease::Lessor;
use crate::limits;
use crate::metrics::{LogStages, Metrics, Operation};
use crate::mvcc::RevisionEvents;
use crate::watch::Hub;

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Whom the state machine tells what it did.
pub(crate) struct Audience {
    /// Gets the events of every revision, after readers can see them.
    pub(crate) hub: Hub,
    /// Learn which tokens were given and which no longer count.
    pub(crate) tokens: SimpleTokens,
    /// Learns which leases came and went.
    pub(crate) lessor: Lessor,
    /// Carries the index of the last entry that readers can see.
    pub(crate) applied: Progress,
    /// Wakes the background compaction.
    pub(crate) compaction: Arc<tokio::sync::Notify>,
    /// Is told where members are reached.
    pub(crate) addresses: Addresses,
    /// Is told which members were removed.
    pub(crate) removal: Removal,
    /// Counts what commands did, and how long that took.
    pub(crate) metrics: Arc<Metrics>,
    /// A command that takes longer to apply is slow.
    pub(crate) slow_apply: Duration,
    /// Learns of a failure of the engine that openraft does not learn of.
    pub(crate) failure: watch::Sender<Option<String>>,
    /// Is shown what goes into the state.
    pub(crate) observer: Option<Arc<dyn AppliedObserver>>,
}

/// Is shown what goes into a member's state, to compare members with each other.
///
/// It is called by the state machine, which waits for it. After a restart, entries beyond the
/// durable state are shown again.
pub trait AppliedObserver: Send + Sync {
    /// The next entry is about to be applied; the payload's bytes are as in the log.
    fn applying(&self, index: u64, term: u64, payload: &[u8]);

    /// A snapshot took the state's place; the next entry follows this one.
    fn restored(&self, index: u64, term: u64);
}

/// The owner of the replicated state.
pub struct StateMachine {
    state: State,
    audience: Audience,
    applied: Position,
    /// The position of the last snapshot that openraft was told of.
    reported: Option<LogId>,
    /// When entries came this far.
    timeline: Timeline,
    stages: LogStages,
    /// The checkpoints that are on their way to others.
    departures: Departures,
    /// Set once openraft has read the initial state; before that no snapshot is offered, or it
    /// would be installed over the state that it was taken of.
    started: Arc<AtomicBool>,
}

/// An answer that is held back until the run is readable, with the index of its entry.
type Pending = (u64, ApplyResponder<TypeConfig>, Outcome);

impl StateMachine {
    /// Takes over an opened state.
    pub(crate) fn new(
        mut state: State,
        audience: Audience,
        started: Arc<AtomicBool>,
        departures: Departures,
        timeline: Timeline,
    ) -> Result<Self, codec::CodecError> {
        let (mut log_id, membership) = codec::applied_from_bytes(state.applied())?;
        state.goes_to(log_id.map_or(0, |log_id| log_id.index));
        if let Some(last) = &mut log_id {
            probe::reached("restart-with-state");
            if probe::broken("apply-twice-after-restart") {
                // Wrong: the last command that the state includes is applied to it once more.
                last.index = last.index.saturating_sub(1);
            }
        }
        audience.addresses.set(membership.membership());
        audience.removal.removed(&state.members().removed());
        let applied = Position { log_id, membership };
        audience.applied.is_at(applied.log_id.map_or(0, |log_id| log_id.index));
        let stages = audience.metrics.server.proposal_stages.of_log();
        Ok(Self { state, audience, applied, reported: None, timeline, stages, departures, started })
    }

    /// Removes a slice of what was compacted; whether there is more to do.
    pub(crate) fn compact_slice(&mut self) -> io::Result<bool> {
        let slice = self.state.store.compact_slice().map_err(io::Error::other);
        self.audience.metrics.mvcc.db_compaction_keys_total.inc_by(self.state.store.take_buried());
        self.note_failure(slice)
    }

    /// An engine that failed once is not used again: what is in memory may be ahead of it.
    fn note_failure<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.audience.failure.send_replace(Some(format!("store: {error}")));
        }
        result
    }

    /// Ends this member, for a reason that openraft does not learn of.
    pub(crate) fn fail(&self, reason: String) {
        self.audience.failure.send_replace(Some(reason));
    }

    fn check_not_failed(&self) -> io::Result<()> {
        match &*self.audience.failure.borrow() {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }

    /// Makes the state durable, so that the next start has nothing to replay.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.flush_if_due(true)
    }

    /// Takes an entry into the run that is being gathered.
    fn take(&mut self, entry: &Entry) -> io::Result<Outcome> {
        self.applied.log_id = Some(entry.log_id);
        if let Some(observer) = &self.audience.observer {
            observer.applying(entry.log_id.index, codec::term_of(&entry.log_id), &codec::payload_to_bytes(entry));
        }
        match &entry.payload {
            EntryPayload::Blank => Ok(Outcome::default()),
            EntryPayload::Normal(EncodedCommand(bytes)) => {
                let (command, caller) = command::decode(bytes.clone()).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {error}", entry.log_id))
                })?;
                self.state.check_known(&command).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {error}", entry.log_id))
                })?;
                match &command {
                    command::command::Kind::Compaction(_) => self.audience.compaction.notify_one(),
                    command::command::Kind::RaiseFormat(request) => {
                        tracing::info!(format = request.format, "the members raise the format of the data");
                    }
                    _ => {}
                }
                let origin = Origin { index: entry.log_id.index, caller };
                let began = clock::now();
                let outcome = apply::apply(&mut self.state, &origin, &command).map_err(io::Error::other)?;
                self.measure(&command, &outcome, clock::elapsed(began));
                Ok(outcome)
            }
            EntryPayload::Membership(membership) => {
                self.change_members(StoredMembership::new(Some(entry.log_id), membership.clone()));
                Ok(Outcome::default())
            }
        }
    }

    /// Takes over who the members are from now on. Those who were and are no more never come back.
    fn change_members(&mut self, now: StoredMembership) {
        let before = std::mem::replace(&mut self.applied.membership, now);
        let now = self.applied.membership.membership();
        let removed: Vec<u64> = before.nodes().map(|(id, _)| *id).filter(|id| now.get_node(id).is_none()).collect();
        if !removed.is_empty() {
            probe::reached("member-removed");
            apply::remove_members(&mut self.state, &removed);
            self.audience.removal.removed(&removed);
        }
        self.audience.addresses.set(now);
    }

    fn measure(&self, command: &command::command::Kind, outcome: &Outcome, took: Duration) {
        let metrics = &self.audience.metrics;
        apply::count(metrics, outcome);
        // Who asks for what is compacted made no mistake that an operator should look at; as in etcd.
        let success = matches!(outcome.refusal(), Refusal::None | Refusal::Compacted);
        let operation = Operation::of(command);
        metrics.server.apply_duration_seconds.observe(operation, success, took);
        metrics.server.applied_in(operation, took, self.audience.slow_apply);
    }

    /// Ends a run: engine, then readers, then watchers and the lessor, then the callers.
    async fn finish(&mut self, answers: &mut Vec<Pending>) -> io::Result<()> {
        let position = codec::applied_to_bytes(self.applied.log_id.as_ref(), &self.applied.membership);
        let began = clock::now();
        let committed = self.state.commit(position).map_err(io::Error::other)?;
        let metrics = &self.audience.metrics;
        metrics.disk.backend_commit_duration_seconds.observe(clock::elapsed(began).as_secs_f64());
        // Before the run counts as applied: whoever waits for a token's index must find it.
        self.audience.tokens.change(committed.token_changes);
        if !committed.events.is_empty() {
            metrics.mvcc.total_put_size_in_bytes.add(put_bytes(&committed.events));
            self.audience.hub.publish(committed.events).await;
        }
        if !committed.lease_changes.is_empty() {
            self.audience.lessor.changed(committed.lease_changes).await;
        }
        if let Some(log_id) = self.applied.log_id {
            self.audience.applied.is_at(log_id.index);
        }
        self.answer(answers);
        self.flush_if_due(false)
    }

    /// Answers those who proposed what the run holds, and counts how long its entries took.
    fn answer(&mut self, answers: &mut Vec<Pending>) {
        if !answers.is_empty() {
            let applied = clock::now();
            let mut latest = None::<Passage>;
            for (index, responder, outcome) in answers.drain(..) {
                let passage = match latest {
                    Some(passage) if index <= passage.last => passage,
                    _ => self.timeline.passage(index, applied),
                };
                latest = Some(passage);
                self.stages.count(passage.took_to_flush(), passage.took_to_replicate(), passage.took_to_apply());
                responder.send(Applied { outcome, times: Times { proposed: passage.proposed, applied } });
            }
            self.stages.publish();
        }
        if let Some(log_id) = self.applied.log_id {
            self.timeline.forget_through(log_id.index);
        }
    }

    /// What the store holds of this member alone. It stays when another member's state takes the place
    /// of this one's.
    fn own_records(&self) -> Result<Batch, EngineError> {
        let mut own = Batch::default();
        if let Some(identity) = self.state.store.engine().get(Family::Meta, meta::IDENTITY)? {
            own.put(Family::Meta, meta::IDENTITY, identity);
        }
        Ok(own)
    }

    /// Goes on with making the state durable; to the end where that is forced.
    fn flush_if_due(&mut self, force: bool) -> io::Result<()> {
        self.state.store.maybe_flush(force).map(drop).map_err(io::Error::other)
    }

    /// Up to where the state is durable, and nobody is being sent an older one: below it the log is not needed, neither
    /// for a restart nor by who gets a snapshot.
    fn durable(&self) -> Result<Position, codec::CodecError> {
        let (log_id, membership) = codec::applied_from_bytes(self.state.store.durable_applied().unwrap_or_default())?;
        Ok(self.departures.let_go(Position { log_id, membership }))
    }

    /// Gives the last checkpoint up.
    async fn forget_departure(&mut self) {
        if let Some(former) = self.departures.forget() {
            // It may have files to remove.
            blocking(move || drop(former)).await;
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.log_id, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.check_not_failed()?;
        let mut answers = Vec::new();
        let (mut run, mut bytes) = (0, 0);
        while let Some(item) = entries.next().await {
            let mut item = Some(item);
            while let Some(next) = item.take() {
                let (entry, responder) = next?;
                // Wrong where it is broken: the state depends on how this member happened to cut its runs.
                let outcome = if run == 3 && probe::broken("member-diverges") {
                    self.applied.log_id = Some(entry.log_id);
                    Outcome::default()
                } else {
                    self.take(&entry)?
                };
                self.state.seal(entry.log_id.index);
                run += 1;
                bytes += match &entry.payload {
                    EntryPayload::Normal(EncodedCommand(command)) => command.len(),
                    EntryPayload::Blank | EntryPayload::Membership(_) => 0,
                };
                if let Some(responder) = responder {
                    answers.push((entry.log_id.index, responder, outcome));
                }
                if run < limits::APPLY_RUN_ENTRIES && bytes < limits::APPLY_RUN_BYTES {
                    item = entries.next().now_or_never().flatten();
                }
            }
            self.finish(&mut answers).await?;
            (run, bytes) = (0, 0);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let durable = self
            .durable()
            .inspect_err(|error| tracing::error!(%error, "the stored position cannot be read"))
            .unwrap_or_default();
        if !force && (durable.log_id.is_none() || durable.log_id == self.reported) {
            return None; // nothing became durable since: purging could not go further
        }
        self.reported = durable.log_id;
        Some(SnapshotBuilder { durable })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { durable: self.durable().unwrap_or_default() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let metrics = self.audience.metrics.clone();
        metrics.server.snapshot_apply_in_progress_total.inc();
        let installed = self.install(meta, snapshot).await;
        metrics.server.snapshot_apply_in_progress_total.dec();
        installed
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.started.load(Ordering::Acquire) || self.applied.log_id.is_none() {
            return Ok(None);
        }
        self.check_not_failed()?;
        let departure = match self.departures.depart_again(self.reported) {
            Some(again) => again,
            None => {
                self.forget_departure().await;
                let flushed = self.flush_if_due(true);
                self.note_failure(flushed)?;
                let checkpoint = self.state.store.engine().checkpoint().map_err(io::Error::other)?;
                self.departures.depart(self.applied.clone(), checkpoint)
            }
        };
        let position = departure.position().clone();
        Ok(Some(position.snapshot(SnapshotData::Checkpoint(departure))))
    }
}

impl StateMachine {
    /// Puts a snapshot in the state's place.
    async fn install(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let staged = match snapshot {
            SnapshotData::Received(staged) => staged,
            SnapshotData::Position | SnapshotData::Checkpoint(_) => {
                return Err(io::Error::other("a snapshot of this member's own cannot be installed"));
            }
        };
        let own = self.own_records().map_err(io::Error::other)?;
        self.forget_departure().await;
        self.state.release();
        let engine = staged.commit(own).map_err(io::Error::other)?;
        self.state.reopen(engine).map_err(io::Error::other)?;
        let (log_id, membership) = codec::applied_from_bytes(self.state.applied())?;
        self.state.goes_to(log_id.map_or(0, |log_id| log_id.index));
        if log_id != meta.last_log_id {
            return Err(io::Error::other(format!(
                "the snapshot holds the state at {log_id:?}, announced was {:?}",
                meta.last_log_id
            )));
        }
        self.audience.addresses.set(membership.membership());
        self.audience.removal.removed(&self.state.members().removed());
        self.applied = Position { log_id, membership };
        self.reported = log_id;
        // Commands that this member never saw may have ended any token: their users log in anew.
        self.audience.tokens.change(vec![TokenChange::AllGone]);
        self.audience.hub.restored().await;
        if let Some(log_id) = log_id {
            self.audience.applied.is_at(log_id.index);
            if let Some(observer) = &self.audience.observer {
                observer.restored(log_id.index, codec::term_of(&log_id));
            }
        }
        probe::reached("snapshot-installed");
        tracing::info!(index = log_id.map(|log_id| log_id.index), "applied snapshot");
        self.audience.compaction.notify_one();
        Ok(())
    }
}

/// Bytes of the keys and values that were put.
fn put_bytes(revisions: &[Arc<RevisionEvents>]) -> i64 {
    let events = revisions.iter().flat_map(|revision| &revision.events);
    let puts = events.filter(|event| event.r#type() == EventType::Put).filter_map(|event| event.kv.as_ref());
    puts.map(|kv| (kv.key.len() + kv.value.len()) as i64).sum()
}
