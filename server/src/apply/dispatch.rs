use super::{State, alarm, auth, compaction, delete_range, downgrade, format, lease, member, permission, put, txn};
use crate::command::{Caller, Outcome, Refusal, command, outcome};
use crate::engine::EngineError;
use crate::env::probe;

/// Where a command comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its place in the log.
    pub index: u64,
    /// Who asked for it; nobody by default, who may do nothing where authentication is on.
    pub caller: Caller,
}

/// Advances the state by one committed command.
///
/// Total: every command that [`State::check_known`] lets through has an outcome; only the engine may fail, and that is
/// fatal.
pub fn apply(state: &mut State, origin: &Origin, command: &command::Kind) -> Result<Outcome, EngineError> {
    let mut refusal = permission::management(state, &origin.caller, command).err();
    if refusal.is_none() {
        refusal = alarm::refusal(state, command)?;
    }
    if let Some(refusal) = refusal.or_else(|| permission::check(state, &origin.caller, command).err()) {
        if refusal == Refusal::NoSpace
            && let command::Kind::Put(request) = command
            && probe::broken("quota-refusal-after-the-write")
        {
            // Wrong: the client is told that nothing happened.
            put::apply(state, request)?;
        }
        return Ok(refused(state, refusal));
    }
    match command {
        command::Kind::Put(request) => put::apply(state, request),
        command::Kind::DeleteRange(request) => delete_range::apply(state, request),
        command::Kind::Txn(request) => txn::apply(state, request),
        command::Kind::Compaction(request) => compaction::apply(state, request),
        command::Kind::LeaseGrant(request) => Ok(lease::grant(state, request)),
        command::Kind::LeaseRevoke(request) => lease::revoke(state, request),
        command::Kind::LeaseCheckpoint(request) => Ok(lease::checkpoint(state, request)),
        command::Kind::Alarm(request) => Ok(alarm::apply(state, request)),
        command::Kind::Downgrade(info) => Ok(downgrade::apply(state, info)),
        command::Kind::RaiseFormat(request) => Ok(format::raise(state, request)),
        command::Kind::MemberAttributes(attributes) => Ok(member::apply(state, attributes)),
        command::Kind::Authenticate(request) => Ok(auth::authenticate(state, origin.index, request)),
        command::Kind::AuthEnable(_) => Ok(auth::manage(state, |auth| auth.enable())),
        command::Kind::AuthDisable(_) => Ok(auth::manage(state, |auth| auth.disable())),
        command::Kind::AuthUserAdd(request) => Ok(auth::manage(state, |auth| auth.add_user(request))),
        command::Kind::AuthUserDelete(request) => {
            let outcome = auth::manage(state, |auth| auth.delete_user(request));
            Ok(auth::without_tokens(state, &request.name, outcome))
        }
        command::Kind::AuthUserChangePassword(request) => {
            let outcome = auth::manage(state, |auth| auth.change_password(request));
            Ok(auth::without_tokens(state, &request.name, outcome))
        }
        command::Kind::AuthUserGrantRole(request) => Ok(auth::manage(state, |auth| auth.grant_role(request))),
        command::Kind::AuthUserRevokeRole(request) => Ok(auth::manage(state, |auth| auth.revoke_role(request))),
        command::Kind::AuthRoleAdd(request) => Ok(auth::manage(state, |auth| auth.add_role(request))),
        command::Kind::AuthRoleDelete(request) => Ok(auth::manage(state, |auth| auth.delete_role(request))),
        command::Kind::AuthRoleGrantPermission(request) => {
            Ok(auth::manage(state, |auth| auth.grant_permission(request)))
        }
        command::Kind::AuthRoleRevokePermission(request) => {
            Ok(auth::manage(state, |auth| auth.revoke_permission(request)))
        }
    }
}

/// The outcome of a command that was carried out; its header shows the revision after it.
pub(super) fn done(state: &State, reply: Option<outcome::Reply>) -> Outcome {
    Outcome { revision: state.store.revision(), refusal: Refusal::None.into(), reply }
}

/// The outcome of a command that changed nothing, and why.
pub(super) fn refused(state: &State, refusal: Refusal) -> Outcome {
    Outcome { revision: state.store.revision(), refusal: refusal.into(), reply: None }
}
