//! What the store should do, as a program that is too simple to be wrong, and what it did.
//!
//! [`Versions`] is every version of every key and runs transactions as etcd does; [`Truth`] is the
//! store as the observer's watch saw it come about, revision by revision; [`Causes`] says which
//! call made each revision. The checkers in [`crate::checker::history`] compare answers with them.
//!
//! Nothing here knows the server's code, so an error there is not repeated here.

mod causes;
mod truth;
mod txn;
mod versions;

pub use causes::{Causes, Written, deletes, written, wrote};
pub use truth::{Commit, Truth};
pub use txn::{Effect, evaluate, puts_a_key_twice};
pub use versions::Versions;
