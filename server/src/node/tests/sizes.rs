//! What a request takes while it waits: its futures are moved and kept as a whole, once for each request in flight.

use std::mem::size_of_val;

use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};
use tonic::Request;

use super::*;

/// A generic wrapper that is given a future by value keeps it twice; five of them made 34 KB of a put.
const MOST: usize = 6 * 1024;

#[test]
fn a_request_that_waits_is_small() {
    simulate(1, |_machines, members| async move {
        let services = &*members[0].services;
        let sizes = [
            ("put", size_of_val(&*services.put(Request::new(PutRequest::default())))),
            ("txn", size_of_val(&*services.txn(Request::new(TxnRequest::default())))),
            ("range", size_of_val(&*services.range(Request::new(RangeRequest::default())))),
        ];
        println!("{sizes:?}");
        for (method, bytes) in sizes {
            assert!(bytes <= MOST, "{method}: {bytes} bytes");
        }
    });
}
