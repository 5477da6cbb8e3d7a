//! The state as a list of everything that was ever written, and commands as loops over it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::compare::TargetUnion;
use mainstay_proto::etcdserverpb::{
    AlarmMember, AlarmResponse, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseCheckpointResponse, LeaseGrantResponse, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op, response_op,
};
use mainstay_proto::mainstay::MemberAttributes;

use crate::command::{Outcome, Refusal, command, outcome};
use crate::limits::LEASE_TTL_MAX;
use crate::mvcc::KeyValue;

/// A key's record from a revision on, or its absence.
#[derive(Clone, Debug)]
struct Written {
    revision: i64,
    key: Bytes,
    record: Option<KeyValue>,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    history: Vec<Written>,
    /// Granted and remaining time to live.
    pub(super) leases: BTreeMap<i64, (i64, i64)>,
    pub(super) alarms: BTreeSet<(i32, u64)>,
    pub(super) members: BTreeMap<u64, MemberAttributes>,
}

type Live = BTreeMap<Bytes, KeyValue>;

impl Model {
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            history: Vec::new(),
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            members: BTreeMap::new(),
        }
    }

    /// The live keys at a revision.
    pub(super) fn at(&self, revision: i64) -> Live {
        let mut live = Live::new();
        for written in self.history.iter().filter(|written| written.revision <= revision) {
            match &written.record {
                Some(record) => live.insert(written.key.clone(), record.clone()),
                None => live.remove(&written.key),
            };
        }
        live
    }

    /// The events as `+key` and `-key` of a revision, in order.
    pub(super) fn events(&self, revision: i64) -> Vec<(Bytes, bool)> {
        let of_revision = self.history.iter().filter(|written| written.revision == revision);
        of_revision.map(|written| (written.key.clone(), written.record.is_some())).collect()
    }

    /// The keys that a lease takes along.
    pub(super) fn attached(&self, lease: i64) -> Vec<Bytes> {
        self.at(self.revision).into_values().filter(|kv| kv.lease == lease).map(|kv| kv.key).collect()
    }

    /// A command works on a copy, which is thrown away where it is refused.
    pub(super) fn apply(&mut self, command: &command::Kind) -> Outcome {
        let mut next = Run { begin: self.revision, model: self.clone() };
        let (refusal, reply) = match next.command(command) {
            Ok(reply) => {
                *self = next.model;
                (Refusal::None, reply)
            }
            Err(refusal) => (refusal, None),
        };
        Outcome { revision: self.revision, refusal: refusal.into(), reply }
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let revision = if request.revision <= 0 { self.revision } else { request.revision };
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let mut kvs: Vec<_> = self.at(revision).into_values().filter(|kv| range.contains(&kv.key)).collect();
        let count = kvs.len() as i64;
        let header = Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() });
        if request.count_only {
            return Ok(RangeResponse { header, kvs: Vec::new(), more: false, count });
        }
        let filters = [
            (request.min_mod_revision, request.max_mod_revision, (|kv| kv.mod_revision) as fn(&KeyValue) -> i64),
            (request.min_create_revision, request.max_create_revision, |kv| kv.create_revision),
        ];
        let filtered = filters.iter().any(|(min, max, _)| *min != 0 || *max != 0);
        for (min, max, revision) in filters {
            kvs.retain(|kv| (min == 0 || revision(kv) >= min) && (max == 0 || revision(kv) <= max));
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        // The quirk: without an explicit order only limit + 1 keys are looked at.
        if let (0, false, Some(limit)) = (request.sort_order, filtered, limit) {
            kvs.truncate(limit + 1);
        }
        let compare = |a: &KeyValue, b: &KeyValue| match request.sort_target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            4 => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        };
        kvs.sort_by(|a, b| if request.sort_order == 2 { compare(b, a) } else { compare(a, b) });
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                kv.lease = if request.sort_target == 4 { kv.lease } else { 0 };
            }
        }
        Ok(RangeResponse { header, kvs, more, count })
    }

    pub(super) fn holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
        let kvs: Vec<_> = self.at(self.revision).into_values().filter(|kv| range.contains(&kv.key)).collect();
        if kvs.is_empty() {
            return compare.target != 3 && holds_for(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| holds_for(compare, kv))
    }
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let number = match (compare.target, &compare.target_union) {
        (0, Some(TargetUnion::Version(n)))
        | (1, Some(TargetUnion::CreateRevision(n)))
        | (2, Some(TargetUnion::ModRevision(n)))
        | (4, Some(TargetUnion::Lease(n))) => *n,
        _ => 0,
    };
    let found = match compare.target {
        0 => kv.version.cmp(&number),
        1 => kv.create_revision.cmp(&number),
        2 => kv.mod_revision.cmp(&number),
        3 => match &compare.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.cmp(&Bytes::new()),
        },
        4 => kv.lease.cmp(&number),
        _ => Ordering::Equal,
    };
    match compare.result {
        0 => found == Ordering::Equal,
        1 => found == Ordering::Greater,
        2 => found == Ordering::Less,
        3 => found != Ordering::Equal,
        _ => true,
    }
}

/// A command under way: what it wrote so far has the revision after the one that it began at.
struct Run {
    begin: i64,
    model: Model,
}

/// Every put of a transaction, in whatever branch.
fn puts(request: &TxnRequest) -> Vec<&PutRequest> {
    let puts = request.success.iter().chain(&request.failure).flat_map(|op| match &op.request {
        Some(request_op::Request::RequestPut(put)) => vec![put],
        Some(request_op::Request::RequestTxn(nested)) => puts(nested),
        _ => Vec::new(),
    });
    puts.collect()
}

impl Run {
    /// Whether a put needs more space than what it replaces.
    fn grows(&self, request: &PutRequest) -> bool {
        let live = self.model.at(self.model.revision);
        request.ignore_value || live.get(&request.key).is_none_or(|kv| kv.value.len() <= request.value.len())
    }

    fn command(&mut self, command: &command::Kind) -> Result<Option<outcome::Reply>, Refusal> {
        use command::Kind;
        let corrupt = self.model.alarms.iter().any(|(kind, _)| *kind == 2);
        let no_space = self.model.alarms.iter().any(|(kind, _)| *kind == 1);
        let harmless = matches!(
            command,
            Kind::Alarm(_) | Kind::Downgrade(_) | Kind::MemberAttributes(_) | Kind::LeaseCheckpoint(_)
        );
        if corrupt && !harmless {
            return Err(Refusal::Corrupt);
        }
        let grows = match command {
            Kind::Put(request) => self.grows(request),
            Kind::Txn(request) => puts(request).into_iter().any(|put| self.grows(put)),
            Kind::LeaseGrant(_) => true,
            _ => false,
        };
        if no_space && grows {
            return Err(Refusal::NoSpace);
        }
        Ok(Some(match command {
            Kind::Put(request) => outcome::Reply::Put(self.put(request)?),
            Kind::DeleteRange(request) => outcome::Reply::DeleteRange(self.delete_range(request)),
            Kind::Txn(request) => {
                let before = self.model.clone();
                outcome::Reply::Txn(self.txn(&before, request)?)
            }
            Kind::Compaction(request) => {
                if request.revision > self.model.revision {
                    return Err(Refusal::FutureRevision);
                }
                if request.revision <= self.model.compacted {
                    return Err(Refusal::Compacted);
                }
                self.model.compacted = request.revision;
                outcome::Reply::Compaction(CompactionResponse { header: None })
            }
            Kind::LeaseGrant(request) => {
                if request.id == 0 {
                    return Err(Refusal::LeaseNotFound);
                }
                if request.ttl > LEASE_TTL_MAX {
                    return Err(Refusal::LeaseTtlTooLarge);
                }
                if self.model.leases.contains_key(&request.id) {
                    return Err(Refusal::LeaseExists);
                }
                self.model.leases.insert(request.id, (request.ttl, 0));
                let (id, ttl) = (request.id, request.ttl);
                outcome::Reply::LeaseGrant(LeaseGrantResponse { header: None, id, ttl, error: String::new() })
            }
            Kind::LeaseRevoke(request) => {
                let attached = self.model.attached(request.id);
                self.model.leases.remove(&request.id).ok_or(Refusal::LeaseNotFound)?;
                for key in attached {
                    self.write(key, None);
                }
                outcome::Reply::LeaseRevoke(LeaseRevokeResponse { header: None })
            }
            Kind::LeaseCheckpoint(request) => {
                for checkpoint in &request.checkpoints {
                    if let Some((_, remaining)) = self.model.leases.get_mut(&checkpoint.id) {
                        *remaining = checkpoint.remaining_ttl.max(0);
                    }
                }
                outcome::Reply::LeaseCheckpoint(LeaseCheckpointResponse { header: None })
            }
            Kind::Alarm(request) => {
                let alarm = (request.alarm, request.member_id);
                let alarms = match (request.action, request.alarm) {
                    (0, 0) => self.model.alarms.iter().copied().collect(),
                    (0, kind) => self.model.alarms.iter().copied().filter(|alarm| alarm.0 == kind).collect(),
                    (1, 1..) => {
                        self.model.alarms.insert(alarm);
                        vec![alarm]
                    }
                    (2, _) if self.model.alarms.remove(&alarm) => vec![alarm],
                    _ => Vec::new(),
                };
                let alarms = alarms.into_iter().map(|(alarm, member_id)| AlarmMember { member_id, alarm }).collect();
                outcome::Reply::Alarm(AlarmResponse { header: None, alarms })
            }
            Kind::Downgrade(_) => return Ok(None),
            Kind::MemberAttributes(attributes) => {
                self.model.members.insert(attributes.id, attributes.clone());
                return Ok(None);
            }
            // Authentication is off in these tests; `tests::auth` has it on.
            other => panic!("not modelled: {other:?}"),
        }))
    }

    fn write(&mut self, key: Bytes, record: Option<KeyValue>) {
        self.model.revision = self.begin + 1;
        self.model.history.push(Written { revision: self.begin + 1, key, record });
    }

    fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        if request.lease != 0 && !self.model.leases.contains_key(&request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let before = self.model.at(self.model.revision).remove(&request.key);
        if request.key.is_empty() || ((request.ignore_value || request.ignore_lease) && before.is_none()) {
            return Err(Refusal::KeyNotFound);
        }
        let mut record = before.clone().unwrap_or_default();
        record.key = request.key.clone();
        record.mod_revision = self.begin + 1;
        record.version += 1;
        if before.is_none() {
            record.create_revision = self.begin + 1;
        }
        if !request.ignore_value {
            record.value = request.value.clone();
        }
        if !request.ignore_lease {
            record.lease = request.lease;
        }
        self.write(request.key.clone(), Some(record));
        Ok(PutResponse { header: None, prev_kv: before.filter(|_| request.prev_kv) })
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let live = self.model.at(self.model.revision);
        let deleted: Vec<_> = live.into_values().filter(|kv| range.contains(&kv.key)).collect();
        for kv in &deleted {
            self.write(kv.key.clone(), None);
        }
        let count = deleted.len() as i64;
        let prev_kvs = if request.prev_kv { deleted } else { Vec::new() };
        DeleteRangeResponse { header: None, deleted: count, prev_kvs }
    }

    fn txn(&mut self, before: &Model, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let succeeded = request.compare.iter().all(|compare| before.holds(compare));
        let branch = if succeeded { &request.success } else { &request.failure };
        let mut responses = Vec::new();
        for RequestOp { request } in branch {
            let response = match request {
                None => None,
                Some(request_op::Request::RequestRange(request)) => {
                    if request.revision != 0 && request.revision < self.model.compacted {
                        return Err(Refusal::Compacted);
                    }
                    if request.revision > self.begin {
                        return Err(Refusal::FutureRevision);
                    }
                    Some(response_op::Response::ResponseRange(self.model.range(request)?))
                }
                Some(request_op::Request::RequestPut(request)) => {
                    let mut response = self.put(request)?;
                    response.header = self.header();
                    Some(response_op::Response::ResponsePut(response))
                }
                Some(request_op::Request::RequestDeleteRange(request)) => {
                    let mut response = self.delete_range(request);
                    response.header = self.header();
                    Some(response_op::Response::ResponseDeleteRange(response))
                }
                Some(request_op::Request::RequestTxn(request)) => {
                    let mut response = self.txn(before, request)?;
                    response.header = Some(ResponseHeader::default());
                    Some(response_op::Response::ResponseTxn(response))
                }
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.model.revision, ..ResponseHeader::default() })
    }
}
