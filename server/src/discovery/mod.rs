//! Who the first members of a cluster are, where the flags do not say it: a token tells, or the DNS.
//!
//! Owns etcd's two ways. Under a token ([`join`]) the members meet in another cluster, the discovery service:
//! each registers there, and the first so many are the cluster. The DNS ([`initial_cluster`]) names them in SRV
//! records; of these a gateway finds members, too ([`clients`]).
//!
//! Asked by `node.rs` at a first start only, through what the process hands it; a member that has been part of a
//! cluster knows who else is. A member that is stopped before it took part is to ask again and to be told the same.
//!
//! Does not: open sockets (a client and a [`Dns`] come from outside), read flags, or decide whether this member may
//! start with what was found (`Config::check_first_start` does).

mod error;
mod registry;
mod srv;

use std::collections::BTreeMap;

use crate::config::Url;

pub use error::{DiscoveryError, RegistryError, SrvError};
pub use registry::join;
pub use srv::{Dns, ServiceRecord, clients, initial_cluster};

/// Members by name, with their peer URLs.
pub type InitialCluster = BTreeMap<String, Vec<Url>>;
