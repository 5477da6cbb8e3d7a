//! The deterministic core: a command and the state before it give the state after it and an outcome.
//!
//! Owns [`State`]: keys and values (through `mvcc::Writer`), leases, alarms, users and roles, and the members'
//! attributes.
//! Called by `raft/state_machine.rs`, one run of committed commands after another: [`apply`] for each,
//! then [`State::commit`] once, which writes the run to the engine together with the applied position.
//! `api` uses what needs no command: [`what_is_read`], [`range_response`], [`encoded_range`] and [`read_txn`].
//!
//! One file for each kind of command. None reads a clock, chance or configuration: what depends on
//! those (a lease's id and least time to live, the end of a lease) was decided before proposing.
//! Checks that need no state (empty keys, too many operations, duplicate keys, sort options) are made by
//! `api` before proposing; a command that slipped past them is refused or has no effect, and never panics.
//!
//! What a command does never changes under one format of the data ([`FormatView`]): members of two releases apply the
//! same log. `server/src/docs/decisions/2026-11-22-what-a-release-may-change.md` says how it does change.
//!
//! - **Invariant:** the same commands give the same outcomes and the same hash, however they are cut
//!   into runs (`tests::properties::runs_do_not_matter`).
//! - **Invariant:** a refused command changes nothing (`tests::properties::the_model_agrees`).
//! - **Invariant:** a command is carried out only if who asks for it may have it by the users and roles at its
//!   place in the log (`tests::auth`).
//! - **Invariant:** what a command writes is the same in every release, byte for byte (`tests::written`).
//! - **Invariant:** a writing command takes exactly one revision (`tests::properties::the_model_agrees`).

mod alarm;
mod auth;
mod compaction;
mod compare;
mod counts;
mod delete_range;
mod digest;
mod dispatch;
mod downgrade;
mod format;
mod growth;
mod lease;
mod member;
mod permission;
mod put;
mod range;
mod read_txn;
mod state;
mod txn;
mod view;

#[cfg(test)]
mod tests;

pub use alarm::AlarmView;
pub use counts::{count, count_txn};
pub use digest::{DIGEST_VERSION, DigestView};
pub use dispatch::{Origin, apply};
pub use downgrade::DowngradeView;
pub use format::{FormatView, stored_format};
pub use growth::{ValueLen, put_grows, txn_grows};
pub use member::{MemberView, remove as remove_members};
pub use permission::check_read_txn;
pub use range::{EncodedRange, encoded_range, is_plain_list, range_response, what_is_read};
pub use read_txn::{ReadTxnError, is_read_only, read_txn};
pub use state::{Committed, OpenError, State, StateOptions};
