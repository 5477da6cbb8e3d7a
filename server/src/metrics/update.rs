//! Metrics that follow a state: set from plain numbers, by whoever owns the state.

use std::collections::BTreeMap;

use prometheus::{IntCounter, IntGauge};

use super::registry::Metrics;

/// The counters of clients' requests by the version that they claim, kept because looking them up
/// by their labels costs more than counting.
pub(super) type ClientRequests = BTreeMap<String, [IntCounter; 2]>;

/// How a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// One request, one response.
    Unary,
    /// Any number of either.
    Stream,
}

/// Most versions that clients may claim; all others count as unknown.
const CLIENT_VERSIONS_MAX: usize = 32;

/// This member's part in consensus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftNumbers {
    /// This member.
    pub member_id: u64,
    /// The leader, where one is known.
    pub leader: Option<u64>,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Index of the last entry that was applied here.
    pub applied: u64,
    /// Commands of this member that wait to be committed.
    pub pending: u64,
}

/// The key-value store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreNumbers {
    /// Current revision.
    pub revision: i64,
    /// Revision of the last compaction; -1 before the first.
    pub compact_revision: i64,
    /// Live keys.
    pub keys: u64,
    /// Bytes on disk.
    pub total_bytes: u64,
    /// Bytes of them that live data takes.
    pub in_use_bytes: u64,
    /// Revision of users and roles.
    pub auth_revision: u64,
}

/// The watch hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchNumbers {
    /// Open streams.
    pub streams: u64,
    /// Watchers in all of them.
    pub watchers: u64,
    /// Watchers of these that lag behind.
    pub slow_watchers: u64,
    /// Events that wait to be sent.
    pub pending_events: u64,
    /// Events that were ever handed out.
    pub events_total: u64,
}

/// What requests hold of the server's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionNumbers {
    /// Bytes that ordinary requests hold.
    pub held: u64,
    /// Bytes that they may hold.
    pub pool: u64,
    /// Bytes that others hold of the reserve.
    pub reserve_held: u64,
    /// Requests that wait for room.
    pub waiting: u64,
}

impl Metrics {
    /// Shows this member's part in consensus; tells changes of the leader by itself.
    pub fn set_raft(&self, numbers: &RaftNumbers) {
        let server = &self.server;
        server.has_leader.set(i64::from(numbers.leader.is_some()));
        server.is_leader.set(i64::from(numbers.leader == Some(numbers.member_id)));
        server.is_learner.set(i64::from(numbers.is_learner));
        set(&server.proposals_committed_total, numbers.committed);
        set(&server.proposals_applied_total, numbers.applied);
        set(&server.proposals_pending, numbers.pending);
        let mut last = self.last_leader.lock();
        // Losing a leader is no change yet; finding one is, be it the same again. As in etcd.
        if numbers.leader.is_some() && numbers.leader != *last {
            server.leader_changes_seen_total.inc();
        }
        *last = numbers.leader;
    }

    /// Shows the state of the store.
    pub fn set_store(&self, numbers: &StoreNumbers) {
        let mvcc = &self.mvcc;
        mvcc.current_revision.set(numbers.revision);
        mvcc.compact_revision.set(numbers.compact_revision);
        set(&mvcc.keys_total, numbers.keys);
        set(&mvcc.db_total_size_in_bytes, numbers.total_bytes);
        set(&mvcc.db_total_size_in_use_in_bytes, numbers.in_use_bytes);
        set(&mvcc.auth_revision, numbers.auth_revision);
    }

    /// Shows the state of the watch hub.
    pub fn set_watch(&self, numbers: &WatchNumbers) {
        let watch = &self.watch;
        set(&watch.watch_stream_total, numbers.streams);
        set(&watch.watcher_total, numbers.watchers);
        set(&watch.slow_watcher_total, numbers.slow_watchers);
        set(&watch.pending_events_total, numbers.pending_events);
        watch.events_total.inc_by(numbers.events_total.saturating_sub(watch.events_total.get()));
    }

    /// Shows what requests hold.
    pub fn set_admission(&self, numbers: &AdmissionNumbers) {
        let server = &self.server;
        set(&server.admission_bytes, numbers.held);
        set(&server.admission_pool_bytes, numbers.pool);
        set(&server.admission_reserve_bytes, numbers.reserve_held);
        set(&server.admission_waiting, numbers.waiting);
    }

    /// Shows who this member is.
    pub fn set_member_id(&self, id: u64) {
        self.server.id.reset();
        self.server.id.with_label_values(&[format!("{id:x}")]).set(1);
    }

    /// Shows the version that the cluster runs at, as major and minor: `3.7`.
    pub fn set_cluster_version(&self, version: &str) {
        let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
        self.server.cluster_version.reset();
        self.server.cluster_version.with_label_values(&[&version[..end]]).set(1);
    }

    /// Shows the format that the members have agreed on.
    pub fn set_data_format(&self, format: u32) {
        self.server.data_format.set(i64::from(format));
    }

    /// Shows the alarms that are on: pairs of a member and etcd's name of the alarm.
    pub fn set_alarms(&self, alarms: impl IntoIterator<Item = (u64, &'static str)>) {
        self.server.alarms.reset();
        for (member, alarm) in alarms {
            self.server.alarms.with_label_values(&[&format!("{member:x}"), alarm]).set(1);
        }
    }

    /// Shows the space that may be used; etcd shows "no limit" as 0.
    pub fn set_quota(&self, bytes: i64) {
        self.server.quota_backend_bytes.set(bytes.max(0));
    }

    /// Counts a client's request under the version that it claims to be.
    ///
    /// Clients may claim anything, so only what looks like a version counts, and only so many of them.
    pub fn client_request(&self, kind: CallKind, claimed_version: Option<&str>) {
        let version = claimed_version.filter(|version| looks_like_a_version(version)).unwrap_or(UNKNOWN);
        if let Some(counters) = self.client_requests.read().get(version) {
            return counters[kind as usize].inc();
        }
        let mut all = self.client_requests.write();
        let version = if all.len() < CLIENT_VERSIONS_MAX { version } else { UNKNOWN };
        let counters = all.entry(version.to_owned()).or_insert_with(|| {
            ["unary", "stream"].map(|kind| self.server.client_requests_total.with_label_values(&[kind, version]))
        });
        counters[kind as usize].inc();
    }
}

const UNKNOWN: &str = "unknown";

fn looks_like_a_version(text: &str) -> bool {
    text.len() <= 24
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
