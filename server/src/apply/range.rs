use std::cmp::Ordering;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};

use crate::env::probe;
use crate::mvcc::{EncodedKvs, EncodedResult, KeyValue, RangeOptions, RangeResult, ReadError};

/// Answers a range request by one read, which it then filters, sorts and cuts as etcd does.
///
/// Sort options that do not exist count as the default; `api` refuses them before it asks.
/// Keys that compare equal stay in key order (etcd leaves their order open).
pub fn range_response(
    request: &RangeRequest,
    read: impl FnOnce(&KeyRange, &RangeOptions) -> Result<RangeResult, ReadError>,
) -> Result<RangeResponse, ReadError> {
    let (range, options) = what_is_read(request);
    let RangeResult { mut kvs, count, revision } = read(&range, &options)?;
    if has_revision_filters(request) {
        kvs.retain(|kv| passes_filters(request, kv));
    }
    Sort::of(request).apply(&mut kvs);
    let more = request.limit > 0 && kvs.len() as i64 > request.limit;
    if more {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    Ok(RangeResponse { header, kvs, more, count })
}

/// What a request has to read.
pub fn what_is_read(request: &RangeRequest) -> (KeyRange, RangeOptions) {
    let sort = Sort::of(request);
    let options = RangeOptions {
        revision: request.revision,
        limit: read_limit(request, sort),
        count_only: request.count_only,
        // To sort by value the values are needed. etcd's answer shows it: only then keys keep their lease.
        keys_only: request.keys_only && sort.target != SortTarget::Value,
    };
    (KeyRange::new(request.key.clone(), request.range_end.clone()), options)
}

/// The answer to a range request, with the records in the encoding in which they leave.
#[derive(Clone, Debug, Default)]
pub struct EncodedRange {
    /// See [`RangeResponse::kvs`].
    pub kvs: EncodedKvs,
    /// See [`RangeResponse::more`].
    pub more: bool,
    /// See [`RangeResponse::count`].
    pub count: i64,
    /// The current revision when the range was read.
    pub revision: i64,
}

/// Whether the answer to a request is what is read, in that order: nobody has to look into the records.
pub fn is_plain_list(request: &RangeRequest) -> bool {
    let is_list = !request.range_end.is_empty() && !request.count_only;
    is_list && Sort::of(request).is_key_order() && !has_revision_filters(request)
}

/// Answers a [plain list](is_plain_list) by one read; the same as [`range_response`].
pub fn encoded_range(
    request: &RangeRequest,
    read: impl FnOnce(&KeyRange, &RangeOptions) -> Result<EncodedResult, ReadError>,
) -> Result<EncodedRange, ReadError> {
    let (range, options) = what_is_read(request);
    // Whether there are more is told by the number of them.
    let options = RangeOptions { limit: request.limit, ..options };
    let EncodedResult { kvs, count, revision } = read(&range, &options)?;
    // Nothing was left out but what is beyond the limit.
    let more = request.limit > 0 && count > request.limit;
    Ok(EncodedRange { kvs, more, count, revision })
}

/// How many keys are read: one more than asked for, which tells whether there are more, or all of them
/// where only sorting or filtering shows which ones are meant.
fn read_limit(request: &RangeRequest, sort: Sort) -> i64 {
    // etcd looks at the requested order alone. So without one, a sort by anything but the key sorts
    // only what a limited read in key order found.
    let mut in_key_order = request.sort_order == i32::from(SortOrder::None) || sort.is_key_order();
    // Wrong where it is broken: only the first keys are sorted.
    in_key_order |= probe::broken("range-cut-before-it-is-sorted");
    if request.limit <= 0 || !in_key_order || has_revision_filters(request) {
        return 0;
    }
    request.limit.saturating_add(1)
}

fn has_revision_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filters(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

#[derive(Clone, Copy)]
struct Sort {
    target: SortTarget,
    descending: bool,
}

impl Sort {
    fn of(request: &RangeRequest) -> Self {
        Self {
            target: SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key),
            descending: request.sort_order == i32::from(SortOrder::Descend),
        }
    }

    /// Whether this is the order in which keys are read.
    fn is_key_order(self) -> bool {
        self.target == SortTarget::Key && !self.descending
    }

    fn apply(self, kvs: &mut [KeyValue]) {
        if self.is_key_order() {
            return;
        }
        if self.target == SortTarget::Key {
            return kvs.reverse();
        }
        if self.descending {
            kvs.sort_by(|a, b| self.compare(b, a));
        } else {
            kvs.sort_by(|a, b| self.compare(a, b));
        }
    }

    fn compare(self, a: &KeyValue, b: &KeyValue) -> Ordering {
        match self.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    }
}
