//! The ways back: where a majority is lost for good, and where one member's data is.

use std::time::Duration;

use mainstay_client::{ClientOptions, Range};
use mainstay_tests::checker::equal_members;
use mainstay_tests::{Cluster, ProcessCluster, wait_until_serving};

/// How long a member may take to find out that it was removed.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// One of three is made a cluster of its own: it has everything that was acknowledged, goes on without the flag, takes
/// new members, and whoever was one before is told that it is no more.
#[tokio::test(flavor = "multi_thread")]
async fn one_member_is_made_a_cluster_of_its_own() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    let client = cluster.client(0, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    for number in 0..100 {
        client.put(format!("kept/{number:03}"), number.to_string()).await.unwrap();
    }
    // So that it has all of them, and not only those that it knows to be committed.
    equal_members(&cluster).await.unwrap();
    for member in 0..3 {
        cluster.kill(member).await.unwrap();
    }

    cluster.force_new_cluster(2).await.unwrap();
    let members = client.member_list().await.unwrap().members;
    assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["m2"]);
    assert_eq!(client.range(Range::prefix("kept/").count_only()).await.unwrap().count, 100);
    client.put("alone", "1").await.unwrap();
    assert!(cluster.log(2).unwrap().contains("forced a new cluster"), "it is said what became of the others");

    cluster.kill(2).await.unwrap();
    cluster.start(2).await.unwrap();
    wait_until_serving(&cluster, [2]).await.unwrap();
    assert_eq!(client.get("alone").await.unwrap().unwrap().value, "1");

    cluster.start(0).await.unwrap();
    let status = cluster.wait_until_ended(0, ENDS_WITHIN).await.unwrap();
    assert!(cluster.log(0).unwrap().contains("permanently removed"), "{status}");
    for member in [0, 1] {
        std::fs::remove_dir_all(cluster.data_dir(member)).unwrap();
        cluster.join(member).await.unwrap();
    }
    equal_members(&cluster).await.unwrap();
    assert_eq!(client.range(Range::prefix("kept/").count_only()).await.unwrap().count, 100);
}

/// A member whose data is spoilt begins anew with one command, in its place, and is started as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_rebuilt_in_its_place() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    let client = cluster.client(0, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    client.put("kept", "1").await.unwrap();
    let former = cluster.id_of(1).await.unwrap();

    let while_it_runs = cluster.rebuild(1).await.unwrap();
    let text = String::from_utf8_lossy(&while_it_runs.stderr).into_owned();
    assert!(!while_it_runs.status.success() && text.contains("must not run"), "{text}");
    assert_eq!(cluster.id_of(1).await.unwrap(), former, "nothing has happened");

    cluster.kill(1).await.unwrap();
    for store in ["db", "wal"] {
        std::fs::remove_dir_all(cluster.data_dir(1).join("member").join(store)).unwrap();
    }
    let rebuilt = cluster.rebuild(1).await.unwrap();
    let text = String::from_utf8_lossy(&rebuilt.stdout).into_owned();
    let errors = String::from_utf8_lossy(&rebuilt.stderr).into_owned();
    assert!(rebuilt.status.success() && text.contains(&format!("{former:x}")), "{text}{errors}");
    client.put("meanwhile", "2").await.unwrap();

    cluster.start(1).await.unwrap();
    wait_until_serving(&cluster, [1]).await.unwrap();
    equal_members(&cluster).await.unwrap();
    assert_ne!(cluster.id_of(1).await.unwrap(), former);
    let mut names: Vec<_> = client.member_list().await.unwrap().members.into_iter().map(|it| it.name).collect();
    names.sort();
    assert_eq!(names, ["m0", "m1", "m2"]);
    // It is a member like any other, also when it is started again.
    cluster.kill(1).await.unwrap();
    cluster.start(1).await.unwrap();
    wait_until_serving(&cluster, [1]).await.unwrap();
    // And it has a vote: without another one the two are a quorum.
    cluster.kill(0).await.unwrap();
    wait_until_serving(&cluster, [1, 2]).await.unwrap();
    let client = cluster.client(2, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    client.put("by two", "3").await.unwrap();

    let again = cluster.rebuild(1).await.unwrap();
    assert!(!again.status.success());
}
