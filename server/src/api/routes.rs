use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use mainstay_proto::etcdserverpb::auth_server::{self, AuthServer};
use mainstay_proto::etcdserverpb::cluster_server::{self, ClusterServer};
use mainstay_proto::etcdserverpb::kv_server::{self, KvServer};
use mainstay_proto::etcdserverpb::lease_server::{self, LeaseServer};
use mainstay_proto::etcdserverpb::maintenance_server::{self, MaintenanceServer};
use mainstay_proto::etcdserverpb::watch_server;
use mainstay_proto::health::health_server::{self, HealthServer};
use mainstay_proto::v3electionpb::election_server::{self, ElectionServer};
use mainstay_proto::v3lockpb::lock_server::{self, LockServer};
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;

use super::Services;
use super::concurrency::Elections;
use super::edge::{self, Edge, EdgeFuture, Generated, ResponseBody};
use super::watch::WatchService;
use crate::admission::Origin;
use crate::env::{GrpcService, RequestBytes};

/// Every gRPC service, for a port of its own: a request finds its service by a look at its path, and neither it nor a
/// body is boxed on the way there and back. Clones are the same.
#[derive(Clone)]
pub struct GrpcServices(Arc<Edges>);

/// The services behind the rules for all methods.
struct Edges {
    kv: Edge<KvServer<Services>>,
    watch: Edge<WatchService>,
    lease: Edge<LeaseServer<Services>>,
    cluster: Edge<ClusterServer<Services>>,
    maintenance: Edge<MaintenanceServer<Services>>,
    auth: Edge<AuthServer<Services>>,
    lock: Edge<LockServer<Services>>,
    election: Edge<ElectionServer<Elections>>,
    health: Edge<HealthServer<Services>>,
}

impl Edges {
    fn new(services: &Arc<Services>) -> Self {
        // Messages that come in are bounded by the edge, in etcd's words; those that go out are not.
        const UNBOUNDED: usize = usize::MAX;
        let of = || Arc::clone(services);
        let kv = KvServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        let watch = WatchService::new(of());
        let lease = LeaseServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        let cluster = ClusterServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        let maintenance = MaintenanceServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        let auth = AuthServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        let lock = LockServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        let election = ElectionServer::new(Elections(of())).max_decoding_message_size(UNBOUNDED);
        let health = HealthServer::from_arc(of()).max_decoding_message_size(UNBOUNDED);
        Self {
            kv: Edge::new(kv, services),
            watch: Edge::new(watch, services),
            lease: Edge::new(lease, services),
            cluster: Edge::new(cluster, services),
            maintenance: Edge::new(maintenance, services),
            auth: Edge::new(auth, services),
            lock: Edge::new(lock, services),
            election: Edge::new(election, services),
            health: Edge::new(health, services),
        }
    }
}

impl GrpcServices {
    /// Puts them together.
    pub fn new(services: &Arc<Services>) -> Self {
        Self(Arc::new(Edges::new(services)))
    }
}

impl GrpcService for GrpcServices {
    type Body = ResponseBody;
    type Error = Status;
    type Future = EdgeFuture;

    fn answer(&self, request: Request<RequestBytes>, origin: &Origin) -> EdgeFuture {
        let edges = &*self.0;
        match service_of(request.uri().path()) {
            Some(kv_server::SERVICE_NAME) => edges.kv.serve(request, origin),
            Some(watch_server::SERVICE_NAME) => edges.watch.serve(request, origin),
            Some(lease_server::SERVICE_NAME) => edges.lease.serve(request, origin),
            Some(cluster_server::SERVICE_NAME) => edges.cluster.serve(request, origin),
            Some(maintenance_server::SERVICE_NAME) => edges.maintenance.serve(request, origin),
            Some(auth_server::SERVICE_NAME) => edges.auth.serve(request, origin),
            Some(lock_server::SERVICE_NAME) => edges.lock.serve(request, origin),
            Some(election_server::SERVICE_NAME) => edges.election.serve(request, origin),
            Some(health_server::SERVICE_NAME) => edges.health.serve(request, origin),
            _ => EdgeFuture::answered(unknown_service(request.uri(), request.headers())),
        }
    }
}

/// The service that a path names, as a router finds it: its first segment, where anything is behind it.
fn service_of(path: &str) -> Option<&str> {
    let (service, rest) = path.strip_prefix('/')?.split_once('/')?;
    (!rest.is_empty()).then_some(service)
}

/// Every gRPC service, without a transport, for the JSON gateway and for simulations.
///
/// Its fallback answers gRPC requests for services that do not exist, and anything else by 404; a router
/// that is merged with it must not have a fallback of its own.
pub fn routes(services: &Arc<Services>) -> Routes {
    let router = Router::new().fallback(fallback);
    let Edges { kv, watch, lease, cluster, maintenance, auth, lock, election, health } = Edges::new(services);
    let router = route(route(route(router, kv), watch), lease);
    let router = route(route(route(router, cluster), maintenance), auth);
    let router = route(route(route(router, lock), election), health);
    Routes::from(router).prepare()
}

fn route<S: Generated + NamedService + Sync>(router: Router, edge: Edge<S>) -> Router {
    router.route_service(&format!("/{}/{{*method}}", S::NAME), edge)
}

async fn fallback(uri: Uri, headers: HeaderMap) -> Response<HttpBody> {
    unknown_service(&uri, &headers)
}

fn unknown_service<B: Default>(uri: &Uri, headers: &HeaderMap) -> Response<B> {
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return edge::unknown(uri.path()).into_http();
    }
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_as_by_a_router() {
        for (path, service) in [
            ("/etcdserverpb.KV/Put", Some("etcdserverpb.KV")),
            ("/etcdserverpb.KV/Range/x", Some("etcdserverpb.KV")),
            ("/etcdserverpb.KV//", Some("etcdserverpb.KV")),
            ("/etcdserverpb.KV/", None),
            ("/etcdserverpb.KV", None),
            ("etcdserverpb.KV/Put", None),
            ("//Put", Some("")),
            ("/", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(service_of(path), service, "{path}");
        }
    }

    #[test]
    fn who_asks_for_no_service_is_told_in_his_words() {
        let told = |path: &'static str, kind: Option<&'static str>| {
            let kind = kind.map(|kind| (CONTENT_TYPE, http::HeaderValue::from_static(kind)));
            let response: Response<ResponseBody> =
                unknown_service(&Uri::from_static(path), &HeaderMap::from_iter(kind));
            (response.status(), Status::from_header_map(response.headers()).map(|status| status.message().to_owned()))
        };
        let unknown = |text: &str| (StatusCode::OK, Some(text.to_owned()));
        assert_eq!(told("/no.Such/Method", Some("application/grpc")), unknown("unknown service no.Such"));
        assert_eq!(told("/nothing", Some("application/grpc+proto")), unknown("malformed method name: \"/nothing\""));
        for kind in [None, Some("application/json")] {
            assert_eq!(told("/no.Such/Method", kind), (StatusCode::NOT_FOUND, None));
        }
    }
}
