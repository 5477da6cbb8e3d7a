//! The Watch service. It does what the generated one would, but for what a response is: the bytes of events are shared
//! by all who are told of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use mainstay_proto::ExactCodec;
use mainstay_proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server};
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, BoxStream};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tower_service::Service;

use crate::api::Services;
use crate::api::edge::RequestBody;
use crate::watch::SplicedResponse;

/// Serves watches by gRPC.
#[derive(Clone)]
pub(in crate::api) struct WatchService(Arc<Services>);

impl WatchService {
    pub(in crate::api) fn new(services: Arc<Services>) -> Self {
        Self(services)
    }
}

impl NamedService for WatchService {
    const NAME: &'static str = watch_server::SERVICE_NAME;
}

impl Service<Request<RequestBody>> for WatchService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// The service has one method, and the edge lets no other through.
    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let opening = Opening(Arc::clone(&self.0));
        Box::pin(async move {
            // Messages that come in are bounded by the edge.
            let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(usize::MAX);
            Ok(grpc.streaming(opening, request).await)
        })
    }
}

/// Opens one stream.
struct Opening(Arc<Services>);

impl StreamingService<WatchRequest> for Opening {
    type Response = SplicedResponse;
    type ResponseStream = BoxStream<SplicedResponse>;
    type Future = BoxFuture<tonic::Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<WatchRequest>>) -> Self::Future {
        let services = Arc::clone(&self.0);
        Box::pin(async move { Ok(tonic::Response::new(services.open_watches(request).await)) })
    }
}

/// The codec of all services, as far as requests are concerned.
type OrdinaryCodec = ExactCodec<WatchResponse, WatchRequest>;

struct WatchCodec;

struct Splicer;

impl Codec for WatchCodec {
    type Encode = SplicedResponse;
    type Decode = WatchRequest;
    type Encoder = Splicer;
    type Decoder = <OrdinaryCodec as Codec>::Decoder;

    fn encoder(&mut self) -> Splicer {
        Splicer
    }

    fn decoder(&mut self) -> Self::Decoder {
        OrdinaryCodec::default().decoder()
    }
}

impl Encoder for Splicer {
    type Item = SplicedResponse;
    type Error = Status;

    fn encode(&mut self, item: SplicedResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;
    use mainstay_proto::mvccpb::{Event, KeyValue};
    use tonic::codec::EncodeBody;

    use super::*;

    fn response(watch_id: i64) -> WatchResponse {
        let kv = KeyValue { key: "k".into(), value: vec![7; 300].into(), ..KeyValue::default() };
        let event = Event { kv: Some(kv.clone()), prev_kv: Some(kv), ..Event::default() };
        WatchResponse { watch_id, events: vec![event; 3], ..WatchResponse::default() }
    }

    /// Responses that wait leave together, as the messages that a client expects.
    #[tokio::test]
    async fn what_waits_leaves_in_one_piece() {
        let responses: Vec<WatchResponse> = (0..10).map(response).collect();
        let items = stream::iter(responses.clone()).map(|response| Ok::<_, Status>(SplicedResponse::from(response)));
        let spliced = EncodeBody::new_server(WatchCodec.encoder(), items, None, Default::default(), None);
        let items = stream::iter(responses).map(Ok::<_, Status>);
        let ordinary =
            EncodeBody::new_server(OrdinaryCodec::default().encoder(), items, None, Default::default(), None);
        let (mut spliced, mut ordinary) = (pin!(spliced), pin!(ordinary));
        let piece = spliced.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece, ordinary.frame().await.unwrap().unwrap().into_data().unwrap());
        assert!(spliced.frame().await.unwrap().unwrap().is_trailers());
    }
}
