//! A worker for the tests of what drives workers.

use std::time::Duration;

use mainstay_client::Error;
use tokio::time::sleep;

use crate::load::Worker;

/// How many items a step moves.
pub(crate) const ITEMS: u64 = 3;

/// Takes some time for each step, and fails when told to.
pub(crate) struct Slow {
    time: Duration,
    pub(crate) broken: bool,
}

impl Worker for Slow {
    async fn step(&mut self) -> Result<u64, Error> {
        sleep(self.time).await;
        if self.broken { Err(Error::TimedOut) } else { Ok(ITEMS) }
    }
}

/// So many workers, each of which takes so long for a step.
pub(crate) fn workers(count: usize, millis: u64) -> Vec<Slow> {
    (0..count).map(|_| Slow { time: Duration::from_millis(millis), broken: false }).collect()
}
