//! The bytes of the format: what is written today is what was written when the version was made, and
//! what was written then can be read today.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::fmt::Write as _;

use bytes::Bytes;
use mainstay_raft_log::disk::sim::SimMedium;
use mainstay_raft_log::{Disk, OpenError, Record, check_version};
use support::{append, block_on, open, small};

/// The files of a log with every kind of frame in it, without their lines of zeros.
const GOLDEN: &str = include_str!("golden/format-1.txt");

async fn write_all_kinds(medium: &SimMedium) {
    let running = open(medium, small()).unwrap();
    let log = &running.log;
    let record = |index, term, payload: &'static [u8]| Record { index, term, payload: Bytes::from_static(payload) };
    append(log, vec![record(7, 1, b"first"), record(8, 1, b"")]).await.unwrap();
    log.truncate_after(None).await.unwrap();
    log.save_vote(Bytes::from_static(b"a vote")).await.unwrap();
    log.save_committed(Bytes::from_static(b"a committed position")).await.unwrap();
    append(log, vec![record(1, 2, b"one"), record(2, 3, &[0xab; 700]), record(3, 3, b"three")]).await.unwrap();
    log.purge(1, 2).await.unwrap();
    log.truncate_after(Some(2)).await.unwrap();
    // So large that it opens the next segment.
    append(log, vec![record(3, 4, b"three again"), record(4, 4, &[0xcd; 8000])]).await.unwrap();
    append(log, vec![record(5, 4, &[0xef; 3000])]).await.unwrap();
    log.close().await;
    running.task.await.unwrap();
}

fn dump(medium: &SimMedium) -> String {
    let mut text = String::new();
    for (name, bytes) in medium.files() {
        writeln!(text, "{name} {bytes} bytes").unwrap();
        for (nth, line) in medium.content(&name).unwrap().chunks(32).enumerate() {
            if line.iter().any(|byte| *byte != 0) {
                let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(text, "{:08x} {hex}", nth * 32).unwrap();
            }
        }
    }
    text
}

fn restore(text: &str) -> SimMedium {
    let medium = SimMedium::new(0);
    let disk = medium.mount();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        if let Some((name, bytes)) = line.strip_suffix(" bytes").and_then(|head| head.split_once(' ')) {
            files.push((name.to_owned(), vec![0; bytes.parse().unwrap()]));
            continue;
        }
        let (offset, hex) = line.split_once(' ').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for nth in 0..hex.len() / 2 {
            files.last_mut().unwrap().1[offset + nth] = u8::from_str_radix(&hex[nth * 2..nth * 2 + 2], 16).unwrap();
        }
    }
    for (name, content) in files {
        let file = disk.create(&name).unwrap();
        file.write_at(0, &content).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir().unwrap();
    medium
}

#[test]
fn the_bytes_are_as_ever() {
    let medium = SimMedium::new(0);
    block_on(write_all_kinds(&medium));
    let written = dump(&medium);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-1.txt"), &written).unwrap();
        return;
    }
    assert!(written == GOLDEN, "the format changed; it needs a new version, or is a mistake:\n{written}");
}

#[test]
fn a_log_of_this_version_can_be_read() {
    let medium = restore(GOLDEN);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        let log = &running.log;
        assert_eq!((log.purged(), log.first_index(), log.last()), (Some((1, 2)), Some(2), Some((5, 4))));
        assert_eq!(log.vote().unwrap(), "a vote");
        assert_eq!(log.committed().unwrap(), "a committed position");
        let payload = |index| log.read(index, index + 1, usize::MAX).unwrap().remove(0).payload;
        assert_eq!([2, 3, 4].map(|index| log.term_of(index).unwrap()), [Some(3), Some(4), Some(4)]);
        assert_eq!(payload(2), [0xab; 700].as_slice());
        assert_eq!(payload(3), "three again");
        assert_eq!(payload(4), [0xcd; 8000].as_slice());
        assert_eq!(payload(5), [0xef; 3000].as_slice());
        running.kill(&medium).await;
    });
}

/// Its header says so in the place that it has in every version.
#[test]
fn a_log_of_a_newer_version_is_refused_by_name_and_left_as_it_is() {
    let medium = restore(GOLDEN);
    check_version(&medium.mount()).unwrap();
    let newest = medium.files().into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).max().unwrap();
    let mut header = medium.content(&newest).unwrap()[..512].to_vec();
    header[16..20].copy_from_slice(&2u32.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..20]);
    hasher.update(&header[24..]);
    header[20..24].copy_from_slice(&hasher.finalize().to_le_bytes());
    medium.overwrite(&newest, 0, &header);
    let disk = medium.mount();
    // What an open would remove.
    disk.create("unfinished").unwrap().sync().unwrap();
    let before = dump(&medium);
    let refused = check_version(&disk).unwrap_err();
    assert_eq!(refused, OpenError::NewerVersion { file: newest.clone(), found: 2, supported: 1 });
    let text = refused.to_string();
    assert!(text.contains(&newest) && text.contains("version 2") && text.contains("up to 1"), "{text}");
    assert_eq!(dump(&medium), before);
    block_on(async { assert_eq!(open(&medium, small()).err(), Some(refused)) });
}
