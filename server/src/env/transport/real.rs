use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// A connection to a member that is made, and made again, when it is needed.
pub type PeerChannel = Channel;

/// A frame without an answer for this long means that the connection is dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Window of one stream: a batch of large values must not wait for window updates.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Prepares a connection to a peer URL; nothing is sent before the first request.
///
/// # Errors
/// When the URL cannot be dialled at all.
pub fn connect(url: &str, connect_timeout: Duration) -> Result<PeerChannel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("peer URL {url:?}: {error}"))?;
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(4 * STREAM_WINDOW_BYTES)
        .connect_lazy())
}
