//! What the commands of this process's life did, counted for the metrics.
//!
//! Counted from outcomes, which say what really happened. It is no part of the replicated state:
//! every member counts what it applied since it started.

use mainstay_proto::etcdserverpb::{ResponseOp, TxnResponse, response_op};

use crate::command::{Outcome, Refusal, outcome};
use crate::metrics::Metrics;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Operations {
    ranges: u64,
    puts: u64,
    deletes: u64,
}

/// Counts what an outcome says, in etcd's meanings: operations inside transactions count like others, deletes
/// are requests and not keys, and a transaction is one of more than one operation.
pub fn count(metrics: &Metrics, outcome: &Outcome) {
    if outcome.refusal() != Refusal::None {
        return;
    }
    match &outcome.reply {
        Some(outcome::Reply::Put(_)) => metrics.mvcc.put_total.inc(),
        Some(outcome::Reply::DeleteRange(_)) => metrics.mvcc.delete_total.inc(),
        Some(outcome::Reply::LeaseGrant(grant)) => {
            metrics.lease.granted_total.inc();
            metrics.lease.ttl_total.observe(grant.ttl as f64);
        }
        Some(outcome::Reply::LeaseRevoke(_)) => metrics.lease.revoked_total.inc(),
        Some(outcome::Reply::Txn(txn)) => count_txn(metrics, txn),
        Some(
            outcome::Reply::Compaction(_)
            | outcome::Reply::LeaseCheckpoint(_)
            | outcome::Reply::Alarm(_)
            | outcome::Reply::Authenticate(_),
        )
        | None => {}
    }
}

/// Counts what a transaction did.
pub fn count_txn(metrics: &Metrics, txn: &TxnResponse) {
    let operations = operations(txn);
    metrics.mvcc.range_total.inc_by(operations.ranges);
    metrics.mvcc.put_total.inc_by(operations.puts);
    metrics.mvcc.delete_total.inc_by(operations.deletes);
    if operations.ranges + operations.puts + operations.deletes > 1 {
        metrics.mvcc.txn_total.inc();
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
        let metrics = Metrics::new();
        count(&metrics, &Outcome { reply: Some(outcome::Reply::Txn(txn.clone())), ..Outcome::default() });
        let refusal = Refusal::Compacted.into();
        count(&metrics, &Outcome { refusal, reply: Some(outcome::Reply::Txn(txn)), ..Outcome::default() });
        assert_eq!(metrics.mvcc.put_total.get(), 3);
        assert_eq!(metrics.mvcc.txn_total.get(), 1);
    }
}
