//! Commands of users who may have them, and of those who may not.

use mainstay_proto::authpb::Permission;
use mainstay_proto::authpb::permission::Type;
use mainstay_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use mainstay_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest, DeleteRangeRequest, PutRequest,
    RequestOp, TxnRequest,
};
use mainstay_proto::mainstay::Authenticate;

use super::commands::*;
use super::*;
use crate::apply::check_read_txn;
use crate::auth::{TokenChange, encoded_hash};
use crate::command::command::Kind;
use crate::command::{Caller, Refusal, cluster_itself};

fn add_user(name: &str) -> Kind {
    let hashed_password = encoded_hash("hash");
    Kind::AuthUserAdd(AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() })
}

fn add_role(name: &str) -> Kind {
    Kind::AuthRoleAdd(AuthRoleAddRequest { name: name.to_owned() })
}

fn grant_role(user: &str, role: &str) -> Kind {
    Kind::AuthUserGrantRole(AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
}

fn allow(role: &str, kind: Type, key: &'static str, range_end: &'static str) -> Kind {
    let perm = Some(Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() });
    Kind::AuthRoleGrantPermission(AuthRoleGrantPermissionRequest { name: role.to_owned(), perm })
}

/// Reads `r*`, writes `w*`, and both for `b*`.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    for command in [
        add_user("root"),
        grant_role("root", "root"),
        add_user("alice"),
        add_role("some"),
        grant_role("alice", "some"),
        allow("some", Type::Read, "r", "s"),
        allow("some", Type::Write, "w", "x"),
        allow("some", Type::Readwrite, "b", "c"),
        put("r", "1"),
        put("w", "1"),
        put("b", "1"),
        put("q", "1"),
        Kind::AuthEnable(AuthEnableRequest {}),
    ] {
        assert_eq!(fixture.apply(&command).refusal(), Refusal::None, "{command:?}");
    }
    fixture
}

impl Fixture {
    fn by(&mut self, user: &str, command: &Kind) -> Refusal {
        let caller = Caller { user: user.to_owned(), auth_revision: self.state.auth().revision() };
        self.by_caller(caller, command)
    }

    fn by_caller(&mut self, caller: Caller, command: &Kind) -> Refusal {
        apply(&mut self.state, &Origin { index: 9, caller }, command).unwrap().refusal()
    }
}

fn put_prev(key: &'static str) -> Kind {
    Kind::Put(PutRequest { prev_kv: true, ..put_request(key, "2") })
}

fn delete_prev(key: &'static str, range_end: &'static str) -> Kind {
    Kind::DeleteRange(DeleteRangeRequest { prev_kv: true, ..delete_request(key, range_end) })
}

fn compares(key: &'static str) -> Kind {
    txn(vec![compare(key, CompareResult::Equal, TargetUnion::Version(0))], vec![], vec![])
}

fn nested(operation: RequestOp) -> Kind {
    let inner = does(txn(vec![], vec![], vec![operation]));
    txn(vec![], vec![does(txn(vec![], vec![inner], vec![]))], vec![])
}

/// Each with whether alice may have it; root may have all, nobody none.
fn commands() -> Vec<(Kind, bool)> {
    let success = |operation| txn(vec![], vec![operation], vec![]);
    let failure = |operation| txn(vec![], vec![], vec![operation]);
    let mut commands = vec![
        (put("w", "2"), true),
        (put("b", "2"), true),
        (put("r", "2"), false),
        (put("q", "2"), false),
        (put_prev("b"), true),
        (put_prev("w"), false),
        (delete("w1", "w2"), true),
        (delete("b", "c"), true),
        (delete("b", "cc"), false),
        (delete("r", ""), false),
        (delete("", "\0"), false),
        (delete_prev("b", "c"), true),
        (delete_prev("w", ""), false),
        (compares("r"), true),
        (compares("b"), true),
        (compares("w"), false),
        (compares("q"), false),
    ];
    for (operation, allowed) in [
        (does(put("w", "2")), true),
        (does(put("r", "2")), false),
        (does(put_prev("b")), true),
        (does(put_prev("w")), false),
        (does(delete("w", "x")), true),
        (does(delete("q", "")), false),
        (does(delete_prev("w", "")), false),
        (does(delete_prev("b", "")), true),
        (does(compares("q")), false),
        (reads(range_request("r", "s")), true),
        (reads(range_request("r", "sa")), false),
        (reads_key("w"), false),
        (reads_key("q"), false),
        (RequestOp::default(), true),
    ] {
        commands.push((success(operation.clone()), allowed));
        commands.push((failure(operation.clone()), allowed));
        commands.push((nested(operation), allowed));
    }
    commands
}

#[test]
fn keys_are_for_who_may_have_them() {
    for (command, allowed) in commands() {
        let mut fixture = fixture();
        let before = fixture.state.store.revision();
        let expected = if allowed { Refusal::None } else { Refusal::PermissionDenied };
        assert_eq!(fixture.by("alice", &command), expected, "{command:?}");
        if !allowed {
            assert_eq!(fixture.state.store.revision(), before, "{command:?}");
        }
        assert_eq!(fixture.by_caller(Caller::default(), &command), unless_empty(&command, Refusal::UserEmpty));
        assert_eq!(fixture.by("unknown", &command), unless_empty(&command, Refusal::PermissionDenied));
        let before = Caller { user: "root".to_owned(), auth_revision: fixture.state.auth().revision() - 1 };
        assert_eq!(fixture.by_caller(before, &command), unless_empty(&command, Refusal::AuthOldRevision));
        assert_eq!(fixture.by("root", &command), Refusal::None, "{command:?}");
        assert_eq!(fixture.by_caller(cluster_itself(), &command), Refusal::None);
    }
}

/// What names no key concerns nobody; `api` refuses it before.
fn unless_empty(command: &Kind, refusal: Refusal) -> Refusal {
    fn names_none(txn: &TxnRequest) -> bool {
        txn.compare.is_empty()
            && txn.success.iter().chain(&txn.failure).all(|operation| match &operation.request {
                None => true,
                Some(mainstay_proto::etcdserverpb::request_op::Request::RequestTxn(nested)) => names_none(nested),
                Some(_) => false,
            })
    }
    match command {
        Kind::Txn(txn) if names_none(txn) => Refusal::None,
        _ => refusal,
    }
}

#[test]
fn transactions_that_only_read_are_judged_alike() {
    for (command, allowed) in commands() {
        let Kind::Txn(request) = &command else { continue };
        let fixture = fixture();
        let auth = fixture.state.auth().load();
        let caller = Caller { user: "alice".to_owned(), auth_revision: auth.revision() };
        assert_eq!(check_read_txn(&auth, &caller, request).is_ok(), allowed, "{command:?}");
    }
}

#[test]
fn a_lease_is_for_who_may_write_its_keys() {
    let mut fixture = fixture();
    assert_eq!(fixture.by("root", &grant(7, 60)), Refusal::None);
    assert_eq!(fixture.by("alice", &put_leased("w", "1", 7)), Refusal::None, "it has no keys yet");
    assert_eq!(fixture.by("alice", &put_leased("b", "1", 7)), Refusal::None);
    assert_eq!(fixture.by("root", &put_leased("q", "1", 7)), Refusal::None);
    let denied = Refusal::PermissionDenied;
    assert_eq!(fixture.by("alice", &put_leased("w", "1", 7)), denied);
    assert_eq!(fixture.by("alice", &txn(vec![], vec![], vec![does(put_leased("w", "1", 7))])), denied);
    assert_eq!(fixture.by("alice", &revoke(7)), denied);
    assert_eq!(fixture.by_caller(Caller::default(), &revoke(7)), Refusal::UserEmpty);
    assert_eq!(fixture.by("alice", &put_leased("w", "1", 8)), Refusal::LeaseNotFound);
    assert_eq!(fixture.by("alice", &revoke(8)), Refusal::LeaseNotFound);
    // A lease that ends is revoked by the cluster, whatever happened to users and roles since.
    let user = add_user("bob");
    assert_eq!(fixture.by("root", &user), Refusal::None);
    assert_eq!(fixture.by_caller(cluster_itself(), &revoke(7)), Refusal::None);
    assert_eq!(fixture.state.leases().count(), 0);
}

#[test]
fn users_and_roles_are_for_administrators() {
    let commands = || {
        [
            add_user("bob"),
            add_role("more"),
            grant_role("alice", "root"),
            allow("some", Type::Readwrite, "a", "z"),
            Kind::AuthUserChangePassword(AuthUserChangePasswordRequest { name: "root".into(), ..Default::default() }),
            Kind::AuthUserDelete(AuthUserDeleteRequest { name: "alice".to_owned() }),
            Kind::AuthDisable(AuthDisableRequest {}),
        ]
    };
    let mut fixture = fixture();
    let before = fixture.state.auth().load();
    for command in commands() {
        assert_eq!(fixture.by("alice", &command), Refusal::PermissionDenied);
        assert_eq!(fixture.by("unknown", &command), Refusal::UserNotFound);
        assert_eq!(fixture.by_caller(Caller::default(), &command), Refusal::UserEmpty);
    }
    assert_eq!(fixture.state.auth().load(), before);
    for command in commands() {
        // An administrator is one by what it is now, whatever its token says.
        let root = Caller { user: "root".to_owned(), auth_revision: 1 };
        assert_eq!(fixture.by_caller(root, &command), Refusal::None, "{command:?}");
    }
    assert_eq!(fixture.by_caller(Caller::default(), &add_role("free")), Refusal::None, "it is off");
}

fn authenticate(name: &str) -> Kind {
    Kind::Authenticate(Authenticate { name: name.to_owned(), simple_token: "abc".to_owned() })
}

#[test]
fn tokens_are_given_and_taken() {
    let mut fixture = fixture();
    fixture.state.commit(Bytes::new()).unwrap();
    let outcome = apply(&mut fixture.state, &Origin { index: 9, ..Origin::default() }, &authenticate("alice"));
    let Some(outcome::Reply::Authenticate(response)) = outcome.unwrap().reply else { panic!("no token") };
    assert_eq!(response.token, "abc.9");
    assert_eq!(fixture.by_caller(Caller::default(), &authenticate("nobody")), Refusal::AuthFailed);
    let password = AuthUserChangePasswordRequest { name: "alice".to_owned(), ..Default::default() };
    assert_eq!(fixture.by("root", &Kind::AuthUserChangePassword(password)), Refusal::None);
    assert_eq!(
        fixture.by("root", &Kind::AuthUserDelete(AuthUserDeleteRequest { name: "alice".into() })),
        Refusal::None
    );
    let unknown = Kind::AuthUserDelete(AuthUserDeleteRequest { name: "alice".into() });
    assert_eq!(fixture.by("root", &unknown), Refusal::UserNotFound);
    assert_eq!(fixture.by("root", &add_role("x")), Refusal::None, "tokens stay");
    assert_eq!(fixture.by("root", &Kind::AuthDisable(AuthDisableRequest {})), Refusal::None);
    assert_eq!(fixture.by("root", &authenticate("root")), Refusal::AuthNotEnabled);
    let gone = || TokenChange::UserGone("alice".to_owned());
    let assigned = TokenChange::Assigned { token: "abc.9".to_owned(), user: "alice".to_owned() };
    let changes = fixture.state.commit(Bytes::new()).unwrap().token_changes;
    assert_eq!(changes, [assigned, gone(), gone(), TokenChange::AllGone]);
}

#[test]
fn users_and_roles_are_found_again() {
    let mut fixture = fixture();
    fixture.state.commit(Bytes::new()).unwrap();
    let before = fixture.state.auth().load();
    assert!(before.is_enabled());
    let home = fixture.home.clone();
    drop(fixture);
    assert_eq!(open(&home).auth().load(), before);
}

#[test]
fn a_crash_takes_users_and_roles_with_the_run() {
    let mut fixture = fixture();
    fixture.state.commit(Bytes::from_static(b"here")).unwrap();
    fixture.state.store.maybe_flush(true).unwrap();
    let before = fixture.state.auth().load();
    assert_eq!(fixture.by("root", &add_user("bob")), Refusal::None);
    fixture.state.commit(Bytes::from_static(b"there")).unwrap();
    let home = fixture.home.clone();
    drop(fixture);
    home.crash();
    let state = open(&home);
    assert_eq!((state.applied(), state.auth().load()), (Bytes::from_static(b"here"), before));
}
