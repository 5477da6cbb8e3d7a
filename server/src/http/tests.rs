use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use mainstay_proto::etcdserverpb::AlarmType;
use tower::ServiceExt;

use super::{Access, Check, JsonGateway, Probe, Site, client_router, metrics_router};
use crate::admission::{Gate, GateOptions};
use crate::metrics::Metrics;

/// A node as the pages see it.
#[derive(Clone)]
struct Node {
    leader: bool,
    learner: bool,
    alarms: Vec<AlarmType>,
    linearizable: Result<(), String>,
    serializable: Result<(), String>,
    cluster_version: Option<&'static str>,
}

const HEALTHY: Node = Node {
    leader: true,
    learner: false,
    alarms: Vec::new(),
    linearizable: Ok(()),
    serializable: Ok(()),
    cluster_version: Some("3.7.0"),
};

fn check(result: Result<(), String>) -> Check {
    Box::new(move || Box::pin(std::future::ready(result.clone())))
}

fn site(node: Node) -> Arc<Site> {
    let metrics = Metrics::new();
    let scraped = Arc::clone(&metrics);
    Arc::new(Site {
        probe: Probe {
            has_leader: Box::new(move || node.leader),
            is_learner: Box::new(move || node.learner),
            alarms: Box::new(move || node.alarms.clone()),
            linearizable_read: check(node.linearizable),
            serializable_read: check(node.serializable),
            cluster_version: Box::new(move || node.cluster_version.map(str::to_owned)),
        },
        metrics,
        before_scrape: Box::new(move || scraped.set_quota(7)),
        command_line: vec!["mainstay".to_owned(), "--name=m1".to_owned()],
        gateway: Some(JsonGateway::new(Router::new(), 1 << 20, Gate::open())),
    })
}

fn open() -> Access {
    Access::new(&["*".to_owned()], &["*".to_owned()])
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn ask(router: Router, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("host", "localhost:2379");
    send(router, request.body(Body::empty()).unwrap()).await
}

async fn get(node: &Node, path: &str) -> (u16, String) {
    let answer = ask(client_router(site(node.clone()), open()), Method::GET, path).await;
    (answer.status, answer.body)
}

#[track_caller]
fn is(answer: (u16, String), status: u16, body: &str) {
    assert_eq!(answer, (status, body.to_owned()));
}

#[tokio::test]
async fn health_says_what_is_wrong_first() {
    let well = r#"{"health":"true","reason":""}"#;
    let ill = |reason: &str| format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
    is(get(&HEALTHY, "/health").await, 200, well);

    let full = Node { alarms: vec![AlarmType::Nospace], leader: false, ..HEALTHY };
    is(get(&full, "/health").await, 503, &ill("ALARM NOSPACE"));
    is(get(&full, "/health?exclude=NOSPACE").await, 503, &ill("RAFT NO LEADER"));
    is(get(&full, "/health?exclude=NOSPACE&serializable=true").await, 200, well);
    is(get(&full, "/health?exclude=CORRUPT").await, 503, &ill("ALARM NOSPACE"));

    let both = Node { alarms: vec![AlarmType::Nospace, AlarmType::Corrupt], ..HEALTHY };
    is(get(&both, "/health?exclude=NOSPACE").await, 503, &ill("ALARM CORRUPT"));
    is(get(&both, "/health?exclude=NOSPACE&exclude=CORRUPT").await, 200, well);
    let strange = Node { alarms: vec![AlarmType::None], ..HEALTHY };
    is(get(&strange, "/health").await, 503, &ill("ALARM UNKNOWN"));

    let cut_off = Node { linearizable: Err("etcdserver: leader changed".to_owned()), ..HEALTHY };
    is(get(&cut_off, "/health").await, 503, &ill("RANGE ERROR:etcdserver: leader changed"));
    is(get(&cut_off, "/health?serializable=true").await, 200, well);
    let broken = Node { serializable: Err("engine: gone".to_owned()), ..HEALTHY };
    is(get(&broken, "/health?serializable=true").await, 503, &ill("RANGE ERROR:engine: gone"));
    is(get(&broken, "/health?serializable=false").await, 200, well);
}

#[tokio::test]
async fn health_is_plain_text_and_counted() {
    let good = site(HEALTHY);
    let answer = ask(client_router(Arc::clone(&good), open()), Method::GET, "/health").await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    let bad = site(Node { leader: false, ..HEALTHY });
    let answer = ask(client_router(Arc::clone(&bad), open()), Method::GET, "/health").await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!((good.metrics.server.health_success.get(), good.metrics.server.health_failures.get()), (1, 0));
    assert_eq!((bad.metrics.server.health_success.get(), bad.metrics.server.health_failures.get()), (0, 1));
}

#[tokio::test]
async fn only_get_is_allowed_where_etcd_says_so() {
    for path in
        ["/health", "/livez", "/readyz", "/livez/serializable_read", "/readyz/non_learner", "/version", "/debug/vars"]
    {
        for method in [Method::POST, Method::PUT, Method::HEAD, Method::DELETE] {
            let answer = ask(client_router(site(HEALTHY), open()), method.clone(), path).await;
            assert_eq!((answer.status, answer.header("allow")), (405, "GET"), "{method} {path}");
            // The body of an answer to HEAD is dropped on its way.
            let body = if method == Method::HEAD { "" } else { "Method Not Allowed\n" };
            assert_eq!(answer.body, body, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn livez_reads_here_and_readyz_checks_the_cluster() {
    is(get(&HEALTHY, "/livez").await, 200, "ok\n");
    is(get(&HEALTHY, "/readyz").await, 200, "ok\n");
    is(get(&HEALTHY, "/livez?verbose").await, 200, "[+]serializable_read ok\nok\n");
    is(
        get(&HEALTHY, "/readyz?verbose").await,
        200,
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
    );
    let cut_off = Node { leader: false, linearizable: Err("etcdserver: no leader".to_owned()), ..HEALTHY };
    is(get(&cut_off, "/livez").await, 200, "ok\n");
    is(
        get(&cut_off, "/readyz").await,
        503,
        "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: no leader\n\
         [+]non_learner ok\n\n",
    );
    is(get(&cut_off, "/readyz?exclude=linearizable_read").await, 200, "ok\n");
    is(get(&cut_off, "/readyz?exclude=linearizable_read&exclude=other").await, 200, "ok\n");
    is(get(&cut_off, "/readyz/linearizable_read").await, 503, "[-]linearizable_read failed: etcdserver: no leader\n\n");
    is(get(&cut_off, "/readyz/serializable_read?verbose").await, 200, "[+]serializable_read ok\nok\n");
    let corrupt = Node { alarms: vec![AlarmType::Corrupt], ..HEALTHY };
    is(get(&corrupt, "/readyz/data_corruption").await, 503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n");
    is(get(&corrupt, "/livez").await, 200, "ok\n");
    let full = Node { alarms: vec![AlarmType::Nospace], ..HEALTHY };
    is(get(&full, "/readyz").await, 200, "ok\n");
    let learner = Node { learner: true, ..HEALTHY };
    is(get(&learner, "/readyz/non_learner").await, 503, "[-]non_learner failed: not supported for learner\n\n");
    let broken = Node { serializable: Err("engine: gone".to_owned()), ..HEALTHY };
    is(get(&broken, "/livez").await, 503, "[-]serializable_read failed: engine: gone\n\n");
}

#[tokio::test]
async fn checks_are_counted() {
    let site = site(Node { learner: true, ..HEALTHY });
    ask(client_router(Arc::clone(&site), open()), Method::GET, "/readyz").await;
    let text = String::from_utf8(site.metrics.text()).unwrap();
    for line in [
        r#"etcd_server_healthcheck{name="non_learner",type="readyz"} 0"#,
        r#"etcd_server_healthcheck{name="linearizable_read",type="readyz"} 1"#,
        r#"etcd_server_healthchecks_total{name="non_learner",status="error",type="readyz"} 1"#,
        r#"etcd_server_healthchecks_total{name="data_corruption",status="success",type="readyz"} 1"#,
    ] {
        assert!(text.lines().any(|one| one == line), "{line}");
    }
}

#[tokio::test]
async fn versions_are_etcds() {
    let answer = ask(client_router(site(HEALTHY), open()), Method::GET, "/version").await;
    assert_eq!(answer.body, r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#);
    assert_eq!(answer.header("content-type"), "application/json");
    let early = Node { cluster_version: None, ..HEALTHY };
    is(get(&early, "/version").await, 200, r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#);
}

#[tokio::test]
async fn metrics_are_brought_up_to_date_and_printed() {
    let answer = ask(client_router(site(HEALTHY), open()), Method::GET, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.body.lines().any(|line| line == "etcd_server_quota_backend_bytes 7"));
    assert!(answer.body.lines().any(|line| line == "promhttp_metric_handler_requests_in_flight 1"));
}

#[tokio::test]
async fn variables_are_an_object() {
    let (status, body) = get(&HEALTHY, "/debug/vars").await;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(value["cmdline"], serde_json::json!(["mainstay", "--name=m1"]));
    assert!(value["memstats"].is_object());
}

#[tokio::test]
async fn other_paths_are_not_found() {
    for path in [
        "/",
        "/v2/keys/foo",
        "/v2",
        "/healthz",
        "/health/x",
        "/livez/other",
        "/readyz/",
        "/debug/requests",
        "/v3alpha/kv/put",
    ] {
        is(get(&HEALTHY, path).await, 404, "404 page not found\n");
    }
    let answer = ask(client_router(site(HEALTHY), open()), Method::POST, "/v3/kv/nothing").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"code":5,"message":"Not Found"}"#));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn the_metrics_port_shows_less() {
    for (path, status) in [
        ("/metrics", 200),
        ("/health", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/readyz/non_learner", 200),
        ("/version", 404),
        ("/debug/vars", 404),
        ("/v3/kv/range", 404),
        ("/", 404),
    ] {
        let answer = ask(metrics_router(site(HEALTHY)), Method::GET, path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(status == 200 || answer.body == "404 page not found\n", "{path}");
    }
}

#[tokio::test]
async fn json_values_take_room_while_they_are_read() {
    let admission = Gate::new(GateOptions { pool: 256 << 10, reserve: 1 << 10, long_reads: None }, &Metrics::new());
    let gateway = JsonGateway::new(Router::new(), 1 << 20, admission.clone());
    // There is nobody behind it: whoever is let through is told so.
    for (bytes, told) in [(1 << 10, "the method gave no message"), (100 << 10, "etcdserver: too many requests")] {
        let value = format!(r#"{{"key":"YQ==","value":"{}"}}"#, "A".repeat(bytes));
        let request = Request::builder().method(Method::POST).uri("/v3/kv/put").body(Body::from(value)).unwrap();
        let response = gateway.clone().respond("kv/put", request).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(told), "{bytes}: {body}");
        assert_eq!(admission.numbers().held, 0, "{bytes}");
    }
}

#[tokio::test]
async fn hosts_that_are_not_on_the_list_are_rejected() {
    let listed = || Access::new(&["localhost".to_owned()], &[]);
    let answer = ask(client_router(site(HEALTHY), listed()), Method::GET, "/version").await;
    assert_eq!(answer.status, 200);
    let request = Request::builder().uri("/version").header("host", "evil.example:2379").body(Body::empty()).unwrap();
    let answer = send(client_router(site(HEALTHY), listed()), request).await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST.as_u16());
    assert!(answer.body.contains("evil.example"), "{}", answer.body);
}

#[tokio::test]
async fn browsers_are_told_which_origins_may_call() {
    let request = |origin: &str, method: Method| {
        let request = Request::builder().uri("/version").method(method).header("origin", origin);
        request.header("host", "localhost").body(Body::empty()).unwrap()
    };
    let answer = send(client_router(site(HEALTHY), open()), request("http://any:1", Method::GET)).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-methods"), "POST, GET, OPTIONS, PUT, DELETE");
    assert_eq!(answer.header("access-control-allow-headers"), "accept, content-type, authorization");

    let some = || Access::new(&[], &["http://a:1".to_owned()]);
    let answer = send(client_router(site(HEALTHY), some()), request("http://a:1", Method::GET)).await;
    assert_eq!(answer.header("access-control-allow-origin"), "http://a:1");
    let answer = send(client_router(site(HEALTHY), some()), request("http://b:1", Method::GET)).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
    let answer = send(client_router(site(HEALTHY), some()), request("http://a:1", Method::OPTIONS)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("access-control-allow-origin"), "http://a:1");
}
