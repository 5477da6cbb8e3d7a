//! Members of this release and of the one before in one cluster: upgraded one by one and taken back, with data of every
//! kind, under load; snapshots and members that join, both ways; and data of a release that is newer still.
//!
//! `MAINSTAY_OLD_BIN` names the binary of the release before (`make test-upgrade` builds it); without it the first three
//! have nothing to do. etcd has neither our releases nor our files, so that it does not pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mainstay_client::proto::authpb::{Permission, permission::Type};
use mainstay_client::{Client, ClientOptions, Error, KeyRange, Put, Range, Reason, Txn, revision};
use mainstay_tests::checker::equal_members;
use mainstay_tests::{Cluster, ProcessCluster, binary, leader, old_binary, wait_until_serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::load::Load;

const MEMBERS: usize = 3;
/// What is written and watched under load.
const PREFIX: &str = "upgrade/";
/// Clients that write keys of their own, and those that share a few.
const WRITERS: usize = 8;
const SHARERS: usize = 3;
/// Puts that must succeed between two steps, so that each of them hits a cluster at work.
const PUTS_BETWEEN: u64 = 100;
/// How long that, and whatever else a cluster does by itself, may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Puts of each writer in one go.
const PUTS_EACH: usize = 50;
/// Bytes of an ordinary value.
const VALUE_BYTES: usize = 1000;
/// Bytes of a value where the store is to be flushed: all of them together take more than the 64 MiB that the release
/// before keeps unflushed (this one keeps 32).
const VALUE_BYTES_LARGE: usize = 200_000;
/// Pause for what members do by themselves: who was away is heard of again, a store is flushed, a log purged.
const SETTLED: Duration = Duration::from_millis(1500);
/// How long a member may take to log what it did.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);
/// How long a member may take to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn members_are_upgraded_one_by_one_and_taken_back() {
    let Some(old) = release_before() else { return };
    let mut cluster = ProcessCluster::start_from(old.clone(), MEMBERS, MEMBERS, &[], None).await.unwrap();
    rolling(&mut cluster, &old).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_over_from_either_release() {
    let Some(old) = release_before() else { return };
    let flags = ["--snapshot-count=50", "--snapshot-catchup-entries=20"];
    let mut cluster = ProcessCluster::start_from(old.clone(), MEMBERS, MEMBERS, &flags, None).await.unwrap();
    snapshots(&mut cluster, &old).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_join_a_cluster_of_the_other_release() {
    let Some(old) = release_before() else { return };
    let mut cluster = ProcessCluster::start_from(old.clone(), 2, 4, &[], None).await.unwrap();
    joining(&mut cluster, &old).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_newer_release_are_refused_and_left_as_they_are() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    newer(&mut cluster).await.unwrap();
}

/// The binary of the release before; says so where there is none.
fn release_before() -> Option<PathBuf> {
    let old = old_binary();
    if old.is_none() {
        eprintln!("skipped: MAINSTAY_OLD_BIN names no binary of the release before (make test-upgrade builds it)");
    }
    old
}

/// All members are replaced by this release, and then by the one before again.
async fn rolling(cluster: &mut ProcessCluster, old: &Path) -> Result<()> {
    let client = cluster.client(0, ClientOptions::default());
    let kept = Kept::write(&client).await?;
    let load = Load::begin(cluster, MEMBERS, PREFIX, (WRITERS, SHARERS)).await?;
    check(cluster, &kept, &load).await.context("the release before")?;
    let new = binary();
    for (to, direction) in [(new.as_path(), "upgraded"), (old, "taken back")] {
        for member in 0..MEMBERS {
            replace(cluster, member, to).await?;
            // That one leads, and then one of the others: as long as there are any, one of the other release.
            for leads in [member, (member + 1) % MEMBERS] {
                let what = format!("member {member} is {direction}, member {leads} leads");
                lead(cluster, leads).await.with_context(|| what.clone())?;
                check(cluster, &kept, &load).await.with_context(|| what.clone())?;
                eprintln!("{:6.1} s  {what}", load.begun.elapsed().as_secs_f64());
            }
        }
    }
    judge(load, cluster, &client).await
}

/// A member of this release gets a snapshot of the one before, and the other way round.
async fn snapshots(cluster: &mut ProcessCluster, old: &Path) -> Result<()> {
    let client = cluster.client(0, ClientOptions::default()).with_timeout(WITHIN);
    let kept = Kept::write(&client).await?;
    let (away, new) = (MEMBERS - 1, binary());
    for (of_away, of_others) in [(new.as_path(), old), (old, new.as_path())] {
        for member in 0..away {
            replace(cluster, member, of_others).await?;
        }
        // Whoever leads lets go of the log when nobody is being sent it, which can be too late.
        let mut attempts = 1;
        while !gets_a_snapshot(cluster, &client, of_away).await? {
            ensure!(attempts < 3, "it caught up by the log, {attempts} times");
            attempts += 1;
        }
        kept.check(cluster).await?;
        equal_members(cluster).await?;
        compared(cluster).await?;
        no_alarm(cluster).await?;
    }
    Ok(())
}

/// Whether the last member gets a snapshot of the others, after it was away while much was written.
async fn gets_a_snapshot(cluster: &mut ProcessCluster, client: &Client, of_away: &Path) -> Result<bool> {
    let away = MEMBERS - 1;
    cluster.kill(away).await?;
    wait_until_serving(cluster, 0..away).await?;
    // The log is purged up to what is in the store's files: what fills one comes first, and then what has it looked at.
    write(client, "missed/", VALUE_BYTES_LARGE).await?;
    sleep(SETTLED).await;
    write(client, "after/", VALUE_BYTES).await?;
    sleep(SETTLED).await;
    let before = applied_snapshots(cluster, away)?;
    cluster.replace_binary(away, of_away);
    cluster.start(away).await?;
    wait_until_serving(cluster, 0..MEMBERS).await?;
    // It may be told of after those are answered who waited for it.
    let begun = Instant::now();
    while applied_snapshots(cluster, away)? == before && begun.elapsed() < LOGGED_WITHIN {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(applied_snapshots(cluster, away)? > before)
}

/// A member of this release joins one cluster of the release before, and one of the release before a cluster that was
/// upgraded meanwhile.
async fn joining(cluster: &mut ProcessCluster, old: &Path) -> Result<()> {
    let kept = Kept::write(&cluster.client(0, ClientOptions::default())).await?;
    let new = binary();
    cluster.replace_binary(2, &new);
    cluster.join(2).await.context("this release joins")?;
    kept.check(cluster).await?;
    for member in 0..2 {
        replace(cluster, member, &new).await?;
    }
    // As long as nothing is written that it could not read.
    cluster.replace_binary(3, old);
    sleep(SETTLED).await;
    cluster.join(3).await.context("the release before joins")?;
    kept.check(cluster).await?;
    equal_members(cluster).await?;
    compared(cluster).await?;
    no_alarm(cluster).await
}

/// A member that finds a format that it does not know says which, and touches nothing; whatever it is started with.
async fn newer(cluster: &mut ProcessCluster) -> Result<()> {
    let client = cluster.client(0, ClientOptions::default());
    client.put("kept", "1").await?;
    let known: u32 = metric(&page(cluster, 0, "/metrics").await?, "mainstay_server_data_format")?.parse()?;
    cluster.stop(0).await?;
    let format = cluster.data_dir(0).join("member").join("db").join("FORMAT");
    let written = fs::read_to_string(&format)?;
    ensure!(written == format!("{known}\n"), "{written:?} where the members agreed on {known}");
    fs::write(&format, "4000000000\n")?;
    let before = contents(&cluster.data_dir(0))?;
    cluster.start(0).await?;
    let status = cluster.wait_until_ended(0, ENDS_WITHIN).await?;
    ensure!(!status.success(), "{status}");
    let log = cluster.log(0)?;
    let folder = cluster.data_dir(0);
    let place = folder.display().to_string();
    for words in ["format 4000000000", "at most", "fatal", place.as_str()] {
        let said = log.lines().any(|line| line.contains("run the newer release") && line.contains(words));
        ensure!(said, "no {words:?} in {log}");
    }
    ensure!(contents(&folder)? == before, "it changed what it could not read");
    // A cluster of its own would be made of the same data.
    let forced = cluster.force_new_cluster(0);
    ensure!(tokio::time::timeout(Duration::from_secs(5), forced).await.is_err(), "it serves");
    let status = cluster.wait_until_ended(0, ENDS_WITHIN).await?;
    ensure!(!status.success() && contents(&folder)? == before, "{status} with --force-new-cluster");
    fs::write(&format, written)?;
    cluster.start(0).await?;
    wait_until_serving(cluster, [0]).await?;
    ensure!(client.get("kept").await?.is_some_and(|kv| kv.value == "1"), "what was written is gone");
    Ok(())
}

/// Every file below a folder, with its content.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        } else {
            let content = fs::read(&path)?;
            found.insert(path, content);
        }
    }
    Ok(found)
}

/// Ends a member in order, and starts it from another binary.
async fn replace(cluster: &mut ProcessCluster, member: usize, binary: &Path) -> Result<()> {
    cluster.stop(member).await?;
    cluster.replace_binary(member, binary);
    cluster.start(member).await?;
    wait_until_serving(cluster, [member]).await?;
    Ok(())
}

/// Writes more than is kept in the log for who is behind.
async fn write(client: &Client, prefix: &'static str, value_bytes: usize) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            for number in 0..PUTS_EACH {
                client.put(format!("{prefix}{writer}/{number}"), vec![b'v'; value_bytes]).await?;
            }
            anyhow::Ok(())
        });
    }
    for written in writers.join_all().await {
        written?;
    }
    Ok(())
}

/// How often a member has taken over a state, in all its lives.
fn applied_snapshots(cluster: &ProcessCluster, member: usize) -> Result<usize> {
    Ok(cluster.log(member)?.matches("applied snapshot").count())
}

/// Has a member lead.
async fn lead(cluster: &ProcessCluster, to: usize) -> Result<()> {
    let target = cluster.id_of(to).await?;
    let begun = Instant::now();
    loop {
        let from = leader(cluster).await?;
        if from == to {
            return Ok(());
        }
        ensure!(begun.elapsed() < WITHIN, "member {to} does not lead");
        // Whoever led a moment ago may not any more, or take longer than it waits: it is looked at again.
        if let Err(error) = cluster.client_of(from).move_leader(target).await {
            eprintln!("member {from} does not hand over to member {to}: {error}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What must be so at every moment, whoever is of which release.
async fn check(cluster: &ProcessCluster, kept: &Kept, load: &Load) -> Result<()> {
    load.puts.wait_for_more(PUTS_BETWEEN, WITHIN).await?;
    kept.check(cluster).await?;
    lease_ends(cluster).await?;
    equal_members(cluster).await?;
    compared(cluster).await?;
    no_alarm(cluster).await
}

/// A lease ends by itself, and takes its key along.
async fn lease_ends(cluster: &ProcessCluster) -> Result<()> {
    let client = cluster.client(0, ClientOptions::default());
    let lease = client.lease_grant(2).await?.id;
    client.put_with(Put::new("short", "life").lease(lease)).await?;
    let begun = Instant::now();
    while client.get("short").await?.is_some() {
        ensure!(begun.elapsed() < WITHIN, "a lease of two seconds does not end");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits until the leader has compared the members' data once more.
async fn compared(cluster: &ProcessCluster) -> Result<()> {
    let leads = leader(cluster).await?;
    let comparisons = async || -> Result<f64> {
        Ok(metric(&page(cluster, leads, "/metrics").await?, "mainstay_server_consistency_checks_total")?.parse()?)
    };
    let (before, begun) = (comparisons().await?, Instant::now());
    while comparisons().await? < before + 1.0 {
        ensure!(begun.elapsed() < WITHIN, "member {leads} does not compare the members, though it leads");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// No member is named in an alarm, as far as any of them knows.
async fn no_alarm(cluster: &ProcessCluster) -> Result<()> {
    for member in cluster.present() {
        let alarms = cluster.client_of(member).alarms().await?;
        ensure!(alarms.is_empty(), "member {member} knows of {alarms:?}");
    }
    Ok(())
}

/// A page that a member shows beside its API.
async fn page(cluster: &ProcessCluster, member: usize, path: &str) -> Result<String> {
    let address = cluster.client_url(member).trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// The value of a metric without labels.
fn metric<'a>(page: &'a str, name: &str) -> Result<&'a str> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no metric {name}"))
}

/// Data of every kind, written once.
struct Kept {
    /// The revision at which "versions" had its second value.
    second: i64,
    /// Up to where history was compacted.
    compacted: i64,
    lease: i64,
}

impl Kept {
    async fn write(client: &Client) -> Result<Self> {
        client.put("kept/before", "1").await?;
        let compacted = revision(&client.put("kept/before", "2").await?.header);
        client.put("kept/versions", "1").await?;
        client.compact(compacted).await?;
        let second = revision(&client.put("kept/versions", "2").await?.header);
        client.put("kept/versions", "3").await?;
        client.put("kept/deleted", "").await?;
        client.delete("kept/deleted").await?;
        let both = Txn::new().then(Put::new("kept/txn/1", "a")).then(Put::new("kept/txn/2", "b"));
        client.txn(both).await?;
        let lease = client.lease_grant(3600).await?.id;
        client.put_with(Put::new("kept/leased", "").lease(lease)).await?;
        client.role_add("readers").await?;
        let range = KeyRange::prefix("kept/");
        let (key, range_end) = (range.key().clone(), range.range_end().clone());
        client.role_grant("readers", Permission { perm_type: Type::Read.into(), key, range_end }).await?;
        client.user_add("alice", "secret").await?;
        client.user_grant_role("alice", "readers").await?;
        Ok(Self { second, compacted, lease })
    }

    /// Every member still has all of it.
    async fn check(&self, cluster: &ProcessCluster) -> Result<()> {
        for member in cluster.present() {
            let client = cluster.client_of(member);
            self.check_at(&client).await.with_context(|| format!("member {member}"))?;
        }
        Ok(())
    }

    async fn check_at(&self, client: &Client) -> Result<()> {
        let keys = client.range(Range::prefix("kept/")).await?.kvs;
        let shown: Vec<(&[u8], &[u8], i64)> = keys.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.version)).collect();
        let expected: [(&[u8], &[u8], i64); 5] = [
            (b"kept/before", b"2", 2),
            (b"kept/leased", b"", 1),
            (b"kept/txn/1", b"a", 1),
            (b"kept/txn/2", b"b", 1),
            (b"kept/versions", b"3", 3),
        ];
        ensure!(shown == expected, "{keys:?}");
        let then = client.range(Range::key("kept/versions").at_revision(self.second)).await?.kvs;
        ensure!(then.len() == 1 && then[0].value == "2", "{then:?} at revision {}", self.second);
        let gone = client.range(Range::key("kept/before").at_revision(self.compacted - 1)).await;
        ensure!(gone.as_ref().err().and_then(Error::reason) == Some(Reason::Compacted), "{gone:?}");
        let lease = client.lease_keys(self.lease).await?;
        ensure!(lease.granted_ttl == 3600 && lease.ttl > 3000 && lease.keys == ["kept/leased"], "{lease:?}");
        ensure!(client.users().await? == ["alice"] && client.user_roles("alice").await? == ["readers"], "users");
        let permissions = client.role_permissions("readers").await?;
        ensure!(permissions.len() == 1 && permissions[0].key == "kept/", "{permissions:?}");
        Ok(())
    }
}

/// Holds what became of the load against what clients were promised, and tells it.
async fn judge(load: Load, cluster: &ProcessCluster, client: &Client) -> Result<()> {
    let judged = load.judge(cluster, client).await?;
    no_alarm(cluster).await?;
    eprintln!(
        "{:.0?}; {} puts acknowledged, {} open, {} refused; {} calls on shared keys, {} errors; longest write stall {:.0?}",
        judged.lasted,
        judged.record.acknowledged.len(),
        judged.record.open.len(),
        judged.record.refused.len(),
        judged.calls,
        judged.all_errors().count(),
        judged.record.longest_gap,
    );
    Ok(())
}
