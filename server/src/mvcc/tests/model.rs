//! The naive model: every change ever made in a list, every question answered by walking it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_proto::KeyRange;

use super::super::{KeyValue, RangeOptions, RangeResult, Revision};

/// A change: the record of a put, or nothing for a delete.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) key: Bytes,
    pub(super) kv: Option<KeyValue>,
}

/// The whole history.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) changes: Vec<Change>,
}

/// How a read ends when it does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Compacted,
    Future,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { revision: 1, compacted: -1, changes: Vec::new() }
    }

    /// The live records at a revision.
    pub(super) fn live(&self, at: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut live = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.revision.main <= at) {
            match &change.kv {
                Some(kv) => live.insert(change.key.clone(), kv.clone()),
                None => live.remove(&change.key),
            };
        }
        live
    }

    pub(super) fn put(&mut self, main: i64, key: Bytes, value: Bytes, lease: i64) {
        let before = self.live(main).remove(&key);
        let kv = KeyValue {
            key: key.clone(),
            create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: before.map_or(0, |kv| kv.version) + 1,
            value,
            lease,
        };
        self.push(main, key, Some(kv));
    }

    pub(super) fn delete_range(&mut self, main: i64, range: &KeyRange) -> Vec<KeyValue> {
        let doomed: Vec<KeyValue> = self.live(main).into_values().filter(|kv| range.contains(&kv.key)).collect();
        for kv in &doomed {
            self.push(main, kv.key.clone(), None);
        }
        doomed
    }

    fn push(&mut self, main: i64, key: Bytes, kv: Option<KeyValue>) {
        let sub = self.changes.iter().filter(|change| change.revision.main == main).count() as i64;
        self.changes.push(Change { revision: Revision { main, sub }, key, kv });
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refused> {
        if revision > self.revision {
            return Err(Refused::Future);
        }
        if revision <= self.compacted {
            return Err(Refused::Compacted);
        }
        self.compacted = revision;
        Ok(())
    }

    pub(super) fn range(&self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, Refused> {
        let at = if options.revision <= 0 { self.revision } else { options.revision };
        if at > self.revision {
            return Err(Refused::Future);
        }
        if at < self.compacted {
            return Err(Refused::Compacted);
        }
        let mut kvs: Vec<KeyValue> = self.live(at).into_values().filter(|kv| range.contains(&kv.key)).collect();
        let count = kvs.len() as i64;
        if options.limit > 0 {
            kvs.truncate(options.limit as usize);
        }
        if options.count_only {
            kvs.clear();
        }
        if options.keys_only {
            for kv in &mut kvs {
                (kv.value, kv.lease) = (Bytes::new(), 0);
            }
        }
        Ok(RangeResult { kvs, count, revision: self.revision })
    }

    /// What a compaction at the watermark leaves: for each key what came after, and the last change
    /// up to it, unless that is a delete from before.
    pub(super) fn stored(&self) -> Vec<&Change> {
        let survives = |i: usize, change: &Change| {
            let is_superseded = self.changes[i + 1..]
                .iter()
                .any(|later| later.key == change.key && later.revision.main <= self.compacted);
            let is_old_delete = change.kv.is_none() && change.revision.main < self.compacted;
            change.revision.main > self.compacted || !is_superseded && !is_old_delete
        };
        self.changes.iter().enumerate().filter(|(i, change)| survives(*i, change)).map(|(_, change)| change).collect()
    }

    /// etcd's hash of the history up to a revision, as its source computes it.
    pub(super) fn hash(&self, at: i64) -> u32 {
        let keep: Vec<Revision> = {
            let live = self.live(at);
            let newest = |change: &&Change| live.get(&change.key).is_some_and(|kv| Some(kv) == change.kv.as_ref());
            self.changes.iter().filter(newest).map(|change| change.revision).collect()
        };
        let mut data = b"key".to_vec();
        for change in self.stored() {
            let Revision { main, sub } = change.revision;
            let is_skipped = main <= self.compacted && !keep.is_empty() && !keep.contains(&change.revision);
            if main > at || is_skipped || main == self.compacted && change.kv.is_none() {
                continue;
            }
            data.extend_from_slice(&main.to_be_bytes());
            data.push(b'_');
            data.extend_from_slice(&sub.to_be_bytes());
            let tombstone = KeyValue { key: change.key.clone(), ..KeyValue::default() };
            if change.kv.is_none() {
                data.push(b't');
            }
            data.extend(prost::Message::encode_to_vec(change.kv.as_ref().unwrap_or(&tombstone)));
        }
        crc32c_bitwise(&data)
    }
}

/// CRC-32C from its definition, to be independent of the crate.
fn crc32c_bitwise(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c_bitwise(b"123456789"), 0xe306_9283);
}
