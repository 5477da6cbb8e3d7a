//! One real server with data of its own, for tests that start many, of several programs.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::HeaderMap;
use prost::Message as _;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::free_port;
use crate::wire::{Connection, frame};

/// How long a server may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How much of a log is shown.
const TAIL_LINES: usize = 15;
/// Memory that looks like a disk: what is synced to it is lost with the machine, but it takes no time.
const FAST: &str = "/dev/shm";

/// A member alone in its cluster. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Server {
    process: Child,
    client: SocketAddr,
    peer: SocketAddr,
    log: PathBuf,
    _folder: TempDir,
}

impl Server {
    /// Starts a server, with further flags, and waits until it serves.
    pub async fn start(binary: &Path, flags: &[&str]) -> Result<Self> {
        let mut folder = tempfile::Builder::new();
        folder.prefix("mainstay-server-");
        let fast = Path::new(FAST);
        let folder = if fast.is_dir() { folder.tempdir_in(fast) } else { folder.tempdir() }?;
        let [client, peer] = [free_port()?, free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let mut command = Command::new(binary);
        command
            .arg("--name=m0")
            .arg(format!("--data-dir={}", folder.path().join("data").display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=m0={peer_url}"))
            .args(flags)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let process = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
        let mut server = Self { process, client, peer, log, _folder: folder };
        server.wait_until_serving().await?;
        Ok(server)
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// Where its peers would reach it, and what its clients are told.
    pub fn urls(&self) -> [String; 2] {
        [self.peer, self.client].map(|address| format!("http://{address}"))
    }

    /// Its process id, valid until it is dropped.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits until it answers a linearizable read.
    async fn wait_until_serving(&mut self) -> Result<()> {
        let request = mainstay_proto::etcdserverpb::RangeRequest { key: "ready?".into(), ..Default::default() };
        let request = frame(&request.encode_to_vec());
        let begun = Instant::now();
        loop {
            if let Ok(connection) = Connection::open(self.client).await
                && connection.call("/etcdserverpb.KV/Range", &HeaderMap::new(), request.clone()).await.is_ok()
            {
                return Ok(());
            }
            if !self.is_alive() || begun.elapsed() > READY_WITHIN {
                bail!("the server does not serve:\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only where the process has ended already.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}
