use std::time::Duration;

use mainstay_client::{
    Client, ClientOptions, Code, Compare, Delete, Error, Put, Range, Reason, Status, Txn, failover, revision,
};

use crate::client;
use crate::fake::{Fake, Network};

#[tokio::test]
async fn writes_are_read_back() {
    let fake = Fake::new();
    let client = client(&fake);
    let put = client.put("/a", "1").await.unwrap();
    assert_eq!(revision(&put.header), 2);
    client.put("/b", "2").await.unwrap();
    assert_eq!(client.get("/a").await.unwrap().unwrap().value, "1");
    assert_eq!(client.get("/c").await.unwrap(), None);
    assert_eq!(client.range(Range::prefix("/")).await.unwrap().count, 2);
    assert_eq!(client.range_stream_collected(Range::prefix("/")).await.unwrap().kvs.len(), 2);
    assert_eq!(client.delete_with(Delete::prefix("/")).await.unwrap().deleted, 2);
}

#[tokio::test]
async fn a_transaction_writes_on_top_of_what_was_read() {
    let fake = Fake::new();
    let client = client(&fake);
    let update = |seen| {
        Txn::new().when(Compare::mod_revision("k").equals(seen)).then(Put::new("k", "v")).otherwise(Range::key("k"))
    };
    assert!(client.txn(update(0)).await.unwrap().succeeded);
    assert!(!client.txn(update(0)).await.unwrap().succeeded);
    assert!(client.txn(update(2)).await.unwrap().succeeded);
}

#[tokio::test]
async fn etcds_errors_are_typed() {
    let fake = Fake::new();
    let client = client(&fake);
    let error = client.put_with(Put::new("k", "v").lease(5)).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Some(Reason::LeaseNotFound), Some(Code::NotFound)));
    let error = client.compact(9).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::FutureRevision));
    let error = client.status().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented), "the fake has no maintenance service");
}

#[tokio::test]
async fn a_dead_endpoint_is_left_and_not_asked_again() {
    let fake = Fake::new();
    fake.set("a", Network::Down);
    let client = client(&fake);
    assert_eq!(client.get("k").await.unwrap(), None);
    assert_eq!(client.get("k").await.unwrap(), None);
    assert_eq!(fake.calls("Range"), ["a", "b", "b"]);
    assert_eq!(client.current_endpoint(), "b");
}

#[tokio::test]
async fn a_write_that_never_left_is_repeated() {
    let fake = Fake::new();
    fake.set("a", Network::Down);
    fake.set("b", Network::Down);
    client(&fake).put("k", "v").await.unwrap();
    assert_eq!(fake.calls("Put"), ["a", "b", "c"]);
    assert_eq!(fake.revision(), 2);
}

#[tokio::test]
async fn a_write_that_may_have_happened_is_not_repeated() {
    let fake = Fake::new();
    fake.set("a", Network::BreaksAfter);
    let client = client(&fake);
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Broken(_)) && error.may_have_taken_effect(), "{error}");
    assert_eq!(fake.calls("Put"), ["a"]);
    assert_eq!(fake.revision(), 2, "it did happen");
    assert_eq!(client.current_endpoint(), "b", "the next request goes elsewhere");
}

#[tokio::test]
async fn an_unavailable_member_is_left_by_reads_only() {
    let fake = Fake::new();
    let no_leader = Status::unavailable("etcdserver: no leader");
    fake.set("a", Network::Answers(no_leader.clone()));
    fake.set("b", Network::Answers(no_leader));
    let client = client(&fake);
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoLeader));
    assert!(error.may_have_taken_effect());
    assert_eq!(fake.calls("Put"), ["a"]);
    client.get("k").await.unwrap();
    assert_eq!(fake.calls("Range"), ["b", "c"]);
}

fn corrupt() -> Network {
    Network::Answers(Status::data_loss("etcdserver: corrupt cluster"))
}

#[tokio::test(start_paused = true)]
async fn where_all_members_are_corrupt_each_is_asked_once() {
    let fake = Fake::new();
    for endpoint in ["a", "b", "c"] {
        fake.set(endpoint, corrupt());
    }
    let start = tokio::time::Instant::now();
    let put = client(&fake).put("k", "v").await.unwrap_err();
    assert_eq!((put.reason(), put.may_have_taken_effect()), (Some(Reason::Corrupt), false));
    assert_eq!(fake.calls("Put"), ["a", "b", "c"]);
    let get = client(&fake).get("k").await.unwrap_err();
    assert_eq!((get.reason(), get.code()), (Some(Reason::Corrupt), Some(Code::DataLoss)));
    assert_eq!(fake.calls("Range"), ["a", "b", "c"]);
    let watch = client(&fake).watch(mainstay_client::Watch::key("k")).await.unwrap_err();
    assert_eq!(watch.reason(), Some(Reason::Corrupt));
    assert_eq!(fake.calls("Watch"), ["a", "b", "c"]);
    let renewal = client(&fake).keep_alive(1).renew().await.unwrap_err();
    assert_eq!(renewal.reason(), Some(Reason::Corrupt));
    assert_eq!(fake.calls("LeaseKeepAlive"), ["a", "b", "c"]);
    assert!(start.elapsed() < failover::PAUSE_FIRST, "nobody is asked twice");
    // One that is down changes nothing, whenever its turn is.
    fake.set("c", Network::Down);
    let get = client(&fake).get("k").await.unwrap_err();
    assert_eq!(get.reason(), Some(Reason::Corrupt));
    assert!(start.elapsed() < 2 * failover::PAUSE_FIRST);
}

#[tokio::test(start_paused = true)]
async fn where_one_member_is_corrupt_the_others_are_asked() {
    let fake = Fake::new();
    fake.set("a", corrupt());
    fake.set("b", Network::Down);
    client(&fake).put("k", "v").await.unwrap();
    assert_eq!(fake.calls("Put"), ["a", "b", "c"]);
    // Who has another reason may serve in a moment.
    fake.set("c", Network::Answers(Status::unavailable("etcdserver: no leader")));
    let error = client(&fake).with_timeout(Duration::from_millis(200)).get("k").await.unwrap_err();
    // Rounds of three with pauses of 25, 50 and 100 ms; the next would be late.
    assert_eq!(fake.calls("Range").len(), 12, "{error}");
}

#[tokio::test]
async fn a_transaction_is_repeated_as_what_it_does() {
    let fake = Fake::new();
    fake.set("a", Network::BreaksAfter);
    client(&fake).txn(Txn::new().then(Range::key("k"))).await.unwrap();
    assert_eq!(fake.calls("Txn"), ["a", "b"]);
    let error = client(&fake).txn(Txn::new().then(Put::new("k", "v"))).await.unwrap_err();
    assert!(error.may_have_taken_effect());
    assert_eq!(fake.calls("Txn"), ["a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_costs_a_read_one_attempt_and_a_write_its_time() {
    let fake = Fake::new();
    fake.set("a", Network::Silent);
    let options = ClientOptions {
        request_timeout: Duration::from_secs(5),
        attempt_timeout: Some(Duration::from_secs(1)),
        ..ClientOptions::default()
    };
    let client = Client::with_connector(&fake, ["a", "b"], options.clone()).unwrap();
    let start = tokio::time::Instant::now();
    client.get("k").await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 1);
    let client = Client::with_connector(&fake, ["a", "b"], options).unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::TimedOut) && error.may_have_taken_effect());
    assert_eq!(start.elapsed().as_secs(), 6);
    client.put("k", "v").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_requests_time() {
    let fake = Fake::new();
    for endpoint in ["a", "b", "c"] {
        fake.set(endpoint, Network::Down);
    }
    let start = tokio::time::Instant::now();
    let error = client(&fake).with_timeout(Duration::from_secs(2)).put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::NotSent(_)) && !error.may_have_taken_effect());
    assert!(start.elapsed() <= Duration::from_secs(2));
    // Rounds of three with pauses of 25, 50, 100, 200, 400, 500, 500 ms; the next would be late.
    assert_eq!(fake.calls("Put").len(), 24);
}

#[tokio::test]
async fn a_large_answer_is_not_bounded_by_the_client() {
    let fake = Fake::new();
    fake.write("k", &"x".repeat(8 << 20));
    assert_eq!(client(&fake).get("k").await.unwrap().unwrap().value.len(), 8 << 20);
}

#[tokio::test]
async fn one_member_can_be_asked() {
    let fake = Fake::new();
    let only = client(&fake).only(2);
    only.get("k").await.unwrap();
    assert_eq!(fake.calls("Range"), ["c"]);
    assert_eq!(only.endpoints(), ["c"]);
}

#[tokio::test]
async fn bad_endpoints_are_refused() {
    let fake = Fake::new();
    let none: [&str; 0] = [];
    let connect = |endpoints: &[&str]| Client::with_connector(&fake, endpoints, ClientOptions::default());
    assert!(matches!(connect(&none).unwrap_err(), Error::NoEndpoints));
    assert!(matches!(connect(&["a", "b b"]).unwrap_err(), Error::BadEndpoint { endpoint, .. } if endpoint == "b b"));
}

/// Workloads spawn what they do, so every future must be able to change threads.
#[test]
fn futures_are_send() {
    fn check<T: Send>(_of: impl FnOnce(&'static Client) -> T) {}
    check(|client| client.get("k"));
    check(|client| client.put("k", "v"));
    check(|client| client.txn(Txn::new()));
    check(|client| client.watch(mainstay_client::Watch::key("k")));
    check(|client| async { client.watch(mainstay_client::Watch::key("k")).await.unwrap().next().await });
    check(|client| async { client.keep_alive(1).renew().await });
    check(|client| client.snapshot());
    check(|client| client.member_list());
}
