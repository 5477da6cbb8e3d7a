//! A member that logs into a file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mainstay_tests::{Server, binary};
use tokio::time::{Instant, sleep};

/// The least size at which a file is put aside: a megabyte.
const MAX_BYTES: usize = 1 << 20;
/// How long the compression of a megabyte may take.
const COMPRESSED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_file_is_put_aside_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("etcd.log");
    // The next line is too much for it.
    fs::write(&log, "x".repeat(MAX_BYTES - 1) + "\n").unwrap();
    let outputs = format!("--log-outputs={}", log.display());
    let rules = r#"--log-rotation-config-json={"maxsize": 1, "compress": true}"#;
    let _server = Server::start(&binary(), &[&outputs, "--enable-log-rotation", rules]).await.unwrap();

    let begun = Instant::now();
    let name = loop {
        match &names(folder.path())[..] {
            [name, _] if name.ends_with(".log.gz") => break name.clone(),
            other => assert!(begun.elapsed() < COMPRESSED_WITHIN, "{other:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    // etcd-2026-11-21T09-00-00.000.log.gz
    let time = name.strip_prefix("etcd-").unwrap().strip_suffix(".log.gz").unwrap();
    let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00T00-00-00.000");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with('{') && text.contains("starting an etcd server"), "{text}");
}

/// The names of what is in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
