use super::SimpleTokens;

/// Where the tokens of this member come from: `--auth-token`.
#[derive(Clone, Debug)]
pub enum TokenProvider {
    /// They are random, and every member keeps them.
    Simple(SimpleTokens),
    /// There are none: nobody can log in.
    Nothing,
}

/// Letters of the random part of a simple token; as in etcd.
const PREFIX_LEN: usize = 16;
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl TokenProvider {
    /// The random part of a new token; empty where tokens are not random.
    pub fn new_prefix(&self) -> String {
        match self {
            Self::Simple(_) => {
                (0..PREFIX_LEN).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
            }
            Self::Nothing => String::new(),
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
