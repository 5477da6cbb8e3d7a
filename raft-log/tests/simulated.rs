//! The log in a simulation: virtual time, and the same run for the same seed.

#![cfg(madsim)]
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_raft_log::disk::sim::{SimLatency, SimMedium};
use mainstay_raft_log::{Options, RaftLog, Record};
use tokio::time::Instant;

#[tokio::test]
async fn a_sync_takes_virtual_time() {
    let medium = SimMedium::new(1);
    let milliseconds = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
    medium.set_latency(SimLatency {
        sync: milliseconds(1, 9),
        prepare: milliseconds(200, 900),
        ..SimLatency::default()
    });
    let options = Options { segment_bytes: 16 * 1024, ..Options::default() };
    let (log, task) = RaftLog::open(Arc::new(medium.mount()), options).unwrap();
    let task = tokio::spawn(task.run());
    let begun = Instant::now();
    for index in 1..=100 {
        let (sender, done) = tokio::sync::oneshot::channel();
        let record = Record { index, term: 1, payload: Bytes::from(vec![7; 900]) };
        log.append(vec![record], Box::new(|result| sender.send(result).unwrap()));
        done.await.unwrap().unwrap();
    }
    // Segments are filled faster here than they are made ready.
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    medium.stall_next_sync(Duration::from_secs(3600));
    log.save_vote(Bytes::from_static(b"v")).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(3600));
    log.close().await;
    task.await.unwrap();
}
