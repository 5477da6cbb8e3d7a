use super::*;
use crate::auth::Right::{Read, Write};

/// Checks that a change is refused and changes nothing.
#[track_caller]
fn check_refused(auth: &Auth, refusal: Refusal, change: impl FnOnce(&mut Auth) -> Changed) {
    let mut tried = auth.clone();
    assert_eq!(change(&mut tried), Err(refusal));
    assert_eq!(&tried, auth);
}

#[test]
fn an_administrator_comes_first() {
    let mut auth = Auth::default();
    assert_eq!((auth.is_enabled(), auth.revision()), (false, 1));
    check_refused(&auth, Refusal::RootUserNotExist, Auth::enable);
    add_user(&mut auth, "root").unwrap();
    check_refused(&auth, Refusal::RootRoleNotExist, Auth::enable);
    // Role root need not exist.
    grant_role(&mut auth, "root", "root").unwrap();
    assert_eq!(auth.enable(), Ok(vec![AuthChange::Enabled(true)]));
    assert_eq!((auth.is_enabled(), auth.revision()), (true, 3), "it is no change of users and roles");
    assert_eq!(auth.enable(), Ok(vec![]));
    assert_eq!(auth.disable(), Ok(vec![AuthChange::Enabled(false), AuthChange::Revision(4)]));
    assert_eq!(auth.disable(), Ok(vec![]));
    assert_eq!((auth.is_enabled(), auth.revision()), (false, 4));
}

#[test]
fn users_come_and_go() {
    let mut auth = Auth::default();
    add_user(&mut auth, "bob").unwrap();
    add_user(&mut auth, "alice").unwrap();
    add_user_without_password(&mut auth, "carol").unwrap();
    assert_eq!(auth.user_names(), ["alice", "bob", "carol"]);
    assert_eq!(auth.revision(), 4);
    check_refused(&auth, Refusal::UserAlreadyExists, |auth| add_user(auth, "bob"));
    check_refused(&auth, Refusal::UserEmpty, |auth| add_user(auth, ""));
    check_refused(&auth, Refusal::NoPasswordUser, |auth| {
        let (name, hashed_password) = ("dora".to_owned(), "no base64!".to_owned());
        auth.add_user(&AuthUserAddRequest { name, hashed_password, ..Default::default() })
    });
    delete_user(&mut auth, "bob").unwrap();
    check_refused(&auth, Refusal::UserNotFound, |auth| delete_user(auth, "bob"));
    assert_eq!(auth.roles_of("bob"), Err(Refusal::UserNotFound));
    assert_eq!(auth.roles_of("alice"), Ok(vec![]));
}

#[test]
fn passwords_are_for_who_has_one() {
    let mut auth = enabled();
    add_user(&mut auth, "alice").unwrap();
    add_user_without_password(&mut auth, "carol").unwrap();
    assert_eq!(auth.password_hash("alice").unwrap(), "hash of alice");
    assert_eq!(auth.password_hash("carol"), Err(Refusal::NoPasswordUser));
    assert_eq!(auth.password_hash("nobody"), Err(Refusal::AuthFailed));
    assert_eq!(auth.authenticate("alice"), Ok(()));
    assert_eq!(auth.authenticate("carol"), Err(Refusal::AuthFailed));
    assert_eq!(auth.authenticate("nobody"), Err(Refusal::AuthFailed));
    // Go's decoder reads over line breaks, and "x" is one that breaks off.
    change_password(&mut auth, "alice", "b3Ro\r\nZXI=\n").unwrap();
    assert_eq!(auth.password_hash("alice").unwrap(), "other");
    check_refused(&auth, Refusal::NoPasswordUser, |auth| change_password(auth, "alice", "x"));
    check_refused(&auth, Refusal::UserNotFound, |auth| change_password(auth, "nobody", ""));
    let before = auth.revision();
    change_password(&mut auth, "carol", "b3RoZXI=").unwrap();
    assert_eq!((auth.revision(), auth.password_hash("carol")), (before + 1, Err(Refusal::NoPasswordUser)));
    auth.disable().unwrap();
    assert_eq!(auth.password_hash("alice"), Err(Refusal::AuthNotEnabled));
    assert_eq!(auth.authenticate("alice"), Err(Refusal::AuthNotEnabled));
}

#[test]
fn roles_are_given_and_taken() {
    let mut auth = Auth::default();
    for name in ["alice", "bob"] {
        add_user(&mut auth, name).unwrap();
    }
    for name in ["b", "a", "c"] {
        add_role(&mut auth, name).unwrap();
        grant_role(&mut auth, "alice", name).unwrap();
    }
    assert_eq!(auth.role_names(), ["a", "b", "c"]);
    assert_eq!(auth.roles_of("alice").unwrap(), ["a", "b", "c"]);
    grant_role(&mut auth, "bob", "b").unwrap();
    assert_eq!(grant_role(&mut auth, "bob", "b"), Ok(vec![]), "again is no change");
    check_refused(&auth, Refusal::RoleNotFound, |auth| grant_role(auth, "bob", "nothing"));
    check_refused(&auth, Refusal::UserNotFound, |auth| grant_role(auth, "nobody", "b"));
    check_refused(&auth, Refusal::RoleAlreadyExists, |auth| add_role(auth, "a"));
    check_refused(&auth, Refusal::RoleEmpty, |auth| add_role(auth, ""));
    check_refused(&auth, Refusal::RoleNotGranted, |auth| revoke_role(auth, "bob", "a"));
    check_refused(&auth, Refusal::UserNotFound, |auth| revoke_role(auth, "nobody", "a"));
    revoke_role(&mut auth, "alice", "a").unwrap();
    delete_role(&mut auth, "b").unwrap();
    check_refused(&auth, Refusal::RoleNotFound, |auth| delete_role(auth, "b"));
    assert_eq!((auth.roles_of("alice").unwrap(), auth.roles_of("bob").unwrap()), (vec!["c".to_owned()], vec![]));
    assert_eq!(auth.role_names(), ["a", "c"]);
}

#[test]
fn nobody_locks_everybody_out() {
    let mut auth = enabled();
    add_role(&mut auth, "root").unwrap();
    check_refused(&auth, Refusal::InvalidAuthManagement, |auth| delete_user(auth, "root"));
    check_refused(&auth, Refusal::InvalidAuthManagement, |auth| delete_role(auth, "root"));
    check_refused(&auth, Refusal::InvalidAuthManagement, |auth| revoke_role(auth, "root", "root"));
    auth.disable().unwrap();
    revoke_role(&mut auth, "root", "root").unwrap();
    delete_role(&mut auth, "root").unwrap();
    delete_user(&mut auth, "root").unwrap();
}

#[test]
fn permissions_are_kept_in_the_order_of_their_keys() {
    use Type::{Read, Readwrite, Write};
    let mut auth = Auth::default();
    add_role(&mut auth, "r").unwrap();
    for (kind, key, range_end) in
        [(Read, "m", ""), (Write, "a", "b"), (Readwrite, "z", "\0"), (Read, "a", "c"), (Write, "m", "")]
    {
        grant(&mut auth, "r", kind, key.as_bytes(), range_end.as_bytes()).unwrap();
    }
    let expected = [
        permission(Write, b"a", b"b"),
        permission(Read, b"a", b"c"),
        permission(Write, b"m", b""),
        permission(Readwrite, b"z", b"\0"),
    ];
    assert_eq!(auth.permissions_of("r").unwrap(), expected);
    // Not the first of those that begin with "a": etcd does not find it, and grants it a second time.
    grant(&mut auth, "r", Write, b"a", b"c").unwrap();
    assert_eq!(auth.permissions_of("r").unwrap().len(), 5);
    revoke(&mut auth, "r", b"a", b"c").unwrap();
    assert_eq!(auth.permissions_of("r").unwrap().len(), 3, "both are gone");
    check_refused(&auth, Refusal::PermissionNotGranted, |auth| revoke(auth, "r", b"a", b"c"));
    check_refused(&auth, Refusal::RoleNotFound, |auth| revoke(auth, "nothing", b"a", b"c"));
    check_refused(&auth, Refusal::RoleNotFound, |auth| grant(auth, "nothing", Read, b"a", b""));
    for (key, range_end) in [("", ""), ("", "a"), ("b", "a"), ("a", "a")] {
        check_refused(&auth, Refusal::InvalidAuthManagement, |auth| {
            grant(auth, "r", Read, key.as_bytes(), range_end.as_bytes())
        });
    }
    check_refused(&auth, Refusal::PermissionNotGiven, |auth| {
        auth.grant_permission(&AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: None })
    });
    add_role(&mut auth, "root").unwrap();
    assert_eq!(auth.permissions_of("root").unwrap(), [permission(Readwrite, b"", b"\0")]);
    assert_eq!(auth.permissions_of("nothing"), Err(Refusal::RoleNotFound));
}

#[test]
fn a_change_of_a_role_is_felt_by_who_has_it() {
    let mut auth = enabled();
    add_user(&mut auth, "alice").unwrap();
    add_role(&mut auth, "r").unwrap();
    grant_role(&mut auth, "alice", "r").unwrap();
    let may = |auth: &Auth, right| auth.check(&caller(auth, "alice"), right, b"k", b"");
    assert_eq!(may(&auth, Read), Err(Refusal::PermissionDenied));
    grant(&mut auth, "r", Type::Read, b"k", b"").unwrap();
    assert_eq!((may(&auth, Read), may(&auth, Write)), (Ok(()), Err(Refusal::PermissionDenied)));
    grant(&mut auth, "r", Type::Write, b"k", b"").unwrap();
    assert_eq!((may(&auth, Read), may(&auth, Write)), (Err(Refusal::PermissionDenied), Ok(())));
    revoke(&mut auth, "r", b"k", b"").unwrap();
    assert_eq!(may(&auth, Write), Err(Refusal::PermissionDenied));
    grant(&mut auth, "r", Type::Readwrite, b"k", b"").unwrap();
    delete_role(&mut auth, "r").unwrap();
    assert_eq!(may(&auth, Read), Err(Refusal::PermissionDenied));
    grant_role(&mut auth, "alice", "root").unwrap();
    assert_eq!((may(&auth, Read), may(&auth, Write)), (Ok(()), Ok(())));
    delete_user(&mut auth, "alice").unwrap();
    assert_eq!(may(&auth, Read), Err(Refusal::PermissionDenied));
}

#[test]
fn who_asks_matters() {
    let mut auth = enabled();
    add_user(&mut auth, "alice").unwrap();
    add_role(&mut auth, "r").unwrap();
    grant_role(&mut auth, "alice", "r").unwrap();
    grant(&mut auth, "r", Type::Read, b"k", b"").unwrap();
    let (root, alice, nobody) = (caller(&auth, "root"), caller(&auth, "alice"), Caller::default());
    let unknown = caller(&auth, "unknown");
    let check = |auth: &Auth, caller: &Caller| auth.check(caller, Read, b"k", b"");
    assert_eq!(check(&auth, &root), Ok(()));
    assert_eq!(check(&auth, &alice), Ok(()));
    assert_eq!(check(&auth, &nobody), Err(Refusal::UserEmpty));
    assert_eq!(check(&auth, &unknown), Err(Refusal::PermissionDenied));
    assert_eq!(check(&auth, &caller(&auth, "")), Err(Refusal::PermissionDenied));
    assert_eq!(auth.check_admin(&root), Ok(()));
    assert_eq!(auth.check_admin(&alice), Err(Refusal::PermissionDenied));
    assert_eq!(auth.check_admin(&nobody), Err(Refusal::UserEmpty));
    assert_eq!(auth.check_admin(&unknown), Err(Refusal::UserNotFound));
    assert_eq!(auth.check_user_get(&alice, "alice"), Ok(()));
    assert_eq!(auth.check_user_get(&alice, "root"), Err(Refusal::PermissionDenied));
    assert_eq!(auth.check_user_get(&root, "alice"), Ok(()));
    assert_eq!(auth.check_user_get(&nobody, "alice"), Err(Refusal::UserEmpty));
    assert_eq!(auth.check_role_get(&alice, "r"), Ok(()));
    assert_eq!(auth.check_role_get(&alice, "root"), Err(Refusal::PermissionDenied));
    assert_eq!(auth.check_role_get(&root, "r"), Ok(()));
    // Something changes: what they were is old, but for administrators as such.
    add_role(&mut auth, "other").unwrap();
    assert_eq!(check(&auth, &alice), Err(Refusal::AuthOldRevision));
    assert_eq!(check(&auth, &root), Err(Refusal::AuthOldRevision));
    assert_eq!(auth.check_admin(&root), Ok(()));
    assert_eq!(check(&auth, &crate::command::cluster_itself()), Ok(()));
    auth.disable().unwrap();
    for caller in [&root, &alice, &nobody, &unknown] {
        assert_eq!((check(&auth, caller), auth.check_admin(caller)), (Ok(()), Ok(())));
    }
}
