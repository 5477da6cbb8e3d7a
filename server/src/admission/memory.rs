//! How near the memory of this process is to what it may take.
//!
//! Most of it has a budget of its own. What has none grows with the number of keys: the index, leases, users. So the
//! memory is measured. As it grows, requests get less; where little is left, what makes the store larger is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Budget, Gate};
use crate::env::clock;
use crate::metrics::Metrics;

/// How often it is measured.
const INTERVAL: Duration = Duration::from_millis(100);
/// From how much of what stops growth on operators are warned, in percent.
const WARNING: u64 = 90;
/// Below how much of it they would be warned again.
const RELIEVED: u64 = 85;
/// From how much of the limit on not even leases are granted, whatever takes it, in percent.
const HIGHEST: u64 = 98;
/// Requests always have such a part of their pool.
const LEAST_PART: u64 = 8;
/// What nobody counts, as the memory that the allocator holds back, is reckoned to be such a part of the limit,
const UNCOUNTED_PART: u64 = 16;
/// and at most so much.
const UNCOUNTED_MOST: u64 = 32 * 1024 * 1024;

/// How little memory is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Pressure {
    /// Enough.
    None,
    /// So little that the store must not grow.
    High,
    /// So little that not even leases are granted.
    Highest,
}

/// Says how many bytes of memory the process takes; `None` where that cannot be told.
pub type Resident = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Starts to measure. It ends with the handle's abortion.
pub fn spawn(gate: Gate, limit: u64, budget: &Budget, resident: Resident, metrics: Arc<Metrics>) -> JoinHandle<()> {
    let mut memory = Memory::new(limit, budget);
    tokio::spawn(async move {
        loop {
            clock::sleep(INTERVAL).await;
            let Some(resident) = resident() else { continue };
            let was_warned = memory.is_warned;
            let (pressure, pool) = memory.look(resident, gate.numbers().held);
            gate.set_pressure(pressure, pool);
            metrics.server.memory_warning.set(memory.is_warned.into());
            if memory.is_warned && !was_warned {
                tracing::warn!(
                    "resident-bytes" = resident,
                    "limit-bytes" = limit,
                    "growth-stops-at-bytes" = memory.grows_to(),
                    "the memory is nearly used up: delete keys, or raise --memory-limit"
                );
            }
        }
    })
}

/// What is remembered from one look to the next (pure).
struct Memory {
    limit: u64,
    /// What there may be with all that requests hold: what else may be added finds room beside it.
    filled: u64,
    /// Bytes of the pool for requests where there is memory enough.
    pool: u64,
    is_warned: bool,
}

impl Memory {
    fn new(limit: u64, budget: &Budget) -> Self {
        let uncounted = (limit / UNCOUNTED_PART).min(UNCOUNTED_MOST);
        let filled = limit.saturating_sub(budget.addable() + uncounted);
        Self { limit, filled, pool: budget.pool, is_warned: false }
    }

    /// What requests have in any case.
    fn least(&self) -> u64 {
        self.pool / LEAST_PART
    }

    /// Up to which size of all but requests the store may grow. Leases, which are granted for a little longer, and
    /// requests find room between it and what there may be.
    fn grows_to(&self) -> u64 {
        self.filled.saturating_sub(2 * self.least())
    }

    /// Takes a look into account: how little memory is left, and how much of it requests may hold.
    fn look(&mut self, resident: u64, held: u64) -> (Pressure, u64) {
        let reaches = |percent: u64, of: u64| u128::from(resident) * 100 >= u128::from(of) * u128::from(percent);
        let (warns, is_relieved) = (reaches(WARNING, self.grows_to()), !reaches(RELIEVED, self.grows_to()));
        self.is_warned = warns || (self.is_warned && !is_relieved);
        // What they hold is in what is measured, or is going to be.
        let others = resident.saturating_sub(held);
        let pressure = if others >= self.filled.saturating_sub(self.least()) || reaches(HIGHEST, self.limit) {
            Pressure::Highest
        } else if others >= self.grows_to() || resident >= self.filled {
            Pressure::High
        } else {
            Pressure::None
        };
        (pressure, self.filled.saturating_sub(others).clamp(self.least(), self.pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests have 50 in any case, so that the store grows up to 800.
    fn memory() -> Memory {
        Memory { limit: 1_000, filled: 900, pool: 400, is_warned: false }
    }

    #[test]
    fn the_warning_comes_once() {
        let mut memory = memory();
        for (resident, is_warned) in [(0, false), (719, false), (720, true), (680, true), (679, false), (719, false)] {
            memory.look(resident, 0);
            assert_eq!(memory.is_warned, is_warned, "{resident}");
        }
    }

    #[test]
    fn where_little_is_left_nothing_may_grow() {
        let mut memory = memory();
        for (resident, held, pressure) in [
            (799, 0, Pressure::None),
            (800, 0, Pressure::High),
            (849, 0, Pressure::High),
            (850, 0, Pressure::Highest),
            (2_000, 0, Pressure::Highest),
            (799, 0, Pressure::None),
            // What requests hold goes again.
            (899, 100, Pressure::None),
            (900, 100, Pressure::High),
            (900, 400, Pressure::High),
            (979, 400, Pressure::High),
            (980, 400, Pressure::Highest),
        ] {
            assert_eq!(memory.look(resident, held).0, pressure, "{resident} with {held} held");
        }
    }

    #[test]
    fn what_may_be_added_finds_room_where_growth_has_stopped() {
        const MIB: u64 = 1024 * 1024;
        for limit in [Budget::LEAST, 300_000_000, 1024 * MIB, 4096 * MIB, 256 * 1024 * MIB] {
            let budget = Budget::of(Some(limit), 1_572_864);
            let mut memory = Memory::new(limit, &budget);
            let full = memory.grows_to();
            assert!(full >= limit / 3 * 2, "{full} of {limit}");
            assert_eq!(memory.look(full - 1, 0).0, Pressure::None, "{limit}");
            let (pressure, pool) = memory.look(full, 0);
            assert_eq!(pressure, Pressure::High, "{limit}");
            assert!(full + pool + budget.addable() <= limit, "{limit}");
            // And where leases are granted no more.
            let most = memory.filled - memory.least();
            let (pressure, pool) = memory.look(most, 0);
            assert_eq!(pressure, Pressure::Highest, "{limit}");
            assert!(most + pool + budget.addable() <= limit, "{limit}");
        }
    }

    #[test]
    fn requests_get_what_the_rest_leaves() {
        let mut memory = memory();
        for (resident, held, pool) in [
            (300, 0, 400),
            (600, 200, 400),
            (600, 0, 300),
            (850, 250, 300),
            (900, 0, 50),
            (2_000, 0, 50),
            (100, 400, 400),
        ] {
            assert_eq!(memory.look(resident, held).1, pool, "{resident} with {held} held");
        }
    }
}
