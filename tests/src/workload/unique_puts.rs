//! Many clients, each writing keys of its own, none of them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use mainstay_client::{Client, Error, revision};
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
    /// What puts failed with, those that were refused and those that are open.
    pub errors: Vec<Error>,
    /// The longest time in which one client had no put acknowledged.
    pub longest_gap: Duration,
}

/// Clients that put until they are told to finish. The value of a key is the key.
pub struct UniquePuts {
    clients: Vec<JoinHandle<Record>>,
    progress: Arc<Progress>,
}

struct Progress {
    acknowledged: AtomicU64,
    stop: AtomicBool,
    /// Of each client.
    gaps: Vec<Mutex<Gap>>,
}

/// How long a client has no put acknowledged.
struct Gap {
    /// When the last one was.
    since: Instant,
    /// The longest time between two since somebody asked.
    longest: Duration,
}

impl Progress {
    fn of(clients: usize) -> Self {
        let gap = || Mutex::new(Gap { since: Instant::now(), longest: Duration::ZERO });
        let gaps = (0..clients).map(|_| gap()).collect();
        Self { acknowledged: AtomicU64::new(0), stop: AtomicBool::new(false), gaps }
    }

    /// A put of a client is acknowledged; returns for how long none was.
    fn acknowledge(&self, client: usize) -> Duration {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut gap = lock(&self.gaps[client]);
        let took = gap.since.elapsed();
        gap.longest = gap.longest.max(took);
        gap.since = Instant::now();
        took
    }
}

fn lock(gap: &Mutex<Gap>) -> MutexGuard<'_, Gap> {
    gap.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UniquePuts {
    /// Begins to write below `prefix`; each client waits for `pace` between two puts.
    pub fn spawn(prefix: &str, clients: Vec<Client>, pace: Duration) -> Self {
        let progress = Arc::new(Progress::of(clients.len()));
        let clients = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                tokio::spawn(write(format!("{prefix}{number:03}/"), number, client, pace, progress.clone()))
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

    /// The longest time since this was last asked in which one client had no put acknowledged. What is not over yet
    /// counts as far as it has come, and whole when it is over.
    pub fn take_longest_gap(&self) -> Duration {
        let gaps = self.progress.gaps.iter().map(|gap| {
            let mut gap = lock(gap);
            let longest = gap.longest.max(gap.since.elapsed());
            gap.longest = Duration::ZERO;
            longest
        });
        gaps.max().unwrap_or_default()
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
            all.errors.extend(one.errors);
            all.longest_gap = all.longest_gap.max(one.longest_gap);
        }
        Ok(all)
    }
}

async fn write(prefix: String, number: usize, client: Client, pace: Duration, progress: Arc<Progress>) -> Record {
    let mut record = Record::default();
    let mut turn = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        let key = format!("{prefix}{turn:06}");
        turn += 1;
        // A plain put, not one guarded by the key's absence: a server that did it twice would show.
        match client.put(key.clone(), key.clone()).await {
            Ok(response) => {
                record.acknowledged.insert(key, revision(&response.header));
                record.longest_gap = record.longest_gap.max(progress.acknowledge(number));
            }
            Err(error) => {
                let fate = if error.may_have_taken_effect() { &mut record.open } else { &mut record.refused };
                fate.insert(key);
                record.errors.push(error);
            }
        }
        sleep(pace).await;
    }
    record
}
