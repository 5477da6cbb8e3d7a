use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::register::Register;
use crate::checker::history::text::seconds;
use crate::history::{AuthCall, AuthEnd, Call, History, Outcome, Rights, Span, Step, Txn};

const ROOT: &str = "root";

/// What a call needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Need {
    span: Span,
    /// Whether to change the keys, or else to see them.
    write: bool,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.write { "write" } else { "read" };
        write!(f, "{verb} {} to {}", self.span.from, self.span.to.as_deref().unwrap_or("itself"))
    }
}

/// What a transaction needs: to see what it compares, and all that either branch does, since which one
/// is taken tells something of what is compared.
pub(super) fn needs(txn: &Txn) -> Vec<Need> {
    let read = |span: Span| Need { span, write: false };
    let write = |span: Span| Need { span, write: true };
    let mut needs: Vec<Need> = txn.compares.iter().map(|compare| read(compare.span())).collect();
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Put { key, prev_kv, .. } | Step::Amend { key, prev_kv, .. } => {
                needs.push(write(Span::key(key.clone())));
                needs.extend(prev_kv.then(|| read(Span::key(key.clone()))));
            }
            Step::Delete { span, prev_kv } => {
                needs.push(write(span.clone()));
                needs.extend(prev_kv.then(|| read(span.clone())));
            }
            Step::Range { span, .. } => needs.push(read(span.clone())),
            Step::Txn(txn) => needs.extend(self::needs(txn)),
        }
    }
    needs
}

/// Every value that a transaction may put.
pub(super) fn each_put(txn: &Txn, found: &mut dyn FnMut(&str)) {
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Put { value, .. } | Step::Amend { value, ignore_value: false, .. } => found(value),
            Step::Txn(txn) => each_put(txn, found),
            Step::Amend { .. } | Step::Delete { .. } | Step::Range { .. } => {}
        }
    }
}

/// What the administrator has set, when.
#[derive(Default)]
pub(super) struct Granted<'a> {
    enabled: Register<bool>,
    users: BTreeMap<&'a str, Register<bool>>,
    /// Who has which role.
    holds: BTreeMap<(&'a str, &'a str), Register<bool>>,
    roles: BTreeMap<&'a str, Register<bool>>,
    /// What a role allows with the keys that begin here.
    allows: BTreeMap<(&'a str, &'a str), Allowed<'a>>,
}

#[derive(Default)]
struct Allowed<'a> {
    /// Where the keys end; `None` for the one key alone.
    to: Option<&'a str>,
    rights: Register<Rights>,
}

impl<'a> Granted<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut granted = Self::default();
        // Whatever is deleted takes with it what was ever set of it.
        for operation in &history.operations {
            match &operation.call {
                Call::Auth(AuthCall::RoleGrant { user, role }) => drop(granted.holds.entry((user, role)).or_default()),
                Call::Auth(AuthCall::Permit { role, span, .. }) => {
                    let of = granted.allows.entry((role, span.from.as_str())).or_default();
                    of.to = span.to.as_deref();
                }
                _ => {}
            }
        }
        for operation in &history.operations {
            let Call::Auth(call) = &operation.call else { continue };
            let ended = match operation.outcome {
                Outcome::Done(_) => Some(operation.ended),
                Outcome::Unknown(_) => None,
                Outcome::Refused(_) => continue,
            };
            granted.take(call, operation.began, ended);
        }
        granted
    }

    fn take(&mut self, call: &'a AuthCall, began: Duration, ended: Option<Duration>) {
        match call {
            AuthCall::Enable => self.enabled.set(began, ended, true),
            AuthCall::Disable => self.enabled.set(began, ended, false),
            AuthCall::Status => {}
            AuthCall::UserAdd { user } => self.users.entry(user).or_default().set(began, ended, true),
            AuthCall::UserDelete { user } => {
                self.users.entry(user).or_default().set(began, ended, false);
                let of_user = self.holds.iter_mut().filter(|((holder, _), _)| holder == user);
                of_user.for_each(|(_, holds)| holds.set(began, ended, false));
            }
            AuthCall::RoleAdd { role } => self.roles.entry(role).or_default().set(began, ended, true),
            AuthCall::RoleDelete { role } => {
                self.roles.entry(role).or_default().set(began, ended, false);
                let of_role = self.holds.iter_mut().filter(|((_, held), _)| held == role);
                of_role.for_each(|(_, holds)| holds.set(began, ended, false));
                let of_role = self.allows.iter_mut().filter(|((of, _), _)| of == role);
                of_role.for_each(|(_, allowed)| allowed.rights.set(began, ended, Rights::default()));
            }
            AuthCall::RoleGrant { user, role } => {
                self.holds.entry((user, role)).or_default().set(began, ended, true);
            }
            AuthCall::RoleRevoke { user, role } => {
                self.holds.entry((user, role)).or_default().set(began, ended, false);
            }
            AuthCall::Permit { role, span, rights } => {
                let allowed = self.allows.entry((role, span.from.as_str())).or_default();
                allowed.rights.set(began, ended, *rights);
            }
            AuthCall::Forbid { role, span } => {
                let allowed = self.allows.entry((role, span.from.as_str())).or_default();
                allowed.rights.set(began, ended, Rights::default());
            }
        }
    }

    /// Whether a user may have been allowed something at some moment of a time.
    pub(super) fn may_have(&self, user: &str, need: &Need, from: Duration, until: Duration) -> bool {
        if self.enabled.values(from, until).contains(&false) {
            return true;
        }
        let any = |values: Vec<bool>| values.contains(&true);
        let spans = self.spans(
            user,
            |holds| any(holds.values(from, until)),
            |allows| allows.values(from, until).iter().any(|rights| has(*rights, need.write)),
        );
        covers(spans, &need.span)
    }

    /// Whether a user was allowed something at every moment of a time.
    pub(super) fn certainly_has(&self, user: &str, need: &Need, from: Duration, until: Duration) -> bool {
        if !self.enabled.values(from, until).contains(&true) {
            return true;
        }
        let all = |values: Vec<bool>| !values.contains(&false);
        let spans = self.spans(
            user,
            |holds| all(holds.values(from, until)),
            |allows| allows.values(from, until).iter().all(|rights| has(*rights, need.write)),
        );
        covers(spans, &need.span)
    }

    fn spans(
        &self,
        user: &str,
        holds: impl Fn(&Register<bool>) -> bool,
        allows: impl Fn(&Register<Rights>) -> bool,
    ) -> Vec<(String, String)> {
        let held = self.holds.iter().filter(|((holder, _), register)| *holder == user && holds(register));
        let held: Vec<&str> = held.map(|((_, role), _)| *role).collect();
        let spans = self.allows.iter().filter(|((role, _), allowed)| held.contains(role) && allows(&allowed.rights));
        spans.map(|((_, from), allowed)| bounds(from, allowed.to)).collect()
    }

    /// Checks that users and roles end as they may.
    pub(super) fn ends_as(&self, end: &AuthEnd, at: Duration) -> Result<(), String> {
        let wrong = |what: String| Err(format!("at {} {what}, which no call has left so: {end:?}", seconds(at)));
        if !self.enabled.values(at, at).contains(&end.enabled) {
            return wrong(format!("users and roles count: {}", end.enabled));
        }
        for (user, exists) in &self.users {
            if !exists.values(at, at).contains(&end.users.contains_key(*user)) {
                return wrong(format!("user {user} is there: {}", end.users.contains_key(*user)));
            }
        }
        for (role, exists) in self.roles.iter().filter(|(role, _)| **role != ROOT) {
            if !exists.values(at, at).contains(&end.roles.contains_key(*role)) {
                return wrong(format!("role {role} is there: {}", end.roles.contains_key(*role)));
            }
        }
        for ((user, role), holds) in &self.holds {
            let held = end.users.get(*user).is_some_and(|roles| roles.iter().any(|held| held == role));
            if !holds.values(at, at).contains(&held) {
                return wrong(format!("user {user} has role {role}: {held}"));
            }
        }
        for ((role, from), allowed) in &self.allows {
            let of_role = end.roles.get(*role).map_or(&[][..], Vec::as_slice);
            let rights = of_role.iter().find(|(span, _)| span.from == *from).map(|(_, rights)| *rights);
            let rights = rights.unwrap_or_default();
            if !allowed.rights.values(at, at).contains(&rights) {
                return wrong(format!("role {role} has {rights:?} from {from} on"));
            }
        }
        Ok(())
    }
}

fn has(rights: Rights, write: bool) -> bool {
    if write { rights.write } else { rights.read }
}

/// The first key of a span, and the first behind it.
fn bounds(from: &str, to: Option<&str>) -> (String, String) {
    (from.to_owned(), to.map_or_else(|| format!("{from}\0"), str::to_owned))
}

/// Whether spans together hold every key of another.
fn covers(mut spans: Vec<(String, String)>, needed: &Span) -> bool {
    spans.sort_unstable();
    let (mut from, to) = bounds(&needed.from, needed.to.as_deref());
    for (begins, ends) in spans {
        if begins <= from && ends > from {
            from = ends;
        }
    }
    from >= to
}
