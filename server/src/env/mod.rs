//! What differs between a real process and a simulated one.
//!
//! Owns the runtime under openraft, the member's clock, blocking calls, the transport between members, and what a port
//! for clients hands to the services ([`GrpcService`]). Everything
//! else of the server is the same code in both worlds: `tokio` is a renamed package that a
//! simulation replaces, the disk and the engine are traits.
//!
//! Tests of the simulated half, and of a whole member in it (`node`):
//! `RUSTFLAGS="--cfg madsim" cargo test -p mainstay-server --lib -- env:: node::`.
//!
//! This room, `engine` and the log's `disk` are the only ones that know `cfg(madsim)`.

mod blocking;
pub mod clock;
mod grpc;
mod raft_runtime;
mod secured;
#[cfg(not(madsim))]
pub mod serve;
#[cfg(not(madsim))]
pub mod system;
#[cfg(not(madsim))]
pub mod tls;
pub mod transport;

pub use blocking::{Outlet, Production, blocking, processors, produce};
pub use grpc::{GrpcService, RequestBytes};
pub use mainstay_raft_log::probe;
pub use raft_runtime::{RaftInstant, RaftRuntime};
pub use secured::{PeerCertificate, Secured};
