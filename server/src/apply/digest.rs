use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::mainstay::{StateDigest, StateMark};
use parking_lot::RwLock;
use prost::Message;

use super::OpenError;
use crate::engine::layout::meta;
use crate::engine::{Batch, BatchOperation, Engine, Family};
use crate::env::probe;

/// The way in which the number is made of what entries write; 0 is that of the releases that do not say. Members whose
/// ways differ are not compared, so whoever makes it in another way says so here. What a command writes is the same on all
/// of them, whichever their release: it depends on the format of the data alone.
pub const DIGEST_VERSION: u32 = 0;

/// Every so many entries a mark is kept, to be compared with other members at leisure.
const MARK_INTERVAL: u64 = 256;
/// How many marks are kept.
const MARKS: usize = 4096;
/// How many entries, the last ones, have a mark each beside those: a member that comes back is compared at the
/// entry to which it had come.
const RECENT: usize = 4096;
/// Entries after which the digest begins anew, so that a store of a release that had none, or one of another way, takes
/// part from there on.
const WINDOW: u64 = 1 << 20;
/// An odd number with its ones well spread: that of the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What entries did to the state, as one number: members that applied the same entries have the same number,
/// however they cut them into runs, and once it differs it stays so to the end of its window.
///
/// Of each entry it takes in what is written to the engine for it. It says nothing of whether that can be read again.
#[derive(Default)]
pub(super) struct Digest {
    /// The number; `None` from a store of a release that had none or another way, until the next window.
    value: Option<u64>,
    /// The last entry that was taken in.
    index: u64,
    /// The operations of the run that were taken in.
    sealed: usize,
    /// The marks of the run's entries, which readers are shown with its end.
    fresh: Vec<StateMark>,
    /// The last one of those that are kept for long.
    marked: Option<StateMark>,
    /// How the last window ended.
    finished: Option<StateMark>,
    known: Arc<RwLock<Known>>,
}

/// What readers may see.
#[derive(Default)]
struct Known {
    /// By rising index.
    marks: VecDeque<StateMark>,
    /// Those of the last entries, likewise.
    recent: VecDeque<StateMark>,
    /// The last entry of the last run.
    now: Option<StateMark>,
}

/// A read handle to what the state was made of.
#[derive(Clone)]
pub struct DigestView {
    known: Arc<RwLock<Known>>,
}

impl DigestView {
    /// The marks behind an entry, the oldest first, and the present one.
    pub fn since(&self, index: u64) -> Vec<StateMark> {
        let known = self.known.read();
        let from = known.marks.partition_point(|mark| mark.index <= index);
        let mut marks: Vec<StateMark> = known.marks.range(from..).copied().collect();
        marks.extend(known.now.filter(|now| now.index > marks.last().map_or(index, |mark| mark.index)));
        marks
    }

    /// Those marks that are known at some entries.
    pub fn at(&self, indexes: &[u64]) -> Vec<StateMark> {
        let known = self.known.read();
        let among = |marks: &VecDeque<StateMark>, index: &u64| {
            let place = marks.binary_search_by_key(index, |mark| mark.index).ok();
            place.map(|place| marks[place])
        };
        let find = |index: &u64| {
            let kept = among(&known.marks, index).or_else(|| among(&known.recent, index));
            kept.or(known.now.filter(|now| now.index == *index))
        };
        indexes.iter().filter_map(find).collect()
    }
}

impl Digest {
    pub(super) fn view(&self) -> DigestView {
        DigestView { known: self.known.clone() }
    }

    /// Loads what is stored; `is_new` where nothing was ever applied.
    pub(super) fn load(&mut self, engine: &Arc<dyn Engine>, is_new: bool) -> Result<(), OpenError> {
        let stored = engine.get(Family::Meta, meta::DIGEST)?;
        let mut stored = stored.map(StateDigest::decode).transpose().map_err(OpenError::Digest)?;
        if let Some(other) = stored.as_mut().filter(|stored| stored.version != DIGEST_VERSION) {
            (other.value, other.finished, other.marked) = (None, None, None);
        }
        let first = is_new.then(|| StateDigest { value: Some(0), ..StateDigest::default() });
        let StateDigest { value, index, finished, marked, version: _ } = stored.or(first).unwrap_or_default();
        (self.value, self.index, self.sealed) = (value, index, 0);
        (self.finished, self.marked) = (finished, marked);
        self.fresh.clear();
        // A window's end is one of the marks, too.
        let later = marked.filter(|marked| finished.is_none_or(|finished| marked.index > finished.index));
        let marks = finished.into_iter().chain(later).collect();
        *self.known.write() = Known { marks, recent: VecDeque::new(), now: self.now() };
        Ok(())
    }

    /// Is told up to where the state goes, once it was loaded: a digest of another place is one that an older release
    /// left behind, which knew nothing of it.
    pub(super) fn belongs_to(&mut self, applied: u64) {
        if self.index != applied {
            (self.value, self.finished, self.marked) = (None, None, None);
            *self.known.write() = Known::default();
        }
    }

    /// The mark of the last entry, but where a window has just begun: how the one before ended is kept apart.
    fn now(&self) -> Option<StateMark> {
        let begins = self.index.is_multiple_of(WINDOW);
        self.value.filter(|_| !begins).map(|digest| StateMark { index: self.index, digest })
    }

    /// Takes in what was added to the batch of the run since the last call, for one entry.
    pub(super) fn seal(&mut self, index: u64, batch: &Batch) {
        let operations = &batch.operations[self.sealed..];
        self.sealed = batch.operations.len();
        self.index = index;
        if let Some(value) = self.value.as_mut().filter(|_| !operations.is_empty()) {
            if probe::broken("digest-of-nothing") {
                *value = 0; // Wrong: what was written before counts no more.
            }
            let crc = operations.iter().fold(0, take_in);
            *value = (*value ^ u64::from(crc) ^ (index << 32)).wrapping_mul(SPREAD).rotate_left(29);
        }
        let turns = index > 0 && index.is_multiple_of(WINDOW);
        if let Some(digest) = self.value {
            let mark = StateMark { index, digest };
            self.fresh.push(mark);
            if is_kept(&mark) {
                self.marked = Some(mark);
            }
        }
        if turns {
            self.finished = self.value.map(|digest| StateMark { index, digest });
            self.value = Some(0);
        }
    }

    /// Ends a run: adds the digest to its batch.
    pub(super) fn end_run(&mut self, batch: &mut Batch) {
        let (value, index, finished, marked) = (self.value, self.index, self.finished, self.marked);
        let stored = StateDigest { value, index, finished, version: DIGEST_VERSION, marked };
        batch.put(Family::Meta, meta::DIGEST, Bytes::from(stored.encode_to_vec()));
        self.sealed = 0;
    }

    /// Shows readers the marks of a run that was written.
    pub(super) fn publish(&mut self) {
        let mut known = self.known.write();
        known.marks.extend(self.fresh.iter().copied().filter(is_kept));
        known.recent.extend(self.fresh.drain(..));
        let excess = known.marks.len().saturating_sub(MARKS);
        known.marks.drain(..excess);
        let excess = known.recent.len().saturating_sub(RECENT);
        known.recent.drain(..excess);
        known.now = self.now();
    }
}

/// Whether a mark is kept for long. How a window ended is, as it is a multiple of the interval.
fn is_kept(mark: &StateMark) -> bool {
    mark.index.is_multiple_of(MARK_INTERVAL)
}

fn take_in(crc: u32, operation: &BatchOperation) -> u32 {
    let (kind, family, key, value): (u8, &Family, &[u8], &[u8]) = match operation {
        BatchOperation::Put(family, key, value) => (0, family, key, value),
        BatchOperation::Delete(family, key) => (1, family, key, &[]),
        BatchOperation::DeleteRange(family, from, to) => (2, family, from, to),
    };
    let mut head = [kind, *family as u8, 0, 0, 0, 0];
    // So that the border between key and value counts.
    head[2..].copy_from_slice(&(key.len() as u32).to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c_append(crc, &head), key), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineHome;
    use crate::engine::mem::MemHome;

    fn put(batch: &mut Batch, key: &'static str, value: &'static str) {
        batch.put(Family::Revisions, key, value);
    }

    fn fresh() -> Digest {
        Digest { value: Some(0), ..Digest::default() }
    }

    fn sealed(entries: &[&[(&'static str, &'static str)]]) -> u64 {
        let (mut digest, mut batch) = (fresh(), Batch::default());
        for (index, entry) in entries.iter().enumerate() {
            entry.iter().for_each(|(key, value)| put(&mut batch, key, value));
            digest.seal(index as u64 + 1, &batch);
        }
        digest.value.unwrap()
    }

    /// Members of two releases compare these numbers: one that changes needs another [`DIGEST_VERSION`].
    #[test]
    fn the_way_it_is_made_is_fixed() {
        let number = sealed(&[&[("a", "1")], &[("b", "2")]]);
        assert_eq!((DIGEST_VERSION, number), (0, 0xaaea_eaa8_2c54_991f), "{number:#x}");
    }

    #[test]
    fn a_number_of_another_way_is_not_gone_on_with() {
        let engine = MemHome::new().open().unwrap();
        let loaded = |version| {
            let finished = Some(StateMark { index: 1, digest: 2 });
            let marked = Some(StateMark { index: 2, digest: 4 });
            let stored = StateDigest { value: Some(3), index: 4, finished, version, marked };
            let mut batch = Batch::default();
            batch.put(Family::Meta, meta::DIGEST, stored.encode_to_vec());
            engine.write(batch).unwrap();
            let mut digest = Digest::default();
            digest.load(&engine, false).unwrap();
            (digest.value, digest.view().since(0).len())
        };
        assert_eq!(loaded(DIGEST_VERSION), (Some(3), 3));
        assert_eq!(loaded(DIGEST_VERSION + 1), (None, 0));
    }

    #[test]
    fn whatever_differs_shows() {
        let one = sealed(&[&[("a", "1")], &[("b", "2")]]);
        assert_eq!(one, sealed(&[&[("a", "1")], &[("b", "2")]]));
        for other in [
            sealed(&[&[("a", "1")], &[("b", "3")]]),
            sealed(&[&[("a", "1")], &[]]),
            sealed(&[&[("a", "1"), ("b", "2")], &[]]),
            sealed(&[&[("b", "2")], &[("a", "1")]]),
            sealed(&[&[("a1", "")], &[("b", "2")]]),
            sealed(&[&[("a", "1")], &[("b", "2")], &[("c", "3")]]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn runs_do_not_matter_and_a_restart_goes_on() {
        let home = MemHome::new();
        let engine = home.open().unwrap();
        let (mut whole, mut cut) = (fresh(), Digest::default());
        cut.load(&engine, true).unwrap();
        let mut batch = Batch::default();
        for index in 1..=2 * MARK_INTERVAL {
            put(&mut batch, "k", if index % 3 == 0 { "x" } else { "y" });
            whole.seal(index, &batch);
            let mut run = Batch::default();
            put(&mut run, "k", if index % 3 == 0 { "x" } else { "y" });
            cut.seal(index, &run);
            cut.end_run(&mut run);
            engine.write(run).unwrap();
            cut.publish();
            if index % 100 == 0 {
                cut = Digest::default();
                cut.load(&engine, false).unwrap();
            }
        }
        whole.publish();
        let last = whole.view().at(&[2 * MARK_INTERVAL]);
        assert_eq!(last.len(), 1);
        assert_eq!(cut.view().at(&[2 * MARK_INTERVAL]), last);
        assert_eq!(cut.view().since(2 * MARK_INTERVAL - 1), last);
        assert_eq!(cut.view().since(2 * MARK_INTERVAL), []);
        assert_eq!(whole.view().since(0).len(), 2);
    }

    /// Who comes back has its last mark and the present one; whoever was there all the time has those at both places.
    #[test]
    fn a_restart_leaves_what_others_can_be_compared_in() {
        let engine = MemHome::new().open().unwrap();
        let mut digest = Digest::default();
        digest.load(&engine, true).unwrap();
        let mut back = Digest::default();
        let left_at = 3 * MARK_INTERVAL + 7;
        for index in 1..=left_at + RECENT as u64 - 1 {
            let mut run = Batch::default();
            put(&mut run, "k", if index % 3 == 0 { "x" } else { "y" });
            digest.seal(index, &run);
            digest.end_run(&mut run);
            engine.write(run).unwrap();
            digest.publish();
            if index == left_at {
                back.load(&engine, false).unwrap();
            }
        }
        let marks = back.view().since(0);
        let indexes: Vec<u64> = marks.iter().map(|mark| mark.index).collect();
        assert_eq!(indexes, [3 * MARK_INTERVAL, left_at]);
        assert_eq!(digest.view().at(&indexes), marks);
        let mut run = Batch::default();
        digest.seal(left_at + RECENT as u64, &run);
        digest.end_run(&mut run);
        digest.publish();
        assert_eq!(digest.view().at(&indexes), marks[..1], "that is long ago");
        // How a window ended is not told twice.
        let end = Some(StateMark { index: WINDOW, digest: 5 });
        let stored = StateDigest { value: Some(0), index: WINDOW, finished: end, version: DIGEST_VERSION, marked: end };
        let mut batch = Batch::default();
        batch.put(Family::Meta, meta::DIGEST, stored.encode_to_vec());
        engine.write(batch).unwrap();
        back.load(&engine, false).unwrap();
        assert_eq!(back.view().since(0), end.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_store_without_one_takes_part_from_the_next_window_on() {
        let engine = MemHome::new().open().unwrap();
        let mut digest = Digest::default();
        digest.load(&engine, false).unwrap();
        let mut batch = Batch::default();
        for index in [WINDOW - 1, WINDOW, WINDOW + 1] {
            put(&mut batch, "k", "v");
            digest.seal(index, &batch);
            digest.publish();
            let known = digest.view().since(0).len();
            assert_eq!(known, usize::from(index > WINDOW), "{index}");
        }
        let mut other = fresh();
        let mut batch = Batch::default();
        for index in [WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1] {
            put(&mut batch, "k", "v");
            other.seal(index, &batch);
        }
        other.publish();
        assert_eq!(digest.view().at(&[WINDOW + 1]), other.view().at(&[WINDOW + 1]));
        assert_eq!(other.view().at(&[WINDOW]).len(), 1, "how the window ended");
    }
}
