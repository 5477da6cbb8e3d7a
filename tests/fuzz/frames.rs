//! HTTP/2's frames by hand, right ones and wrong ones (pure).

use bytes::{BufMut, Bytes, BytesMut};

/// What every connection begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;

/// A frame whose length is true.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("frames of a test are small");
    framed(length, kind, flags, stream, payload)
}

/// A frame that says that it is of this length.
pub(crate) fn framed(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(9 + payload.len());
    bytes.put_uint(u64::from(length), 3);
    bytes.put_u8(kind);
    bytes.put_u8(flags);
    bytes.put_u32(stream);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// A header as HPACK writes one that is in no table.
pub(crate) fn header(name: &str, value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    for text in [name.as_bytes(), value] {
        integer(&mut bytes, text.len(), 7);
        bytes.put_slice(text);
    }
    bytes.freeze()
}

/// The headers of a call.
pub(crate) fn call(path: &str) -> BytesMut {
    let mut block = BytesMut::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.put(header(name, value.as_bytes()));
    }
    block
}

fn integer(bytes: &mut BytesMut, number: usize, prefix_bits: u8) {
    let most = (1 << prefix_bits) - 1;
    let byte = |number: usize| u8::try_from(number).expect("below a byte's most");
    if number < most {
        return bytes.put_u8(byte(number));
    }
    bytes.put_u8(byte(most));
    let mut rest = number - most;
    while rest >= 128 {
        bytes.put_u8(byte(rest % 128) | 0x80);
        rest /= 128;
    }
    bytes.put_u8(byte(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_standard_draws_them() {
        assert_eq!(frame(PING, ACK, 0, &[7; 8])[..], [0, 0, 8, 6, 1, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(framed(0x01_0203, DATA, 0, 5, b"")[..], [1, 2, 3, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn headers_are_literal() {
        assert_eq!(header("te", b"x")[..], [0, 2, b't', b'e', 1, b'x']);
        let long = header("a", &[b'v'; 1337]);
        assert_eq!(long[..6], [0, 1, b'a', 0x7f, 0xba, 0x09]); // 1337 − 127 = 1210 = 0x3a | 9 << 7
    }
}
