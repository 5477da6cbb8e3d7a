use std::sync::atomic::{AtomicU64, Ordering};

/// What the metrics tell of the watchers of this member.
#[derive(Debug, Default)]
pub struct WatchStats {
    /// Open streams.
    pub streams: AtomicU64,
    /// Watchers, whatever their state.
    pub watchers: AtomicU64,
    /// Watchers that have yet to be told history.
    pub slow_watchers: AtomicU64,
    /// Events that wait in mailboxes.
    pub pending_events: AtomicU64,
    /// In so many messages.
    pub pending_messages: AtomicU64,
    /// Events that were ever put into mailboxes.
    pub events_total: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

pub(super) fn subtract(counter: &AtomicU64, count: usize) {
    counter.fetch_sub(count as u64, Ordering::Relaxed);
}
