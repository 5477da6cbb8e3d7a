//! Scenarios on three processes.

use mainstay_tests::{ProcessCluster, scenario};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_killed() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    scenario::members_are_killed(&mut cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_cut_off() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    scenario::leader_is_cut_off(&mut cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_is_lost() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    scenario::quorum_is_lost(&mut cluster).await.unwrap();
}
