//! HTTP beside gRPC: health, version, metrics, and the JSON gateway ([`json`]).
//!
//! Owns the paths and bodies that probes and scrapers know from etcd. It looks at the node through
//! a [`Probe`] of functions only, so it holds no rule of its own and is tested without a node.
//!
//! [`client_router`] is for the client port (and the HTTP-only one), [`metrics_router`] for
//! `--listen-metrics-urls`, which shows less.
//!
//! Absent: profiles, and whatever shows requests, which may hold passwords.

mod access;
mod checks;
mod clean;
mod health;
mod json;
mod pages;
mod probe;
mod query;
mod responses;
mod router;

pub use access::Access;
pub use json::JsonGateway;
pub use probe::{Check, Probe, ReadFailure};
pub use router::{Site, client_router, metrics_router};

#[cfg(test)]
mod tests;
