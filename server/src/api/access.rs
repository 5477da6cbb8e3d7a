//! Who a client is, and what needs that to be known before anything is replicated or read.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderName};
use tonic::Request;

use super::status::ApiError;
use crate::auth::{Auth, AuthView, Right, TokenProvider, token_index};
use crate::command::{Caller, Refusal};
use crate::env::{Secured, clock};
use crate::raft::Gateway;

static TOKEN: HeaderName = HeaderName::from_static("token");
const BEARER: &str = "Bearer ";
/// The JSON gateway calls with a certificate of its own, whose name is nobody's.
static FROM_GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// What a request says of who sends it. Not shown: a token is a credential.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    token: Option<String>,
    certificate: Option<String>,
}

impl Credentials {
    /// Those of a decoded request.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self::read(request.metadata().as_ref(), request.extensions())
    }

    /// Those in a request's headers and extensions.
    pub(super) fn read(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let token = token_in(headers);
        let secured = extensions.get::<Secured>().filter(|_| !headers.contains_key(&FROM_GATEWAY));
        let certificate = secured.and_then(|secured| secured.certificate.as_ref());
        Self { token, certificate: certificate.map(|certificate| certificate.common_name.clone()) }
    }
}

fn token_in(headers: &HeaderMap) -> Option<String> {
    let token = headers.get(&TOKEN).or_else(|| headers.get(AUTHORIZATION))?;
    let token = String::from_utf8_lossy(token.as_bytes());
    Some(token.strip_prefix(BEARER).unwrap_or(&token).to_owned())
}

/// What a method asks of whoever calls it, before its request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcAccess {
    /// Nothing here: it depends on the request, or is open to all.
    ByRequest,
    /// To be somebody.
    User,
    /// To have role root.
    Root,
}

/// Finds out who a client is, and what it may do by the users and roles of this moment.
///
/// Writes are judged when they are applied, so here only their caller is found out.
#[derive(Clone)]
pub struct Access {
    auth: AuthView,
    tokens: TokenProvider,
    gateway: Gateway,
    /// `--client-cert-auth`: who has a certificate needs no token.
    certificates: bool,
}

/// That a read was allowed, until users or roles change.
#[must_use]
pub(super) struct Permit {
    /// `None` where nothing had to be allowed.
    revision: Option<u64>,
}

impl Access {
    /// Puts the parts together.
    pub fn new(auth: AuthView, tokens: TokenProvider, gateway: Gateway, certificates: bool) -> Self {
        Self { auth, tokens, gateway, certificates }
    }

    /// Users and roles at this moment.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.load()
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.auth.is_enabled()
    }

    pub(super) fn tokens(&self) -> &TokenProvider {
        &self.tokens
    }

    /// Whose token a request carries, where this member can tell at once: nothing hangs on it but whose share of the
    /// server a request takes. Signed tokens are not looked at, since to verify one costs as much as a small request.
    pub(super) fn bearer(&self, headers: &HeaderMap) -> Option<String> {
        match &self.tokens {
            TokenProvider::Simple(tokens) if self.auth.is_enabled() => tokens.owner(&token_in(headers)?),
            _ => None,
        }
    }

    /// Who sends a request; `None` where it does not say, or nobody needs to.
    pub(super) async fn caller(&self, credentials: &Credentials) -> Result<Option<Caller>, ApiError> {
        if !self.auth.is_enabled() {
            return Ok(None);
        }
        let Some(token) = &credentials.token else {
            let certificate = credentials.certificate.as_ref().filter(|_| self.certificates);
            return Ok(certificate.map(|name| Caller { user: name.clone(), auth_revision: self.auth.revision() }));
        };
        let caller = match &self.tokens {
            TokenProvider::Simple(tokens) => {
                // Taken before the token is looked up: if users or roles change in between, it is old.
                let auth_revision = self.auth.revision();
                let index = token_index(token).ok_or(ApiError::InvalidAuthToken)?;
                // It may have been given by a member that is ahead of this one. Waited for as long as a request may
                // take; etcd waits for as long as the client does.
                self.gateway.wait_for(index).await.map_err(|_| ApiError::InvalidAuthToken)?;
                tokens.user(token).map(|user| Caller { user, auth_revision })
            }
            TokenProvider::Signed(jwt) => {
                jwt.verify(token, clock::since_epoch()).map(|(user, auth_revision)| Caller { user, auth_revision })
            }
            TokenProvider::Nothing => None,
        };
        if caller.is_none() {
            tracing::warn!("invalid auth token");
        }
        caller.ok_or(ApiError::InvalidAuthToken).map(Some)
    }

    /// The same, for where nobody is told apart from somebody only later.
    pub(super) async fn caller_or_nobody(&self, credentials: &Credentials) -> Result<Caller, ApiError> {
        Ok(self.caller(credentials).await?.unwrap_or_default())
    }

    /// Applies the rule of a method.
    pub(super) async fn admit(&self, rule: RpcAccess, credentials: &Credentials) -> Result<(), ApiError> {
        if rule == RpcAccess::ByRequest || !self.is_enabled() {
            return Ok(());
        }
        let caller = self.caller(credentials).await?;
        // It may have been switched off meanwhile.
        if !self.is_enabled() {
            return Ok(());
        }
        match rule {
            RpcAccess::Root => self.check(|auth| auth.check_admin(&caller.unwrap_or_default())),
            _ => somebody(caller).map(drop),
        }
    }

    /// Judges a read; what it gives must be asked again once the read is done.
    pub(super) async fn permit(
        &self,
        credentials: &Credentials,
        judge: impl FnOnce(&Auth, &Caller) -> Result<(), Refusal>,
    ) -> Result<Permit, ApiError> {
        if !self.is_enabled() {
            return Ok(Permit { revision: None });
        }
        let caller = self.caller_or_nobody(credentials).await?;
        self.check(|auth| judge(auth, &caller))?;
        Ok(Permit { revision: Some(caller.auth_revision).filter(|revision| *revision != 0) })
    }

    /// Refuses what was read if users or roles changed since it was permitted.
    pub(super) fn confirm(&self, permit: &Permit) -> Result<(), ApiError> {
        match permit.revision {
            Some(revision) if revision != self.auth.revision() => Err(ApiError::AuthOldRevision),
            _ => Ok(()),
        }
    }

    /// Judges whether somebody may do something with each of these keys; an administrator always may.
    pub(super) async fn permit_keys<K: AsRef<[u8]>>(
        &self,
        credentials: &Credentials,
        right: Right,
        keys: impl FnOnce() -> Vec<K>,
    ) -> Result<Permit, ApiError> {
        if !self.is_enabled() {
            return Ok(Permit { revision: None });
        }
        // Taken before the keys are looked up; the token's own does not matter here, as in etcd.
        let revision = Some(self.auth.revision());
        let caller = somebody(self.caller(credentials).await?)?;
        self.check(|auth| {
            if auth.check_admin(&caller).is_ok() {
                return Ok(());
            }
            keys().iter().try_for_each(|key| auth.check(&caller, right, key.as_ref(), &[]))
        })?;
        Ok(Permit { revision })
    }

    /// Asks users and roles as they are now.
    pub(super) fn check(&self, judge: impl FnOnce(&Auth) -> Result<(), Refusal>) -> Result<(), ApiError> {
        judge(&self.auth.load()).map_err(ApiError::from)
    }
}

/// A certificate without a name says that there is a user, and not which: it has no rights on any key (in etcd's
/// words, permission is denied), and is nobody where it only matters that there is somebody.
fn somebody(caller: Option<Caller>) -> Result<Caller, ApiError> {
    caller.filter(|caller| !caller.user.is_empty()).ok_or(ApiError::UserEmpty)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::env::PeerCertificate;

    fn read(pairs: &[(&'static str, &'static [u8])], certificate: Option<&str>) -> Credentials {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut extensions = Extensions::new();
        if let Some(name) = certificate {
            let certificate = Some(PeerCertificate { common_name: name.to_owned() });
            extensions.insert(Secured { certificate });
        }
        Credentials::read(&headers, &extensions)
    }

    #[test]
    fn a_token_is_found_in_either_place() {
        for (pairs, token) in [
            (&[][..], None),
            (&[("token", &b"a.1"[..])][..], Some("a.1")),
            (&[("authorization", b"a.1")], Some("a.1")),
            (&[("authorization", b"Bearer a.1")], Some("a.1")),
            (&[("token", b"Bearer a.1")], Some("a.1")),
            (&[("authorization", b"bearer a.1")], Some("bearer a.1")),
            (&[("authorization", b"b.2"), ("token", b"a.1")], Some("a.1")),
            (&[("token", b"a.1"), ("token", b"b.2")], Some("a.1")),
            (&[("token", b"")], Some("")),
            (&[("token", b"\xff")], Some("\u{fffd}")),
        ] {
            assert_eq!(read(pairs, None).token.as_deref(), token, "{pairs:?}");
        }
    }

    /// CVE-2018-16886: the gateway's own certificate must not be its clients'.
    #[test]
    fn the_gateway_has_no_name() {
        assert_eq!(read(&[], Some("alice")).certificate.as_deref(), Some("alice"));
        assert_eq!(read(&[("grpcgateway-accept", b"*/*")], Some("alice")).certificate, None);
        assert_eq!(read(&[("grpcgateway-accept", b"")], Some("alice")).certificate, None);
        assert_eq!(read(&[], None).certificate, None);
        assert_eq!(read(&[], Some("")).certificate.as_deref(), Some(""));
        assert_eq!(somebody(Some(Caller { user: String::new(), auth_revision: 7 })), Err(ApiError::UserEmpty));
    }
}
