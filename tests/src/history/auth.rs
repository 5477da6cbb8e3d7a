use std::collections::BTreeMap;

use super::Span;

/// What was asked for of users and roles.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthCall {
    /// Users and roles shall count.
    Enable,
    /// Everybody may do everything.
    Disable,
    /// Whether they count, and how often they changed.
    Status,
    /// A new user, with no role.
    UserAdd {
        /// Its name.
        user: String,
    },
    /// A user shall be gone, and its tokens.
    UserDelete {
        /// Its name.
        user: String,
    },
    /// A new role, that allows nothing.
    RoleAdd {
        /// Its name.
        role: String,
    },
    /// A role shall be gone, from all users too.
    RoleDelete {
        /// Its name.
        role: String,
    },
    /// A user gets a role.
    RoleGrant {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// A user loses a role.
    RoleRevoke {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// What a role allows with some keys.
    Permit {
        /// The role.
        role: String,
        /// The keys. No two spans that are ever permitted to a role begin alike.
        span: Span,
        /// What it allows.
        rights: Rights,
    },
    /// A role no longer allows anything with some keys.
    Forbid {
        /// The role.
        role: String,
        /// The keys, as they were permitted.
        span: Span,
    },
}

impl AuthCall {
    /// Whether it counts the revision of users and roles up, where it is not refused.
    pub fn always_counts(&self) -> bool {
        // A role that was granted before, and what is switched on already, is no change; nor is switching on.
        !matches!(self, Self::Enable | Self::Disable | Self::Status | Self::RoleGrant { .. })
    }

    /// Whether it may count that revision up.
    pub fn may_count(&self) -> bool {
        !matches!(self, Self::Enable | Self::Status)
    }
}

/// What may be done with keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// They may be seen.
    pub read: bool,
    /// They may be changed.
    pub write: bool,
}

/// An answer about users and roles.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthReply {
    /// It is done.
    Done,
    /// How they are.
    Status {
        /// Whether they count.
        enabled: bool,
        /// How often they changed.
        revision: u64,
    },
}

/// Users and roles in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthEnd {
    /// Whether they count.
    pub enabled: bool,
    /// How often they changed.
    pub revision: u64,
    /// The roles of each user.
    pub users: BTreeMap<String, Vec<String>>,
    /// What each role allows.
    pub roles: BTreeMap<String, Vec<(Span, Rights)>>,
}
