//! Users and roles, and showing who one is.
//!
//! A client that has a [`User`] logs in when the server asks for it, and again when its token no longer
//! counts. Such a refusal is a promise that nothing happened, so the request is then made once more; as in
//! etcd's own client.

use std::sync::{Arc, Mutex, PoisonError};

use mainstay_proto::authpb::{Permission, UserAddOptions};
use mainstay_proto::etcdserverpb::auth_client::AuthClient;
use mainstay_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, AuthenticateRequest, ResponseHeader,
};
use tonic::metadata::{Ascii, MetadataValue};

use crate::channel::Channel;
use crate::client::Client;
use crate::error::{Error, Reason};
use crate::failover::Class;

fn service(channel: Channel) -> AuthClient<Channel> {
    AuthClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// A user that clients are, and the token that shows it. Clones share the token.
#[derive(Clone)]
pub struct User {
    name: String,
    password: String,
    token: Arc<Mutex<Option<MetadataValue<Ascii>>>>,
}

/// A password and a token are credentials, and must not get into a log by way of a `{:?}`.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl User {
    /// A user that has not logged in.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into(), token: Arc::default() }
    }

    pub(crate) fn token(&self) -> Option<MetadataValue<Ascii>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_token(&self, token: Option<MetadataValue<Ascii>>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

/// Whether a request was refused because of who asked, and would not be with a new token.
pub(crate) fn asks_for_login(error: &Error) -> bool {
    matches!(error.reason(), Some(Reason::UserEmpty | Reason::InvalidAuthToken | Reason::AuthOldRevision))
}

impl Client {
    /// The same client, that shows that it is a user.
    pub fn with_user(&self, user: User) -> Self {
        let mut client = self.clone();
        client.user = Some(user);
        client
    }

    /// Gets a new token for the client's user; nothing to do where it has none or authentication is off.
    pub async fn log_in(&self) -> Result<(), Error> {
        let Some(user) = &self.user else { return Ok(()) };
        let request = AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        // Doing so twice does no harm, but leaves a token that nobody uses.
        let answer =
            self.call_once(Class::Read, request, |channel, request| async move {
                service(channel).authenticate(request).await
            })
            .await;
        match answer {
            Ok(response) => {
                let token = response.token.parse();
                user.set_token(Some(token.map_err(|_| Error::Malformed("a token that is no header"))?));
                Ok(())
            }
            Err(error) if error.reason() == Some(Reason::AuthNotEnabled) => {
                user.set_token(None);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes users and roles count.
    pub async fn auth_enable(&self) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthEnableRequest {};
        let answer = self
            .call(Class::Write, request, |channel, request| async move { service(channel).auth_enable(request).await });
        Ok(answer.await?.header)
    }

    /// Lets everybody do everything.
    pub async fn auth_disable(&self) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthDisableRequest {};
        let answer =
            self.call(
                Class::Write,
                request,
                |channel, request| async move { service(channel).auth_disable(request).await },
            );
        Ok(answer.await?.header)
    }

    /// Whether users and roles count, and how often they changed.
    pub async fn auth_status(&self) -> Result<AuthStatusResponse, Error> {
        self.call(Class::Read, AuthStatusRequest {}, |channel, request| async move {
            service(channel).auth_status(request).await
        })
        .await
    }

    /// Adds a user with a password.
    pub async fn user_add(&self, name: &str, password: &str) -> Result<Option<ResponseHeader>, Error> {
        let options = Some(UserAddOptions { no_password: false });
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = AuthUserAddRequest { name, password, options, ..AuthUserAddRequest::default() };
        let answer = self
            .call(Class::Write, request, |channel, request| async move { service(channel).user_add(request).await });
        Ok(answer.await?.header)
    }

    /// Takes a user away, and its tokens.
    pub async fn user_delete(&self, name: &str) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthUserDeleteRequest { name: name.to_owned() };
        let answer = self
            .call(Class::Write, request, |channel, request| async move { service(channel).user_delete(request).await });
        Ok(answer.await?.header)
    }

    /// Gives a user another password, and takes its tokens.
    pub async fn user_change_password(&self, name: &str, password: &str) -> Result<Option<ResponseHeader>, Error> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = AuthUserChangePasswordRequest { name, password, ..AuthUserChangePasswordRequest::default() };
        let answer = self.call(Class::Write, request, |channel, request| async move {
            service(channel).user_change_password(request).await
        });
        Ok(answer.await?.header)
    }

    /// Gives a user a role.
    pub async fn user_grant_role(&self, user: &str, role: &str) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        let answer = self.call(Class::Write, request, |channel, request| async move {
            service(channel).user_grant_role(request).await
        });
        Ok(answer.await?.header)
    }

    /// Takes a role from a user.
    pub async fn user_revoke_role(&self, user: &str, role: &str) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() };
        let answer = self.call(Class::Write, request, |channel, request| async move {
            service(channel).user_revoke_role(request).await
        });
        Ok(answer.await?.header)
    }

    /// The names of all users.
    pub async fn users(&self) -> Result<Vec<String>, Error> {
        let answer = self.call(Class::Read, AuthUserListRequest {}, |channel, request| async move {
            service(channel).user_list(request).await
        });
        Ok(answer.await?.users)
    }

    /// The roles of a user.
    pub async fn user_roles(&self, name: &str) -> Result<Vec<String>, Error> {
        let request = AuthUserGetRequest { name: name.to_owned() };
        let answer =
            self.call(Class::Read, request, |channel, request| async move { service(channel).user_get(request).await });
        Ok(answer.await?.roles)
    }

    /// Adds a role without permissions.
    pub async fn role_add(&self, name: &str) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthRoleAddRequest { name: name.to_owned() };
        let answer = self
            .call(Class::Write, request, |channel, request| async move { service(channel).role_add(request).await });
        Ok(answer.await?.header)
    }

    /// Takes a role away, from all users too.
    pub async fn role_delete(&self, name: &str) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthRoleDeleteRequest { role: name.to_owned() };
        let answer = self
            .call(Class::Write, request, |channel, request| async move { service(channel).role_delete(request).await });
        Ok(answer.await?.header)
    }

    /// The names of all roles.
    pub async fn roles(&self) -> Result<Vec<String>, Error> {
        let answer = self.call(Class::Read, AuthRoleListRequest {}, |channel, request| async move {
            service(channel).role_list(request).await
        });
        Ok(answer.await?.roles)
    }

    /// The permissions of a role.
    pub async fn role_permissions(&self, name: &str) -> Result<Vec<Permission>, Error> {
        let request = AuthRoleGetRequest { role: name.to_owned() };
        let answer =
            self.call(Class::Read, request, |channel, request| async move { service(channel).role_get(request).await });
        Ok(answer.await?.perm)
    }

    /// Grants a range of keys to a role, or changes what it may do with one that it has.
    pub async fn role_grant(&self, role: &str, permission: Permission) -> Result<Option<ResponseHeader>, Error> {
        let request = AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(permission) };
        let answer = self.call(Class::Write, request, |channel, request| async move {
            service(channel).role_grant_permission(request).await
        });
        Ok(answer.await?.header)
    }

    /// Takes a range of keys from a role.
    pub async fn role_revoke(&self, role: &str, range: &crate::KeyRange) -> Result<Option<ResponseHeader>, Error> {
        let (key, range_end) = (range.key().clone(), range.range_end().clone());
        let request = AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end };
        let answer = self.call(Class::Write, request, |channel, request| async move {
            service(channel).role_revoke_permission(request).await
        });
        Ok(answer.await?.header)
    }
}
