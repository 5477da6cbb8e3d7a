//! Users, locks and elections, through the Rust client, which logs in when it is asked to.

use std::time::Duration;

use mainstay_client::proto::authpb::{Permission, permission::Type};
use mainstay_client::proto::v3electionpb::LeaderKey;
use mainstay_client::{Client, ClientOptions, KeyRange, Put, Reason, User};
use mainstay_tests::{Cluster, ProcessCluster};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(10);

async fn start() -> (ProcessCluster, Client) {
    let cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = cluster.client(0, ClientOptions::default());
    (cluster, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_user_logs_in_when_it_is_asked_to() {
    let (_cluster, nobody) = start().await;
    let root = nobody.with_user(User::new("root", "top"));
    let alice = nobody.with_user(User::new("alice", "secret"));
    root.user_add("root", "top").await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.role_add("readers").await.unwrap();
    let range = KeyRange::prefix("a/");
    let (key, range_end) = (range.key().clone(), range.range_end().clone());
    root.role_grant("readers", Permission { perm_type: Type::Read.into(), key, range_end }).await.unwrap();
    root.user_add("alice", "secret").await.unwrap();
    root.user_grant_role("alice", "readers").await.unwrap();
    // It has no token yet, and needs none.
    alice.put("a/1", "by everybody").await.unwrap();
    root.auth_enable().await.unwrap();
    assert!(root.auth_status().await.unwrap().enabled);

    assert_eq!(alice.get("a/1").await.unwrap().unwrap().value, "by everybody");
    assert_eq!(alice.get("b").await.unwrap_err().reason(), Some(Reason::PermissionDenied));
    assert_eq!(alice.put("a/1", "by alice").await.unwrap_err().reason(), Some(Reason::PermissionDenied));
    assert_eq!(nobody.get("a/1").await.unwrap_err().reason(), Some(Reason::UserEmpty));
    assert_eq!(root.user_roles("alice").await.unwrap(), ["readers"]);
    assert_eq!(root.users().await.unwrap(), ["alice", "root"]);

    // Its token goes with it, and it gets another.
    root.user_delete("alice").await.unwrap();
    assert_eq!(alice.get("a/1").await.unwrap_err().reason(), Some(Reason::AuthFailed));
    root.user_add("alice", "secret").await.unwrap();
    root.user_grant_role("alice", "readers").await.unwrap();
    alice.get("a/1").await.unwrap();
    root.user_change_password("alice", "other").await.unwrap();
    assert_eq!(alice.get("a/1").await.unwrap_err().reason(), Some(Reason::AuthFailed));

    root.role_revoke("readers", &range).await.unwrap();
    let alice = nobody.with_user(User::new("alice", "other"));
    assert_eq!(alice.get("a/1").await.unwrap_err().reason(), Some(Reason::PermissionDenied));
    let lease = root.lease_grant(60).await.unwrap();
    root.put_with(Put::new("a/2", "v").lease(lease.id)).await.unwrap();
    assert_eq!(root.keep_alive(lease.id).renew().await.unwrap(), 60);
    root.auth_disable().await.unwrap();
    nobody.get("a/1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_by_one() {
    let (_cluster, client) = start().await;
    let one = client.lease_grant(60).await.unwrap().id;
    let other = client.lease_grant(60).await.unwrap().id;
    let held = client.lock("l", one).await.unwrap();
    assert_eq!(held.key, format!("l/{one:x}"));
    let mut waiting = Box::pin(client.lock("l", other));
    assert!(timeout(SHORT, &mut waiting).await.is_err(), "it is held");
    client.unlock(held.key).await.unwrap();
    let held = timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(held.key, format!("l/{other:x}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_has_one_leader_and_says_which() {
    let (_cluster, client) = start().await;
    let one = client.lease_grant(60).await.unwrap().id;
    let other = client.lease_grant(60).await.unwrap().id;
    let leader: LeaderKey = client.campaign("e", one, "first").await.unwrap().leader.unwrap();
    let mut observer = client.observe("e").await.unwrap();
    assert_eq!(client.leader("e").await.unwrap().kv.unwrap().value, "first");
    let mut waiting = Box::pin(client.campaign("e", other, "second"));
    assert!(timeout(SHORT, &mut waiting).await.is_err(), "another leads");
    client.proclaim(leader.clone(), "more").await.unwrap();
    client.resign(leader).await.unwrap();
    let won = timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(won.leader.unwrap().key, format!("e/{other:x}"));
    let mut told = Vec::new();
    while told.len() < 3 {
        let response = timeout(LONG, observer.message()).await.unwrap().unwrap().unwrap();
        told.push(response.kv.unwrap().value);
    }
    assert_eq!(told, ["first", "more", "second"]);
}
