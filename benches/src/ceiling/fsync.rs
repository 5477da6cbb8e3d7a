//! How many small appends a second the disk makes durable, one after the other.
//!
//! What a log can do at best that waits for each record; one that gathers what waits does more.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::keyspace::value;
use crate::latency::{Recorder, Summary};

/// Bytes of an append.
const APPEND_BYTES: usize = 256;

/// Appends for some time to a file of its own in the folder. Returns the times of the appends, and how long it
/// took in all.
pub async fn run(folder: &Path, time: Duration) -> anyhow::Result<(Summary, Duration)> {
    let folder: PathBuf = folder.to_owned();
    tokio::task::spawn_blocking(move || appends(&folder, time)).await?.context("appending to a file")
}

fn appends(folder: &Path, time: Duration) -> std::io::Result<(Summary, Duration)> {
    let folder = tempfile::Builder::new().prefix("mainstay-bench-").tempdir_in(folder)?;
    let mut file = OpenOptions::new().create_new(true).append(true).open(folder.path().join("log"))?;
    let (bytes, recorder, start) = (value(1, 0, APPEND_BYTES), Recorder::default(), Instant::now());
    while start.elapsed() < time {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        recorder.record(0, began.elapsed());
    }
    Ok((recorder.summary(), start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn appends_are_timed_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (latency, took) = run(folder.path(), Duration::from_millis(50)).await.unwrap();
        assert!(latency.count > 0 && latency.p50_us > 0 && took >= Duration::from_millis(50));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(run(Path::new("/no/such/folder"), Duration::from_millis(1)).await.is_err());
    }
}
