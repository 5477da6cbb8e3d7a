//! Certificates are replaced while members and clients work, and then the CA that signed them.
//!
//! etcd takes a new certificate and never a new CA, so that it does not pass.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mainstay_client::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use mainstay_client::{Client, ClientOptions, RawWatch};
use mainstay_tests::checker::{WatchOrder, equal_members, exactly_once};
use mainstay_tests::secured::{Authority, Files, address, replace};
use mainstay_tests::workload::UniquePuts;
use mainstay_tests::{Cluster, ProcessCluster, Security, wait_until_serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const MEMBERS: usize = 3;
const PREFIX: &str = "unique/";
/// Puts that must succeed between two changes, so that each of them hits a cluster at work.
const PUTS_BETWEEN: u64 = 100;
/// How long that may take. Nothing fails meanwhile, so that nobody waits for an election.
const PUTS_WITHIN: Duration = Duration::from_secs(30);
/// How long an event may take that has happened.
const EVENT_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_then_their_authority_are_replaced_under_load() {
    let files = Files::new(MEMBERS).unwrap();
    rotate(&files).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_make_their_own_certificates() {
    made().await.unwrap();
}

async fn rotate(files: &Files) -> Result<()> {
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    files.found(&old)?;
    // A machine that is busy must not pass for a lost leader.
    let patient = ["--election-timeout=3000"];
    let mut cluster = ProcessCluster::start_secured(MEMBERS, MEMBERS, &patient, Some(files.security())).await?;
    let watch = WatchOrder::spawn(&cluster.client(0, ClientOptions::default()), PREFIX).await?;
    let mut streams = Vec::new();
    for member in 0..MEMBERS {
        streams.push(watch_one(&cluster.client_of(member)).await?);
    }
    let clients = (0..8).map(|number| cluster.client(number % MEMBERS, ClientOptions::default())).collect();
    let puts = UniquePuts::spawn(PREFIX, clients, Duration::from_millis(20));
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;
    let before = terms_and_losses(&cluster, files).await?;

    // Every certificate, of the same authority.
    files.sign_all(&old, 2)?;
    files.serve_by(&cluster, 0..MEMBERS, 2).await?;
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;

    // The authority: both are trusted, then all certificates are of the new one, then it is trusted alone.
    files.trust(&[&old, &new])?;
    files.serve_by(&cluster, 0..MEMBERS, 2).await?;
    files.sign_all(&new, 3)?;
    files.serve_by(&cluster, 0..MEMBERS, 3).await?;
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;
    files.trust(&[&new])?;
    files.serve_by(&cluster, 0..MEMBERS, 3).await?;
    let left = files.identity("left");
    old.sign(&left, "member", 9)?;
    files.keep_out(&cluster, 0..MEMBERS, &left).await.context("a certificate of the old authority")?;

    // One that is taken back.
    let gone = files.identity("gone");
    new.sign(&gone, "member", 10)?;
    files.let_in(&cluster, 0..MEMBERS, &gone).await?;
    new.revoke(&files.path("revoked.crl"), &[10])?;
    files.keep_out(&cluster, 0..MEMBERS, &gone).await.context("a certificate that was revoked")?;

    // A broken file changes nothing.
    replace(&files.identity("peer0").certificate, "no certificate")?;
    replace(&files.identity("server0").key, "")?;
    files.serve_by(&cluster, 0..MEMBERS, 3).await?;
    for name in ["server0", "peer0"] {
        let told =
            cluster.log(0)?.lines().filter(|line| line.contains("cannot be used") && line.contains(name)).count();
        ensure!(told == 1, "{name} was said to be broken {told} times");
    }
    files.sign_all(&new, 4)?;
    files.serve_by(&cluster, 0..MEMBERS, 4).await?;
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;

    let record = puts.finish().await?;
    ensure!(record.open.is_empty() && record.refused.is_empty(), "{:?} {:?} failed", record.open, record.refused);
    let last = record.acknowledged.values().max().copied().unwrap_or_default();
    for (member, stream) in streams.iter_mut().enumerate() {
        sees(stream, last).await.with_context(|| format!("the watch that member {member} served all the time"))?;
    }
    let after = terms_and_losses(&cluster, files).await?;
    ensure!(after == before, "terms and lost connections were {before:?} and are {after:?}");

    let client = cluster.client(0, ClientOptions::default());
    let found = exactly_once(&client, PREFIX, &record).await?;
    let seen = watch.finish(last).await?;
    ensure!(seen == record.acknowledged, "the watch saw {} keys of {}", seen.len(), found.keys);
    equal_members(&cluster).await?;

    // All connections between members are made anew now, by what the files say.
    for member in 0..MEMBERS {
        cluster.isolate(member)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.heal()?;
    }
    wait_until_serving(&cluster, 0..MEMBERS).await?;
    cluster.client(0, ClientOptions::default()).put("after", "all").await?;
    equal_members(&cluster).await?;
    eprintln!("{} puts acknowledged; longest gap of a client {:?}", record.acknowledged.len(), record.longest_gap);
    Ok(())
}

/// A stream that is never resumed: it ends where its connection does.
async fn watch_one(client: &Client) -> Result<RawWatch> {
    let mut end = PREFIX.as_bytes().to_vec();
    *end.last_mut().context("no prefix")? += 1;
    let create = WatchCreateRequest { key: PREFIX.into(), range_end: end.into(), ..WatchCreateRequest::default() };
    Ok(client.watch_raw(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?)
}

/// Reads until the event of a revision that was acknowledged.
async fn sees(stream: &mut RawWatch, last: i64) -> Result<()> {
    loop {
        let Some(response) = timeout(EVENT_WITHIN, stream.responses.message()).await.context("no event")?? else {
            bail!("the stream ended");
        };
        if response.events.iter().any(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision >= last)) {
            return Ok(());
        }
    }
}

/// The term, and how many connections to peers were lost, of every member.
async fn terms_and_losses(cluster: &ProcessCluster, files: &Files) -> Result<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for member in 0..MEMBERS {
        let mut stream = files.clients().open(address(cluster.client_url(member))?, "http/1.1").await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut page = String::new();
        // Whoever closes without a farewell has said all before.
        stream.read_to_string(&mut page).await.or_else(|error| match page.is_empty() {
            true => Err(error),
            false => Ok(0),
        })?;
        let lost: Vec<&str> =
            page.lines().filter(|line| line.starts_with("etcd_network_disconnected_peers_total{")).collect();
        let lost = lost.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        all.push((cluster.client_of(member).status().await?.raft_term, lost));
    }
    Ok(all)
}

async fn made() -> Result<()> {
    let flags = vec![vec!["--peer-auto-tls".to_owned()]; MEMBERS];
    let security = Security { flags, clients: None };
    let mut cluster = ProcessCluster::start_secured(MEMBERS, MEMBERS, &[], Some(security)).await?;
    let file = |member| cluster.data_dir(member).join("fixtures").join("peer").join("cert.pem");
    let made: Vec<_> = (0..MEMBERS).map(|member| std::fs::read(file(member))).collect::<Result<_, _>>()?;
    ensure!(made[0] != made[1] && made[1] != made[2], "members share a certificate");
    let puts = UniquePuts::spawn(PREFIX, vec![cluster.client(0, ClientOptions::default())], Duration::from_millis(5));
    cluster.kill(1).await?;
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;
    cluster.start(1).await?;
    wait_until_serving(&cluster, 0..MEMBERS).await?;
    let again = std::fs::read(cluster.data_dir(1).join("fixtures").join("peer").join("cert.pem"))?;
    ensure!(again == made[1], "a certificate that is valid was made anew");
    let record = puts.finish().await?;
    exactly_once(&cluster.client(0, ClientOptions::default()), PREFIX, &record).await?;
    equal_members(&cluster).await?;
    Ok(())
}
