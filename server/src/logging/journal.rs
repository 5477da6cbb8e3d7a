//! systemd's journal: a line is a message with its priority, sent as one datagram in the journal's own protocol.
//!
//! As in etcd a message is the whole line, so that whoever reads it finds the same as in a file. Crates that speak to the
//! journal make fields of events, or bring much else along.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::config::{LogLevel, io_text};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What the journal takes the lines for, where it is asked for those of a program.
const IDENTIFIER: &str = "mainstay";

/// A journal that was found.
pub(super) struct Journal {
    socket: UnixDatagram,
    /// Named with every line: the journal may begin anew.
    path: PathBuf,
}

/// Why the journal cannot be used; etcd's words.
#[derive(Debug, thiserror::Error)]
#[error(
    "can't find journal (dial unixgram {path}: connect: {}); where systemd starts the server it gets stderr, too",
    io_text(error)
)]
pub struct NoJournal {
    path: String,
    error: io::Error,
}

impl Journal {
    /// Looks whether there is one.
    pub(super) fn open() -> Result<Self, NoJournal> {
        Self::open_at(PathBuf::from(SOCKET))
    }

    fn open_at(path: PathBuf) -> Result<Self, NoJournal> {
        let found = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(&path)?;
            UnixDatagram::unbound()
        });
        // Where the journal does not keep up a line is lost, rather than that its writer waits: consensus is one, too.
        match found.and_then(|socket| socket.set_nonblocking(true).map(|()| socket)) {
            Ok(socket) => Ok(Self { socket, path }),
            Err(error) => Err(NoJournal { path: path.display().to_string(), error }),
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    /// When it is too long for a datagram, or there is no journal any more.
    pub(super) fn write(&self, level: LogLevel, line: &[u8]) -> io::Result<()> {
        match self.socket.send_to(&datagram(level, line), &self.path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

fn datagram(level: LogLevel, line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut datagram = format!("PRIORITY={}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE\n", priority(level)).into_bytes();
    // With its length, for it may have ends of lines in it.
    datagram.extend_from_slice(&(line.len() as u64).to_le_bytes());
    datagram.extend_from_slice(line);
    datagram.push(b'\n');
    datagram
}

/// The priority that etcd gives to a level.
fn priority(level: LogLevel) -> u8 {
    match level {
        LogLevel::Debug => 7,
        LogLevel::Info => 6,
        LogLevel::Warn => 4,
        LogLevel::Error => 3,
        LogLevel::Panic | LogLevel::Fatal => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_with_its_priority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open_at(path.clone()).unwrap();
        journal.write(LogLevel::Warn, b"{\"level\":\"warn\"}\n").unwrap();
        let mut received = [0; 256];
        let len = listener.recv(&mut received).unwrap();
        let expected = b"PRIORITY=4\nSYSLOG_IDENTIFIER=mainstay\nMESSAGE\n\x10\0\0\0\0\0\0\0{\"level\":\"warn\"}\n";
        assert_eq!(received[..len], expected[..]);

        // Another one in its place gets the lines that follow.
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        assert!(journal.write(LogLevel::Info, b"lost\n").is_err());
        let listener = UnixDatagram::bind(&path).unwrap();
        journal.write(LogLevel::Fatal, b"end\n").unwrap();
        let len = listener.recv(&mut received).unwrap();
        assert!(received[..len].starts_with(b"PRIORITY=2\n"), "{received:?}");
    }

    #[test]
    fn a_journal_that_is_not_there_is_told_as_etcd_tells_it() {
        let Err(refused) = Journal::open_at(PathBuf::from("/no/journal")) else { panic!("there is none") };
        let text = "can't find journal (dial unixgram /no/journal: connect: no such file or directory)";
        assert!(refused.to_string().starts_with(text), "{refused}");
    }
}
