//! What one member counts of another. The series of a peer are looked up once and shared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::groups::Network;

/// The series of one peer.
pub struct PeerMetrics {
    /// Bytes of messages that were handed over to be sent.
    pub sent_bytes: IntCounter,
    /// Bytes of messages that came.
    pub received_bytes: IntCounter,
    /// Messages that did not arrive, as far as is known.
    pub sent_failures: IntCounter,
    /// Messages that could not be read.
    pub received_failures: IntCounter,
    /// Times from a message to its answer.
    pub round_trip_time_seconds: Histogram,
    /// Snapshots on their way to the peer, and what became of them.
    pub snapshots_sent: SnapshotMetrics,
    /// Snapshots on their way here, and what became of them.
    pub snapshots_received: SnapshotMetrics,
    /// Bytes of snapshots that were handed over to be sent.
    pub snapshot_sent_bytes: IntCounter,
    /// Bytes of snapshots that came.
    pub snapshot_received_bytes: IntCounter,
    /// Bytes of snapshots that did not come, because they were here already.
    pub snapshot_resumed_bytes: IntCounter,
}

/// Snapshots in one direction.
pub struct SnapshotMetrics {
    /// Under way.
    pub in_flight: IntGauge,
    /// Arrived.
    pub successes: IntCounter,
    /// Did not arrive.
    pub failures: IntCounter,
    /// Took so long to arrive.
    pub seconds: Histogram,
}

impl SnapshotMetrics {
    /// Counts a snapshot that begins to travel; as failed unless it is told to have arrived.
    pub fn begin(&self) -> Travel<'_> {
        self.in_flight.inc();
        Travel { metrics: self, arrived: false }
    }
}

/// A snapshot under way.
pub struct Travel<'a> {
    metrics: &'a SnapshotMetrics,
    arrived: bool,
}

impl Travel<'_> {
    /// It arrived and took so long.
    pub fn arrived(mut self, took: Duration) {
        self.arrived = true;
        self.metrics.successes.inc();
        self.metrics.seconds.observe(took.as_secs_f64());
    }
}

impl Drop for Travel<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if !self.arrived {
            self.metrics.failures.inc();
        }
    }
}

/// By member.
pub(super) type Known = RwLock<BTreeMap<u64, Arc<PeerMetrics>>>;

impl Network {
    /// The series of a peer.
    pub fn peer(&self, id: u64) -> Arc<PeerMetrics> {
        if let Some(known) = self.peers.read().get(&id) {
            return known.clone();
        }
        self.peers.write().entry(id).or_insert_with(|| Arc::new(self.new_peer(id))).clone()
    }

    /// Bytes received that are counted to no member: earlier releases do not say who forwards a command.
    pub fn received_from_unknown(&self) -> IntCounter {
        self.peer_received_bytes_total.with_label_values(&["0"])
    }

    fn new_peer(&self, id: u64) -> PeerMetrics {
        let label = [format!("{id:x}")];
        PeerMetrics {
            sent_bytes: self.peer_sent_bytes_total.with_label_values(&label),
            received_bytes: self.peer_received_bytes_total.with_label_values(&label),
            sent_failures: self.peer_sent_failures_total.with_label_values(&label),
            received_failures: self.peer_received_failures_total.with_label_values(&label),
            round_trip_time_seconds: self.peer_round_trip_time_seconds.with_label_values(&label),
            snapshots_sent: SnapshotMetrics {
                in_flight: self.snapshot_send_inflights_total.with_label_values(&label),
                successes: self.snapshot_send_success.with_label_values(&label),
                failures: self.snapshot_send_failures.with_label_values(&label),
                seconds: self.snapshot_send_total_duration_seconds.with_label_values(&label),
            },
            snapshots_received: SnapshotMetrics {
                in_flight: self.snapshot_receive_inflights_total.with_label_values(&label),
                successes: self.snapshot_receive_success.with_label_values(&label),
                failures: self.snapshot_receive_failures.with_label_values(&label),
                seconds: self.snapshot_receive_total_duration_seconds.with_label_values(&label),
            },
            snapshot_sent_bytes: self.snapshot_sent_bytes.with_label_values(&label),
            snapshot_received_bytes: self.snapshot_received_bytes.with_label_values(&label),
            snapshot_resumed_bytes: self.snapshot_resumed_bytes.with_label_values(&label),
        }
    }
}
