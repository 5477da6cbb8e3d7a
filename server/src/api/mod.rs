//! The gRPC edge: etcd's services, and the health service.
//!
//! Owns nothing that changes. One file per service: it decodes, validates, proposes a command through
//! [`raft::Gateway`](crate::raft::Gateway) or reads the store, and encodes. Every request passes `edge`
//! first, where the rules for all methods stand (metadata, learners, sizes of messages) and where it is
//! counted and traced. [`validate`] judges what can be judged of a request by itself; [`status`] alone knows
//! etcd's error texts and codes.
//!
//! When the member stops, [`Stopping`] ends what would not end by itself; one whose data differs from the others'
//! is [`OutOfService`].
//!
//! Neither [`GrpcServices`] nor [`routes`] holds a transport: a process serves the first over HTTP/2, and the JSON
//! gateway and a simulation call the second, which is a router.
//! No task is spawned for a request.
//!
//! Who asks is found out by [`Access`]. Writes are judged when they are applied, reads here, and what concerns
//! no keys by the rule that stands with each method in [`RPCS`].
//!
//! - **Invariant:** what is accepted can be decoded again by every member, also where transactions are
//!   nested (`validate::tests::the_deepest_transaction_survives_the_codec`).
//! - **Invariant:** every error is sent as etcd sends it
//!   (`status::tests::every_error_is_sent_as_etcd_sends_it`).
//! - **Invariant:** the methods that are counted are those that are served
//!   (`rpc::tests::the_table_is_what_the_protos_declare`).
//!
//! What a request takes of the memory is held against what there is before it is worked on ([`admission`] here, and the
//! [room](crate::admission) that keeps the books); what a method is to the server stands in [`RPCS`], too.
//!
//! Absent by design: rules of the data model (they are `apply`'s), timeouts of requests (the gateway's).

mod access;
mod admission;
mod auth;
mod cluster;
mod concurrency;
mod downgrade;
mod edge;
mod frames;
mod header;
mod health;
mod kv;
mod leader_loss;
mod lease;
mod limits;
mod maintenance;
mod metadata;
mod out_of_service;
mod overlap;
mod propose;
mod range_chunks;
mod routes;
mod rpc;
mod services;
mod snapshot;
mod spans;
pub mod status;
mod stopping;
pub mod validate;
mod watch;

pub use access::{Access, RpcAccess};
pub use concurrency::Withdrawals;
pub use edge::{EdgeFuture, ResponseBody};
pub use leader_loss::LeaderLoss;
pub use limits::ApiLimits;
pub use maintenance::{STORAGE_VERSION, VERSION};
pub use out_of_service::OutOfService;
pub use routes::{GrpcServices, routes};
pub use rpc::{RPCS, Rpc, RpcKind, RpcObserver};
pub use services::Services;
pub use spans::{Attribute, Span, Tracer};
pub use stopping::Stopping;
