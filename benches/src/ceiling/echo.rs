//! A service that answers puts and gets of single keys with messages of the usual size, and does nothing else:
//! what the same clients reach where there is no server behind gRPC.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use mainstay_client::KeyValue;
use mainstay_client::proto::etcdserverpb::kv_server::{Kv, KvServer};
use mainstay_client::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use tokio::time::{Instant, sleep};
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::keyspace::value;
use crate::launch::free_ports;
use crate::options::Options;
use crate::report::Report;
use crate::workload::{Row, Session, Subjects};

/// How long the service may take until it answers.
const READY_MAX: Duration = Duration::from_secs(10);

/// The flags of `echo-server`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:2379")]
    pub listen: SocketAddr,
    /// Bytes of the value that a get is answered with.
    #[arg(long, default_value_t = 256)]
    pub value_size: usize,
}

/// Serves until the process ends.
pub async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let echo = KvServer::new(Echo { value: value(1, 0, arguments.value_size) });
    Server::builder().add_service(echo).serve(arguments.listen).await.context("serving")
}

/// Measures a row of puts or gets on the service, in a process of its own started from this program's binary.
pub async fn run(binary: &Path, row: Row, options: &Options, round: u32) -> anyhow::Result<Report> {
    ensure!(matches!(row, Row::Put | Row::Get), "{}: the empty service answers puts and gets alone", row.name());
    let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
    let mut command = Command::new(binary);
    command
        .arg("echo-server")
        .arg(format!("--listen={address}"))
        .arg(format!("--value-size={}", options.value_size))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
    let mut process = Process(child);
    let session = Session::connect(&[format!("http://{address}")], options)?;
    let deadline = Instant::now() + READY_MAX;
    while let Err(error) = session.warm_up().await {
        let ended = process.0.try_wait()?;
        ensure!(ended.is_none() && Instant::now() < deadline, "the empty service does not serve: {error:#}");
        sleep(Duration::from_millis(10)).await;
    }
    let subjects = Subjects { pids: vec![process.0.id()], disk: None };
    let outcome = row.measure(&session, options, &subjects).await?;
    Ok(Report::new(row, "echo", env!("CARGO_PKG_VERSION"), 1, round, options, outcome))
}

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only where the process has ended already.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

struct Echo {
    value: Bytes,
}

/// As large as those of a server that has run for a while.
fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: u64::MAX / 3, member_id: u64::MAX / 5, revision: 1 << 20, raft_term: 2 })
}

fn unknown<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the empty service answers puts and gets of single keys alone"))
}

#[tonic::async_trait]
impl Kv for Echo {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let key = request.into_inner().key;
        let revision = 1 << 20;
        let kv = KeyValue {
            key,
            value: self.value.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            ..KeyValue::default()
        };
        Ok(Response::new(RangeResponse { header: header(), kvs: vec![kv], more: false, count: 1 }))
    }

    type RangeStreamStream = BoxStream<RangeStreamResponse>;

    async fn range_stream(&self, _request: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        unknown()
    }

    async fn put(&self, _request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        unknown()
    }

    async fn txn(&self, _request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        unknown()
    }

    async fn compact(&self, _request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        unknown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_get_is_answered_with_the_key_and_a_value_of_the_size() {
        let echo = Echo { value: value(1, 0, 100) };
        let request = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        let answer = echo.range(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((&answer.kvs[0].key[..], answer.kvs[0].value.len(), answer.count), (&b"k"[..], 100, 1));
        assert!(echo.txn(Request::new(TxnRequest::default())).await.is_err());
    }

    #[tokio::test]
    async fn other_rows_are_refused() {
        let options = crate::options::tests::options(&[]);
        let error = run(Path::new("/no/such"), Row::Watch, &options, 1).await.unwrap_err().to_string();
        assert!(error.starts_with("watch:"), "{error}");
    }
}
