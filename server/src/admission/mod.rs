//! Protection of the server from its clients: how much of its memory they may take, each its share, and whom it serves
//! while it cannot serve all.
//!
//! Owns the books of two pools of bytes ([`Gate`]). `api` asks before it works on a request, which holds what it was
//! given ([`Hold`]) until its answer has left; so do the sockets for a connection, and `raft` for what other members
//! pass on. `node` makes the gate, and starts the two tasks that look after it:
//!
//! - [`overload`] notices that this member is late, and has ordinary requests refused at once;
//! - [`memory`] measures the process where `--memory-limit` is set, makes the pool smaller as other things grow, and
//!   has what makes the store larger refused where little is left.
//!
//! [`Budget`] says how that limit is divided among the parts of the server.
//!
//! - **Invariant:** requests hold no more than the pools have, and all of it is given back
//!   (`ledger::tests::the_books_are_right`).
//! - **Invariant:** beyond half of a pool nobody gets more than its share, and who holds little finds room
//!   (`ledger::tests`).
//! - **Invariant:** who waits is served in its order, and clients in turn (`ledger::tests`).
//! - **Invariant:** control traffic is neither refused nor kept waiting because of ordinary requests
//!   (`tests::ordinary_requests_are_never_in_the_way_of_control_traffic`).
//!
//! Absent by design: what a method is ([`api::RPCS`](crate::api::RPCS) says it), who a user is, error texts.

mod budget;
mod gate;
mod hold;
mod identity;
mod ledger;
pub mod memory;
pub mod overload;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use gate::{Entering, Gate, GateNumbers, GateOptions, Refused, Traffic};
pub use hold::{Hold, Part};
pub use identity::{Identity, Origin};
