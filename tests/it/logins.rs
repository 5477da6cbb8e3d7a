//! A storm of logins. Hashing a password takes tens of milliseconds by design: 1,000 a second is far
//! more than two processors can answer, and must cost those who log in, not the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::HeaderMap;
use mainstay_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, AuthenticateRequest,
    AuthenticateResponse, PutRequest, StatusRequest, StatusResponse,
};
use mainstay_tests::ProcessCluster;
use mainstay_tests::wire::{Connection, Reply, frame};
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// For how long logins are asked for, and how often.
const STORM: Duration = Duration::from_secs(10);
const LOGIN_EVERY: Duration = Duration::from_millis(1);
/// How long a put may wait meanwhile. Far above what one takes, far below a cluster that is stuck.
const PUT_WITHIN: Duration = Duration::from_secs(5);
/// How many put side by side.
const WRITERS: usize = 8;
/// How long whoever logs in waits.
const LOGIN_WITHIN: Duration = Duration::from_secs(5);

/// etcd 3.7.1 does not pass this one on two processors: its puts wait for more than five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_moves_no_leader() {
    let cluster = ProcessCluster::start_all(3).await.unwrap();
    storm(&cluster).await.unwrap();
}

async fn storm(cluster: &ProcessCluster) -> Result<()> {
    let addresses = (0..3).map(|member| address(cluster, member)).collect::<Result<Vec<_>>>()?;
    let token = authentication(addresses[0]).await?;
    let before = terms(&addresses, &token).await?;

    let puts = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let until = Instant::now() + STORM;
    for writer in 0..WRITERS {
        let (address, token, puts) = (addresses[writer % 3], token.clone(), Arc::clone(&puts));
        writers.spawn(put_until(until, writer, address, token, puts));
    }
    let (asked, answered) = log_in_until(until, &addresses).await?;
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let puts = puts.load(Ordering::Relaxed);
    #[allow(clippy::print_stdout)] // figures for whoever reads the run
    {
        println!("{asked} logins asked for in {STORM:?}, {answered} answered with a token, {puts} puts meanwhile");
    }
    // Otherwise this was no storm.
    ensure!(asked >= 5_000, "{asked} logins were asked for");
    ensure!(answered > 0 && puts > 0, "nobody is served");
    let after = terms(&addresses, &token).await?;
    ensure!(after == before, "terms were {before:?} and are {after:?}");
    Ok(())
}

fn address(cluster: &ProcessCluster, member: usize) -> Result<SocketAddr> {
    cluster.client_url(member).trim_start_matches("http://").parse().context("a member's URL")
}

async fn terms(addresses: &[SocketAddr], token: &HeaderMap) -> Result<Vec<u64>> {
    let mut terms = Vec::new();
    for address in addresses {
        let connection = Connection::open(*address).await?;
        let request = frame(&StatusRequest {}.encode_to_vec());
        let reply = ok(connection.call("/etcdserverpb.Maintenance/Status", token, request).await)?;
        terms.push(StatusResponse::decode(reply.messages.into_iter().next().unwrap_or_default())?.raft_term);
    }
    Ok(terms)
}

/// Turns authentication on, and logs in.
async fn authentication(address: SocketAddr) -> Result<HeaderMap> {
    let connection = Connection::open(address).await?;
    let role = AuthRoleAddRequest { name: "root".into() };
    ok(call(&connection, "Auth/RoleAdd", &role).await)?;
    let user = AuthUserAddRequest { name: "root".into(), password: "secret".into(), ..AuthUserAddRequest::default() };
    ok(call(&connection, "Auth/UserAdd", &user).await)?;
    let grant = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    ok(call(&connection, "Auth/UserGrantRole", &grant).await)?;
    ok(call(&connection, "Auth/AuthEnable", &AuthEnableRequest {}).await)?;
    let reply = ok(call(&connection, "Auth/Authenticate", &credentials()).await)?;
    let response = AuthenticateResponse::decode(reply.messages.into_iter().next().unwrap_or_default())?;
    let mut metadata = HeaderMap::new();
    metadata.insert("token", response.token.parse()?);
    Ok(metadata)
}

fn credentials() -> AuthenticateRequest {
    AuthenticateRequest { name: "root".into(), password: "secret".into() }
}

async fn call(connection: &Connection, method: &str, request: &impl Message) -> Reply {
    let path = format!("/etcdserverpb.{method}");
    connection.call(&path, &HeaderMap::new(), frame(&request.encode_to_vec())).await
}

fn ok(reply: Reply) -> Result<Reply> {
    ensure!(reply.is_ok(), "{:?} {}", reply.code, reply.text);
    Ok(reply)
}

async fn put_until(
    until: Instant,
    writer: usize,
    address: SocketAddr,
    token: HeaderMap,
    puts: Arc<AtomicU64>,
) -> Result<()> {
    let connection = Connection::open(address).await?;
    let put = PutRequest { key: format!("k{writer}").into(), value: "v".into(), ..PutRequest::default() };
    let put = frame(&put.encode_to_vec());
    while Instant::now() < until {
        let reply = connection.call("/etcdserverpb.KV/Put", &token, put.clone());
        ok(timeout(PUT_WITHIN, reply).await.with_context(|| format!("a put is not answered in {PUT_WITHIN:?}"))?)?;
        puts.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks at its own pace, whether answers come or not; returns how many were asked for and answered.
async fn log_in_until(until: Instant, addresses: &[SocketAddr]) -> Result<(u64, u64)> {
    let mut connections = Vec::new();
    for address in addresses {
        connections.push(Arc::new(Connection::open(*address).await?));
    }
    let mut ticks = interval(LOGIN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut logins, mut asked, mut answered) = (JoinSet::new(), 0, 0);
    while Instant::now() < until {
        ticks.tick().await;
        asked += 1;
        let connection = Arc::clone(&connections[asked % connections.len()]);
        logins.spawn(async move {
            timeout(LOGIN_WITHIN, call(&connection, "Auth/Authenticate", &credentials())).await.is_ok_and(|r| r.is_ok())
        });
        while let Some(done) = logins.try_join_next() {
            answered += u64::from(done?);
        }
    }
    sleep(Duration::from_millis(200)).await;
    logins.shutdown().await;
    Ok((asked as u64, answered))
}
