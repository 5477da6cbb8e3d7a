//! A member's monotonic clock and its timers: the process's own, or one that a simulation bends.
//!
//! Whatever decides by time (elections, leases, schedules, deadlines) asks this clock and no other
//! (tidy: `time_comes_from_the_member_clock`), because a simulation gives each member one that runs
//! fast or slow and jumps ahead. For the same reason a duration since a moment is asked of
//! [`elapsed`]: `Instant::elapsed` would ask the process.

#[cfg(not(madsim))]
mod real;
#[cfg(madsim)]
mod sim;
#[cfg(all(test, madsim))]
mod tests;

#[cfg(not(madsim))]
pub use real::{now, sleep, sleep_until, timeout};
#[cfg(madsim)]
pub use sim::{Elapsed, Sleep, jump, now, reset, set_rate, sleep, sleep_until, timeout};
#[cfg(not(madsim))]
pub use tokio::time::Sleep;
#[cfg(not(madsim))]
pub use tokio::time::error::Elapsed;

pub use tokio::time::Instant;

/// How long ago a moment of this member's clock was; zero where it is still to come.
pub fn elapsed(since: Instant) -> std::time::Duration {
    now().saturating_duration_since(since)
}

/// The time since 1970 by the machine's clock, for what other machines are told or have signed. Nothing else
/// is decided by it: it may be wrong, and it may be set.
pub fn since_epoch() -> std::time::Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}
