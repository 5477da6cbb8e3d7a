//! Members that are told nothing of each other and meet under a token in another cluster.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mainstay_client::{Client, ClientOptions};
use mainstay_tests::{Server, binary, free_port};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const TOKEN: &str = "6c007a14875d53d9bf0ef5a6fc0257c817f0fb83";
/// How long a cluster may take to serve, or a process to end.
const WITHIN: Duration = Duration::from_secs(60);

/// One member, that knows the discovery service and itself.
struct Member {
    name: String,
    flags: Vec<String>,
    client_url: String,
    log: PathBuf,
    process: Child,
}

impl Member {
    fn start(folder: &Path, name: &str, service: &str, token: &str) -> Result<Self> {
        let client_url = format!("http://127.0.0.1:{}", free_port()?);
        let peer_url = format!("http://127.0.0.1:{}", free_port()?);
        let flags = vec![
            format!("--name={name}"),
            format!("--data-dir={}", folder.join(name).display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--discovery-token={token}"),
            format!("--discovery-endpoints={service}"),
        ];
        let log = folder.join(format!("{name}.log"));
        let process = spawn(&flags, &log)?;
        Ok(Self { name: name.to_owned(), flags, client_url, log, process })
    }

    /// Kills it and starts it again with the same flags.
    fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = spawn(&self.flags, &self.log)?;
        Ok(())
    }

    fn client(&self) -> Client {
        Client::connect([&self.client_url], ClientOptions::default()).expect("the endpoint is well-formed")
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    async fn wait_until_serving(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.client().get("ready?").await {
            ensure!(begun.elapsed() < WITHIN, "{} does not serve: {error}\n{}", self.name, self.log());
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn wait_until_ended(&mut self) -> Result<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < WITHIN {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("{} does not end:\n{}", self.name, self.log())
    }

    /// Waits until it has said something.
    async fn wait_until_logged(&self, words: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.log().contains(words) {
            ensure!(begun.elapsed() < WITHIN, "{}: no {words:?} in\n{}", self.name, self.log());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Either fails only where the process has ended already.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

fn spawn(flags: &[String], log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(binary())
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", binary().display()))
}

fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("mainstay-discovery-").tempdir()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_meet_under_a_token() {
    meet().await.unwrap();
}

async fn meet() -> Result<()> {
    let folder = folder()?;
    let server = Server::start(&binary(), &[]).await?;
    let [_, service] = server.urls();
    let registry = Client::connect([&service], ClientOptions::default())?;
    registry.put(format!("/_etcd/registry/{TOKEN}/_config/size"), "3").await?;

    let mut members = vec![Member::start(folder.path(), "a", &service, TOKEN)?];
    // It comes again while it waits, and has its old place.
    members[0].wait_until_logged("waiting for peers from discovery service").await?;
    members[0].restart()?;
    for name in ["b", "c"] {
        members.push(Member::start(folder.path(), name, &service, TOKEN)?);
    }
    for member in &members {
        member.wait_until_serving().await?;
    }
    members[0].client().put("found", "each other").await?;
    let found = members[2].client().get("found").await?.context("what one member wrote, all have")?;
    ensure!(found.value == "each other", "{found:?}");
    let mut names: Vec<String> = Vec::new();
    let begun = Instant::now();
    while names != ["a", "b", "c"] {
        ensure!(begun.elapsed() < WITHIN, "the members are {names:?}");
        sleep(Duration::from_millis(10)).await;
        names = members[1].client().member_list().await?.members.into_iter().map(|member| member.name).collect();
        names.sort();
    }

    let mut late = Member::start(folder.path(), "d", &service, TOKEN)?;
    let status = late.wait_until_ended().await?;
    ensure!(status.code() == Some(1), "{status}:\n{}", late.log());
    ensure!(late.log().contains("discovery: cluster is full"), "{}", late.log());

    // Who has been part of the cluster needs nobody to tell of it.
    drop(server);
    members[1].restart()?;
    members[1].wait_until_serving().await?;
    let ignored = "discovery token is ignored since cluster already initialized";
    ensure!(members[1].log().contains(ignored), "{}", members[1].log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_made_is_refused() {
    unknown().await.unwrap();
}

async fn unknown() -> Result<()> {
    let folder = folder()?;
    let server = Server::start(&binary(), &[]).await?;
    let [_, service] = server.urls();
    let mut member = Member::start(folder.path(), "a", &service, "unknown")?;
    let status = member.wait_until_ended().await?;
    ensure!(status.code() == Some(1), "{status}:\n{}", member.log());
    ensure!(member.log().contains("discovery: size key not found"), "{}", member.log());

    let registry = Client::connect([&service], ClientOptions::default())?;
    registry.put("/_etcd/registry/unknown/_config/size", "many").await?;
    let mut member = Member::start(folder.path(), "b", &service, "unknown")?;
    let status = member.wait_until_ended().await?;
    ensure!(status.code() == Some(1), "{status}:\n{}", member.log());
    ensure!(member.log().contains("discovery: size key is bad"), "{}", member.log());
    Ok(())
}
