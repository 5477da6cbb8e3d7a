//! How near the memory of this process is to what it may take.
//!
//! Most of it has a budget of its own. What has none grows with the number of keys: the index, leases, users. So the
//! memory is measured. As it grows, requests get less; where little is left, what makes the store larger is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Gate;
use crate::env::clock;
use crate::metrics::Metrics;

/// How often it is measured.
const INTERVAL: Duration = Duration::from_millis(100);
/// From how much of the limit on operators are warned, in percent.
const WARNING: u64 = 85;
/// Below how much of it they would be warned again.
const RELIEVED: u64 = 80;
/// What there may be with all that requests hold.
const FILLED: u64 = 90;
/// From how much of it on nothing may grow.
const HIGH: u64 = 95;
/// From how much of it on not even leases are granted.
const HIGHEST: u64 = 98;
/// Requests always have such a part of their pool.
const LEAST_PART: u64 = 8;

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
pub fn spawn(gate: Gate, limit: u64, pool: u64, resident: Resident, metrics: Arc<Metrics>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut memory = Memory { limit, pool, is_warned: false };
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
                    "the memory is nearly used up: delete keys, or raise --memory-limit"
                );
            }
        }
    })
}

/// What is remembered from one look to the next (pure).
struct Memory {
    limit: u64,
    /// Bytes of the pool for requests where there is memory enough.
    pool: u64,
    is_warned: bool,
}

impl Memory {
    /// Takes a look into account: how little memory is left, and how much of it requests may hold.
    fn look(&mut self, resident: u64, held: u64) -> (Pressure, u64) {
        let reaches = |percent: u64| u128::from(resident) * 100 >= u128::from(self.limit) * u128::from(percent);
        let (warns, is_relieved) = (reaches(WARNING), !reaches(RELIEVED));
        self.is_warned = warns || (self.is_warned && !is_relieved);
        let pressure = match (reaches(HIGHEST), reaches(HIGH)) {
            (true, _) => Pressure::Highest,
            (false, true) => Pressure::High,
            (false, false) => Pressure::None,
        };
        // What they hold is in what is measured, or is going to be.
        let others = resident.saturating_sub(held);
        let left = (self.limit / 100 * FILLED).saturating_sub(others);
        (pressure, left.clamp(self.pool / LEAST_PART, self.pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory { limit: 1_000, pool: 400, is_warned: false }
    }

    #[test]
    fn the_warning_comes_once() {
        let mut memory = memory();
        for (resident, is_warned) in [(0, false), (849, false), (850, true), (800, true), (799, false), (849, false)] {
            memory.look(resident, 0);
            assert_eq!(memory.is_warned, is_warned, "{resident}");
        }
    }

    #[test]
    fn where_little_is_left_nothing_may_grow() {
        let mut memory = memory();
        for (resident, pressure) in [
            (949, Pressure::None),
            (950, Pressure::High),
            (979, Pressure::High),
            (980, Pressure::Highest),
            (2_000, Pressure::Highest),
            (949, Pressure::None),
        ] {
            assert_eq!(memory.look(resident, 0).0, pressure, "{resident}");
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
