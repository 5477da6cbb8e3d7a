//! The versioned codec of replicated commands (pure).
//!
//! A command travels through the log and between members as one byte string: a version byte,
//! then the protobuf encoding of [`Command`]. It is encoded once, by the member that proposes it.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

pub use mainstay_proto::mainstay::{Command, Outcome, Refusal, command, outcome};

/// The version that this release writes, and the newest that it can apply.
pub const VERSION: u8 = 1;

/// Bytes in the log that this release cannot take for a command; applying stops the node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// The command was written by a newer release.
    #[error("command has version {0}, this release knows {VERSION} at most")]
    Version(u8),
    /// The bytes are not a command.
    #[error("command cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// There are no bytes at all, or no kind is set.
    #[error("command is empty")]
    Empty,
}

/// Encodes a command for the log.
pub fn encode(command: &Command) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + command.encoded_len());
    bytes.put_u8(VERSION);
    command.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Decodes a command from the log. Keys and values share the given bytes.
pub fn decode(mut bytes: Bytes) -> Result<command::Kind, CommandError> {
    if bytes.is_empty() {
        return Err(CommandError::Empty);
    }
    let version = bytes.split_to(1)[0];
    if version != VERSION {
        return Err(CommandError::Version(version));
    }
    Command::decode(bytes)?.kind.ok_or(CommandError::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_proto::etcdserverpb::PutRequest;

    fn put() -> Command {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        Command { kind: Some(command::Kind::Put(put)) }
    }

    #[test]
    fn the_encoding_is_fixed() {
        assert_eq!(encode(&put()).as_ref(), b"\x01\x0a\x06\x0a\x01k\x12\x01v");
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(decode(encode(&put())), Ok(put().kind.unwrap()));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(decode(Bytes::new()), Err(CommandError::Empty));
        assert_eq!(decode(Bytes::from_static(b"\x02")), Err(CommandError::Version(2)));
        assert!(matches!(decode(Bytes::from_static(b"\x01\xff")), Err(CommandError::Malformed(_))));
        assert_eq!(decode(Bytes::from_static(b"\x01")), Err(CommandError::Empty));
    }
}
