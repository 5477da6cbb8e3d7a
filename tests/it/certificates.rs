//! Certificates are replaced while members and clients work, and then the CA that signed them.
//!
//! etcd takes a new certificate and never a new CA, so that it does not pass.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mainstay_client::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use mainstay_client::{Client, ClientOptions, RawWatch};
use mainstay_tests::checker::{WatchOrder, equal_members, exactly_once};
use mainstay_tests::secured::{Authority, Identity, TlsSockets, replace};
use mainstay_tests::workload::UniquePuts;
use mainstay_tests::{Cluster, ProcessCluster, Security, wait_until_serving};
use tempfile::TempDir;
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
    let files = Files::new().unwrap();
    rotate(&files).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_make_their_own_certificates() {
    made().await.unwrap();
}

/// All files that the members and their clients name.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("mainstay-certificates-").tempdir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::in_folder(self.folder.path(), name)
    }

    /// The names of all certificates in use.
    fn names() -> impl Iterator<Item = String> {
        let members = (0..MEMBERS).flat_map(|member| [format!("server{member}"), format!("peer{member}")]);
        members.chain(["client".to_owned(), "visitor".to_owned()])
    }

    /// Signs every certificate anew; those of one round have its number.
    fn sign_all(&self, authority: &Authority, round: u64) -> Result<()> {
        for name in Self::names() {
            // Peers are let in by this name alone.
            let is_peer = name.starts_with("peer") || name == "visitor";
            let common_name = if is_peer { "member" } else { "other" };
            authority.sign(&self.identity(&name), common_name, round)?;
        }
        Ok(())
    }

    fn trust(&self, authorities: &[&Authority]) -> Result<()> {
        replace(&self.path("ca.crt"), authorities.iter().map(|authority| authority.pem()).collect::<String>())
    }

    fn clients(&self) -> TlsSockets {
        TlsSockets { authorities: self.path("ca.crt"), identity: self.identity("client") }
    }

    fn flags(&self, member: usize) -> Vec<String> {
        let flag = |name: &str, file: PathBuf| format!("--{name}={}", file.display());
        let (server, peer) = (self.identity(&format!("server{member}")), self.identity(&format!("peer{member}")));
        vec![
            flag("cert-file", server.certificate),
            flag("key-file", server.key),
            flag("trusted-ca-file", self.path("ca.crt")),
            flag("client-crl-file", self.path("revoked.crl")),
            "--client-cert-auth".to_owned(),
            flag("peer-cert-file", peer.certificate),
            flag("peer-key-file", peer.key),
            flag("peer-trusted-ca-file", self.path("ca.crt")),
            flag("peer-crl-file", self.path("revoked.crl")),
            "--peer-client-cert-auth".to_owned(),
            "--peer-cert-allowed-cn=member".to_owned(),
        ]
    }
}

async fn rotate(files: &Files) -> Result<()> {
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    files.trust(&[&old])?;
    files.sign_all(&old, 1)?;
    old.revoke(&files.path("revoked.crl"), &[])?;
    let security =
        Security { flags: (0..MEMBERS).map(|member| files.flags(member)).collect(), clients: Some(files.clients()) };
    // A machine that is busy must not pass for a lost leader.
    let patient = ["--election-timeout=3000"];
    let mut cluster = ProcessCluster::start_secured(MEMBERS, MEMBERS, &patient, Some(security)).await?;
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
    serves_by(&cluster, files, 2).await?;
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;

    // The authority: both are trusted, then all certificates are of the new one, then it is trusted alone.
    files.trust(&[&old, &new])?;
    serves_by(&cluster, files, 2).await?;
    files.sign_all(&new, 3)?;
    serves_by(&cluster, files, 3).await?;
    puts.wait_for_more(PUTS_BETWEEN, PUTS_WITHIN).await?;
    files.trust(&[&new])?;
    serves_by(&cluster, files, 3).await?;
    let left = files.identity("left");
    old.sign(&left, "member", 9)?;
    refused(&cluster, files, &left).await.context("a certificate of the old authority")?;

    // One that is taken back.
    let gone = files.identity("gone");
    new.sign(&gone, "member", 10)?;
    accepted(&cluster, files, &gone).await?;
    new.revoke(&files.path("revoked.crl"), &[10])?;
    refused(&cluster, files, &gone).await.context("a certificate that was revoked")?;

    // A broken file changes nothing.
    replace(&files.identity("peer0").certificate, "no certificate")?;
    replace(&files.identity("server0").key, "")?;
    serves_by(&cluster, files, 3).await?;
    for name in ["server0", "peer0"] {
        let told =
            cluster.log(0)?.lines().filter(|line| line.contains("cannot be used") && line.contains(name)).count();
        ensure!(told == 1, "{name} was said to be broken {told} times");
    }
    files.sign_all(&new, 4)?;
    serves_by(&cluster, files, 4).await?;
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

/// Both ports of every member show a certificate of this round to whoever comes now, and let them in.
async fn serves_by(cluster: &ProcessCluster, files: &Files, round: u8) -> Result<()> {
    for member in 0..MEMBERS {
        let client = files.clients();
        let peer = TlsSockets { identity: files.identity("visitor"), ..client.clone() };
        for (url, from) in [(cluster.client_url(member), &client), (cluster.listen_peer_url(member), &peer)] {
            let stream = from.open(address(url)?, "h2").await.with_context(|| format!("{url} in round {round}"))?;
            let shown = stream.get_ref().1.peer_certificates().context("no certificate")?;
            ensure!(serial(&shown[0]) == Some(round), "{url} does not show a certificate of round {round}");
        }
        let fresh = Client::with_connector(&client, [cluster.client_url(member)], ClientOptions::default())?;
        fresh.put("round", round.to_string()).await.with_context(|| format!("member {member} in round {round}"))?;
    }
    Ok(())
}

/// The serial number of a certificate, where it is a small one: the first number in it, after the version.
fn serial(der: &[u8]) -> Option<u8> {
    let version = [0xa0, 3, 2, 1, 2, 2, 1];
    let at = der.windows(version.len()).position(|window| window == version)?;
    der.get(at + version.len()).copied()
}

async fn accepted(cluster: &ProcessCluster, files: &Files, identity: &Identity) -> Result<()> {
    let from = TlsSockets { identity: identity.clone(), ..files.clients() };
    for member in 0..MEMBERS {
        Client::with_connector(&from, [cluster.client_url(member)], ClientOptions::default())?.status().await?;
        greet(&from, cluster.listen_peer_url(member)).await?;
    }
    Ok(())
}

async fn refused(cluster: &ProcessCluster, files: &Files, identity: &Identity) -> Result<()> {
    let from = TlsSockets { identity: identity.clone(), ..files.clients() };
    for member in 0..MEMBERS {
        let client = Client::with_connector(&from, [cluster.client_url(member)], ClientOptions::default())?;
        ensure!(client.with_timeout(Duration::from_secs(2)).status().await.is_err(), "member {member} serves it");
        ensure!(greet(&from, cluster.listen_peer_url(member)).await.is_err(), "member {member} takes it for a peer");
    }
    Ok(())
}

/// Connects, and waits for the first frame of HTTP/2: only who is let in gets one.
async fn greet(from: &TlsSockets, url: &str) -> Result<()> {
    let mut stream = from.open(address(url)?, "h2").await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut head = [0; 9];
    timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await??;
    Ok(())
}

fn address(url: &str) -> Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("no URL")?;
    Ok(address.parse()?)
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
