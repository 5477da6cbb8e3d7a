//! The mainstay server: an etcd-v3-compatible key-value store, replicated with Raft.
//!
//! Rooms import in one direction:
//! `api, http, leader, discovery → space → raft, backup → watch, apply → lease, auth, mvcc → engine, admission`.
//! `command`, `limits`, `env` and `metrics` are open to all.

pub mod admission;
pub mod api;
pub mod apply;
pub mod auth;
pub mod backup;
pub mod command;
pub mod config;
pub mod discovery;
pub mod engine;
pub mod env;
pub mod http;
pub mod leader;
pub mod lease;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod mvcc;
pub mod node;
pub mod raft;
pub mod space;
pub mod watch;
