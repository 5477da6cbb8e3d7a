//! Who may do what.

use super::state::{Auth, ROOT};
use crate::command::{Caller, Refusal};
use crate::env::probe;

/// What a request needs on a range of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To see the keys and values.
    Read,
    /// To change them.
    Write,
}

impl Auth {
    /// Whether a caller has a right on a range; without an end that is one key.
    pub fn check(&self, caller: &Caller, right: Right, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        if !self.is_enabled() {
            return Ok(());
        }
        // Nobody has revision 0 but who did not say who it is.
        if caller.auth_revision == 0 {
            return Err(Refusal::UserEmpty);
        }
        // What the caller is was looked up before users or roles changed.
        if caller.auth_revision < self.revision() {
            if probe::broken("permission-checked-before-apply-only") {
                // Wrong: who asked before users or roles changed is not judged by what they are now.
                return Ok(());
            }
            return Err(Refusal::AuthOldRevision);
        }
        let Some(user) = self.user(&caller.user) else {
            return Err(Refusal::PermissionDenied);
        };
        if user.has_role(ROOT) || user.permissions().cover(right, key, range_end) {
            return Ok(());
        }
        Err(Refusal::PermissionDenied)
    }

    /// Whether a caller is an administrator: has role root.
    ///
    /// The revision does not matter here, as in etcd: what the user is now decides.
    pub fn check_admin(&self, caller: &Caller) -> Result<(), Refusal> {
        if !self.is_enabled() {
            return Ok(());
        }
        if caller.user.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        match self.user(&caller.user) {
            None => Err(Refusal::UserNotFound),
            Some(user) if user.has_role(ROOT) => Ok(()),
            Some(_) => Err(Refusal::PermissionDenied),
        }
    }

    /// Whether a caller may look at a user: an administrator, and each at itself.
    pub fn check_user_get(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        self.check_admin(caller).or_else(|refusal| if caller.user == name { Ok(()) } else { Err(refusal) })
    }

    /// Whether a caller may look at a role: an administrator, and who has it.
    pub fn check_role_get(&self, caller: &Caller, role: &str) -> Result<(), Refusal> {
        let has = self.user(&caller.user).is_some_and(|user| user.has_role(role));
        self.check_admin(caller).or_else(|refusal| if has { Ok(()) } else { Err(refusal) })
    }
}
