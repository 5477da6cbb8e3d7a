//! Every acknowledged put is there, as it was promised, and no put happened twice.

use anyhow::{Result, ensure};
use mainstay_client::proto::etcdserverpb::RangeRequest;
use mainstay_client::{Client, Range, revision};

use crate::workload::Record;

/// Keys of one page.
const PAGE: i64 = 10_000;

/// What the store holds of a record.
#[derive(Debug)]
pub struct Found {
    /// Keys below the prefix.
    pub keys: usize,
    /// Keys among them whose put never got an answer.
    pub open: usize,
    /// The revision at which they were read.
    pub revision: i64,
}

/// Reads everything below `prefix` at one revision and compares it with the record, which must be
/// of all the writes that the store ever saw below it.
pub async fn exactly_once(client: &Client, prefix: &str, record: &Record) -> Result<Found> {
    let mut found = Found { keys: 0, open: 0, revision: 0 };
    let mut request: RangeRequest = Range::prefix(prefix.to_owned()).limit(PAGE).into();
    let mut acknowledged = 0;
    loop {
        let page = client.range(request.clone()).await?;
        if found.revision == 0 {
            found.revision = revision(&page.header);
            request.revision = found.revision;
        }
        for kv in &page.kvs {
            let key = String::from_utf8(kv.key.to_vec())?;
            ensure!(kv.value == kv.key, "{key} has another value than was put: {:?}", kv.value);
            ensure!(kv.version == 1, "{key} was put once and is at version {}", kv.version);
            ensure!(!record.refused.contains(&key), "{key} was refused and is there");
            if let Some(promised) = record.acknowledged.get(&key) {
                let actual = kv.mod_revision;
                ensure!(actual == *promised, "{key} was acknowledged at revision {promised} and is at {actual}");
                acknowledged += 1;
            } else {
                ensure!(record.open.contains(&key), "{key} is there and was never put");
                found.open += 1;
            }
            found.keys += 1;
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
        let mut next = last.key.to_vec();
        next.push(0);
        request.key = next.into();
    }
    let promised = record.acknowledged.len();
    ensure!(acknowledged == promised, "{} of {promised} acknowledged puts are missing", promised - acknowledged);
    Ok(found)
}
