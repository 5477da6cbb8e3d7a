//! Many clients, each writing keys of its own, none of them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use mainstay_client::{Client, revision};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// What became of every put.
#[derive(Debug, Default)]
pub struct Record {
    /// Keys whose put was acknowledged, with the revision that was promised.
    pub acknowledged: BTreeMap<String, i64>,
    /// Keys whose put failed in a way that leaves open whether it happened.
    pub open: BTreeSet<String>,
    /// Keys whose put was refused, so that it must not have happened.
    pub refused: BTreeSet<String>,
    /// The longest time in which one client had no put acknowledged.
    pub longest_gap: Duration,
}

/// Clients that put until they are told to finish. The value of a key is the key.
pub struct UniquePuts {
    clients: Vec<JoinHandle<Record>>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

impl UniquePuts {
    /// Begins to write below `prefix`; each client waits for `pace` between two puts.
    pub fn spawn(prefix: &str, clients: Vec<Client>, pace: Duration) -> Self {
        let progress = Arc::new(Progress::default());
        let clients = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                tokio::spawn(write(format!("{prefix}{number:03}/"), client, pace, progress.clone()))
            })
            .collect();
        Self { clients, progress }
    }

    /// Waits until `count` more puts than now are acknowledged.
    pub async fn wait_for_more(&self, count: u64, within: Duration) -> Result<()> {
        let begun = Instant::now();
        let first = self.progress.acknowledged.load(Ordering::Relaxed);
        loop {
            let now = self.progress.acknowledged.load(Ordering::Relaxed);
            if now >= first + count {
                return Ok(());
            }
            if begun.elapsed() > within {
                bail!("only {} of {count} puts were acknowledged within {within:?}", now - first);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the clients and returns what became of all puts.
    pub async fn finish(self) -> Result<Record> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut all = Record::default();
        for client in self.clients {
            let one = client.await?;
            all.acknowledged.extend(one.acknowledged);
            all.open.extend(one.open);
            all.refused.extend(one.refused);
            all.longest_gap = all.longest_gap.max(one.longest_gap);
        }
        Ok(all)
    }
}

async fn write(prefix: String, client: Client, pace: Duration, progress: Arc<Progress>) -> Record {
    let mut record = Record::default();
    let mut last = Instant::now();
    let mut turn = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        let key = format!("{prefix}{turn:06}");
        turn += 1;
        // A plain put, not one guarded by the key's absence: a server that did it twice would show.
        match client.put(key.clone(), key.clone()).await {
            Ok(response) => {
                record.acknowledged.insert(key, revision(&response.header));
                record.longest_gap = record.longest_gap.max(last.elapsed());
                last = Instant::now();
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.may_have_taken_effect() => {
                record.open.insert(key);
            }
            Err(_) => {
                record.refused.insert(key);
            }
        }
        sleep(pace).await;
    }
    record
}
