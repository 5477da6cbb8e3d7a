//! The checkpoints of this member that are on their way to others, and how much of the log stays for their sake.
//!
//! What is sent is old when it arrives. The entries since then must still be there, or the receiver would need the next
//! snapshot at once, and where much is written it would never catch up: so the log is purged no further than the oldest
//! checkpoint under way. (etcd does the same, for thirty seconds longer.)
//!
//! A transfer that breaks off is tried again soon. It then gets the checkpoint that it had, with all the files that the
//! receiver has a part of, and for nobody who is away does the store flush and link its files again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::snapshot::Position;
use super::type_config::LogId;
use crate::engine::Checkpoint;
use crate::env::clock::{self, Instant};
use crate::env::probe;

/// For how long a checkpoint can be sent again, and the log behind it stays, when a transfer has ended.
const KEPT: Duration = Duration::from_secs(10);

/// What one member has under way. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Departures {
    /// A leaf lock.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The last checkpoint.
    last: Option<Last>,
    /// Up to where the log stays, by the number of the transfer.
    holds: BTreeMap<u64, Hold>,
    /// How many transfers there were.
    count: u64,
}

struct Last {
    position: Position,
    checkpoint: Arc<dyn Checkpoint>,
    /// When it is given up; `None` where that has to be set yet.
    until: Option<Instant>,
}

struct Hold {
    position: Position,
    /// Whether the receiver answered.
    began: bool,
    ended: bool,
    /// When the log may go, for one that ended; `None` where that has to be set yet.
    until: Option<Instant>,
}

fn index(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}

impl Position {
    fn index(&self) -> u64 {
        index(self.log_id)
    }
}

impl State {
    fn depart(&mut self, position: Position, checkpoint: Arc<dyn Checkpoint>, of: &Departures) -> Departure {
        let number = self.count;
        self.count += 1;
        self.holds.insert(number, Hold { position: position.clone(), began: false, ended: false, until: None });
        Departure { number, position, checkpoint, departures: of.clone(), has_arrived: false }
    }

    /// Whether somebody is receiving the state at this entry.
    fn is_travelling(&self, index: u64) -> bool {
        self.holds.values().any(|hold| hold.began && !hold.ended && hold.position.index() == index)
    }
}

impl Departures {
    /// Sends off a checkpoint that was just taken.
    pub(super) fn depart(&self, position: Position, checkpoint: Arc<dyn Checkpoint>) -> Departure {
        let mut state = self.state.lock();
        let until = Some(clock::now() + KEPT);
        state.last = Some(Last { position: position.clone(), checkpoint: checkpoint.clone(), until });
        state.depart(position, checkpoint, self)
    }

    /// Sends off the last checkpoint once more, where that serves: entries that are not in it must be in the log, which
    /// was never allowed to be purged beyond `reported`.
    pub(super) fn depart_again(&self, reported: Option<LogId>) -> Option<Departure> {
        let mut state = self.state.lock();
        let last = state.last.as_ref()?;
        let is_fresh = last.until.is_none_or(|until| clock::now() < until);
        if last.position.index() < index(reported) || !(is_fresh || state.is_travelling(last.position.index())) {
            return None;
        }
        probe::reached("checkpoint-sent-again");
        let (position, checkpoint) = (last.position.clone(), last.checkpoint.clone());
        Some(state.depart(position, checkpoint, self))
    }

    /// Up to where the log may be purged, where the state is durable up to a position.
    pub(super) fn let_go(&self, durable: Position) -> Position {
        let state = self.state.lock();
        let positions = state.holds.values().map(|hold| &hold.position);
        match positions.min_by_key(|position| position.index()) {
            Some(oldest) if oldest.index() < durable.index() => {
                probe::reached("log-kept-for-snapshot");
                oldest.clone()
            }
            _ => durable,
        }
    }

    /// Gives up what is over. To be called now and then; the checkpoint is to be dropped where that may take its time.
    pub(super) fn tidy(&self) -> Option<Arc<dyn Checkpoint>> {
        let now = clock::now();
        let mut state = self.state.lock();
        for hold in state.holds.values_mut().filter(|hold| hold.ended) {
            hold.until.get_or_insert(now + KEPT);
        }
        state.holds.retain(|_, hold| hold.until.is_none_or(|until| now < until));
        let last = state.last.as_mut()?;
        let is_over = *last.until.get_or_insert(now + KEPT) <= now;
        let index = last.position.index();
        if !is_over || state.is_travelling(index) {
            return None;
        }
        state.last.take().map(|last| last.checkpoint)
    }

    /// Forgets the last checkpoint: another takes its place, or its store is no more.
    pub(super) fn forget(&self) -> Option<Arc<dyn Checkpoint>> {
        self.state.lock().last.take().map(|last| last.checkpoint)
    }
}

/// A checkpoint that is sent to one member.
///
/// Dropping it ends the transfer, and may remove files: it belongs to where that may take its time.
pub struct Departure {
    number: u64,
    position: Position,
    checkpoint: Arc<dyn Checkpoint>,
    departures: Departures,
    has_arrived: bool,
}

impl Departure {
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn checkpoint(&self) -> &Arc<dyn Checkpoint> {
        &self.checkpoint
    }

    /// The receiver is there.
    pub(super) fn has_begun(&self) {
        if let Some(hold) = self.departures.state.lock().holds.get_mut(&self.number) {
            hold.began = true;
        }
    }

    /// The receiver has all of it.
    pub(super) fn has_arrived(&mut self) {
        self.has_arrived = true;
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        let index = self.position.index();
        // Dropped last, when nothing is locked.
        let mut done = None;
        let mut state = self.departures.state.lock();
        // There is no clock here: the runtime may be ending.
        let Some(hold) = state.holds.get_mut(&self.number) else { return };
        hold.ended = true;
        if !hold.began {
            // Nobody was there.
            state.holds.remove(&self.number);
            return;
        }
        if state.is_travelling(index) {
            return;
        }
        if let Some(last) = state.last.as_mut().filter(|last| last.position.index() == index) {
            last.until = None;
            if self.has_arrived {
                done = state.last.take();
            }
        }
        drop(state);
        drop(done);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::EngineHome;
    use crate::engine::mem::MemHome;
    use crate::raft::codec;

    fn at(index: u64) -> Position {
        Position { log_id: Some(codec::log_id(1, index)), ..Position::default() }
    }

    fn checkpoint() -> Arc<dyn Checkpoint> {
        MemHome::new().open().unwrap().checkpoint().unwrap()
    }

    #[tokio::test]
    async fn the_log_stays_for_what_is_under_way() {
        let departures = Departures::default();
        let purged = |durable| departures.let_go(at(durable)).index();
        assert_eq!(purged(7), 7);
        let first = departures.depart(at(10), checkpoint());
        let second = departures.depart(at(20), checkpoint());
        assert_eq!((purged(5), purged(30)), (5, 10));
        // Nobody was there: nothing is kept for it.
        drop(first);
        assert_eq!(purged(30), 20);
        // One that began may be tried again soon.
        second.has_begun();
        drop(second);
        assert!(departures.tidy().is_none());
        assert_eq!(purged(30), 20);
    }

    #[tokio::test]
    async fn a_checkpoint_is_sent_again_while_the_log_behind_it_is_there() {
        let departures = Departures::default();
        assert!(departures.depart_again(None).is_none());
        let reported = |index| Some(codec::log_id(1, index));
        drop(departures.depart(at(10), checkpoint()));
        let mut again = departures.depart_again(reported(10)).unwrap();
        assert_eq!((again.position().index(), again.checkpoint().files().len()), (10, 1));
        assert!(departures.depart_again(reported(11)).is_none(), "the log may be purged beyond it");
        again.has_begun();
        let other = departures.depart_again(reported(10)).unwrap();
        other.has_begun();
        again.has_arrived();
        drop(again);
        assert!(departures.depart_again(reported(10)).is_some(), "somebody is receiving it");
        drop(other);
        assert!(departures.depart_again(reported(10)).is_some(), "it did not arrive there");
        let mut last = departures.depart_again(reported(10)).unwrap();
        last.has_begun();
        last.has_arrived();
        drop(last);
        assert!(departures.depart_again(reported(10)).is_none(), "it is of no more use");
        assert!(departures.forget().is_none());
    }

    /// Says when it is gone.
    struct Linked(Arc<Mutex<bool>>);

    impl Drop for Linked {
        fn drop(&mut self) {
            *self.0.lock() = true;
        }
    }

    impl Checkpoint for Linked {
        fn files(&self) -> Vec<(String, u64)> {
            Vec::new()
        }

        fn read(&self, _: &str, _: u64, _: usize) -> Result<Bytes, crate::engine::EngineError> {
            Ok(Bytes::new())
        }

        fn known_checksum(&self, _: &str) -> Option<u64> {
            None
        }

        fn learn_checksum(&self, _: &str, _: u64) {}
    }

    #[tokio::test]
    async fn what_arrived_is_removed_at_once_and_what_did_not_when_its_time_is_over() {
        let departures = Departures::default();
        let linked = || {
            let gone = Arc::new(Mutex::new(false));
            (Arc::new(Linked(gone.clone())), gone)
        };
        let (first, gone) = linked();
        let mut departure = departures.depart(at(10), first);
        departure.has_begun();
        departure.has_arrived();
        drop(departure);
        assert!(*gone.lock());
        let (second, gone) = linked();
        drop(departures.depart(at(20), second));
        assert!(departures.tidy().is_none() && !*gone.lock());
        let past = clock::now();
        departures.state.lock().last.as_mut().unwrap().until = Some(past);
        assert!(departures.depart_again(None).is_none(), "its time is over");
        drop(departures.tidy());
        assert!(*gone.lock());
    }
}
