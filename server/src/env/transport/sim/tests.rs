//! Calls over links with conditions.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::BodyExt;
use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle, Runtime};
use tokio::time::Instant;

use super::*;

const ADDRESS: &str = "10.0.0.1:2380";

/// The requests that arrived, by path and body.
type Log = Arc<Mutex<Vec<String>>>;

/// Answers with the request's body, whatever the path.
#[derive(Clone)]
struct Echo(Log);

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let log = self.0.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            log.lock().unwrap().push(format!("{path} {}", String::from_utf8_lossy(&body)));
            Ok(http::Response::new(Body::new(http_body_util::Full::new(body))))
        })
    }
}

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "mainstay.Peer";
}

fn simulate<F: Future<Output = ()>>(run: impl FnOnce(NodeHandle, NodeHandle, Log) -> F) {
    clear_links();
    crate::env::clock::reset();
    Runtime::with_seed_and_config(7, madsim::Config::default()).block_on(async {
        let log = Log::default();
        let nodes = Handle::current();
        let server = nodes.create_node().ip("10.0.0.1".parse().unwrap()).build();
        let client = nodes.create_node().ip("10.0.0.2".parse().unwrap()).build();
        let routes = tonic::service::Routes::new(Echo(log.clone()));
        drop(server.spawn(serve(ADDRESS.parse().unwrap(), routes)));
        tokio::time::sleep(Duration::from_millis(10)).await;
        run(server, client, log).await;
    });
}

/// Calls a method from a node; the answer or the error, and how long it took.
async fn call(client: &NodeHandle, method: &str, body: &'static str) -> (Result<String, BoxError>, Duration) {
    let uri = format!("/mainstay.Peer/{method}");
    let call = client.spawn(async move {
        let began = Instant::now();
        let mut channel = connect(&format!("http://{ADDRESS}"), Duration::from_secs(1)).unwrap();
        let body = Body::new(http_body_util::Full::new(Bytes::from_static(body.as_bytes())));
        let answer = async {
            let response = channel.call(http::Request::post(uri).body(body).unwrap()).await?;
            let bytes = response.into_body().collect().await?.to_bytes();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        (answer.await, began.elapsed())
    });
    call.await.unwrap()
}

#[test]
fn a_small_call_travels_as_one_message_each_way() {
    simulate(|_, client, log| async move {
        let before = NetSim::current().stat().msg_count;
        let (answer, _) = call(&client, "Vote", "hello").await;
        assert_eq!(answer.unwrap(), "hello");
        // One to connect, the request, the response.
        assert_eq!(NetSim::current().stat().msg_count - before, 3);
        assert_eq!(*log.lock().unwrap(), ["/mainstay.Peer/Vote hello"]);
    });
}

#[test]
fn a_slow_link_delays_one_direction() {
    simulate(|server, client, _| async move {
        let delay = Some(Duration::from_secs(3)..Duration::from_secs(4));
        set_link(server.id(), client.id(), LinkConditions { delay, ..LinkConditions::default() });
        let (answer, took) = call(&client, "Vote", "x").await;
        answer.unwrap();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_millis(4_050), "{took:?}");
    });
}

#[test]
fn a_reset_is_an_error_but_not_one_before_anything_was_sent() {
    simulate(|server, client, log| async move {
        let reset = || LinkConditions { reset: 1.0, ..LinkConditions::default() };
        set_link(client.id(), server.id(), reset());
        assert!(!call(&client, "Vote", "lost").await.0.unwrap_err().is::<tonic::ConnectError>());
        clear_links();
        set_link(server.id(), client.id(), reset());
        assert!(!call(&client, "Vote", "heard").await.0.unwrap_err().is::<tonic::ConnectError>());
        clear_links();
        call(&client, "Vote", "answered").await.0.unwrap();
        assert_eq!(*log.lock().unwrap(), ["/mainstay.Peer/Vote heard", "/mainstay.Peer/Vote answered"]);
    });
}

#[test]
fn what_may_be_repeated_arrives_twice_and_commands_do_not() {
    simulate(|server, client, log| async move {
        set_link(client.id(), server.id(), LinkConditions { duplicate: 1.0, ..LinkConditions::default() });
        call(&client, "Vote", "v").await.0.unwrap();
        call(&client, "Forward", "f").await.0.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut log = log.lock().unwrap().clone();
        log.sort();
        assert_eq!(log, ["/mainstay.Peer/Forward f", "/mainstay.Peer/Vote v", "/mainstay.Peer/Vote v"]);
    });
}

#[test]
fn a_bit_turns_over_where_there_are_checksums_and_nowhere_else() {
    simulate(|server, client, log| async move {
        let damages = || LinkConditions { flip: 1.0, ..LinkConditions::default() };
        set_link(client.id(), server.id(), damages());
        assert_ne!(call(&client, "Append", "hello").await.0.unwrap(), "hello");
        assert_eq!(call(&client, "Vote", "hello").await.0.unwrap(), "hello");
        clear_links();
        set_link(server.id(), client.id(), damages());
        assert_ne!(call(&client, "Append", "again").await.0.unwrap(), "again");
        assert_eq!(call(&client, "Vote", "again").await.0.unwrap(), "again");
        let log = log.lock().unwrap().clone();
        assert!(log[0].starts_with("/mainstay.Peer/Append ") && log[0] != "/mainstay.Peer/Append hello", "{log:?}");
        assert_eq!(log[2], "/mainstay.Peer/Append again", "the answer is damaged, and not the request");
    });
}

#[test]
fn what_is_passed_on_is_damaged_apart_from_its_answers() {
    simulate(|server, client, _| async move {
        let damages = || LinkConditions { flip_forwarded: 1.0, ..LinkConditions::default() };
        set_link(client.id(), server.id(), damages());
        assert_ne!(call(&client, "ForwardMany", "hello").await.0.unwrap(), "hello");
        assert_eq!(call(&client, "Append", "hello").await.0.unwrap(), "hello");
        clear_links();
        set_link(server.id(), client.id(), damages());
        assert_eq!(call(&client, "ForwardMany", "again").await.0.unwrap(), "again");
    });
}

#[test]
fn connecting_fails_in_the_ways_of_tcp() {
    simulate(|server, client, log| async move {
        let conditions = |refuse, ignore| LinkConditions { refuse, ignore, ..LinkConditions::default() };
        for (refuse, ignore, least) in [(1.0, 0.0, Duration::ZERO), (0.0, 1.0, Duration::from_secs(1))] {
            set_link(client.id(), server.id(), conditions(refuse, ignore));
            let (answer, took) = call(&client, "Vote", "x").await;
            assert!(answer.unwrap_err().is::<tonic::ConnectError>());
            assert!(took >= least && took < least + Duration::from_millis(10), "{took:?}");
        }
        clear_links();
        // A partition swallows the attempt; one that ends in time lets it through.
        NetSim::current().clog_link(client.id(), server.id());
        let (answer, took) = call(&client, "Vote", "x").await;
        assert!(answer.unwrap_err().is::<tonic::ConnectError>());
        assert!(took >= Duration::from_secs(1), "{took:?}");
        let (later, client_id, server_id) = (client.clone(), client.id(), server.id());
        let waits = tokio::task::spawn(async move { call(&later, "Vote", "through").await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        NetSim::current().unclog_link(client_id, server_id);
        assert_eq!(waits.await.unwrap().0.unwrap(), "through");
        assert_eq!(*log.lock().unwrap(), ["/mainstay.Peer/Vote through"]);
    });
}
