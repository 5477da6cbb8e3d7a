use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

/// `--auth-token`, taken apart; the key files are not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenOptions {
    /// Random tokens.
    #[default]
    Simple,
    /// Signed tokens.
    Signed(JwtOptions),
    /// None at all.
    Nothing,
}

/// How tokens are signed and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// How.
    pub method: SignMethod,
    /// The file of the key to verify with.
    pub public_key: Option<String>,
    /// The file of the key to sign with.
    pub private_key: Option<String>,
    /// How long a token lives.
    pub ttl: Duration,
}

/// How a token is signed, by the names of RFC 7518.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SignMethod {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl SignMethod {
    const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.to_string() == name)
    }
}

impl fmt::Display for SignMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The names of the variants are the names in the header of a token.
        fmt::Debug::fmt(self, f)
    }
}

/// Why tokens cannot be given or verified as `--auth-token` says; the flag, and etcd's words but for the first three.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// etcd can sign so, this release cannot.
    #[error("--auth-token: tokens signed by {0} are not available in this release")]
    MethodUnavailable(String),
    /// ring takes no RSA key of fewer bits than 2048, or of more than 8192, and no curve but the method's.
    #[error("--auth-token: the key does not fit the sign-method: {0}")]
    Unfit(String),
    /// A key file that is not there, and the like. etcd says this in a line of its own before the next.
    #[error("--auth-token: auth: invalid auth options: {path}: {error}")]
    File {
        /// Which one.
        path: String,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The options are no list, or say something twice, or unknown, or nothing that can be used.
    #[error("--auth-token: auth: invalid auth options")]
    Options,
    /// The method needs a key that is not given.
    #[error("--auth-token: auth: missing key data")]
    MissingKey,
    /// They are not of one pair.
    #[error("--auth-token: auth: public and private keys don't match")]
    KeyMismatch,
    /// Tokens without a signature.
    #[error("--auth-token: unsupported signing method: *jwt.signingMethodNone")]
    NoMethod,
    /// The file holds no key at all.
    #[error("--auth-token: invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key")]
    NoPem,
    /// The file holds another kind of key.
    #[error("--auth-token: key is not a valid {0} key")]
    OtherKey(&'static str),
}

/// How long a signed token lives where the options do not say; as in etcd.
const JWT_TTL: Duration = Duration::from_secs(300);

impl TokenOptions {
    /// Takes the value of `--auth-token` apart. `duration` reads one as Go does.
    pub fn parse(text: &str, duration: impl Fn(&str) -> Option<Duration>) -> Result<Self, TokenError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(TokenError::Options)?;
            if value.contains('=') || options.insert(name, value).is_some() {
                return Err(TokenError::Options);
            }
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "" => Ok(Self::Nothing),
            "jwt" => Ok(Self::Signed(jwt(&options, duration)?)),
            _ => Err(TokenError::Options),
        }
    }
}

fn jwt(options: &BTreeMap<&str, &str>, duration: impl Fn(&str) -> Option<Duration>) -> Result<JwtOptions, TokenError> {
    let given = |name| options.get(name).copied().filter(|value| !value.is_empty());
    let ttl = given("ttl").map_or(Some(JWT_TTL), duration).ok_or(TokenError::Options)?;
    let method = match given("sign-method") {
        Some("none") => return Err(TokenError::NoMethod),
        Some("ES512") => return Err(TokenError::MethodUnavailable("ES512".to_owned())),
        name => name.and_then(SignMethod::parse).ok_or(TokenError::Options)?,
    };
    for name in options.keys() {
        if !["sign-method", "pub-key", "priv-key", "ttl"].contains(name) {
            tracing::warn!(keys = name, "unknown JWT options");
        }
    }
    let file = |name| given(name).map(str::to_owned);
    Ok(JwtOptions { method, public_key: file("pub-key"), private_key: file("priv-key"), ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TokenOptions, String> {
        let seconds = |text: &str| text.strip_suffix('s')?.parse().ok().map(Duration::from_secs);
        TokenOptions::parse(text, seconds).map_err(|error| error.to_string())
    }

    fn signed(method: SignMethod) -> JwtOptions {
        JwtOptions { method, public_key: None, private_key: None, ttl: Duration::from_secs(300) }
    }

    #[test]
    fn options_are_taken_apart() {
        assert_eq!(parse("simple"), Ok(TokenOptions::Simple));
        assert_eq!(parse("simple,a=b"), Ok(TokenOptions::Simple), "what it does not know is ignored, as in etcd");
        assert_eq!(parse(""), Ok(TokenOptions::Nothing));
        for method in SignMethod::ALL {
            assert_eq!(parse(&format!("jwt,sign-method={method}")), Ok(TokenOptions::Signed(signed(method))));
        }
        let all = "jwt,pub-key=a,priv-key=b,sign-method=EdDSA,ttl=7s,other=x";
        let (public_key, private_key) = (Some("a".to_owned()), Some("b".to_owned()));
        let ttl = Duration::from_secs(7);
        let expected = JwtOptions { public_key, private_key, ttl, ..signed(SignMethod::EdDSA) };
        assert_eq!(parse(all), Ok(TokenOptions::Signed(expected)));
    }

    #[test]
    fn other_options_are_refused_as_by_etcd() {
        let invalid = "--auth-token: auth: invalid auth options";
        for (text, error) in [
            ("foo", invalid),
            ("simple,x", invalid),
            ("simple,a=b=c", invalid),
            ("jwt", invalid),
            ("jwt,sign-method=XX", invalid),
            ("jwt,sign-method=rs256", invalid),
            ("jwt,sign-method=RS256,ttl=x", invalid),
            ("jwt,sign-method=RS256,ttl=1s,ttl=1s", invalid),
            ("jwt,sign-method=none", "--auth-token: unsupported signing method: *jwt.signingMethodNone"),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
