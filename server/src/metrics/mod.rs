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
//! # The stages of a proposal
//!
//! `mainstay_server_proposal_stage_duration_seconds` tells where the time of a proposal goes. Its stages follow each
//! other: each is counted from the end of the one before, and together they are the time from the moment at which the
//! proposal came to the gateway (decoded, and let in) to the one at which its outcome is there, which for a client of
//! this member is `etcd_server_request_duration_seconds`. The leader counts whatever it puts into the log, also what
//! other members pass on.
//!
//! | stage | ends when | its end is read |
//! |---|---|---|
//! | `proposed` | consensus has given the command its place in the log: its queue, and a leader that is waited for | once for all commands that consensus takes together |
//! | `flushed` | this member's log has it on disk, or a majority has, whichever is first | once for each of these groups |
//! | `replicated` | this member knows that a majority has it: it is committed | once for all that is committed together |
//! | `applied` | the run with it is in the store, and readers see it: what is applied before it, and the engine | once for each run |
//! | `replied` | the task of the request has the outcome; encoding and sending it comes after that | for each proposal |
//! | `forwarded` | the leader, which is another member, has answered, and what it answered is applied here: all of the above | for each proposal |
//!
//! So a proposal reads the clock when it comes and when it is replied to, for its duration as well; where it was passed
//! on, so does the leader. The three stages of batches are counted by the state machine without atomics, and published
//! once a run ([`LogStages`]).
//!
//! Does not: read `/proc` or a clock. The process's own numbers come from the function that
//! [`Options::process`] holds; in simulation there is none.

mod durations;
mod groups;
mod grpc;
mod peers;
mod process;
mod registry;
mod stages;
mod table;
mod update;

pub use durations::{ByOperation, BySuccess, Operation};
pub use groups::{Disk, Lease, Mvcc, Network, Server, Watch};
pub use grpc::{Grpc, MethodMetrics};
pub use peers::{PeerMetrics, SnapshotMetrics, Travel};
pub use process::{ProcessNumbers, ProcessSource};
pub use registry::{Metrics, Options};
pub use stages::{LogStages, Stages};
pub use update::{AdmissionNumbers, CallKind, RaftNumbers, StoreNumbers, WatchNumbers};

#[cfg(test)]
mod tests;
