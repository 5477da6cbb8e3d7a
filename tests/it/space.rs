//! A store that has used up its quota, on three real members.

use std::time::Duration;

use mainstay_client::{Client, ClientOptions, Error, Reason, revision};
use mainstay_proto::etcdserverpb::AlarmType;
use mainstay_tests::{Cluster, ProcessCluster};
use tokio::time::{Instant, sleep};

/// Four mebibytes, and values of which some dozens fill it.
const QUOTA: &str = "--quota-backend-bytes=4194304";
const VALUE_BYTES: usize = 100_000;
const KEYS: usize = 30;
/// The alarm is to be disarmed after 30 seconds with room.
const DISARMED_WITHIN: Duration = Duration::from_secs(60);

/// etcd does not pass this one: its quota counts the file, so a compaction alone gives no room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_relieved_by_a_compaction_and_goes_on_by_itself() {
    let cluster = ProcessCluster::start_all_with(3, &[QUOTA]).await.unwrap();
    let client = cluster.client(0, ClientOptions::default());
    let last = fill(&client).await;
    assert_eq!(client.alarms().await.unwrap().len(), 1, "each alarm is of the member that was asked");

    refused(client.put("new", "").await);
    refused(client.put("k0", vec![0; VALUE_BYTES]).await);
    client.put("k0", "smaller").await.unwrap();
    client.delete("k1").await.unwrap();
    client.compact_physically(last).await.unwrap();
    // There is room now that it has been removed, but the alarm stands.
    refused(client.put("new", "").await);

    // Lifted by hand, without a defragmentation.
    for alarm in client.alarms().await.unwrap() {
        client.alarm_deactivate(alarm.member_id, AlarmType::Nospace).await.unwrap();
    }
    client.put("new", "").await.unwrap();

    // Again, and now nobody lifts it.
    let last = fill(&client).await;
    client.compact_physically(last).await.unwrap();
    let since = Instant::now();
    while !client.alarms().await.unwrap().is_empty() {
        assert!(since.elapsed() < DISARMED_WITHIN, "the alarm stands");
        sleep(Duration::from_millis(500)).await;
    }
    assert!(since.elapsed() > Duration::from_secs(25), "it was lifted after {:?}", since.elapsed());
    client.put("new", "again").await.unwrap();
    for member in 0..3 {
        let status = cluster.client_of(member).status().await.unwrap();
        assert!(status.db_size_in_use < 4_194_304, "{}", status.db_size_in_use);
        assert_eq!(status.db_size_quota, 4_194_304);
    }
}

/// Puts the same keys until there is no space; the revision of the last put.
async fn fill(client: &Client) -> i64 {
    let mut last = 0;
    for round in 0..10u8 {
        for key in 0..KEYS {
            match client.put(format!("k{key}"), vec![round; VALUE_BYTES]).await {
                Ok(response) => last = revision(&response.header),
                Err(error) => {
                    assert_eq!(error.reason(), Some(Reason::NoSpace), "{error}");
                    return last;
                }
            }
        }
    }
    panic!("the quota does not end");
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert_eq!(answer.unwrap_err().reason(), Some(Reason::NoSpace));
}
