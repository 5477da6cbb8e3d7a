//! Clients that watch: the observer, whose record every check rests on, and others with several
//! watches on a stream and every option, some of them slow, all of which go on where they were after a
//! break.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::{Client, ClientOptions};
use mainstay_tests::history::{Call, Outcome, Span, Watch};

use super::watch_stream::Watcher;
use crate::recorder::Recorder;

/// How many watches a stream has at first, at most.
const TOGETHER: usize = 3;

/// Up to which revision the observer has seen everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed(Arc<AtomicI64>);

impl Observed {
    /// The revision.
    pub(crate) fn revision(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn reached(&self, revision: i64) {
        self.0.fetch_max(revision, Ordering::Relaxed);
    }
}

/// Watches all keys from the first revision on, for as long as it is let. The watch is in the history
/// when this returns; the future is the watching.
pub(crate) fn observe(
    id: usize,
    client: Client,
    recorder: Recorder,
    observed: Observed,
) -> impl Future<Output = ()> + Send + 'static {
    let everything = Span { from: "\0".to_owned(), to: Some("\x7f".to_owned()) };
    let watch = Watch { prev_kv: true, ..plain(id, &recorder, everything, 1) };
    let mut watcher = Watcher::new(id, client, recorder, observed);
    watcher.want(watch);
    watcher.run()
}

/// Watches something, in some manner, for as long as it is let; until the storm is over it is slow, asks
/// for further watches and cancels some.
pub(crate) async fn watch(id: usize, client: Client, recorder: Recorder, observed: Observed, storm: Duration) {
    let require_leader = thread_rng().gen_bool(0.5);
    let client = client.with_options(ClientOptions { require_leader, ..ClientOptions::default() });
    let mut watcher = Watcher::new(id, client, recorder.clone(), Observed::default());
    watcher.slowness = Duration::from_millis(*[0, 0, 200, 3000].choose(&mut thread_rng()).expect("there are some"));
    watcher.changes = Some(Changes { observed: observed.clone(), until: storm });
    for _ in 0..thread_rng().gen_range(1..=TOGETHER) {
        watcher.want(draw(id, &recorder, observed.revision()));
    }
    watcher.run().await;
}

/// That a watcher changes what it watches.
pub(super) struct Changes {
    observed: Observed,
    /// Until when it does.
    pub(super) until: Duration,
}

impl Changes {
    /// Draws a further watch.
    pub(super) fn draw(&self, id: usize, recorder: &Recorder) -> Watch {
        draw(id, recorder, self.observed.revision())
    }
}

fn draw(id: usize, recorder: &Recorder, present: i64) -> Watch {
    let compacted = compacted(recorder);
    let dice = &mut thread_rng();
    let prefixes = ["r/", "t/", "/registry/pods/", "lease/", "bank/", "sets/"];
    let span = match dice.gen_range(0..8u32) {
        0 => Span::key("r/0"),
        1 => Span { from: "b".to_owned(), to: Some("s".to_owned()) },
        _ => Span::prefix(prefixes.choose(dice).expect("there are some")),
    };
    let start = match dice.gen_range(0..12u32) {
        0..=3 => 0,
        4 | 5 => 1,
        6 | 7 => dice.gen_range(1..=present.max(1) + 5),
        8 | 9 => present + dice.gen_range(5..100),
        // What a compaction left, and what it has just taken.
        10 => compacted.max(1),
        _ => (compacted - 1).max(1),
    };
    Watch {
        prev_kv: dice.gen_bool(0.5),
        no_put: dice.gen_bool(0.1),
        no_delete: dice.gen_bool(0.2),
        fragment: dice.gen_bool(0.4),
        ..plain(id, recorder, span, start)
    }
}

/// The highest revision whose compaction was acknowledged.
fn compacted(recorder: &Recorder) -> i64 {
    recorder.with(|history| {
        let calls = history.operations.iter().filter(|operation| matches!(operation.outcome, Outcome::Done(_)));
        let compactions = calls.filter_map(|operation| match operation.call {
            Call::Compact { revision, .. } => Some(revision),
            _ => None,
        });
        compactions.max().unwrap_or(0)
    })
}

fn plain(client: usize, recorder: &Recorder, span: Span, start: i64) -> Watch {
    Watch {
        client,
        since: recorder.now(),
        slow_until: Duration::ZERO,
        span,
        start,
        prev_kv: false,
        no_put: false,
        no_delete: false,
        fragment: false,
        received: Vec::new(),
    }
}
