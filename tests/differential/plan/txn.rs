//! Transactions.

use mainstay_proto::etcdserverpb::compare::TargetUnion;
use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::{Planner, crashes};
use crate::step::Step;
use crate::symbols::Symbol;

/// How deep transactions are nested.
const DEPTH: usize = 3;
/// How many operations a branch may have in etcd.
const OPS_MAX: usize = 128;

impl Planner {
    pub(super) fn txn(&mut self, client: usize) -> Step {
        Step::call(client, "KV.Txn", &self.txn_request())
    }

    fn txn_request(&mut self) -> TxnRequest {
        match self.dice.below(60) {
            0 => self.long_txn(),
            1 => self.twice(),
            _ => {
                let mut request = self.nested(DEPTH);
                crashes::txn(&mut request);
                request
            }
        }
    }

    fn nested(&mut self, depth: usize) -> TxnRequest {
        let mut request = TxnRequest::default();
        for _ in 0..self.dice.below(4) {
            request.compare.push(self.compare());
        }
        for branch in [&mut request.success, &mut request.failure] {
            for _ in 0..*self.dice.pick(&[0, 1, 1, 2, 2, 3, 5]) {
                branch.push(RequestOp { request: self.op(depth) });
            }
        }
        request
    }

    fn op(&mut self, depth: usize) -> Option<Request> {
        Some(match self.dice.below(40) {
            0..=15 => Request::RequestPut(self.put_request()),
            16..=27 => {
                let mut range = self.range_request();
                // The revision is judged for the whole transaction, and most are refused for it.
                if !self.dice.chance(15) {
                    range.revision = 0;
                }
                Request::RequestRange(range)
            }
            28..=33 => Request::RequestDeleteRange(self.delete_request()),
            34..=38 if depth > 1 => Request::RequestTxn(self.nested(depth - 1)),
            39 if self.dice.chance(10) => return None,
            _ => Request::RequestPut(self.put_request()),
        })
    }

    /// About as many operations as there may be; nested ones share the bound of their parent.
    fn long_txn(&mut self) -> TxnRequest {
        let count = *self.dice.pick(&[OPS_MAX - 1, OPS_MAX, OPS_MAX + 1]);
        let read = |planner: &mut Self| RequestOp { request: Some(Request::RequestRange(planner.range_request())) };
        let mut request = TxnRequest::default();
        if self.dice.chance(50) {
            request.failure = (0..count).map(|_| read(self)).collect();
            return request;
        }
        let outer = self.dice.below(4);
        let inner = TxnRequest { success: (0..count - outer).map(|_| read(self)).collect(), ..TxnRequest::default() };
        request.success = (0..outer).map(|_| read(self)).collect();
        request.success.push(RequestOp { request: Some(Request::RequestTxn(inner)) });
        request
    }

    /// A branch that writes a key twice, which is refused before anything is done.
    fn twice(&mut self) -> TxnRequest {
        let mut request = self.nested(DEPTH);
        crashes::txn(&mut request);
        let put = self.put_request();
        let op = |put| RequestOp { request: Some(Request::RequestPut(put)) };
        let branch = if self.dice.chance(50) { &mut request.success } else { &mut request.failure };
        branch.insert(0, op(put.clone()));
        branch.push(op(put));
        request
    }

    fn compare(&mut self) -> Compare {
        let (key, mut range_end) = self.keys.range(&mut self.dice);
        if self.dice.chance(70) {
            range_end.clear();
        }
        let target = self.enum_number(5);
        // Now and then the number is another target's.
        let union = if self.dice.chance(3) { self.enum_number(5) } else { target };
        let revision = if self.dice.chance(30) { 0 } else { Symbol::Now(-self.dice.between(0, 30)).number() };
        let target_union = match union {
            0 => Some(TargetUnion::Version(self.dice.between(0, 5))),
            1 => Some(TargetUnion::CreateRevision(revision)),
            2 => Some(TargetUnion::ModRevision(revision)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(self.lease())),
            _ => None,
        };
        Compare { result: self.enum_number(4), target, key, range_end, target_union }
    }
}
