//! Many keys in little time.

use anyhow::Result;
use bytes::Bytes;
use mainstay_client::{Client, Put, Txn};

/// Keys that one transaction writes; etcd's default bound is 128.
const PER_TXN: usize = 100;
/// Transactions that are under way at once.
const AT_ONCE: usize = 16;

/// Writes `count` keys `PREFIX00000000` and up, each with a value of `value_bytes` bytes.
pub async fn fill(client: &Client, prefix: &str, count: usize, value_bytes: usize) -> Result<()> {
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let mut writers = Vec::new();
    for writer in 0..AT_ONCE {
        let (client, prefix, value) = (client.clone(), prefix.to_owned(), value.clone());
        writers.push(tokio::spawn(async move {
            for first in (writer * PER_TXN..count).step_by(AT_ONCE * PER_TXN) {
                let mut txn = Txn::new();
                for key in first..count.min(first + PER_TXN) {
                    txn = txn.then(Put::new(format!("{prefix}{key:08}"), value.clone()));
                }
                client.txn(txn).await?;
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    Ok(())
}
