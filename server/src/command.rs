//! The versioned codec of replicated commands (pure).
//!
//! A command travels through the log and between members as one byte string: a version byte,
//! then the protobuf encoding of [`Command`]. It is encoded once, by the member that proposes it.
//!
//! A release that does not know a part of a command would carry out another one than those that do, so it refuses
//! the whole. How a command gets a new part: `server/src/docs/decisions/2026-11-22-what-a-release-may-change.md`.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

pub use mainstay_proto::mainstay::{Caller, Command, Outcome, Refusal, command, outcome};

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
    /// The command has a kind or a field that only a newer release knows.
    #[error("command has a part that this release does not know: run the newer release that wrote it")]
    Unknown,
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

/// Who acts for the cluster itself, as when a lease ends: an administrator, whatever becomes of users and roles.
///
/// User root cannot lose its role while authentication is on.
pub fn cluster_itself() -> Caller {
    Caller { user: "root".to_owned(), auth_revision: u64::MAX }
}

/// Decodes a command from the log, and who asked for it. Keys and values share the given bytes.
pub fn decode(mut bytes: Bytes) -> Result<(command::Kind, Caller), CommandError> {
    if bytes.is_empty() {
        return Err(CommandError::Empty);
    }
    let version = bytes.split_to(1)[0];
    if version != VERSION {
        return Err(CommandError::Version(version));
    }
    let length = bytes.len();
    let command = Command::decode(bytes)?;
    // What it does not know the decoder passes over.
    if command.encoded_len() != length {
        return Err(CommandError::Unknown);
    }
    let Command { kind, caller } = command;
    Ok((kind.ok_or(CommandError::Empty)?, caller.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_proto::etcdserverpb::PutRequest;

    fn put() -> Command {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        Command { kind: Some(command::Kind::Put(put)), caller: None }
    }

    #[test]
    fn the_encoding_is_fixed() {
        assert_eq!(encode(&put()).as_ref(), b"\x01\x0a\x06\x0a\x01k\x12\x01v");
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(decode(encode(&put())), Ok((put().kind.unwrap(), Caller::default())));
        let caller = Caller { user: "alice".to_owned(), auth_revision: 7 };
        let asked = Command { caller: Some(caller.clone()), ..put() };
        assert_eq!(decode(encode(&asked)), Ok((put().kind.unwrap(), caller)));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(decode(Bytes::new()), Err(CommandError::Empty));
        assert_eq!(decode(Bytes::from_static(b"\x02")), Err(CommandError::Version(2)));
        assert!(matches!(decode(Bytes::from_static(b"\x01\xff")), Err(CommandError::Malformed(_))));
        assert_eq!(decode(Bytes::from_static(b"\x01")), Err(CommandError::Empty));
    }

    /// As of a newer release: read over, the first would do nothing and the others something else.
    #[test]
    fn parts_that_are_not_known_are_refused() {
        let unknown_kind = b"\x01\xa2\x06\x00";
        let unknown_field_of_a_command = b"\x01\x0a\x06\x0a\x01k\x12\x01v\xa8\x06\x01";
        let unknown_field_of_a_put = b"\x01\x0a\x09\x0a\x01k\x12\x01v\xa8\x06\x01";
        for bytes in [&unknown_kind[..], unknown_field_of_a_command, unknown_field_of_a_put] {
            assert_eq!(decode(Bytes::copy_from_slice(bytes)), Err(CommandError::Unknown), "{bytes:x?}");
        }
    }
}
