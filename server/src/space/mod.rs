//! Space: what the quota has room for, and the alarm that stops writes where it has none.
//!
//! Owns nothing but [`Quota`], which is configuration, and a task for each member that looks at its own store.
//! Called by `api` before a write is proposed; `node` starts the task.
//!
//! The quota counts what the store retains: live records and history that is not compacted. What a compaction
//! drops counts no more as soon as it is removed, be the space on disk given back or not, so nothing has to be
//! defragmented for it. (etcd counts its file, which only ever grows.)
//!
//! - A write that the quota has no room for is refused, and raises the alarm NOSPACE of its member, which refuses
//!   such writes on all of them (`apply`). Shrinking updates, deletions, compactions and the ends of leases pass.
//! - The alarm can be disarmed as in etcd; and its member disarms it when the data has been below 90 % of the quota
//!   for 30 seconds.
//! - From 80 % of the quota on a log line and a metric tell so.

mod guard;
mod quota;

pub use guard::spawn;
pub use quota::Quota;
pub(crate) use quota::{LEASE_COST, put_cost, txn_cost};
