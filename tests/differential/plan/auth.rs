//! Users, roles and permissions.
//!
//! A quarter of the seeds turn authentication on. There are few names, so that users meet roles; the
//! first clients log in as root now and then, because nobody else may change anything.

use bytes::Bytes;
use mainstay_proto::authpb::{Permission, UserAddOptions};
use mainstay_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, AuthenticateRequest,
};

use super::Planner;
use crate::step::{CLIENTS, ROOT, ROOT_PASSWORD, Step};

/// How many clients are mostly root.
const ROOT_CLIENTS: usize = 3;
/// Names of users and roles besides root.
const USERS: [&str; 4] = ["u0", "u1", "u2", "u3"];
const ROLES: [&str; 4] = ["r0", "r1", "r2", "r3"];
const PASSWORDS: [&str; 3] = ["p0", "p0", "p1"];

impl Planner {
    /// What has to be done once, so that authentication can be on.
    pub(super) fn prepare_auth(&self) -> Vec<Step> {
        let role = AuthUserGrantRoleRequest { user: ROOT.into(), role: ROOT.into() };
        let mut steps = vec![
            Step::call(0, "Auth.UserAdd", &root()),
            Step::call(0, "Auth.UserGrantRole", &role),
            Step::call(0, "Auth.AuthEnable", &AuthEnableRequest {}),
        ];
        steps.extend((0..ROOT_CLIENTS).map(log_in_root));
        steps
    }

    /// One step about users, roles or who a client is.
    pub(super) fn auth(&mut self, client: usize) -> Step {
        match self.dice.below(100) {
            0..=11 => self.log_in(client),
            12..=15 => log_in_root(self.dice.below(ROOT_CLIENTS)),
            16 | 17 => {
                let token = *self.dice.pick(&["", "", "nonsense", "abcdefghijklmnop.1"]);
                Step::special(client, "Token", &format!("token: {token:?}")).expect("it has this field")
            }
            18..=44 => self.user_step(client),
            45..=84 => self.role_step(client),
            85..=89 => Step::call(client, "Auth.AuthStatus", &AuthStatusRequest {}),
            90..=94 => Step::call(self.rooted(client), "Auth.AuthEnable", &AuthEnableRequest {}),
            95 => Step::call(self.rooted(client), "Auth.AuthDisable", &AuthDisableRequest {}),
            96 | 97 => Step::call(client, "Auth.UserList", &AuthUserListRequest {}),
            _ => Step::call(client, "Auth.RoleList", &AuthRoleListRequest {}),
        }
    }

    fn log_in(&mut self, client: usize) -> Step {
        let (name, password) = (self.user(), self.password());
        Step::call(client, "Auth.Authenticate", &AuthenticateRequest { name, password })
    }

    fn user_step(&mut self, client: usize) -> Step {
        let name = self.user();
        let client = self.rooted(client);
        match self.dice.below(20) {
            0..=6 if name == ROOT => Step::call(client, "Auth.UserAdd", &root()),
            0..=6 => {
                let no_password = self.dice.chance(15);
                let password = if no_password && self.dice.chance(80) { String::new() } else { self.password() };
                let options = (no_password || self.dice.chance(30)).then_some(UserAddOptions { no_password });
                let request = AuthUserAddRequest { name, password, options, hashed_password: String::new() };
                Step::call(client, "Auth.UserAdd", &request)
            }
            7..=11 => Step::call(client, "Auth.UserGet", &AuthUserGetRequest { name }),
            12 | 13 => Step::call(client, "Auth.UserDelete", &AuthUserDeleteRequest { name }),
            14 | 15 => {
                // Everybody knows the password of root.
                let password = if name == ROOT { ROOT_PASSWORD.into() } else { self.password() };
                let request = AuthUserChangePasswordRequest { name, password, hashed_password: String::new() };
                Step::call(client, "Auth.UserChangePassword", &request)
            }
            16..=18 => {
                let role = self.role();
                Step::call(client, "Auth.UserGrantRole", &AuthUserGrantRoleRequest { user: name, role })
            }
            _ => Step::call(client, "Auth.UserRevokeRole", &AuthUserRevokeRoleRequest { name, role: self.role() }),
        }
    }

    fn role_step(&mut self, client: usize) -> Step {
        let role = self.role();
        let client = self.rooted(client);
        match self.dice.below(20) {
            0..=3 => Step::call(client, "Auth.RoleAdd", &AuthRoleAddRequest { name: role }),
            4..=6 => Step::call(client, "Auth.RoleGet", &AuthRoleGetRequest { role }),
            7 => Step::call(client, "Auth.RoleDelete", &AuthRoleDeleteRequest { role }),
            8..=12 => {
                let perm = (!self.dice.chance(4)).then(|| self.permission());
                Step::call(client, "Auth.RoleGrantPermission", &AuthRoleGrantPermissionRequest { name: role, perm })
            }
            13 | 14 => {
                let (key, range_end) = self.permitted();
                let request = AuthRoleRevokePermissionRequest { role, key, range_end };
                Step::call(client, "Auth.RoleRevokePermission", &request)
            }
            _ => Step::call(client, "Auth.UserGrantRole", &AuthUserGrantRoleRequest { user: self.user(), role }),
        }
    }

    fn permission(&mut self) -> Permission {
        let (key, range_end) = self.permitted();
        Permission { perm_type: self.enum_number(3), key, range_end }
    }

    /// A range as permissions name it.
    fn permitted(&mut self) -> (Bytes, Bytes) {
        let (key, range_end) = self.keys.range(&mut self.dice);
        if self.dice.chance(20) { (Bytes::new(), Bytes::from_static(b"\0")) } else { (key, range_end) }
    }

    /// A client that is mostly root, or now and then the one that was meant.
    fn rooted(&mut self, client: usize) -> usize {
        if self.dice.chance(75) { self.dice.below(ROOT_CLIENTS) } else { client % CLIENTS }
    }

    fn user(&mut self) -> String {
        match self.dice.below(30) {
            0 => String::new(),
            1..=3 => ROOT.to_owned(),
            _ => (*self.dice.pick(&USERS)).to_owned(),
        }
    }

    fn role(&mut self) -> String {
        match self.dice.below(30) {
            0 => String::new(),
            1 | 2 => ROOT.to_owned(),
            _ => (*self.dice.pick(&ROLES)).to_owned(),
        }
    }

    fn password(&mut self) -> String {
        (*self.dice.pick(&PASSWORDS)).to_owned()
    }
}

fn root() -> AuthUserAddRequest {
    AuthUserAddRequest { name: ROOT.into(), password: ROOT_PASSWORD.into(), ..AuthUserAddRequest::default() }
}

fn log_in_root(client: usize) -> Step {
    let request = AuthenticateRequest { name: ROOT.into(), password: ROOT_PASSWORD.into() };
    Step::call(client, "Auth.Authenticate", &request)
}
