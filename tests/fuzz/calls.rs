//! Calls whose messages, envelopes or headers are not as they should be.

use std::time::Duration;

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use tokio::time::timeout;

use mainstay_tests::dice::Dice;
use mainstay_tests::schema;
use mainstay_tests::wire::{Connection, Incoming, frame};

use crate::bytes::{mutate, noise};
use crate::messages;
use crate::tally::Answer;

/// How long a server may take for an answer: its own bound for requests is 7 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// How long calls that may last forever are followed.
const FOLLOWED_FOR: Duration = Duration::from_millis(50);

/// A request of any method with hostile values.
pub(crate) async fn structured(connection: &Connection, dice: &mut Dice) -> Answer {
    let method = method(dice);
    let message = messages::message(dice, method.input());
    send(connection, &method, &HeaderMap::new(), frame(&message.encode_to_vec())).await
}

/// A request of any method whose encoding was changed.
pub(crate) async fn mutated(connection: &Connection, dice: &mut Dice) -> Answer {
    let method = method(dice);
    let mut bytes = messages::message(dice, method.input()).encode_to_vec();
    if dice.chance(10) {
        bytes = noise(dice, 400);
    } else {
        mutate(dice, &mut bytes);
    }
    send(connection, &method, &HeaderMap::new(), frame(&bytes)).await
}

/// A request in an envelope that lies: about its length, about compression; none, or several at once.
pub(crate) async fn enveloped(connection: &Connection, dice: &mut Dice) -> Answer {
    let method = method(dice);
    let message = messages::message(dice, method.input()).encode_to_vec();
    let mut body = BytesMut::new();
    for _ in 0..*dice.pick(&[0, 1, 1, 1, 2, 3]) {
        let flag = *dice.pick(&[0, 0, 1, 1, 2, 0x80, 0xff]);
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let told =
            *dice.pick(&[length, length, length + 1, length.saturating_sub(1), 0, 5, u32::MAX, 1 << 31, 3 << 20]);
        body.put_u8(flag);
        body.put_u32(told);
        body.put_slice(&message);
    }
    if dice.chance(20) {
        body.put_slice(&noise(dice, 12));
    }
    let mut metadata = HeaderMap::new();
    if dice.chance(30) {
        let encoding = *dice.pick(&["gzip", "identity", "zstd", "", "deflate"]);
        metadata.insert("grpc-encoding", HeaderValue::from_static(encoding));
    }
    send(connection, &method, &metadata, body.freeze()).await
}

/// Headers that say something strange to somebody on the way.
const HEADERS: [(&str, &[u8]); 21] = [
    ("grpc-timeout", b"0n"),
    ("grpc-timeout", b"99999999H"),
    ("grpc-timeout", b"-1S"),
    ("grpc-timeout", b"1x"),
    ("grpc-timeout", b""),
    ("content-type", b"text/html"),
    ("content-type", b"application/grpc+json"),
    ("content-length", b"18446744073709551615"),
    ("content-length", b"-1"),
    ("grpc-accept-encoding", b",,,gzip,,,"),
    ("token", b"nonsense"),
    ("token", b"\xff\xfe"),
    ("authorization", b"Bearer "),
    ("hasleader", b"true"),
    ("client-api-version", b"\xff"),
    ("grpcgateway-accept", b"x"),
    ("x-bin", b"not base64!"),
    ("x-forwarded-for", b"::::"),
    ("connection", b"close"),
    ("upgrade", b"websocket"),
    ("host", b"elsewhere"),
];

/// A call whose headers are strange, or that goes nowhere.
pub(crate) async fn headed(connection: &Connection, dice: &mut Dice) -> Answer {
    let mut metadata = HeaderMap::new();
    for _ in 0..=dice.below(3) {
        let (name, value) = *dice.pick(&HEADERS);
        let name = HeaderName::from_static(name);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            metadata.append(name, value);
        }
    }
    let method = method(dice);
    let path = match dice.below(6) {
        0 => "/etcdserverpb.KV/Nothing".to_owned(),
        1 => "/no.Such/Method".to_owned(),
        2 => "//".to_owned(),
        3 => format!("/{}", "x/".repeat(2000)),
        _ => schema::path(&method),
    };
    let body = frame(&messages::message(dice, method.input()).encode_to_vec());
    follow(connection, &path, &metadata, body, true).await
}

fn method(dice: &mut Dice) -> MethodDescriptor {
    let methods: Vec<_> = schema::methods().collect();
    dice.pick(&methods).clone()
}

async fn send(connection: &Connection, method: &MethodDescriptor, metadata: &HeaderMap, body: Bytes) -> Answer {
    // These wait for somebody else, or tell of what comes, for as long as the client likes.
    let lasts = method.is_client_streaming()
        || ["Lock.Lock", "Election.Campaign", "Election.Observe", "Health.Watch"]
            .contains(&schema::short_name(method).as_str());
    follow(connection, &schema::path(method), metadata, body, lasts).await
}

/// Sends a body on a stream and waits for its end, where there has to be one.
async fn follow(connection: &Connection, path: &str, metadata: &HeaderMap, body: Bytes, lasts: bool) -> Answer {
    let followed = timeout(if lasts { FOLLOWED_FOR } else { ANSWERS_WITHIN }, async {
        let mut stream = connection.stream(path, metadata).await?;
        // Where the server has ended the stream already, its end says why.
        let _ended = stream.send(body);
        let _ended = stream.half_close();
        loop {
            if let Incoming::End(reply) = stream.next().await? {
                return Ok(reply);
            }
        }
    });
    let followed: Result<Result<_>, _> = followed.await;
    match followed {
        Ok(Ok(reply)) => reply.code.map_or(Answer::Reset, Answer::Code),
        Ok(Err(_)) => Answer::Closed,
        Err(_) if lasts => Answer::Lasts,
        Err(_) => Answer::None(format!("{path}: no answer within {ANSWERS_WITHIN:?}")),
    }
}
