//! The newest records of live keys in memory, within a budget.
//!
//! An entry of the index names its slot; the slot knows whose record it holds, so that a slot that
//! was given to another record is noticed and nobody has to be told of an eviction.
//! Eviction is a clock: a slot that was read since the hand last passed is passed once more.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::super::Revision;
use super::entry::NO_SLOT;

/// What a cached record costs beside its bytes.
const SLOT_BYTES: u64 = 64;

/// Records by slot.
pub(crate) struct Cache {
    slots: Vec<Slot>,
    /// Slots that belong to no revision.
    free: Vec<u32>,
    hand: usize,
    used_bytes: u64,
    budget_bytes: u64,
}

struct Slot {
    /// Whose record this is; none has revision 0.
    revision: Revision,
    /// Empty until it is filled: the revision is not published yet.
    record: Bytes,
    was_read: AtomicBool,
}

impl Cache {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), hand: 0, used_bytes: 0, budget_bytes }
    }

    /// Bytes that the cached records take.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The record of a revision, if the slot holds it.
    pub(crate) fn get(&self, slot: u32, revision: Revision) -> Option<&Bytes> {
        let slot = self.slots.get(slot as usize).filter(|slot| slot.revision == revision && !slot.record.is_empty())?;
        // Looked at first: most are marked already, and a look does not take the line from other readers.
        if !slot.was_read.load(Ordering::Relaxed) {
            slot.was_read.store(true, Ordering::Relaxed);
        }
        Some(&slot.record)
    }

    /// Sets a slot aside for the record of a revision.
    pub(crate) fn reserve(&mut self, revision: Revision) -> u32 {
        let new = Slot { revision, record: Bytes::new(), was_read: AtomicBool::new(false) };
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = new;
            return slot;
        }
        let Some(slot) = u32::try_from(self.slots.len()).ok().filter(|slot| *slot != NO_SLOT) else {
            return NO_SLOT; // four billion records are cached: this one stays cold
        };
        self.slots.push(new);
        slot
    }

    /// Takes a record into its slot, whatever the budget says, unless the slot was given up.
    pub(crate) fn fill(&mut self, slot: u32, revision: Revision, record: Bytes) {
        if let Some(slot) = self.slots.get_mut(slot as usize).filter(|slot| slot.revision == revision) {
            self.used_bytes += cost(&record);
            slot.record = record;
        }
    }

    /// Gives up the slot of a revision.
    pub(crate) fn remove(&mut self, slot: u32, revision: Revision) {
        if self.slots.get(slot as usize).is_some_and(|slot| slot.revision == revision) {
            self.clear(slot as usize);
        }
    }

    /// Whether one more record of this size fits without evicting another.
    pub(crate) fn has_room(&self, record: &Bytes) -> bool {
        self.used_bytes + cost(record) <= self.budget_bytes
    }

    /// Evicts until the budget holds.
    pub(crate) fn evict(&mut self) {
        // Two rounds reach every slot: the first may only take their marks away.
        let mut steps = 2 * self.slots.len();
        while self.used_bytes > self.budget_bytes && steps > 0 {
            steps -= 1;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if !slot.record.is_empty() && !std::mem::take(slot.was_read.get_mut()) {
                self.clear(self.hand);
            }
        }
    }

    fn clear(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let record = std::mem::take(&mut slot.record);
        slot.revision = Revision::default();
        if !record.is_empty() {
            self.used_bytes -= cost(&record);
        }
        self.free.push(index as u32);
    }
}

fn cost(record: &Bytes) -> u64 {
    record.len() as u64 + SLOT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    fn insert(cache: &mut Cache, main: i64) -> u32 {
        let slot = cache.reserve(at(main));
        cache.fill(slot, at(main), Bytes::from_static(&[0; 36]));
        slot
    }

    #[test]
    fn what_was_read_outlives_what_was_not() {
        let mut cache = Cache::new(200);
        let slots: Vec<u32> = (2..5).map(|main| insert(&mut cache, main)).collect();
        assert!(cache.get(slots[0], at(2)).is_some() && cache.get(slots[2], at(4)).is_some());
        cache.evict();
        assert_eq!(cache.used_bytes(), 200);
        assert!(cache.get(slots[1], at(3)).is_none());
        assert!(cache.get(slots[0], at(2)).is_some() && cache.get(slots[2], at(4)).is_some());
    }

    #[test]
    fn without_a_budget_everything_goes_but_what_waits_for_its_record() {
        let mut cache = Cache::new(0);
        let waiting = cache.reserve(at(2));
        let slot = insert(&mut cache, 3);
        cache.evict();
        assert!(cache.get(slot, at(3)).is_none());
        cache.fill(waiting, at(2), Bytes::from_static(b"r"));
        assert!(cache.get(waiting, at(2)).is_some());
    }

    #[test]
    fn a_slot_that_was_given_away_is_noticed() {
        let mut cache = Cache::new(1000);
        let slot = insert(&mut cache, 2);
        cache.remove(slot, at(2));
        assert_eq!(cache.used_bytes(), 0);
        assert_eq!(cache.reserve(at(3)), slot);
        cache.fill(slot, at(2), Bytes::from_static(b"r"));
        assert!(cache.get(slot, at(2)).is_none() && cache.get(slot, at(3)).is_none());
        cache.remove(slot, at(2));
        cache.fill(slot, at(3), Bytes::from_static(b"r"));
        assert!(cache.get(slot, at(3)).is_some());
    }
}
