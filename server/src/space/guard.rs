//! Looks at how full the store is: warns early, and disarms the alarm when there is room again.

use std::sync::Arc;
use std::time::Duration;

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{AlarmRequest, AlarmType};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::Quota;
use crate::apply::AlarmView;
use crate::command::{cluster_itself, command};
use crate::env::clock::{self, Instant};
use crate::env::probe;
use crate::metrics::Metrics;
use crate::mvcc::Store;
use crate::raft::Gateway;

/// How often the guard looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// From how much of the quota on operators are warned, in percent.
const WARNING: u64 = 80;
/// Below how much of the quota there is room again, in percent.
const RELIEVED: u64 = 90;
/// For how long, before the alarm is disarmed: data that swings around the quota shall not switch it on and off.
const LASTING: Duration = Duration::from_secs(30);

/// Starts the guard of a member's store. It ends with the handle's abortion; where there is no quota, at once.
pub fn spawn(quota: Quota, gateway: Gateway, store: Store, alarms: AlarmView, metrics: Arc<Metrics>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Some(quota) = quota.bytes() else { return };
        let mut guard = Guard::default();
        loop {
            clock::sleep(INTERVAL).await;
            let (member_id, retained) = (gateway.status().member_id, store.retained_bytes());
            let is_raised = alarms.is_raised_by(member_id, AlarmType::Nospace);
            let was_warned = guard.is_warned;
            let is_over = guard.look(clock::now(), retained, quota, is_raised);
            metrics.server.quota_warning.set(guard.is_warned.into());
            if guard.is_warned && !was_warned {
                probe::reached("quota-warned");
                warn!(
                    "retained-bytes" = retained,
                    "quota-bytes" = quota,
                    "the quota is nearly used up: compact, or raise it"
                );
            }
            // Wrong where it is broken: the alarm stands for ever.
            if !is_over || probe::broken("quota-alarm-stays") {
                continue;
            }
            let (action, alarm) = (AlarmAction::Deactivate.into(), AlarmType::Nospace.into());
            let disarm = command::Kind::Alarm(AlarmRequest { action, member_id, alarm });
            match gateway.propose(Some(cluster_itself()), disarm).await {
                Ok(_) => {
                    probe::reached("quota-alarm-disarmed");
                    info!(
                        "retained-bytes" = retained,
                        "quota-bytes" = quota,
                        "disarmed the alarm NOSPACE: there is room again"
                    );
                }
                // Nothing was lost: the next look tries again.
                Err(error) => warn!(%error, "failed to disarm the alarm NOSPACE"),
            }
        }
    })
}

/// What the guard remembers from one look to the next.
#[derive(Debug, Default)]
struct Guard {
    is_warned: bool,
    /// Since when there has been room under an alarm.
    relieved_since: Option<Instant>,
}

impl Guard {
    /// Takes a look into account; whether the alarm is to be disarmed.
    fn look(&mut self, now: Instant, retained: u64, quota: u64, is_raised: bool) -> bool {
        let percent = u128::from(retained) * 100;
        self.is_warned = percent >= u128::from(quota) * u128::from(WARNING);
        let is_relieved = is_raised && percent < u128::from(quota) * u128::from(RELIEVED);
        self.relieved_since = is_relieved.then(|| self.relieved_since.unwrap_or(now));
        self.relieved_since.is_some_and(|since| now.duration_since(since) >= LASTING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(of: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(clock::now) + Duration::from_secs(of)
    }

    #[test]
    fn the_warning_follows_the_data() {
        let mut guard = Guard::default();
        for (retained, is_warned) in [(0, false), (799, false), (800, true), (2_000, true), (799, false)] {
            guard.look(second(0), retained, 1_000, false);
            assert_eq!(guard.is_warned, is_warned, "{retained}");
        }
    }

    #[test]
    fn an_alarm_is_disarmed_after_30_seconds_below_90_percent() {
        let mut guard = Guard::default();
        assert!(!guard.look(second(0), 899, 1_000, true));
        assert!(!guard.look(second(29), 899, 1_000, true));
        assert!(guard.look(second(30), 899, 1_000, true));
        assert!(guard.look(second(31), 899, 1_000, true), "again, where it did not succeed");
        assert!(!guard.look(second(32), 899, 1_000, false), "it was disarmed");
        assert!(!guard.look(second(40), 899, 1_000, true), "another one begins anew");
    }

    #[test]
    fn data_that_grows_again_begins_anew() {
        let mut guard = Guard::default();
        guard.look(second(0), 0, 1_000, true);
        assert!(!guard.look(second(20), 900, 1_000, true));
        assert!(!guard.look(second(21), 899, 1_000, true));
        assert!(!guard.look(second(50), 899, 1_000, true));
        assert!(guard.look(second(51), 899, 1_000, true));
    }
}
