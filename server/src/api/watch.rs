//! Watches: any number of them over one stream.

use futures_util::stream;
use mainstay_proto::etcdserverpb::watch_server::Watch;
use mainstay_proto::etcdserverpb::{WatchRequest, WatchResponse};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::header::header;
use super::status::ApiError;
use crate::raft::Gateway;
use crate::watch::{WatchStream, WatchStreamEnd};

#[tonic::async_trait]
impl Watch for Services {
    type WatchStream = BoxStream<WatchResponse>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let session = Session {
            watches: self.hub.open_stream().await,
            requests: request.into_inner(),
            gateway: self.gateway.clone(),
        };
        Ok(Response::new(Box::pin(stream::try_unfold(session, Session::next))))
    }
}

/// One client's stream; it has no task of its own and moves when its responses are asked for.
struct Session {
    watches: WatchStream,
    requests: Streaming<WatchRequest>,
    gateway: Gateway,
}

impl Session {
    /// The next response; `None` once the client has closed its side, as in etcd.
    async fn next(mut self) -> Result<Option<(WatchResponse, Self)>, Status> {
        loop {
            if let Some(mut response) = self.watches.take().await.map_err(ended)? {
                let revision = response.header.map_or(0, |header| header.revision);
                response.header = Some(header(&self.gateway, revision));
                return Ok(Some((response, self)));
            }
            tokio::select! {
                // Requests first: a client that asks to cancel must be heard while events pour out.
                // How many may be ahead of their answers is bounded by `takes_requests`.
                biased;
                request = self.requests.message(), if self.watches.takes_requests() => match request? {
                    Some(request) => self.watches.request(request).await,
                    None => return Ok(None),
                },
                arrival = self.watches.arrival() => arrival.map_err(ended)?,
            }
        }
    }
}

fn ended(end: WatchStreamEnd) -> Status {
    match end {
        WatchStreamEnd::Stopped => ApiError::Stopped.into(),
        WatchStreamEnd::Unreadable => Status::unavailable(end.to_string()),
    }
}
