use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use mainstay_proto::authpb::{self, Permission};
use mainstay_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
};

use super::permissions::Permissions;
use crate::command::Refusal;
use crate::env::probe;

/// The name of the first administrator, and of the role that makes one.
pub const ROOT: &str = "root";

/// The revision of users and roles that nobody has changed; as in etcd.
const FIRST_REVISION: u64 = 1;

/// Users, roles, and whether they count: the replicated part.
///
/// Cloned for each change and shared with readers, so users and roles are behind counted references.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, Arc<User>>,
    roles: BTreeMap<String, Arc<authpb::Role>>,
}

/// A user, and what its roles allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    stored: authpb::User,
    permissions: Permissions,
}

/// One thing that a command changed, to be stored.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthChange {
    /// Users and roles count now, or no longer.
    Enabled(bool),
    /// The revision of users and roles.
    Revision(u64),
    /// A user is new or another.
    User(authpb::User),
    /// A user is gone.
    UserGone(String),
    /// A role is new or another.
    Role(authpb::Role),
    /// A role is gone.
    RoleGone(String),
}

type Changed = Result<Vec<AuthChange>, Refusal>;

impl Default for Auth {
    fn default() -> Self {
        Self { enabled: false, revision: FIRST_REVISION, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl User {
    pub(super) fn has_role(&self, role: &str) -> bool {
        self.stored.roles.iter().any(|held| held == role)
    }

    pub(super) fn permissions(&self) -> &Permissions {
        &self.permissions
    }
}

/// What readers ask.
impl Auth {
    /// Whether requests are checked at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Counts the changes of users and roles.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The users as they are stored, by name.
    pub fn users(&self) -> impl Iterator<Item = &authpb::User> {
        self.users.values().map(|user| &user.stored)
    }

    /// The roles as they are stored, by name.
    pub fn roles(&self) -> impl Iterator<Item = &authpb::Role> {
        self.roles.values().map(|role| &**role)
    }

    /// The names of all users, in order.
    pub fn user_names(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The names of all roles, in order.
    pub fn role_names(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// The roles of a user, in order.
    pub fn roles_of(&self, user: &str) -> Result<Vec<String>, Refusal> {
        self.users.get(user).map(|user| user.stored.roles.clone()).ok_or(Refusal::UserNotFound)
    }

    /// The permissions of a role. Those of root are shown as everything, whatever was granted to it.
    pub fn permissions_of(&self, role: &str) -> Result<Vec<Permission>, Refusal> {
        let found = self.roles.get(role).ok_or(Refusal::RoleNotFound)?;
        if role == ROOT {
            let everything = Permission {
                perm_type: authpb::permission::Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(b"\0"),
            };
            return Ok(vec![everything]);
        }
        Ok(found.key_permission.clone())
    }

    /// The hash against which a user's password is checked.
    ///
    /// # Errors
    /// When passwords do not count, or this user has none.
    pub fn password_hash(&self, user: &str) -> Result<Bytes, Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = self.users.get(user).ok_or(Refusal::AuthFailed)?;
        if has_no_password(&user.stored) {
            return Err(Refusal::NoPasswordUser);
        }
        Ok(user.stored.password.clone())
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }
}

/// What commands do. Each returns what is to be stored: nothing where nothing changed.
impl Auth {
    /// Makes users and roles count.
    pub fn enable(&mut self) -> Changed {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.users.get(ROOT).ok_or(Refusal::RootUserNotExist)?;
        if !root.has_role(ROOT) {
            return Err(Refusal::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(vec![AuthChange::Enabled(true)])
    }

    /// Lets everybody do everything again.
    pub fn disable(&mut self) -> Changed {
        if !self.enabled {
            return Ok(Vec::new());
        }
        self.enabled = false;
        Ok(self.revised(vec![AuthChange::Enabled(false)]))
    }

    /// Whether a user whose password was found to be right may be given a token.
    pub fn authenticate(&self, user: &str) -> Result<(), Refusal> {
        match self.password_hash(user) {
            Ok(_) => Ok(()),
            Err(Refusal::AuthNotEnabled) => Err(Refusal::AuthNotEnabled),
            Err(_) => Err(Refusal::AuthFailed),
        }
    }

    /// Adds a user.
    pub fn add_user(&mut self, request: &AuthUserAddRequest) -> Changed {
        if request.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Refusal::UserAlreadyExists);
        }
        let options = request.options.unwrap_or_default();
        let password = if options.no_password { Bytes::new() } else { decoded(&request.hashed_password)? };
        let name = Bytes::from(request.name.clone());
        let change = self.put_user(authpb::User { name, password, roles: Vec::new(), options: Some(options) });
        Ok(self.revised(vec![change]))
    }

    /// Takes a user away.
    pub fn delete_user(&mut self, request: &AuthUserDeleteRequest) -> Changed {
        if self.enabled && request.name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.users.remove(&request.name).ok_or(Refusal::UserNotFound)?;
        Ok(self.revised(vec![AuthChange::UserGone(request.name.clone())]))
    }

    /// Gives a user another password. One without a password stays without.
    pub fn change_password(&mut self, request: &AuthUserChangePasswordRequest) -> Changed {
        let mut user = self.stored(&request.name)?;
        if has_no_password(&user) {
            user.password = Bytes::new();
        } else {
            user.password = decoded(&request.hashed_password)?;
        }
        let change = self.put_user(user);
        Ok(self.revised(vec![change]))
    }

    /// Gives a user a role. That it has it already is no error and no change.
    pub fn grant_role(&mut self, request: &AuthUserGrantRoleRequest) -> Changed {
        let mut user = self.stored(&request.user)?;
        // Role root means something by its name alone.
        if request.role != ROOT && !self.roles.contains_key(&request.role) {
            return Err(Refusal::RoleNotFound);
        }
        let Err(place) = user.roles.binary_search(&request.role) else {
            return Ok(Vec::new());
        };
        user.roles.insert(place, request.role.clone());
        let change = self.put_user(user);
        Ok(self.revised(vec![change]))
    }

    /// Takes a role from a user.
    pub fn revoke_role(&mut self, request: &AuthUserRevokeRoleRequest) -> Changed {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut user = self.stored(&request.name)?;
        let held = user.roles.len();
        user.roles.retain(|role| *role != request.role);
        if user.roles.len() == held {
            return Err(Refusal::RoleNotGranted);
        }
        let change = self.put_user(user);
        Ok(self.revised(vec![change]))
    }

    /// Adds a role without permissions.
    pub fn add_role(&mut self, request: &AuthRoleAddRequest) -> Changed {
        if request.name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.roles.contains_key(&request.name) {
            return Err(Refusal::RoleAlreadyExists);
        }
        let name = Bytes::from(request.name.clone());
        let changes = self.put_role(authpb::Role { name, key_permission: Vec::new() });
        Ok(self.revised(changes))
    }

    /// Takes a role away, from all users too.
    pub fn delete_role(&mut self, request: &AuthRoleDeleteRequest) -> Changed {
        if self.enabled && request.role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.roles.remove(&request.role).ok_or(Refusal::RoleNotFound)?;
        let mut changes = vec![AuthChange::RoleGone(request.role.clone())];
        let holders: Vec<authpb::User> =
            self.users.values().filter(|user| user.has_role(&request.role)).map(|user| user.stored.clone()).collect();
        for mut user in holders {
            user.roles.retain(|role| *role != request.role);
            changes.push(self.put_user(user));
        }
        Ok(self.revised(changes))
    }

    /// Grants a range to a role, or changes what may be done with one that it has.
    ///
    /// Only the first of several ranges that begin with one key is found again: a later one is then
    /// granted a second time beside the first, as in etcd. Revoking it takes both.
    pub fn grant_permission(&mut self, request: &AuthRoleGrantPermissionRequest) -> Changed {
        let Some(permission) = &request.perm else {
            return Err(Refusal::PermissionNotGiven);
        };
        if !is_range(permission) {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut role = authpb::Role::clone(self.roles.get(&request.name).ok_or(Refusal::RoleNotFound)?);
        let first = role.key_permission.partition_point(|held| held.key < permission.key);
        match role.key_permission.get_mut(first) {
            Some(held) if held.key == permission.key && held.range_end == permission.range_end => {
                held.perm_type = permission.perm_type;
            }
            _ => {
                let behind = role.key_permission.partition_point(|held| held.key <= permission.key);
                role.key_permission.insert(behind, permission.clone());
            }
        }
        let changes = self.put_role(role);
        Ok(self.revised(changes))
    }

    /// Takes a range from a role.
    pub fn revoke_permission(&mut self, request: &AuthRoleRevokePermissionRequest) -> Changed {
        let mut role = authpb::Role::clone(self.roles.get(&request.role).ok_or(Refusal::RoleNotFound)?);
        let held = role.key_permission.len();
        role.key_permission.retain(|held| held.key != request.key || held.range_end != request.range_end);
        if role.key_permission.len() == held {
            return Err(Refusal::PermissionNotGranted);
        }
        if probe::broken("revoked-role-keeps-permission") {
            // Wrong: what the role's holders may do is not worked out again.
            self.roles.insert(request.role.clone(), Arc::new(role.clone()));
            return Ok(self.revised(vec![AuthChange::Role(role)]));
        }
        let changes = self.put_role(role);
        Ok(self.revised(changes))
    }

    /// Takes in what was stored, in any order; [`Auth::loaded`] ends it.
    pub(super) fn load(&mut self, stored: AuthChange) {
        match stored {
            AuthChange::Enabled(enabled) => self.enabled = enabled,
            AuthChange::Revision(revision) => self.revision = revision,
            AuthChange::User(user) => drop(self.put_user(user)),
            AuthChange::Role(role) => {
                self.roles.insert(text(&role.name), Arc::new(role));
            }
            AuthChange::UserGone(_) | AuthChange::RoleGone(_) => {}
        }
    }

    /// Works out what users may do, now that all roles are known.
    pub(super) fn loaded(&mut self) {
        let users: Vec<authpb::User> = self.users().cloned().collect();
        for user in users {
            self.put_user(user);
        }
    }

    fn stored(&self, user: &str) -> Result<authpb::User, Refusal> {
        self.users.get(user).map(|user| user.stored.clone()).ok_or(Refusal::UserNotFound)
    }

    fn put_user(&mut self, stored: authpb::User) -> AuthChange {
        let roles = stored.roles.iter().filter_map(|role| self.roles.get(role));
        let permissions = Permissions::of(roles.flat_map(|role| &role.key_permission));
        self.users.insert(text(&stored.name), Arc::new(User { stored: stored.clone(), permissions }));
        AuthChange::User(stored)
    }

    /// Sets a role, and works out again what its holders may do.
    fn put_role(&mut self, role: authpb::Role) -> Vec<AuthChange> {
        let name = text(&role.name);
        self.roles.insert(name.clone(), Arc::new(role.clone()));
        let holders: Vec<authpb::User> =
            self.users.values().filter(|user| user.has_role(&name)).map(|user| user.stored.clone()).collect();
        for user in holders {
            self.put_user(user); // itself it stays as it was
        }
        vec![AuthChange::Role(role)]
    }

    fn revised(&mut self, mut changes: Vec<AuthChange>) -> Vec<AuthChange> {
        self.revision += 1;
        changes.push(AuthChange::Revision(self.revision));
        changes
    }
}

fn has_no_password(user: &authpb::User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

/// The hash of a password as requests and commands carry it.
pub fn encoded_hash(hash: &str) -> String {
    BASE64.encode(hash)
}

/// The reverse of [`encoded_hash`].
fn decoded(hash: &str) -> Result<Bytes, Refusal> {
    // Line breaks do not count, as in Go's decoder.
    let hash: String = hash.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    BASE64.decode(hash).map(Bytes::from).map_err(|_| Refusal::NoPasswordUser)
}

/// Whether a permission names a key, or a range that holds any.
fn is_range(permission: &Permission) -> bool {
    let Permission { key, range_end, .. } = permission;
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end.as_ref() == [0])
}

/// Names are text on the wire; stored ones came from there.
fn text(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}
