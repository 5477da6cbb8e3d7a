use crate::admission::Budget;
use crate::limits;

/// How much waits where, and how much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// See [`limits::WATCH_MAILBOX`].
    pub(super) mailbox_messages: usize,
    /// See [`limits::WATCH_MAILBOX_PER_WATCHER`].
    pub(super) mailbox_messages_per_watcher: usize,
    /// See [`limits::WATCH_MAILBOX_BYTES`].
    pub(super) mailbox_bytes: usize,
    /// See [`limits::WATCH_MAILBOX_BYTES_MIN`].
    pub(super) mailbox_bytes_min: usize,
    /// See [`limits::WATCH_WAITING_BYTES`].
    pub(super) waiting_bytes: usize,
    /// See [`limits::WATCH_MESSAGE_BYTES`].
    pub(super) message_bytes: usize,
    /// Bytes from which a response is split for a watcher that wants fragments, where the configuration
    /// does not say less.
    pub(super) fragment_bytes: usize,
    /// See [`limits::HUB_RECENT_REVISIONS`].
    pub(super) recent_revisions: usize,
    /// See [`limits::HUB_RECENT_BYTES`].
    pub(super) recent_bytes: usize,
    /// See [`limits::CATCH_UP_BYTES`].
    pub(super) catch_up_bytes: usize,
    /// See [`limits::CATCH_UP_SLICE_BYTES_MIN`].
    pub(super) slice_bytes_min: usize,
    /// See [`limits::CATCH_UP_SLICE_BYTES_MAX`].
    pub(super) slice_bytes_max: usize,
    /// See [`limits::CATCH_UP_STEP_EVENTS`].
    pub(super) step_events: usize,
    /// See [`limits::CATCH_UP_STEP_HITS`].
    pub(super) step_hits: usize,
}

impl Bounds {
    /// What holds outside of tests and simulations.
    pub const STANDARD: Self = Self {
        mailbox_messages: limits::WATCH_MAILBOX,
        mailbox_messages_per_watcher: limits::WATCH_MAILBOX_PER_WATCHER,
        mailbox_bytes: limits::WATCH_MAILBOX_BYTES,
        mailbox_bytes_min: limits::WATCH_MAILBOX_BYTES_MIN,
        waiting_bytes: limits::WATCH_WAITING_BYTES,
        message_bytes: limits::WATCH_MESSAGE_BYTES,
        fragment_bytes: usize::MAX,
        recent_revisions: limits::HUB_RECENT_REVISIONS,
        recent_bytes: limits::HUB_RECENT_BYTES,
        catch_up_bytes: limits::CATCH_UP_BYTES,
        slice_bytes_min: limits::CATCH_UP_SLICE_BYTES_MIN,
        slice_bytes_max: limits::CATCH_UP_SLICE_BYTES_MAX,
        step_events: limits::CATCH_UP_STEP_EVENTS,
        step_hits: limits::CATCH_UP_STEP_HITS,
    };

    /// What holds where the memory is limited.
    pub fn within(budget: &Budget) -> Self {
        Self {
            mailbox_bytes: budget.mailbox,
            waiting_bytes: budget.waiting,
            recent_bytes: budget.recent,
            catch_up_bytes: budget.catch_up,
            slice_bytes_max: budget.slice_max,
            ..Self::STANDARD
        }
    }

    /// How many messages with events wait for a stream of few watchers at most.
    pub fn mailbox_messages(&self) -> usize {
        self.mailbox_messages
    }

    /// So little that a few clients meet every bound: a simulation of seconds sees what otherwise
    /// takes hours of load.
    pub const SMALL: Self = Self {
        mailbox_messages: 4,
        mailbox_messages_per_watcher: 0,
        mailbox_bytes: 4_000,
        mailbox_bytes_min: 500,
        waiting_bytes: 64_000,
        message_bytes: 1_000,
        fragment_bytes: 300,
        recent_revisions: 10,
        recent_bytes: 10_000,
        catch_up_bytes: 8_000,
        slice_bytes_min: 500,
        slice_bytes_max: 2_000,
        step_events: 8,
        step_hits: 8,
    };
}
