//! All members hold the same.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use mainstay_client::{Range, Reason, revision};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

/// How long a member may lag behind once writing has ended.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// Compares the hash of every member at the newest revision; returns that revision and the hash.
pub async fn equal_members<C: Cluster>(cluster: &C) -> Result<(i64, u32)> {
    let present = cluster.present();
    let newest = cluster.client_of(present[0]).range(Range::key("newest?")).await?;
    let newest = revision(&newest.header);
    let mut first = None;
    for member in present {
        let client = cluster.client_of(member);
        let begun = Instant::now();
        let hash = loop {
            match client.hash_kv(newest).await {
                Ok(hash) => break hash,
                Err(error) if error.reason() == Some(Reason::FutureRevision) && begun.elapsed() < CAUGHT_UP_WITHIN => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => bail!("member {member} does not tell its hash at revision {newest}: {error}"),
            }
        };
        let this = (hash.hash, hash.compact_revision);
        let expected = *first.get_or_insert(this);
        ensure!(
            this == expected,
            "at revision {newest} the first member has (hash, compacted) {expected:?}, member {member} {this:?}"
        );
    }
    let (hash, _) = first.expect("a cluster has members");
    Ok((newest, hash))
}
