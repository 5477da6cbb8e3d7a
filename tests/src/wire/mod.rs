//! gRPC by hand over HTTP/2: any bytes can be sent, and all that comes back is seen.
//!
//! - [`Connection`] is one connection; it makes calls and opens streams.
//! - [`Reply`] is how a call ended: status, text, and the messages before it.
//! - [`frame`] puts a message into gRPC's envelope; a test may send any other bytes instead.
//!
//! Does not: know what messages mean, retry, or reconnect.

mod connection;
mod reply;
mod stream;

pub use connection::{Connection, Unread};
pub use reply::Reply;
pub use stream::{Incoming, Stream};

use bytes::{BufMut, Bytes, BytesMut};

/// A message in gRPC's envelope: not compressed, its length, its bytes.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a message of a test is below 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

/// Takes the next whole message out of what has arrived.
fn unframe(arrived: &mut BytesMut) -> Option<Bytes> {
    let length = arrived.get(1..5)?.try_into().map(u32::from_be_bytes).expect("four bytes");
    let end = 5 + usize::try_from(length).expect("addresses have 32 bits at least");
    if arrived.len() < end {
        return None;
    }
    let mut framed = arrived.split_to(end).freeze();
    Some(framed.split_off(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_out_as_they_were_put_in() {
        let mut arrived = BytesMut::new();
        for byte in frame(b"one").iter().chain(&frame(b"")).chain(&frame(b"two")[..6]) {
            arrived.put_u8(*byte);
        }
        assert_eq!(unframe(&mut arrived).unwrap(), "one");
        assert_eq!(unframe(&mut arrived).unwrap(), "");
        assert_eq!(unframe(&mut arrived), None);
        arrived.put_slice(b"wo");
        assert_eq!(unframe(&mut arrived).unwrap(), "two");
        assert!(arrived.is_empty());
    }
}
