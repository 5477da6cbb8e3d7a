use std::time::Duration;

use mainstay_client::{Error, Reason};

use crate::client;
use crate::fake::{Fake, Network};

#[tokio::test]
async fn leases_are_granted_and_revoked() {
    let fake = Fake::new();
    let client = client(&fake);
    let id = client.lease_grant(60).await.unwrap().id;
    assert_eq!(client.leases().await.unwrap(), [id]);
    assert_eq!(client.lease_time_to_live(id).await.unwrap().ttl, 60);
    client.lease_revoke(id).await.unwrap();
    assert_eq!(client.lease_revoke(id).await.unwrap_err().reason(), Some(Reason::LeaseNotFound));
    assert_eq!(client.lease_time_to_live(id).await.unwrap().ttl, -1);
}

#[tokio::test]
async fn renewals_share_a_stream_and_survive_its_end() {
    let fake = Fake::new();
    let client = client(&fake);
    let id = client.lease_grant(60).await.unwrap().id;
    let mut keep_alive = client.keep_alive(id);
    for _ in 0..3 {
        assert_eq!(keep_alive.renew().await.unwrap(), 60);
    }
    assert_eq!(fake.calls("LeaseKeepAlive"), ["a"]);
    fake.set("b", Network::Down);
    fake.cut();
    assert_eq!(keep_alive.renew().await.unwrap(), 60);
    assert_eq!(fake.calls("LeaseKeepAlive"), ["a", "b", "c"]);
    fake.forget_lease(id);
    assert!(matches!(keep_alive.renew().await.unwrap_err(), Error::LeaseGone { id: gone } if gone == id));
}

#[tokio::test(start_paused = true)]
async fn a_keeper_renews_until_it_is_stopped() {
    let fake = Fake::new();
    let client = client(&fake);
    let id = client.lease_grant(30).await.unwrap().id;
    let keeper = client.keep_lease(id, 30);
    tokio::time::sleep(Duration::from_secs(100)).await;
    keeper.stop().await;
    let calls = fake.calls("LeaseKeepAlive").len();
    assert_eq!(calls, 1, "one stream");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(fake.calls("LeaseKeepAlive").len(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_keeper_says_when_the_lease_is_lost() {
    let fake = Fake::new();
    let client = client(&fake);
    let id = client.lease_grant(30).await.unwrap().id;
    let mut keeper = client.keep_lease(id, 30);
    assert!(tokio::time::timeout(Duration::from_secs(100), keeper.lost()).await.is_err());
    fake.forget_lease(id);
    assert!(matches!(keeper.lost().await, Error::LeaseGone { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_keeper_gives_up_when_the_cluster_was_away_for_the_whole_ttl() {
    let fake = Fake::new();
    let client = client(&fake);
    let id = client.lease_grant(30).await.unwrap().id;
    let mut keeper = client.keep_lease(id, 30);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for endpoint in ["a", "b", "c"] {
        fake.set(endpoint, Network::Down);
    }
    fake.cut();
    let start = tokio::time::Instant::now();
    assert!(matches!(keeper.lost().await, Error::NotSent(_)));
    let seconds = start.elapsed().as_secs();
    assert!((28..=45).contains(&seconds), "{seconds}");
}
