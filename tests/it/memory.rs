//! A member that may take little memory, and clients that would take all of it: by what they ask for, and by what they
//! have it keep.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, RangeRequest,
    RangeResponse, WatchCreateRequest, WatchRequest,
};
use mainstay_tests::wire::{Connection, Reply, Unread, frame};
use mainstay_tests::{Server, binary};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const LIMIT_KIB: u64 = 256 * 1024;
/// Slow heartbeats: on a machine that is busy with other tests the member is not overloaded for that. And a log that is
/// purged as the keys come.
const FLAGS: [&str; 5] = [
    "--memory-limit=256Mi",
    "--heartbeat-interval=1000",
    "--election-timeout=10000",
    "--snapshot-count=50",
    "--snapshot-catchup-entries=10",
];

const KEYS: u32 = 200;
const VALUE_BYTES: usize = 1 << 20;

/// Where those call from who ask for everything, and one who asks for little.
const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const MODEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// What a connection takes in before it is read: the least that there is.
const WINDOW: u32 = 65_535;

/// How many clients write keys until the member takes no more, how many keys each at once, and within what time.
const FILLERS: usize = 6;
const KEYS_AT_ONCE: usize = 100;
const FULL_WITHIN: Duration = Duration::from_secs(240);
/// So many refusals one after the other say that there is no memory: room there is again in a moment.
const REFUSALS: usize = 10;
/// How many clients put large values, and how many list everything, when it is full.
const JSON_WRITERS: usize = 64;
const JSON_READERS: usize = 32;

/// For how long they ask.
const LASTING: Duration = Duration::from_secs(10);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);
/// How long whoever asks for little may wait.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// etcd has no such limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_stays_below_its_limit_and_serves_who_asks_for_little() {
    let mut server = Server::start(&binary(), &FLAGS).await.unwrap();
    let address = server.address();
    fill(address).await;

    let until = Instant::now() + LASTING;
    let (_connections, _watches) = thousand_watches(address).await;
    let mut greedy = JoinSet::new();
    // All of it, a part of it, piece by piece, and none of it.
    for (times, path, limit) in [(16, RANGE, 0), (4, RANGE, 3), (8, RANGE_STREAM, 0)] {
        for _ in 0..times {
            greedy.spawn(list(address, path, limit, until));
        }
    }
    for _ in 0..2 {
        greedy.spawn(list_unread(address, until));
    }
    for first in [0, KEYS / 2] {
        greedy.spawn(put(address, first, until));
    }
    let (reads, renewals) = ask_for_little(address, until).await;
    let mut refused = 0;
    while let Some(done) = greedy.join_next().await {
        refused += done.unwrap();
    }

    assert!(server.is_alive(), "the member has ended:\n{}", server.log_tail());
    let peak = peak_kib(server.id());
    assert!(peak < LIMIT_KIB, "it took {peak} KiB of {LIMIT_KIB}");
    assert!(refused > 0, "nobody was refused: the load was too small");
    assert!(reads >= 20 && renewals >= 5, "{reads} reads and {renewals} renewals of a lease");
}

/// What is without a budget is what fills the memory, and requests as JSON, which take most of it, come then: what they and
/// all parts with a budget may take must still be there.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_keys_fill_its_memory_stays_below_its_limit() {
    let mut server = Server::start(&binary(), &FLAGS).await.unwrap();
    let address = server.address();
    let small = PutRequest { key: "small".into(), value: "value".into(), ..PutRequest::default() };
    assert!(call(&connect(MODEST, address).await, PUT, &small).await.is_ok());
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        fillers.spawn(fill_with_keys(address, filler));
    }
    let keys: usize = fillers.join_all().await.into_iter().sum();
    let refused = refused_for_memory(address).await;
    assert!(refused > 0, "{keys} keys did not fill it");

    let until = Instant::now() + LASTING;
    let mut greedy = JoinSet::new();
    for writer in 0..JSON_WRITERS {
        greedy.spawn(put_json(address, writer, until));
    }
    for _ in 0..JSON_READERS {
        greedy.spawn(list_json(address, until));
    }
    let asked: usize = greedy.join_all().await.into_iter().sum();

    assert!(server.is_alive(), "the member has ended:\n{}", server.log_tail());
    let peak = peak_kib(server.id());
    eprintln!("{peak} KiB of {LIMIT_KIB} at most, with {keys} keys, asked {asked} times");
    assert!(peak < LIMIT_KIB, "it took {peak} KiB of {LIMIT_KIB}, with {keys} keys, when it was asked {asked} times");
    assert!(asked > JSON_WRITERS + JSON_READERS, "it was asked {asked} times: the load was too small");
    let read = RangeRequest { key: "small".into(), ..RangeRequest::default() };
    let connection = connect(MODEST, address).await;
    let reply = timeout(ANSWERED_WITHIN, call(&connection, RANGE, &read)).await.expect("a read is answered");
    assert!(reply.is_ok(), "{reply:?}");
    assert_eq!(RangeResponse::decode(reply.messages[0].clone()).unwrap().kvs[0].value, "value");
}

/// Puts keys until there is no memory for more; how many it put.
async fn fill_with_keys(address: SocketAddr, filler: usize) -> usize {
    let (begun, mut json) = (Instant::now(), Json { address, connection: None });
    let (mut keys, mut refusals) = (0, 0);
    for round in 0.. {
        // All of it is base64 as it stands. What differs comes first: what keys have in common the index keeps once.
        let key = |place: usize| format!("{filler:04}{round:08}{place:04}{}", "x".repeat(584));
        let put = |place| format!(r#"{{"requestPut":{{"key":"{}","value":"AAAA"}}}}"#, key(place));
        let puts: Vec<String> = (0..KEYS_AT_ONCE).map(put).collect();
        let body = format!(r#"{{"success":[{}]}}"#, puts.join(","));
        match json.ask("POST /v3/kv/txn", &body).await {
            Some((200, _)) => (keys, refusals) = (keys + KEYS_AT_ONCE, 0),
            _ => {
                refusals += 1;
                sleep(5 * PAUSE).await;
            }
        }
        if refusals == REFUSALS || begun.elapsed() > FULL_WITHIN {
            break;
        }
    }
    keys
}

/// How often the member has refused what would have made its store larger.
async fn refused_for_memory(address: SocketAddr) -> u64 {
    let (status, page) = Json { address, connection: None }.ask("GET /metrics", "").await.unwrap();
    assert_eq!(status, 200);
    let name = r#"mainstay_server_requests_refused_total{reason="memory"} "#;
    let count = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    count.parse().unwrap()
}

/// Puts large values again and again; how often.
async fn put_json(address: SocketAddr, writer: usize, until: Instant) -> usize {
    let mut json = Json { address, connection: None };
    let value = "A".repeat(1_333_332);
    let body = format!(r#"{{"key":"{writer:04}","value":"{value}"}}"#);
    let mut asked = 0;
    while Instant::now() < until {
        json.ask("POST /v3/kv/put", &body).await;
        asked += 1;
        sleep(PAUSE).await;
    }
    asked
}

/// Lists everything again and again, each time on another connection; how often.
async fn list_json(address: SocketAddr, until: Instant) -> usize {
    let mut asked = 0;
    while Instant::now() < until {
        let everything = r#"{"key":"AA==","range_end":"AA=="}"#;
        Json { address, connection: None }.ask("POST /v3/kv/range", everything).await;
        asked += 1;
        sleep(PAUSE).await;
    }
    asked
}

/// A client that has only HTTP/1 and JSON.
struct Json {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Json {
    /// Asks; the status and what came with it. `None` where the connection broke: who is refused is not read to the end.
    async fn ask(&mut self, what: &str, body: &str) -> Option<(u16, String)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.address).await.ok()?),
        };
        let head = format!("{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.write_all(head.as_bytes()).await.ok()?;
        connection.write_all(body.as_bytes()).await.ok()?;
        let (mut status, mut length) = (None, None);
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            match (line.trim_end(), status) {
                ("", _) => break,
                (line, None) => status = Some(line.split(' ').nth(1)?.parse().ok()?),
                (line, Some(_)) => {
                    let (name, value) = line.split_once(':')?;
                    if name.eq_ignore_ascii_case("content-length") {
                        length = Some(value.trim().parse().ok()?);
                    }
                }
            }
        }
        let mut answer = vec![0; length?];
        connection.read_exact(&mut answer).await.ok()?;
        self.connection = Some(connection);
        Some((status?, String::from_utf8(answer).ok()?))
    }
}

/// Values that cannot be compressed.
fn value(seed: u32) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let mut value = BytesMut::with_capacity(VALUE_BYTES);
    while value.len() < VALUE_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.extend_from_slice(&(state >> 32).to_le_bytes()[..4]);
    }
    value.freeze()
}

fn put_request(key: u32, seed: u32) -> Bytes {
    let request = PutRequest { key: format!("big/{key:03}").into(), value: value(seed), ..PutRequest::default() };
    frame(&request.encode_to_vec())
}

fn everything(limit: i64) -> Bytes {
    let request = RangeRequest { key: "big/".into(), range_end: "big0".into(), limit, ..RangeRequest::default() };
    frame(&request.encode_to_vec())
}

async fn connect(source: IpAddr, address: SocketAddr) -> Connection {
    Connection::open_from(source, address, WINDOW).await.unwrap()
}

async fn call(connection: &Connection, path: &str, request: &impl Message) -> Reply {
    connection.call(path, &HeaderMap::new(), frame(&request.encode_to_vec())).await
}

fn is_refused(reply: &Reply) -> bool {
    reply.text == "etcdserver: too many requests"
}

async fn fill(address: SocketAddr) {
    let connection = connect(GREEDY, address).await;
    for key in 0..KEYS {
        let request = put_request(key, key);
        loop {
            let reply = connection.call(PUT, &HeaderMap::new(), request.clone()).await;
            if reply.is_ok() {
                break;
            }
            assert!(is_refused(&reply), "{reply:?}");
            sleep(PAUSE).await;
        }
    }
    let small = PutRequest { key: "small".into(), value: "value".into(), ..PutRequest::default() };
    assert!(call(&connection, PUT, &small).await.is_ok());
}

/// Watches that are never read, on some connections.
async fn thousand_watches(address: SocketAddr) -> (Vec<Connection>, Vec<Unread>) {
    let everything = WatchCreateRequest { key: "big/".into(), range_end: "big0".into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(everything)) };
    let ten = Bytes::from(frame(&request.encode_to_vec()).repeat(10));
    let (mut connections, mut watches) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let connection = connect(GREEDY, address).await;
        for _ in 0..5 {
            watches.push(connection.leave_unread(WATCH, &HeaderMap::new(), ten.clone()).await.unwrap());
        }
        connections.push(connection);
    }
    (connections, watches)
}

/// Lists again and again; how often that was refused.
async fn list(address: SocketAddr, path: &'static str, limit: i64, until: Instant) -> u64 {
    let connection = connect(GREEDY, address).await;
    let mut refused = 0;
    while Instant::now() < until {
        let reply = connection.call_and_forget(path, &HeaderMap::new(), everything(limit)).await;
        refused += u64::from(is_refused(&reply));
        sleep(PAUSE).await;
    }
    refused
}

/// Lists, and reads nothing of it.
async fn list_unread(address: SocketAddr, until: Instant) -> u64 {
    let connection = connect(GREEDY, address).await;
    let mut lists = Vec::new();
    for (path, limit) in [(RANGE, 1), (RANGE_STREAM, 0)] {
        lists.push(connection.leave_unread(path, &HeaderMap::new(), everything(limit)).await.unwrap());
    }
    tokio::time::sleep_until(until).await;
    0
}

/// Puts other values; how often that was refused.
async fn put(address: SocketAddr, first: u32, until: Instant) -> u64 {
    let connection = connect(GREEDY, address).await;
    let mut refused = 0;
    for round in 0.. {
        if Instant::now() >= until {
            break;
        }
        let reply = connection.call(PUT, &HeaderMap::new(), put_request(first + round % 10, round)).await;
        refused += u64::from(is_refused(&reply));
        sleep(5 * PAUSE).await;
    }
    refused
}

/// Reads a small key and keeps a lease alive; how often each.
async fn ask_for_little(address: SocketAddr, until: Instant) -> (u64, u64) {
    let connection = connect(MODEST, address).await;
    let grant = LeaseGrantRequest { ttl: 30, ..LeaseGrantRequest::default() };
    let granted = timeout(ANSWERED_WITHIN, call(&connection, "/etcdserverpb.Lease/LeaseGrant", &grant)).await.unwrap();
    assert!(granted.is_ok(), "{granted:?}");
    let id = LeaseGrantResponse::decode(granted.messages[0].clone()).unwrap().id;
    let mut renewals = connection.stream("/etcdserverpb.Lease/LeaseKeepAlive", &HeaderMap::new()).await.unwrap();
    let (mut reads, mut renewed) = (0, 0);
    while Instant::now() < until {
        let read = RangeRequest { key: "small".into(), ..RangeRequest::default() };
        let reply = timeout(ANSWERED_WITHIN, call(&connection, RANGE, &read)).await.expect("a read is answered");
        assert!(reply.is_ok(), "after {reads} reads: {reply:?}");
        assert_eq!(RangeResponse::decode(reply.messages[0].clone()).unwrap().kvs[0].value, "value");
        reads += 1;
        if reads % 4 == 1 {
            renewals.send(frame(&LeaseKeepAliveRequest { id }.encode_to_vec())).unwrap();
            let renewal = timeout(ANSWERED_WITHIN, renewals.message()).await.expect("a lease is renewed").unwrap();
            assert_eq!(LeaseKeepAliveResponse::decode(renewal).unwrap().ttl, 30);
            renewed += 1;
        }
        sleep(PAUSE).await;
    }
    (reads, renewed)
}

/// The most memory that a process has ever taken.
fn peak_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches("kB").trim().parse().unwrap()
}
