//! Every acknowledged put is there and was seen by whoever watched, both at the revision that was promised.

use anyhow::{Result, ensure};
use mainstay_client::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_client::{Client, Range};

use super::{Found, WatchOrder, exactly_once};
use crate::workload::Record;

/// Holds [`exactly_once`] below `prefix`, and compares with what a watch of that prefix has seen since before the
/// first of these puts.
pub async fn seen_once(client: &Client, prefix: &str, record: &Record, watch: WatchOrder) -> Result<Found> {
    let found = exactly_once(client, prefix, record).await?;
    let seen = watch.finish(last_revision(client, prefix).await?).await?;
    ensure!(seen.len() == found.keys, "the watch saw {} keys of {}", seen.len(), found.keys);
    for (key, promised) in &record.acknowledged {
        ensure!(seen.get(key) == Some(promised), "the watch saw {key} at {:?}, not at {promised}", seen.get(key));
    }
    Ok(found)
}

/// The revision of the newest key below `prefix`.
async fn last_revision(client: &Client, prefix: &str) -> Result<i64> {
    let newest = Range::prefix(prefix.to_owned()).sort(SortTarget::Mod, SortOrder::Descend).limit(1);
    Ok(client.range(newest).await?.kvs.first().map_or(0, |kv| kv.mod_revision))
}
