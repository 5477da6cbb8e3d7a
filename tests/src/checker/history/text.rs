use std::time::Duration;

use crate::history::{Call, Operation, Outcome, Watch};

/// An operation as a person reads it in a report.
pub(super) fn told(operation: &Operation) -> String {
    let Operation { client, call, began, ended, outcome, .. } = operation;
    let call = match call {
        Call::Txn(txn) => format!("{txn:?}"),
        other => format!("{other:?}"),
    };
    let outcome = match outcome {
        Outcome::Done(reply) => format!("{reply:?}"),
        other => format!("{other:?}"),
    };
    format!("client {client}, {} to {}: {call} -> {outcome}", seconds(*began), seconds(*ended))
}

/// A watch as a person finds it again.
pub(super) fn named(place: usize, watch: &Watch) -> String {
    let to = watch.span.to.as_deref().unwrap_or("itself");
    format!("watch {place} (client {}, {} to {to}, from revision {})", watch.client, watch.span.from, watch.start)
}

/// A time since the run began.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.6}s", time.as_secs_f64())
}
