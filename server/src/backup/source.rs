//! Lists etcd's buckets from one moment of the store.

use std::ops::{Bound, ControlFlow};

use mainstay_proto::etcdserverpb::{AlarmResponse, DowngradeInfo};
use mainstay_proto::mainstay::{AppliedState, MemberAttributes};
use prost::Message;

use super::SnapshotError;
use super::bolt::{Content, Put};
use super::schema::{self, Meta, Pairs};
use crate::engine::layout::{self, auth as keys, meta};
use crate::engine::{Family, View};
use crate::lease::LeaseRecord;
use crate::mvcc::BackendChange;

/// The buckets of one moment. What can be many is read from the view whenever it is listed; the rest, once.
pub(super) struct Source<'a> {
    view: &'a dyn View,
    meta: Meta,
    /// Small buckets by name.
    small: Vec<(&'static str, Pairs)>,
    /// Asked now and then whether to go on.
    is_waiting: &'a dyn Fn() -> bool,
}

impl<'a> Source<'a> {
    /// Reads what is small. `cluster_version` is the one that the members have agreed on.
    pub(super) fn open(
        view: &'a dyn View,
        cluster_version: &str,
        is_waiting: &'a dyn Fn() -> bool,
    ) -> Result<Self, SnapshotError> {
        let meta = read_meta(view)?;
        let membership = meta.applied.membership.clone().unwrap_or_default().membership.unwrap_or_default();
        let small = vec![
            (schema::ALARM, alarms(view)?),
            (schema::AUTH, auth(view)?),
            (schema::AUTH_ROLES, named(view, keys::ROLE)?),
            (schema::AUTH_USERS, named(view, keys::USER)?),
            (schema::CLUSTER, schema::cluster(cluster_version, downgrade(view)?.as_ref())?),
            (schema::MEMBERS, schema::members(&membership, &published(view)?)?),
            // Who was removed is not recorded: a restored cluster begins with new members anyway.
            (schema::MEMBERS_REMOVED, Pairs::new()),
            (schema::META, meta.pairs()?),
        ];
        Ok(Self { view, meta, small, is_waiting })
    }

    /// The last entry that the state includes.
    pub(super) fn applied_index(&self) -> u64 {
        self.meta.applied.log_id.unwrap_or_default().index
    }

    /// Visits the pairs of a family between two bounds; the first error ends it.
    fn scan(
        &self,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Put<'_, SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let mut result = Ok(());
        let mut visited = 0u32;
        self.view.scan(family, from, to, &mut |key, value| {
            visited = visited.wrapping_add(1);
            result = if visited.is_multiple_of(ASK_EVERY) && !(self.is_waiting)() {
                Err(SnapshotError::Unwanted)
            } else {
                visit(key, value)
            };
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    fn list_revisions(&self, put: Put<'_, SnapshotError>) -> Result<(), SnapshotError> {
        self.scan(Family::Revisions, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            let change = BackendChange::of(key, value)?;
            put(change.key(), change.value)
        })
    }

    fn list_leases(&self, put: Put<'_, SnapshotError>) -> Result<(), SnapshotError> {
        let mut put = |key: &[u8], value: &[u8]| {
            let (key, value) = schema::lease(&LeaseRecord::decode(key, value)?);
            put(&key, &value)
        };
        // etcd orders ids as if they had no sign: negative ones come last.
        let zero = layout::lease_key(0);
        self.scan(Family::Leases, Bound::Included(&zero), Bound::Unbounded, &mut put)?;
        self.scan(Family::Leases, Bound::Unbounded, Bound::Excluded(&zero), &mut put)
    }
}

/// Records between two questions whether the file is still wanted.
const ASK_EVERY: u32 = 4096;

impl Content for Source<'_> {
    type Error = SnapshotError;

    fn buckets(&self) -> &[&'static str] {
        &schema::BUCKETS
    }

    fn list(&self, bucket: &str, put: Put<'_, SnapshotError>) -> Result<(), SnapshotError> {
        match bucket {
            schema::KEY => self.list_revisions(put),
            schema::LEASE => self.list_leases(put),
            _ => {
                let small = self.small.iter().filter(|(name, _)| *name == bucket);
                for (key, value) in small.flat_map(|(_, pairs)| pairs) {
                    put(key, value)?;
                }
                Ok(())
            }
        }
    }
}

fn read_meta(view: &dyn View) -> Result<Meta, SnapshotError> {
    let applied = view.get(Family::Meta, meta::APPLIED)?.unwrap_or_default();
    let number = |key| -> Result<Option<i64>, SnapshotError> {
        let Some(bytes) = view.get(Family::Meta, key)? else { return Ok(None) };
        let number = layout::decode_meta_i64(&bytes).ok_or(SnapshotError::Damaged("a number in meta"))?;
        Ok((number >= 0).then_some(number))
    };
    Ok(Meta {
        applied: AppliedState::decode(applied)?,
        compacted: number(meta::COMPACTED)?,
        removed: number(meta::COMPACTION_FINISHED)?,
    })
}

fn alarms(view: &dyn View) -> Result<Pairs, SnapshotError> {
    let stored = view.get(Family::Meta, meta::ALARMS)?.unwrap_or_default();
    let alarms = AlarmResponse::decode(stored)?.alarms;
    let mut pairs: Pairs = alarms.iter().map(|alarm| (alarm.encode_to_vec(), Vec::new())).collect();
    pairs.sort();
    Ok(pairs)
}

/// The revision of users and roles, and whether they count, where that was ever said.
fn auth(view: &dyn View) -> Result<Pairs, SnapshotError> {
    let enabled = view.get(Family::Auth, keys::ENABLED)?;
    let revision = view.get(Family::Auth, keys::REVISION)?;
    Ok(schema::auth(enabled.as_deref(), revision.as_deref()))
}

/// Users, or roles: what is stored under a prefix, under the names alone. It is what etcd stores, too.
fn named(view: &dyn View, prefix: &[u8]) -> Result<Pairs, SnapshotError> {
    let mut pairs = Pairs::new();
    view.scan(Family::Auth, Bound::Included(prefix), Bound::Unbounded, &mut |key, value| {
        let Some(name) = key.strip_prefix(prefix) else { return ControlFlow::Break(()) };
        pairs.push((name.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(pairs)
}

fn downgrade(view: &dyn View) -> Result<Option<DowngradeInfo>, SnapshotError> {
    let stored = view.get(Family::Meta, meta::DOWNGRADE)?;
    Ok(stored.map(DowngradeInfo::decode).transpose()?)
}

fn published(view: &dyn View) -> Result<Vec<MemberAttributes>, SnapshotError> {
    let mut found = Vec::new();
    view.scan(Family::Members, Bound::Unbounded, Bound::Unbounded, &mut |_, value| {
        found.push(MemberAttributes::decode(value));
        ControlFlow::Continue(())
    })?;
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}
