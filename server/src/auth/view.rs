use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Auth;

/// A read handle to the users and roles of this member.
///
/// It shows them as of the last applied command, which may be ahead of the published revision by the run
/// that is being applied; what it shows is committed in any case.
#[derive(Clone, Debug)]
pub struct AuthView {
    auth: Arc<ArcSwap<Auth>>,
}

impl AuthView {
    /// Looks at users and roles that their owner shares.
    pub fn new(auth: Arc<ArcSwap<Auth>>) -> Self {
        Self { auth }
    }

    /// Users and roles at one moment.
    pub fn load(&self) -> Arc<Auth> {
        self.auth.load_full()
    }

    /// Whether requests are checked at all; cheaper than [`AuthView::load`].
    pub fn is_enabled(&self) -> bool {
        self.auth.load().is_enabled()
    }

    /// Counts the changes of users and roles.
    pub fn revision(&self) -> u64 {
        self.auth.load().revision()
    }
}
