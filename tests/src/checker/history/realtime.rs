//! Revisions follow time: who asks later is not answered from an earlier state, and nobody from one
//! that is yet to come.

use std::collections::BTreeMap;
use std::time::Duration;

use super::text::{seconds, told};
use crate::history::{Call, History, Operation, Outcome, Received, Reply, Step};
use crate::model::{Truth, wrote};

/// Checks that what began after a revision was known to anybody, a client or a watcher, has at
/// least that revision, and a higher one if it wrote; a serializable read alone may be behind. And
/// that nothing ended with a revision before the call was made which wrote that revision.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    let mut known = known(history);
    known.sort_unstable_by_key(|known| known.at);
    not_from_the_future(history, truth, &known)?;
    let mut begun: Vec<&Operation> = history.operations.iter().collect();
    begun.sort_by_key(|operation| operation.began);
    let mut seen = known.iter().peekable();
    let mut newest = None;
    let mut of_client: BTreeMap<usize, i64> = BTreeMap::new();
    for operation in begun {
        while let Some(known) = seen.next_if(|known| known.at < operation.began) {
            if newest.is_none_or(|newest: &Known| newest.revision < known.revision) {
                newest = Some(known);
            }
        }
        // A client waits for its answer, even where no time passes in between.
        let own = of_client.get(&operation.client).copied().unwrap_or(0);
        let floor = own.max(newest.map_or(0, |newest| newest.revision));
        let why = || {
            let by = newest.map_or("its client itself".to_owned(), |newest| newest.by(history));
            format!("revision {floor} was known before it began, to {by}\n{}", told(operation))
        };
        match &operation.outcome {
            Outcome::Refused(why_not) if why_not.contains("future revision") => {
                let asked = asked(&operation.call);
                if asked.is_some_and(|asked| asked <= floor) && !is_serializable(&operation.call) {
                    return Err(format!("refused as a future revision: {}", why()));
                }
            }
            outcome => {
                let Some(revision) = revision_of(outcome) else { continue };
                let floor = if writes(outcome) { floor + 1 } else { floor };
                if revision < floor && !is_serializable(&operation.call) {
                    return Err(format!("at least revision {floor} is due: {}", why()));
                }
                let own = of_client.entry(operation.client).or_default();
                *own = revision.max(*own);
            }
        }
    }
    Ok(())
}

/// A revision that somebody was told.
struct Known {
    at: Duration,
    revision: i64,
    /// The operation, or else the watch.
    operation: Option<usize>,
    watch: usize,
}

impl Known {
    fn by(&self, history: &History) -> String {
        match self.operation {
            Some(place) => told(&history.operations[place]),
            None => format!("watch {} at {}", self.watch, seconds(self.at)),
        }
    }
}

fn known(history: &History) -> Vec<Known> {
    let mut found = Vec::new();
    for (place, operation) in history.operations.iter().enumerate() {
        if let Some(revision) = revision_of(&operation.outcome) {
            found.push(Known { at: operation.ended, revision, operation: Some(place), watch: 0 });
        }
    }
    for (watch, of) in history.watches.iter().enumerate() {
        for received in &of.received {
            let (at, revision) = match received {
                Received::Opened { at, revision, .. } | Received::Progress { at, revision } => (at, *revision),
                Received::Events { at, revision, changes, .. } => {
                    let changes = changes.iter().map(|change| change.kv.modified);
                    (at, changes.max().unwrap_or(0).max(*revision))
                }
                Received::Compacted { .. } | Received::Cancelled { .. } | Received::Broken { .. } => continue,
            };
            found.push(Known { at: *at, revision, operation: None, watch });
        }
    }
    found
}

/// A revision is from the future of whoever learns it before the call was made that wrote it.
fn not_from_the_future(history: &History, truth: &Truth, known: &[Known]) -> Result<(), String> {
    let causes = truth.causes(history);
    // By revision, the latest begin of a call that wrote it or one before it.
    let mut latest: Vec<(i64, usize)> = Vec::new();
    for (revision, calls) in &causes.acknowledged {
        for call in calls {
            let began = |place: &usize| history.operations[*place].began;
            if latest.last().is_none_or(|(_, last)| began(last) < began(call)) {
                latest.push((*revision, *call));
            }
        }
    }
    for known in known {
        let behind = latest.partition_point(|(revision, _)| *revision <= known.revision);
        let Some((revision, call)) = latest[..behind].last() else { continue };
        let call = &history.operations[*call];
        if call.began > known.at {
            let (by, revision_known) = (known.by(history), known.revision);
            let text = format!("revision {revision_known} was known to {by}");
            return Err(format!("{text}\nbefore revision {revision} was asked for: {}", told(call)));
        }
    }
    Ok(())
}

fn revision_of(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Outcome::Done(Reply::Txn { revision, .. } | Reply::Compacted { revision } | Reply::Revoked { revision }) => {
            Some(*revision)
        }
        Outcome::Done(Reply::Held(held)) => Some(held.revision()),
        _ => None,
    }
}

fn writes(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(Reply::Txn { steps, .. }) if wrote(steps))
}

fn is_serializable(call: &Call) -> bool {
    matches!(call, Call::Txn(txn) if txn.may_be_stale())
}

/// The revision that a call asks for by its number: the highest, which may be a future one.
fn asked(call: &Call) -> Option<i64> {
    match call {
        Call::Compact { revision, .. } => Some(*revision),
        Call::Txn(txn) => {
            let steps = txn.then.iter().chain(&txn.otherwise);
            let of = |step: &Step| match step {
                Step::Range { revision, .. } => Some(*revision),
                Step::Txn(_) => Some(i64::MAX),
                _ => None,
            };
            steps.filter_map(of).max()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, all_keys, at, expect, get, millis, put, revision, watch};
    use super::*;
    use crate::history::Txn;

    fn found(history: &History) -> Result<(), String> {
        check(history, &Truth::of(history))
    }

    fn stale(sample: &Sample, serializable: bool) -> Sample {
        let mut sample = sample.clone();
        let read = sample.txn(2, Txn { serializable, ..get("a") });
        *revision(read) -= 1;
        sample
    }

    fn sample() -> Sample {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.txn(1, put("a", "2"));
        sample.txn(2, get("a"));
        sample
    }

    #[test]
    fn rising_revisions_pass() {
        assert_eq!(found(&sample().end()), Ok(()));
    }

    #[test]
    fn only_a_serializable_read_may_be_behind() {
        let sample = sample();
        assert_eq!(found(&stale(&sample, true).end()), Ok(()));
        let mut empty = stale(&sample, false);
        empty.history.operations.last_mut().unwrap().call = Call::Txn(Txn::default());
        assert_eq!(found(&empty.end()), Ok(()));
        expect(found(&stale(&sample, false).end()), "at least revision 3 is due");
    }

    #[test]
    fn concurrent_calls_have_no_order() {
        let mut sample = stale(&sample(), false);
        let last = sample.history.operations.len() - 1;
        sample.history.operations[last].client = 3;
        sample.history.operations[last].began = sample.history.operations[1].began;
        assert_eq!(found(&sample.end()), Ok(()));
    }

    #[test]
    fn a_client_knows_its_own_revisions() {
        let mut sample = stale(&sample(), false);
        let last = sample.history.operations.len() - 1;
        let ended = sample.history.operations[last - 1].ended;
        sample.history.watches.clear();
        sample.history.operations[1].ended = ended;
        sample.history.operations[last].began = ended;
        expect(found(&sample.end()), "at least revision 3 is due");
    }

    #[test]
    fn a_write_gets_a_higher_revision() {
        let mut sample = sample();
        let write = sample.txn(2, put("a", "3"));
        *revision(write) = 3;
        // Whoever knew that revision before knew the future.
        expect(found(&sample.end()), "before revision 3 was asked for");
    }

    #[test]
    fn what_a_watcher_saw_is_known() {
        let mut sample = Sample::new();
        sample.unknown(1, put("a", "1"), true);
        *revision(sample.txn(2, get("a"))) = 1;
        expect(found(&sample.clone().end()), "watch 0");
        sample.history.watches[0].received.truncate(1);
        assert_eq!(found(&sample.clone().end()), Ok(()));
        let mut other = watch(all_keys(), 0);
        other.received.push(Received::Progress { at: millis(20), revision: 2 });
        sample.history.watches.push(other);
        expect(found(&sample.end()), "watch 1");
    }

    #[test]
    fn nobody_knows_the_future() {
        let mut sample = sample();
        *revision(&mut sample.history.operations[0]) = 2;
        sample.txn(3, Txn { serializable: true, ..get("a") });
        let last = sample.history.operations.len() - 1;
        sample.history.operations[last].began = millis(0);
        sample.history.operations[last].ended = millis(1);
        expect(found(&sample.end()), "before revision 3 was asked for");
    }

    #[test]
    fn a_revision_that_is_known_is_not_refused_as_future() {
        let old = at(all_keys(), 3);
        let why = "etcdserver: mvcc: required revision is a future revision";
        let mut known = sample();
        known.refused(2, Call::Txn(Txn::of(old.clone())), why);
        expect(found(&known.end()), "refused as a future revision");
        let mut unknown = sample();
        unknown.refused(2, Call::Compact { revision: 4, physical: false }, why);
        unknown.refused(2, Call::Txn(Txn { serializable: true, ..Txn::of(old) }), why);
        assert_eq!(found(&unknown.end()), Ok(()));
    }
}
