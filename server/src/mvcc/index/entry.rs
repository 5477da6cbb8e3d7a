//! What the index knows of one key.

use super::super::Revision;
use crate::env::probe;

/// Marks an entry whose record is not cached.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// The bit of a packed sub-revision that says "changed since the last index checkpoint" in an
/// entry's head, and "tombstone" in an older version.
const MARK: u32 = 1 << 31;

/// The versions of one key: the newest in full, the older ones by revision.
///
/// A tombstone ends a generation, as in etcd's key index; here it is an older version like the
/// others, with a mark.
#[derive(Debug)]
pub(crate) struct Entry {
    main: i64,
    create: i64,
    /// 0 where the newest version is a tombstone.
    version: i64,
    lease: i64,
    /// The sub-revision, and whether the entry changed since the last index checkpoint.
    packed_sub: u32,
    slot: u32,
    /// Oldest first. Boxed, because most keys have none.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in each of millions of entries")]
    older: Option<Box<Vec<Older>>>,
}

/// A version that was superseded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Older {
    main: i64,
    packed_sub: u32,
}

impl Older {
    pub(crate) fn new(revision: Revision, is_tombstone: bool) -> Self {
        Self { main: revision.main, packed_sub: pack(revision.sub) | if is_tombstone { MARK } else { 0 } }
    }

    pub(crate) fn revision(self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.packed_sub & !MARK) }
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.packed_sub & MARK != 0
    }
}

/// The newest version of a live key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) revision: Revision,
    pub(crate) create: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// Which version of a key is visible at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visible {
    /// None: the key did not exist.
    Nothing,
    /// The newest one.
    Head,
    /// An older one.
    Older(Revision),
}

impl Default for Entry {
    /// A key that has no version yet.
    fn default() -> Self {
        Self { main: 0, create: 0, version: 0, lease: 0, packed_sub: 0, slot: NO_SLOT, older: None }
    }
}

impl Entry {
    /// An entry as it was stored.
    pub(crate) fn restored(revision: Revision, live: Option<(i64, i64, i64)>, older: Vec<Older>) -> Self {
        let (create, version, lease) = live.unwrap_or_default();
        Self {
            main: revision.main,
            create,
            version,
            lease,
            packed_sub: pack(revision.sub),
            slot: NO_SLOT,
            older: (!older.is_empty()).then(|| Box::new(older)),
        }
    }

    /// Whether the key exists as of its newest version.
    pub(crate) fn is_live(&self) -> bool {
        self.version > 0
    }

    /// The revision of the newest version.
    pub(crate) fn revision(&self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.packed_sub & !MARK) }
    }

    /// The newest version, where the key exists.
    pub(crate) fn head(&self) -> Option<Head> {
        self.is_live().then(|| Head {
            revision: self.revision(),
            create: self.create,
            version: self.version,
            lease: self.lease,
        })
    }

    /// The superseded versions, oldest first.
    pub(crate) fn older(&self) -> &[Older] {
        self.older.as_ref().map_or(&[], |older| older.as_slice())
    }

    /// Whether a compaction may find something to remove.
    pub(crate) fn has_history(&self) -> bool {
        !self.is_live() || self.older.is_some()
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    pub(crate) fn set_slot(&mut self, slot: u32) {
        self.slot = slot;
    }

    /// Whether the entry changed since the last index checkpoint.
    pub(crate) fn is_dirty(&self) -> bool {
        self.packed_sub & MARK != 0
    }

    pub(crate) fn set_dirty(&mut self, dirty: bool) {
        self.packed_sub = self.packed_sub & !MARK | if dirty { MARK } else { 0 };
    }

    /// The version that is visible at a main revision.
    pub(crate) fn at(&self, revision: i64) -> Visible {
        if self.main <= revision {
            return if self.is_live() { Visible::Head } else { Visible::Nothing };
        }
        let older = self.older();
        match older.partition_point(|version| version.main <= revision).checked_sub(1) {
            Some(i) if !older[i].is_tombstone() => Visible::Older(older[i].revision()),
            _ => Visible::Nothing,
        }
    }

    /// Adds a version.
    pub(crate) fn put(&mut self, revision: Revision, create: i64, version: i64, lease: i64) {
        self.supersede(revision);
        (self.create, self.version, self.lease) = (create, version, lease);
    }

    /// Forgets every version, for those of a later creation to follow.
    pub(crate) fn start_over(&mut self) {
        *self = Self::default();
    }

    /// Adds a tombstone.
    pub(crate) fn delete(&mut self, revision: Revision) {
        self.supersede(revision);
        (self.create, self.version, self.lease) = (0, 0, 0);
    }

    fn supersede(&mut self, by: Revision) {
        assert!(self.revision() < by, "a change at {by:?} cannot follow one at {:?}", self.revision());
        if self.main > 0 {
            let old = Older::new(self.revision(), !self.is_live());
            self.older.get_or_insert_default().push(old);
        }
        self.main = by.main;
        self.packed_sub = pack(by.sub) | MARK;
        self.slot = NO_SLOT;
    }

    /// Removes what a compaction at `revision` does not keep, and tells the revisions of it, oldest
    /// first: all before the newest version at `revision`, and that one too if it is a tombstone from
    /// before. Whether nothing is left.
    pub(crate) fn compact(&mut self, revision: i64, dead: &mut Vec<Revision>) -> bool {
        let before = dead.len();
        // Wrong where it is broken: a delete that is newer than the compaction goes with what is older.
        let swallowed = !self.is_live() && probe::broken("compaction-swallows-delete");
        let head_is_kept = self.is_live() || (self.main >= revision && !swallowed);
        if self.main <= revision || swallowed {
            dead.extend(self.older().iter().map(|version| version.revision()));
            self.older = None;
            if !head_is_kept {
                dead.push(self.revision());
                return true;
            }
        } else if let Some(older) = &mut self.older {
            let newest = older.partition_point(|version| version.main <= revision);
            if let Some(last) = newest.checked_sub(1) {
                let is_kept = !older[last].is_tombstone() || older[last].main == revision;
                // Wrong where it is broken: the version goes that the compacted revision itself shows.
                let is_kept = is_kept && !probe::broken("compaction-drops-visible-version");
                let count = if is_kept { last } else { newest };
                dead.extend(older.drain(..count).map(Older::revision));
                if older.is_empty() {
                    self.older = None;
                } else if older.len() * 4 < older.capacity() {
                    older.shrink_to_fit();
                }
            }
        }
        if dead.len() > before {
            self.set_dirty(true);
        }
        false
    }
}

fn pack(sub: i64) -> u32 {
    let sub = u32::try_from(sub).ok().filter(|sub| sub & MARK == 0);
    sub.expect("a transaction has fewer than two billion changes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `p` puts and `d` deletes at the given revisions.
    fn entry(changes: &[(char, i64, i64)]) -> Entry {
        let mut entry = Entry::default();
        for &(kind, main, sub) in changes {
            let revision = Revision { main, sub };
            match entry.head() {
                _ if kind == 'd' => entry.delete(revision),
                Some(head) => entry.put(revision, head.create, head.version + 1, 0),
                None => entry.put(revision, main, 1, 0),
            }
        }
        entry
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    #[test]
    fn visibility() {
        let entry = entry(&[('p', 2, 0), ('p', 4, 0), ('d', 6, 0), ('p', 6, 1), ('d', 8, 0)]);
        for (at, expected) in [
            (1, Visible::Nothing),
            (2, Visible::Older(Revision { main: 2, sub: 0 })),
            (3, Visible::Older(Revision { main: 2, sub: 0 })),
            (5, Visible::Older(Revision { main: 4, sub: 0 })),
            (6, Visible::Older(Revision { main: 6, sub: 1 })),
            (8, Visible::Nothing),
            (9, Visible::Nothing),
        ] {
            assert_eq!(entry.at(at), expected, "at {at}");
        }
    }

    #[test]
    fn compaction_keeps_the_newest_version_and_a_tombstone_at_its_revision() {
        let changes = [('p', 2, 0), ('p', 4, 0), ('d', 6, 0), ('p', 8, 0), ('d', 8, 1), ('p', 8, 2), ('d', 10, 0)];
        for (at, dead, is_gone) in [
            (1, &[][..], false),
            (2, &[], false),
            (5, &[(2, 0)], false),
            (6, &[(2, 0), (4, 0)], false),
            (7, &[(2, 0), (4, 0), (6, 0)], false),
            (8, &[(2, 0), (4, 0), (6, 0), (8, 0), (8, 1)], false),
            (10, &[(2, 0), (4, 0), (6, 0), (8, 0), (8, 1), (8, 2)], false),
            (11, &[(2, 0), (4, 0), (6, 0), (8, 0), (8, 1), (8, 2), (10, 0)], true),
        ] {
            let mut removed = Vec::new();
            assert_eq!(entry(&changes).compact(at, &mut removed), is_gone, "at {at}");
            let removed: Vec<_> = removed.iter().map(|revision| (revision.main, revision.sub)).collect();
            assert_eq!(removed, dead, "at {at}");
        }
    }
}
