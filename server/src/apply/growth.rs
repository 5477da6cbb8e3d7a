//! Which commands make the store larger, and have to wait where there is no space.

use bytes::Bytes;
use mainstay_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op};

use crate::command::command;
use crate::env::probe;

/// Finds the length of a key's value, where the key exists.
pub type ValueLen<'a, E> = &'a mut dyn FnMut(&Bytes) -> Result<Option<usize>, E>;

/// Whether a command makes the store larger. As in etcd, users and roles are too small to matter.
pub(super) fn grows<E>(command: &command::Kind, value_len: ValueLen<'_, E>) -> Result<bool, E> {
    match command {
        command::Kind::Put(request) => put_grows(request, value_len),
        command::Kind::Txn(request) => txn_grows(request, value_len),
        command::Kind::LeaseGrant(_) => Ok(true),
        _ => Ok(false),
    }
}

/// Whether a put makes the store larger. Unlike in etcd, one with a shorter value than the one that it replaces
/// does not: that is how clients make room.
pub fn put_grows<E>(request: &PutRequest, value_len: ValueLen<'_, E>) -> Result<bool, E> {
    if request.ignore_value {
        return Ok(true); // a record as large as the one before it
    }
    // Wrong where it is broken: where there is no space nobody can make any by a shorter value.
    let shrinks = |before: usize| request.value.len() < before && !probe::broken("shrinking-put-refused");
    Ok(!value_len(&request.key)?.is_some_and(shrinks))
}

/// Whether a transaction has a put that makes the store larger; as in etcd, in either branch.
pub fn txn_grows<E>(request: &TxnRequest, value_len: ValueLen<'_, E>) -> Result<bool, E> {
    for RequestOp { request: operation } in request.success.iter().chain(&request.failure) {
        let grows = match operation {
            Some(request_op::Request::RequestPut(put)) => put_grows(put, value_len)?,
            Some(request_op::Request::RequestTxn(nested)) => txn_grows(nested, value_len)?,
            Some(request_op::Request::RequestRange(_) | request_op::Request::RequestDeleteRange(_)) | None => false,
        };
        if grows {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// There is one key, `k`, with a value of 3 bytes.
    fn value_len(key: &Bytes) -> Result<Option<usize>, Infallible> {
        Ok((key == "k").then_some(3))
    }

    fn put(key: &'static str, value: &'static str) -> PutRequest {
        PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
    }

    fn op(put: PutRequest) -> RequestOp {
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    }

    #[test]
    fn only_a_put_that_shrinks_its_key_does_not_grow() {
        for (request, expected) in [
            (put("k", "12"), false),
            (put("k", ""), false),
            (put("k", "123"), true),
            (put("other", ""), true),
            (PutRequest { ignore_value: true, ..put("k", "") }, true),
        ] {
            assert_eq!(put_grows(&request, &mut value_len), Ok(expected), "{request:?}");
        }
    }

    #[test]
    fn a_transaction_grows_with_any_of_its_puts() {
        let txn = |success, failure| TxnRequest { success, failure, ..TxnRequest::default() };
        let nested = |txn| RequestOp { request: Some(request_op::Request::RequestTxn(txn)) };
        let (shrinks, grows) = (op(put("k", "1")), op(put("k", "1234")));
        for (request, expected) in [
            (txn(vec![], vec![]), false),
            (txn(vec![shrinks.clone()], vec![shrinks.clone()]), false),
            (txn(vec![shrinks.clone()], vec![grows.clone()]), true),
            (txn(vec![shrinks.clone(), nested(txn(vec![], vec![grows]))], vec![]), true),
            (txn(vec![nested(txn(vec![shrinks], vec![]))], vec![RequestOp::default()]), false),
        ] {
            assert_eq!(txn_grows(&request, &mut value_len), Ok(expected), "{request:?}");
        }
    }
}
