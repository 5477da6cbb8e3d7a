//! Duties that a member has only while it leads.
//!
//! - [`lease_expirer`] knows when leases end and ends them, and answers for what is left of them.
//! - [`auto_compaction`] discards history on a schedule.
//! - [`consistency`] compares what the members have; each of them does so at its start, too.
//! - [`mod@format`] raises the format of the data once every member's release knows a newer one.
//!
//! Called by `node.rs`, which starts them and tells them of leadership. They change the replicated state
//! like anyone else, by proposing commands, and hold nothing that a new leader would miss.

pub mod auto_compaction;
pub mod consistency;
mod deadlines;
pub mod format;
pub mod lease_expirer;
