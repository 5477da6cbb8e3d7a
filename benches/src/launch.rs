//! Starts servers in folders of their own, and leaves nothing of them behind.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mainstay_client::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long a cluster may take until it serves.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a server may take to stop before it is killed. Its data is thrown away in any case; the
/// time is for what a profiler or a coverage build writes at the end.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long a member may take to stop in the middle of a run, where its data stays.
const TERMINATE_MAX: Duration = Duration::from_secs(60);
/// How much of a server's log is shown when it failed.
const LOG_TAIL_LINES: usize = 15;
/// Above what a benchmark writes: no row should end in "no space".
const QUOTA_BYTES: u64 = 32 << 30;

/// Members of a cluster that this process has started. Dropping it kills them by their ids and
/// removes their folder.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    /// How the member is started, again as well.
    command: Command,
    child: Child,
    endpoint: String,
    /// Its data directory.
    data: PathBuf,
    log: PathBuf,
}

impl Cluster {
    /// Starts `count` members of an etcd-compatible server on free loopback ports, and waits until
    /// they serve. Every system gets the same flags; `extra` come last.
    pub async fn start(binary: &Path, count: usize, parent: &Path, extra: &[String]) -> anyhow::Result<Self> {
        ensure!(binary.is_file(), "{}: no such file", binary.display());
        let folder = tempfile::Builder::new().prefix("mainstay-bench-").tempdir_in(parent)?;
        let ports = free_ports(2 * count)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client_ports, peer_ports) = ports.split_at(count);
        let initial: Vec<String> =
            peer_ports.iter().enumerate().map(|(index, port)| format!("m{index}={}", url(*port))).collect();
        let mut cluster = Self { members: Vec::with_capacity(count), folder };
        for index in 0..count {
            let name = format!("m{index}");
            let log = cluster.folder.path().join(format!("{name}.log"));
            let data = cluster.folder.path().join(&name);
            let output = File::create(&log)?;
            let endpoint = url(client_ports[index]);
            let mut command = Command::new(binary);
            command
                .arg(format!("--name={name}"))
                .arg(format!("--data-dir={}", data.display()))
                .arg(format!("--listen-client-urls={endpoint}"))
                .arg(format!("--advertise-client-urls={endpoint}"))
                .arg(format!("--listen-peer-urls={}", url(peer_ports[index])))
                .arg(format!("--initial-advertise-peer-urls={}", url(peer_ports[index])))
                .arg(format!("--initial-cluster={}", initial.join(",")))
                .arg("--initial-cluster-state=new")
                .arg(format!("--quota-backend-bytes={QUOTA_BYTES}"))
                .arg("--log-level=warn")
                .args(extra)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output);
            // The server reads ETCD_* as flags; ours (ETCD_BIN) are not meant for it.
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ETCD_")) {
                command.env_remove(name);
            }
            let child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
            cluster.members.push(Member { command, child, endpoint, data, log });
        }
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Where the members listen.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// The members' process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.child.id()).collect()
    }

    /// Bytes of the files in a member's data directory.
    pub fn disk_bytes(&self, member: usize) -> u64 {
        bytes_below(&self.members[member].data)
    }

    /// Asks a member to stop (SIGTERM), and waits until it has. Its data stays.
    pub async fn terminate(&mut self, member: usize) -> anyhow::Result<()> {
        let member = &mut self.members[member];
        kill_process(Pid::from_child(&member.child), Signal::TERM).context("asking a member to stop")?;
        let deadline = Instant::now() + TERMINATE_MAX;
        while member.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "a member does not stop:\n{}", tail(&member.log));
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Kills a member at once (SIGKILL). Its data stays.
    pub fn kill(&mut self, member: usize) -> anyhow::Result<()> {
        let child = &mut self.members[member].child;
        child.kill().context("killing a member")?;
        child.wait().context("waiting for the end of a member that was killed")?;
        Ok(())
    }

    /// Starts a member that has ended, on the data that it left. Does not wait until it serves.
    pub fn restart(&mut self, member: usize) -> anyhow::Result<()> {
        let member = &mut self.members[member];
        ensure!(member.child.try_wait()?.is_some(), "a member that is to be started again still runs");
        member.child = member.command.spawn().context("starting a member again")?;
        Ok(())
    }

    /// Refuses when a member has ended, with its last words.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if let Some(status) = member.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", tail(&member.log));
            }
        }
        Ok(())
    }

    /// Asks the members to stop, and kills those that take too long.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if member.child.try_wait()?.is_none() {
                let pid = Pid::from_child(&member.child);
                // It may end by itself in between, which is what we want.
                let _gone = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOP_MAX;
        for member in &mut self.members {
            while member.child.try_wait()?.is_none() && Instant::now() < deadline {
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(()) // What is left is killed by the drop.
    }

    /// Waits until each member answers a linearizable read.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_MAX;
        for index in 0..self.members.len() {
            let endpoint = self.members[index].endpoint.clone();
            let options = ClientOptions { request_timeout: Duration::from_secs(1), ..ClientOptions::default() };
            let client = Client::connect([&endpoint], options)?;
            loop {
                let error = match client.get("ready?").await {
                    Ok(_) => break,
                    Err(error) => error,
                };
                // Any member may have failed, and a cluster does not start without it.
                self.check_alive()?;
                if Instant::now() >= deadline {
                    bail!("the server does not serve: {error}\n{}", tail(&self.members[index].log));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Either fails only where the process has ended already.
            let _killed = member.child.kill();
            let _reaped = member.child.wait();
        }
    }
}

/// Ports that nothing listens on. They are free again when this returns, so a stranger may still
/// take one; then the server says so and the run ends.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until all are found: otherwise the kernel could give one out twice.
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()?)
}

/// Bytes of all files below a folder. What vanishes meanwhile counts for nothing: a server is at work there.
fn bytes_below(folder: &Path) -> u64 {
    let mut sum = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => sum += metadata.len(),
                Err(_vanished) => {}
            }
        }
    }
    sum
}

/// The end of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_different_and_free() {
        let mut ports = free_ports(20).unwrap();
        TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn files_are_counted_however_deep() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("member/snap");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(folder.path().join("a"), [0; 10]).unwrap();
        std::fs::write(deep.join("b"), [0; 32]).unwrap();
        assert_eq!(bytes_below(folder.path()), 42);
        assert_eq!(bytes_below(&folder.path().join("nothing")), 0);
    }

    #[tokio::test]
    async fn a_member_is_stopped_or_killed_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("100").stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let (endpoint, path) = ("http://127.0.0.1:1".to_owned(), folder.path().to_owned());
        let member = Member { command, child, endpoint, data: path.clone(), log: path.join("log") };
        let mut cluster = Cluster { members: vec![member], folder };
        let first = cluster.pids();
        cluster.check_alive().unwrap();
        assert!(cluster.restart(0).is_err(), "it still runs");
        cluster.terminate(0).await.unwrap();
        assert!(cluster.check_alive().is_err());
        cluster.restart(0).unwrap();
        assert_ne!(cluster.pids(), first);
        cluster.kill(0).unwrap();
        cluster.restart(0).unwrap();
        cluster.check_alive().unwrap();
    }

    #[tokio::test]
    async fn a_server_that_ends_is_reported_with_its_words_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let script = parent.path().join("server");
        std::fs::write(&script, "#!/bin/sh\necho cannot do \"$1\" >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let folder = parent.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let error = Cluster::start(&script, 1, &folder, &[]).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("cannot do --name=m0"), "{error}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_missing_binary_is_named() {
        let error = Cluster::start(Path::new("/no/such/server"), 1, Path::new("/tmp"), &[]).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/server"));
    }
}
