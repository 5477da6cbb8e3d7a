//! How members reach each other: HTTP/2 over sockets, or the simulated network.
//!
//! Both carry the same gRPC services: a [`Dialer`] makes a [`PeerChannel`], which a generated client calls, and a
//! `tonic::service::Routes` is what answers. Only framing, TLS and flow control differ.

#[cfg(not(madsim))]
mod real;
#[cfg(madsim)]
mod sim;

#[cfg(not(madsim))]
pub use real::{Dialer, PeerChannel};
#[cfg(madsim)]
pub use sim::{
    Dialer, LinkConditions, PeerChannel, clear_detours, clear_links, connect, serve, set_detour, set_link, set_window,
};

/// Whether a failed request certainly never left this member: no connection could be made.
pub fn never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
