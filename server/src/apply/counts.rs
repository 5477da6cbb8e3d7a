//! What the commands of this process's life did, counted for the metrics.
//!
//! Counted from outcomes, which say what really happened. It is no part of the replicated state:
//! every member counts what it applied since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_proto::etcdserverpb::{ResponseOp, TxnResponse, response_op};

use crate::command::{Outcome, Refusal, outcome};

/// Running totals; etcd's meanings.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reads inside transactions.
    pub ranges: AtomicU64,
    /// Puts, those inside transactions too.
    pub puts: AtomicU64,
    /// Delete requests, those inside transactions too; not deleted keys.
    pub deletes: AtomicU64,
    /// Transactions of more than one operation.
    pub txns: AtomicU64,
    /// Leases granted.
    pub leases_granted: AtomicU64,
    /// Leases revoked, by whomever.
    pub leases_revoked: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Operations {
    ranges: u64,
    puts: u64,
    deletes: u64,
}

impl Counts {
    /// Counts what an outcome says.
    pub fn add(&self, outcome: &Outcome) {
        if outcome.refusal() != Refusal::None {
            return;
        }
        let one = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match &outcome.reply {
            Some(outcome::Reply::Put(_)) => _ = one(&self.puts),
            Some(outcome::Reply::DeleteRange(_)) => _ = one(&self.deletes),
            Some(outcome::Reply::LeaseGrant(_)) => _ = one(&self.leases_granted),
            Some(outcome::Reply::LeaseRevoke(_)) => _ = one(&self.leases_revoked),
            Some(outcome::Reply::Txn(txn)) => self.add_txn(operations(txn)),
            Some(
                outcome::Reply::Compaction(_)
                | outcome::Reply::LeaseCheckpoint(_)
                | outcome::Reply::Alarm(_)
                | outcome::Reply::Authenticate(_),
            )
            | None => {}
        }
    }

    fn add_txn(&self, operations: Operations) {
        self.ranges.fetch_add(operations.ranges, Ordering::Relaxed);
        self.puts.fetch_add(operations.puts, Ordering::Relaxed);
        self.deletes.fetch_add(operations.deletes, Ordering::Relaxed);
        if operations.ranges + operations.puts + operations.deletes > 1 {
            self.txns.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn operations(txn: &TxnResponse) -> Operations {
    let mut sum = Operations::default();
    for response in &txn.responses {
        let part = operation(response);
        sum.ranges += part.ranges;
        sum.puts += part.puts;
        sum.deletes += part.deletes;
    }
    sum
}

fn operation(response: &ResponseOp) -> Operations {
    use response_op::Response;
    match &response.response {
        Some(Response::ResponseRange(_)) => Operations { ranges: 1, ..Operations::default() },
        Some(Response::ResponsePut(_)) => Operations { puts: 1, ..Operations::default() },
        Some(Response::ResponseDeleteRange(_)) => Operations { deletes: 1, ..Operations::default() },
        Some(Response::ResponseTxn(nested)) => operations(nested),
        None => Operations::default(),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::PutResponse;

    use super::*;

    #[test]
    fn nested_operations_count_and_refusals_do_not() {
        let put = ResponseOp { response: Some(response_op::Response::ResponsePut(PutResponse::default())) };
        let nested = TxnResponse { responses: vec![put.clone(), put.clone()], ..TxnResponse::default() };
        let txn = TxnResponse {
            responses: vec![put, ResponseOp { response: Some(response_op::Response::ResponseTxn(nested)) }],
            ..TxnResponse::default()
        };
        let counts = Counts::default();
        counts.add(&Outcome { reply: Some(outcome::Reply::Txn(txn.clone())), ..Outcome::default() });
        let refusal = Refusal::Compacted.into();
        counts.add(&Outcome { refusal, reply: Some(outcome::Reply::Txn(txn)), ..Outcome::default() });
        assert_eq!(counts.puts.load(Ordering::Relaxed), 3);
        assert_eq!(counts.txns.load(Ordering::Relaxed), 1);
    }
}
