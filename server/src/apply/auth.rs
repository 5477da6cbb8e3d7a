use std::sync::Arc;

use arc_swap::ArcSwap;
use mainstay_proto::etcdserverpb::AuthenticateResponse;
use mainstay_proto::mainstay::Authenticate;

use super::dispatch::{done, refused};
use super::{OpenError, State};
use crate::auth::{Auth, AuthChange, AuthView, TokenChange};
use crate::command::{Outcome, Refusal, command, outcome};
use crate::engine::Engine;

/// Users and roles, and what the run did to the tokens of this member.
#[derive(Default)]
pub(super) struct Users {
    current: Arc<ArcSwap<Auth>>,
    pub(super) token_changes: Vec<TokenChange>,
}

impl Users {
    pub(super) fn view(&self) -> AuthView {
        AuthView::new(self.current.clone())
    }

    pub(super) fn load(&self) -> Arc<Auth> {
        self.current.load_full()
    }

    /// Takes what is stored; of tokens nothing is.
    pub(super) fn open(&mut self, engine: &Arc<dyn Engine>) -> Result<(), OpenError> {
        self.current.store(Arc::new(Auth::open(&**engine)?));
        self.token_changes.clear();
        Ok(())
    }
}

/// Whether a command changes users or roles, for which one must be an administrator.
pub(super) fn is_management(command: &command::Kind) -> bool {
    use command::Kind;
    match command {
        Kind::AuthEnable(_)
        | Kind::AuthDisable(_)
        | Kind::AuthUserAdd(_)
        | Kind::AuthUserDelete(_)
        | Kind::AuthUserChangePassword(_)
        | Kind::AuthUserGrantRole(_)
        | Kind::AuthUserRevokeRole(_)
        | Kind::AuthRoleAdd(_)
        | Kind::AuthRoleDelete(_)
        | Kind::AuthRoleGrantPermission(_)
        | Kind::AuthRoleRevokePermission(_) => true,
        Kind::Put(_)
        | Kind::DeleteRange(_)
        | Kind::Txn(_)
        | Kind::Compaction(_)
        | Kind::LeaseGrant(_)
        | Kind::LeaseRevoke(_)
        | Kind::LeaseCheckpoint(_)
        | Kind::Alarm(_)
        | Kind::MemberAttributes(_)
        | Kind::Downgrade(_)
        | Kind::RaiseFormat(_)
        | Kind::Authenticate(_) => false,
    }
}

/// Changes users or roles: by the rules of `auth`, and then in the batch of the run.
pub(super) fn manage(state: &mut State, change: impl FnOnce(&mut Auth) -> Result<Vec<AuthChange>, Refusal>) -> Outcome {
    let mut auth = Auth::clone(&state.users.load());
    let changes = match change(&mut auth) {
        Ok(changes) => changes,
        Err(refusal) => return refused(state, refusal),
    };
    for change in &changes {
        change.write(state.store.batch());
        if let AuthChange::Enabled(false) = change {
            state.users.token_changes.push(TokenChange::AllGone);
        }
    }
    if !changes.is_empty() {
        state.users.current.store(Arc::new(auth));
    }
    done(state, None)
}

/// Takes the tokens of a user whose password changed or who is gone.
pub(super) fn without_tokens(state: &mut State, user: &str, outcome: Outcome) -> Outcome {
    if outcome.refusal() == Refusal::None {
        state.users.token_changes.push(TokenChange::UserGone(user.to_owned()));
    }
    outcome
}

/// Gives a user a token. That the password was right is known from before; meanwhile the user may be gone.
pub(super) fn authenticate(state: &mut State, index: u64, request: &Authenticate) -> Outcome {
    if let Err(refusal) = state.users.load().authenticate(&request.name) {
        return refused(state, refusal);
    }
    let mut token = String::new();
    if !request.simple_token.is_empty() {
        // The index makes it one of a kind, and tells a member from when on it must know the token.
        token = format!("{}.{index}", request.simple_token);
        let user = request.name.clone();
        state.users.token_changes.push(TokenChange::Assigned { token: token.clone(), user });
    }
    done(state, Some(outcome::Reply::Authenticate(AuthenticateResponse { header: None, token })))
}
