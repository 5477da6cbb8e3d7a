pub use tokio::time::{sleep, sleep_until, timeout};

/// The present moment.
#[inline]
pub fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
