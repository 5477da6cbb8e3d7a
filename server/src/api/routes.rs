use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use mainstay_proto::etcdserverpb::auth_server::AuthServer;
use mainstay_proto::etcdserverpb::cluster_server::ClusterServer;
use mainstay_proto::etcdserverpb::kv_server::KvServer;
use mainstay_proto::etcdserverpb::lease_server::LeaseServer;
use mainstay_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use mainstay_proto::health::health_server::HealthServer;
use mainstay_proto::v3electionpb::election_server::ElectionServer;
use mainstay_proto::v3lockpb::lock_server::LockServer;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_service::Service;

use super::Services;
use super::concurrency::Elections;
use super::edge::{self, Edge, RequestBody};
use super::watch::WatchService;

/// Every gRPC service, without a transport.
///
/// Its fallback answers gRPC requests for services that do not exist, and anything else by 404; a router
/// that is merged with it must not have a fallback of its own.
pub fn routes(services: Arc<Services>) -> Routes {
    // Messages that come in are bounded by the edge, in etcd's words; those that go out are not.
    const UNBOUNDED: usize = usize::MAX;
    let of = || Arc::clone(&services);
    let router = Router::new().fallback(unknown_service);
    let router = route(router, KvServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    let router = route(router, WatchService::new(of()), &services);
    let router = route(router, LeaseServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    let router = route(router, ClusterServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    let router = route(router, MaintenanceServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    let router = route(router, AuthServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    let router = route(router, LockServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    let elections = ElectionServer::new(Elections(of())).max_decoding_message_size(UNBOUNDED);
    let router = route(router, elections, &services);
    let router = route(router, HealthServer::from_arc(of()).max_decoding_message_size(UNBOUNDED), &services);
    Routes::from(router).prepare()
}

fn route<S>(router: Router, service: S, services: &Arc<Services>) -> Router
where
    S: Service<
            Request<RequestBody>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), Edge::new(service, services))
}

async fn unknown_service(uri: Uri, headers: HeaderMap) -> Response<HttpBody> {
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return edge::unknown(uri.path()).into_http();
    }
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
