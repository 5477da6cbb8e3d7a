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
//! What moves in etcd moves here (`tests/compat/metrics_test.go`), with these differences:
//!
//! | metric | here |
//! |---|---|
//! | `…_backend_commit_{rebalance,spill,write}_…` | stay empty: a commit has no such phases |
//! | `…_watch_send_loop_*` | stay empty: responses are made when the transport asks for them |
//! | `…_mvcc_db_open_read_transactions` | 0: readers hold none |
//! | `…_debugging_store_*`, `…_grpc_proxy_*`, most of `go_*` | 0: there is no such thing |
//! | `etcd_server_heartbeat_send_failures_total` | 0: openraft does not tell of a heartbeat that is late |
//! | `…_backend_commit_duration_seconds` | a run of commands, without the flush, which happens beside it |
//! | `…_compaction_pause_…` of store and index | the same slices: one keeps both from others |
//! | `…_peer_round_trip_time_seconds` | every two seconds; etcd: every thirty, smoothed |
//! | series of a peer | exist with 0 as soon as it is known; in etcd, failures first when there are some |
//! | operation `ClusterVersionSet` | the format of the data is raised: no command decides the version of etcd |
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
pub use update::{AdmissionNumbers, CallKind, RaftNumbers, StoreNumbers, WatchNumbers};

#[cfg(test)]
mod tests;
