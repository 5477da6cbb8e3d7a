//! A watch sees every change once, in the order of revisions, whatever happens to its member.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mainstay_client::{Client, EventType, Range, Update, Watch, revision};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the watch may take to deliver what had already happened.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// A watch that runs beside a workload and is checked at the end.
pub struct WatchOrder {
    until: watch::Sender<i64>,
    task: JoinHandle<Result<BTreeMap<String, i64>>>,
}

impl WatchOrder {
    /// Begins to watch everything below `prefix` from the next revision on; what came before may be compacted.
    pub async fn spawn(client: &Client, prefix: &str) -> Result<Self> {
        let now = revision(&client.range(Range::key(prefix.to_owned())).await?.header);
        let mut watcher = client.watch(Watch::prefix(prefix.to_owned()).start_revision(now + 1)).await?;
        let (until, mut end) = watch::channel(i64::MAX);
        let task = tokio::spawn(async move {
            let mut seen = BTreeMap::new();
            let mut last = 0;
            while last < *end.borrow_and_update() {
                let update = tokio::select! { biased;
                    update = watcher.next() => update?,
                    // The end may have been reached already.
                    changed = end.changed() => { changed?; continue }
                };
                let Update::Events { events, .. } = update else { continue };
                for event in events {
                    let kv = event.kv.as_ref().context("an event without a key")?;
                    let key = String::from_utf8(kv.key.to_vec())?;
                    ensure!(event.r#type() == EventType::Put, "{key} was deleted");
                    ensure!(kv.mod_revision > last, "revision {} of {key} came after {last}", kv.mod_revision);
                    last = kv.mod_revision;
                    ensure!(seen.insert(key.clone(), last).is_none(), "{key} came twice");
                }
            }
            Ok(seen)
        });
        Ok(Self { until, task })
    }

    /// Waits until the watch has delivered the revision `last` of the newest key, and returns the
    /// revision at which each key was seen.
    pub async fn finish(self, last: i64) -> Result<BTreeMap<String, i64>> {
        self.until.send_replace(last);
        timeout(CAUGHT_UP_WITHIN, self.task).await.context("the watch did not catch up")??
    }
}
