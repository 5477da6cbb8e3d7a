//! Metrics, with etcd's names.
//!
//! Owns one Prometheus registry a node (never the global one: several nodes share a process in
//! simulation) and the only table of names (`table.rs`). Every room may hold a [`Metrics`] and move
//! its own counters; `http` prints them.
//!
//! **Invariant:** every metric of etcd exists, and every series without variable labels exists with
//! 0 from the start, as do those of every gRPC method (`tests::names_are_etcds`,
//! `tests::every_method_exists_from_the_start`). What cannot happen here stays 0.
//!
//! **Invariant:** label values come from bounded sets; what clients say freely is mapped to one
//! (`tests::clients_cannot_grow_the_metrics`).
//!
//! Does not: read `/proc` or a clock. The process's own numbers come from the function that
//! [`Options::process`] holds; in simulation there is none.

mod durations;
mod groups;
mod grpc;
mod peers;
mod process;
mod registry;
mod table;
mod update;

pub use durations::{ByOperation, BySuccess, Operation};
pub use groups::{Disk, Lease, Mvcc, Network, Server, Watch};
pub use grpc::{Grpc, MethodMetrics};
pub use peers::{PeerMetrics, SnapshotMetrics, Travel};
pub use process::{ProcessNumbers, ProcessSource};
pub use registry::{Metrics, Options};
pub use update::{CallKind, RaftNumbers, StoreNumbers, WatchNumbers};

#[cfg(test)]
mod tests;
