use mainstay_proto::etcdserverpb::{CompactionRequest, CompactionResponse};

use super::State;
use super::dispatch::{done, refused};
use crate::command::{Outcome, Refusal, outcome};
use crate::engine::EngineError;
use crate::mvcc::ReadError;

/// Moves the watermark below which history is discarded. Removing it is background work of `mvcc`, so
/// `physical` makes no difference here: `api` waits for it.
pub(super) fn apply(state: &mut State, request: &CompactionRequest) -> Result<Outcome, EngineError> {
    match state.store.compact(request.revision) {
        Ok(()) => Ok(done(state, Some(outcome::Reply::Compaction(CompactionResponse { header: None })))),
        Err(ReadError::Compacted) => Ok(refused(state, Refusal::Compacted)),
        Err(ReadError::FutureRevision) => Ok(refused(state, Refusal::FutureRevision)),
        Err(ReadError::Engine(error)) => Err(error),
        Err(error @ ReadError::NoRoom) => Err(EngineError(format!("a compaction reads nothing: {error}"))),
    }
}
