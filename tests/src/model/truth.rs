use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::txn::prev_of;
use super::{Causes, Versions, evaluate};
use crate::history::{Change, History, KeyValue, Received, Txn, Watch};

/// What was committed at one revision.
#[derive(Clone, Debug)]
pub struct Commit {
    /// What changed, in the order of the transaction that did it.
    pub changes: Vec<Change>,
    /// When the observer learned of it; it happened no later.
    pub at: Duration,
}

/// What the store went through, as the observer's watch saw it.
///
/// It is built from any record, also from a wrong one: that the record is whole and consistent is
/// what `revisions.rs` checks first. Where the observer was overtaken by a compaction, the changes
/// in between are not known, and from there on no state is.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The commits by revision.
    pub commits: BTreeMap<i64, Commit>,
    /// Every version of every key.
    pub versions: Versions,
    /// The revisions that the observer could not see, each first and last.
    pub lost: Vec<(i64, i64)>,
    /// The last revision of the run.
    pub last: i64,
    /// Found when they are first asked for.
    causes: OnceCell<Causes>,
}

impl Truth {
    /// Reads the observer's record.
    pub fn of(history: &History) -> Self {
        let mut truth = Self { last: history.end.revision.max(1), ..Self::default() };
        let mut next = 2;
        for received in history.watches.first().map_or(&[][..], |observer| &observer.received) {
            match received {
                Received::Events { at, changes, .. } => {
                    for change in changes {
                        let revision = change.kv.modified;
                        next = next.max(revision + 1);
                        let commit = truth.commits.entry(revision);
                        let commit = commit.or_insert_with(|| Commit { changes: Vec::new(), at: *at });
                        // A watch that broke within a revision begins it again.
                        if !commit.changes.contains(change) {
                            commit.changes.push(change.clone());
                        }
                    }
                }
                Received::Compacted { resumed, .. } => {
                    if *resumed > next {
                        truth.lost.push((next, resumed - 1));
                    }
                    next = next.max(*resumed);
                }
                Received::Opened { .. }
                | Received::Progress { .. }
                | Received::Cancelled { .. }
                | Received::Broken { .. } => {}
            }
        }
        for change in truth.commits.values().flat_map(|commit| &commit.changes) {
            truth.versions.push(change);
        }
        truth.last = truth.commits.keys().last().copied().unwrap_or(1).max(truth.last);
        truth
    }

    /// Which calls of the history that this was read from made which revisions.
    pub fn causes(&self, history: &History) -> &Causes {
        self.causes.get_or_init(|| Causes::of(history, self))
    }

    /// Whether the observer could see a revision's changes.
    pub fn knows(&self, revision: i64) -> bool {
        !self.lost.iter().any(|(first, last)| (*first..=*last).contains(&revision))
    }

    /// Whether the state at a revision is known: everything up to it was seen.
    pub fn knows_state(&self, revision: i64) -> bool {
        self.lost.first().is_none_or(|(first, _)| revision < *first)
    }

    /// What changed at a revision; nothing where there was none.
    pub fn changes(&self, revision: i64) -> &[Change] {
        self.commits.get(&revision).map_or(&[], |commit| &commit.changes)
    }

    /// What was there before a change, as a watch tells it.
    pub fn prev(&self, change: &Change) -> Option<KeyValue> {
        prev_of(&self.versions, change)
    }

    /// Whether a revision changed exactly what a transaction would have. `None` where that is unknown.
    pub fn is_effect(&self, revision: i64, txn: &Txn) -> Option<bool> {
        if !self.knows_state(revision) {
            return None;
        }
        let expected = evaluate(&self.versions, txn, revision - 1).changes;
        Some(same_changes(&expected, self.changes(revision)))
    }

    /// The commits that a watch was to see from one revision to another, with what it was to see.
    pub fn seen_by<'a>(
        &'a self,
        watch: &'a Watch,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, Vec<&'a Change>)> + 'a {
        let commits = (from <= to).then(|| self.commits.range(from..=to)).into_iter().flatten();
        commits.filter_map(move |(revision, commit)| {
            let changes: Vec<&Change> = commit.changes.iter().filter(|change| wants(watch, change)).collect();
            (!changes.is_empty()).then_some((*revision, changes))
        })
    }
}

fn wants(watch: &Watch, change: &Change) -> bool {
    let filtered = if change.deleted { watch.no_delete } else { watch.no_put };
    !filtered && watch.span.contains(&change.kv.key)
}

/// Whether two lists of changes are the same but for what was there before, which a watch may not
/// know any more.
pub(super) fn same_changes(one: &[Change], other: &[Change]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.deleted == other.deleted && one.kv == other.kv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Span, Step};

    fn put(key: &str, revision: i64) -> Change {
        let kv = KeyValue {
            key: key.into(),
            value: format!("v{revision}"),
            created: revision,
            modified: revision,
            version: 1,
            lease: 0,
        };
        Change { deleted: false, kv, prev: None }
    }

    fn events(at: u64, changes: Vec<Change>, fragment: bool) -> Received {
        Received::Events { at: Duration::from_secs(at), revision: 9, changes, fragment }
    }

    fn history(received: Vec<Received>) -> History {
        let span = Span { from: "a".into(), to: Some("z".into()) };
        let watch = Watch {
            client: 0,
            since: Duration::ZERO,
            slow_until: Duration::ZERO,
            span,
            start: 1,
            prev_kv: true,
            no_put: false,
            no_delete: false,
            fragment: true,
            received,
        };
        History { watches: vec![watch], ..History::default() }
    }

    #[test]
    fn commits_are_put_together_from_fragments() {
        let broken = Received::Broken { at: Duration::from_secs(2), why: "test".into() };
        let truth = Truth::of(&history(vec![
            events(1, vec![put("a", 2), put("b", 3)], true),
            broken,
            events(3, vec![put("b", 3)], true),
            events(4, vec![put("c", 3)], false),
        ]));
        assert_eq!(truth.changes(3), [put("b", 3), put("c", 3)]);
        assert_eq!(truth.commits[&3].at, Duration::from_secs(1));
        assert_eq!((truth.last, truth.changes(4).len()), (3, 0));
        assert_eq!(truth.is_effect(2, &Txn::of(Step::put("a", "v2"))), Some(true));
        assert_eq!(truth.is_effect(2, &Txn::of(Step::put("a", "v3"))), Some(false));
    }

    #[test]
    fn what_was_compacted_away_is_unknown() {
        let compacted = Received::Compacted { at: Duration::from_secs(2), compact_revision: 5, resumed: 7 };
        let truth = Truth::of(&history(vec![
            events(1, vec![put("a", 2)], false),
            compacted,
            events(3, vec![put("b", 7)], false),
        ]));
        assert_eq!(truth.lost, [(3, 6)]);
        assert!(truth.knows(2) && !truth.knows(3) && !truth.knows(6) && truth.knows(7));
        assert!(truth.knows_state(2) && !truth.knows_state(7));
        assert_eq!(truth.is_effect(7, &Txn::of(Step::put("b", "v7"))), None);
    }

    #[test]
    fn a_watch_sees_what_it_asked_for() {
        let delete =
            Change { deleted: true, kv: KeyValue { key: "b".into(), modified: 4, ..KeyValue::default() }, prev: None };
        let mut history = history(vec![events(1, vec![put("a", 2), put("b", 3), delete.clone()], false)]);
        let mut watch = history.watches.remove(0);
        watch.span = Span::key("b");
        history.watches.push(Watch { span: Span { from: "a".into(), to: Some("z".into()) }, ..watch.clone() });
        let truth = Truth::of(&history);
        let seen =
            |watch: &Watch, from| truth.seen_by(watch, from, 9).map(|(revision, _)| revision).collect::<Vec<_>>();
        assert_eq!(seen(&watch, 1), [3, 4]);
        assert_eq!(seen(&watch, 4), [4]);
        watch.no_delete = true;
        assert_eq!(seen(&watch, 1), [3]);
        assert_eq!(truth.prev(&delete), Some(put("b", 3).kv));
    }
}
