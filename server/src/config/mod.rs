//! The configuration: etcd's flags, `ETCD_*` variables or configuration file → one validated [`Config`].
//!
//! Owns every flag's name, default and meaning ([`table`] has them all, once), and etcd's ids.
//! `main.rs` asks [`Given::understand`] what to do; nothing else reads arguments or the environment.
//! What etcd can do and this release cannot is refused by name, never ignored; what has no meaning
//! here is accepted with a [`Notice`].
//!
//! The command line is Go's, whose messages and order of checks tools know, so it is taken apart
//! by `go.rs` and not by `clap`, which would only be handed what has been understood already.
//!
//! Does not: open sockets or files, look names up (`check_first_start` is given a resolver), discover members
//! (`discovery` does), or log before there is a log.

mod bootstrap;
mod build;
mod feature_gates;
mod fields;
mod file;
mod gateway;
mod go;
pub mod identity;
mod invocation;
mod log_rotation;
mod notice;
mod refusal;
mod security;
mod settings;
mod size;
mod table;
mod url;
mod usage;
pub mod version;

pub use bootstrap::{initial_cluster_text, parse_initial_cluster};
pub use feature_gates::{FeatureGates, Gate};
pub use fields::{
    AutoCompaction, Backend, ClusterState, Config, Discovery, LogFormat, LogLevel, LogOutput, LogRotation,
    MetricsDetail, TlsDetails, TlsVersion, Tracing, TransportSecurity,
};
pub use gateway::{GatewayDiscovery, GatewayOptions};
pub use go::io_text;
pub use invocation::{Given, Invocation};
pub use notice::Notice;
pub use refusal::Refusal;
pub use url::{Scheme, Url, UrlError, join as join_urls};
pub use usage::USAGE;

#[cfg(test)]
mod tests;
