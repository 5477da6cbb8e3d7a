//! Users and roles by scripts with their results written out, and decisions against a model that is too
//! simple to be wrong.

mod decisions;
mod records;
mod scripts;

use mainstay_proto::authpb::permission::Type;
use mainstay_proto::authpb::{Permission, UserAddOptions};
use mainstay_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
};

use super::state::{Auth, AuthChange, encoded_hash};
use crate::command::{Caller, Refusal};

type Changed = Result<Vec<AuthChange>, Refusal>;

fn add_user(auth: &mut Auth, name: &str) -> Changed {
    let hashed_password = encoded_hash(&format!("hash of {name}"));
    auth.add_user(&AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() })
}

fn add_user_without_password(auth: &mut Auth, name: &str) -> Changed {
    let options = Some(UserAddOptions { no_password: true });
    auth.add_user(&AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() })
}

fn delete_user(auth: &mut Auth, name: &str) -> Changed {
    auth.delete_user(&AuthUserDeleteRequest { name: name.to_owned() })
}

fn change_password(auth: &mut Auth, name: &str, hashed_password: &str) -> Changed {
    let (name, hashed_password) = (name.to_owned(), hashed_password.to_owned());
    auth.change_password(&AuthUserChangePasswordRequest { name, hashed_password, ..Default::default() })
}

fn grant_role(auth: &mut Auth, user: &str, role: &str) -> Changed {
    auth.grant_role(&AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
}

fn revoke_role(auth: &mut Auth, user: &str, role: &str) -> Changed {
    auth.revoke_role(&AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() })
}

fn add_role(auth: &mut Auth, name: &str) -> Changed {
    auth.add_role(&AuthRoleAddRequest { name: name.to_owned() })
}

fn delete_role(auth: &mut Auth, name: &str) -> Changed {
    auth.delete_role(&AuthRoleDeleteRequest { role: name.to_owned() })
}

fn permission(kind: Type, key: &[u8], range_end: &[u8]) -> Permission {
    Permission { perm_type: kind.into(), key: key.to_vec().into(), range_end: range_end.to_vec().into() }
}

fn grant(auth: &mut Auth, role: &str, kind: Type, key: &[u8], range_end: &[u8]) -> Changed {
    let perm = Some(permission(kind, key, range_end));
    auth.grant_permission(&AuthRoleGrantPermissionRequest { name: role.to_owned(), perm })
}

fn revoke(auth: &mut Auth, role: &str, key: &[u8], range_end: &[u8]) -> Changed {
    let (key, range_end) = (key.to_vec().into(), range_end.to_vec().into());
    auth.revoke_permission(&AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end })
}

/// A user as it asks right now.
fn caller(auth: &Auth, user: &str) -> Caller {
    Caller { user: user.to_owned(), auth_revision: auth.revision() }
}

/// Users and roles that count, with an administrator.
fn enabled() -> Auth {
    let mut auth = Auth::default();
    add_user(&mut auth, "root").unwrap();
    grant_role(&mut auth, "root", "root").unwrap();
    auth.enable().unwrap();
    auth
}
