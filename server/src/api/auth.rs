//! Users, roles and permissions. Changes of them are judged when they are applied; what is asked of them is
//! read here, as of a moment after the question.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::etcdserverpb::auth_server::Auth;
use mainstay_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse, ResponseHeader,
};
use mainstay_proto::mainstay::Authenticate;
use tonic::{Request, Response, Status};

use super::Services;
use super::access::Credentials;
use super::propose::Applied;
use super::status::{self, ApiError};
use crate::auth::{self, TokenProvider};
use crate::command::Caller;
use crate::command::command::Kind;
use crate::command::outcome::Reply;
use crate::env::clock;

#[tonic::async_trait]
impl Auth for Services {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Result<Response<AuthEnableResponse>, Status> {
        let header = self.manage(request, Kind::AuthEnable).await?;
        tracing::info!("enabled authentication");
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let header = self.manage(request, Kind::AuthDisable).await?;
        tracing::info!("disabled authentication");
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
        let (_, auth) = self.look(&request).await?;
        let header = Some(self.header_now());
        Ok(Response::new(AuthStatusResponse { header, enabled: auth.is_enabled(), auth_revision: auth.revision() }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let AuthenticateRequest { name, password } = request.into_inner();
        let response = self.log_in(&name, password).await.inspect_err(|status| {
            if status.message() != ApiError::AuthNotEnabled.message() {
                tracing::warn!(user = name, error = status.message(), "invalid authentication was requested");
            }
        })?;
        Ok(Response::new(response))
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Result<Response<AuthUserAddResponse>, Status> {
        let credentials = Credentials::of(&request);
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.hashed(password).await?;
        }
        let header = self.manage_by(&credentials, Kind::AuthUserAdd(request)).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Result<Response<AuthUserGetResponse>, Status> {
        let (caller, auth) = self.look(&request).await?;
        let name = request.into_inner().name;
        let roles = auth.check_user_get(&caller, &name).and_then(|()| auth.roles_of(&name)).map_err(ApiError::from)?;
        Ok(Response::new(AuthUserGetResponse { header: Some(self.header_now()), roles }))
    }

    async fn user_list(&self, request: Request<AuthUserListRequest>) -> Result<Response<AuthUserListResponse>, Status> {
        let (caller, auth) = self.look(&request).await?;
        auth.check_admin(&caller).map_err(ApiError::from)?;
        Ok(Response::new(AuthUserListResponse { header: Some(self.header_now()), users: auth.user_names() }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let header = self.manage(request, Kind::AuthUserDelete).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let credentials = Credentials::of(&request);
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        // Without a password the client has hashed it; as in etcd.
        if !password.is_empty() {
            request.hashed_password = self.hashed(password).await?;
        }
        let header = self.manage_by(&credentials, Kind::AuthUserChangePassword(request)).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let header = self.manage(request, Kind::AuthUserGrantRole).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let header = self.manage(request, Kind::AuthUserRevokeRole).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Result<Response<AuthRoleAddResponse>, Status> {
        let header = self.manage(request, Kind::AuthRoleAdd).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Result<Response<AuthRoleGetResponse>, Status> {
        let (caller, auth) = self.look(&request).await?;
        let role = request.into_inner().role;
        let perm =
            auth.check_role_get(&caller, &role).and_then(|()| auth.permissions_of(&role)).map_err(ApiError::from)?;
        Ok(Response::new(AuthRoleGetResponse { header: Some(self.header_now()), perm }))
    }

    async fn role_list(&self, request: Request<AuthRoleListRequest>) -> Result<Response<AuthRoleListResponse>, Status> {
        let (caller, auth) = self.look(&request).await?;
        auth.check_admin(&caller).map_err(ApiError::from)?;
        Ok(Response::new(AuthRoleListResponse { header: Some(self.header_now()), roles: auth.role_names() }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let header = self.manage(request, Kind::AuthRoleDelete).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let header = self.manage(request, Kind::AuthRoleGrantPermission).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let header = self.manage(request, Kind::AuthRoleRevokePermission).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}

impl Services {
    /// Proposes a change of users or roles; the header of its response.
    async fn manage<T>(
        &self,
        request: Request<T>,
        command: impl FnOnce(T) -> Kind,
    ) -> Result<Option<ResponseHeader>, Status> {
        let credentials = Credentials::of(&request);
        self.manage_by(&credentials, command(request.into_inner())).await
    }

    async fn manage_by(&self, credentials: &Credentials, command: Kind) -> Result<Option<ResponseHeader>, Status> {
        let applied = self.propose(credentials, command).await?;
        Ok(Some(self.header(applied.revision)))
    }

    /// Who asks, and users and roles with every change that was acknowledged before.
    async fn look<T: Sync>(&self, request: &Request<T>) -> Result<(Caller, Arc<auth::Auth>), Status> {
        let caller = self.access.caller_or_nobody(&Credentials::of(request)).await?;
        self.gateway.read_index().await?;
        Ok((caller, self.access.auth()))
    }

    /// The hash of a new password as a command carries it.
    async fn hashed(&self, password: String) -> Result<String, ApiError> {
        Ok(auth::encoded_hash(&self.passwords.hash(password).await?))
    }

    /// Checks a password, and gives its user a token that every member will know.
    async fn log_in(&self, name: &str, password: String) -> Result<AuthenticateResponse, Status> {
        self.gateway.read_index().await?;
        let password = Bytes::from(password);
        loop {
            let auth = self.access.auth();
            let (hash, revision) = (auth.password_hash(name).map_err(ApiError::from)?, auth.revision());
            if !self.passwords.verify(password.clone(), hash).await.map_err(ApiError::from)? {
                return Err(ApiError::AuthFailed.into());
            }
            let response = self.assign(name, revision).await?;
            // What was checked may have been an older password.
            if self.access.auth().revision() == revision {
                return Ok(response);
            }
            tracing::info!("revision when password checked became stale; retrying");
        }
    }

    async fn assign(&self, name: &str, auth_revision: u64) -> Result<AuthenticateResponse, Status> {
        let tokens = self.access.tokens();
        let command = Authenticate { name: name.to_owned(), simple_token: tokens.new_prefix() };
        let Applied { revision, reply: Some(Reply::Authenticate(response)) } =
            self.propose_by(None, Kind::Authenticate(command)).await?
        else {
            return Err(status::foreign_outcome());
        };
        let token = match tokens {
            TokenProvider::Simple(_) => response.token,
            TokenProvider::Signed(jwt) => {
                jwt.sign(name, auth_revision, clock::since_epoch()).ok_or(ApiError::TokenVerifyOnly)?
            }
            TokenProvider::Nothing => return Err(ApiError::AuthFailed.into()),
        };
        Ok(AuthenticateResponse { header: Some(self.header(revision)), token })
    }
}
