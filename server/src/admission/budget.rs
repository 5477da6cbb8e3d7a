//! How `--memory-limit` is divided (pure).

use mainstay_raft_log::Options as LogOptions;

use crate::limits;

const MIB: u64 = 1024 * 1024;

/// What the process takes before it serves anything: its code, its threads, its runtime. Measured: 75 MB, of which 29 MB
/// are pages of the program.
const PROCESS_BYTES: u64 = 80 * MIB;

/// So many long reads go on at once in any case: some wait for the disk while others are at work.
const LONG_READS_LEAST: usize = 4;
/// More would be no faster.
const LONG_READS_MOST: usize = 16;

/// What parts of the server may take of the memory. Without a limit these are the bounds that stand in
/// [`limits`]; with one they are such parts of it that about a quarter is left for what has no bound of its own (the
/// index, leases) and for what allocators and compactions add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For ordinary requests; see [`limits::ADMISSION_POOL_BYTES`].
    pub pool: u64,
    /// For all others; see [`limits::ADMISSION_RESERVE_BYTES`].
    pub reserve: u64,
    /// For blocks of the store that were read, and what was written to it and not flushed.
    pub blocks: u64,
    /// For the latter alone; `None` for whatever it takes.
    pub unflushed: Option<u64>,
    /// After which a flush begins; see [`limits::FLUSH_BYTES`].
    pub flush: u64,
    /// For values that are kept ready to be read, where the configuration does not say.
    pub values: u64,
    /// The most that the configuration may say.
    pub values_max: u64,
    /// For the newest entries of the raft log.
    pub log_cache: u64,
    /// For entries on their way to its disk.
    pub log_inbox: u64,
    /// For events that wait for all watch streams; see [`limits::WATCH_WAITING_BYTES`].
    pub waiting: usize,
    /// For those that wait for one; see [`limits::WATCH_MAILBOX_BYTES`].
    pub mailbox: usize,
    /// For the newest revisions, and again for the records before their events; see [`limits::HUB_RECENT_BYTES`].
    pub recent: usize,
    /// For history that is told at once; see [`limits::CATCH_UP_BYTES`].
    pub catch_up: usize,
    /// The same for one watcher; see [`limits::CATCH_UP_SLICE_BYTES_MAX`].
    pub slice_max: usize,
    /// For what waits to be read of one stream of a client; see [`limits::HTTP2_STREAM_WINDOW_BYTES`].
    pub stream_window: u32,
    /// For what waits to be read of one connection.
    pub connection_window: u32,
    /// For what waits to be sent on one connection; see [`limits::HTTP2_SEND_BYTES`].
    pub send_buffer: usize,
    /// For what was read of one connection of HTTP/1; see [`limits::HTTP1_BUFFER_BYTES`].
    pub http1_buffer: usize,
    /// How many reads go on aside at once; `None` for as many as there are.
    pub long_reads: Option<usize>,
    /// The records that are fetched from the store at once; `None` for as many as there are.
    pub fetched: Option<usize>,
}

impl Budget {
    /// The least limit with which a server can do what it has to.
    pub const LEAST: u64 = 256 * MIB;

    /// Divides a limit, for requests of this size at most.
    pub fn of(limit: Option<u64>, request_bytes_max: usize) -> Self {
        let log = LogOptions::default();
        let standard = Self {
            pool: limits::ADMISSION_POOL_BYTES,
            reserve: limits::ADMISSION_RESERVE_BYTES,
            blocks: limits::BLOCK_CACHE_BYTES,
            unflushed: None,
            flush: limits::FLUSH_BYTES,
            values: limits::VALUE_CACHE_BYTES,
            values_max: u64::MAX,
            log_cache: limits::LOG_CACHE_BYTES,
            log_inbox: log.inbox_bytes,
            waiting: limits::WATCH_WAITING_BYTES,
            mailbox: limits::WATCH_MAILBOX_BYTES,
            recent: limits::HUB_RECENT_BYTES,
            catch_up: limits::CATCH_UP_BYTES,
            slice_max: limits::CATCH_UP_SLICE_BYTES_MAX,
            stream_window: limits::HTTP2_STREAM_WINDOW_BYTES,
            connection_window: limits::HTTP2_CONNECTION_WINDOW_BYTES,
            send_buffer: limits::HTTP2_SEND_BYTES,
            http1_buffer: limits::HTTP1_BUFFER_BYTES,
            long_reads: None,
            fetched: None,
        };
        let Some(limit) = limit else { return standard };
        let rest = limit.saturating_sub(PROCESS_BYTES);
        // More than without a limit only what serves more with more.
        let part = |of: u64, most: u64| (rest / of).min(most);
        let size = |of: u64, most: usize| usize::try_from(rest / of).unwrap_or(usize::MAX).min(most);
        let window = |of: u64, most: u32| u32::try_from(rest / of).unwrap_or(u32::MAX).clamp(64 * 1024, most);
        Self {
            pool: rest / 4,
            reserve: rest / 16,
            blocks: rest / 8,
            unflushed: Some(part(16, 4 * limits::FLUSH_BYTES)),
            flush: part(32, limits::FLUSH_BYTES),
            values: part(16, limits::VALUE_CACHE_BYTES_LIMITED_MAX),
            values_max: rest / 4,
            log_cache: part(64, standard.log_cache),
            log_inbox: part(32, standard.log_inbox),
            waiting: size(16, standard.waiting),
            mailbox: size(32, standard.mailbox),
            recent: size(32, standard.recent),
            catch_up: size(32, standard.catch_up),
            slice_max: size(64, standard.slice_max),
            stream_window: window(8192, standard.stream_window),
            connection_window: window(4096, standard.connection_window),
            send_buffer: 16 * 1024,
            http1_buffer: limits::HTTP1_BUFFER_BYTES_LIMITED,
            long_reads: Some(size(16 * limits::LONG_READ_BYTES, LONG_READS_MOST).max(LONG_READS_LEAST)),
            fetched: Some(size(128, 1 << 30).checked_div(request_bytes_max).unwrap_or(1).max(1)),
        }
    }

    /// The largest requests that find room, of which there are always a few under way.
    pub fn request_bytes_max(&self) -> u64 {
        self.pool / 2 / limits::WRITE_COPIES
    }

    /// What a connection is reckoned to take, with what waits to be read of it.
    pub fn connection(&self) -> u64 {
        let waits = u64::from(self.connection_window).max(self.http1_buffer as u64);
        limits::CONNECTION_BYTES + if self.fetched.is_some() { waits } else { 0 }
    }

    /// What may still be added to a process that its keys have filled, requests apart. Whatever else has a part (values,
    /// what is not flushed, the log's newest entries, the newest revisions) was filled as the keys came.
    pub fn addable(&self) -> u64 {
        let blocks = self.blocks - self.unflushed.unwrap_or(0);
        let aside = self.long_reads.unwrap_or(0) as u64 * limits::LONG_READ_BYTES;
        self.reserve + blocks + self.log_inbox + self.waiting as u64 + aside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: usize = 1_572_864;

    /// All that may be full at the same time.
    fn sum(budget: &Budget) -> u64 {
        budget.pool
            + budget.reserve
            + budget.blocks
            + budget.values
            + budget.log_cache
            + budget.log_inbox
            + budget.waiting as u64
            + 2 * budget.recent as u64
    }

    #[test]
    fn the_parts_leave_room_for_what_has_no_bound() {
        for limit in [Budget::LEAST, 256 * MIB, 300_000_000, 1024 * MIB, 8 * 1024 * MIB, 256 * 1024 * MIB] {
            let budget = Budget::of(Some(limit), REQUEST);
            assert!(sum(&budget) <= (limit - PROCESS_BYTES) * 3 / 4, "{limit}: {budget:?}");
            let unflushed = budget.unflushed.unwrap();
            assert!(budget.flush < unflushed && unflushed < budget.blocks, "{limit}: {budget:?}");
            assert!(budget.slice_max >= limits::CATCH_UP_SLICE_BYTES_MIN, "{limit}: {budget:?}");
            assert!(limits::CATCH_UP_SLICE_BYTES_MIN <= budget.mailbox / 2, "{limit}: {budget:?}");
            assert!(budget.stream_window <= budget.connection_window, "{limit}: {budget:?}");
            assert!(budget.request_bytes_max() >= REQUEST as u64, "{limit}: {budget:?}");
            assert!(budget.fetched.unwrap() >= 1, "{limit}: {budget:?}");
            assert!(budget.long_reads.unwrap() >= LONG_READS_LEAST, "{limit}: {budget:?}");
        }
    }

    #[test]
    fn without_a_limit_the_bounds_are_the_standard_ones() {
        let budget = Budget::of(None, REQUEST);
        assert_eq!((budget.pool, budget.reserve), (limits::ADMISSION_POOL_BYTES, limits::ADMISSION_RESERVE_BYTES));
        assert_eq!((budget.values, budget.fetched, budget.unflushed), (100_663_296, None, None));
    }

    #[test]
    fn a_connection_takes_what_may_wait_in_it() {
        let budget = Budget::of(Some(256 * MIB), REQUEST);
        assert_eq!(budget.connection(), limits::CONNECTION_BYTES + u64::from(budget.connection_window));
        assert!(budget.http1_buffer as u64 <= budget.connection() - limits::CONNECTION_BYTES, "{budget:?}");
        assert_eq!(Budget::of(None, REQUEST).connection(), limits::CONNECTION_BYTES);
    }

    #[test]
    fn what_may_be_added_is_what_only_use_fills() {
        let budget = Budget::of(Some(336 * MIB), REQUEST);
        let parts = [budget.reserve, budget.blocks, budget.unflushed.unwrap(), budget.log_inbox, budget.waiting as u64];
        assert_eq!(parts, [16 * MIB, 32 * MIB, 16 * MIB, 8 * MIB, 16 * MIB]);
        assert_eq!(budget.long_reads, Some(8));
        assert_eq!(budget.addable(), (16 + 32 - 16 + 8 + 16 + 8 * 2) * MIB);
    }
}
