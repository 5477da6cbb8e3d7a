//! The requests of clients in a log, as etcd writes them in its own; for tests that compare what was
//! answered with what was agreed on.

use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mainstay_proto::etcdserverpb::{InternalAuthenticateRequest, InternalRaftRequest, RequestHeader};
use mainstay_proto::mainstay as wire;
use mainstay_proto::membershippb::DowngradeInfoSetRequest;
use mainstay_raft_log::{LogError, LogView, Record};
use openraft::EntryPayload;
use prost::Message;

use super::codec;
use super::type_config::EncodedCommand;
use crate::command::{self, Caller, command::Kind};

/// Why requests cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RequestsError {
    /// The log cannot be read.
    #[error("raft log: {0}")]
    Log(#[from] LogError),
    /// An entry is none of ours.
    #[error("entry {index}: {reason}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The lines cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Writes the entries of a log as lines of text.
///
/// The first is `commit INDEX`: up to there the member has written down that entries are committed, which may be
/// a little less than are. Then comes a line for each entry, oldest first: `INDEX TERM BASE64`, the last
/// an `etcdserverpb.InternalRaftRequest`, or `-` for an entry that no client asked for.
///
/// # Errors
/// When the log cannot be read to its end, or the lines cannot be written.
pub fn write_requests(log: &LogView, out: &mut dyn Write) -> Result<(), RequestsError> {
    let committed = match log.committed() {
        Some(bytes) if !bytes.is_empty() => wire::LogId::decode(bytes).map_err(|error| entry_error(0, &error))?.index,
        _ => 0,
    };
    writeln!(out, "commit {committed}")?;
    log.records(|record| {
        let request = match request(&record)? {
            Some(request) => BASE64_STANDARD.encode(request.encode_to_vec()),
            None => "-".to_owned(),
        };
        Ok(writeln!(out, "{} {} {request}", record.index, record.term)?)
    })
}

/// The request in an entry; `None` where no client asked for it.
fn request(record: &Record) -> Result<Option<InternalRaftRequest>, RequestsError> {
    let failed = |error: &dyn std::fmt::Display| entry_error(record.index, error);
    let entry = codec::entry_from_bytes(codec::log_id(record.term, record.index), record.payload.clone());
    let EntryPayload::Normal(EncodedCommand(bytes)) = entry.map_err(|error| failed(&error))?.payload else {
        return Ok(None);
    };
    let (command, caller) = command::decode(bytes).map_err(|error| failed(&error))?;
    Ok(as_etcd(command, caller))
}

fn as_etcd(command: Kind, caller: Caller) -> Option<InternalRaftRequest> {
    let mut request = InternalRaftRequest::default();
    // What the cluster asks for itself is asked by nobody in etcd's log.
    if caller != Caller::default() && caller != command::cluster_itself() {
        let Caller { user: username, auth_revision } = caller;
        request.header = Some(RequestHeader { id: 0, username, auth_revision });
    }
    match command {
        Kind::Put(put) => request.put = Some(put),
        Kind::DeleteRange(delete) => request.delete_range = Some(delete),
        Kind::Txn(txn) => request.txn = Some(txn),
        Kind::Compaction(compaction) => request.compaction = Some(compaction),
        Kind::LeaseGrant(grant) => request.lease_grant = Some(grant),
        Kind::LeaseRevoke(revoke) => request.lease_revoke = Some(revoke),
        Kind::LeaseCheckpoint(checkpoint) => request.lease_checkpoint = Some(checkpoint),
        Kind::Alarm(alarm) => request.alarm = Some(alarm),
        Kind::Downgrade(info) => {
            let info = DowngradeInfoSetRequest { enabled: info.enabled, ver: info.target_version };
            request.downgrade_info_set = Some(info);
        }
        Kind::Authenticate(wire::Authenticate { name, simple_token }) => {
            request.authenticate = Some(InternalAuthenticateRequest { name, password: String::new(), simple_token });
        }
        Kind::AuthEnable(enable) => request.auth_enable = Some(enable),
        Kind::AuthDisable(disable) => request.auth_disable = Some(disable),
        Kind::AuthUserAdd(add) => request.auth_user_add = Some(add),
        Kind::AuthUserDelete(delete) => request.auth_user_delete = Some(delete),
        Kind::AuthUserChangePassword(change) => request.auth_user_change_password = Some(change),
        Kind::AuthUserGrantRole(grant) => request.auth_user_grant_role = Some(grant),
        Kind::AuthUserRevokeRole(revoke) => request.auth_user_revoke_role = Some(revoke),
        Kind::AuthRoleAdd(add) => request.auth_role_add = Some(add),
        Kind::AuthRoleDelete(delete) => request.auth_role_delete = Some(delete),
        Kind::AuthRoleGrantPermission(grant) => request.auth_role_grant_permission = Some(grant),
        Kind::AuthRoleRevokePermission(revoke) => request.auth_role_revoke_permission = Some(revoke),
        Kind::MemberAttributes(_) | Kind::RaiseFormat(_) => return None,
    }
    Some(request)
}

fn entry_error(index: u64, error: &dyn std::fmt::Display) -> RequestsError {
    RequestsError::Entry { index, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mainstay_proto::etcdserverpb::{LeaseRevokeRequest, PutRequest};
    use mainstay_proto::mainstay::membership::Config;
    use mainstay_proto::mainstay::{Command, MemberAttributes, Membership, Node, RaiseFormat};

    use super::*;

    fn line(payload: Bytes) -> Option<String> {
        let request = request(&Record { index: 4, term: 2, payload }).unwrap();
        request.map(|request| BASE64_STANDARD.encode(request.encode_to_vec()))
    }

    fn of(kind: Kind) -> Option<String> {
        by(None, kind)
    }

    fn by(caller: Option<Caller>, kind: Kind) -> Option<String> {
        line(command::encode(&Command { kind: Some(kind), caller }))
    }

    #[test]
    fn requests_have_etcds_numbers() {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        assert_eq!(of(Kind::Put(put)).unwrap(), BASE64_STANDARD.encode(b"\x22\x06\x0a\x01k\x12\x01v"));
        let revoke = Kind::LeaseRevoke(LeaseRevokeRequest { id: 5 });
        assert_eq!(of(revoke).unwrap(), BASE64_STANDARD.encode(b"\x4a\x02\x08\x05"));
    }

    #[test]
    fn who_asked_is_told_but_for_the_cluster_itself() {
        let revoke = || Kind::LeaseRevoke(LeaseRevokeRequest { id: 5 });
        let alice = Caller { user: "al".to_owned(), auth_revision: 7 };
        let expected = b"\x4a\x02\x08\x05\xa2\x06\x06\x12\x02al\x18\x07";
        assert_eq!(by(Some(alice), revoke()).unwrap(), BASE64_STANDARD.encode(expected));
        assert_eq!(by(Some(command::cluster_itself()), revoke()), of(revoke()));
    }

    #[test]
    fn what_no_client_asked_for_is_none() {
        assert_eq!(of(Kind::MemberAttributes(MemberAttributes::default())), None);
        assert_eq!(of(Kind::RaiseFormat(RaiseFormat { format: 2 })), None);
        assert_eq!(line(Bytes::new()), None, "a blank entry");
        let mut membership = vec![0xff];
        let (configs, nodes) = (vec![Config { voters: vec![1] }], [(1, Node::default())].into());
        membership.extend(Membership { configs, nodes }.encode_to_vec());
        assert_eq!(line(membership.into()), None);
    }

    #[test]
    fn foreign_entries_are_named() {
        let record = Record { index: 4, term: 2, payload: Bytes::from_static(b"\x07") };
        let error = request(&record).unwrap_err().to_string();
        assert!(error.starts_with("entry 4: command has version 7"), "{error}");
    }
}
