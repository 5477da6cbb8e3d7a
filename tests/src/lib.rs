//! What proves mainstay: clusters, workloads, faults and checkers.
//!
//! - [`Cluster`] is what a test does to members: start, kill, pause, isolate. [`ProcessCluster`]
//!   does it to real processes; a simulation brings its own.
//! - [`workload`] makes traffic and keeps a record of what was promised to it.
//! - [`history`] is what clients and watchers of a simulation saw, as data.
//! - [`transactions`] sends what stands in a history, and reads the answers.
//! - [`model`] is what the store should do, and what it did, in the simplest form there is.
//! - [`checker`] holds one property per file against such a record.
//! - [`excuses`] says how long a fault accounts for what a member does.
//! - [`shrink`] finds the shortest list of faults that still breaks something.
//! - [`secured`] is a CA, the certificates of a cluster, and clients that speak TLS.
//! - [`Server`] is one process of any program, [`wire`] speaks to it byte by byte, and [`schema`] knows
//!   its methods and messages; [`dice`] are random choices that a seed decides, [`seeds`] rows of them.
//! - [`scenario`] puts them together once, for any cluster; `it/` runs them on processes.
//!
//! Nothing here knows the server: members are reached through their API, so that the same tests
//! run against etcd itself, which is how the tests are tested.

pub mod checker;
mod cluster;
pub mod dice;
pub mod excuses;
pub mod history;
pub mod model;
#[cfg(not(madsim))]
mod process_cluster;
pub mod scenario;
#[cfg(not(madsim))]
pub mod schema;
#[cfg(not(madsim))]
pub mod secured;
pub mod seeds;
#[cfg(not(madsim))]
mod server;
pub mod shrink;
pub mod transactions;
#[cfg(not(madsim))]
pub mod wire;
pub mod workload;

pub use cluster::{Cluster, leader, wait_until_serving};
#[cfg(not(madsim))]
pub use process_cluster::{ProcessCluster, Security, binary, free_port, old_binary};
#[cfg(not(madsim))]
pub use server::Server;
