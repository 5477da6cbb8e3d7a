//! A member whose data differs from the others' does not serve it.
//!
//! The alarm CORRUPT names it. Requests are held against the alarm where they come in; streams that are open when it
//! is raised are ended, and the member hands the leadership over and stands for no election. What an operator needs
//! to see and to repair the cluster (alarms, members, status) is served.
//!
//! One that differs as it starts is out of service before it has served anybody, until the alarm names it.

use std::future::{self, Future};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_proto::etcdserverpb::AlarmType;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::rpc::Rpc;
use crate::apply::AlarmView;
use crate::env::{clock, probe};
use crate::raft::{Gateway, Leadership};

/// How often the alarms are looked at for streams and the leadership.
const INTERVAL: Duration = Duration::from_millis(100);
/// So long without a leader, such a member stands for election after all, to hand over to whoever is in service: it
/// may be the only one that has every entry.
const LEADERLESS: Duration = Duration::from_secs(5);

/// Whether this member is out of service.
#[derive(Clone)]
pub struct OutOfService {
    own: u64,
    alarms: AlarmView,
    /// It was found before the alarm says so.
    differs: Arc<AtomicBool>,
    ended: watch::Receiver<bool>,
}

impl OutOfService {
    /// Begins to look at the alarms. The task ends by itself once nobody holds a handle any more.
    pub fn spawn(alarms: AlarmView, gateway: Gateway, leadership: Leadership) -> (Self, JoinHandle<()>) {
        let own = gateway.status().member_id;
        let (ends, ended) = watch::channel(false);
        let differs = Arc::new(AtomicBool::new(false));
        let this = Self { own, alarms: alarms.clone(), differs: differs.clone(), ended };
        let task = tokio::spawn(async move {
            let mut led_at = clock::now();
            while !ends.is_closed() {
                clock::sleep(INTERVAL).await;
                if is_corrupt(&alarms, own) {
                    // From here on it is the alarm that decides, which an operator can lift.
                    differs.store(false, Ordering::Release);
                }
                let is_out = is_out(&alarms, own, &differs);
                if ends.send_if_modified(|was| std::mem::replace(was, is_out) != is_out) {
                    tracing::warn!(is_out, "the alarm CORRUPT decides whether this member serves");
                }
                if gateway.status().leader.is_some() {
                    led_at = clock::now();
                }
                leadership.stand_for_election(!is_out || clock::now() - led_at > LEADERLESS);
                if is_out && leadership.view().leads {
                    hand_over(&alarms, &leadership).await;
                }
            }
        });
        (this, task)
    }

    /// This member differs, which the alarm will say: it is out of service from now on.
    pub fn begin(&self) {
        self.differs.store(true, Ordering::Release);
    }

    /// Whether this method is not served now.
    pub(super) fn refuses(&self, rpc: &Rpc) -> bool {
        // In this order, as each request is looked at: there is hardly ever an alarm.
        is_out(&self.alarms, self.own, &self.differs) && concerns_data(rpc)
    }

    /// Resolves when this member gets out of service; never where that does not concern the method.
    pub(super) fn begun(&self, rpc: &Rpc) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        let concerned = concerns_data(rpc);
        async move {
            if !concerned || ended.wait_for(|is_out| *is_out).await.is_err() {
                future::pending::<()>().await;
            }
        }
    }
}

/// Of the two, `differs` is looked at first: once it is taken back the alarm is there.
fn is_out(alarms: &AlarmView, member: u64, differs: &AtomicBool) -> bool {
    let is_out = differs.load(Ordering::Acquire) || is_corrupt(alarms, member);
    // Wrong where it is broken: who is named serves what it has.
    is_out && !probe::broken("corrupt-member-goes-on")
}

fn is_corrupt(alarms: &AlarmView, member: u64) -> bool {
    alarms.is_raised_by(member, AlarmType::Corrupt)
}

/// Asks a voter that is in service to lead, where one can.
async fn hand_over(alarms: &AlarmView, leadership: &Leadership) {
    let Some(heir) = leadership.heir(|id| !is_corrupt(alarms, id)) else { return };
    if let Err(error) = leadership.transfer(heir).await {
        tracing::warn!(%error, "the leadership is not handed over yet");
    }
}

/// Whether what a method tells or does depends on the data.
fn concerns_data(rpc: &Rpc) -> bool {
    let services =
        ["etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "v3lockpb.Lock", "v3electionpb.Election"];
    services.contains(&rpc.service) || rpc.method == "Snapshot"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RPCS;

    #[test]
    fn what_does_not_depend_on_the_data_is_served() {
        let served: Vec<&str> = RPCS.iter().filter(|rpc| !concerns_data(rpc)).map(|rpc| rpc.service).collect();
        for service in ["Cluster", "Maintenance", "Auth"] {
            assert!(served.contains(&format!("etcdserverpb.{service}").as_str()), "{service}");
        }
        assert!(served.contains(&"grpc.health.v1.Health"));
        let refused: Vec<&str> = RPCS.iter().filter(|rpc| concerns_data(rpc)).map(|rpc| rpc.method).collect();
        for method in ["Range", "RangeStream", "Put", "Watch", "LeaseGrant", "Lock", "Campaign", "Snapshot"] {
            assert!(refused.contains(&method), "{method}");
        }
        assert!(!refused.contains(&"Alarm") && !refused.contains(&"HashKV"));
    }
}
