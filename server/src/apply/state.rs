use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::alarm::Alarms;
use super::auth::Users;
use super::digest::Digest;
use super::downgrade::Downgrade;
use super::format::Format;
use super::member::Members;
use super::{AlarmView, DigestView, DowngradeView, FormatView, MemberView};
use crate::auth::{AuthRecordError, AuthView, TokenChange};
use crate::command::command;
use crate::engine::layout::{NewerFormat, meta};
use crate::engine::{Engine, EngineError, Family};
use crate::env::probe;
use crate::lease::{LeaseChange, LeaseRecord, LeaseView, Leases, RecordError};
use crate::mvcc::{self, RevisionEvents, Store, Writer};

/// Everything that commands change.
///
/// | what | family | key → value |
/// |---|---|---|
/// | keys and values | `revisions`, `index`, `meta` | see `mvcc` |
/// | leases | `leases` | id → granted and remaining time to live ([`LeaseRecord`]) |
/// | alarms | `meta` | `alarms` → those raised, as an `AlarmResponse` |
/// | format | `meta` | `format` → which one all of this has, as a number |
/// | digest | `meta` | `digest` → what entries did, as one number, as a `StateDigest` |
/// | downgrade | `meta` | `downgrade` → the one that is announced, as a `DowngradeInfo` |
/// | users and roles | `auth` | see `auth` |
/// | attributes | `members` | id → `MemberAttributes` |
/// | applied position | `meta` | `applied` → opaque bytes of `raft` |
///
/// Changes of everything but keys and values are seen in the views as soon as they are applied, which
/// may be ahead of the published revision by the run that is under way; they are committed in any case.
pub struct State {
    /// Keys and values, and the batch of the run.
    pub store: Writer,
    pub(super) format: Format,
    pub(super) leases: Arc<RwLock<Leases>>,
    pub(super) alarms: Alarms,
    digest: Digest,
    pub(super) downgrade: Downgrade,
    pub(super) members: Members,
    pub(super) users: Users,
    /// What the run changed of leases so far.
    pub(super) lease_changes: Vec<LeaseChange>,
    applied: Bytes,
}

/// How a state is opened.
#[derive(Clone, Copy, Debug)]
pub struct StateOptions {
    /// Bytes of values that may be kept in memory.
    pub cache_bytes: u64,
    /// The newest format that is known.
    pub newest_format: u32,
}

/// What a run of commands did, to be told in this order to the watch hub and the lease expirer.
#[derive(Debug, Default)]
pub struct Committed {
    /// The events of each revision of the run.
    pub events: Vec<Arc<RevisionEvents>>,
    /// The changes of leases.
    pub lease_changes: Vec<LeaseChange>,
    /// What became of the tokens of this member, to be done before the run counts as applied.
    pub token_changes: Vec<TokenChange>,
}

/// Why a state could not be opened. Fatal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer release wrote it.
    #[error(transparent)]
    NewerFormat(#[from] NewerFormat),
    /// What stands in the place of the format is none.
    #[error("the stored format is malformed: {0:?}")]
    Format(Bytes),
    /// Keys and values could not be loaded.
    #[error(transparent)]
    Store(#[from] mvcc::OpenError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A stored lease is malformed.
    #[error(transparent)]
    Lease(#[from] RecordError),
    /// The stored alarms are malformed.
    #[error("the stored alarms are malformed: {0}")]
    Alarms(prost::DecodeError),
    /// The stored digest is malformed.
    #[error("the stored digest is malformed: {0}")]
    Digest(prost::DecodeError),
    /// The stored downgrade is malformed.
    #[error("the stored downgrade is malformed: {0}")]
    Downgrade(prost::DecodeError),
    /// The stored users and roles are malformed.
    #[error(transparent)]
    Auth(#[from] AuthRecordError),
    /// Stored attributes of a member are malformed.
    #[error("the stored attributes of a member are malformed: {0}")]
    Member(prost::DecodeError),
}

impl State {
    /// Loads the state that an engine holds.
    pub fn open(engine: Arc<dyn Engine>, options: StateOptions) -> Result<Self, OpenError> {
        let mut format = Format::new(options.newest_format);
        format.load(&*engine)?;
        let mut state = Self {
            store: Writer::open(engine, options.cache_bytes)?,
            format,
            leases: Arc::default(),
            alarms: Alarms::default(),
            digest: Digest::default(),
            downgrade: Downgrade::default(),
            members: Members::default(),
            users: Users::default(),
            lease_changes: Vec::new(),
            applied: Bytes::new(),
        };
        state.load()?;
        Ok(state)
    }

    /// A reader of keys and values.
    pub fn store(&self) -> Store {
        self.store.store()
    }

    /// A reader of leases.
    pub fn leases(&self) -> LeaseView {
        LeaseView::new(self.leases.clone())
    }

    /// A reader of alarms.
    pub fn alarms(&self) -> AlarmView {
        self.alarms.view()
    }

    /// A reader of what the state was made of.
    pub fn digest(&self) -> DigestView {
        self.digest.view()
    }

    /// A reader of which format the data have.
    pub fn format(&self) -> FormatView {
        self.format.view()
    }

    /// Refuses a command that this release cannot carry out, nor what comes after it.
    ///
    /// # Errors
    /// When it raises the format to one that is not known here.
    pub fn check_known(&self, command: &command::Kind) -> Result<(), NewerFormat> {
        self.format.check(command)
    }

    /// A reader of whether a downgrade is announced.
    pub fn downgrade(&self) -> DowngradeView {
        self.downgrade.view()
    }

    /// A reader of what members published of themselves.
    pub fn members(&self) -> MemberView {
        self.members.view()
    }

    /// A reader of users and roles.
    pub fn auth(&self) -> AuthView {
        self.users.view()
    }

    /// What was last passed to [`State::commit`]; empty when there was nothing yet.
    pub fn applied(&self) -> Bytes {
        self.applied.clone()
    }

    /// Is told up to where the state goes, which only `raft` can read, once it was opened.
    pub fn goes_to(&mut self, applied: u64) {
        self.digest.belongs_to(applied);
    }

    /// Ends one entry: what it wrote counts for the digest.
    pub fn seal(&mut self, index: u64) {
        self.digest.seal(index, self.store.batch());
    }

    /// Ends a run: writes it to the engine, with the applied position inside, and shows it to readers.
    pub fn commit(&mut self, applied: Bytes) -> Result<Committed, EngineError> {
        self.store.batch().put(Family::Meta, meta::APPLIED, applied.clone());
        self.digest.end_run(self.store.batch());
        self.format.declare(&**self.store.engine())?;
        let events = self.store.commit()?;
        self.digest.publish();
        self.applied = applied;
        Ok(Committed {
            events,
            lease_changes: std::mem::take(&mut self.lease_changes),
            token_changes: std::mem::take(&mut self.users.token_changes),
        })
    }

    /// Loads the state again after a received snapshot replaced the engine; views show the new one.
    pub fn reopen(&mut self, engine: Arc<dyn Engine>) -> Result<(), OpenError> {
        self.format.load(&*engine)?;
        self.store.reopen(engine)?;
        self.load()?;
        if probe::broken("snapshot-without-leases") {
            // Wrong: after a snapshot this member knows no lease.
            *self.leases.write() = Leases::default();
        }
        Ok(())
    }

    /// Drops every reference to the engine, so that it can be replaced. Until [`State::reopen`] reads of
    /// keys and values fail, and the other views show what was.
    pub fn release(&mut self) {
        self.store.release();
    }

    /// Loads everything but keys and values.
    fn load(&mut self) -> Result<(), OpenError> {
        let engine = self.store.engine().clone();
        let leases = load_leases(&engine, &self.store)?;
        *self.leases.write() = leases;
        self.alarms.load(&engine)?;
        self.downgrade.load(&engine)?;
        self.members.load(&engine)?;
        self.users.open(&engine)?;
        self.applied = engine.get(Family::Meta, meta::APPLIED)?.unwrap_or_default();
        self.digest.load(&engine, self.applied.is_empty())?;
        self.lease_changes.clear();
        Ok(())
    }
}

fn load_leases(engine: &Arc<dyn Engine>, store: &Writer) -> Result<Leases, OpenError> {
    let mut leases = Leases::default();
    let mut malformed = Ok(());
    engine.scan(Family::Leases, Bound::Unbounded, Bound::Unbounded, &mut |key, value| match LeaseRecord::decode(
        key, value,
    ) {
        Ok(record) => {
            leases.insert(record.id, record.ttl, record.remaining);
            ControlFlow::Continue(())
        }
        Err(error) => {
            malformed = Err(error);
            ControlFlow::Break(())
        }
    })?;
    malformed?;
    store.for_each_leased(&mut |key, id| leases.attach(id, key));
    Ok(leases)
}
