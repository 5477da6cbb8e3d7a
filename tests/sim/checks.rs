//! What must hold of a history and of the state that it left.

use std::collections::BTreeMap;

use mainstay_proto::mvccpb::KeyValue;

use crate::history::History;
use crate::workload::COUNTER;

fn number(kv: &KeyValue) -> u64 {
    std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// Checks everything; the first violation is described.
pub(crate) fn check(history: &History, state: &[KeyValue]) -> Result<(), String> {
    let state: BTreeMap<String, &KeyValue> =
        state.iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv)).collect();
    no_acknowledged_write_is_lost(history, &state)?;
    no_read_is_stale(history)?;
    revisions_are_unique(history)?;
    the_watcher_saw_everything_once(history, &state)?;
    the_counter_adds_up(history, &state)
}

/// A register holds its last acknowledged value, or a later one that was begun.
fn no_acknowledged_write_is_lost(history: &History, state: &BTreeMap<String, &KeyValue>) -> Result<(), String> {
    for (key, (begun, acknowledged)) in &history.progress {
        let value = state.get(key).map_or(0, |kv| number(kv));
        if value < *acknowledged || value > *begun {
            return Err(format!("{key} holds {value}, acknowledged was {acknowledged}, begun was {begun}"));
        }
    }
    Ok(())
}

/// A linearizable read returns nothing older than what was acknowledged before it, and nothing from the future.
fn no_read_is_stale(history: &History) -> Result<(), String> {
    match history.reads.iter().find(|read| read.value < read.at_least || read.value > read.at_most) {
        Some(read) => Err(format!(
            "after {:?}, {} read {}: acknowledged was {}, begun was {}",
            read.at, read.key, read.value, read.at_least, read.at_most
        )),
        None => Ok(()),
    }
}

/// No two acknowledged writes share a revision, and those of one register rise.
fn revisions_are_unique(history: &History) -> Result<(), String> {
    let mut by_revision = BTreeMap::new();
    let mut last = BTreeMap::new();
    for write in &history.writes {
        let Some(revision) = write.acknowledged else {
            continue;
        };
        if let Some(other) = by_revision.insert(revision, write) {
            return Err(format!("{write:?} and {other:?} have one revision"));
        }
        if let Some(before) = last.insert(&write.key, revision)
            && before >= revision
        {
            return Err(format!("{write:?} came after revision {before}"));
        }
    }
    Ok(())
}

/// Rising revisions, nothing twice, nothing acknowledged left out, the last value as in the state.
fn the_watcher_saw_everything_once(history: &History, state: &BTreeMap<String, &KeyValue>) -> Result<(), String> {
    if let Some(pair) = history.seen.windows(2).find(|pair| pair[0].revision >= pair[1].revision) {
        return Err(format!("the watcher saw {:?} before {:?}", pair[0], pair[1]));
    }
    let by_revision: BTreeMap<i64, _> = history.seen.iter().map(|seen| (seen.revision, seen)).collect();
    for write in &history.writes {
        let Some(revision) = write.acknowledged else {
            continue;
        };
        match by_revision.get(&revision) {
            Some(seen) if seen.key == write.key && seen.value == write.value => {}
            other => return Err(format!("of {write:?} the watcher saw {other:?}")),
        }
    }
    let mut last = BTreeMap::new();
    for seen in &history.seen {
        if last.insert(seen.key.clone(), seen.value) == Some(seen.value) {
            return Err(format!("{seen:?} took effect twice"));
        }
    }
    for (key, kv) in state.iter().filter(|(key, _)| key.starts_with("r/")) {
        if last.get(key) != Some(&number(kv)) {
            return Err(format!("{key} holds {}, the watcher saw {:?} last", number(kv), last.get(key)));
        }
    }
    Ok(())
}

/// Every acknowledged increment counts once, every unknown one at most once.
fn the_counter_adds_up(history: &History, state: &BTreeMap<String, &KeyValue>) -> Result<(), String> {
    let value = state.get(COUNTER).map_or(0, |kv| number(kv));
    let (least, most) = (history.increments_acknowledged, history.increments_acknowledged + history.increments_unknown);
    if value < least || value > most {
        return Err(format!("the counter holds {value}, expected {least} to {most}"));
    }
    Ok(())
}
