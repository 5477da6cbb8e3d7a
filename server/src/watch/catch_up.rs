//! Which of the lagging watchers are told history next (pure).
//!
//! Watchers wait here at their next revision. A caravan of them travels through the history that
//! only the store has: it sets out from the oldest one that waits, takes everyone along whose
//! revision it comes by, and arrives where the revisions in memory begin. So every slice is read
//! once for all, and nobody waits longer than one journey for the next to set out.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use mainstay_proto::KeyRange;

use super::WatcherKey;
use super::bounds::Bounds;
use super::delivery::{Kept, Recorded};
use super::group::Group;
use super::matching::{self, Hit};
use crate::mvcc::EventSlice;

/// The lagging watchers that could go on.
pub(super) struct CatchUp {
    bounds: Bounds,
    /// Those that wait, with their next revision.
    waiting: BTreeSet<(i64, WatcherKey)>,
    caravan: Caravan,
    /// Counts replacements of the store: what was read before the last one is void.
    epoch: u64,
}

/// The watchers that travel together.
#[derive(Default)]
struct Caravan {
    group: Group,
    members: BTreeSet<WatcherKey>,
    /// The next revision of all members.
    position: i64,
    /// What was read from `position` on, and is not told yet.
    slice: Option<Slice>,
    is_reading: bool,
}

struct Slice {
    revisions: VecDeque<Arc<Recorded>>,
    /// The revision after the slice. Below it there is nothing else: a revision without events is possible.
    end: i64,
}

/// A slice of history that is to be read from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) max_bytes: usize,
    epoch: u64,
}

/// A part of the journey: revisions, and whom they concern.
pub(super) struct Stage {
    pub(super) revisions: Vec<Arc<Recorded>>,
    /// In order, so that the hits of each watcher stand together.
    pub(super) hits: Vec<Hit>,
}

impl CatchUp {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: BTreeSet::new(), caravan: Caravan::default(), epoch: 0 }
    }

    /// Lets a watcher wait at its next revision.
    pub(super) fn wait(&mut self, next: i64, watcher: WatcherKey) {
        self.waiting.insert((next, watcher));
    }

    /// Forgets a watcher that waited.
    pub(super) fn forget(&mut self, next: i64, watcher: WatcherKey) {
        self.waiting.remove(&(next, watcher));
    }

    /// Lets a watcher leave the caravan.
    pub(super) fn leave(&mut self, range: &KeyRange, watcher: WatcherKey) {
        self.caravan.group.remove(range, watcher);
        self.caravan.members.remove(&watcher);
    }

    /// Takes out one of those that wait at `from` or later, the oldest.
    pub(super) fn take_waiting_from(&mut self, from: i64) -> Option<WatcherKey> {
        let entry = *self.waiting.range((from, WatcherKey(0))..).next()?;
        self.waiting.remove(&entry);
        Some(entry.1)
    }

    /// Takes out one of those that wait below a revision.
    pub(super) fn take_waiting_below(&mut self, revision: i64) -> Option<WatcherKey> {
        let entry = *self.waiting.first().filter(|(next, _)| *next < revision)?;
        self.waiting.remove(&entry);
        Some(entry.1)
    }

    /// Ends the journey and names those who travelled, with their next revision.
    pub(super) fn dissolve(&mut self) -> (i64, BTreeSet<WatcherKey>) {
        let caravan = mem::take(&mut self.caravan);
        // The read that is under way ends some time, and nobody wants it.
        self.caravan.is_reading = caravan.is_reading;
        self.epoch += 1;
        (caravan.position, caravan.members)
    }

    /// The next revision of those who travel, if there are any.
    pub(super) fn position(&self) -> Option<i64> {
        (!self.caravan.members.is_empty()).then_some(self.caravan.position)
    }

    /// Whether somebody waits at `from` or later.
    pub(super) fn has_waiting_from(&self, from: i64) -> bool {
        self.waiting.range((from, WatcherKey(0))..).next().is_some()
    }

    /// Whether a slice is there to be handed out.
    pub(super) fn has_slice(&self) -> bool {
        self.caravan.slice.is_some()
    }

    /// Decides what to read next, of the history up to `to`.
    pub(super) fn plan(&mut self, to: i64, max_bytes: usize) -> Option<Plan> {
        let caravan = &mut self.caravan;
        if caravan.is_reading || caravan.slice.is_some() {
            return None;
        }
        if caravan.members.is_empty() {
            caravan.position = self.waiting.first()?.0;
        }
        if caravan.position > to {
            return None;
        }
        caravan.is_reading = true;
        Some(Plan { from: caravan.position, to, max_bytes, epoch: self.epoch })
    }

    /// Takes what was read for the plan; `false` where it did not get anybody further.
    pub(super) fn read(&mut self, plan: Plan, slice: Option<EventSlice>, kept: &Kept) -> bool {
        self.caravan.is_reading = false;
        if plan.epoch != self.epoch {
            return true;
        }
        let Some(slice) = slice.filter(|slice| slice.next > plan.from) else { return false };
        let revisions = slice.revisions.into_iter().map(|events| Recorded::new(events, kept.clone())).collect();
        self.caravan.slice = Some(Slice { revisions, end: slice.next });
        true
    }

    /// Travels on through the slice, a bounded part of it. `range` tells the range of a watcher that
    /// is taken along, and marks it as travelling.
    pub(super) fn travel(&mut self, mut range: impl FnMut(WatcherKey) -> KeyRange) -> Stage {
        let mut stage = Stage { revisions: Vec::new(), hits: Vec::new() };
        let Some(mut slice) = self.caravan.slice.take() else { return stage };
        let mut events = 0;
        while events < self.bounds.step_events && stage.hits.len() < self.bounds.step_hits {
            let Some(recorded) = slice.revisions.pop_front() else {
                self.advance(slice.end, &mut range);
                break;
            };
            self.advance(recorded.revision() + 1, &mut range);
            matching::find(&self.caravan.group, stage.revisions.len(), &recorded, &mut stage.hits);
            events += recorded.revision_events.events.len();
            stage.revisions.push(recorded);
        }
        // Without companions the journey is over.
        if self.caravan.position < slice.end && !self.caravan.members.is_empty() {
            self.caravan.slice = Some(slice);
        }
        stage.hits.sort_unstable();
        stage
    }

    /// Moves the caravan and takes along who waits on the way.
    fn advance(&mut self, position: i64, range: &mut impl FnMut(WatcherKey) -> KeyRange) {
        let caravan = &mut self.caravan;
        let on_the_way = (caravan.position, WatcherKey(0))..(position, WatcherKey(0));
        let joining: Vec<(i64, WatcherKey)> = self.waiting.range(on_the_way).copied().collect();
        for entry in joining {
            self.waiting.remove(&entry);
            caravan.group.insert(&range(entry.1), entry.1);
            caravan.members.insert(entry.1);
        }
        caravan.position = position;
    }
}
