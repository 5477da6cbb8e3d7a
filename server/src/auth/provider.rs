use std::io;

use super::{Jwt, SimpleTokens, TokenError, TokenOptions};

/// Where the tokens of this member come from: `--auth-token`.
#[derive(Clone, Debug)]
pub enum TokenProvider {
    /// They are random, and every member keeps them.
    Simple(SimpleTokens),
    /// They are signed, and nobody keeps them.
    Signed(Jwt),
    /// There are none: nobody can log in.
    Nothing,
}

/// Letters of the random part of a simple token; as in etcd.
const PREFIX_LEN: usize = 16;
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl TokenProvider {
    /// Makes what the options say; `read` returns what is in a file of a key.
    pub fn open(
        options: &TokenOptions,
        simple: SimpleTokens,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TokenError> {
        match options {
            TokenOptions::Simple => {
                tracing::warn!("simple token is not cryptographically signed");
                Ok(Self::Simple(simple))
            }
            TokenOptions::Signed(options) => Jwt::open(options, read).map(Self::Signed),
            TokenOptions::Nothing => Ok(Self::Nothing),
        }
    }

    /// The random part of a new token; empty where tokens are not random.
    pub fn new_prefix(&self) -> String {
        match self {
            Self::Simple(_) => {
                (0..PREFIX_LEN).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
            }
            Self::Signed(_) | Self::Nothing => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_random_part_is_sixteen_letters() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _enter = runtime.enter();
        let provider = TokenProvider::Simple(SimpleTokens::new(Duration::ZERO));
        let prefix = provider.new_prefix();
        assert!(prefix.len() == 16 && prefix.bytes().all(|byte| byte.is_ascii_alphabetic()), "{prefix}");
        assert_ne!(provider.new_prefix(), prefix);
        assert_eq!(TokenProvider::Nothing.new_prefix(), "");
    }
}
