//! Discards history on a schedule, while this member leads.
//!
//! A task that owns nothing but its schedule, so it is stopped by aborting its handle. Every member
//! keeps the schedule, so that a new leader knows which revision was the current one a period ago;
//! only the leader proposes.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_proto::etcdserverpb::CompactionRequest;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::command::{Outcome, Refusal, cluster_itself, command};
use crate::env::clock::{self, Instant};
use crate::mvcc::Store;
use crate::raft::{Gateway, Unavailable};

/// What history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// That of the last period.
    Periodic(Duration),
    /// That of the last so many revisions.
    Revision(i64),
}

/// How often a schedule by revisions compacts; as in etcd.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The longest time between two compactions of a schedule by time; as in etcd.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// Into how many steps a schedule by time divides the time between two compactions; as in etcd.
const PERIODIC_STEPS: u32 = 10;

/// Starts to compact automatically.
pub fn spawn(mode: Mode, gateway: Gateway, store: Store) -> JoinHandle<()> {
    let proposer = gateway.clone();
    let leads = move || {
        let status = gateway.status();
        status.leader == Some(status.member_id)
    };
    let compact = move |revision| {
        let gateway = proposer.clone();
        let command = command::Kind::Compaction(CompactionRequest { revision, physical: false });
        async move { gateway.propose(Some(cluster_itself()), command).await }
    };
    tokio::spawn(run(mode, move || store.revision(), leads, compact))
}

async fn run<F>(mode: Mode, revision: impl Fn() -> i64, leads: impl Fn() -> bool, compact: impl Fn(i64) -> F)
where
    F: Future<Output = Result<Outcome, Unavailable>>,
{
    let mut schedule = Schedule::new(mode, clock::now());
    loop {
        schedule.sample(revision());
        clock::sleep(schedule.step()).await;
        if !leads() {
            continue;
        }
        let Some(target) = schedule.due(clock::now(), revision()) else { continue };
        info!(revision = target, ?mode, "starting auto compaction");
        match compact(target).await.map(|outcome| outcome.refusal()) {
            // Somebody else was faster.
            Ok(Refusal::None | Refusal::Compacted) => {
                info!(revision = target, ?mode, "completed auto compaction");
                schedule.compacted(clock::now(), target);
            }
            Ok(refusal) => warn!(revision = target, ?mode, ?refusal, "failed auto compaction"),
            Err(error) => warn!(revision = target, ?mode, %error, "failed auto compaction"),
        }
    }
}

/// When to compact to which revision, as data: the caller brings time and revisions.
enum Schedule {
    Periodic {
        period: Duration,
        /// The current revision at each step of the last period, the oldest first.
        samples: VecDeque<i64>,
        /// When history was last discarded, or when the schedule began.
        last: Instant,
        /// Whether a whole period has passed since the schedule began.
        began: bool,
    },
    Revision {
        keep: i64,
        last: i64,
    },
}

impl Schedule {
    fn new(mode: Mode, now: Instant) -> Self {
        match mode {
            Mode::Periodic(period) => Self::Periodic { period, samples: VecDeque::new(), last: now, began: false },
            Mode::Revision(keep) => Self::Revision { keep, last: 0 },
        }
    }

    /// How long to wait from one look to the next.
    fn step(&self) -> Duration {
        match self {
            Self::Periodic { period, .. } => periodic_step(*period),
            Self::Revision { .. } => REVISION_INTERVAL,
        }
    }

    /// Notes the current revision, before each step.
    fn sample(&mut self, revision: i64) {
        if let Self::Periodic { period, samples, .. } = self {
            samples.push_back(revision);
            let kept = period.as_nanos() / periodic_step(*period).as_nanos() + 1;
            if samples.len() as u128 > kept {
                samples.pop_front();
            }
        }
    }

    /// The revision up to which history is to be discarded now, after a step.
    fn due(&mut self, now: Instant, current: i64) -> Option<i64> {
        match self {
            Self::Periodic { period, samples, last, began } => {
                let wait = if *began { (*period).min(PERIODIC_INTERVAL_MAX) } else { *period };
                if now.duration_since(*last) < wait {
                    return None;
                }
                *began = true;
                samples.front().copied()
            }
            Self::Revision { keep, last } => {
                let revision = current.saturating_sub(*keep);
                (revision > 0 && revision != *last).then_some(revision)
            }
        }
    }

    /// History was discarded up to a revision.
    fn compacted(&mut self, now: Instant, revision: i64) {
        match self {
            Self::Periodic { last, .. } => *last = now,
            Self::Revision { last, .. } => *last = revision,
        }
    }
}

fn periodic_step(period: Duration) -> Duration {
    // Never so short that the schedule does nothing but look at the clock.
    (period.min(PERIODIC_INTERVAL_MAX) / PERIODIC_STEPS).max(Duration::from_millis(1))
}
