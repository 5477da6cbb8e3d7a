//! What commands write, byte for byte.
//!
//! Members of two releases apply the same log, and compare what it wrote. Whatever changes here is a change of format:
//! `server/src/docs/decisions/2026-11-22-what-a-release-may-change.md` says what else belongs to it.

use expect_test::expect;
use mainstay_proto::authpb::{Permission, UserAddOptions, permission::Type};
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{
    AlarmType, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest, AuthUserGrantRoleRequest,
    DowngradeInfo,
};
use mainstay_proto::mainstay::{MemberAttributes, RaiseFormat, StateMark};

use super::commands::*;
use super::*;
use crate::apply::remove_members;
use crate::command::command::Kind;
use crate::engine::BatchOperation;

/// Words where they are words, else hexadecimal digits.
fn key(bytes: &[u8]) -> String {
    if bytes.iter().all(u8::is_ascii_graphic) { String::from_utf8_lossy(bytes).into_owned() } else { hex(bytes) }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "nothing".to_owned() } else { bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
}

fn show(operation: &BatchOperation) -> String {
    match operation {
        BatchOperation::Put(family, name, value) => format!("  put {family:?} {} = {}\n", key(name), hex(value)),
        BatchOperation::Delete(family, name) => format!("  delete {family:?} {}\n", key(name)),
        BatchOperation::DeleteRange(family, from, to) => format!("  delete {family:?} {}..{}\n", key(from), key(to)),
    }
}

/// Carries out one entry, and shows what it added to the batch of the run.
fn entry(fixture: &mut Fixture, text: &mut String, name: &str, act: impl FnOnce(&mut Fixture)) {
    let before = fixture.state.store.batch().operations.len();
    act(fixture);
    *text += &format!("{name}\n");
    fixture.state.store.batch().operations[before..].iter().for_each(|operation| *text += &show(operation));
}

#[test]
fn what_commands_write_is_fixed() {
    let client_urls = vec!["http://one:2379".to_owned()];
    let attributes = MemberAttributes { id: 1, name: "one".into(), client_urls, removed: false };
    let downgrade = DowngradeInfo { enabled: true, target_version: "3.6.0".into() };
    let permission = Permission { perm_type: Type::Readwrite.into(), key: "k".into(), range_end: Bytes::new() };
    let grants = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(permission) };
    let options = Some(UserAddOptions { no_password: false });
    let hashed_password = "aA==".into(); // "h"
    let user = AuthUserAddRequest { name: "u".into(), options, hashed_password, ..AuthUserAddRequest::default() };
    let holds = AuthUserGrantRoleRequest { user: "u".into(), role: "r".into() };
    let (mut fixture, mut text) = (Fixture::new(), String::new());
    for (name, command) in [
        ("a lease is granted", grant(7, 60)),
        ("put", put_leased("k", "v", 7)),
        ("transaction", txn(vec![], vec![does(put("a", "1")), does(put("b", "2"))], vec![])),
        ("delete", delete("a", "c")),
        ("compaction", compact(3)),
        ("a lease is checkpointed", checkpoint(7, 30)),
        ("a lease ends", revoke(7)),
        ("a member says who it is", Kind::MemberAttributes(attributes)),
        ("an alarm", alarm(AlarmAction::Activate, 1, AlarmType::Nospace)),
        ("is lifted", alarm(AlarmAction::Deactivate, 1, AlarmType::Nospace)),
        ("a downgrade is announced", Kind::Downgrade(downgrade)),
        ("a role", Kind::AuthRoleAdd(AuthRoleAddRequest { name: "r".into() })),
        ("may do something", Kind::AuthRoleGrantPermission(grants)),
        ("a user", Kind::AuthUserAdd(user)),
        ("has a role", Kind::AuthUserGrantRole(holds)),
        ("the format is raised", Kind::RaiseFormat(RaiseFormat { format: 2 })),
    ] {
        entry(&mut fixture, &mut text, name, |fixture| assert_eq!(fixture.apply(&command).refusal, 0));
    }
    entry(&mut fixture, &mut text, "a member is removed", |fixture| {
        remove_members(&mut fixture.state, &[1]);
        fixture.entries += 1;
        fixture.state.seal(fixture.entries);
    });
    expect![[r#"
        a lease is granted
          put Leases 8000000000000007 = 000000000000003c0000000000000000
        put
          put Revisions 00000000000000020000000000000000 = 000a016b1002180220012a01763007
        transaction
          put Revisions 00000000000000030000000000000000 = 000a01611003180320012a0131
          put Revisions 00000000000000030000000000000001 = 000a01621003180320012a0132
        delete
          put Revisions 00000000000000040000000000000000 = 010a0161
          put Revisions 00000000000000040000000000000001 = 010a0162
        compaction
          put Meta compacted = 0000000000000003
        a lease is checkpointed
          put Leases 8000000000000007 = 000000000000003c000000000000001e
        a lease ends
          put Revisions 00000000000000050000000000000000 = 010a016b
          delete Leases 8000000000000007
        a member says who it is
          put Members 0000000000000001 = 080112036f6e651a0f687474703a2f2f6f6e653a32333739
        an alarm
          put Meta alarms = 120408011001
        is lifted
          put Meta alarms = nothing
        a downgrade is announced
          put Meta downgrade = 08011205332e362e30
        a role
          put Auth role/r = 0a0172
          put Auth revision = 0000000000000002
        may do something
          put Auth role/r = 0a01721205080212016b
          put Auth revision = 0000000000000003
        a user
          put Auth user/u = 0a01751201682200
          put Auth revision = 0000000000000004
        has a role
          put Auth user/u = 0a01751201681a01722200
          put Auth revision = 0000000000000005
        the format is raised
          put Meta format = 00000002
        a member is removed
          put Members 0000000000000001 = 08012001
    "#]]
    .assert_eq(&text);
    // All of it as the one number that members compare.
    fixture.state.commit(Bytes::from_static(b"here")).unwrap();
    let mark = StateMark { index: 17, digest: 0x7e8c_c064_1feb_7cee };
    assert_eq!(fixture.state.digest().since(16), [mark]);
}
