use super::*;

const NOW: Duration = Duration::from_secs(1_000_000);

/// The files of the keys, made by openssl.
fn file(name: &str) -> io::Result<Vec<u8>> {
    let text: &[u8] = match name {
        "rs.key" => include_bytes!("keys/rs.key"),
        "rs.pub" => include_bytes!("keys/rs.pub"),
        "rs.crt" => include_bytes!("keys/rs.crt"),
        "rs1.key" => include_bytes!("keys/rs1.key"),
        "rs1.pub" => include_bytes!("keys/rs1.pub"),
        "es256.key" => include_bytes!("keys/es256.key"),
        "es256.pub" => include_bytes!("keys/es256.pub"),
        "es384.key" => include_bytes!("keys/es384.key"),
        "es384.pub" => include_bytes!("keys/es384.pub"),
        "ed.key" => include_bytes!("keys/ed.key"),
        "ed.pub" => include_bytes!("keys/ed.pub"),
        "secret" => b"secret",
        "empty" => b"",
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(text.to_vec())
}

fn open(method: SignMethod, private: &str, public: &str) -> Result<Jwt, TokenError> {
    let given = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let (private_key, public_key) = (given(private), given(public));
    Jwt::open(&JwtOptions { method, private_key, public_key, ttl: Duration::from_secs(60) }, file)
}

#[test]
fn a_token_is_known_by_whoever_has_the_key() {
    use SignMethod::*;
    for (method, private, public) in [
        (HS256, "secret", "secret"),
        (HS384, "secret", ""),
        (HS512, "secret", ""),
        (RS256, "rs.key", "rs.pub"),
        (RS384, "rs.key", "rs.crt"),
        (RS512, "rs1.key", "rs1.pub"),
        (PS256, "rs.key", "rs.pub"),
        (PS384, "rs1.key", "rs1.pub"),
        (PS512, "rs.key", "rs.crt"),
        (ES256, "es256.key", "es256.pub"),
        (ES384, "es384.key", "es384.pub"),
        (EdDSA, "ed.key", "ed.pub"),
    ] {
        let jwt = open(method, private, public).unwrap();
        let token = jwt.sign("alice", 7, NOW).unwrap();
        assert_eq!(jwt.verify(&token, NOW), Some(("alice".to_owned(), 7)), "{method}");
        let alone = open(method, private, "").unwrap();
        assert_eq!(alone.verify(&token, NOW), Some(("alice".to_owned(), 7)), "{method}");
        if method.to_string().starts_with("HS") {
            continue;
        }
        let verifier = open(method, "", public).unwrap();
        assert_eq!(verifier.verify(&token, NOW), Some(("alice".to_owned(), 7)), "{method}");
        assert_eq!(verifier.sign("alice", 7, NOW), None, "it cannot sign");
    }
}

#[test]
fn a_token_ends() {
    let jwt = open(SignMethod::HS256, "secret", "").unwrap();
    let token = jwt.sign("alice", 7, NOW).unwrap();
    assert!(jwt.verify(&token, NOW + Duration::from_secs(59)).is_some());
    assert!(jwt.verify(&token, NOW + Duration::from_secs(60)).is_none());
}

fn signed_by(jwt: &Jwt, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    format!("{message}.{}", BASE64.encode(jwt.keys.sign(message.as_bytes()).unwrap()))
}

#[test]
fn a_token_of_another_making_is_not_taken() {
    let jwt = open(SignMethod::HS256, "secret", "").unwrap();
    let good = r#"{"username":"alice","revision":7}"#;
    let head = r#"{"alg":"HS256"}"#;
    assert!(jwt.verify(&signed_by(&jwt, head, good), NOW).is_some(), "it never ends");
    for (header, claims) in [
        (r#"{"alg":"none"}"#, good),
        (r#"{"alg":"HS384"}"#, good),
        (r#"{}"#, good),
        ("", good),
        (head, ""),
        (head, r#"{"username":"alice"}"#),
        (head, r#"{"revision":7}"#),
        (head, r#"{"username":7,"revision":7}"#),
        (head, r#"{"username":"alice","revision":"7"}"#),
        (head, r#"{"username":"alice","revision":7,"exp":"later"}"#),
        (head, r#"{"username":"alice","revision":7,"exp":1000000}"#),
        (head, r#"{"username":"alice","revision":7,"nbf":1000001}"#),
    ] {
        assert_eq!(jwt.verify(&signed_by(&jwt, header, claims), NOW), None, "{header} {claims}");
    }
}

#[test]
fn a_token_that_was_changed_is_not_taken() {
    for (method, key) in [(SignMethod::HS256, "secret"), (SignMethod::RS256, "rs.key"), (SignMethod::EdDSA, "ed.key")] {
        let jwt = open(method, key, "").unwrap();
        let token = jwt.sign("alice", 7, NOW).unwrap();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last letter of a part may have bits that mean nothing.
            let taken = jwt.verify(&changed, NOW);
            assert!(taken.is_none() || taken == Some(("alice".to_owned(), 7)), "{at}");
        }
        for cut in ["", ".", "..", "a.b", "a.b.c", token.rsplit_once('.').unwrap().0, &format!("{token}.")] {
            assert_eq!(jwt.verify(cut, NOW), None, "{cut:?}");
        }
    }
    let (one, other) = (open(SignMethod::RS256, "rs.key", ""), open(SignMethod::RS256, "rs1.key", ""));
    let token = one.unwrap().sign("alice", 7, NOW).unwrap();
    assert_eq!(other.unwrap().verify(&token, NOW), None, "another key");
}

/// A public key must not become a secret that everybody knows (CVE-2015-9235 of other servers).
#[test]
fn a_public_key_is_no_secret() {
    let jwt = open(SignMethod::RS256, "rs.key", "").unwrap();
    let secret = Keys::new(SignMethod::HS256, Some(&file("rs.pub").unwrap()), None).unwrap();
    let message =
        format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(r#"{"username":"root","revision":9}"#));
    let forged = format!("{message}.{}", BASE64.encode(secret.sign(message.as_bytes()).unwrap()));
    assert_eq!(jwt.verify(&forged, NOW), None);
}

#[test]
fn keys_that_do_not_do_are_refused() {
    use SignMethod::*;
    let missing = "auth: missing key data";
    for (method, private, public, error) in [
        (RS256, "", "", missing),
        (HS256, "", "secret", missing),
        (HS256, "empty", "", missing),
        (EdDSA, "", "", missing),
        (RS256, "rs.key", "rs1.pub", "auth: public and private keys don't match"),
        (RS256, "ed.key", "", "key is not a valid RSA private key"),
        (RS256, "es256.key", "", "key is not a valid RSA private key"),
        (RS256, "", "ed.pub", "key is not a valid RSA public key"),
        (ES256, "rs.key", "", "key is not a valid ECDSA private key"),
        (ES256, "", "rs.pub", "key is not a valid ECDSA public key"),
        (EdDSA, "rs.key", "", "key is not a valid Ed25519 private key"),
        (EdDSA, "", "rs.pub", "key is not a valid Ed25519 public key"),
        (RS256, "secret", "", "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"),
    ] {
        let refused = open(method, private, public).unwrap_err().to_string();
        assert_eq!(refused, format!("--auth-token: {error}"), "{method} {private} {public}");
    }
    assert!(matches!(open(ES256, "es384.key", ""), Err(TokenError::Unfit(_))), "another curve");
    let refused = open(RS256, "nope", "").unwrap_err().to_string();
    assert!(refused.starts_with("--auth-token: auth: invalid auth options: nope: "), "{refused}");
}

#[test]
fn keys_are_not_shown() {
    let shown = format!("{:?}", open(SignMethod::HS256, "secret", "").unwrap());
    assert!(shown.contains("HS256") && !shown.contains("secret"), "{shown}");
}
