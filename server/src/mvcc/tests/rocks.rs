//! The store on the real engine.

use std::path::Path;
use std::{fs, io};

use super::*;
use crate::engine::layout::meta;
use crate::engine::rocks::RocksHome;
use crate::engine::{Batch, Checksum, Family, Staging};

fn open_at(root: &Path) -> Writer {
    Writer::open(RocksHome::new(root).open().unwrap(), CACHE).unwrap()
}

fn fill(writer: &mut Writer) {
    for i in 0..300 {
        put(writer, &format!("key/{:02}", i % 40), &format!("value {i}"));
        if i % 11 == 0 {
            delete(writer, &format!("key/{:02}", i % 37));
        }
        writer.maybe_flush(false).unwrap();
    }
}

/// What two stores must have in common.
fn picture(store: &Store) -> (RangeResult, i64, HashKv, Vec<Arc<RevisionEvents>>) {
    let all = store.range(&KeyRange::all(), &at(0)).unwrap();
    let history = store.events(store.compact_revision().max(1), i64::MAX - 1, usize::MAX).unwrap();
    (all, store.compact_revision(), store.hash_kv(0).unwrap(), history.revisions)
}

/// Copies a folder that is in use. What removes files meanwhile, as RocksDB does in the background, makes it begin anew:
/// no moment had the files that were copied.
fn copy(from: &Path, to: &Path) {
    for _ in 0..100 {
        match try_copy(from, to) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_dir_all(to).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("files of {} go away all the time", from.display());
}

fn try_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { try_copy(&path, &target)? } else { fs::copy(&path, &target).map(drop)? }
    }
    Ok(())
}

#[test]
fn a_kill_loses_what_was_not_flushed_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open_at(&root.path().join("db"));
    fill(&mut writer);
    compact(&mut writer, 100);
    writer.maybe_flush(true).unwrap();
    let flushed = picture(&writer.store());
    fill(&mut writer);
    // What a killed process leaves: the files as they are.
    copy(&root.path().join("db"), &root.path().join("copy"));
    let survivor = open_at(&root.path().join("copy"));
    let revision = survivor.revision();
    assert!(revision >= flushed.0.revision && revision < writer.revision(), "at {revision}");
    if revision == flushed.0.revision {
        assert_eq!(picture(&survivor.store()), flushed);
    }
    let options = at(revision);
    let expected = writer.store().range(&KeyRange::all(), &options).unwrap();
    assert_eq!(survivor.store().range(&KeyRange::all(), &options).unwrap().kvs, expected.kvs);
    assert_eq!(survivor.store().hash_kv(revision).unwrap().hash, writer.store().hash_kv(revision).unwrap().hash);
}

#[test]
fn a_checkpoint_carries_the_store_to_another_member() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = open_at(from.path());
    fill(&mut writer);
    compact(&mut writer, 50);
    let home = RocksHome::new(to.path());
    let mut other = Writer::open(home.open().unwrap(), CACHE).unwrap();
    put(&mut other, "old", "state");
    let reader = other.store();

    let checkpoint = writer.engine().checkpoint().unwrap();
    let mut staging: Box<dyn Staging> = home.stage().unwrap();
    for (file, size) in checkpoint.files() {
        let content = checkpoint.read(&file, 0, size as usize).unwrap();
        staging.write(&file, 0, &content).unwrap();
        staging.finish(&file, Checksum::of(&content)).unwrap();
    }
    assert_eq!(show(&reader.range(&KeyRange::all(), &at(0)).unwrap()), ["old=state@2"]);
    other.release();
    assert!(matches!(reader.range(&KeyRange::all(), &at(0)), Err(ReadError::Engine(_))));
    other.reopen(staging.commit(Batch::default()).unwrap()).unwrap();
    assert_eq!(picture(&reader), picture(&writer.store()));
    put(&mut other, "k", "v");
    assert_eq!(reader.revision(), writer.revision() + 1);
}

#[test]
fn a_flush_in_the_background_tells_how_far_it_got() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open_at(&root.path().join("db"));
    let mut applied = 0u64;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while writer.durable_applied().is_none() {
        assert!(std::time::Instant::now() < deadline, "nothing becomes durable");
        applied += 1;
        writer.batch().put(Family::Meta, meta::APPLIED, applied.to_be_bytes().to_vec());
        put(&mut writer, "k", "a value of some length, so that a flush is due sooner or later");
        writer.maybe_flush(false).unwrap();
    }
    let durable = u64::from_be_bytes(writer.durable_applied().unwrap().as_ref().try_into().unwrap());
    assert!((1..=applied).contains(&durable));
    copy(&root.path().join("db"), &root.path().join("copy"));
    let survivor = open_at(&root.path().join("copy"));
    assert!(survivor.durable_applied().unwrap() >= writer.durable_applied().unwrap());
}
