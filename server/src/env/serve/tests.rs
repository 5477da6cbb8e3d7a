use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::routing::{any, post};
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::*;
use crate::admission::GateOptions;
use crate::config::Url;

mod secured;

fn options() -> ServeOptions {
    ServeOptions {
        purpose: Purpose::Client,
        max_concurrent_streams: 7,
        keepalive_interval: None,
        keepalive_timeout: Duration::from_secs(20),
        drain: Duration::from_secs(10),
        connections: ConnectionCount::default(),
        admission: Gate::open(),
        budget: Budget::of(None, 1_572_864),
        placing: Placing::here(),
    }
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn content() -> Content {
    Content::GrpcAndHttp {
        grpc: Router::new().route("/s/m", post(async || "grpc")),
        http: Router::new().route("/page", any(async || "page")).route("/s/m", any(async || "page")),
    }
}

/// A port on which a router answers all.
fn routed(router: Router) -> Content {
    Content::Routed(router)
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    connections: ConnectionCount,
}

async fn run<G: GrpcService>(content: Content<G>, options: ServeOptions) -> Running {
    let mut listeners = bind(&[url("http://127.0.0.1:0")], &SocketOptions::default()).await.unwrap();
    run_on(listeners.remove(0), content, options)
}

fn run_on<G: GrpcService>(listener: Listener, content: Content<G>, options: ServeOptions) -> Running {
    let address = listener.local_address().unwrap();
    let (stop, stopping) = watch::channel(false);
    let connections = options.connections.clone();
    Running { address, stop, task: serve(listener, content, stopping, options), connections }
}

async fn http2_client(address: SocketAddr) -> http2::SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask2(client: &mut http2::SendRequest<Empty<Bytes>>, path: &str, content_type: &str) -> (StatusCode, String) {
    let request = Request::post(format!("http://localhost{path}")).header("content-type", content_type);
    let response = client.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn one_port_speaks_http1_http2_and_grpc() {
    let server = run(content(), options()).await;
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut client, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // gRPC needs HTTP/2, whatever the content type says.
    for content_type in ["text/plain", "application/grpc"] {
        let request = Request::post("/s/m").header("host", "x").header("content-type", content_type);
        let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "page");
    }
    let mut client = http2_client(server.address).await;
    assert_eq!(ask2(&mut client, "/page", "text/plain").await, (StatusCode::OK, "page".to_owned()));
    assert_eq!(ask2(&mut client, "/s/m", "application/json").await, (StatusCode::OK, "page".to_owned()));
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await, (StatusCode::OK, "grpc".to_owned()));
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc+proto").await, (StatusCode::OK, "grpc".to_owned()));
    assert_eq!(ask2(&mut client, "/page", "application/grpc").await.0, StatusCode::NOT_FOUND);
}

/// Answers with what it was asked, by whom, and how it was brought.
#[derive(Clone)]
struct Asked;

impl GrpcService for Asked {
    type Body = Full<Bytes>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn answer(&self, request: Request<RequestBytes>, origin: &Origin) -> Self::Future {
        let brought = match request.body() {
            RequestBytes::Socket(_) => "socket",
            RequestBytes::Boxed(_) => "box",
        };
        let text = format!("{} {:?} {brought} {}", request.uri().path(), origin.caller, request.extensions().len());
        std::future::ready(Ok(Response::new(Full::from(text))))
    }
}

#[tokio::test]
async fn a_service_is_asked_without_a_router_beside_pages() {
    let Content::GrpcAndHttp { http, .. } = content() else { panic!() };
    let server = run(Content::GrpcAndHttp { grpc: Asked, http }, options()).await;
    let mut client = http2_client(server.address).await;
    let asked = ask2(&mut client, "/s/m", "application/grpc").await;
    assert_eq!(asked, (StatusCode::OK, "/s/m Address(127.0.0.1) socket 0".to_owned()));
    assert_eq!(ask2(&mut client, "/page", "text/plain").await, (StatusCode::OK, "page".to_owned()));
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut client, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/s/m").header("host", "x").header("content-type", "application/grpc");
    let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "page");
}

#[test]
fn a_request_under_way_keeps_no_more_than_its_answer() {
    let kept = size_of::<Dispatched<crate::api::EdgeFuture>>();
    assert!(kept <= 160, "{kept} bytes for each request in flight");
}

#[tokio::test]
async fn split_ports_serve_one_of_both() {
    let Content::GrpcAndHttp { grpc, http } = content() else { panic!() };
    let server = run(Content::Grpc(grpc), options()).await;
    let mut client = http2_client(server.address).await;
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await.1, "grpc");
    assert_eq!(ask2(&mut client, "/page", "text/plain").await.0, StatusCode::NOT_FOUND);
    let server = run(routed(http), options()).await;
    let mut client = http2_client(server.address).await;
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await.1, "page");
}

#[tokio::test]
async fn requests_tell_where_they_come_from() {
    let who = async |request: http::Request<axum::body::Body>| {
        request.extensions().get::<Origin>().map(|origin| format!("{:?}", origin.caller)).unwrap_or_default()
    };
    let server = run(Content::Grpc(Router::new().route("/s/m", post(who))), options()).await;
    let mut client = http2_client(server.address).await;
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await.1, "Address(127.0.0.1)");
}

#[tokio::test]
async fn connections_take_room_while_they_last() {
    let metrics = crate::metrics::Metrics::new();
    let budget = Budget::of(None, 1_572_864);
    let bytes = budget.connection();
    // Of the reserve and of the pool the last eighth is for others.
    let pools = GateOptions { pool: 2 * bytes * 8 / 7 + 8, reserve: bytes * 8 / 7 + 8, long_reads: None };
    let admission = Gate::new(pools, &metrics);
    let server = run(content(), ServeOptions { admission: admission.clone(), budget, ..options() }).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = http2_client(server.address).await;
        assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await.0, StatusCode::OK);
        clients.push(client);
    }
    let numbers = admission.numbers();
    assert_eq!((numbers.reserve_held, numbers.held), (bytes, 2 * bytes));
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    let ended = refused.read(&mut [0; 64]).await;
    assert!(!matches!(ended, Ok(1..)), "nobody serves it: {ended:?}");
    clients.pop();
    eventually("the room is given back", || admission.numbers().held == bytes).await;
    let mut client = http2_client(server.address).await;
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_read_of_a_connection_of_http1_is_bounded() {
    let long = "x".repeat(limits::HTTP1_BUFFER_BYTES_LIMITED + 1);
    for (limit, expected) in
        [(None, StatusCode::OK), (Some(Budget::LEAST), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)]
    {
        let server = run(content(), ServeOptions { budget: Budget::of(limit, 1_572_864), ..options() }).await;
        let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
        let (mut client, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/page").header("host", "x").header("long", &long);
        let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), expected, "{limit:?}");
    }
}

#[tokio::test]
async fn the_settings_frame_tells_the_limit_of_streams() {
    let server = run(content(), options()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let settings: BTreeSet<(u16, u32)> = settings
        .chunks_exact(6)
        .map(|pair| {
            let (id, value) = pair.split_at(2);
            (u16::from_be_bytes(id.try_into().unwrap()), u32::from_be_bytes(value.try_into().unwrap()))
        })
        .collect();
    assert!(settings.contains(&(3, 7)), "SETTINGS_MAX_CONCURRENT_STREAMS: {settings:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = bind(&[url("http://127.0.0.1:0")], &SocketOptions::default()).await.unwrap();
    let address = taken[0].local_address().unwrap();
    let error = bind(&[url(&format!("http://{address}"))], &SocketOptions::default()).await.err().unwrap();
    assert_eq!(error.to_string(), format!("listen tcp {address}: bind: address already in use (http://{address})"));

    let error = bind(&[url("http://192.0.2.1:1")], &SocketOptions::default()).await.err().unwrap();
    assert!(error.to_string().contains("http://192.0.2.1:1"), "{error}");
}

#[tokio::test]
async fn a_port_may_be_shared_where_both_say_so() {
    let shared = SocketOptions { reuse_port: true, ..SocketOptions::default() };
    let first = bind(&[url("http://127.0.0.1:0")], &shared).await.unwrap();
    let address = first[0].local_address().unwrap();
    bind(&[url(&format!("http://{address}"))], &shared).await.unwrap();
}

#[tokio::test]
async fn localhost_is_the_ipv4_one() {
    let listeners =
        bind(&[url("http://localhost:0"), url("http://127.0.0.1:0")], &SocketOptions::default()).await.unwrap();
    assert_eq!(listeners.len(), 2);
    assert!(listeners[0].local_address().unwrap().ip().is_loopback());
    assert!(listeners[0].local_address().unwrap().is_ipv4());
}

#[tokio::test]
async fn unix_sockets_are_served_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("localhost:20001");
    let socket = url(&format!("unix://{}", path.display()));
    // A killed process leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = bind(std::slice::from_ref(&socket), &SocketOptions::default()).await.unwrap().remove(0);
    let error = bind(std::slice::from_ref(&socket), &SocketOptions::default()).await.err().unwrap();
    assert!(error.to_string().contains("bind: address already in use"), "{error}");

    let (stop, stopping) = watch::channel(false);
    let task = serve(listener, content(), stopping, options());
    let stream = TokioIo::new(UnixStream::connect(&path).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(ask2(&mut client, "/s/m", "application/grpc").await.1, "grpc");
    stop.send(true).unwrap();
    task.await.unwrap();
    assert!(!path.exists());
}

/// A page that tells when it was asked for, and answers when it is let go.
fn slow_page() -> (Router, mpsc::Receiver<()>, watch::Sender<bool>) {
    let (asked, asking) = mpsc::channel(1);
    let (go, going) = watch::channel(false);
    let page = move || {
        let (asked, mut going) = (asked.clone(), going.clone());
        async move {
            asked.send(()).await.unwrap();
            stopped(&mut going).await;
            "done"
        }
    };
    (Router::new().route("/slow", any(page)), asking, go)
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_takes_no_new_connections() {
    let (page, mut asked, go) = slow_page();
    let server = run(routed(page), options()).await;
    let mut client = http2_client(server.address).await;
    let mut other = client.clone();
    let request = tokio::spawn(async move { ask2(&mut other, "/slow", "text/plain").await });
    asked.recv().await.unwrap();
    assert_eq!(server.connections.get(), 1);

    server.stop.send(true).unwrap();
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
    let told_to_go_away = async {
        let request = || Request::get("http://localhost/other").body(Empty::<Bytes>::new()).unwrap();
        while client.send_request(request()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told_to_go_away).await.unwrap();
    assert!(!server.task.is_finished());

    go.send(true).unwrap();
    assert_eq!(request.await.unwrap(), (StatusCode::OK, "done".to_owned()));
    tokio::time::timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap();
    assert_eq!(server.connections.get(), 0);
}

#[tokio::test]
async fn what_does_not_end_is_cut_off() {
    let (page, mut asked, _go) = slow_page();
    let server = run(routed(page), ServeOptions { drain: Duration::from_millis(50), ..options() }).await;
    let mut client = http2_client(server.address).await;
    let request = tokio::spawn(async move {
        let request = Request::get("http://localhost/slow").body(Empty::<Bytes>::new()).unwrap();
        client.send_request(request).await.is_err()
    });
    asked.recv().await.unwrap();
    server.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap();
    assert!(request.await.unwrap());
    eventually("all are gone", || server.connections.get() == 0).await;
}

#[tokio::test]
async fn a_lost_owner_is_a_stop() {
    let server = run(content(), options()).await;
    drop(server.stop);
    tokio::time::timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap();
}
