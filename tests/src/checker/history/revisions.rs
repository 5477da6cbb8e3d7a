//! Every revision is used, by one transaction, and counts what it says it counts.

use std::collections::BTreeMap;

use super::text::told;
use crate::history::{Change, History, KeyValue, Outcome, Reply};
use crate::model::{Truth, wrote};

/// Checks the observer's record itself: revisions follow each other without a gap up to the end's,
/// no two writes were told the same one, and each change counts on from the last of its key.
pub fn check(history: &History, truth: &Truth) -> Result<(), String> {
    let end = history.end.revision;
    if truth.last > end {
        return Err(format!("revision {} was observed, and the store ends at revision {end}", truth.last));
    }
    if let Some(missing) = (2..=end).find(|revision| truth.knows(*revision) && truth.changes(*revision).is_empty()) {
        return Err(format!("nothing was observed at revision {missing}, and the store ends at revision {end}"));
    }
    if let Some(first) = truth.commits.keys().find(|revision| **revision < 2) {
        return Err(format!("something was observed at revision {first}; the first write has revision 2"));
    }
    let mut writers = BTreeMap::new();
    for operation in &history.operations {
        let Outcome::Done(Reply::Txn { revision, steps, .. }) = &operation.outcome else { continue };
        if !wrote(steps) {
            continue;
        }
        if let Some(other) = writers.insert(revision, operation) {
            return Err(format!("two writes were told revision {revision}:\n{}\n{}", told(other), told(operation)));
        }
    }
    let mut keys: BTreeMap<&str, Option<&KeyValue>> = BTreeMap::new();
    let mut before = 1;
    for (revision, commit) in &truth.commits {
        if truth.lost.iter().any(|(first, _)| before < *first && first < revision) {
            keys.clear();
        }
        before = *revision;
        for change in &commit.changes {
            let key = change.kv.key.as_str();
            // Behind a gap the first change of a key has nothing to be compared with.
            let last = keys.get(key).copied().or_else(|| truth.knows_state(*revision).then_some(None));
            if let Some(last) = last {
                counts_on(change, last).map_err(|why| format!("at revision {revision}: {why}: {change:?}"))?;
            }
            keys.insert(key, (!change.deleted).then_some(&change.kv));
        }
    }
    Ok(())
}

fn counts_on(change: &Change, last: Option<&KeyValue>) -> Result<(), String> {
    let kv = &change.kv;
    match (change.deleted, last) {
        (true, None) => Err(format!("{} was deleted and was not there", kv.key)),
        (true, Some(_)) => {
            let bare = KeyValue { key: kv.key.clone(), modified: kv.modified, ..KeyValue::default() };
            if *kv == bare { Ok(()) } else { Err("a deletion tells more than key and revision".into()) }
        }
        (false, None) if (kv.version, kv.created) != (1, kv.modified) => {
            Err("a key that was not there begins with version 1, created at this revision".into())
        }
        (false, Some(last)) if (kv.version, kv.created) != (last.version + 1, last.created) => {
            Err(format!("it should count on from {last:?}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, delete, expect, put, revision};
    use super::*;
    use crate::history::Received;

    fn sample() -> History {
        let mut sample = Sample::new();
        for txn in [put("a", "1"), put("a", "2"), delete("a"), put("a", "3"), put("b", "4")] {
            sample.txn(1, txn);
        }
        sample.end()
    }

    fn found(history: &History) -> Result<(), String> {
        check(history, &Truth::of(history))
    }

    fn change(history: &mut History, place: usize) -> &mut Change {
        match &mut history.watches[0].received[place] {
            Received::Events { changes, .. } => &mut changes[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_right_record_passes() {
        assert_eq!(found(&sample()), Ok(()));
        assert_eq!(found(&Sample::new().end()), Ok(()));
    }

    #[test]
    fn a_gap_is_found_unless_it_was_compacted() {
        let mut history = sample();
        let at = history.end.at;
        history.watches[0].received[2] = Received::Compacted { at, compact_revision: 3, resumed: 4 };
        assert_eq!(found(&history), Ok(()));
        history.watches[0].received.remove(2);
        expect(found(&history), "nothing was observed at revision 3");
        let mut history = sample();
        history.end.revision += 1;
        expect(found(&history), "nothing was observed at revision 7");
        history.end.revision = 4;
        expect(found(&history), "the store ends at revision 4");
        let mut history = sample();
        change(&mut history, 1).kv.modified = 1;
        expect(found(&history), "nothing was observed at revision 2");
    }

    #[test]
    fn a_revision_told_twice_is_found() {
        let mut history = sample();
        *revision(&mut history.operations[1]) = 2;
        expect(found(&history), "two writes were told revision 2");
    }

    #[test]
    fn wrong_counts_are_found() {
        type Wrong = (usize, fn(&mut KeyValue));
        let wrong: [Wrong; 5] = [
            (1, |kv| kv.version = 2),
            (2, |kv| kv.version = 1),
            (2, |kv| kv.created = 3),
            (3, |kv| kv.value = "2".into()),
            (4, |kv| (kv.version, kv.created) = (3, 2)),
        ];
        for (place, wrong) in wrong {
            let mut history = sample();
            wrong(&mut change(&mut history, place).kv);
            assert!(found(&history).is_err(), "{place}");
        }
        let mut history = sample();
        change(&mut history, 5).deleted = true;
        expect(found(&history), "was not there");
    }
}
