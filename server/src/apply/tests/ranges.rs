//! The options of a range, one table row each.

use std::cell::Cell;

use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_proto::etcdserverpb::{PutRequest, RangeRequest};
use prost::Message;

use super::commands::*;
use super::*;
use crate::apply::{EncodedRange, encoded_range, is_plain_list, range_response};
use crate::mvcc::{RangeOptions, ReadError, Store};

/// `d` to `a` in the order of their creation, `b` put once more, values against the order of the keys,
/// and `a` attached to a lease. Revision 6.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    for command in [grant(7, 60), put("d", "1"), put("c", "2"), put("b", "9"), put_leased("a", "4", 7), put("b", "3")] {
        fixture.run(&command);
    }
    fixture
}

/// What a plain list leaves as is what the ordinary encoding of it gives.
#[track_caller]
fn check_encoded(store: &Store, request: &RangeRequest, expected: &RangeResponse) {
    let read = |range: &KeyRange, options: &RangeOptions| store.encoded_within(range, options, &|_| true);
    let EncodedRange { mut kvs, more, count, revision } = encoded_range(request, read).unwrap();
    let revision_expected = expected.header.unwrap().revision;
    assert_eq!((more, count, revision), (expected.more, expected.count, revision_expected), "{request:?}");
    let mut bytes = Vec::new();
    while let Some(piece) = kvs.next_piece() {
        bytes.extend_from_slice(&piece);
    }
    let expected = RangeResponse { kvs: expected.kvs.clone(), ..RangeResponse::default() };
    assert_eq!(bytes, expected.encode_to_vec(), "{request:?}");
}

/// What a request finds, as `keys of count`, with a `+` where there is more.
#[track_caller]
fn check(request: RangeRequest, expected: &str) {
    let store = fixture().state.store();
    let found = range_response(&request, |range, options| store.range(range, options)).unwrap();
    if is_plain_list(&request) {
        check_encoded(&store, &request, &found);
    }
    assert_eq!(found.header.unwrap().revision, 6);
    let keys: String = found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    let more = if found.more { "+" } else { "" };
    assert_eq!(format!("{keys}{more} of {}", found.count), expected, "{request:?}");
}

fn all() -> RangeRequest {
    range_request("a", "z")
}

fn sorted(sort_order: SortOrder, sort_target: SortTarget) -> RangeRequest {
    RangeRequest { sort_order: sort_order.into(), sort_target: sort_target.into(), ..all() }
}

#[test]
fn ranges() {
    check(range_request("b", ""), "b of 1");
    check(range_request("x", ""), " of 0");
    check(all(), "abcd of 4");
    check(range_request("a", "c"), "ab of 2");
    check(range_request("b", "\0"), "bcd of 3");
    check(range_request("\0", "\0"), "abcd of 4");
    check(range_request("c", "a"), " of 0");
    check(range_request("c", "c"), " of 0");
}

#[test]
fn limits() {
    for (limit, expected) in
        [(-1, "abcd of 4"), (0, "abcd of 4"), (1, "a+ of 4"), (4, "abcd of 4"), (i64::MAX, "abcd of 4")]
    {
        check(RangeRequest { limit, ..all() }, expected);
    }
    check(RangeRequest { limit: 2, count_only: true, ..all() }, " of 4");
}

#[test]
fn revisions() {
    check(RangeRequest { revision: -5, ..all() }, "abcd of 4");
    check(RangeRequest { revision: 3, ..all() }, "cd of 2");
    let mut fixture = fixture();
    fixture.run(&compact(3));
    let store = fixture.state.store();
    let at = |revision| {
        let request = RangeRequest { revision, ..all() };
        range_response(&request, |range, options| store.range(range, options)).map(|found| found.count)
    };
    assert!(matches!(at(2), Err(ReadError::Compacted)));
    assert!(matches!(at(3), Ok(2)));
    assert!(matches!(at(7), Err(ReadError::FutureRevision)));
}

#[test]
fn orders() {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    for (order, target, expected) in [
        (None, Key, "abcd of 4"),
        (Ascend, Key, "abcd of 4"),
        (Descend, Key, "dcba of 4"),
        (None, Create, "dcba of 4"),
        (Ascend, Create, "dcba of 4"),
        (Descend, Create, "abcd of 4"),
        (Ascend, Mod, "dcab of 4"),
        (Ascend, Value, "dcba of 4"),
        (Descend, Value, "abcd of 4"),
        // What is equal stays in the order of the keys.
        (Ascend, Version, "acdb of 4"),
        (Descend, Version, "bacd of 4"),
    ] {
        check(sorted(order, target), expected);
    }
    check(RangeRequest { sort_order: 9, sort_target: 9, ..all() }, "abcd of 4");
}

#[test]
fn a_limit_without_an_order_sorts_only_what_it_read() {
    let limited = |limit, request| RangeRequest { limit, ..request };
    check(limited(2, sorted(SortOrder::Ascend, SortTarget::Create)), "dc+ of 4");
    // Read are a, b and c.
    check(limited(2, sorted(SortOrder::None, SortTarget::Create)), "cb+ of 4");
    check(limited(2, sorted(SortOrder::Descend, SortTarget::Key)), "dc+ of 4");
    check(limited(2, sorted(SortOrder::Ascend, SortTarget::Key)), "ab+ of 4");
    // With a filter all are read.
    let filtered = RangeRequest { min_mod_revision: 1, ..sorted(SortOrder::None, SortTarget::Create) };
    check(limited(2, filtered), "dc+ of 4");
}

#[test]
fn filters_come_before_the_limit_and_not_into_the_count() {
    check(RangeRequest { min_mod_revision: 5, ..all() }, "ab of 4");
    check(RangeRequest { max_mod_revision: 5, ..all() }, "acd of 4");
    check(RangeRequest { min_create_revision: 4, ..all() }, "ab of 4");
    check(RangeRequest { max_create_revision: 4, ..all() }, "bcd of 4");
    check(RangeRequest { min_mod_revision: 6, max_create_revision: 4, ..all() }, "b of 4");
    check(RangeRequest { max_mod_revision: 5, limit: 2, ..all() }, "ac+ of 4");
    check(RangeRequest { max_mod_revision: 5, limit: 3, ..all() }, "acd of 4");
    check(RangeRequest { min_mod_revision: -1, ..all() }, "abcd of 4");
    check(RangeRequest { max_mod_revision: -1, ..all() }, " of 4");
}

#[test]
fn keys_only_leaves_the_value_out_and_mostly_the_lease() {
    let store = fixture().state.store();
    let first = |request: &RangeRequest| {
        let found = range_response(request, |range, options| store.range(range, options)).unwrap();
        show_kv(&found.kvs[0])
    };
    assert_eq!(first(&range_request("a", "")), "a=4@5/5/1~7");
    assert_eq!(first(&RangeRequest { keys_only: true, ..range_request("a", "") }), "a=@5/5/1");
    for (target, expected) in
        [(SortTarget::Key, "a=@5/5/1"), (SortTarget::Create, "a=@5/5/1"), (SortTarget::Value, "a=@5/5/1~7")]
    {
        let request = RangeRequest { keys_only: true, ..sorted(SortOrder::Descend, target) };
        assert_eq!(first(&RangeRequest { range_end: "b".into(), ..request }), expected);
    }
    // Sorted by values that are not shown.
    check(RangeRequest { keys_only: true, ..sorted(SortOrder::Ascend, SortTarget::Value) }, "dcba of 4");
}

#[test]
fn only_what_is_read_in_order_is_a_plain_list() {
    let plain = |request: RangeRequest| is_plain_list(&request);
    assert!(plain(all()) && plain(sorted(SortOrder::Ascend, SortTarget::Key)));
    assert!(plain(RangeRequest { keys_only: true, limit: 2, revision: 3, ..all() }));
    assert!(!plain(range_request("a", "")), "that is a single key");
    assert!(!plain(RangeRequest { count_only: true, ..all() }));
    assert!(!plain(sorted(SortOrder::Descend, SortTarget::Key)));
    assert!(!plain(sorted(SortOrder::None, SortTarget::Mod)));
    assert!(!plain(RangeRequest { max_mod_revision: 5, ..all() }));
}

#[test]
fn plain_lists_leave_as_the_ordinary_encoding_has_them() {
    let mut fixture = fixture();
    for key in 0..40 {
        let value = if key % 3 == 0 { "" } else { "value" };
        let request = PutRequest { key: format!("b{key:02}").into(), value: value.into(), ..PutRequest::default() };
        fixture.run(&command::Kind::Put(request));
    }
    fixture.run(&put("b07", "again"));
    fixture.run(&delete("b09", ""));
    let store = fixture.state.store();
    for limit in [-1, 0, 1, 6, 7, 8, 42, 43, 44, i64::MAX] {
        for keys_only in [false, true] {
            for revision in [0, 6, 20, store.revision() - 1] {
                let request = RangeRequest { limit, keys_only, revision, ..all() };
                let found = range_response(&request, |range, options| store.range(range, options)).unwrap();
                check_encoded(&store, &request, &found);
            }
        }
    }
}

#[test]
fn no_more_is_read_than_is_needed() {
    let store = fixture().state.store();
    let read_with = |request: &RangeRequest| {
        let seen = Cell::new(RangeOptions::default());
        range_response(request, |range: &KeyRange, options| {
            seen.set(*options);
            store.range(range, options)
        })
        .unwrap();
        let RangeOptions { limit, count_only, keys_only, .. } = seen.get();
        (limit, count_only, keys_only)
    };
    let limited = RangeRequest { limit: 2, ..all() };
    assert_eq!(read_with(&limited), (3, false, false));
    assert_eq!(read_with(&RangeRequest { sort_order: 1, ..limited.clone() }), (3, false, false));
    assert_eq!(read_with(&RangeRequest { sort_order: 2, ..limited.clone() }), (0, false, false));
    assert_eq!(read_with(&RangeRequest { keys_only: true, ..limited.clone() }), (3, false, true));
    assert_eq!(read_with(&RangeRequest { count_only: true, ..limited }), (3, true, false));
}
