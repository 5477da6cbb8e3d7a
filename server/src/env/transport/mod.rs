//! How members reach each other: HTTP/2 over sockets, or the simulated network.
//!
//! Both carry the same gRPC services: a [`PeerChannel`] is what a generated client calls, and a
//! `tonic::service::Routes` is what answers. Only framing, TLS and flow control differ.

#[cfg(not(madsim))]
mod real;
#[cfg(madsim)]
mod sim;

#[cfg(not(madsim))]
pub use real::{PeerChannel, connect, never_sent};
#[cfg(madsim)]
pub use sim::{PeerChannel, connect, never_sent, serve};
