//! What was compacted is gone, and nothing else.

use std::time::Duration;

use super::text::{named, seconds, told};
use crate::history::{Call, History, Operation, Outcome, Received, Step, Txn};

/// Checks that nobody who asked later read below a compaction that was acknowledged, that nobody was
/// told of a compaction which nobody had asked for, that no compaction went backwards, and that the
/// store ends with one that was asked for. (What an old revision holds, `serializable.rs` checks.)
pub fn check(history: &History) -> Result<(), String> {
    let compactions = Compactions::of(history);
    for operation in &history.operations {
        let done = compactions.done_before(operation.began);
        match (&operation.call, &operation.outcome) {
            (Call::Compact { revision, .. }, Outcome::Done(_)) if *revision <= done => {
                return Err(format!(
                    "revision {done} was compacted before, and this was not refused: {}",
                    told(operation)
                ));
            }
            (Call::Txn(txn), Outcome::Done(_)) if !is_serializable(txn) => {
                if let Some(read) = old_reads(txn).into_iter().find(|read| *read < done)
                    && reads_surely(txn)
                {
                    let text = format!("revision {done} was compacted before, and revision {read} was read");
                    return Err(format!("{text}: {}", told(operation)));
                }
            }
            (_, Outcome::Refused(why)) if why.contains("compacted") => compactions.explain(operation)?,
            _ => {}
        }
    }
    for (place, watch) in history.watches.iter().enumerate() {
        for received in &watch.received {
            let Received::Compacted { at, compact_revision, .. } = received else { continue };
            if !compactions.is_asked(*compact_revision, *at) {
                let (at, watch) = (seconds(*at), named(place, watch));
                return Err(format!(
                    "{watch}: at {at} it was told that {compact_revision} is compacted, which nobody asked"
                ));
            }
        }
    }
    let (done, asked) = (compactions.done_before(Duration::MAX), compactions.asked_before(Duration::MAX));
    let end = history.end.compacted.max(0);
    // Before the first compaction etcd says -1, and others 0.
    if end < done || end > asked.max(0) {
        return Err(format!("the store ends compacted at {end}; {done} was acknowledged and {asked} asked for"));
    }
    Ok(())
}

/// Compactions by time, as the highest revision up to then.
struct Compactions {
    /// By their ends, those that were acknowledged.
    done: Vec<(Duration, i64)>,
    /// By their begins, those that may have happened.
    asked: Vec<(Duration, i64)>,
    /// The same, each with its own revision.
    each: Vec<(Duration, i64)>,
}

impl Compactions {
    fn of(history: &History) -> Self {
        let (mut done, mut asked) = (Vec::new(), Vec::new());
        for operation in &history.operations {
            let Call::Compact { revision, .. } = &operation.call else { continue };
            match operation.outcome {
                Outcome::Done(_) => {
                    done.push((operation.ended, *revision));
                    asked.push((operation.began, *revision));
                }
                Outcome::Unknown(_) => asked.push((operation.began, *revision)),
                Outcome::Refused(_) => {}
            }
        }
        let each = asked.clone();
        for times in [&mut done, &mut asked] {
            times.sort_unstable();
            let mut highest = 0;
            for (_, revision) in times {
                highest = highest.max(*revision);
                *revision = highest;
            }
        }
        Self { done, asked, each }
    }

    fn done_before(&self, time: Duration) -> i64 {
        highest(&self.done, self.done.partition_point(|(ended, _)| *ended < time))
    }

    fn asked_before(&self, time: Duration) -> i64 {
        highest(&self.asked, self.asked.partition_point(|(began, _)| *began <= time))
    }

    /// Whether a compaction of just this revision may have happened by a time.
    fn is_asked(&self, revision: i64, by: Duration) -> bool {
        self.each.iter().any(|(began, asked)| *began <= by && *asked == revision)
    }

    /// Whether a refusal has a compaction that it may be due to.
    fn explain(&self, operation: &Operation) -> Result<(), String> {
        let asked = self.asked_before(operation.ended);
        let done = self.done_before(operation.began);
        let is_explained = match &operation.call {
            // One of the same revision is a reason, but not the call itself, which was refused.
            Call::Compact { revision, .. } => asked >= *revision || *revision <= 0,
            // The compacted revision itself can be read.
            Call::Txn(txn) => {
                // A range that comes in chunks keeps the revision of the first; as in etcd, one that is compacted
                // before the last chunk refuses the rest. A member that is behind may be so while it streams.
                let is_overtaken = is_one_range(txn) && (asked > done || (is_serializable(txn) && asked > 0));
                is_overtaken || old_reads(txn).iter().any(|read| *read < asked)
            }
            _ => false,
        };
        if is_explained {
            return Ok(());
        }
        Err(format!("at most revision {asked} was compacted, and this was refused: {}", told(operation)))
    }
}

fn highest(times: &[(Duration, i64)], behind: usize) -> i64 {
    times[..behind].last().map_or(0, |(_, revision)| *revision)
}

fn is_serializable(txn: &Txn) -> bool {
    txn.may_be_stale()
}

/// The revisions that a transaction reads by their number, in any branch.
fn old_reads(txn: &Txn) -> Vec<i64> {
    let mut found = Vec::new();
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Range { revision, .. } if *revision > 0 => found.push(*revision),
            Step::Txn(txn) => found.extend(old_reads(txn)),
            _ => {}
        }
    }
    found
}

/// Whether it is a range alone, which may be asked for as a stream.
fn is_one_range(txn: &Txn) -> bool {
    txn.compares.is_empty() && txn.otherwise.is_empty() && matches!(txn.then[..], [Step::Range { revision: ..=0, .. }])
}

/// Whether all that it may read is read, because there is nothing to choose.
fn reads_surely(txn: &Txn) -> bool {
    txn.compares.is_empty() && txn.otherwise.is_empty() && !txn.then.iter().any(|step| matches!(step, Step::Txn(_)))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, all_keys, at, expect, put};
    use super::*;

    const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

    fn old(revision: i64) -> Txn {
        Txn::of(at(all_keys(), revision))
    }

    /// Ten revisions of which five are compacted.
    fn sample() -> Sample {
        let mut sample = Sample::new();
        for value in 0..9 {
            sample.txn(1, put("a", &value.to_string()));
        }
        sample.txn(1, old(3));
        sample.compact(1, 5);
        sample
    }

    #[test]
    fn reads_at_or_above_a_compaction_pass() {
        let mut sample = sample();
        sample.txn(1, old(5));
        sample.txn(1, Txn { serializable: true, ..old(4) });
        sample.refused(1, Call::Txn(old(4)), COMPACTED);
        sample.refused(1, Call::Compact { revision: 5, physical: false }, COMPACTED);
        assert_eq!(check(&sample.end()), Ok(()));
        assert_eq!(check(&Sample::new().end()), Ok(()));
    }

    #[test]
    fn a_read_below_a_compaction_is_found() {
        let mut sample = sample();
        sample.txn(1, old(4));
        expect(check(&sample.end()), "revision 4 was read");
    }

    #[test]
    fn a_compaction_that_goes_backwards_is_found() {
        let mut sample = sample();
        sample.compact(1, 5);
        expect(check(&sample.end()), "was not refused");
    }

    #[test]
    fn a_refusal_without_a_compaction_is_found() {
        for call in [Call::Txn(old(5)), Call::Compact { revision: 6, physical: true }, Call::Txn(put("a", "x"))] {
            let mut sample = sample();
            sample.refused(1, call.clone(), COMPACTED);
            expect(check(&sample.clone().end()), "at most revision 5 was compacted");
            if !matches!(call, Call::Txn(txn) if txn.may_write()) {
                // One that was never answered may be the reason.
                let unknown =
                    sample.call(2, Call::Compact { revision: 6, physical: true }, Outcome::Unknown("timeout".into()));
                unknown.began = Duration::ZERO;
                sample.history.operations.rotate_right(1);
                assert_eq!(check(&sample.end()), Ok(()));
            }
        }
    }

    #[test]
    fn a_range_that_is_overtaken_by_a_compaction_may_be_refused() {
        let range = || Call::Txn(Txn::of(Step::range(all_keys())));
        let mut before = sample();
        before.refused(1, range(), COMPACTED);
        expect(check(&before.end()), "at most revision 5 was compacted");
        let mut during = sample();
        let began = during.now;
        during.compact(2, 6);
        during.refused(1, range(), COMPACTED).began = began;
        assert_eq!(check(&during.end()), Ok(()));
        let mut behind = sample();
        behind.refused(1, Call::Txn(Txn { serializable: true, ..Txn::of(Step::range(all_keys())) }), COMPACTED);
        assert_eq!(check(&behind.end()), Ok(()));
    }

    #[test]
    fn a_watcher_is_told_of_true_compactions() {
        for (compact_revision, is_true) in [(4, false), (5, true), (6, false)] {
            let mut sample = sample();
            let at = sample.now;
            sample.history.watches[0].received.push(Received::Compacted { at, compact_revision, resumed: 10 });
            assert_eq!(check(&sample.end()).is_ok(), is_true);
        }
    }

    #[test]
    fn the_end_is_one_that_was_asked_for() {
        for (end, is_right) in [(4, false), (5, true), (6, false)] {
            let mut sample = sample();
            sample.history.end.compacted = end;
            assert_eq!(check(&sample.end()).is_ok(), is_right, "{end}");
        }
    }
}
