use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};
use prost::Message;

use super::dispatch::done;
use super::{MemberView, OpenError, State, growth};
use crate::command::{Outcome, Refusal, command, outcome};
use crate::engine::layout::meta;
use crate::engine::{Engine, EngineError, Family};
use crate::env::probe;

/// The alarms that are raised.
#[derive(Default)]
pub(super) struct Alarms {
    /// Ordered by kind, then by member.
    raised: Arc<ArcSwap<Vec<AlarmMember>>>,
}

/// A read handle to the alarms that are raised.
#[derive(Clone, Debug)]
pub struct AlarmView {
    raised: Arc<ArcSwap<Vec<AlarmMember>>>,
}

impl AlarmView {
    /// Every alarm, by kind, then by member.
    pub fn all(&self) -> Vec<AlarmMember> {
        self.raised.load().to_vec()
    }

    /// Whether any member has raised an alarm of this kind.
    pub fn is_raised(&self, kind: AlarmType) -> bool {
        self.raised.load().iter().any(|alarm| alarm.alarm == i32::from(kind))
    }

    /// Whether one member has raised an alarm of this kind.
    pub fn is_raised_by(&self, member_id: u64, kind: AlarmType) -> bool {
        self.raised.load().contains(&AlarmMember { member_id, alarm: kind.into() })
    }

    /// Whom the alarms of a kind name.
    pub fn named(&self, kind: AlarmType) -> BTreeSet<u64> {
        let raised = self.raised.load();
        raised.iter().filter(|alarm| alarm.alarm == i32::from(kind)).map(|alarm| alarm.member_id).collect()
    }
}

impl Alarms {
    pub(super) fn view(&self) -> AlarmView {
        AlarmView { raised: self.raised.clone() }
    }

    /// Loads what is stored.
    pub(super) fn load(&mut self, engine: &Arc<dyn Engine>) -> Result<(), OpenError> {
        let stored = engine.get(Family::Meta, meta::ALARMS)?.unwrap_or_default();
        let mut raised = AlarmResponse::decode(stored).map_err(OpenError::Alarms)?.alarms;
        if probe::broken("alarms-forgotten") {
            // Wrong: after a restart or a snapshot this member knows of no alarm.
            raised.clear();
        }
        self.raised.store(Arc::new(raised));
        Ok(())
    }

    fn is_raised(&self, kind: AlarmType) -> bool {
        self.raised.load().iter().any(|alarm| alarm.alarm == i32::from(kind))
    }

    /// Whether what the cluster as a whole holds is in doubt. A member that is named is out of service itself.
    fn is_cluster_corrupt(&self, members: &MemberView) -> bool {
        let is_member = |id: u64| members.get(id).is_some();
        let corrupt = i32::from(AlarmType::Corrupt);
        self.raised.load().iter().any(|alarm| alarm.alarm == corrupt && !is_member(alarm.member_id))
    }
}

/// Why alarms forbid a command.
pub(super) fn refusal(state: &mut State, command: &command::Kind) -> Result<Option<Refusal>, EngineError> {
    use command::Kind;
    let reads_or_writes_data = matches!(
        command,
        Kind::Put(_)
            | Kind::DeleteRange(_)
            | Kind::Txn(_)
            | Kind::Compaction(_)
            | Kind::LeaseGrant(_)
            | Kind::LeaseRevoke(_)
    );
    if reads_or_writes_data && state.alarms.is_cluster_corrupt(&state.members()) {
        return Ok(Some(Refusal::Corrupt));
    }
    if !state.alarms.is_raised(AlarmType::Nospace) {
        return Ok(None);
    }
    let mut txn = state.store.begin();
    let mut value_len = |key: &Bytes| Ok::<_, EngineError>(txn.get(key)?.map(|kv| kv.value.len()));
    let grows = growth::grows(command, &mut value_len)?;
    match (grows, command) {
        (true, _) => probe::reached("write-refused-for-space"),
        (false, Kind::Put(_)) => probe::reached("shrinking-put-under-alarm"),
        (false, _) => {}
    }
    Ok(grows.then_some(Refusal::NoSpace))
}

/// Lists, raises or lifts alarms. An unknown action does nothing; `api` refuses it before proposing.
pub(super) fn apply(state: &mut State, request: &AlarmRequest) -> Outcome {
    let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
    let any = request.alarm == i32::from(AlarmType::None);
    // It was removed since it was found to differ, and its alarm would stand for the whole cluster.
    let is_late = request.alarm == i32::from(AlarmType::Corrupt) && state.members().is_removed(request.member_id);
    let mut raised = state.alarms.raised.load().to_vec();
    let place = raised.binary_search_by_key(&order(&alarm), order);
    let alarms = match (AlarmAction::try_from(request.action), place) {
        (Ok(AlarmAction::Get), _) => {
            raised.retain(|raised| any || raised.alarm == request.alarm);
            raised
        }
        (Ok(AlarmAction::Activate), Err(place)) if !any && !is_late => {
            raised.insert(place, alarm);
            replace(state, raised);
            tracing::warn!(alarm = name(&alarm), "member-id" = format!("{:x}", alarm.member_id), "alarm raised");
            vec![alarm]
        }
        (Ok(AlarmAction::Activate), Ok(_)) => vec![alarm],
        (Ok(AlarmAction::Deactivate), Ok(place)) => {
            raised.remove(place);
            replace(state, raised);
            tell_lifted(&alarm);
            vec![alarm]
        }
        (Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_), _) => Vec::new(),
    };
    done(state, Some(outcome::Reply::Alarm(AlarmResponse { header: None, alarms })))
}

/// Lifts the alarms of members that are no more: they would stand for ever.
pub(super) fn lift_all(state: &mut State, members: &[u64]) {
    let raised = state.alarms.raised.load().to_vec();
    let (lifted, left): (Vec<_>, Vec<_>) = raised.into_iter().partition(|alarm| members.contains(&alarm.member_id));
    if !lifted.is_empty() {
        replace(state, left);
        lifted.iter().for_each(tell_lifted);
    }
}

fn tell_lifted(alarm: &AlarmMember) {
    tracing::info!(alarm = name(alarm), "member-id" = format!("{:x}", alarm.member_id), "alarm disarmed");
}

fn name(alarm: &AlarmMember) -> &'static str {
    alarm.alarm().as_str_name()
}

fn order(alarm: &AlarmMember) -> (i32, u64) {
    (alarm.alarm, alarm.member_id)
}

fn replace(state: &mut State, raised: Vec<AlarmMember>) {
    state.store.batch().put(Family::Meta, meta::ALARMS, encode(&raised));
    state.alarms.raised.store(Arc::new(raised));
}

fn encode(raised: &[AlarmMember]) -> Bytes {
    AlarmResponse { header: None, alarms: raised.to_vec() }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_bytes_are_fixed() {
        let alarms = [
            AlarmMember { member_id: 258, alarm: AlarmType::Nospace.into() },
            AlarmMember { member_id: 3, alarm: AlarmType::Corrupt.into() },
        ];
        let stored = encode(&alarms);
        assert_eq!(stored.as_ref(), b"\x12\x05\x08\x82\x02\x10\x01\x12\x04\x08\x03\x10\x02");
        assert_eq!(AlarmResponse::decode(stored).unwrap().alarms, alarms);
        assert_eq!(encode(&[]).as_ref(), b"");
    }
}
