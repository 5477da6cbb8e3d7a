//! How kube-apiserver uses the store: create, update and delete guarded by the revision of what was
//! read, lists in pages that all show one revision, and a cache that is listed once and watched from there on.

use std::collections::BTreeMap;
use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::{Update, Watch};
use mainstay_proto::mvccpb::event::EventType;
use mainstay_tests::history::{Compare, Comparison, KeyValue, Reflection, Span, Step, StepReply, Txn};
use mainstay_tests::transactions::key_value;
use tokio::time::Instant;

use super::{PATIENCE, Worker};

const PREFIX: &str = "/registry/pods/";
const OBJECTS: u32 = 12;
const PAGE: i64 = 3;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        let key = format!("{PREFIX}{:02}", thread_rng().gen_range(0..OBJECTS));
        match thread_rng().gen_range(0..10u32) {
            0..=6 => write(&mut worker, key).await,
            7 | 8 => drop(list(&worker).await),
            _ => reflect(&worker).await,
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

/// Lists everything, page by page; all pages after the first at the revision of the first. `None` where a page was
/// refused, or not answered.
async fn list(worker: &Worker) -> Option<(i64, Vec<KeyValue>)> {
    let mut span = Span::prefix(PREFIX);
    let (mut revision, mut listed) = (0, Vec::new());
    loop {
        let (now, keys, more) = page(worker, span.clone(), PAGE, revision).await?;
        listed.extend(keys);
        if revision == 0 {
            revision = now;
        }
        let Some(last) = listed.last().filter(|_| more) else { return Some((revision, listed)) };
        span.from = format!("{}\0", last.key);
        if !worker.goes_on().await {
            return None;
        }
    }
}

/// Lists some of it as it was at a revision: the store's revision, the keys, and whether there are more.
async fn page(worker: &Worker, span: Span, limit: i64, revision: i64) -> Option<(i64, Vec<KeyValue>, bool)> {
    let mut page = Step::range(span);
    if let Step::Range { limit: most, revision: at, .. } = &mut page {
        (*most, *at) = (limit, revision);
    }
    let (now, _, mut steps) = worker.txn(Txn::of(page)).await?;
    match steps.pop() {
        Some(StepReply::Range { keys, more, .. }) => Some((now, keys, more)),
        _ => None,
    }
}

/// Keeps what was listed as it is by a watch for a while. Where the list or the watch is refused, as it is when the
/// revision is compacted meanwhile, it lists anew. In the end it looks at what is there at the revision that it has got to.
async fn reflect(worker: &Worker) {
    let until = Instant::now() + Duration::from_millis(thread_rng().gen_range(500..5000));
    while Instant::now() < until {
        if let Some((revision, listed)) = list(worker).await
            && let Some((revision, cached)) = follow(worker, revision, listed, until).await
        {
            if let Some((_, listed, _)) = page(worker, Span::prefix(PREFIX), 0, revision).await {
                worker.recorder.reflected(Reflection { client: worker.id, revision, cached, listed });
            }
            return;
        }
        if !worker.goes_on().await {
            return;
        }
    }
}

/// Watches from behind a list on; the revision that it has got to when the time is over, and what is there by then.
async fn follow(worker: &Worker, revision: i64, listed: Vec<KeyValue>, until: Instant) -> Option<(i64, Vec<KeyValue>)> {
    let mut cache: BTreeMap<String, KeyValue> = listed.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    let watch = Watch::prefix(PREFIX).start_revision(revision + 1).progress_notify();
    let mut watcher = worker.client.with_timeout(PATIENCE).watch(watch).await.ok()?;
    let left = || until.saturating_duration_since(Instant::now());
    while let Ok(update) = tokio::time::timeout(left(), watcher.next()).await {
        let Update::Events { events, .. } = update.ok()? else { continue };
        for event in events {
            let is_deleted = event.r#type() == EventType::Delete;
            let kv = key_value(event.kv?);
            if is_deleted {
                cache.remove(&kv.key);
            } else {
                cache.insert(kv.key.clone(), kv);
            }
        }
    }
    Some((watcher.next_revision() - 1, cache.into_values().collect()))
}
