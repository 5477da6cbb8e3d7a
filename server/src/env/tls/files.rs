//! Files that may be replaced while the server runs.

use std::io;

use sha2::{Digest, Sha256};

use super::TlsError;
use crate::config::io_text;

/// What some files say together, read again when they change.
///
/// Their content is compared and not their time: a file that is written twice within a tick of the
/// file system's clock, or swapped by a link, is noticed all the same. They are small.
pub(super) struct Source<T> {
    files: Vec<String>,
    /// What the files held when they were last looked at, be it of use or not.
    seen: Vec<Seen>,
    parse: Parse<T>,
    value: T,
}

/// Makes something of the files' contents, which come in the files' order.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, TlsError> + Send>;

/// A file as it was found: the hash of its content, or why it could not be read.
type Seen = Result<[u8; 32], String>;

impl<T> Source<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When one cannot be read, or they are of no use.
    pub(super) fn open(
        files: Vec<String>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, TlsError> + Send + 'static,
    ) -> Result<Self, TlsError> {
        let found: Vec<_> = files.iter().map(std::fs::read).collect();
        let seen = found.iter().map(seen).collect();
        let value = parse(&contents(&files, found)?)?;
        Ok(Self { files, seen, parse: Box::new(parse), value })
    }

    /// What the files say; what they said last where that is of no use now.
    pub(super) fn value(&self) -> &T {
        &self.value
    }

    /// Looks at the files again; whether they say something new. What is of no use is said once, in the log.
    pub(super) fn refresh(&mut self) -> bool {
        let found: Vec<_> = self.files.iter().map(std::fs::read).collect();
        let now: Vec<Seen> = found.iter().map(seen).collect();
        if now == self.seen {
            return false;
        }
        self.seen = now;
        match contents(&self.files, found).and_then(|contents| (self.parse)(&contents)) {
            Ok(value) => {
                tracing::info!(files = self.files.join(","), "TLS files have changed; new connections use them");
                self.value = value;
                true
            }
            Err(error) => {
                tracing::warn!(
                    files = self.files.join(","),
                    %error,
                    "TLS files have changed and cannot be used; new connections use what was read before"
                );
                false
            }
        }
    }
}

fn seen(found: &io::Result<Vec<u8>>) -> Seen {
    match found {
        Ok(content) => Ok(Sha256::digest(content).into()),
        Err(error) => Err(io_text(error)),
    }
}

fn contents(files: &[String], found: Vec<io::Result<Vec<u8>>>) -> Result<Vec<Vec<u8>>, TlsError> {
    let found = files.iter().zip(found);
    found.map(|(file, found)| found.map_err(|error| TlsError::Read { file: file.clone(), error })).collect()
}
