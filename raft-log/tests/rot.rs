//! Damage: whatever changes in acknowledged bytes is found and named, and nothing is cut for it.

#![cfg(not(madsim))] // it brings its own runtime
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use bytes::Bytes;
use mainstay_raft_log::disk::sim::SimMedium;
use mainstay_raft_log::{Damage, LogError, OpenError, RaftLog};
use support::{Content, append, block_on, open, record, small};

const SECTOR: u64 = 512;
const HEADER: u64 = 4096;

/// A log of a few segments whose last batches are a vote, a large batch and a small one.
fn acknowledged(close: bool) -> (SimMedium, Content) {
    let medium = SimMedium::new(1);
    let content = block_on(async {
        let running = open(&medium, small()).unwrap();
        for index in 1..=30 {
            append(&running.log, vec![record(index, 1 + index / 10, 900)]).await.unwrap();
        }
        running.log.purge(3, 1).await.unwrap();
        running.log.truncate_after(Some(28)).await.unwrap();
        running.log.save_vote(Bytes::from_static(b"\0\0\0\0\0\0\0\x01")).await.unwrap();
        append(&running.log, (29..34).map(|index| record(index, 9, 400)).collect()).await.unwrap();
        append(&running.log, vec![record(34, 9, 10)]).await.unwrap();
        let content = Content::of(&running.log);
        if close {
            running.log.close().await;
            running.task.await.unwrap();
            medium.kill();
        } else {
            running.kill(&medium).await;
        }
        content
    });
    medium.crash();
    (medium, content)
}

fn try_open(medium: &SimMedium) -> Result<Content, OpenError> {
    block_on(async {
        let running = open(medium, small())?;
        let content = Content::of(&running.log);
        running.kill(medium).await;
        Ok(content)
    })
}

/// The sectors of each segment that hold something of this life of the segment.
fn written_sectors(medium: &SimMedium) -> Vec<(String, u64)> {
    let mut sectors = Vec::new();
    for (name, bytes) in medium.files() {
        let Some(sequence) = name.strip_suffix(".log").map(|digits| digits.parse::<u32>().unwrap()) else {
            continue;
        };
        let content = medium.content(&name).unwrap();
        for sector in HEADER / SECTOR..bytes / SECTOR {
            let begin = (sector * SECTOR) as usize;
            if content[begin + 4..begin + 8] == sequence.to_le_bytes() {
                sectors.push((name.clone(), sector));
            }
        }
    }
    sectors
}

#[test]
fn a_flipped_bit_in_acknowledged_bytes_is_found() {
    let (medium, content) = acknowledged(false);
    assert_eq!(try_open(&medium.fork()).unwrap(), content);
    let sectors = written_sectors(&medium);
    assert!(
        sectors.len() > 60 && sectors.iter().map(|(name, _)| name).collect::<std::collections::BTreeSet<_>>().len() > 2
    );
    for (nth, (name, sector)) in sectors.iter().enumerate() {
        // Each byte of the stamp, and a sample of the rest.
        for bit in (0..24 * 8).step_by(5).chain((24 * 8..SECTOR * 8).skip(nth % 41).step_by(41)) {
            let medium = medium.fork();
            medium.flip_bit(name, sector * SECTOR * 8 + bit);
            match try_open(&medium) {
                Err(OpenError::Damaged(Damage { file, offset, .. })) => {
                    assert_eq!(&file, name);
                    assert!(offset <= sector * SECTOR, "the offset is not after the damage");
                }
                other => panic!("{name} sector {sector} bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_a_header_is_found() {
    let (medium, _) = acknowledged(false);
    for (name, _) in medium.files().into_iter().filter(|(name, _)| name.ends_with(".log")) {
        for bit in 0..SECTOR * 8 {
            let medium = medium.fork();
            medium.flip_bit(&name, bit);
            let error = try_open(&medium).unwrap_err();
            assert!(
                matches!(&error, OpenError::Damaged(damage) if damage.file == name && damage.offset == 0),
                "{error}"
            );
        }
    }
}

/// What was never written may rot: that is either found, or makes no difference.
#[test]
fn rot_elsewhere_loses_nothing() {
    let (medium, content) = acknowledged(false);
    let mut opened = 0;
    for _ in 0..2000 {
        let medium = medium.fork();
        medium.rot(|_| true);
        match try_open(&medium) {
            Ok(found) => {
                assert_eq!(found, content);
                opened += 1;
            }
            Err(OpenError::Damaged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(opened > 0);
}

/// A sector that reads as zeros is found too, but for the very last batch, which looks as if it had
/// never been written; after a clean end it is not the last.
#[test]
fn a_zeroed_sector_is_found() {
    for close in [true, false] {
        let (medium, content) = acknowledged(close);
        let sectors = written_sectors(&medium);
        // The last batch takes one sector: the last record, or the mark of the clean end.
        let last = sectors.len() - 1;
        for (nth, (name, sector)) in sectors.iter().enumerate() {
            let medium = medium.fork();
            medium.overwrite(name, sector * SECTOR, &[0; SECTOR as usize]);
            match try_open(&medium) {
                Err(OpenError::Damaged(_)) => assert!(nth < last),
                Ok(found) => {
                    assert_eq!(nth, last, "{name} sector {sector}");
                    assert_eq!(found == content, close);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_sector_of_an_earlier_moment_is_found() {
    let (medium, _) = acknowledged(true);
    let sectors = written_sectors(&medium);
    for pair in sectors.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let medium = medium.fork();
        let content = medium.content(&pair[0].0).unwrap();
        let begin = (pair[0].1 * SECTOR) as usize;
        medium.overwrite(&pair[1].0, pair[1].1 * SECTOR, &content[begin..begin + SECTOR as usize]);
        assert!(matches!(try_open(&medium), Err(OpenError::Damaged(_))), "a misdirected write");
    }
}

#[test]
fn a_missing_segment_is_found() {
    let (medium, _) = acknowledged(false);
    let segments: Vec<String> =
        medium.files().into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).collect();
    assert!(segments.len() > 3);
    // The last one is made ready and empty; all others hold something.
    let written = &segments[..segments.len() - 1];
    for name in written {
        let medium = medium.fork();
        medium.remove_file(name);
        match try_open(&medium) {
            Err(OpenError::Damaged(damage)) => {
                assert!(damage.what.contains("missing") || damage.file > *name, "{damage}")
            }
            other => panic!("without {name}: {other:?}"),
        }
    }
}

#[test]
fn a_shortened_file_is_found() {
    let (medium, _) = acknowledged(false);
    let content = medium.content("0000000002.log").unwrap();
    let shorter = SimMedium::new(2);
    let disk = shorter.mount();
    for (name, _) in medium.files() {
        let bytes = if name == "0000000002.log" { content[..8192].to_vec() } else { medium.content(&name).unwrap() };
        let file = mainstay_raft_log::Disk::create(&disk, &name).unwrap();
        file.write_at(0, &bytes).unwrap();
    }
    let error = try_open(&shorter).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the raft log is damaged: file 0000000002.log, offset 0: the file has 8192 bytes, its header says 16384"
    );
}

/// What rots while the log is open is found by whoever reads it.
#[test]
fn rot_under_an_open_log_is_found_on_reading() {
    let medium = SimMedium::new(3);
    block_on(async {
        let running = open(&medium, small()).unwrap();
        for index in 1..=20 {
            append(&running.log, vec![record(index, 1, 900)]).await.unwrap();
        }
        medium.flip_bit("0000000001.log", (HEADER + 3 * SECTOR) * 8 + 77);
        let damage = match running.log.read(1, 21, usize::MAX) {
            Err(LogError::Damaged(damage)) => damage,
            other => panic!("{other:?}"),
        };
        assert_eq!((damage.file.as_str(), damage.offset), ("0000000001.log", HEADER + 3 * SECTOR));
        assert_eq!(running.log.read(10, 21, usize::MAX).unwrap().len(), 11);
        running.kill(&medium).await;
    });
}

#[test]
fn another_log_and_a_newer_version_are_refused() {
    let (medium, content) = acknowledged(true);
    let with_identity = |identity| {
        let options = mainstay_raft_log::Options { identity, ..small() };
        block_on(async { RaftLog::open(std::sync::Arc::new(medium.mount()), options).map(|_| ()) })
    };
    let error = with_identity(78).unwrap_err();
    assert_eq!(error, OpenError::WrongIdentity { file: "0000000001.log".to_owned(), found: 77, expected: 78 });
    with_identity(0).unwrap();
    assert_eq!(try_open(&medium).unwrap(), content);

    let mut header = medium.content("0000000001.log").unwrap()[..SECTOR as usize].to_vec();
    header[16] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..20]);
    hasher.update(&header[24..]);
    header[20..24].copy_from_slice(&hasher.finalize().to_le_bytes());
    medium.overwrite("0000000001.log", 0, &header);
    let error = try_open(&medium).unwrap_err();
    assert_eq!(
        error.to_string(),
        "file 0000000001.log of the raft log has format version 2, this program reads up to 1"
    );
}
