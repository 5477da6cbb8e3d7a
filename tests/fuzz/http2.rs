//! Connections that break HTTP/2's rules, or keep them in ways that cost the other side much.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use mainstay_tests::dice::Dice;
use mainstay_tests::{schema, wire};

use crate::bytes::noise;
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame, framed, header,
};
use crate::tally::Answer;

/// How long a server may take to answer a ping, or to close what it does not want.
const REACTS_WITHIN: Duration = Duration::from_secs(20);
/// The ping that shows that everything before it was read.
const MARK: [u8; 8] = *b"the mark";
const READ: &str = "/etcdserverpb.KV/Range";

/// Plays one way to break the rules, then pings: the server answers the ping or closes.
pub(crate) async fn connection(address: SocketAddr, dice: &mut Dice) -> Answer {
    let Ok(mut socket) = TcpStream::connect(address).await else { return Answer::Closed };
    let mut sent = BytesMut::new();
    let (what, pings) = match dice.below(17) {
        0 => ("a wrong preface", wrong_preface(dice, &mut sent)),
        1 => ("noise", begun(&mut sent, |sent| sent.put_slice(&noise(dice, 600)), false)),
        2 => ("random frames", begun(&mut sent, |sent| random_frames(dice, sent), false)),
        3 => ("frames out of order", begun(&mut sent, |sent| out_of_order(dice, sent), true)),
        4 => ("frames of wrong lengths", begun(&mut sent, |sent| wrong_lengths(dice, sent), false)),
        5 => ("headers that are too large", begun(&mut sent, |sent| large_headers(dice, sent), true)),
        6 => ("headers without an end", begun(&mut sent, endless_headers, false)),
        7 => ("broken header tables", begun(&mut sent, |sent| broken_tables(dice, sent), true)),
        8 => ("rapid resets", begun(&mut sent, |sent| rapid_resets(dice, sent), true)),
        9 => ("many streams", begun(&mut sent, |sent| many_streams(dice, sent), true)),
        10 => ("half-closed streams", begun(&mut sent, |sent| half_closed(dice, sent), true)),
        11 => ("a flood of settings", begun(&mut sent, |sent| flood(sent, 2000, &frame(SETTINGS, 0, 0, &[])), true)),
        12 => ("a flood of pings", begun(&mut sent, |sent| flood(sent, 2000, &frame(PING, 0, 0, &[1; 8])), true)),
        13 => ("a flood of empty data", begun(&mut sent, empty_data, true)),
        14 => ("windows that overflow", begun(&mut sent, |sent| windows(dice, sent), true)),
        15 => ("strange settings", begun(&mut sent, |sent| settings(dice, sent), true)),
        _ => ("strange padding", begun(&mut sent, |sent| padding(dice, sent), true)),
    };
    if pings {
        sent.put(frame(PING, 0, 0, &MARK));
    }
    // Whoever reads on has to answer; whoever closes may do it while this is still being sent.
    let reacted = timeout(REACTS_WITHIN, async {
        let (mut reader, mut writer) = socket.split();
        let write = async {
            let written = writer.write_all(&sent).await;
            if written.is_ok() && !pings {
                let _closed = writer.shutdown().await;
            }
        };
        let (reaction, ()) = tokio::join!(reaction(&mut reader, pings), write);
        reaction
    });
    reacted
        .await
        .unwrap_or_else(|_| Answer::None(format!("{what}: neither answered nor closed within {REACTS_WITHIN:?}")))
}

/// Begins a connection and calls nothing its end; half of it is kept open and never read.
pub(crate) async fn slow(address: SocketAddr, dice: &mut Dice) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let mut begun = BytesMut::from(PREFACE);
    begun.put(frame(SETTINGS, 0, 0, &[]));
    begun.put(frame(HEADERS, END_HEADERS, 1, &call(READ)));
    begun.put(frame(DATA, 0, 1, &[0, 0, 0, 0, 100, 1]));
    let sent = dice.below(begun.len());
    socket.write_all(&begun[..sent]).await.ok()?;
    Some(socket)
}

/// Reads until the mark comes back or the server closes.
async fn reaction(reader: &mut (impl AsyncReadExt + Unpin), pings: bool) -> Answer {
    let mut arrived = BytesMut::new();
    loop {
        match reader.read_buf(&mut arrived).await {
            Ok(0) | Err(_) => return Answer::Closed,
            Ok(_) if pings && arrived.windows(MARK.len()).any(|window| window == MARK) => return Answer::Code(0),
            // What was read is of no interest, but for the beginning of a mark at its end.
            Ok(_) => drop(arrived.split_to(arrived.len().saturating_sub(MARK.len()))),
        }
    }
}

/// A connection that begins well.
fn begun(sent: &mut BytesMut, rest: impl FnOnce(&mut BytesMut), pings: bool) -> bool {
    sent.put_slice(PREFACE);
    sent.put(frame(SETTINGS, 0, 0, &[]));
    sent.put(frame(SETTINGS, ACK, 0, &[]));
    rest(sent);
    pings
}

fn wrong_preface(dice: &mut Dice, sent: &mut BytesMut) -> bool {
    sent.put_slice(PREFACE);
    match dice.below(3) {
        0 => sent.truncate(dice.below(PREFACE.len())),
        1 => {
            let at = dice.below(PREFACE.len());
            sent[at] ^= 0x20;
        }
        _ => {
            // No settings follow, as they must.
            sent.put(frame(PING, 0, 0, &MARK));
        }
    }
    false
}

fn random_frames(dice: &mut Dice, sent: &mut BytesMut) {
    for _ in 0..=dice.below(20) {
        let [kind, flags, ..] = dice.number().to_le_bytes();
        let stream = *dice.pick(&[0, 1, 1, 2, 3, 5, 0x7fff_ffff, 0x8000_0001]);
        let payload = noise(dice, 80);
        sent.put(frame(if dice.chance(90) { kind % 12 } else { kind }, flags, stream, &payload));
    }
}

fn out_of_order(dice: &mut Dice, sent: &mut BytesMut) {
    let block = call(READ);
    let wrong = [
        frame(DATA, END_STREAM, 1, b"before its headers"),
        frame(CONTINUATION, END_HEADERS, 1, &block),
        frame(WINDOW_UPDATE, 0, 9, &1u32.to_be_bytes()),
        frame(RST_STREAM, 0, 11, &8u32.to_be_bytes()),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), // depends on itself
        frame(PUSH_PROMISE, END_HEADERS, 1, &block),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(HEADERS, END_HEADERS, 2, &block), // an even number is the server's
        frame(HEADERS, 0, 1, &block),           // not its end, and something else follows
        frame(SETTINGS, 0, 1, &[]),
        frame(DATA, 0, 0, b"x"),
    ];
    for _ in 0..=dice.below(4) {
        sent.put(dice.pick(&wrong).clone());
    }
}

fn wrong_lengths(dice: &mut Dice, sent: &mut BytesMut) {
    let wrong = [
        framed(5, SETTINGS, 0, 0, &[0; 5]),
        framed(7, PING, 0, 0, &[0; 7]),
        framed(3, WINDOW_UPDATE, 0, 0, &[0; 3]),
        framed(0xff_ffff, DATA, 0, 1, &[0; 100]),
        framed(16_385, HEADERS, END_HEADERS, 1, &[0; 200]),
        framed(1, GOAWAY, 0, 0, &[0]),
        framed(0, RST_STREAM, 0, 1, &[]),
    ];
    sent.put(frame(HEADERS, END_HEADERS, 1, &call(READ)));
    sent.put(dice.pick(&wrong).clone());
}

/// More than any server takes, in many frames.
fn large_headers(dice: &mut Dice, sent: &mut BytesMut) {
    let mut block = call(READ);
    for _ in 0..*dice.pick(&[10, 40, 150]) {
        block.put(header("x-large", &[b'x'; 8000]));
    }
    let mut pieces = block.chunks(16_000).peekable();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        sent.put(frame(kind, flags, 1, piece));
        kind = CONTINUATION;
    }
}

fn endless_headers(sent: &mut BytesMut) {
    sent.put(frame(HEADERS, 0, 1, &call(READ)));
    flood(sent, 3000, &frame(CONTINUATION, 0, 1, &header("a", b"b")));
}

fn broken_tables(dice: &mut Dice, sent: &mut BytesMut) {
    let mut block = call(READ);
    match dice.below(5) {
        0 => block.put_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), // an index without an end
        1 => block.put_slice(&[0x80]),                                           // index 0
        2 => block.put_slice(&[0xfe]),                                           // nobody put it there
        3 => block.put_slice(&[0x3f, 0xff, 0xff, 0xff, 0x7f]),                   // a huge table
        _ => block.put_slice(&[0x00, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff]),       // no Huffman code
    }
    sent.put(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
}

fn rapid_resets(dice: &mut Dice, sent: &mut BytesMut) {
    for stream in 0..*dice.pick(&[20, 300, 2000]) {
        sent.put(frame(HEADERS, END_HEADERS, 2 * stream + 1, &call(READ)));
        sent.put(frame(RST_STREAM, 0, 2 * stream + 1, &8u32.to_be_bytes()));
    }
}

fn many_streams(dice: &mut Dice, sent: &mut BytesMut) {
    let paths = [READ, "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];
    let path = *dice.pick(&paths);
    for stream in 0..*dice.pick(&[50, 300, 1500]) {
        sent.put(frame(HEADERS, END_HEADERS, 2 * stream + 1, &call(path)));
    }
}

/// Every method's stream ends before its message.
fn half_closed(dice: &mut Dice, sent: &mut BytesMut) {
    for (place, method) in (0u32..).zip(schema::methods()) {
        let stream = 2 * place + 1;
        let block = call(&schema::path(&method));
        if dice.chance(50) {
            sent.put(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        } else {
            sent.put(frame(HEADERS, END_HEADERS, stream, &block));
            sent.put(frame(DATA, END_STREAM, stream, &wire::frame(b"\x0a\x05ab")[..dice.below(9)]));
        }
    }
}

fn empty_data(sent: &mut BytesMut) {
    sent.put(frame(HEADERS, END_HEADERS, 1, &call(READ)));
    flood(sent, 5000, &frame(DATA, 0, 1, &[]));
}

fn flood(sent: &mut BytesMut, count: usize, frame: &[u8]) {
    (0..count).for_each(|_| sent.put_slice(frame));
}

fn windows(dice: &mut Dice, sent: &mut BytesMut) {
    sent.put(frame(HEADERS, END_HEADERS, 1, &call(READ)));
    let stream = if dice.chance(50) { 0 } else { 1 };
    let more = *dice.pick(&[0, 1, 0x7fff_ffff, 0xffff_ffff_u32]);
    flood(sent, 3, &frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes()));
}

fn settings(dice: &mut Dice, sent: &mut BytesMut) {
    let mut payload = BytesMut::new();
    for _ in 0..*dice.pick(&[1, 2, 500]) {
        payload.put_u16(*dice.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 0xffff]));
        payload.put_u32(*dice.pick(&[0, 1, 2, 16_383, 0x7fff_ffff, 0x8000_0000, u32::MAX]));
    }
    sent.put(frame(SETTINGS, 0, 0, &payload));
}

fn padding(dice: &mut Dice, sent: &mut BytesMut) {
    sent.put(frame(HEADERS, END_HEADERS, 1, &call(READ)));
    let padded = *dice.pick(&[0, 1, 200, 255]);
    let length = dice.below(60);
    let mut payload = vec![padded];
    payload.resize(1 + length, 0);
    sent.put(frame(DATA, PADDED | if dice.chance(50) { END_STREAM } else { 0 }, 1, &payload));
}
