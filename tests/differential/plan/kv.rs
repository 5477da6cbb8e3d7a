//! Reads and writes of keys.

use bytes::Bytes;
use mainstay_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RangeRequest};

use super::Planner;
use crate::step::Step;
use crate::symbols::Symbol;

/// The largest value that is stored. None other is put while there is no space, as a put that shrinks its key is
/// carried out then, which etcd refuses.
pub(super) const LARGEST: &[u8] = b"@fill:20000";

impl Planner {
    pub(super) fn put(&mut self, client: usize) -> Step {
        Step::call(client, "KV.Put", &self.put_request())
    }

    pub(super) fn range(&mut self, client: usize) -> Step {
        Step::call(client, "KV.Range", &self.range_request())
    }

    pub(super) fn range_stream(&mut self, client: usize) -> Step {
        let mut request = self.range_request();
        super::crashes::range_stream(&mut request);
        Step::call(client, "KV.RangeStream", &request)
    }

    pub(super) fn delete(&mut self, client: usize) -> Step {
        Step::call(client, "KV.DeleteRange", &self.delete_request())
    }

    pub(super) fn compact(&mut self, client: usize) -> Step {
        let dice = &mut self.dice;
        let revision = match dice.below(10) {
            0..=6 => Symbol::Now(-dice.between(0, 40)).number(),
            7 => Symbol::Compacted(dice.between(-1, 1)).number(),
            8 => Symbol::Now(dice.between(1, 3)).number(),
            _ => dice.between(-1, 3),
        };
        Step::call(client, "KV.Compact", &CompactionRequest { revision, physical: self.dice.chance(50) })
    }

    pub(super) fn hash_kv(&mut self, client: usize) -> Step {
        let revision = if self.dice.chance(30) { 0 } else { self.revision() };
        Step::call(client, "Maintenance.HashKV", &HashKvRequest { revision })
    }

    pub(super) fn scan(&mut self, client: usize) -> Step {
        Step::special(client, "Scan", "").expect("the message has no fields")
    }

    pub(super) fn put_request(&mut self) -> PutRequest {
        let key = self.keys.key(&mut self.dice);
        let mut request = PutRequest { key, value: self.value(), ..PutRequest::default() };
        let dice = &mut self.dice;
        request.prev_kv = dice.chance(30);
        if dice.chance(8) {
            request.ignore_value = true;
            if !dice.chance(10) {
                request.value = Bytes::new();
            }
        }
        request.ignore_lease = dice.chance(8);
        if dice.chance(25) && (!request.ignore_lease || dice.chance(10)) {
            request.lease = self.attached_lease();
        }
        request
    }

    /// A value: mostly its own, sometimes one of a few, so that some are equal.
    pub(super) fn value(&mut self) -> Bytes {
        self.values += 1;
        if !self.full_members.is_empty() {
            return Bytes::from_static(LARGEST);
        }
        match self.dice.below(400) {
            0 => Bytes::from_static(b"@fill:1600000"), // above what a request may have
            1 => Bytes::from_static(b"@fill:2200000"), // above what a message may have
            2..=5 => Bytes::from_static(LARGEST),
            6..=30 => Bytes::new(),
            31..=200 => format!("v{}", self.values % 5).into(),
            _ => format!("v{}", self.values).into(),
        }
    }

    pub(super) fn range_request(&mut self) -> RangeRequest {
        let (key, range_end) = self.keys.range(&mut self.dice);
        let mut request = RangeRequest { key, range_end, ..RangeRequest::default() };
        if self.dice.chance(40) {
            request.revision = self.revision();
        }
        if self.dice.chance(30) {
            request.limit = if self.dice.chance(5) { self.odd_number() } else { self.dice.between(0, 6) };
        }
        if self.dice.chance(35) {
            request.sort_order = self.enum_number(3);
            request.sort_target = self.enum_number(5);
        }
        request.serializable = self.dice.chance(15);
        request.keys_only = self.dice.chance(12);
        request.count_only = self.dice.chance(8);
        for bound in [
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            if self.dice.chance(4) {
                *bound = Symbol::Now(-self.dice.between(-1, 60)).number();
            }
        }
        request
    }

    pub(super) fn delete_request(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.keys.range(&mut self.dice);
        // Everything at once is seldom interesting, and what comes after it is even less.
        let whole = range_end == b"\0"[..] && !self.dice.chance(15);
        DeleteRangeRequest {
            key,
            range_end: if whole { Bytes::new() } else { range_end },
            prev_kv: self.dice.chance(40),
        }
    }
}
