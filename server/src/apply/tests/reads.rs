//! Transactions that only read.

use mainstay_proto::etcdserverpb::{RangeRequest, TxnRequest};

use super::commands::*;
use super::*;
use crate::apply::read_txn::{ReadTxnError, is_read_only, read_txn};
use crate::command::Refusal;
use crate::command::command::Kind;

fn request(kind: Kind) -> TxnRequest {
    match kind {
        Kind::Txn(request) => request,
        other => panic!("no transaction: {other:?}"),
    }
}

#[test]
fn only_ranges_are_read_only() {
    for (kind, expected) in [
        (txn(vec![absent("a")], vec![reads_key("a")], vec![reads_key("b")]), true),
        (txn(vec![], vec![], vec![]), true),
        (txn(vec![], vec![does(put("a", ""))], vec![]), false),
        (txn(vec![], vec![], vec![does(delete("a", ""))]), false),
        (txn(vec![], vec![does(txn(vec![], vec![reads_key("a")], vec![]))], vec![]), false),
    ] {
        assert_eq!(is_read_only(&request(kind.clone())), expected, "{kind:?}");
    }
}

#[test]
fn refusals_are_those_of_the_branch_that_is_taken() {
    let mut fixture = Fixture::new();
    for command in [put("a", "1"), put("a", "2"), put("a", "3"), compact(3)] {
        fixture.run(&command);
    }
    let store = fixture.state.store();
    let at = |revision| reads(RangeRequest { revision, ..range_request("a", "") });
    for (revision, expected) in [
        (5, Refusal::FutureRevision),
        (4, Refusal::None),
        (3, Refusal::None),
        (2, Refusal::Compacted),
        (0, Refusal::None),
        (-1, Refusal::Compacted),
    ] {
        let found = match read_txn(&store, &request(txn(vec![], vec![at(revision)], vec![at(99)])), &|_| true) {
            Ok((_, revision)) => {
                assert_eq!(revision, 4);
                Refusal::None
            }
            Err(ReadTxnError::Refused(refusal)) => refusal,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, expected, "at {revision}");
    }
}

#[test]
fn all_that_it_reads_needs_room_together() {
    let mut fixture = Fixture::new();
    fixture.run(&txn(vec![], vec![does(put("a", "1")), does(put("b", "2"))], vec![]));
    let store = fixture.state.store();
    let read = request(txn(vec![], vec![reads_key("a"), reads_key("b"), reads(range_request("a", "c"))], vec![]));
    let told = std::cell::RefCell::new(Vec::new());
    let note = |bytes: u64| {
        told.borrow_mut().push(bytes);
        true
    };
    read_txn(&store, &read, &note).unwrap();
    let told = told.into_inner();
    assert!(told.is_sorted() && told.len() >= 3, "{told:?}");
    let (first, all) = (told[0], told[told.len() - 1]);
    assert_eq!(all, 4 * first, "{told:?}");
    assert!(read_txn(&store, &read, &|bytes| bytes <= all).is_ok());
    assert!(matches!(read_txn(&store, &read, &|bytes| bytes < all), Err(ReadTxnError::NoRoom)));
}

/// A writer keeps two keys equal and compacts right behind itself; readers never see them differ.
#[test]
fn everything_is_read_at_one_revision() {
    let mut fixture = Fixture::new();
    let both = |value: &'static str| txn(vec![], vec![does(put("a", value)), does(put("b", value))], vec![]);
    fixture.run(&both("0"));
    let store = fixture.state.store();
    let done = std::sync::atomic::AtomicBool::new(false);
    let read = request(txn(vec![], vec![reads_key("a"), reads_key("b"), reads(range_request("a", "c"))], vec![]));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || reads < 100 {
                let (response, revision) = read_txn(&store, &read, &|_| true).unwrap();
                let mut text = String::new();
                show_txn(&mut text, &response, 0);
                let lines: Vec<_> = text.lines().skip(1).collect();
                let [a, b, all] = lines[..] else { panic!("{text}") };
                let value = |line: &str| line.split(['=', '@']).nth(1).unwrap().to_owned();
                assert_eq!(value(a), value(b), "{text}");
                for line in [a, b, all] {
                    assert!(line.starts_with(&format!("{revision}: ")), "{text}");
                    assert!(line.contains(&format!("/{revision}/")), "{text}");
                }
                reads += 1;
            }
        });
        for round in 0..2_000 {
            fixture.run(&both(if round % 2 == 0 { "1" } else { "2" }));
            let revision = fixture.state.store.revision();
            fixture.run(&compact(revision));
            while fixture.state.store.compact_slice().unwrap() {}
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    });
}
