//! What one member promises, through the Rust client.

use mainstay_client::revision;
use mainstay_client::{Client, ClientOptions, Compare, Delete, EventType, Put, Range, Reason, Txn, Update, Watch};
use mainstay_proto::etcdserverpb::PutRequest;
use mainstay_tests::wire::{Connection, frame};
use mainstay_tests::{Cluster, ProcessCluster, wait_until_serving};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn client(cluster: &ProcessCluster) -> Client {
    cluster.client(0, ClientOptions::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_transactions_and_history() {
    let cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = client(&cluster);
    assert_eq!(revision(&client.range(Range::key("a")).await.unwrap().header), 1, "a new store is at revision 1");

    assert_eq!(revision(&client.put("a", "1").await.unwrap().header), 2);
    let put = client.put_with(Put::new("a", "2").prev_kv()).await.unwrap();
    assert_eq!(put.prev_kv.unwrap().value, "1");
    assert_eq!(client.range(Range::key("a").at_revision(2)).await.unwrap().kvs[0].value, "1");

    let create = |value| {
        Txn::new().when(Compare::create_revision("b").equals(0)).then(Put::new("b", value)).otherwise(Range::key("b"))
    };
    assert!(client.txn(create("first")).await.unwrap().succeeded);
    assert!(!client.txn(create("second")).await.unwrap().succeeded);
    assert_eq!(client.get("b").await.unwrap().unwrap().value, "first");

    let deleted = client.delete_with(Delete::prefix("").prev_kv()).await.unwrap();
    assert_eq!((deleted.deleted, revision(&deleted.header)), (2, 5));
    assert_eq!(client.range(Range::all().count_only()).await.unwrap().count, 0);
    assert_eq!(client.range(Range::all().at_revision(4)).await.unwrap().count, 2);

    client.compact(4).await.unwrap();
    let old = client.range(Range::all().at_revision(3)).await.unwrap_err();
    assert_eq!(old.reason(), Some(Reason::Compacted));
    let future = client.range(Range::all().at_revision(99)).await.unwrap_err();
    assert_eq!(future.reason(), Some(Reason::FutureRevision));
    assert_eq!(client.put("", "v").await.unwrap_err().reason(), Some(Reason::EmptyKey));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_kill() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = client(&cluster);
    let lease = client.lease_grant(600).await.unwrap().id;
    for i in 0..100 {
        client.put(format!("k{}", i % 10), format!("{i}")).await.unwrap();
    }
    client.put_with(Put::new("leased", "v").lease(lease)).await.unwrap();
    client.delete("k0").await.unwrap();
    client.compact(50).await.unwrap();
    let before = client.range(Range::all()).await.unwrap();
    let status = client.status().await.unwrap();

    cluster.kill(0).await.unwrap();
    cluster.start(0).await.unwrap();
    wait_until_serving(&cluster, [0]).await.unwrap();

    let after = client.range(Range::all()).await.unwrap();
    assert_eq!(after.kvs, before.kvs);
    assert_eq!(revision(&after.header), revision(&before.header));
    assert_eq!(client.range(Range::key("k1").at_revision(60)).await.unwrap().kvs[0].value, "51");
    assert_eq!(client.range(Range::all().at_revision(49)).await.unwrap_err().reason(), Some(Reason::Compacted));
    assert_eq!(client.lease_keys(lease).await.unwrap().keys, ["leased"]);
    let again = client.status().await.unwrap().header.unwrap();
    let first = status.header.unwrap();
    assert_eq!((again.member_id, again.cluster_id), (first.member_id, first.cluster_id), "who it is");
    assert!(again.raft_term >= first.raft_term);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_a_restart() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = client(&cluster);
    let mut watcher = client.watch(Watch::prefix("w/").prev_kv()).await.unwrap();
    client.put("w/a", "1").await.unwrap();
    let Update::Events { events, .. } = watcher.next().await.unwrap() else { panic!("a notice instead of the event") };
    assert_eq!(events[0].kv.as_ref().unwrap().value, "1");

    cluster.kill(0).await.unwrap();
    cluster.start(0).await.unwrap();
    wait_until_serving(&cluster, [0]).await.unwrap();
    client.delete("w/a").await.unwrap();
    let Update::Events { events, .. } = watcher.next().await.unwrap() else { panic!("a notice instead of the event") };
    assert_eq!(events.len(), 1, "no event is repeated: {events:?}");
    assert_eq!(events[0].r#type(), EventType::Delete);
    assert_eq!(events[0].prev_kv.as_ref().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_takes_its_keys_along() {
    let cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = client(&cluster);
    let lease = client.lease_grant(2).await.unwrap();
    client.put_with(Put::new("l/a", "1").lease(lease.id)).await.unwrap();
    client.put_with(Put::new("l/b", "1").lease(lease.id)).await.unwrap();
    let mut watcher = client.watch(Watch::prefix("l/")).await.unwrap();
    let Update::Events { events, .. } = watcher.next().await.unwrap() else { panic!("a notice instead of the event") };
    let keys: Vec<_> = events.iter().map(|event| (event.r#type(), event.kv.as_ref().unwrap().key.clone())).collect();
    assert_eq!(keys, [(EventType::Delete, "l/a".into()), (EventType::Delete, "l/b".into())]);
    assert_eq!(client.lease_time_to_live(lease.id).await.unwrap().ttl, -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_ends_when_asked_to() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = client(&cluster);
    client.put("a", "1").await.unwrap();
    // A stream that is open must not hold it up.
    let _watcher = client.watch(Watch::all()).await.unwrap();
    cluster.stop(0).await.unwrap();
    cluster.start(0).await.unwrap();
    wait_until_serving(&cluster, [0]).await.unwrap();
    assert_eq!(client.get("a").await.unwrap().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_answers_methods_and_pages() {
    let cluster = ProcessCluster::start_all(1).await.unwrap();
    let address = cluster.client_url(0).trim_start_matches("http://").parse().unwrap();
    let connection = Connection::open(address).await.unwrap();
    let put = frame(&PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() }.encode_to_vec());
    let call = async |path: &str| connection.call(path, &http::HeaderMap::new(), put.clone()).await;
    let answer = call("/etcdserverpb.KV/Put").await;
    assert!(answer.is_ok() && answer.messages.len() == 1, "{answer:?}");
    assert_eq!(client(&cluster).get("a").await.unwrap().unwrap().value, "1");
    for (path, text) in [
        ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
        ("/etcdserverpb.KV/", "unknown method  for service etcdserverpb.KV"),
        ("/etcdserverpb.KV/Put/x", "unknown service etcdserverpb.KV/Put"),
        ("/no.Such/Method", "unknown service no.Such"),
    ] {
        let answer = call(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (Some(12), text), "{path}");
    }
    // gRPC needs HTTP/2: by HTTP/1.1 there are pages, whatever the content type says.
    for (request, status) in [
        ("GET /version HTTP/1.1\r\nContent-Type: application/grpc", "200"),
        ("POST /etcdserverpb.KV/Put HTTP/1.1\r\nContent-Length: 0\r\nContent-Type: application/grpc", "404"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        assert_eq!(page.split(' ').nth(1), Some(status), "{page}");
    }
}
