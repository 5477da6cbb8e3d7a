//! The core against a model that is too simple to be wrong, scripts with their outcomes written out,
//! and the state over restarts.

mod auth;
mod commands;
mod model;
mod persistence;
mod properties;
mod ranges;
mod reads;
mod scripts;
mod written;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::etcdserverpb::{RangeResponse, ResponseHeader, ResponseOp, TxnResponse, response_op};

use super::{OpenError, Origin, State, StateOptions, apply};
use crate::command::{Outcome, command, outcome};
use crate::engine::EngineHome;
use crate::engine::layout;
use crate::engine::mem::MemHome;
use crate::mvcc::KeyValue;

/// A state on an engine of its own.
struct Fixture {
    home: MemHome,
    state: State,
    entries: u64,
}

impl Fixture {
    fn new() -> Self {
        let home = MemHome::new();
        let state = open(&home);
        Self { home, state, entries: 0 }
    }

    fn apply(&mut self, command: &command::Kind) -> Outcome {
        let outcome = apply(&mut self.state, &Origin::default(), command).unwrap();
        self.entries += 1;
        self.state.seal(self.entries);
        outcome
    }

    /// Applies a command and ends the run.
    fn run(&mut self, command: &command::Kind) -> Outcome {
        let outcome = self.apply(command);
        self.state.commit(Bytes::from_static(b"somewhere")).unwrap();
        outcome
    }
}

fn open(home: &MemHome) -> State {
    open_knowing(home, layout::FORMAT).unwrap()
}

/// As a release that knows this format at most.
fn open_knowing(home: &MemHome, newest_format: u32) -> Result<State, OpenError> {
    State::open(home.open().unwrap(), StateOptions { cache_bytes: 1 << 20, newest_format })
}

/// Shows an outcome on one line, or several where a transaction has operations.
fn show(outcome: &Outcome) -> String {
    let mut text = format!("{}:", outcome.revision);
    if outcome.refusal != 0 {
        write!(text, " {:?}", outcome.refusal()).unwrap();
    }
    match &outcome.reply {
        None => {}
        Some(outcome::Reply::Put(put)) => {
            text += " put";
            assert_eq!(put.header, None);
            text += &put.prev_kv.as_ref().map(|kv| format!(" over {}", show_kv(kv))).unwrap_or_default();
        }
        Some(outcome::Reply::DeleteRange(delete)) => {
            assert_eq!(delete.header, None);
            write!(text, " deleted {}{}", delete.deleted, show_kvs(&delete.prev_kvs)).unwrap();
        }
        Some(outcome::Reply::Txn(txn)) => {
            assert_eq!(txn.header, None);
            show_txn(&mut text, txn, 1);
        }
        Some(outcome::Reply::Compaction(_)) => text += " compacted",
        Some(outcome::Reply::LeaseGrant(grant)) => write!(text, " granted {} for {}", grant.id, grant.ttl).unwrap(),
        Some(outcome::Reply::Authenticate(response)) => write!(text, " token {}", response.token).unwrap(),
        Some(outcome::Reply::LeaseRevoke(_)) => text += " revoked",
        Some(outcome::Reply::LeaseCheckpoint(_)) => text += " checkpointed",
        Some(outcome::Reply::Alarm(alarm)) => {
            text += " alarms";
            for alarm in &alarm.alarms {
                write!(text, " {}@{}", alarm.alarm().as_str_name(), alarm.member_id).unwrap();
            }
        }
    }
    text
}

fn show_txn(text: &mut String, txn: &TxnResponse, depth: usize) {
    write!(text, " txn {}", if txn.succeeded { "succeeded" } else { "failed" }).unwrap();
    for ResponseOp { response } in &txn.responses {
        write!(text, "\n{}", "  ".repeat(depth)).unwrap();
        match response {
            None => *text += "nothing",
            Some(response_op::Response::ResponseRange(range)) => *text += &show_range(range),
            Some(response_op::Response::ResponsePut(put)) => {
                *text += &show_header(put.header.as_ref());
                *text += " put";
                *text += &put.prev_kv.as_ref().map(|kv| format!(" over {}", show_kv(kv))).unwrap_or_default();
            }
            Some(response_op::Response::ResponseDeleteRange(delete)) => {
                let header = show_header(delete.header.as_ref());
                write!(text, "{header} deleted {}{}", delete.deleted, show_kvs(&delete.prev_kvs)).unwrap();
            }
            Some(response_op::Response::ResponseTxn(nested)) => {
                *text += &show_header(nested.header.as_ref());
                show_txn(text, nested, depth + 1);
            }
        }
    }
}

fn show_range(range: &RangeResponse) -> String {
    let more = if range.more { " and more" } else { "" };
    format!("{} {} of{}{more}", show_header(range.header.as_ref()), range.count, show_kvs(&range.kvs))
}

/// A header of an operation: its revision, as nothing else may be in it.
fn show_header(header: Option<&ResponseHeader>) -> String {
    let header = header.expect("an operation's response has a header");
    assert_eq!(*header, ResponseHeader { revision: header.revision, ..ResponseHeader::default() });
    format!("{}:", header.revision)
}

fn show_kvs(kvs: &[KeyValue]) -> String {
    kvs.iter().map(|kv| format!(" {}", show_kv(kv))).collect()
}

/// `key=value@create/mod/version`, and the lease where there is one.
fn show_kv(kv: &KeyValue) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let lease = if kv.lease == 0 { String::new() } else { format!("~{}", kv.lease) };
    let (key, value) = (text(&kv.key), text(&kv.value));
    format!("{key}={value}@{}/{}/{}{lease}", kv.create_revision, kv.mod_revision, kv.version)
}

/// The events of a run: `+key` and `-key` by revision.
fn show_events(events: &[Arc<crate::mvcc::RevisionEvents>]) -> String {
    let mut text = String::new();
    for revision in events {
        write!(text, "{}:", revision.revision).unwrap();
        for event in &revision.events {
            let key = event.kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).unwrap_or_default();
            write!(text, " {}{key}", if event.r#type == 0 { '+' } else { '-' }).unwrap();
        }
        text.push('\n');
    }
    text
}
