//! The main calls of the Rust client `etcd-client`, against a server given as HOST:PORT.
//!
//! Each function is one case; an assertion that fails ends the process with its place.

use std::env;
use std::error::Error;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, LeaseTimeToLiveOptions,
    LockOptions, ProclaimOptions, PutOptions, ResignOptions, SortOrder, SortTarget, Txn, TxnOp, WatchOptions,
};

type Checked = Result<(), Box<dyn Error>>;

async fn kv(client: &mut Client) -> Checked {
    for (key, value) in [("rust/kv/a", "1"), ("rust/kv/b", "2"), ("rust/kv/c", "3")] {
        client.put(key, value, None).await?;
    }
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(2);
    let found = client.get("rust/kv/", Some(options)).await?;
    let values = found.kvs().iter().map(|kv| kv.value()).collect::<Vec<_>>();
    assert_eq!((values, found.count(), found.more()), (vec![&b"3"[..], b"2"], 3, true));
    let mut stream = client.kv_client().get_stream("rust/kv/", Some(GetOptions::new().with_prefix())).await?;
    let mut streamed = Vec::new();
    while let Some(chunk) = stream.message().await? {
        streamed.extend(chunk.kvs().iter().map(|kv| kv.value().to_vec()));
    }
    assert_eq!(streamed, [b"1", b"2", b"3"]);
    let put = client.put("rust/kv/a", "4", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().map(|kv| kv.value()), Some(&b"1"[..]));
    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("rust/kv/", Some(options)).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (3, 3));
    Ok(())
}

async fn transaction(client: &mut Client) -> Checked {
    let txn = |value: &str| {
        Txn::new()
            .when([Compare::create_revision("rust/txn", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("rust/txn", value, None)])
            .or_else([TxnOp::get("rust/txn", None)])
    };
    assert!(client.txn(txn("1")).await?.succeeded());
    let second = client.txn(txn("2")).await?;
    assert!(!second.succeeded());
    let etcd_client::TxnOpResponse::Get(got) = &second.op_responses()[0] else { panic!("{second:?}") };
    assert_eq!(got.kvs()[0].value(), b"1");
    Ok(())
}

async fn watch(client: &mut Client) -> Checked {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut watch = client.watch("rust/watch/", Some(options)).await?;
    client.put("rust/watch/a", "1", None).await?;
    client.put("rust/watch/a", "2", None).await?;
    client.delete("rust/watch/a", None).await?;
    let mut seen = Vec::new();
    let mut id = None;
    while seen.len() < 3 {
        let response = watch.message().await?.ok_or("the stream ended")?;
        id = Some(response.watch_id());
        for event in response.events() {
            let of = |kv: Option<&etcd_client::KeyValue>| kv.map(|kv| kv.value().to_vec());
            seen.push((event.event_type(), of(event.kv()), of(event.prev_kv())));
        }
    }
    let value = |value: &str| Some(value.as_bytes().to_vec());
    let expected = [
        (EventType::Put, value("1"), None),
        (EventType::Put, value("2"), value("1")),
        (EventType::Delete, value(""), value("2")),
    ];
    assert_eq!(seen, expected);
    watch.cancel(id.ok_or("no id")?).await?;
    let last = watch.message().await?.ok_or("the stream ended")?;
    assert!(last.canceled() && last.cancel_reason().is_empty(), "{last:?}");
    Ok(())
}

async fn lease(client: &mut Client) -> Checked {
    let id = client.lease_grant(30, None).await?.id();
    client.put("rust/lease", "1", Some(PutOptions::new().with_lease(id))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.map(|answer| answer.ttl()), Some(30));
    let told = client.lease_time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    assert_eq!((told.granted_ttl(), told.keys()), (30, &[b"rust/lease".to_vec()][..]));
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == id));
    client.lease_revoke(id).await?;
    assert!(client.get("rust/lease", None).await?.kvs().is_empty());
    Ok(())
}

async fn lock(client: &mut Client) -> Checked {
    let id = client.lease_grant(30, None).await?.id();
    let held = client.lock("rust-lock", Some(LockOptions::new().with_lease(id))).await?;
    let other = client.lease_grant(30, None).await?.id();
    let mut waiting = client.clone();
    let waits = tokio::spawn(async move { waiting.lock("rust-lock", Some(LockOptions::new().with_lease(other))).await });
    // The other one waits: its key is there, and its answer is not.
    while client.get("rust-lock/", Some(GetOptions::new().with_prefix())).await?.count() < 2 {}
    assert!(!waits.is_finished());
    client.unlock(held.key()).await?;
    let second = waits.await??;
    assert_eq!(second.key(), format!("rust-lock/{other:x}").as_bytes());
    client.unlock(second.key()).await?;
    Ok(())
}

async fn election(client: &mut Client) -> Checked {
    let id = client.lease_grant(30, None).await?.id();
    let elected = client.campaign("rust/election", "one", id).await?;
    let leader = elected.leader().ok_or("no leader")?.clone();
    let options = ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("two", Some(options)).await?;
    let mut observed = client.observe("rust/election").await?;
    let first = observed.message().await?.ok_or("the stream ended")?;
    assert_eq!(first.kv().map(|kv| kv.value()), Some(&b"two"[..]));
    assert_eq!(client.leader("rust/election").await?.kv().map(|kv| kv.lease()), Some(id));
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    let refused = client.leader("rust/election").await.err().ok_or("a leader after it resigned")?;
    assert!(refused.to_string().contains("election: no leader"), "{refused}");
    Ok(())
}

async fn cluster(client: &mut Client) -> Checked {
    let members = client.member_list().await?;
    assert_eq!(members.members().iter().map(|member| member.name()).collect::<Vec<_>>(), ["default"]);
    let status = client.status().await?;
    assert_eq!(status.leader(), members.members()[0].id());
    assert!(client.hash_kv(0).await?.hash() > 0);
    client.defragment().await?;
    let revision = client.get("rust/txn", None).await?.header().ok_or("no header")?.revision();
    client.compact(revision, None).await?;
    let old = GetOptions::new().with_revision(1);
    let refused = client.get("rust/txn", Some(old)).await.err().ok_or("what was compacted is read")?;
    assert!(refused.to_string().contains("required revision has been compacted"), "{refused}");
    let mut snapshot = client.snapshot().await?;
    let mut bytes = Vec::new();
    while let Some(part) = snapshot.message().await? {
        bytes.extend_from_slice(part.blob());
    }
    // A bbolt file: its first page says so, and a checksum of 32 bytes ends it.
    assert_eq!((&bytes[16..20], bytes.len() % 512), (&[0xed, 0xda, 0x0c, 0xed][..], 32));
    Ok(())
}

/// Turns authentication on, for the clients of the other languages, too.
async fn users(client: &mut Client, endpoint: &str) -> Checked {
    client.role_add("root").await?;
    client.user_add("root", "clients", None).await?;
    client.user_grant_role("root", "root").await?;
    client.auth_enable().await?;
    let refused = client.get("rust/users", None).await.err().ok_or("a stranger reads")?;
    assert!(refused.to_string().contains("user name is empty"), "{refused}");
    let options = ConnectOptions::new().with_user("root", "clients");
    let mut root = Client::connect([endpoint], Some(options)).await?;
    root.put("rust/users", "1", None).await?;
    assert_eq!(root.user_get("root").await?.roles(), ["root"]);
    let options = ConnectOptions::new().with_user("root", "wrong");
    let refused = Client::connect([endpoint], Some(options)).await.err().ok_or("a wrong password is taken")?;
    assert!(refused.to_string().contains("authentication failed, invalid user ID or password"), "{refused}");
    Ok(())
}

#[tokio::main]
async fn main() -> Checked {
    let endpoint = env::args().nth(1).ok_or("usage: clients HOST:PORT [users]")?;
    let mut client = Client::connect([&endpoint], None).await?;
    if env::args().nth(2).as_deref() == Some("users") {
        users(&mut client, &endpoint).await?;
        println!("rust: users");
        return Ok(());
    }
    kv(&mut client).await?;
    println!("rust: kv");
    transaction(&mut client).await?;
    println!("rust: transaction");
    watch(&mut client).await?;
    println!("rust: watch");
    lease(&mut client).await?;
    println!("rust: lease");
    lock(&mut client).await?;
    println!("rust: lock");
    election(&mut client).await?;
    println!("rust: election");
    cluster(&mut client).await?;
    println!("rust: cluster");
    Ok(())
}
