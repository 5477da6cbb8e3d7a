//! What a member refuses to start with: how it says so, and its exit code.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mainstay_client::{Client, ClientOptions, Range};
use mainstay_tests::{ProcessCluster, binary, free_port};

/// How long a refusal may take.
const REFUSES_WITHIN: Duration = Duration::from_secs(20);

/// The flags of a member that starts, on free ports, with its data in `data_dir`.
pub(crate) fn good_flags(data_dir: &Path) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", free_port().unwrap());
    let peer = format!("http://127.0.0.1:{}", free_port().unwrap());
    vec![
        format!("--data-dir={}", data_dir.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
}

/// Runs the binary until it ends; returns its exit code and all that it printed.
fn run(flags: &[String], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = tempfile::tempfile().unwrap();
    let mut process = Command::new(binary())
        .args(flags)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > REFUSES_WITHIN {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = read_all(output);
    let status = status.unwrap_or_else(|| panic!("{flags:?} {environment:?}: still running; it printed\n{text}"));
    (status.code(), text)
}

fn read_all(mut file: std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Adds flags to good ones (the last of two wins) and expects this exit code and these words.
#[track_caller]
fn check(extra: &[&str], code: i32, words: &str) {
    check_with(extra, &[], code, words);
}

#[track_caller]
fn check_with(extra: &[&str], environment: &[(&str, &str)], code: i32, words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = good_flags(&folder.path().join("data"));
    flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
    let (actual, text) = run(&flags, environment);
    // Inside a JSON log line quotes are escaped.
    let plain = text.replace("\\\"", "\"");
    assert_eq!(actual, Some(code), "{extra:?} {environment:?} printed\n{text}");
    assert!(plain.contains(words), "{extra:?} {environment:?}: no {words:?} in\n{text}");
}

#[test]
fn flags_that_cannot_be_read_end_with_2() {
    check(&["--no-such-flag"], 2, "flag provided but not defined: -no-such-flag");
    check(&["--heartbeat-interval=often"], 2, "invalid value \"often\" for flag -heartbeat-interval");
    check(&["--feature-gates=NoSuchGate=true"], 2, "unrecognized feature gate: NoSuchGate");
    check(&["--initial-cluster-state=perhaps"], 2, "invalid value \"perhaps\" for flag -initial-cluster-state");
}

#[test]
fn values_that_do_not_fit_end_with_1() {
    check(
        &["--heartbeat-interval=1000", "--election-timeout=1000"],
        1,
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[1000ms]",
    );
    check(
        &["--election-timeout=60000"],
        1,
        "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
    );
    check(
        &["--listen-client-urls=http://example.invalid:2379"],
        1,
        "expected IP in URL for binding (http://example.invalid:2379)",
    );
    check(&["--name=somebody"], 1, "couldn't find local name \"somebody\" in the initial cluster configuration");
    check(
        &["--discovery-srv=example.invalid"],
        1,
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\"",
    );
    check(&["--discovery-token=t"], 1, "both --discovery-token and --discovery-endpoints must be set");
    check(&["--max-request-bytes=1000000000"], 1, "--max-request-bytes: 1000000000 bytes do not fit into a record");
    check(
        &["--enable-log-rotation", "--log-outputs=stderr"],
        1,
        "--log-outputs requires a single file path when --log-rotate-config-json is defined",
    );
    check(&["stray"], 1, "\"stray\" is not a valid flag");
    check(&["--config-file=/nonexistent.yaml"], 1, "no such file or directory");
}

#[test]
fn a_variable_beside_its_flag_ends_with_1() {
    check_with(&["--name=default"], &[("ETCD_NAME", "other")], 1, "conflicting environment variable");
}

#[test]
fn version_and_help_end_with_0() {
    let (code, text) = run(&["--version".to_owned()], &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("etcd Version: 3.7.1\n"), "{text}");
    let (code, text) = run(&["--help".to_owned()], &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("--listen-client-urls"), "{text}");
}

#[test]
fn a_port_that_is_taken_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    check(&[&format!("--listen-client-urls={url}")], 1, "address already in use");
    let peer = format!("--listen-peer-urls={url}");
    check(&[&peer], 1, "address already in use");
}

#[test]
fn a_data_dir_that_is_none_ends_with_1() {
    let file = tempfile::NamedTempFile::new().unwrap();
    check(&[&format!("--data-dir={}", file.path().display())], 1, "not a directory");
}

/// A second process on the same folder may wait or end, but it must neither serve nor do harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_dir_has_one_owner() {
    let cluster = ProcessCluster::start_all(1).await.unwrap();
    let first = Client::connect([cluster.client_url(0)], ClientOptions::default()).unwrap();
    first.put("a", "1").await.unwrap();

    let flags = good_flags(&cluster.data_dir(0));
    let url = flags[1].split_once('=').unwrap().1.to_owned();
    let mut second = Command::new(binary()).args(&flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let intruder = Client::connect([&url], ClientOptions::default()).unwrap().with_timeout(Duration::from_secs(3));
    let answer = intruder.range(Range::key("a").serializable()).await;
    let _ended = second.kill(); // it may have ended by itself
    second.wait().unwrap();
    assert!(answer.is_err(), "two processes serve one data folder");
    first.put("a", "2").await.unwrap();
    assert_eq!(first.get("a").await.unwrap().unwrap().version, 2);
}
