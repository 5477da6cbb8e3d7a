use super::{State, alarm, compaction, delete_range, downgrade, lease, member, put, txn};
use crate::command::{Outcome, Refusal, command, outcome};
use crate::engine::EngineError;

/// Advances the state by one committed command.
///
/// Total: every command has an outcome; only the engine may fail, and that is fatal.
pub fn apply(state: &mut State, command: &command::Kind) -> Result<Outcome, EngineError> {
    if let Some(refusal) = alarm::refusal(&state.alarms, command) {
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
        command::Kind::MemberAttributes(attributes) => Ok(member::apply(state, attributes)),
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
