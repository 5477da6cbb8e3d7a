//! How soon a member with much data serves again.

use std::time::{Duration, Instant};

use mainstay_client::{ClientOptions, Range};
use mainstay_tests::checker::equal_members;
use mainstay_tests::workload::fill;
use mainstay_tests::{Cluster, ProcessCluster, leader, wait_until_serving};

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 256;
/// Generous, for a loaded machine; the figure itself is printed.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = cluster.client(0, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    let begun = Instant::now();
    fill(&client, "million/", KEYS, VALUE_BYTES).await.unwrap();
    let filled = begun.elapsed();
    client.put("last", "word").await.unwrap();

    cluster.kill(0).await.unwrap();
    let begun = Instant::now();
    cluster.start(0).await.unwrap();
    wait_until_serving(&cluster, [0]).await.unwrap();
    let served = begun.elapsed();

    assert_eq!(client.get("last").await.unwrap().unwrap().value, "word");
    assert_eq!(client.range(Range::prefix("million/").count_only()).await.unwrap().count, 1_000_000);
    eprintln!(
        "{KEYS} keys of {VALUE_BYTES} bytes written in {filled:.1?}; first linearizable read {served:.2?} after kill -9"
    );
    assert!(served < SERVES_WITHIN, "{served:?} from kill -9 to the first linearizable read");
}

/// Values of the catch-up test: together several times what is flushed at once.
const LARGE_VALUES: usize = 4_000;
const WRITERS: usize = 16;
const LARGE_BYTES: usize = 64 * 1024;

/// A member that was away longer than the log reaches gets a snapshot, and the log does not grow for its sake.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_gets_a_snapshot() {
    let flags = ["--snapshot-count=500", "--snapshot-catchup-entries=100"];
    let mut cluster = ProcessCluster::start_all_with(3, &flags).await.unwrap();
    wait_until_serving(&cluster, 0..3).await.unwrap();
    let away = (leader(&cluster).await.unwrap() + 1) % 3;
    let serving = (away + 1) % 3;
    cluster.kill(away).await.unwrap();
    let client = cluster.client(serving, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            for index in (writer..LARGE_VALUES).step_by(WRITERS) {
                // One of them may fall into an election; what counts is how much was written.
                client.put(format!("large/{index:06}"), vec![b'v'; LARGE_BYTES]).await.ok();
            }
        });
    }
    writers.join_all().await;
    let logged = folder_bytes(&cluster.data_dir(serving).join("member").join("wal"));
    assert!(logged < (LARGE_VALUES * LARGE_BYTES) as u64 * 3 / 2, "the log kept {logged} bytes");

    cluster.start(away).await.unwrap();
    wait_until_serving(&cluster, [away]).await.unwrap();
    equal_members(&cluster).await.unwrap();
    // etcd, on which this test is tested too, words and stores it differently: there only the state counts.
    if folder_bytes(&cluster.data_dir(serving).join("member").join("db")) > 0 {
        assert!(cluster.log(away).unwrap().contains("applied snapshot"), "it caught up by the log");
    }
    // With the other's state it has not become the other.
    cluster.kill(away).await.unwrap();
    cluster.start(away).await.unwrap();
    wait_until_serving(&cluster, [away]).await.unwrap();
    equal_members(&cluster).await.unwrap();
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// How long a refusal to start may take.
const REFUSES_WITHIN: Duration = Duration::from_secs(20);

/// A member that lost its data has forgotten its votes and what it confirmed: it must not take part again as if
/// it were new, nor when only its log is gone. The others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_data_does_not_come_back_as_itself() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    let client = cluster.client(0, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    client.put("before", "1").await.unwrap();
    // Stopped in order, so that its store holds a state and the others know its name.
    cluster.stop(2).await.unwrap();
    // If it led, the others must know by now that it does not: a write that is handed to it while it refuses to
    // start has an unknown fate, and says so.
    wait_until_serving(&cluster, 0..2).await.unwrap();
    for lost in ["member/wal", ""] {
        std::fs::remove_dir_all(cluster.data_dir(2).join(lost)).unwrap();
        cluster.start(2).await.unwrap();
        let status = cluster.wait_until_ended(2, REFUSES_WITHIN).await.unwrap();
        assert!(!status.success(), "{status} with {lost:?} gone");
        client.put("after", lost).await.unwrap();
        if lost.is_empty() {
            let log = cluster.log(2).unwrap();
            assert!(log.contains("has already been bootstrapped"), "{log}");
        }
    }
    wait_until_serving(&cluster, 0..2).await.unwrap();
}
