//! Who holds how much of a pool, and who is next to get some of it (pure: no clock, nobody is woken).
//!
//! Up to half of the pool whoever comes first may take. Beyond, a client may have its share and no more: the pool
//! divided by those who hold something or wait. The last eighth is for those who hold little altogether, so that a
//! client that comes late finds room though others never give back what they hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Identity;

/// Such a part of the pool is kept for those who hold little.
const KEPT: u64 = 8;
/// To hold such a part of the pool is little.
const LITTLE: u64 = 64;

/// A place in the queue of a pool; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The books of one pool of bytes.
pub(super) struct Ledger {
    capacity: u64,
    held: u64,
    /// Those who hold something or wait.
    accounts: BTreeMap<Arc<Identity>, Account>,
    /// Those who wait, in the order of their turns.
    turns: VecDeque<Arc<Identity>>,
    next_ticket: u64,
}

#[derive(Default)]
struct Account {
    held: u64,
    /// In the order in which they came.
    waiting: VecDeque<Wanted>,
}

#[derive(Clone, Copy)]
struct Wanted {
    ticket: Ticket,
    bytes: u64,
}

impl Ledger {
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, held: 0, accounts: BTreeMap::new(), turns: VecDeque::new(), next_ticket: 0 }
    }

    /// The size of the pool.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Makes the pool larger or smaller. What is held stays held.
    pub(super) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// What is taken of it.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.turns.iter().filter_map(|who| self.accounts.get(who)).map(|account| account.waiting.len()).sum()
    }

    /// The most that anybody ever gets.
    pub(super) fn most(&self) -> u64 {
        self.capacity - self.capacity / KEPT
    }

    /// Takes some for who comes now; whether that could be. Who already waits has to be asked for in the queue.
    pub(super) fn take(&mut self, who: &Arc<Identity>, bytes: u64) -> bool {
        let waits = self.accounts.get(who).is_some_and(|account| !account.waiting.is_empty());
        !waits && self.grow(who, bytes)
    }

    /// Takes some more for what is under way already; whether that could be. It goes before those who wait: it holds
    /// what they wait for.
    pub(super) fn grow(&mut self, who: &Arc<Identity>, bytes: u64) -> bool {
        let fits = self.fits(who, bytes);
        if fits && bytes > 0 {
            self.held += bytes;
            self.account(who).held += bytes;
        }
        fits
    }

    /// Gives some back that was taken.
    pub(super) fn give_back(&mut self, who: &Identity, bytes: u64) {
        let Some(account) = self.accounts.get_mut(who) else { return };
        let bytes = bytes.min(account.held);
        account.held -= bytes;
        self.held -= bytes;
        self.close_if_empty(who);
    }

    /// Lets somebody wait.
    pub(super) fn queue(&mut self, who: &Arc<Identity>, bytes: u64) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let account = self.account(who);
        let is_first = account.waiting.is_empty();
        account.waiting.push_back(Wanted { ticket, bytes });
        if is_first {
            self.turns.push_back(who.clone());
        }
        ticket
    }

    /// Takes somebody out of the queue; `false` where it got what it waited for.
    pub(super) fn give_up(&mut self, who: &Identity, ticket: Ticket) -> bool {
        let Some(account) = self.accounts.get_mut(who) else { return false };
        let Some(place) = account.waiting.iter().position(|wanted| wanted.ticket == ticket) else { return false };
        account.waiting.remove(place);
        if account.waiting.is_empty() {
            self.turns.retain(|other| **other != *who);
        }
        self.close_if_empty(who);
        true
    }

    /// Gives to those who wait what there is for them now: one client after the other, and each in its order.
    pub(super) fn grant(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        let mut passed = 0;
        while passed < self.turns.len() {
            let Some(who) = self.turns.pop_front() else { break };
            let first = self.accounts.get(&who).and_then(|account| account.waiting.front().copied());
            let Some(Wanted { ticket, bytes }) = first else { continue };
            if !self.fits(&who, bytes) {
                self.turns.push_back(who);
                passed += 1;
                continue;
            }
            self.held += bytes;
            let account = self.account(&who);
            account.held += bytes;
            account.waiting.pop_front();
            if !account.waiting.is_empty() {
                self.turns.push_back(who);
            }
            granted.push(ticket);
            passed = 0;
        }
        granted
    }

    fn fits(&self, who: &Identity, bytes: u64) -> bool {
        let known = self.accounts.get(who);
        let total = self.held.saturating_add(bytes);
        let own = known.map_or(0, |account| account.held).saturating_add(bytes);
        let clients = self.accounts.len() as u64 + u64::from(known.is_none());
        total <= self.capacity / 2
            || (total <= self.most() && own <= self.capacity / clients)
            || (total <= self.capacity && own <= self.capacity / LITTLE)
    }

    fn account(&mut self, who: &Arc<Identity>) -> &mut Account {
        self.accounts.entry(who.clone()).or_default()
    }

    fn close_if_empty(&mut self, who: &Identity) {
        if self.accounts.get(who).is_some_and(|account| account.held == 0 && account.waiting.is_empty()) {
            self.accounts.remove(who);
        }
    }
}

#[cfg(test)]
#[path = "tests/ledger.rs"]
mod tests;
