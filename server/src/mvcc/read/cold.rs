//! Fetching records that are not in memory, a few at a time: no further than there is room, however large they are.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::super::Revision;
use super::{Interrupted, Reading, taken};
use crate::engine::{Engine, EngineError, Family};

/// Records that are looked up together.
const LOOKED_UP: usize = 16;

/// Records from which on a walk over the history is thought of. Few in tests.
const WALKED_MIN: usize = if cfg!(test) { 3 } else { 64 };

/// How many records a walk passes by for each that it is for, before looking them up is cheaper.
const PASSED_MAX: usize = 4;

/// Bytes of records after which a walk looks whether there is room for more. Few in tests.
const STEP_BYTES: u64 = if cfg!(test) { 500 } else { 1024 * 1024 };

impl Reading<'_> {
    /// Fetches records, every one of which must be there; `read` counts their bytes.
    pub(super) fn fetch(
        &self,
        engine: &dyn Engine,
        revisions: &[Revision],
        read: &mut u64,
    ) -> Result<Vec<Bytes>, Interrupted> {
        if let [revision] = revisions {
            let record = engine.get(Family::Revisions, &revision.to_bytes())?.ok_or_else(|| missing(*revision))?;
            *read += taken(&record);
            self.has_room(*read)?;
            return Ok(vec![record]);
        }
        let mut records = vec![Bytes::new(); revisions.len()];
        // In the order of the history neighbours are read together.
        let mut order: Vec<usize> = (0..revisions.len()).collect();
        order.sort_unstable_by_key(|place| revisions[*place]);
        let walked = if lie_together(revisions, &order) {
            self.walk_history(engine, revisions, &order, &mut records, read)?
        } else {
            0
        };
        for places in order[walked..].chunks(self.shared.fetched_at_once().min(LOOKED_UP)) {
            let keys: Vec<Bytes> =
                places.iter().map(|place| Bytes::copy_from_slice(&revisions[*place].to_bytes())).collect();
            for (place, record) in places.iter().zip(engine.multi_get(Family::Revisions, &keys)?) {
                records[*place] = record.ok_or_else(|| missing(revisions[*place]))?;
                *read += taken(&records[*place]);
            }
            self.has_room(*read)?;
        }
        Ok(records)
    }

    /// Fetches records by one walk over the history, until that is no longer worth it; how many it has, in the order.
    /// What it reads does not stay in the engine's memory.
    fn walk_history(
        &self,
        engine: &dyn Engine,
        revisions: &[Revision],
        order: &[usize],
        records: &mut [Bytes],
        read: &mut u64,
    ) -> Result<usize, Interrupted> {
        let (Some(first), Some(last)) = (order.first(), order.last()) else { return Ok(0) };
        let (from, to) = (revisions[*first].to_bytes(), revisions[*last].to_bytes());
        let (mut walked, mut passed) = (0_usize, 0_usize);
        let (mut checked, mut failure) = (*read, None);
        let step_records = self.shared.fetched_at_once();
        engine.walk(Family::Revisions, Bound::Included(&from), Bound::Included(&to), &mut |key, value| {
            let Some(&place) = order.get(walked) else { return ControlFlow::Break(()) };
            let revision = revisions[place];
            match Revision::from_bytes(key) {
                Some(found) if found == revision => {
                    records[place] = Bytes::copy_from_slice(value);
                    *read += taken(&records[place]);
                    walked += 1;
                }
                Some(found) if found < revision => {
                    passed += 1;
                    return match passed > PASSED_MAX * order.len() {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    };
                }
                _ => {
                    failure = Some(Interrupted::from(missing(revision)));
                    return ControlFlow::Break(());
                }
            }
            if *read - checked >= STEP_BYTES || walked.is_multiple_of(step_records) {
                checked = *read;
                failure = self.has_room(checked).err();
            }
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failure {
            Some(failure) => Err(failure),
            None => Ok(walked),
        }
    }
}

/// Whether records lie so close together that it may be worth to read what is between them.
fn lie_together(revisions: &[Revision], order: &[usize]) -> bool {
    let (Some(first), Some(last)) = (order.first(), order.last()) else { return false };
    let between = revisions[*last].main.saturating_sub(revisions[*first].main);
    order.len() >= WALKED_MIN && usize::try_from(between).is_ok_and(|between| between / PASSED_MAX < order.len())
}

fn missing(revision: Revision) -> EngineError {
    EngineError(format!("revision {revision:?} is in the index but not stored"))
}
