//! The server under attack, and whether it is well.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::HeaderMap;
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::response_op::Response;
use mainstay_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, DeleteRangeRequest, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use prost::Message;
use tokio::time::timeout;

use mainstay_tests::Server;
use mainstay_tests::wire::{Connection, Reply, frame};

/// How long an ordinary client may wait while others attack.
const SERVED_WITHIN: Duration = Duration::from_secs(20);
/// The key of the ordinary client.
const KEY: &[u8] = b"an ordinary key";
/// What a server says while an alarm is raised: NOSPACE, CORRUPT.
const ALARMED: [&str; 2] = ["database space exceeded", "corrupt cluster"];
/// How often attacks may raise an alarm just before the ordinary client's put.
const ALARMS_IN_A_ROW: usize = 20;

/// The server under attack.
pub(crate) struct Victim {
    pub(crate) server: Server,
}

impl Victim {
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        Ok(Self { server: Server::start(binary, &["--log-level=warn"]).await? })
    }

    /// Memory that is resident, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_ascii_whitespace().next().context("no number")?.parse()?;
        Ok(kib * 1024)
    }

    /// Does what an ordinary client does, and removes what was written since. Fails if the server is not
    /// well.
    pub(crate) async fn check(&mut self) -> Result<()> {
        ensure!(self.server.is_alive(), "the server has ended:\n{}", self.server.log_tail());
        if let Some(line) = self.server.log().lines().find(|line| line.contains("panic")) {
            bail!("the server's log tells of a panic: {line}");
        }
        timeout(SERVED_WITHIN, self.tidy_up())
            .await
            .with_context(|| format!("an ordinary client is not served within {SERVED_WITHIN:?}"))?
    }

    async fn tidy_up(&self) -> Result<()> {
        let connection = Connection::open(self.server.address()).await?;
        let call = async |path: &str, request: Vec<u8>| connection.call(path, &HeaderMap::new(), frame(&request)).await;
        let leases = LeaseLeasesRequest {}.encode_to_vec();
        let leases: LeaseLeasesResponse = read(call("/etcdserverpb.Lease/LeaseLeases", leases).await)?;
        for lease in leases.leases {
            // It may have ended meanwhile.
            let _gone =
                call("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest { id: lease.id }.encode_to_vec()).await;
        }
        let all = DeleteRangeRequest { key: b"\0"[..].into(), range_end: b"\0"[..].into(), prev_kv: false };
        let _deleted = call("/etcdserverpb.KV/DeleteRange", all.encode_to_vec()).await;
        let revision = put_and_get(&connection).await?;
        let compaction = CompactionRequest { revision, physical: false };
        // An attack may have compacted further.
        let _compacted = call("/etcdserverpb.KV/Compact", compaction.encode_to_vec()).await;
        Ok(())
    }
}

/// Puts the ordinary key and reads it back, and returns the revision.
///
/// Both in one transaction: between two requests an attack may delete the key or compact its revision
/// away. Raising an alarm is an attack too, and what it refuses is refused rightly, so that alarms are
/// disarmed until the transaction comes through before the next one.
async fn put_and_get(connection: &Connection) -> Result<i64> {
    let put = PutRequest { key: KEY.into(), value: KEY.into(), ..PutRequest::default() };
    let get = RangeRequest { key: KEY.into(), ..RangeRequest::default() };
    let success = [Request::RequestPut(put), Request::RequestRange(get)];
    let success = success.map(|request| RequestOp { request: Some(request) }).to_vec();
    let txn = TxnRequest { success, ..TxnRequest::default() }.encode_to_vec();
    for _ in 0..ALARMS_IN_A_ROW {
        disarm(connection).await?;
        let reply = connection.call("/etcdserverpb.KV/Txn", &HeaderMap::new(), frame(&txn)).await;
        if ALARMED.iter().any(|refusal| reply.text.contains(refusal)) {
            continue;
        }
        let done: TxnResponse = read(reply)?;
        let got = done.responses.into_iter().find_map(|response| match response.response {
            Some(Response::ResponseRange(got)) => got.kvs.into_iter().next(),
            _ => None,
        });
        ensure!(got.is_some_and(|kv| kv.value == KEY), "what was put is not there");
        return Ok(done.header.map_or(0, |header| header.revision));
    }
    bail!("an alarm was raised between disarming and a put {ALARMS_IN_A_ROW} times in a row")
}

/// Disarms every alarm that an attack raised.
async fn disarm(connection: &Connection) -> Result<()> {
    let call = async |request: AlarmRequest| {
        connection.call("/etcdserverpb.Maintenance/Alarm", &HeaderMap::new(), frame(&request.encode_to_vec())).await
    };
    let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let alarms: AlarmResponse = read(call(request).await)?;
    for alarm in alarms.alarms {
        let action = AlarmAction::Deactivate.into();
        let request = AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
        read::<AlarmResponse>(call(request).await)?;
    }
    Ok(())
}

fn read<M: Message + Default>(reply: Reply) -> Result<M> {
    ensure!(reply.is_ok(), "an ordinary request is refused: {:?} {}", reply.code, reply.text);
    Ok(M::decode(reply.messages.into_iter().next().unwrap_or_default())?)
}
