//! A member under a service manager such as systemd: what it tells, and when.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mainstay_tests::{binary, free_port};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::startup::good_flags;

/// How long a member may take until it serves, and until it has ended.
const WITHIN: Duration = Duration::from_secs(30);
/// How long a member that serves may take for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long to listen to a member that has nothing to tell.
const SILENT_FOR: Duration = Duration::from_secs(2);

#[test]
fn readiness_is_told_once_a_member_serves() {
    let manager = Manager::new();
    let member = Member::start(&manager, &[], Some(manager.path().as_os_str()));
    assert_eq!(manager.next(WITHIN).unwrap(), "READY=1");
    // One attempt: whoever was told need not try again.
    let answer = member.health().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn readiness_is_not_told_without_a_quorum() {
    let manager = Manager::new();
    // The second of two founders never comes.
    let own = free_port().unwrap();
    let flags = [
        format!("--listen-peer-urls=http://127.0.0.1:{own}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{own}"),
        format!("--initial-cluster=default=http://127.0.0.1:{own},other=http://127.0.0.1:{}", free_port().unwrap()),
    ];
    let mut member = Member::start(&manager, &flags, Some(manager.path().as_os_str()));
    let silence = manager.next(SILENT_FOR).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    assert!(member.process.try_wait().unwrap().is_none(), "it is to wait for the other");
    let status = member.stop();
    assert!(status.success(), "who is asked to end while it waits has not failed: {status}");
}

/// As `timeout` sends them: to its child, and to the group. etcd takes no notice of the second.
#[test]
fn a_second_request_to_end_is_no_failure() {
    let manager = Manager::new();
    let mut member = Member::start(&manager, &[], Some(manager.path().as_os_str()));
    assert_eq!(manager.next(WITHIN).unwrap(), "READY=1");
    kill_process(Pid::from_child(&member.process), Signal::TERM).unwrap();
    assert_eq!(manager.next(ANSWERS_WITHIN).unwrap(), "STOPPING=1");
    let status = member.stop();
    assert!(status.success(), "{status}");
}

/// etcd does not say so.
#[test]
fn the_end_is_told_when_it_begins() {
    let manager = Manager::new();
    let mut member = Member::start(&manager, &[], Some(manager.path().as_os_str()));
    assert_eq!(manager.next(WITHIN).unwrap(), "READY=1");
    let status = member.stop();
    assert!(status.success(), "{status}");
    assert_eq!(manager.next(ANSWERS_WITHIN).unwrap(), "STOPPING=1");
}

#[test]
fn a_member_serves_where_nobody_listens() {
    for socket in [None, Some(""), Some("/nowhere/at/all")] {
        let manager = Manager::new();
        let member = Member::start(&manager, &[], socket.map(OsStr::new));
        let begun = Instant::now();
        while !member.health().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
            assert!(begun.elapsed() < WITHIN, "{socket:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Who starts members and listens to them.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { folder, socket }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// What it is told next, without the end of the line, which etcd leaves out.
    fn next(&self, within: Duration) -> io::Result<String> {
        self.socket.set_read_timeout(Some(within))?;
        let mut text = [0; 256];
        let len = self.socket.recv(&mut text)?;
        Ok(String::from_utf8_lossy(&text[..len]).trim_end().to_owned())
    }
}

/// A member alone, which is killed when it is dropped.
struct Member {
    process: Child,
    client: SocketAddr,
}

impl Member {
    /// Starts one, with further flags (the last of two wins), and this socket to tell things to.
    fn start(manager: &Manager, extra: &[String], socket: Option<&OsStr>) -> Self {
        let flags = good_flags(&manager.folder.path().join("data"));
        let client = flags.iter().find_map(|flag| flag.strip_prefix("--listen-client-urls=http://")).unwrap();
        let mut command = Command::new(binary());
        command.args(&flags).args(extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The tests themselves may have a manager, which is none of a member's business.
        match socket {
            Some(socket) => command.env("NOTIFY_SOCKET", socket),
            None => command.env_remove("NOTIFY_SOCKET"),
        };
        Self { process: command.spawn().unwrap(), client: client.parse().unwrap() }
    }

    /// What it answers to the question for its health, head and body.
    fn health(&self) -> io::Result<String> {
        let mut connection = TcpStream::connect(self.client)?;
        connection.set_read_timeout(Some(ANSWERS_WITHIN))?;
        let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.client);
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks it to end, and waits for that.
    fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let asked = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(asked.elapsed() < WITHIN, "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Either fails only where the process has ended already.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}
