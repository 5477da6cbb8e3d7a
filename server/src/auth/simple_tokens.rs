use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::clock::{self, Instant};

/// What commands do to the tokens of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A user got a token.
    Assigned {
        /// The token.
        token: String,
        /// Whose it is.
        user: String,
    },
    /// The tokens of a user no longer count.
    UserGone(String),
    /// No token counts any more.
    AllGone,
}

/// The tokens that are random and mean something to this cluster alone: each member keeps all of them in
/// memory, with the time at which they end by its own clock. Use puts that off.
///
/// Told of every token by the state machine, in log order, before the entry counts as applied here.
/// Inside is a lock; it is a leaf, and what is done under it is a lookup, or one walk over the tokens
/// for each change of a user's password.
#[derive(Clone)]
pub struct SimpleTokens {
    ttl: Duration,
    tokens: Arc<Mutex<Tokens>>,
}

/// Tokens are credentials, and must not get into a log by way of a `{:?}`.
impl fmt::Debug for SimpleTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleTokens").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

struct Tokens {
    by_token: BTreeMap<String, Token>,
    swept: Instant,
}

struct Token {
    user: String,
    ends: Instant,
}

impl SimpleTokens {
    /// How long a token lives where `--auth-token-ttl` is 0; as in etcd.
    const TTL_DEFAULT: Duration = Duration::from_secs(300);

    /// How often tokens that nobody used are thrown away.
    const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

    /// No tokens, each of which will live this long after its last use.
    pub fn new(ttl: Duration) -> Self {
        let ttl = if ttl.is_zero() { Self::TTL_DEFAULT } else { ttl };
        Self { ttl, tokens: Arc::new(Mutex::new(Tokens { by_token: BTreeMap::new(), swept: clock::now() })) }
    }

    /// Whose token this is, and gives it its whole time again.
    pub fn user(&self, token: &str) -> Option<String> {
        let now = clock::now();
        let mut tokens = self.tokens.lock();
        let found = tokens.by_token.get_mut(token).filter(|token| token.ends > now)?;
        found.ends = now + self.ttl;
        Some(found.user.clone())
    }

    /// Whose token this is, without putting its end off.
    pub fn owner(&self, token: &str) -> Option<String> {
        let tokens = self.tokens.lock();
        tokens.by_token.get(token).filter(|token| token.ends > clock::now()).map(|token| token.user.clone())
    }

    /// Does what commands did, in their order.
    pub fn change(&self, changes: Vec<TokenChange>) {
        if changes.is_empty() {
            return;
        }
        let now = clock::now();
        let mut tokens = self.tokens.lock();
        for change in changes {
            match change {
                TokenChange::Assigned { token, user } => {
                    tokens.by_token.insert(token, Token { user, ends: now + self.ttl });
                }
                TokenChange::UserGone(user) => tokens.by_token.retain(|_, token| token.user != user),
                TokenChange::AllGone => tokens.by_token.clear(),
            }
        }
        if now.saturating_duration_since(tokens.swept) >= Self::SWEEP_INTERVAL {
            tokens.by_token.retain(|_, token| token.ends > now);
            tokens.swept = now;
        }
    }

    /// How many tokens are kept, used up or not.
    pub fn count(&self) -> usize {
        self.tokens.lock().by_token.len()
    }
}

/// The log index in a token of this kind: once it is applied here, the token is known if it ever was.
pub fn token_index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    // Only digits: `parse` takes a sign as well.
    if index.bytes().all(|byte| byte.is_ascii_digit()) { index.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(token: &str, user: &str) -> TokenChange {
        TokenChange::Assigned { token: token.to_owned(), user: user.to_owned() }
    }

    #[test]
    fn an_index_is_found_in_a_token() {
        for (token, index) in [
            ("abc.17", Some(17)),
            ("abc.0", Some(0)),
            ("abc", None),
            ("abc.", None),
            ("abc.1.2", None),
            ("abc.-1", None),
            ("abc.+1", None),
            ("abc.99999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(token_index(token), index, "{token:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_when_it_is_not_used() {
        let tokens = SimpleTokens::new(Duration::from_secs(10));
        tokens.change(vec![assigned("a.1", "alice"), assigned("b.2", "bob")]);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(tokens.user("a.1").as_deref(), Some("alice"));
        assert_eq!(tokens.owner("b.2").as_deref(), Some("bob"), "whoever looks at it does not use it");
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(tokens.user("a.1").as_deref(), Some("alice"), "use put it off");
        assert_eq!((tokens.user("b.2"), tokens.owner("b.2")), (None, None));
        assert_eq!(tokens.user("c.3"), None);
        tokens.change(vec![assigned("d.4", "dora")]);
        assert_eq!(tokens.count(), 2, "what ended is thrown away");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_go_with_their_user() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        tokens.change(vec![assigned("a.1", "alice"), assigned("b.2", "bob"), assigned("a.3", "alice")]);
        tokens.change(vec![TokenChange::UserGone("alice".to_owned()), assigned("a.5", "alice")]);
        assert_eq!((tokens.user("a.1"), tokens.user("a.3")), (None, None));
        assert_eq!(tokens.user("a.5").as_deref(), Some("alice"), "it came later");
        assert_eq!(tokens.user("b.2").as_deref(), Some("bob"));
        tokens.change(vec![TokenChange::AllGone]);
        assert_eq!(tokens.count(), 0);
    }

    #[test]
    fn tokens_are_not_shown() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _enter = runtime.enter();
        let tokens = SimpleTokens::new(Duration::from_secs(1));
        tokens.change(vec![assigned("secret.1", "alice")]);
        assert!(!format!("{tokens:?}").contains("secret"));
    }
}
