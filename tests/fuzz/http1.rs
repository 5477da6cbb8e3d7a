//! Junk for the other protocol of the client port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use mainstay_tests::dice::Dice;

use crate::bytes::noise;
use crate::tally::Answer;

/// How long a server may take to answer or to close.
const REACTS_WITHIN: Duration = Duration::from_secs(20);

/// Sends a request, whole or broken, and reads what comes until the server closes.
pub(crate) async fn request(address: SocketAddr, dice: &mut Dice) -> Answer {
    let Ok(mut socket) = TcpStream::connect(address).await else { return Answer::Closed };
    let (sent, what) = (bytes(dice), "HTTP/1");
    let reacted = timeout(REACTS_WITHIN, async {
        let (mut reader, mut writer) = socket.split();
        let write = async {
            // The server may have closed before it has read all.
            if writer.write_all(&sent).await.is_ok() {
                let _closed = writer.shutdown().await;
            }
        };
        let mut answer = Vec::new();
        let (_, ()) = tokio::join!(reader.read_to_end(&mut answer), write);
        answer
    });
    match reacted.await {
        Ok(answer) => status(&answer).map_or(Answer::Closed, Answer::Http),
        Err(_) if may_last(&sent) => Answer::Lasts,
        Err(_) => Answer::None(format!("{what}: {:?}", String::from_utf8_lossy(&sent[..sent.len().min(120)]))),
    }
}

/// Whether this may be a watch. One whose request is not followed by the end of the connection, but by
/// more bytes, goes on until its client is gone, as with etcd: it is empty, and what is empty is owed
/// nothing.
fn may_last(sent: &[u8]) -> bool {
    let path = b"/v3/watch";
    sent.windows(path.len()).any(|part| part == path)
}

fn status(answer: &[u8]) -> Option<u16> {
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

fn bytes(dice: &mut Dice) -> Vec<u8> {
    let method = *dice.pick(&["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "get", "X"]);
    let path = match dice.below(8) {
        0 => format!("/{}", "a".repeat(*dice.pick(&[10, 9000, 100_000]))),
        1 => format!("/health?{}", "serializable=true&".repeat(*dice.pick(&[1, 500]))),
        2 => "/health?exclude=%zz&allowlist=\u{ff}".to_owned(),
        3 => "/../../etc/passwd".to_owned(),
        4 => "http://elsewhere/metrics".to_owned(),
        _ => (*dice.pick(&[
            "/health",
            "/readyz",
            "/livez?verbose",
            "/metrics",
            "/version",
            "/v3/kv/range",
            "/v3/watch",
            "/",
        ]))
        .to_owned(),
    };
    let headers = match dice.below(8) {
        0 => "Content-Length: 99999999999999999999\r\n".to_owned(),
        1 => "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
        2 => format!("X: {}\r\n", "y".repeat(*dice.pick(&[100, 20_000, 300_000]))),
        3 => "x: y\r\n".repeat(*dice.pick(&[10, 200])),
        4 => "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".to_owned(),
        5 => "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
            .to_owned(),
        6 => "No colon\r\n: no name\r\nA\0: b\r\n".to_owned(),
        _ => "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n".to_owned(),
    };
    let body = match dice.below(6) {
        0 => "5\r\nhello\r\n0\r\n\r\n".to_owned(),
        1 => "ffffffffffffffff\r\nx".to_owned(),
        2 => format!("{:x}\r\n{}\r\n0\r\n\r\n", 6 * 400, r#"{"a":["#.repeat(400)),
        3 => "{\"key\": 1e999, \"range_end\": null}".to_owned(),
        4 => "-1\r\n\r\n".to_owned(),
        _ => String::new(),
    };
    let version = *dice.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/9.9", ""]);
    let mut request = format!("{method} {path} {version}\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes();
    match dice.below(5) {
        0 => crate::bytes::mutate(dice, &mut request),
        1 => request.truncate(dice.below(request.len())),
        2 if dice.chance(30) => request = noise(dice, 2000),
        _ => {}
    }
    request
}
