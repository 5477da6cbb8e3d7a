//! The clients: each writes registers of its own, reads everybody's, and counts on one shared key.

use std::time::Duration;

use madsim::rand::{Rng, thread_rng};
use mainstay_client::{Client, Compare, Put, Range, Txn, Update, Watch};
use tokio::time::Instant;

use crate::history::{Read, Recorder, Seen, Write};

/// The key on which all clients count.
pub(crate) const COUNTER: &str = "count";

/// Registers of one client.
const REGISTERS: u64 = 3;

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// Runs one client until a moment.
pub(crate) async fn run(id: usize, clients: usize, client: Client, recorder: Recorder, until: Instant) {
    let start = Instant::now();
    while Instant::now() < until {
        match thread_rng().gen_range(0..10u32) {
            0..=4 => write(id, &client, &recorder).await,
            5..=7 => read(clients, &client, &recorder, start).await,
            _ => count(&client, &recorder).await,
        }
        let pause = thread_rng().gen_range(1..40u64);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn write(id: usize, client: &Client, recorder: &Recorder) {
    let key = format!("r/{id}/{}", thread_rng().gen_range(0..REGISTERS));
    let (value, at) = recorder.with(|history| {
        let progress = history.progress.entry(key.clone()).or_default();
        progress.0 += 1;
        let value = progress.0;
        history.writes.push(Write { key: key.clone(), value, acknowledged: None });
        (value, history.writes.len() - 1)
    });
    let result = client.put(key.clone(), value.to_string()).await;
    if let Ok(response) = result {
        let revision = mainstay_client::revision(&response.header);
        recorder.with(|history| {
            history.writes[at].acknowledged = Some(revision);
            let progress = history.progress.entry(key).or_default();
            progress.1 = progress.1.max(value);
        });
    }
}

async fn read(clients: usize, client: &Client, recorder: &Recorder, start: Instant) {
    let writer = thread_rng().gen_range(0..clients);
    let key = format!("r/{writer}/{}", thread_rng().gen_range(0..REGISTERS));
    let at_least = recorder.with(|history| history.progress.get(&key).copied().unwrap_or_default().1);
    // From any member, not only from one that also takes the writes: a member that is cut off must not answer.
    let member = client.only(thread_rng().gen_range(0..client.endpoints().len()));
    if let Ok(found) = member.get(key.clone()).await {
        let value = found.map_or(0, |kv| number(&kv.value));
        recorder.with(|history| {
            let at_most = history.progress.get(&key).copied().unwrap_or_default().0;
            history.reads.push(Read { key, at_least, at_most, value, at: start.elapsed() });
        });
    }
}

/// Adds one to the shared counter, guarded by its revision, as kube-apiserver writes.
async fn count(client: &Client, recorder: &Recorder) {
    let Ok(found) = client.get(COUNTER).await else {
        return;
    };
    let (value, revision) = found.map_or((0, 0), |kv| (number(&kv.value), kv.mod_revision));
    let txn = Txn::new()
        .when(Compare::mod_revision(COUNTER).equals(revision))
        .then(Put::new(COUNTER, (value + 1).to_string()))
        .otherwise(Range::key(COUNTER));
    match client.txn(txn).await {
        Ok(response) if response.succeeded => recorder.with(|history| history.increments_acknowledged += 1),
        Ok(_) => {}
        Err(_) => recorder.with(|history| history.increments_unknown += 1),
    }
}

/// Watches all registers from the first revision on, through every crash.
pub(crate) async fn watch(client: Client, recorder: Recorder) {
    let mut watcher = loop {
        match client.watch(Watch::prefix("r/").start_revision(1)).await {
            Ok(watcher) => break watcher,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    while let Ok(update) = watcher.next().await {
        let Update::Events { events, .. } = update else {
            continue;
        };
        recorder.with(|history| {
            for kv in events.into_iter().filter_map(|event| event.kv) {
                history.seen.push(Seen {
                    revision: kv.mod_revision,
                    key: String::from_utf8_lossy(&kv.key).into_owned(),
                    value: number(&kv.value),
                });
            }
        });
    }
}
