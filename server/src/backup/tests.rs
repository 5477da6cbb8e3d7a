//! The file of a state that commands made.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use mainstay_proto::authpb::{Role, User, UserAddOptions};
use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, CompactionRequest,
    DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, PutRequest, RequestOp, TxnRequest,
};
use mainstay_proto::mainstay::membership::Config;
use mainstay_proto::mainstay::{AppliedState, LogId, MemberAttributes, Membership, Node, StoredMembership};
use prost::Message;
use sha2::{Digest, Sha256};

use super::bolt::reader::{Buckets, read};
use super::*;
use crate::apply::{Origin, State, StateOptions, apply};
use crate::command::command::Kind;
use crate::engine::EngineHome;
use crate::engine::layout::FORMAT;
use crate::engine::mem::{Fault, MemHome};
use crate::limits;
use crate::mvcc::Store;

struct Fixture {
    home: MemHome,
    state: State,
    index: u64,
}

impl Fixture {
    fn new() -> Self {
        let home = MemHome::new();
        let state =
            State::open(home.open().unwrap(), StateOptions { cache_bytes: 1 << 20, newest_format: FORMAT }).unwrap();
        Self { home, state, index: 0 }
    }

    fn run(&mut self, command: Kind) {
        self.index += 1;
        let outcome = apply(&mut self.state, &Origin::default(), &command).unwrap();
        assert_eq!(outcome.refusal, 0);
        let node = Node { name: String::new(), peer_urls: vec!["http://a:2380".into()], learner: false };
        let membership = Membership { configs: vec![Config { voters: vec![7] }], nodes: [(7, node)].into() };
        let applied = AppliedState {
            log_id: Some(LogId { term: 3, index: self.index }),
            membership: Some(StoredMembership { log_id: None, membership: Some(membership) }),
        };
        self.state.commit(applied.encode_to_vec().into()).unwrap();
    }

    fn put(&mut self, key: &str, value: impl Into<Bytes>, lease: i64) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.run(Kind::Put(PutRequest { key, value: value.into(), lease, ..PutRequest::default() }));
    }

    fn delete(&mut self, key: &'static str) {
        self.run(Kind::DeleteRange(DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() }));
    }

    fn grant(&mut self, id: i64) {
        self.run(Kind::LeaseGrant(LeaseGrantRequest { ttl: 60, id }));
    }

    fn compact(&mut self, revision: i64) {
        self.run(Kind::Compaction(CompactionRequest { revision, physical: false }));
    }

    fn file(&self) -> Vec<u8> {
        file_of(&self.state.store())
    }

    fn buckets(&self) -> Buckets {
        read(&self.file())
    }
}

/// Streams a file, and checks all that is said beside its bytes.
fn file_of(store: &Store) -> Vec<u8> {
    let blobs = RefCell::new(Vec::new());
    let send = |blob| {
        blobs.borrow_mut().push(blob);
        true
    };
    stream(store, "3.7.0", &Receiver { send: &send, is_waiting: &|| true }).unwrap();
    let mut blobs = blobs.into_inner();
    let checksum = blobs.pop().unwrap();
    let file: Vec<u8> = blobs.iter().flat_map(|blob| blob.bytes.to_vec()).collect();
    let sha256 = Bytes::copy_from_slice(&Sha256::digest(&file));
    assert_eq!(checksum, Blob { bytes: sha256, remaining: 0, is_checksum: true });
    let mut remaining = file.len();
    for (i, blob) in blobs.iter().enumerate() {
        remaining -= blob.bytes.len();
        assert_eq!((blob.remaining, blob.is_checksum), (remaining as u64, false));
        let is_last = i + 1 == blobs.len();
        assert!(blob.bytes.len() == limits::DATABASE_BLOB_BYTES || is_last);
    }
    file
}

fn hex(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The keys of a bucket.
fn keys(buckets: &Buckets, bucket: &str) -> Vec<String> {
    buckets[bucket].iter().map(|(key, _)| hex(key)).collect()
}

#[test]
fn every_bucket_is_there_before_the_first_command() {
    let buckets = Fixture::new().buckets();
    assert_eq!(buckets.keys().collect::<Vec<_>>(), schema::BUCKETS.iter().collect::<Vec<_>>());
    assert_eq!(keys(&buckets, "meta"), ["consistent_index", "storageVersion", "term"]);
    assert_eq!(keys(&buckets, "auth"), ["authRevision"]);
    assert!(buckets["key"].is_empty());
}

#[test]
fn users_and_roles_are_as_etcd_stores_them() {
    let mut fixture = Fixture::new();
    let name = || "some".to_owned();
    fixture.run(Kind::AuthRoleAdd(AuthRoleAddRequest { name: name() }));
    let options = Some(UserAddOptions { no_password: true });
    fixture.run(Kind::AuthUserAdd(AuthUserAddRequest { name: name(), options, ..AuthUserAddRequest::default() }));
    fixture.run(Kind::AuthUserGrantRole(AuthUserGrantRoleRequest { user: name(), role: name() }));
    let buckets = fixture.buckets();
    let revision = (b"authRevision".to_vec(), 4u64.to_be_bytes().to_vec());
    assert_eq!(buckets["auth"], [revision]);
    let user = User { name: "some".into(), roles: vec![name()], options, ..User::default() };
    let role = Role { name: "some".into(), ..Role::default() };
    let named = |bytes: Vec<u8>| vec![(b"some".to_vec(), bytes)];
    assert_eq!(buckets["authUsers"], named(user.encode_to_vec()));
    assert_eq!(buckets["authRoles"], named(role.encode_to_vec()));
}

#[test]
fn each_change_is_a_pair_with_its_place_in_the_transaction() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", 0);
    let put = |key: &'static str| RequestOp {
        request: Some(Request::RequestPut(PutRequest { key: key.into(), value: "2".into(), ..PutRequest::default() })),
    };
    let delete = DeleteRangeRequest { key: "a".into(), ..DeleteRangeRequest::default() };
    let delete = RequestOp { request: Some(Request::RequestDeleteRange(delete)) };
    fixture.run(Kind::Txn(TxnRequest { success: vec![put("b"), delete, put("c")], ..TxnRequest::default() }));
    let buckets = fixture.buckets();
    let zeros = r"\x00".repeat(7);
    let expected = [(2, 0, ""), (3, 0, ""), (3, 1, "t"), (3, 2, "")]
        .map(|(main, sub, end)| format!(r"{zeros}\x{main:02x}_{zeros}\x{sub:02x}{end}"));
    assert_eq!(keys(&buckets, "key"), expected);
    assert_eq!(hex(&buckets["key"][0].1), r"\n\x01a\x10\x02\x18\x02 \x01*\x011");
    assert_eq!(hex(&buckets["key"][2].1), r"\n\x01a");
}

#[test]
fn what_is_known_beside_the_keys_is_there() {
    let mut fixture = Fixture::new();
    for id in [-5, 1, i64::MAX, i64::MIN] {
        fixture.grant(id);
    }
    let checkpoint = LeaseCheckpoint { id: 1, remaining_ttl: 9 };
    fixture.run(Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: vec![checkpoint] }));
    fixture.put("k", "v", 1);
    fixture.run(Kind::Alarm(AlarmRequest { action: 1, member_id: 7, alarm: 1 }));
    let attributes =
        MemberAttributes { id: 7, name: "n".into(), client_urls: vec!["http://a:2379".into()], removed: false };
    fixture.run(Kind::MemberAttributes(attributes));
    let buckets = fixture.buckets();
    let ids: Vec<_> = buckets["lease"].iter().map(|(id, _)| i64::from_be_bytes(id[..].try_into().unwrap())).collect();
    assert_eq!(ids, [1, i64::MAX, i64::MIN, -5], "as if they had no sign");
    assert_eq!(hex(&buckets["lease"][0].1), r"\x08\x01\x10<\x18\t");
    assert_eq!(keys(&buckets, "alarm"), [r"\x08\x07\x10\x01"]);
    assert_eq!(keys(&buckets, "members"), ["7"]);
    let member = String::from_utf8(buckets["members"][0].1.clone()).unwrap();
    assert_eq!(member, r#"{"id":7,"peerURLs":["http://a:2380"],"name":"n","clientURLs":["http://a:2379"]}"#);
    let index = &buckets["meta"].iter().find(|(key, _)| key == b"consistent_index").unwrap().1;
    assert_eq!(*index, fixture.index.to_be_bytes());
}

#[test]
fn a_compaction_under_way_is_told_as_one() {
    let mut fixture = Fixture::new();
    for value in 0..40 {
        fixture.put("k", value.to_string(), 0);
    }
    fixture.compact(30);
    while fixture.state.store.compact_slice().unwrap() {}
    assert_eq!(fixture.buckets()["key"].len(), 12);
    fixture.compact(41);
    // The hash first, then the sweep, then some of what it found.
    while fixture.buckets()["key"].len() == 12 {
        assert!(fixture.state.store.compact_slice().unwrap());
    }
    let buckets = fixture.buckets();
    assert!((2..12).contains(&buckets["key"].len()));
    let revision = |name: &[u8]| {
        let value = &buckets["meta"].iter().find(|(key, _)| key == name).unwrap().1;
        i64::from_be_bytes(value[..8].try_into().unwrap())
    };
    assert_eq!((revision(b"finishedCompactRev"), revision(b"scheduledCompactRev")), (30, 41));
}

#[test]
fn the_file_is_of_one_moment_while_commands_go_on() {
    let mut fixture = Fixture::new();
    for i in 0..3_000 {
        fixture.put(&format!("k{i}"), vec![b'v'; 100], 0);
    }
    let before = fixture.file();
    let store = fixture.state.store();
    let fixture = RefCell::new(fixture);
    let file = RefCell::new(Vec::new());
    let send = |blob: Blob| {
        if !blob.is_checksum {
            file.borrow_mut().extend_from_slice(&blob.bytes);
        }
        fixture.borrow_mut().put("new", "v", 0);
        fixture.borrow_mut().delete("k7");
        fixture.borrow_mut().put("k7", "v", 0);
        true
    };
    stream(&store, "3.7.0", &Receiver { send: &send, is_waiting: &|| true }).unwrap();
    assert_eq!(file.into_inner(), before);
}

#[test]
fn a_failure_on_the_way_ends_without_a_checksum() {
    let mut fixture = Fixture::new();
    for i in 0..1_000 {
        fixture.put(&format!("k{i}"), vec![b'v'; 200], 0);
    }
    let sent = Cell::new(0);
    let home = fixture.home.clone();
    let send = |blob: Blob| {
        assert!(!blob.is_checksum);
        sent.set(sent.get() + 1);
        home.fail_next(Fault::Read);
        true
    };
    let failed = stream(&fixture.state.store(), "3.7.0", &Receiver { send: &send, is_waiting: &|| true }).unwrap_err();
    assert!(matches!(failed, SnapshotError::Engine(_)), "{failed}");
    assert!(sent.get() > 0);
}

#[test]
fn who_waits_no_more_is_sent_no_more() {
    let mut fixture = Fixture::new();
    for i in 0..1_000 {
        fixture.put(&format!("k{i}"), vec![b'v'; 200], 0);
    }
    let sent = Cell::new(0);
    let send = |_| {
        sent.set(sent.get() + 1);
        false
    };
    let store = fixture.state.store();
    let failed = stream(&store, "3.7.0", &Receiver { send: &send, is_waiting: &|| true }).unwrap_err();
    assert!(matches!(failed, SnapshotError::Unwanted));
    assert_eq!(sent.get(), 1);
}
