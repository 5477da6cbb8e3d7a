//! What is not about keys: alarms, state, members, health.

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, HashRequest, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, StatusRequest,
};
use mainstay_proto::health::HealthCheckRequest;

use super::Planner;
use crate::step::Step;
use crate::symbols::Symbol;

impl Planner {
    /// An alarm stops most of what others do, so most of these take it back.
    pub(super) fn alarm(&mut self, client: usize) -> Step {
        // An action that etcd does not know ends it: it looks into an answer that is not there.
        let action = *self.dice.pick(&[0, 0, 1, 2, 2, 2, 2, 2]);
        let mut member_id = *self.dice.pick(&[0, 0, Symbol::Member.number().cast_unsigned(), 7]);
        let alarm = if action == 0 { self.dice.between(0, 3) } else { self.dice.between(0, 2) };
        let alarm = i32::try_from(alarm).expect("it is small");
        if alarm == i32::from(AlarmType::Corrupt) && action == i32::from(AlarmAction::Activate) {
            // A member that is named is out of service here.
            member_id = member_id.min(7);
        }
        if alarm == i32::from(AlarmType::Nospace) {
            if action == i32::from(AlarmAction::Activate) {
                self.full_members.insert(member_id);
            } else if action == i32::from(AlarmAction::Deactivate) && !self.mix.has_auth {
                // With authentication this may be refused.
                self.full_members.remove(&member_id);
            }
        }
        Step::call(client, "Maintenance.Alarm", &AlarmRequest { action, member_id, alarm })
    }

    pub(super) fn status(&mut self, client: usize) -> Step {
        if self.dice.chance(20) {
            return Step::call(client, "Maintenance.Hash", &HashRequest {});
        }
        Step::call(client, "Maintenance.Status", &StatusRequest {})
    }

    /// Reads of the cluster, and changes of members that are not there.
    pub(super) fn members(&mut self, client: usize) -> Step {
        let id = u64::try_from(self.dice.between(0, 5)).expect("it is not negative");
        match self.dice.below(8) {
            0 => Step::call(client, "Cluster.MemberRemove", &MemberRemoveRequest { id }),
            1 => Step::call(client, "Cluster.MemberPromote", &MemberPromoteRequest { id }),
            2 => {
                let peer_ur_ls = vec![(*self.dice.pick(&["http://127.0.0.1:1", "not a URL", ""])).to_owned()];
                Step::call(client, "Cluster.MemberUpdate", &MemberUpdateRequest { id, peer_ur_ls })
            }
            _ => Step::call(client, "Cluster.MemberList", &MemberListRequest { linearizable: self.dice.chance(50) }),
        }
    }

    pub(super) fn defragment(&mut self, client: usize) -> Step {
        Step::call(client, "Maintenance.Defragment", &DefragmentRequest {})
    }

    pub(super) fn health(&mut self, client: usize) -> Step {
        let service = (*self.dice.pick(&["", "", "etcdserverpb.KV", "x"])).to_owned();
        Step::call(client, "Health.Check", &HealthCheckRequest { service })
    }
}
