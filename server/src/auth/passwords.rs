use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::env;
use crate::limits;

/// Why a password was not hashed or checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// bcrypt looks at no more than 72 bytes; Go's words.
    #[error("bcrypt: password length exceeds 72 bytes")]
    TooLong,
    /// So many passwords wait to be hashed that this one would wait for too long.
    #[error("too many passwords wait")]
    Busy,
}

/// Hashes passwords and checks them against hashes.
///
/// Each takes tens of milliseconds of one processor, on purpose. So they are computed off the runtime's
/// threads, only a few at once and only so many waiting: logins, however many, delay no heartbeat.
#[derive(Clone, Debug)]
pub struct Passwords {
    cost: u32,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// Costs that bcrypt allows, and the one that is taken in place of any other; as in etcd.
const COST_MIN: u64 = 4;
const COST_MAX: u64 = 31;
const COST_DEFAULT: u32 = 10;

/// Bytes of a password that bcrypt looks at.
const LEN_MAX: usize = 72;

impl Passwords {
    /// Takes `--bcrypt-cost`; one that bcrypt does not allow is replaced by the default, as in etcd.
    pub fn new(cost: u64) -> Self {
        let allowed = (COST_MIN..=COST_MAX).contains(&cost);
        if !allowed {
            tracing::warn!(
                "min-cost" = COST_MIN,
                "max-cost" = COST_MAX,
                "default-cost" = COST_DEFAULT,
                "given-cost" = cost,
                "use default bcrypt cost instead of the invalid given cost"
            );
        }
        Self {
            cost: u32::try_from(cost).ok().filter(|_| allowed).unwrap_or(COST_DEFAULT),
            running: Arc::new(Semaphore::new((env::processors() / 2).max(1))),
            admitted: Arc::new(Semaphore::new(limits::PASSWORDS_MAX)),
        }
    }

    /// The hash of a password, as bcrypt writes it.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        if password.len() > LEN_MAX {
            return Err(PasswordError::TooLong);
        }
        let (cost, salt) = (self.cost, rand::random());
        let hashed = self.run(move || bcrypt::hash_with_salt(password, cost, salt)).await?;
        // The cost is one that is allowed and the length was looked at, so there is nothing left to fail.
        let hashed = hashed.map_err(|_| PasswordError::TooLong)?;
        // The variant that etcd writes; both mean the same.
        Ok(hashed.format_for_version(bcrypt::Version::TwoA))
    }

    /// Whether a hash is that of a password. What is no hash is that of none.
    pub async fn verify(&self, password: Bytes, hash: Bytes) -> Result<bool, PasswordError> {
        self.run(move || str::from_utf8(&hash).is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))).await
    }

    async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let _admitted = self.admitted.try_acquire().map_err(|_| PasswordError::Busy)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        // The permit goes with the call: who waits no longer has not stopped it.
        Ok(env::blocking(move || {
            let _running = running;
            call()
        })
        .await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("pass".to_owned()).await.unwrap();
        assert!(hash.starts_with("$2a$04$") && hash.len() == 60, "{hash}");
        assert_ne!(passwords.hash("pass".to_owned()).await.unwrap(), hash, "salted");
        let verify = async |password: &str, hash: &str| {
            passwords.verify(Bytes::from(password.to_owned()), Bytes::from(hash.to_owned())).await.unwrap()
        };
        assert!(verify("pass", &hash).await);
        assert!(!verify("Pass", &hash).await);
        for malformed in ["", "x", "$2a$04$", "$2a$99$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"] {
            assert!(!verify("pass", malformed).await, "{malformed}");
        }
        assert!(!passwords.verify("pass".into(), Bytes::from_static(b"\xff")).await.unwrap());
    }

    #[tokio::test]
    async fn what_others_hashed_is_known() {
        // One of bcrypt's own test vectors, in the variant that etcd writes.
        let hash = "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC";
        assert!(Passwords::new(4).verify("abcdefghijklmnopqrstuvwxyz".into(), hash.into()).await.unwrap());
    }

    #[tokio::test]
    async fn passwords_have_a_greatest_length() {
        let passwords = Passwords::new(4);
        assert!(passwords.hash("x".repeat(72)).await.is_ok());
        assert_eq!(passwords.hash("x".repeat(73)).await, Err(PasswordError::TooLong));
    }

    #[tokio::test]
    async fn few_are_computed_at_once_and_the_rest_has_an_end() {
        let passwords = Passwords { admitted: Arc::new(Semaphore::new(2)), ..Passwords::new(4) };
        let permits = passwords.running.available_permits();
        let held = passwords.running.clone().acquire_many_owned(u32::try_from(permits).unwrap()).await.unwrap();
        let one = tokio::spawn({
            let p = passwords.clone();
            async move { p.hash("a".to_owned()).await }
        });
        let other = tokio::spawn({
            let p = passwords.clone();
            async move { p.hash("b".to_owned()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(passwords.hash("c".to_owned()).await, Err(PasswordError::Busy));
        drop(held);
        assert!(one.await.unwrap().is_ok() && other.await.unwrap().is_ok());
    }

    #[test]
    fn a_cost_that_is_not_allowed_is_replaced() {
        for (given, taken) in [(0, 10), (3, 10), (4, 4), (31, 31), (32, 10), (u64::MAX, 10)] {
            assert_eq!(Passwords::new(given).cost, taken, "{given}");
        }
    }
}
