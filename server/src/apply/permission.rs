//! Whether who asks for a command may have it: judged when it is applied, by users and roles as they are then.

use mainstay_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use parking_lot::RwLock;

use super::State;
use super::auth::is_management;
use crate::auth::{Auth, Right};
use crate::command::{Caller, Refusal, command};
use crate::lease::Leases;

/// Refuses a command that changes users or roles to who is no administrator.
///
/// Alarms do not come before this, but before everything else; as in etcd.
pub(super) fn management(state: &State, caller: &Caller, command: &command::Kind) -> Result<(), Refusal> {
    if is_management(command) { state.users.load().check_admin(caller) } else { Ok(()) }
}

/// Refuses a command on keys to who lacks the right to any of them.
pub(super) fn check(state: &State, caller: &Caller, command: &command::Kind) -> Result<(), Refusal> {
    let auth = state.users.load();
    if !auth.is_enabled() {
        return Ok(());
    }
    let check = Check { auth: &auth, caller, leases: &state.leases };
    match command {
        command::Kind::Put(request) => check.put(request),
        command::Kind::DeleteRange(request) => check.delete_range(request),
        command::Kind::Txn(request) => check.txn(request),
        command::Kind::LeaseRevoke(request) => check.lease(request.id),
        // Any user may have a lease, as `api` finds out before; the rest is for administrators, of which it
        // asks before too, or for members alone.
        _ => Ok(()),
    }
}

/// Whether a caller may have a transaction that only reads.
pub fn check_read_txn(auth: &Auth, caller: &Caller, request: &TxnRequest) -> Result<(), Refusal> {
    let no_leases = RwLock::default();
    Check { auth, caller, leases: &no_leases }.txn(request)
}

struct Check<'a> {
    auth: &'a Auth,
    caller: &'a Caller,
    leases: &'a RwLock<Leases>,
}

impl Check<'_> {
    fn range(&self, request: &RangeRequest) -> Result<(), Refusal> {
        self.auth.check(self.caller, Right::Read, &request.key, &request.range_end)
    }

    fn put(&self, request: &PutRequest) -> Result<(), Refusal> {
        self.auth.check(self.caller, Right::Write, &request.key, &[])?;
        // Who may not revoke a lease must not attach keys to it either: they would go with it.
        self.lease(request.lease)?;
        if request.prev_kv {
            self.auth.check(self.caller, Right::Read, &request.key, &[])?;
        }
        Ok(())
    }

    fn delete_range(&self, request: &DeleteRangeRequest) -> Result<(), Refusal> {
        self.auth.check(self.caller, Right::Write, &request.key, &request.range_end)?;
        if request.prev_kv {
            self.auth.check(self.caller, Right::Read, &request.key, &request.range_end)?;
        }
        Ok(())
    }

    /// Both branches, whichever will be taken: which one that is tells something of the keys compared.
    fn txn(&self, request: &TxnRequest) -> Result<(), Refusal> {
        for compare in &request.compare {
            self.auth.check(self.caller, Right::Read, &compare.key, &compare.range_end)?;
        }
        request.success.iter().chain(&request.failure).try_for_each(|operation| self.operation(operation))
    }

    fn operation(&self, operation: &RequestOp) -> Result<(), Refusal> {
        match &operation.request {
            Some(request_op::Request::RequestRange(request)) => self.range(request),
            Some(request_op::Request::RequestPut(request)) => self.put(request),
            Some(request_op::Request::RequestDeleteRange(request)) => self.delete_range(request),
            Some(request_op::Request::RequestTxn(request)) => self.txn(request),
            None => Ok(()),
        }
    }

    /// Whether all keys of a lease may be written; one that does not exist has none.
    fn lease(&self, id: i64) -> Result<(), Refusal> {
        let leases = self.leases.read();
        let Some(lease) = leases.get(id) else { return Ok(()) };
        if self.auth.check_admin(self.caller).is_ok() {
            return Ok(());
        }
        lease.keys.iter().try_for_each(|key| self.auth.check(self.caller, Right::Write, key, &[]))
    }
}
