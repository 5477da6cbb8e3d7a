//! A process at the address of a member that is not that member. etcd says the same in other words.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_client::{ClientOptions, Range};
use mainstay_tests::checker::equal_members;
use mainstay_tests::{Cluster, ProcessCluster, leader, wait_until_serving};
use tokio::time::sleep;

/// How long a request is waited for that nobody may acknowledge.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take until it is said that calls go astray.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() { copy(&path, &target)? } else { fs::copy(&path, &target).map(drop)? }
    }
    Ok(())
}

/// Two of three members are down, and at the address of one of them a copy of the leader's data is started: the leader
/// and it are no quorum. When the member itself is there again, the cluster goes on, with all that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_leader_does_not_count_for_another_member() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    let client = cluster.client(0, ClientOptions::default()).with_timeout(Duration::from_secs(30));
    client.put("kept", "1").await.unwrap();
    equal_members(&cluster).await.unwrap();
    let leads = leader(&cluster).await.unwrap();
    let (mistaken, third) = ((leads + 1) % 3, (leads + 2) % 3);
    cluster.kill(third).await.unwrap();
    cluster.kill(mistaken).await.unwrap();
    let data = cluster.data_dir(mistaken);
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).unwrap();
    // A moment in which nothing is written.
    cluster.pause(leads).unwrap();
    copy(&cluster.data_dir(leads), &data).unwrap();
    cluster.resume(leads).unwrap();

    cluster.start(mistaken).await.unwrap();
    let started = Instant::now();
    while !cluster.log(mistaken).unwrap().contains("rejected Raft message to mismatch member") {
        assert!(started.elapsed() < TOLD_WITHIN, "nothing is said of calls that go astray");
        sleep(Duration::from_millis(50)).await;
    }
    for member in [leads, mistaken] {
        let client = cluster.client_of(member).with_timeout(REFUSED_WITHIN);
        assert!(client.put("lost", "1").await.is_err(), "member {member} acknowledges a write without a quorum");
        assert!(client.range(Range::key("kept")).await.is_err(), "member {member} confirms a read without a quorum");
    }
    let told = "request sent was ignored by remote peer due to member ID mismatch";
    assert!(cluster.log(leads).unwrap().contains(told), "the leader says nothing of it");

    cluster.kill(mistaken).await.unwrap();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&aside, &data).unwrap();
    cluster.start(mistaken).await.unwrap();
    wait_until_serving(&cluster, [leads, mistaken]).await.unwrap();
    client.put("after", "2").await.unwrap();
    cluster.start(third).await.unwrap();
    wait_until_serving(&cluster, 0..3).await.unwrap();
    equal_members(&cluster).await.unwrap();
    for (key, value) in [("kept", "1"), ("after", "2")] {
        assert_eq!(client.get(key).await.unwrap().unwrap().value, value, "{key}");
    }
}
