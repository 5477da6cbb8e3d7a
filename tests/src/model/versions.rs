use std::collections::BTreeMap;
use std::ops::Bound;

use crate::history::{Change, KeyValue, Span};

/// Every version of every key.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    /// Of each key the revisions that changed it, rising, with what it was from then on.
    keys: BTreeMap<String, Vec<(i64, Option<KeyValue>)>>,
}

impl Versions {
    /// Takes a change in; its revision is not lower than that of any before.
    pub fn push(&mut self, change: &Change) {
        let revision = change.kv.modified;
        let now = (!change.deleted).then(|| change.kv.clone());
        match self.keys.get_mut(&change.kv.key) {
            None => {
                self.keys.insert(change.kv.key.clone(), vec![(revision, now)]);
            }
            Some(versions) => match versions.last_mut() {
                // Written twice within one transaction: only the last write is ever visible.
                Some(last) if last.0 == revision => last.1 = now,
                _ => versions.push((revision, now)),
            },
        }
    }

    /// The key as it was at a revision.
    pub fn get(&self, key: &str, revision: i64) -> Option<&KeyValue> {
        self.keys.get(key).and_then(|versions| at(versions, revision))
    }

    /// The keys of a span as they were at a revision, in their order.
    pub fn range(&self, span: &Span, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let from = span.from.as_str();
        let end = match &span.to {
            None => Bound::Included(from),
            // An end before the beginning is an empty span, not an error.
            Some(to) => Bound::Excluded(to.as_str().max(from)),
        };
        let is_empty = end == Bound::Excluded(from);
        let start = if is_empty { Bound::Unbounded } else { Bound::Included(from) };
        let found = self.keys.range::<str, _>((start, end)).map(|(_, versions)| versions);
        found.filter(move |_| !is_empty).filter_map(move |versions| at(versions, revision))
    }

    /// Every key as it was at a revision, in their order.
    pub fn all(&self, revision: i64) -> impl Iterator<Item = &KeyValue> {
        self.keys.values().filter_map(move |versions| at(versions, revision))
    }
}

fn at(versions: &[(i64, Option<KeyValue>)], revision: i64) -> Option<&KeyValue> {
    let behind = versions.partition_point(|(written, _)| *written <= revision);
    versions[..behind].last().and_then(|(_, kv)| kv.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, revision: i64) -> Change {
        let kv = KeyValue { key: key.into(), modified: revision, ..KeyValue::default() };
        Change { deleted: false, kv, prev: None }
    }

    fn delete(key: &str, revision: i64) -> Change {
        Change { deleted: true, ..put(key, revision) }
    }

    fn keys(versions: &Versions, span: &Span, revision: i64) -> Vec<(String, i64)> {
        versions.range(span, revision).map(|kv| (kv.key.clone(), kv.modified)).collect()
    }

    #[test]
    fn every_revision_stays_readable() {
        let mut versions = Versions::default();
        for change in [put("b", 2), put("a", 3), put("b", 4), delete("a", 5), put("c", 6), delete("c", 6)] {
            versions.push(&change);
        }
        let all = Span { from: "a".into(), to: Some("z".into()) };
        assert_eq!(keys(&versions, &all, 1), []);
        assert_eq!(keys(&versions, &all, 3), [("a".into(), 3), ("b".into(), 2)]);
        assert_eq!(keys(&versions, &all, 6), [("b".into(), 4)]);
        assert_eq!(versions.get("b", 3).map(|kv| kv.modified), Some(2));
        assert_eq!(versions.get("a", 5), None);
        assert_eq!(versions.all(4).count(), 2);
    }

    #[test]
    fn spans_are_half_open_and_may_be_empty() {
        let mut versions = Versions::default();
        versions.push(&put("a", 2));
        versions.push(&put("ab", 3));
        versions.push(&put("b", 4));
        let span = |from: &str, to: Option<&str>| Span { from: from.into(), to: to.map(Into::into) };
        assert_eq!(keys(&versions, &span("a", None), 9), [("a".into(), 2)]);
        assert_eq!(keys(&versions, &span("a", Some("b")), 9), [("a".into(), 2), ("ab".into(), 3)]);
        assert_eq!(keys(&versions, &span("b", Some("a")), 9), []);
        assert_eq!(keys(&versions, &span("b", Some("b")), 9), []);
        assert_eq!(keys(&versions, &span("", Some("z")), 9).len(), 3);
    }
}
