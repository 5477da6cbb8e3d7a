//! Every member's view of what it applies, gathered while it does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mainstay_server::lease::LeaseView;
use mainstay_server::raft::AppliedObserver;
use mainstay_tests::checker::applied::{Applied, LeaseEntry, Position};

/// Leases are looked at behind every so many entries.
const LEASES_EVERY: u64 = 4;

/// What was applied by anybody. Clones are the same ledger.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    applied: Arc<Mutex<Applied>>,
    /// Whether anybody has got a snapshot since this was last forgotten.
    restored: Arc<AtomicBool>,
}

impl Ledger {
    /// The view of one life of a member, which begins behind what its store holds.
    pub(crate) fn of(&self, member: String, stored: Position) -> Arc<Life> {
        let leases = OnceLock::new();
        Arc::new(Life { ledger: self.clone(), member, last: Mutex::new(stored), leases })
    }

    pub(super) fn forget_restored(&self) {
        self.restored.store(false, Ordering::Relaxed);
    }

    pub(super) fn was_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
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
    /// Its leases, once it has a state.
    leases: OnceLock<LeaseView>,
}

impl Life {
    /// From now on its leases can be looked at.
    pub(crate) fn has_leases(&self, leases: LeaseView) {
        self.leases.set(leases).ok();
    }

    fn moves_to(&self, index: u64) -> Position {
        std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), Position::At(index))
    }

    fn look_at_leases(&self, behind: u64) {
        if behind.is_multiple_of(LEASES_EVERY)
            && let Some(leases) = self.leases.get()
        {
            self.ledger.applied().leases(&self.member, behind, entries(leases));
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
            self.look_at_leases(before);
        }
        self.ledger.applied().entry(&self.member, behind, index, term, crc32fast::hash(payload));
    }

    fn restored(&self, index: u64, _term: u64) {
        self.ledger.restored.store(true, Ordering::Relaxed);
        self.moves_to(index);
        self.look_at_leases(index);
    }
}
