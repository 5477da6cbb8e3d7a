//! Calls about users and roles.

use mainstay_client::proto::authpb::{Permission, permission::Type};
use mainstay_client::{Client, Error, User};
use mainstay_tests::history::{AuthCall, AuthEnd, AuthReply, Rights, Span};
use mainstay_tests::transactions::key_range;

/// Who may do everything, and its role.
pub(crate) const ROOT: &str = "root";

/// A user with its password.
pub(crate) fn user(name: &str) -> User {
    User::new(name, password(name))
}

fn password(user: &str) -> String {
    format!("{user}-secret")
}

/// Asks a server.
pub(crate) async fn perform(client: &Client, call: &AuthCall) -> Result<AuthReply, Error> {
    match call {
        AuthCall::Enable => client.auth_enable().await,
        AuthCall::Disable => client.auth_disable().await,
        AuthCall::Status => {
            let status = client.auth_status().await?;
            return Ok(AuthReply::Status { enabled: status.enabled, revision: status.auth_revision });
        }
        AuthCall::UserAdd { user } => client.user_add(user, &password(user)).await,
        AuthCall::UserDelete { user } => client.user_delete(user).await,
        AuthCall::RoleAdd { role } => client.role_add(role).await,
        AuthCall::RoleDelete { role } => client.role_delete(role).await,
        AuthCall::RoleGrant { user, role } => client.user_grant_role(user, role).await,
        AuthCall::RoleRevoke { user, role } => client.user_revoke_role(user, role).await,
        AuthCall::Permit { role, span, rights } => client.role_grant(role, permission(span, *rights)).await,
        AuthCall::Forbid { role, span } => client.role_revoke(role, &key_range(span)).await,
    }?;
    Ok(AuthReply::Done)
}

fn permission(span: &Span, rights: Rights) -> Permission {
    let perm_type = match (rights.read, rights.write) {
        (true, true) => Type::Readwrite,
        (false, true) => Type::Write,
        _ => Type::Read,
    };
    let range = key_range(span);
    Permission { perm_type: perm_type.into(), key: range.key().clone(), range_end: range.range_end().clone() }
}

/// Users and roles as a member has them.
pub(crate) async fn all(client: &Client) -> Result<AuthEnd, Error> {
    let status = client.auth_status().await?;
    let mut end = AuthEnd { enabled: status.enabled, revision: status.auth_revision, ..AuthEnd::default() };
    for user in client.users().await? {
        let roles = client.user_roles(&user).await?;
        end.users.insert(user, roles);
    }
    for role in client.roles().await? {
        let permissions = client.role_permissions(&role).await?;
        end.roles.insert(role, permissions.into_iter().map(permitted).collect());
    }
    Ok(end)
}

fn permitted(permission: Permission) -> (Span, Rights) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let to = Some(text(&permission.range_end)).filter(|to| !to.is_empty());
    let rights = match permission.perm_type() {
        Type::Read => Rights { read: true, write: false },
        Type::Write => Rights { read: false, write: true },
        Type::Readwrite => Rights { read: true, write: true },
    };
    (Span { from: text(&permission.key), to }, rights)
}
