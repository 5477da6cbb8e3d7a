//! A cluster of real processes on loopback.

mod links;
mod port;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mainstay_client::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::secured::TlsSockets;
use links::Links;
pub use port::free_port;

/// How long a member may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// The server binary under test: `MAINSTAY_BIN`, which may be etcd's.
pub fn binary() -> PathBuf {
    std::env::var_os("MAINSTAY_BIN").map(PathBuf::from).expect("MAINSTAY_BIN names the server to test")
}

/// The binary of the release before: `MAINSTAY_OLD_BIN`, where that is given.
pub fn old_binary() -> Option<PathBuf> {
    std::env::var_os("MAINSTAY_OLD_BIN").map(PathBuf::from)
}

/// Real processes with their data in a temporary folder, which is kept where the test fails.
///
/// Members reach each other through proxies of the test, so that they can be cut off from each
/// other. Dropping the cluster kills what still runs.
pub struct ProcessCluster {
    home: Option<TempDir>,
    members: Vec<Member>,
    links: Links,
    flags: Vec<String>,
    security: Option<Security>,
}

/// A cluster whose members speak TLS among them.
pub struct Security {
    /// The flags of each member that name its certificates.
    pub flags: Vec<Vec<String>>,
    /// How clients connect; without TLS where that is `None`.
    pub clients: Option<TlsSockets>,
}

struct Member {
    name: String,
    /// What it is started from.
    binary: PathBuf,
    client_url: String,
    listen_peer_url: String,
    process: Option<Child>,
    paused: bool,
    place: Place,
}

/// What a member is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has an address and is no member.
    Outside,
    /// One of the first.
    Founder,
    /// It was added later.
    Joined,
}

impl ProcessCluster {
    /// Starts `size` members of the binary under test and waits until all of them serve.
    pub async fn start_all(size: usize) -> Result<Self> {
        Self::start_all_with(size, &[]).await
    }

    /// The same, with further flags for every member.
    pub async fn start_all_with(size: usize, flags: &[&str]) -> Result<Self> {
        Self::start_some(size, size, flags).await
    }

    /// Starts the first `size` of `places` members; the others can [join](Self::join) later. Clients know the
    /// addresses of all from the beginning.
    pub async fn start_some(size: usize, places: usize, flags: &[&str]) -> Result<Self> {
        Self::start_secured(size, places, flags, None).await
    }

    /// The same, with TLS where that is given.
    pub async fn start_secured(size: usize, places: usize, flags: &[&str], security: Option<Security>) -> Result<Self> {
        Self::start_from(binary(), size, places, flags, security).await
    }

    /// The same, from another binary.
    pub async fn start_from(
        binary: PathBuf,
        size: usize,
        places: usize,
        flags: &[&str],
        security: Option<Security>,
    ) -> Result<Self> {
        let scheme = |secured| if secured { "https" } else { "http" };
        let peer_scheme = scheme(security.is_some());
        let client_scheme = scheme(security.as_ref().is_some_and(|security| security.clients.is_some()));
        let mut cluster = Self {
            home: Some(tempfile::Builder::new().prefix("mainstay-it-").tempdir()?),
            members: Vec::new(),
            links: Links::new(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            security,
        };
        for member in 0..places {
            let peer = free_port()?;
            cluster.links.open(member, peer).await?;
            cluster.members.push(Member {
                name: format!("m{member}"),
                binary: binary.clone(),
                client_url: format!("{client_scheme}://127.0.0.1:{}", free_port()?),
                listen_peer_url: format!("{peer_scheme}://127.0.0.1:{peer}"),
                process: None,
                paused: false,
                place: if member < size { Place::Founder } else { Place::Outside },
            });
        }
        for member in 0..size {
            Cluster::start(&mut cluster, member).await?;
        }
        crate::cluster::wait_until_serving(&cluster, 0..size).await?;
        Ok(cluster)
    }

    /// Has a member started from another binary from now on.
    pub fn replace_binary(&mut self, member: usize, binary: &Path) {
        self.members[member].binary = binary.to_owned();
    }

    /// Adds a member and starts it; waits until it serves.
    pub async fn join(&mut self, member: usize) -> Result<()> {
        ensure!(self.members[member].place == Place::Outside, "member {member} is one already");
        let client = self.client(0, ClientOptions::default());
        client.member_add(vec![self.peer_url(member)]).await?;
        self.members[member].place = Place::Joined;
        self.start(member).await?;
        crate::cluster::wait_until_serving(self, [member]).await?;
        Ok(())
    }

    /// The id of a member that runs.
    pub async fn id_of(&self, member: usize) -> Result<u64> {
        Ok(self.client_of(member).status().await?.header.map_or(0, |header| header.member_id))
    }

    /// Removes a member, waits until it ends by itself, and forgets its data.
    pub async fn leave(&mut self, member: usize) -> Result<()> {
        let id = self.id_of(member).await?;
        self.client(0, ClientOptions::default()).member_remove(id).await?;
        self.members[member].place = Place::Outside;
        self.wait_until_ended(member, ENDS_WITHIN).await?;
        fs::remove_dir_all(self.data_dir(member))?;
        Ok(())
    }

    /// Starts a member that is down as a cluster of its own, with what it holds, and waits until it serves. The others,
    /// which have to be down, too, are members no more.
    pub async fn force_new_cluster(&mut self, member: usize) -> Result<()> {
        for (index, other) in self.members.iter_mut().enumerate() {
            ensure!(other.process.is_none(), "member {index} is running");
            if index != member {
                other.place = Place::Outside;
            }
        }
        self.flags.push("--force-new-cluster".to_owned());
        let started = self.start(member).await;
        self.flags.pop();
        started?;
        crate::cluster::wait_until_serving(self, [member]).await?;
        Ok(())
    }

    /// Runs `rebuild` with what a member is started with, and waits for its end.
    pub async fn rebuild(&self, member: usize) -> Result<Output> {
        let mut command = Command::new(&self.members[member].binary);
        command.arg("rebuild").args(self.arguments(member)).stdin(Stdio::null());
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// The folder that holds the data and the logs.
    pub fn home(&self) -> &Path {
        self.home.as_ref().map(TempDir::path).expect("the folder lives as long as the cluster")
    }

    /// The data folder of a member.
    pub fn data_dir(&self, member: usize) -> PathBuf {
        self.home().join(format!("{}.etcd", self.members[member].name))
    }

    /// Where clients reach a member.
    pub fn client_url(&self, member: usize) -> &str {
        &self.members[member].client_url
    }

    /// Where a member listens for its peers, past the proxy through which they reach it.
    pub fn listen_peer_url(&self, member: usize) -> &str {
        &self.members[member].listen_peer_url
    }

    /// Where the others reach a member.
    fn peer_url(&self, member: usize) -> String {
        format!("{}://{}", if self.security.is_some() { "https" } else { "http" }, self.links.address(member))
    }

    /// Flips one byte of what the others send to a member: in a connection that has carried more than `after` bytes
    /// to it, as soon as it carries much at once. The members must not speak TLS, which would notice.
    pub fn spoil(&self, member: usize, after: u64) {
        self.links.spoil(member, after);
    }

    /// How many bytes were flipped on their way to a member.
    pub fn spoiled(&self, member: usize) -> usize {
        self.links.spoiled(member)
    }

    /// What a member has written to its log so far.
    pub fn log(&self, member: usize) -> Result<String> {
        let mut text = Vec::new();
        File::open(self.log_path(member))?.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn log_path(&self, member: usize) -> PathBuf {
        self.home().join(format!("{}.log", self.members[member].name))
    }

    /// Waits until a member has ended by itself, for a time.
    pub async fn wait_until_ended(&mut self, member: usize, within: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            let process = self.members[member].process.as_mut().context("the member is not running")?;
            if let Some(status) = process.try_wait()? {
                self.members[member].process = None;
                return Ok(status);
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("member {member} did not end by itself within {within:?}")
    }

    /// What a member is started with.
    fn arguments(&self, member: usize) -> Vec<String> {
        let present = self.present().into_iter();
        let initial: Vec<String> = present.map(|i| format!("{}={}", self.members[i].name, self.peer_url(i))).collect();
        let Member { name, client_url, listen_peer_url, place, .. } = &self.members[member];
        let state = if *place == Place::Joined { "existing" } else { "new" };
        let mut arguments = vec![
            format!("--name={name}"),
            format!("--data-dir={}", self.data_dir(member).display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={listen_peer_url}"),
            format!("--initial-advertise-peer-urls={}", self.peer_url(member)),
            format!("--initial-cluster={}", initial.join(",")),
            format!("--initial-cluster-state={state}"),
        ];
        arguments.extend_from_slice(&self.flags);
        arguments.extend(self.security.iter().flat_map(|security| security.flags[member].clone()));
        arguments
    }

    /// Sends a signal to the process of a member, which is a child that nobody has waited for: its
    /// id cannot belong to another process.
    fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let process = self.members[member].process.as_ref().context("the member is not running")?;
        kill_process(Pid::from_child(process), signal)?;
        Ok(())
    }
}

impl Cluster for ProcessCluster {
    fn size(&self) -> usize {
        self.members.len()
    }

    fn present(&self) -> Vec<usize> {
        (0..self.size()).filter(|member| self.members[*member].place != Place::Outside).collect()
    }

    fn client(&self, first: usize, options: ClientOptions) -> Client {
        let mut urls: Vec<&str> = self.members.iter().map(|member| member.client_url.as_str()).collect();
        urls.rotate_left(first);
        match self.security.as_ref().and_then(|security| security.clients.as_ref()) {
            Some(sockets) => Client::with_connector(sockets, urls, options),
            None => Client::connect(urls, options),
        }
        .expect("the endpoints are well-formed")
    }

    async fn start(&mut self, member: usize) -> Result<()> {
        ensure!(self.members[member].process.is_none(), "member {member} is already running");
        let log = File::options().create(true).append(true).open(self.log_path(member))?;
        let binary = &self.members[member].binary;
        let process = Command::new(binary)
            .args(self.arguments(member))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        self.links.owned_by(member, process.id());
        self.members[member].process = Some(process);
        Ok(())
    }

    async fn kill(&mut self, member: usize) -> Result<()> {
        let mut process = self.members[member].process.take().context("the member is not running")?;
        self.members[member].paused = false;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    async fn stop(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < ENDS_WITHIN {
            let process = self.members[member].process.as_mut().context("the member is not running")?;
            if process.try_wait()?.is_some() {
                self.members[member].process = None;
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("member {member} did not end within {ENDS_WITHIN:?} of SIGTERM")
    }

    fn pause(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::STOP)?;
        self.members[member].paused = true;
        Ok(())
    }

    fn resume(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::CONT)?;
        self.members[member].paused = false;
        Ok(())
    }

    fn isolate(&mut self, member: usize) -> Result<()> {
        self.links.isolate(member);
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.links.heal();
        Ok(())
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                // Best effort: the test's own verdict matters more than a process that is gone already.
                let _killed = process.kill();
                let _ended = process.wait();
            }
        }
        if std::thread::panicking()
            && let Some(home) = self.home.take()
        {
            let kept = home.keep();
            eprintln!("data and logs of the members are kept in {}", kept.display());
            for member in &self.members {
                let log = fs::read_to_string(kept.join(format!("{}.log", member.name))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- the end of the log of {}", member.name);
                for line in &lines[lines.len().saturating_sub(10)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}
