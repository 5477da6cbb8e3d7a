//! The differences that are allowed, one function each; ALLOWED.md beside this page says why.
//!
//! Each takes out of an answer what etcd leaves open, or refuses what is not even plausible: then the
//! answer stays as it is and the comparison finds it.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use mainstay_tests::schema::{self, for_each_message, int};

use crate::symbols::{Symbol, each_value};

/// How a call was answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// gRPC's status; `None` where the server broke the call.
    pub(crate) code: Option<u32>,
    pub(crate) text: String,
    pub(crate) messages: Vec<DynamicMessage>,
}

/// What one server has chosen for itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    /// The ids of leases that it picked, in order.
    pub(crate) leases: Vec<i64>,
    /// Where it listens, for clients and for peers.
    pub(crate) urls: Vec<String>,
}

/// What a run takes at most; a lease's remaining time may be so much less than what was granted.
const RUN_SECONDS_MAX: i64 = 300;

/// Takes out of an answer to a request whatever may differ.
pub(crate) fn take_out(method: &str, request: &DynamicMessage, choices: &Choices, answer: &mut Answer) {
    for message in &mut answer.messages {
        identities(choices, message);
        picked_leases(choices, message);
        match method {
            "Lease.LeaseLeases" => leases_by_end(message),
            "Lease.LeaseTimeToLive" => {
                remaining_time(message);
                keys_of_lease(message);
            }
            "Maintenance.Status" => {
                physical_state(message);
                alarms(choices, message, "errors");
            }
            "Maintenance.Alarm" => alarms(choices, message, "alarms"),
            "Maintenance.Hash" => whole_hash(message),
            "Auth.Authenticate" => tokens(message),
            "KV.Range" => ties(request, message),
            "KV.Txn" => ties_of_txn(request, message),
            _ if method.starts_with("Cluster.") => urls(choices, message),
            _ => {}
        }
    }
    if method == "Maintenance.Snapshot" {
        snapshot(&mut answer.messages);
    }
}

/// Ids of cluster and member, and the term.
fn identities(choices: &Choices, message: &mut DynamicMessage) {
    for_each_message(message, &mut |inner| {
        let same = |id| if id == choices.member { 1 } else { id };
        match inner.descriptor().name() {
            "ResponseHeader" => {
                replace(inner, "cluster_id", |id| if id == choices.cluster { 1 } else { id });
                replace(inner, "member_id", same);
                replace(inner, "raft_term", |term| term.min(1));
            }
            "StatusResponse" => replace(inner, "leader", same),
            "Member" => replace(inner, "ID", same),
            "AlarmMember" => replace(inner, "memberID", same),
            _ => {}
        }
    });
}

fn replace(message: &mut DynamicMessage, field: &str, change: impl Fn(u64) -> u64) {
    let old = message.get_field_by_name(field).and_then(|value| value.as_u64()).unwrap_or(0);
    message.set_field_by_name(field, Value::U64(change(old)));
}

/// Ids of leases that the server picked, also in events.
pub(crate) fn picked_leases(choices: &Choices, message: &mut DynamicMessage) {
    each_value(message, &mut |value| {
        let Value::I64(number) = value else { return };
        if let Some(place) = choices.leases.iter().position(|lease| lease == number) {
            *number = Symbol::Lease(i64::try_from(place).expect("a run has few leases")).number();
        }
    });
}

/// What is left of a lease.
fn remaining_time(message: &mut DynamicMessage) {
    let (left, granted) = (int(message, "TTL"), int(message, "grantedTTL"));
    if left <= granted && left > granted - RUN_SECONDS_MAX && left >= 0 {
        message.set_field_by_name("TTL", Value::I64(granted));
    }
}

/// All leases, in the order in which they end: milliseconds apart where they were granted or renewed one right
/// after the other, at either server.
fn leases_by_end(message: &mut DynamicMessage) {
    if let Some(Value::List(leases)) = message.get_field_by_name_mut("leases") {
        leases.sort_by_key(|lease| format!("{lease:?}"));
    }
}

/// The keys of a lease, in the order of a map.
fn keys_of_lease(message: &mut DynamicMessage) {
    if let Some(Value::List(keys)) = message.get_field_by_name_mut("keys") {
        keys.sort_by_key(|key| key.as_bytes().cloned());
    }
}

/// Sizes of files, places in the log, and the version of the format of a store that has just begun.
fn physical_state(message: &mut DynamicMessage) {
    // etcd names none until its first commit is on disk, and 3.5.0 until the members have agreed on a version.
    let just_begun = ["", "3.5.0"].map(Some);
    if message.get_field_by_name("storageVersion").is_some_and(|version| just_begun.contains(&version.as_str())) {
        message.set_field_by_name("storageVersion", Value::String("3.7.0".to_owned()));
    }
    message.set_field_by_name("dbSize", Value::I64(int(message, "dbSize").min(1)));
    message.clear_field_by_name("dbSizeInUse");
    for place in ["raftIndex", "raftTerm", "raftAppliedIndex"] {
        replace(message, place, |place| place.min(1));
    }
}

/// Alarms come in any order, and as texts with one space or two.
fn alarms(choices: &Choices, message: &mut DynamicMessage, field: &str) {
    let Some(Value::List(alarms)) = message.get_field_by_name_mut(field) else { return };
    for alarm in &mut *alarms {
        if let Value::String(text) = alarm {
            *text = text.replace("  ", " ").replace(&format!("memberID:{} ", choices.member), "memberID:1 ");
        }
    }
    alarms.sort_by_key(|alarm| format!("{alarm:?}"));
}

/// The hash over everything that is stored, bytes of the format included.
fn whole_hash(message: &mut DynamicMessage) {
    message.clear_field_by_name("hash");
}

/// Tokens are random.
fn tokens(message: &mut DynamicMessage) {
    let given = message.get_field_by_name("token").is_some_and(|token| token.as_str() != Some(""));
    message.set_field_by_name("token", Value::String(if given { "given" } else { "" }.to_owned()));
}

/// Where members listen.
fn urls(choices: &Choices, message: &mut DynamicMessage) {
    each_value(message, &mut |value| {
        let Value::String(text) = value else { return };
        if let Some(place) = choices.urls.iter().position(|url| url == text) {
            *text = format!("url {place}");
        }
    });
}

/// Keys that are equal in what the request sorts by.
fn ties(request: &DynamicMessage, response: &mut DynamicMessage) {
    let field = match request.get_field_by_name("sort_target").and_then(|target| target.as_enum_number()) {
        Some(1) => "version",
        Some(2) => "create_revision",
        Some(3) => "mod_revision",
        Some(4) => "value",
        _ => return,
    };
    let cut = schema::flag(response, "more");
    let Some(Value::List(kvs)) = response.get_field_by_name_mut("kvs") else { return };
    let sorted_by = |kv: &Value| kv.as_message().map(|kv| (schema::bytes(kv, field), int(kv, field)));
    let last = kvs.last().and_then(sorted_by);
    for run in kvs.chunk_by_mut(|one, other| sorted_by(one) == sorted_by(other)) {
        run.sort_by_key(|kv| kv.as_message().map(|kv| schema::bytes(kv, "key")));
        // Which of the equal ones are behind the limit is open, too.
        if cut && run.last().and_then(sorted_by) == last {
            run.iter_mut().for_each(|kv| keep_only(kv, field));
        }
    }
}

/// The same in the ranges of a transaction.
fn ties_of_txn(request: &DynamicMessage, response: &mut DynamicMessage) {
    let branch = if schema::flag(response, "succeeded") { "success" } else { "failure" };
    let operations = schema::list(request, branch);
    let Some(Value::List(responses)) = response.get_field_by_name_mut("responses") else { return };
    for (operation, response) in operations.iter().zip(responses) {
        let Value::Message(response) = response else { continue };
        for (asked, answered) in [("request_range", "response_range"), ("request_txn", "response_txn")] {
            let (Some(request), true) = (schema::inner(operation, asked), response.has_field_by_name(answered)) else {
                continue;
            };
            let Some(Value::Message(response)) = response.get_field_by_name_mut(answered) else { continue };
            match asked {
                "request_range" => ties(&request, response),
                _ => ties_of_txn(&request, response),
            }
        }
    }
}

fn keep_only(kv: &mut Value, field: &str) {
    let Value::Message(kv) = kv else { return };
    let others: Vec<_> = kv.descriptor().fields().filter(|other| other.name() != field).collect();
    for other in others {
        kv.clear_field(&other);
    }
}

/// The bytes of a snapshot: each server has its own layout of pages.
fn snapshot(messages: &mut Vec<DynamicMessage>) {
    for message in &mut *messages {
        message.clear_field_by_name("remaining_bytes");
        message.set_field_by_name("blob", Value::Bytes(Bytes::new()));
    }
    messages.dedup();
}

/// Whether answers to a request for progress are compared. A watch that a compaction has ended stops them in
/// etcd until the client cancels it, although it was told that it has ended.
pub(crate) fn progress_of_stream(has_compacted_watch: bool) -> bool {
    !has_compacted_watch
}

/// Whether a difference may go away by itself: a hash while history is being removed in the background.
pub(crate) fn may_settle(method: &str, compacting: bool) -> bool {
    method == "Maintenance.HashKV" && compacting
}

/// The events of one watch, whatever responses brought them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) events: Vec<DynamicMessage>,
    /// The last response said that more of it follows.
    unfinished: bool,
}

/// The revision of an event.
pub(crate) fn revision_of(event: &DynamicMessage) -> i64 {
    schema::inner(event, "kv").map_or(0, |kv| int(&kv, "mod_revision"))
}

/// Takes the events out of a response to a watch: how events are put into responses is open, and so is
/// the revision in the header, which is at least that of the last event. Says what is wrong with it.
pub(crate) fn batching(response: &DynamicMessage, watch: &mut Gathered) -> Result<(), String> {
    let mut last = watch.events.last().map_or(0, revision_of);
    let mut same = watch.unfinished;
    for event in schema::list(response, "events") {
        let revision = revision_of(&event);
        if revision < last || revision == last && !same {
            return Err(format!("an event of revision {revision} in a response after one of revision {last}"));
        }
        (last, same) = (revision, true);
        watch.events.push(event);
    }
    watch.unfinished = schema::flag(response, "fragment");
    let header = schema::inner(response, "header").map_or(0, |header| int(&header, "revision"));
    if header < last {
        return Err(format!("the header is of revision {header}, an event of {last}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> DynamicMessage {
        DynamicMessage::parse_text_format(schema::message(&format!("etcdserverpb.{name}")), text).unwrap()
    }

    fn choices() -> Choices {
        Choices { cluster: 77, member: 88, leases: vec![990, 991], urls: vec!["http://x:1".to_owned()] }
    }

    fn taken_out(method: &str, request: DynamicMessage, response: DynamicMessage) -> String {
        let mut answer = Answer { code: Some(0), text: String::new(), messages: vec![response] };
        take_out(method, &request, &choices(), &mut answer);
        answer.messages[0].to_text_format()
    }

    #[test]
    fn only_the_own_identity_is_taken_out() {
        let put = |text| taken_out("KV.Put", parse("PutRequest", ""), parse("PutResponse", text));
        let own = put("header { cluster_id: 77 member_id: 88 revision: 5 raft_term: 9 }");
        assert_eq!(own, "header{cluster_id:1,member_id:1,revision:5,raft_term:1}");
        let foreign = put("header { cluster_id: 1077 member_id: 0 revision: 5 }");
        assert_eq!(foreign, "header{cluster_id:1077,revision:5}");
    }

    #[test]
    fn picked_leases_are_numbered() {
        let kept = taken_out("KV.Put", parse("PutRequest", ""), parse("PutResponse", "prev_kv { lease: 991 }"));
        assert_eq!(crate::symbols::with_names(&kept), "prev_kv{lease:@lease+1}");
    }

    #[test]
    fn the_time_that_is_left_has_to_be_plausible() {
        let left = |text| {
            taken_out(
                "Lease.LeaseTimeToLive",
                parse("LeaseTimeToLiveRequest", ""),
                parse("LeaseTimeToLiveResponse", text),
            )
        };
        assert_eq!(left("TTL: 590 grantedTTL: 600"), "TTL:600,grantedTTL:600");
        assert_eq!(left("TTL: 601 grantedTTL: 600"), "TTL:601,grantedTTL:600");
        assert_eq!(left("TTL: 5 grantedTTL: 600"), "TTL:5,grantedTTL:600");
        assert_eq!(left("TTL: -1"), "TTL:-1");
    }

    #[test]
    fn ties_are_brought_into_order() {
        let request = parse("RangeRequest", "sort_target: VERSION");
        let kvs = |text| taken_out("KV.Range", request.clone(), parse("RangeResponse", text));
        let all = kvs("kvs { key: 'b' version: 1 } kvs { key: 'a' version: 1 } kvs { key: 'c' version: 2 }");
        assert_eq!(all, r#"kvs:[{key:"a",version:1},{key:"b",version:1},{key:"c",version:2}]"#);
        let cut = kvs("kvs { key: 'a' version: 1 } kvs { key: 'c' version: 2 } kvs { key: 'b' version: 2 } more: true");
        assert_eq!(cut, r#"kvs:[{key:"a",version:1},{version:2},{version:2}],more:true"#);
        let request = parse("RangeRequest", "sort_target: KEY");
        let by_key = taken_out("KV.Range", request, parse("RangeResponse", "kvs { key: 'b' } kvs { key: 'a' }"));
        assert_eq!(by_key, r#"kvs:[{key:"b"},{key:"a"}]"#);
    }

    #[test]
    fn events_are_gathered_and_their_order_is_checked() {
        let mut watch = Gathered::default();
        let mut take = |text: &str| batching(&parse("WatchResponse", text), &mut watch);
        let event = |revision| format!("events {{ kv {{ key: 'a' mod_revision: {revision} }} }}");
        assert_eq!(take(&format!("header {{ revision: 3 }} {} {}", event(2), event(3))), Ok(()));
        assert_eq!(take(&format!("header {{ revision: 4 }} {} {}", event(4), event(4))), Ok(()));
        assert!(take(&format!("header {{ revision: 4 }} {}", event(4))).unwrap_err().contains("after one of"));
        assert!(take(&format!("header {{ revision: 5 }} {}", event(3))).unwrap_err().contains("after one of"));
        assert!(take(&format!("header {{ revision: 5 }} {}", event(6))).unwrap_err().contains("the header"));
        let piece = |last: bool| format!("header {{ revision: 9 }} {} fragment: {}", event(9), !last);
        assert_eq!([take(&piece(false)), take(&piece(false)), take(&piece(true))], [Ok(()), Ok(()), Ok(())]);
        assert!(take(&piece(true)).is_err());
    }
}
