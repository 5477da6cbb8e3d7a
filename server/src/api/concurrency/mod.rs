//! Locks and elections that the server holds for a client: etcd's recipes over its own keys.
//!
//! Whoever takes part puts a key of its own below the name, bound to a lease: `name/lease in hex`. The key
//! that was created first holds the lock, or leads; the others wait for it to go, each for the one just
//! before it. All of it is done by the services for keys and leases, in the name of who asked
//! ([`caller`]), so what those refuse is refused here; only waiting asks the watch hub ([`queue`]).
//!
//! Who goes away while it waits takes its key along ([`withdrawal`]); who goes away while its key is being
//! put leaves it to the lease, as in etcd.
//!
//! Errors of the services below are sent as etcd sends them from here: the text alone, with code Unknown.

mod caller;
mod election;
mod lock;
mod observe;
mod queue;
mod session;
mod withdrawal;

pub(super) use election::Elections;
pub use withdrawal::Withdrawals;
