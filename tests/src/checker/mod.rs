//! Properties, one per file, each held against what a workload recorded.
//!
//! Those beside this page ask a cluster that runs; those in [`history`] judge a run that is over.

pub mod applied;
mod equal_members;
mod exactly_once;
pub mod history;
mod seen_once;
mod watch_order;

pub use equal_members::equal_members;
pub use exactly_once::{Found, exactly_once};
pub use history::{check_all, check_without_end};
pub use seen_once::seen_once;
pub use watch_order::WatchOrder;
