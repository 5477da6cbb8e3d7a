//! What the store should do, as a program that is too simple to be wrong, and what it did.
//!
//! [`Versions`] is every version of every key and runs transactions as etcd does; [`Truth`] is the
//! store as the observer's watch saw it come about, revision by revision; [`Causes`] says which
//! call made each revision. The checkers in [`crate::checker::history`] compare answers with them.
//!
//! Nothing here knows the server's code, so an error there is not repeated here.

mod causes;
mod refusal;
mod truth;
mod txn;
mod versions;

pub use causes::{Causes, Written, deletes, written, wrote};
pub use refusal::{DUPLICATE_KEY, LEASE_PROVIDED, NO_SPACE, VALUE_PROVIDED, always_refused};
pub use truth::{Commit, Truth};
pub use txn::{Effect, evaluate};
pub use versions::Versions;
