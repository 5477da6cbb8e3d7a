//! What kills etcd, or what it does wrong on purpose to nobody's use: such requests are changed before
//! they are part of a script. Each has its reason.

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::kv::LARGEST;

/// A streamed range with a sort target but no order repeats keys and loses others in etcd: it sorts each
/// chunk and goes on behind the last key of the sorted one. Ours answers in the order of keys.
pub(super) fn range_stream(request: &mut RangeRequest) {
    if request.sort_order == 0 {
        request.sort_target = 0;
    }
}

/// A transaction that deletes a key and puts it again:
/// - with `ignore_lease` or `ignore_value` etcd panics, since the check before finds the key that the
///   operation no longer does;
/// - without, a later compaction ends etcd with "range failed to find revision pair".
///
/// So a put of what the transaction deletes somewhere becomes a put of nothing's key, outside of all ranges.
pub(super) fn txn(request: &mut TxnRequest) {
    let mut deleted = Vec::new();
    for_each_op(request, &mut |op| {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            deleted.push(KeyRange::new(delete.key.clone(), delete.range_end.clone()));
        }
    });
    if deleted.is_empty() {
        return;
    }
    // What no range but an open one has; those are made to end.
    let apart = Bytes::from_static(b"\xff\xff\xffapart");
    for_each_op(request, &mut |op| match &mut op.request {
        Some(Request::RequestDeleteRange(delete)) => close(delete),
        Some(Request::RequestPut(put)) if deleted.iter().any(|range| range.contains(&put.key)) => {
            // With the smallest value it might shrink its key, which counts where there is no space.
            let value = if put.ignore_value { Bytes::from_static(LARGEST) } else { put.value.clone() };
            *put = PutRequest { key: apart.clone(), value, ..PutRequest::default() };
        }
        _ => {}
    });
}

/// Makes an open range end below the key of puts that were moved away.
fn close(delete: &mut DeleteRangeRequest) {
    if delete.range_end == b"\0"[..] {
        delete.range_end = Bytes::from_static(b"\xff\xff\xff");
    }
}

fn for_each_op(request: &mut TxnRequest, visit: &mut impl FnMut(&mut RequestOp)) {
    for op in request.success.iter_mut().chain(&mut request.failure) {
        visit(op);
        if let Some(Request::RequestTxn(nested)) = &mut op.request {
            for_each_op(nested, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_tests::schema;
    use prost_reflect::DynamicMessage;

    use super::*;

    #[test]
    fn nothing_is_put_that_is_deleted_as_well() {
        let text = r#"
            success { request_delete_range { key: "a" range_end: "\000" } }
            success { request_txn { failure { request_put { key: "b" ignore_lease: true } } } }
            failure { request_put { key: "A" } }"#;
        let descriptor = schema::message("etcdserverpb.TxnRequest");
        let mut request: TxnRequest =
            DynamicMessage::parse_text_format(descriptor, text).unwrap().transcode_to().unwrap();
        txn(&mut request);
        let mut puts = Vec::new();
        for_each_op(&mut request, &mut |op| match &op.request {
            Some(Request::RequestPut(put)) => puts.push((put.key.clone(), put.ignore_lease)),
            Some(Request::RequestDeleteRange(delete)) => assert_eq!(delete.range_end, b"\xff\xff\xff"[..]),
            _ => {}
        });
        assert_eq!(
            puts,
            [
                ("\u{ff}\u{ff}\u{ff}apart".chars().map(|c| c as u8).collect::<Vec<u8>>().into(), false),
                ("A".into(), false)
            ]
        );
    }

    #[test]
    fn what_is_moved_away_does_not_shrink_a_key() {
        let text = r#"
            success { request_delete_range { key: "a" } }
            failure { request_put { key: "a" ignore_value: true } }"#;
        let descriptor = schema::message("etcdserverpb.TxnRequest");
        let mut request: TxnRequest =
            DynamicMessage::parse_text_format(descriptor, text).unwrap().transcode_to().unwrap();
        txn(&mut request);
        let Some(Request::RequestPut(put)) = &request.failure[0].request else { panic!("{request:?}") };
        assert_eq!((&put.value[..], put.ignore_value), (LARGEST, false));
    }
}
