//! Leases: what is replicated of them, and the handles by which others ask.
//!
//! Owns [`Leases`], a pure map from lease to granted and remaining time to live and attached keys.
//! It is changed by `apply` alone, for each command alike on every member, and holds no clock: when a
//! lease ends is known only to the leader's expirer (`leader/lease_expirer.rs`), which hears of every
//! [`LeaseChange`] and is asked through the [`Lessor`] handle. `api` looks leases up in a [`LeaseView`].
//!
//! **Invariant:** a key is attached to at most one lease, and to the one that its live record names
//! (held by the model test in `apply/tests/`).

mod leases;
mod lessor;
mod record;
mod view;

pub use leases::{Lease, LeaseChange, Leases};
pub use lessor::{Lessor, LessorMessage, NotPrimary, Remaining};
pub use record::{LeaseRecord, RecordError};
pub use view::{LeaseTerm, LeaseView};
