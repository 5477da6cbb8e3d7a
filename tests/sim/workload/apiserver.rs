//! How kube-apiserver uses the store: create, update and delete guarded by the revision of what was
//! read, and lists in pages that all show one revision.

use madsim::rand::prelude::*;
use mainstay_tests::history::{Compare, Comparison, Span, Step, StepReply, Txn};

use super::Worker;

const PREFIX: &str = "/registry/pods/";
const OBJECTS: u32 = 12;
const PAGE: i64 = 3;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        let key = format!("{PREFIX}{:02}", thread_rng().gen_range(0..OBJECTS));
        match thread_rng().gen_range(0..10u32) {
            0..=6 => write(&mut worker, key).await,
            _ => list(&worker).await,
        }
    }
}

/// Creates what is not there; otherwise updates or deletes it, and tries again on top of what the
/// failed attempt returned.
async fn write(worker: &mut Worker, key: String) {
    let Some((_, found)) = worker.read(Span::key(key.clone())).await else { return };
    let mut modified = found.first().map_or(0, |kv| kv.modified);
    for _ in 0..3 {
        let delete = modified != 0 && thread_rng().gen_bool(0.25);
        let step = if delete {
            Step::Delete { span: Span::key(key.clone()), prev_kv: true }
        } else {
            Step::put(key.clone(), worker.fresh())
        };
        let txn = Txn {
            compares: vec![Compare::equal(key.clone(), Comparison::Modified(modified))],
            then: vec![step],
            otherwise: vec![Step::range(Span::key(key.clone()))],
            serializable: false,
        };
        match worker.txn(txn).await {
            Some((_, false, steps)) => {
                let Some(StepReply::Range { keys, .. }) = steps.first() else { return };
                modified = keys.first().map_or(0, |kv| kv.modified);
            }
            _ => return,
        }
    }
}

/// Lists everything, page by page; all pages after the first at the revision of the first.
async fn list(worker: &Worker) {
    let mut span = Span::prefix(PREFIX);
    let mut revision = 0;
    loop {
        let mut page = Step::range(span.clone());
        if let Step::Range { limit, revision: at, .. } = &mut page {
            (*limit, *at) = (PAGE, revision);
        }
        let Some((now, _, steps)) = worker.txn(Txn::of(page)).await else { return };
        let Some(StepReply::Range { keys, more, .. }) = steps.first() else { return };
        let Some(last) = keys.last().filter(|_| *more) else { return };
        if revision == 0 {
            revision = now;
        }
        span.from = format!("{}\0", last.key);
        if !worker.goes_on().await {
            return;
        }
    }
}
