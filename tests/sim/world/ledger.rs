//! Every member's view of what it applies, gathered while it does.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use madsim::time::TimeHandle;
use mainstay_server::apply::AlarmView;
use mainstay_server::lease::LeaseView;
use mainstay_server::raft::AppliedObserver;
use mainstay_tests::checker::applied::{AlarmEntry, Applied, LeaseEntry, Position};

/// Leases and alarms are looked at behind every so many entries.
const LOOKED_AT_EVERY: u64 = 4;

/// A snapshot took the place of a member's state.
#[derive(Clone)]
pub(super) struct Restored {
    /// The member's name.
    pub(super) member: String,
    /// When, since the world began.
    pub(super) at: Duration,
}

/// What was applied by anybody. Clones are the same ledger.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    applied: Arc<Mutex<Applied>>,
    /// Who got a snapshot, and when.
    restored: Arc<Mutex<Vec<Restored>>>,
}

impl Ledger {
    /// The view of one life of a member, which begins behind what its store holds.
    pub(crate) fn of(&self, member: String, stored: Position) -> Arc<Life> {
        Arc::new(Life { ledger: self.clone(), member, last: Mutex::new(stored), views: OnceLock::new() })
    }

    /// Who got a snapshot so far.
    pub(super) fn restored(&self) -> Vec<Restored> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What did not fit together.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        self.applied().contradictions().to_vec()
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One life of a member.
pub(crate) struct Life {
    ledger: Ledger,
    member: String,
    last: Mutex<Position>,
    /// Its leases and its alarms, once it has a state.
    views: OnceLock<(LeaseView, AlarmView)>,
}

impl Life {
    /// From now on its leases and its alarms can be looked at.
    pub(crate) fn has_state(&self, leases: LeaseView, alarms: AlarmView) {
        self.views.set((leases, alarms)).ok();
    }

    fn moves_to(&self, index: u64) -> Position {
        std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), Position::At(index))
    }

    fn look(&self, behind: u64) {
        if behind.is_multiple_of(LOOKED_AT_EVERY)
            && let Some((leases, alarms)) = self.views.get()
        {
            let raised = alarms.all().into_iter();
            let raised = raised.map(|alarm| AlarmEntry { kind: alarm.alarm, member: alarm.member_id }).collect();
            let mut applied = self.ledger.applied();
            applied.leases(&self.member, behind, entries(leases));
            applied.alarms(&self.member, behind, raised);
        }
    }
}

/// The leases that a member has.
pub(crate) fn entries(leases: &LeaseView) -> Vec<LeaseEntry> {
    let terms = leases.terms().into_iter();
    let entry = |term: mainstay_server::lease::LeaseTerm| LeaseEntry {
        id: term.id,
        ttl: term.ttl,
        remaining: term.remaining,
        keys: leases.keys(term.id).iter().map(|key| key.to_vec()).collect(),
    };
    terms.map(entry).collect()
}

impl AppliedObserver for Life {
    fn applying(&self, index: u64, term: u64, payload: &[u8]) {
        let behind = self.moves_to(index);
        if let Position::At(before) = behind {
            self.look(before);
        }
        self.ledger.applied().entry(&self.member, behind, index, term, crc32fast::hash(payload));
    }

    fn restored(&self, index: u64, _term: u64) {
        let restored = Restored { member: self.member.clone(), at: TimeHandle::current().elapsed() };
        self.ledger.restored.lock().unwrap_or_else(PoisonError::into_inner).push(restored);
        self.moves_to(index);
        self.look(index);
    }
}
