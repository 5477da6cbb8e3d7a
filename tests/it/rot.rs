//! A byte that changes by itself, in a log, in a store, in a snapshot and in entries on their way: it is found and
//! told, and nothing of it is served.
//!
//! etcd stores and words everything else, so that it does not pass.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mainstay_client::{Client, ClientOptions, Error, Put, Range, Update, Watch};
use mainstay_tests::checker::equal_members;
use mainstay_tests::dice::Dice;
use mainstay_tests::{Cluster, ProcessCluster, leader, wait_until_serving};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a member may take to end by itself, at its start or later.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// How many write side by side.
const WRITERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_of_the_log_changes() {
    let mut cluster = ProcessCluster::start_all(3).await.unwrap();
    log_rots(&mut cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_of_the_store_changes() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    store_rots(&mut cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_of_a_snapshot_changes_on_its_way() {
    let flags = ["--snapshot-count=50", "--snapshot-catchup-entries=20"];
    let mut cluster = ProcessCluster::start_all_with(3, &flags).await.unwrap();
    snapshot_is_spoiled(&mut cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_of_entries_changes_on_their_way() {
    let cluster = ProcessCluster::start_all(3).await.unwrap();
    entries_are_spoiled(&cluster).await.unwrap();
}

/// Entries of the log, each larger than a sector.
const ENTRIES: usize = 200;
const ENTRY_BYTES: usize = 1000;
/// The log is written in these; see the page on its format.
const SECTOR: usize = 512;
/// Bytes before the first sector of a segment.
const HEADER: usize = 4096;
/// Where in a sector its content begins.
const CONTENT: usize = 24;

/// The member does not start, and says where it is damaged; the others go on. It has cut nothing off: where the byte is
/// put back, it starts with all that it had.
async fn log_rots(cluster: &mut ProcessCluster) -> Result<()> {
    write(&cluster.client(0, ClientOptions::default()), "log/", ENTRIES, ENTRY_BYTES).await?;
    let victim = (leader(cluster).await? + 1) % 3;
    let others = [(victim + 1) % 3, (victim + 2) % 3];
    // It has what was written.
    wait_until_serving(cluster, [victim]).await?;
    cluster.kill(victim).await?;

    // Nothing of this is in the store yet, which is flushed for the first time when there is far more.
    let spot = middle_of_the_log(&cluster.data_dir(victim).join("member").join("wal"))?;
    spot.flip()?;
    cluster.start(victim).await?;
    let status = cluster.wait_until_ended(victim, ENDS_WITHIN).await?;
    ensure!(!status.success(), "{status} with {spot:?}");
    let log = cluster.log(victim)?;
    let line = line_with(&log, "the raft log is damaged: file ")?;
    ensure!(line.contains("\"fatal\""), "{line}");
    let (file, offset) = told_spot(line)?;
    ensure!(spot.file.ends_with(&file), "{spot:?}, but {line}");
    // What is told is the begin of what was written at once.
    ensure!((HEADER as u64..=spot.offset).contains(&offset), "{spot:?}, but {line}");
    eprintln!("{spot:?} is told as {file}, offset {offset}");

    wait_until_serving(cluster, others).await?;
    cluster.client_of(others[0]).put("after", "rot").await?;

    spot.flip()?;
    cluster.start(victim).await?;
    wait_until_serving(cluster, 0..3).await?;
    equal_members(cluster).await?;
    Ok(())
}

/// A byte in the content of a sector, with as many sectors written before as after.
fn middle_of_the_log(folder: &Path) -> Result<Spot> {
    let mut written = Vec::new();
    for file in files_of(folder, "log")? {
        let name = file.file_stem().and_then(|name| name.to_str()).context("a segment without a name")?;
        let sequence: u32 = name.parse()?;
        let content = fs::read(&file)?;
        for (sector, bytes) in content.chunks_exact(SECTOR).enumerate().skip(HEADER / SECTOR) {
            // Each that was written has the segment's number in it.
            if bytes[4..8] == sequence.to_le_bytes() {
                written.push((file.clone(), sector));
            }
        }
    }
    ensure!(written.len() > ENTRIES, "{} sectors are written", written.len());
    let (file, sector) = written.swap_remove(written.len() / 2);
    Ok(Spot { file, offset: (sector * SECTOR + CONTENT + 100) as u64 })
}

/// File and offset in "... damaged: file FILE, offset OFFSET: ...".
fn told_spot(line: &str) -> Result<(String, u64)> {
    let (_, told) = line.split_once("damaged: file ").context("no file is told")?;
    let (file, rest) = told.split_once(", offset ").context("no offset is told")?;
    let (offset, _) = rest.split_once(':').context("nothing is told of what is wrong")?;
    Ok((file.to_owned(), offset.parse()?))
}

/// Keys of the store; each value is larger than a block, so that a block holds one.
const STORED: usize = 300;
const STORED_BYTES: usize = 8 * 1024;
/// The one that is damaged.
const DAMAGED: usize = STORED / 2;
/// Values that may be in one block with it.
const NEIGHBOURS: usize = 3;
/// How long a watch is listened to that brings nothing more.
const SILENT: Duration = Duration::from_secs(2);

/// Who reads the damaged record is told so, in whatever way it is read; all others are read as they are. When a command
/// needs it the member ends, and at each start again, until the byte is put back.
async fn store_rots(cluster: &mut ProcessCluster) -> Result<()> {
    let client = cluster.client(0, ClientOptions::default());
    write(&client, "store/", STORED, STORED_BYTES).await?;
    // An end in order writes all to the store's files.
    cluster.stop(0).await?;
    let value = noise(DAMAGED, STORED_BYTES);
    let spot = only_place_of(&cluster.data_dir(0).join("member").join("db"), &value[STORED_BYTES / 2..][..64])?;
    spot.flip()?;
    cluster.start(0).await?;
    wait_until_serving(cluster, [0]).await?;

    let mut failed = Vec::new();
    for number in 0..STORED {
        for range in [Range::key(key("store/", number)), Range::key(key("store/", number)).serializable()] {
            match client.range(range).await {
                Ok(answer) => {
                    ensure!(answer.kvs.len() == 1, "key {number} is gone");
                    ensure!(answer.kvs[0].value == noise(number, STORED_BYTES), "key {number} has another value");
                }
                Err(error) => {
                    names_damage(&error, &spot)?;
                    failed.push(number);
                }
            }
        }
    }
    failed.dedup();
    ensure!(failed.contains(&DAMAGED) && failed.len() <= 1 + NEIGHBOURS, "{failed:?} cannot be read");
    let log = cluster.log(0)?;
    let line = line_with(&log, "the store is damaged")?;
    ensure!(line.contains(spot.name()), "{spot:?}, but {line}");

    let all = Range::prefix("store/");
    names_damage(&client.range(all.clone()).await.err().context("a list is served")?, &spot)?;
    let streamed = client.range_stream_collected(all).await;
    names_damage(&streamed.err().context("a list in chunks is served")?, &spot)?;
    names_damage(&client.hash_kv(0).await.err().context("there is a hash of it")?, &spot)?;
    ensure!(backup_fails(&client).await, "it is in a backup");
    watch_tells_no_lie(&client, &failed).await?;

    // The record before is read when the command is carried out.
    let put = client.put_with(Put::new(key("store/", DAMAGED), "anew").prev_kv()).await;
    ensure!(put.is_err(), "the record before is told: {put:?}");
    let status = cluster.wait_until_ended(0, ENDS_WITHIN).await?;
    ensure!(!status.success(), "it ended with {status}");
    let log = cluster.log(0)?;
    let line = line_with(&log, "\"fatal\"")?;
    ensure!(line.contains("Corruption") && line.contains(spot.name()), "{spot:?}, but {line}");
    // The command is in its log.
    cluster.start(0).await?;
    let status = cluster.wait_until_ended(0, ENDS_WITHIN).await?;
    ensure!(!status.success(), "started again it ended with {status}");

    spot.flip()?;
    cluster.start(0).await?;
    wait_until_serving(cluster, [0]).await?;
    for number in 0..STORED {
        let expected = if number == DAMAGED { b"anew".to_vec() } else { noise(number, STORED_BYTES) };
        let kv = client.get(key("store/", number)).await?.with_context(|| format!("key {number} is gone"))?;
        ensure!(kv.value == expected, "key {number} has another value");
    }
    Ok(())
}

/// The place of these bytes in the store's files, where they stand once.
fn only_place_of(store: &Path, bytes: &[u8]) -> Result<Spot> {
    let mut found = Vec::new();
    for generation in fs::read_dir(store)? {
        let generation = generation?.path();
        if !generation.is_dir() {
            continue;
        }
        for file in files_of(&generation, "sst")? {
            let content = fs::read(&file)?;
            let places = content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
            found.extend(places.map(|(offset, _)| Spot { file: file.clone(), offset: offset as u64 }));
        }
    }
    ensure!(found.len() == 1, "the value stands at {found:?}");
    found.pop().context("the value is in no file")
}

/// The error is of the engine, which found the checksum of a block to be wrong, and names the file.
fn names_damage(error: &Error, spot: &Spot) -> Result<()> {
    let told = error.to_string();
    ensure!(told.contains("Corruption") && told.contains(spot.name()), "{spot:?}, but {told}");
    Ok(())
}

/// Whether a database file is not made to its end.
async fn backup_fails(client: &Client) -> bool {
    let Ok(mut stream) = client.snapshot().await else { return true };
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// What a watch of all that was written brings is what was written, without what cannot be read.
async fn watch_tells_no_lie(client: &Client, unreadable: &[usize]) -> Result<()> {
    let mut watcher = client.watch(Watch::prefix("store/").start_revision(1)).await?;
    while let Ok(update) = timeout(SILENT, watcher.next()).await {
        let Update::Events { events, .. } = update? else { continue };
        for event in events {
            let kv = event.kv.context("an event without a key")?;
            let number = (0..STORED).find(|number| kv.key == key("store/", *number));
            let number = number.with_context(|| format!("an event of {:?}", kv.key))?;
            ensure!(!unreadable.contains(&number), "an event of what cannot be read: {number}");
            ensure!(kv.value == noise(number, STORED_BYTES), "an event with another value: {number}");
        }
    }
    Ok(())
}

/// Values that a member misses, far more than all else that its peers tell it in one connection.
const MISSED: usize = 200;
const MISSED_BYTES: usize = 64 * 1024;
/// Small ones before and after; more than stay in the log.
const SMALL: usize = 200;
/// What a connection has carried before a byte of it changes. Only that of a snapshot carries so much.
const CARRIED: u64 = 1024 * 1024;

/// The member refuses the snapshot, says so, and gets another one; in the end it has what the others have.
async fn snapshot_is_spoiled(cluster: &mut ProcessCluster) -> Result<()> {
    let away = (leader(cluster).await? + 1) % 3;
    let others = [(away + 1) % 3, (away + 2) % 3];
    cluster.kill(away).await?;
    let client = cluster.client(others[0], ClientOptions::default());
    write(&client, "missed/", MISSED, MISSED_BYTES).await?;
    // What stays in the log behind the snapshot is small, so that nothing else is sent that is large.
    write(&client, "before/", SMALL, 10).await?;
    // The log is purged up to what is in the store's files, to which an end in order brings everything.
    for member in others {
        cluster.stop(member).await?;
        cluster.start(member).await?;
        wait_until_serving(cluster, others).await?;
    }
    write(&client, "after/", SMALL, 10).await?;

    cluster.spoil(away, CARRIED);
    cluster.start(away).await?;
    wait_until_serving(cluster, [away]).await?;
    ensure!(cluster.spoiled(away) == 1, "it got no snapshot: nothing was changed on its way");
    let log = cluster.log(away)?;
    let refused = log.find("a snapshot was not received whole").context("what it got was not refused")?;
    let applied = log.find("applied snapshot").context("it got no other one")?;
    ensure!(refused < applied, "it took one before it refused one");
    // A byte that frames the content breaks the connection, which is as good, and seldom.
    eprintln!("{}", line_with(&log, "a snapshot was not received whole")?);
    equal_members(cluster).await?;
    Ok(())
}

/// The member refuses the entries, says so, and is sent them again; in the end it has what the others have.
async fn entries_are_spoiled(cluster: &ProcessCluster) -> Result<()> {
    let follower = (leader(cluster).await? + 1) % 3;
    let client = cluster.client(0, ClientOptions::default());
    cluster.spoil(follower, CARRIED);
    write(&client, "sent/", MISSED, MISSED_BYTES).await?;
    wait_until_serving(cluster, [follower]).await?;
    ensure!(cluster.spoiled(follower) == 1, "nothing was changed on its way");
    let log = cluster.log(follower)?;
    let line = line_with(&log, "refused entries from a peer")?;
    ensure!(line.contains("checksum") && line.contains("remote-peer-id"), "{line}");
    equal_members(cluster).await?;
    Ok(())
}

/// A byte of a file.
#[derive(Debug)]
struct Spot {
    file: PathBuf,
    offset: u64,
}

impl Spot {
    /// Flips one of its bits. Twice is as before.
    fn flip(&self) -> Result<()> {
        let file = File::options().read(true).write(true).open(&self.file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset)?;
        byte[0] ^= 1;
        file.write_all_at(&byte, self.offset)?;
        Ok(())
    }

    /// The file's name without its folder.
    fn name(&self) -> &str {
        self.file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// The files of a folder with this extension, in the order of their names.
fn files_of(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|actual| actual == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The first line of a log that contains this.
fn line_with<'a>(log: &'a str, text: &str) -> Result<&'a str> {
    log.lines().find(|line| line.contains(text)).with_context(|| format!("no {text:?} in\n{log}"))
}

fn key(prefix: &str, number: usize) -> String {
    format!("{prefix}{number:06}")
}

/// A value that no other number has, and that cannot be compressed.
fn noise(number: usize, bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(number as u64);
    let mut value: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| dice.number().to_le_bytes()).collect();
    value.truncate(bytes);
    value
}

/// Writes so many keys below a prefix, some at once, each with the noise of its number; again where a member could not
/// say whether it was written.
pub(crate) async fn write(client: &Client, prefix: &str, count: usize, bytes: usize) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, prefix) = (client.clone(), prefix.to_owned());
        writers.spawn(async move {
            for number in (writer..count).step_by(WRITERS) {
                write_one(&client, key(&prefix, number), noise(number, bytes)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}

/// An election may come in between, or an endpoint be gone.
async fn write_one(client: &Client, key: String, value: Vec<u8>) -> Result<()> {
    let mut last = None;
    for _ in 0..5 {
        match client.put(key.clone(), value.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    bail!("{key} cannot be written: {last:?}")
}
