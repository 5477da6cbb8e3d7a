//! Keys in the files that tools write, for signing and verifying.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};

use super::der;
use super::options::{SignMethod, TokenError};

/// What signs, and what verifies; only the latter where only that is known.
pub(super) struct Keys {
    method: SignMethod,
    signer: Option<Signer>,
    verifier: Verifier,
    random: SystemRandom,
}

enum Signer {
    Hmac(hmac::Key),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Verifier {
    Hmac(hmac::Key),
    /// The public key as ring takes it.
    Public(Vec<u8>),
}

impl Keys {
    /// Makes keys of what is in the files.
    pub(super) fn new(method: SignMethod, private: Option<&[u8]>, public: Option<&[u8]>) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        if let Some(algorithm) = hmac_algorithm(method) {
            let secret = private.filter(|secret| !secret.is_empty()).ok_or(TokenError::MissingKey)?;
            let key = hmac::Key::new(algorithm, secret);
            return Ok(Self { method, signer: Some(Signer::Hmac(key.clone())), verifier: Verifier::Hmac(key), random });
        }
        let signer = private.map(|pem| Signer::new(method, &Pem::find(pem)?, &random)).transpose()?;
        let public = public.map(|pem| public_key(method, &Pem::find(pem)?)).transpose()?;
        let public = match (&signer, public) {
            (None, None) => return Err(TokenError::MissingKey),
            (None, Some(public)) => public,
            (Some(signer), public) => {
                let own = signer.public_key();
                if public.is_some_and(|public| public != own) {
                    return Err(TokenError::KeyMismatch);
                }
                own
            }
        };
        Ok(Self { method, signer, verifier: Verifier::Public(public), random })
    }

    /// Signs; `None` where there is only a key to verify with.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(match self.signer.as_ref()? {
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(rsa_padding(self.method)?, &self.random, message, &mut signed).ok()?;
                signed
            }
            Signer::Ecdsa(pair) => pair.sign(&self.random, message).ok()?.as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }

    /// Whether the signature is this key's.
    pub(super) fn verify(&self, message: &[u8], signed: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Hmac(key) => hmac::verify(key, message, signed).is_ok(),
            Verifier::Public(key) => verification(self.method).is_some_and(|algorithm| {
                signature::UnparsedPublicKey::new(algorithm, key).verify(message, signed).is_ok()
            }),
        }
    }
}

impl Signer {
    fn new(method: SignMethod, pem: &Pem, random: &SystemRandom) -> Result<Self, TokenError> {
        let der = pem.der.as_slice();
        let unfit = |error: ring::error::KeyRejected| TokenError::Unfit(error.to_string());
        match family(method) {
            Family::Rsa => {
                let inner = if pem.label == "RSA PRIVATE KEY" { Some(der) } else { der::wrapped_private_key(der) };
                // A version and eight numbers: nothing else looks like that.
                let inner = inner.filter(|key| der::begins_with_integers(key, 9));
                let inner = inner.ok_or(TokenError::OtherKey("RSA private"))?;
                Ok(Self::Rsa(Box::new(RsaKeyPair::from_der(inner).map_err(unfit)?)))
            }
            Family::Ecdsa => {
                let inner = if pem.label == "EC PRIVATE KEY" { Some(der) } else { der::wrapped_private_key(der) };
                let (private, public) =
                    inner.and_then(der::ec_private_key).ok_or(TokenError::OtherKey("ECDSA private"))?;
                let algorithm = match method {
                    SignMethod::ES384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                    _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                };
                EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, random)
                    .map(Self::Ecdsa)
                    .map_err(unfit)
            }
            Family::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                .map(Self::Ed25519)
                .map_err(|_| TokenError::OtherKey("Ed25519 private")),
        }
    }

    fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Hmac(_) => Vec::new(),
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }
}

enum Family {
    Rsa,
    Ecdsa,
    Ed25519,
}

fn family(method: SignMethod) -> Family {
    match method {
        SignMethod::ES256 | SignMethod::ES384 => Family::Ecdsa,
        SignMethod::EdDSA => Family::Ed25519,
        _ => Family::Rsa,
    }
}

fn hmac_algorithm(method: SignMethod) -> Option<hmac::Algorithm> {
    match method {
        SignMethod::HS256 => Some(hmac::HMAC_SHA256),
        SignMethod::HS384 => Some(hmac::HMAC_SHA384),
        SignMethod::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_padding(method: SignMethod) -> Option<&'static dyn signature::RsaEncoding> {
    Some(match method {
        SignMethod::RS256 => &signature::RSA_PKCS1_SHA256,
        SignMethod::RS384 => &signature::RSA_PKCS1_SHA384,
        SignMethod::RS512 => &signature::RSA_PKCS1_SHA512,
        SignMethod::PS256 => &signature::RSA_PSS_SHA256,
        SignMethod::PS384 => &signature::RSA_PSS_SHA384,
        SignMethod::PS512 => &signature::RSA_PSS_SHA512,
        _ => return None,
    })
}

fn verification(method: SignMethod) -> Option<&'static dyn signature::VerificationAlgorithm> {
    Some(match method {
        SignMethod::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignMethod::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SignMethod::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SignMethod::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignMethod::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        SignMethod::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        SignMethod::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        SignMethod::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        SignMethod::EdDSA => &signature::ED25519,
        SignMethod::HS256 | SignMethod::HS384 | SignMethod::HS512 => return None,
    })
}

/// The public key as ring takes it: of RSA the numbers in DER, of the others the point.
fn public_key(method: SignMethod, pem: &Pem) -> Result<Vec<u8>, TokenError> {
    let inner = match pem.label.as_str() {
        "CERTIFICATE" => der::certified_key(&pem.der),
        "RSA PUBLIC KEY" => Some(pem.der.as_slice()),
        _ => der::public_key(&pem.der),
    };
    let (fits, kind): (fn(&[u8]) -> bool, _) = match family(method) {
        Family::Rsa => (|key| der::begins_with_integers(key, 2), "RSA public"),
        Family::Ecdsa => (|key| key.len() > 64 && key[0] == 4, "ECDSA public"),
        Family::Ed25519 => (|key| key.len() == 32, "Ed25519 public"),
    };
    inner.filter(|key| fits(key)).map(<[u8]>::to_vec).ok_or(TokenError::OtherKey(kind))
}

/// A text in the armour that keys come in.
struct Pem {
    label: String,
    der: Vec<u8>,
}

impl Pem {
    /// Finds the first one.
    fn find(text: &[u8]) -> Result<Self, TokenError> {
        let found = || {
            let text = str::from_utf8(text).ok()?;
            let (_, rest) = text.split_once("-----BEGIN ")?;
            let (label, rest) = rest.split_once("-----")?;
            let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
            let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            Some(Self { label: label.to_owned(), der: BASE64.decode(body).ok()? })
        };
        found().ok_or(TokenError::NoPem)
    }
}
