use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{GeneralPurpose, general_purpose};
use serde_json::{Value, json};

use super::keys::Keys;
use super::options::{JwtOptions, SignMethod, TokenError};

/// Base64 as RFC 7515 has it; bits that mean nothing are not looked at, as in Go.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, general_purpose::NO_PAD.with_decode_allow_trailing_bits(true));

/// Signed tokens: they say who the user is, at which revision of users and roles, and until when.
///
/// No member keeps them, so none can take one back; what users and roles change makes all of them old.
#[derive(Clone)]
pub struct Jwt {
    method: SignMethod,
    ttl: Duration,
    keys: Arc<Keys>,
}

/// Keys must not get into a log by way of a `{:?}`.
impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("method", &self.method).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Reads the keys; `read` returns what is in a file.
    pub fn open(options: &JwtOptions, read: impl Fn(&str) -> io::Result<Vec<u8>>) -> Result<Self, TokenError> {
        let file = |path: &Option<String>| {
            let Some(path) = path else { return Ok(None) };
            read(path).map(Some).map_err(|error| TokenError::File { path: path.clone(), error })
        };
        let (public, private) = (file(&options.public_key)?, file(&options.private_key)?);
        let keys = Keys::new(options.method, private.as_deref(), public.as_deref())?;
        Ok(Self { method: options.method, ttl: options.ttl, keys: Arc::new(keys) })
    }

    /// A token for a user, given now, the time since 1970; `None` where there is only a key to verify with.
    pub fn sign(&self, user: &str, auth_revision: u64, now: Duration) -> Option<String> {
        let header = json!({ "alg": self.method.to_string(), "typ": "JWT" });
        let expires = now.saturating_add(self.ttl).as_secs();
        let claims = json!({ "username": user, "revision": auth_revision, "exp": expires });
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signed = self.keys.sign(message.as_bytes())?;
        Some(format!("{message}.{}", BASE64.encode(signed)))
    }

    /// The user and the revision in a token that is ours and has not ended.
    pub fn verify(&self, token: &str, now: Duration) -> Option<(String, u64)> {
        let (message, signed) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Value>(&BASE64.decode(part).ok()?).ok();
        // Whoever signs must not choose how: a public key is no secret.
        if json(header)?.get("alg")?.as_str()? != self.method.to_string() {
            return None;
        }
        if !self.keys.verify(message.as_bytes(), &BASE64.decode(signed).ok()?) {
            return None;
        }
        let claims = json(claims)?;
        let now = now.as_secs_f64();
        let in_time = |name: &str, holds: fn(f64, f64) -> bool| match claims.get(name) {
            None => true,
            Some(time) => time.as_f64().is_some_and(|time| holds(now, time)),
        };
        if !in_time("exp", |now, end| now < end) || !in_time("nbf", |now, begin| now >= begin) {
            return None;
        }
        let user = claims.get("username")?.as_str()?.to_owned();
        // A float, as in Go: whole as long as anybody has changed users and roles 2^53 times.
        let revision = claims.get("revision")?.as_f64()?;
        Some((user, revision as u64))
    }
}

#[cfg(test)]
#[path = "tests/jwt.rs"]
mod tests;
