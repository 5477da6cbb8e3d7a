//! Whether entries arrive at a peer. A heartbeat is sent only while they do.
//!
//! Heartbeats travel on a connection of their own, so that nothing large holds them up. They could then get through
//! where entries do not: on a way that loses what is large, or whose other connections are cut. The peer would go on to
//! take a leader for alive that gets nothing committed, and nobody would stand for election. (etcd sends both along the
//! same stream.) Those that entries do not reach are a majority of the others where nothing is committed, and elect one
//! of theirs when they hear of no leader; where they are fewer, the others refuse them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::clock::{self, Instant};

/// What one member knows of all its peers. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<Mutex<BTreeMap<u64, Arrival>>>);

impl Arrivals {
    /// How it is with one peer.
    pub(super) fn at(&self, peer: u64) -> Arrival {
        self.0.lock().entry(peer).or_default().clone()
    }
}

/// How it is with one peer. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival(Arc<Mutex<Option<Instant>>>);

impl Arrival {
    /// A leadership begins: what was before says nothing.
    pub(super) fn begin(&self) {
        *self.0.lock() = None;
    }

    /// Entries are to be sent.
    pub(super) fn awaited(&self) {
        self.0.lock().get_or_insert_with(clock::now);
    }

    /// The peer answered to entries, whatever it said, or gets a snapshot instead of them; more of them may be under way.
    pub(super) fn answered(&self, more: bool) {
        *self.0.lock() = more.then(clock::now);
    }

    /// Whether the peer has answered to none for so long, though there were some.
    pub(super) fn is_missed_for(&self, long: Duration) -> bool {
        self.0.lock().is_some_and(|since| clock::elapsed(since) >= long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_is_not_answered_for_long_is_missed_however_often_it_is_sent() {
        let arrivals = Arrivals::default();
        let arrival = arrivals.at(7);
        assert!(!arrival.is_missed_for(Duration::ZERO), "nothing was sent");
        arrival.awaited();
        clock::sleep(2 * LONG).await;
        arrival.awaited();
        assert!(arrivals.at(7).is_missed_for(LONG));
        assert!(!arrivals.at(8).is_missed_for(Duration::ZERO), "another peer");
    }

    #[tokio::test]
    async fn an_answer_counts_for_what_was_sent_before() {
        let arrival = Arrival::default();
        arrival.awaited();
        clock::sleep(2 * LONG).await;
        arrival.answered(true);
        assert!(!arrival.is_missed_for(LONG), "the rest has its own time");
        clock::sleep(2 * LONG).await;
        assert!(arrival.is_missed_for(LONG));
        arrival.answered(false);
        assert!(!arrival.is_missed_for(Duration::ZERO));
        arrival.awaited();
        arrival.begin();
        assert!(!arrival.is_missed_for(Duration::ZERO), "of an earlier leadership");
    }
}
