use super::super::sample::{Sample, expect, millis, put};
use super::*;
use crate::history::{AuthEnd, Disturbance, Rights, Span, Step, Txn};

const RECOVERY: Duration = Duration::from_secs(10);
const USER: usize = 7;

fn found(sample: Sample) -> Result<(), String> {
    let history = sample.end();
    check(&history, &Truth::of(&history), RECOVERY)
}

fn auth(sample: &mut Sample, call: AuthCall) {
    sample.call(1, Call::Auth(call), Outcome::Done(Reply::Auth(AuthReply::Done)));
}

fn permit(sample: &mut Sample, span: Span, read: bool, write: bool) {
    auth(sample, AuthCall::Permit { role: "r".into(), span, rights: Rights { read, write } });
}

fn denied(sample: &mut Sample, txn: Txn) {
    sample.refused(USER, Call::Txn(txn), "etcdserver: permission denied");
}

/// A user that may read and write keys from b to d.
fn sample() -> Sample {
    let mut sample = Sample::new();
    sample.history.users.insert(USER, "u".into());
    auth(&mut sample, AuthCall::UserAdd { user: "u".into() });
    auth(&mut sample, AuthCall::RoleAdd { role: "r".into() });
    permit(&mut sample, range("b", "c"), true, true);
    permit(&mut sample, range("c", "d"), true, true);
    auth(&mut sample, AuthCall::RoleGrant { user: "u".into(), role: "r".into() });
    auth(&mut sample, AuthCall::Enable);
    sample
}

fn range(from: &str, to: &str) -> Span {
    Span { from: from.into(), to: Some(to.into()) }
}

fn read(span: Span) -> Txn {
    Txn::of(Step::range(span))
}

#[test]
fn what_is_allowed_passes_and_the_rest_is_denied() {
    let mut sample = sample();
    sample.txn(USER, put("b", "1"));
    sample.txn(USER, read(range("b", "d")));
    denied(&mut sample, put("a", "2"));
    denied(&mut sample, read(range("a", "c")));
    sample.txn(1, put("a", "3"));
    assert_eq!(found(sample), Ok(()));
}

#[test]
fn a_call_that_was_not_allowed_is_found() {
    let mut written = sample();
    written.txn(USER, put("a", "1"));
    expect(found(written), "u was not allowed to write a to itself");
    let mut seen = sample();
    seen.txn(USER, read(range("b", "e")));
    expect(found(seen), "u was not allowed to read b to e");
    let mut unknown = sample();
    unknown.unknown(USER, put("a", "1"), false);
    assert_eq!(found(unknown.clone()), Ok(()));
    unknown.unknown(USER, put("a", "2"), true);
    expect(found(unknown), "which was done by");
    // A branch that is not taken counts.
    let mut branch = sample();
    branch.txn(USER, Txn { otherwise: vec![Step::put("a", "1")], ..read(Span::key("b")) });
    expect(found(branch), "u was not allowed to write a");
    let mut prev = sample();
    permit(&mut prev, range("b", "c"), false, true);
    prev.txn(USER, put("b", "1"));
    assert_eq!(found(prev.clone()), Ok(()));
    prev.txn(USER, Txn::of(Step::Put { key: "b".into(), value: "2".into(), lease: 0, prev_kv: true }));
    expect(found(prev), "u was not allowed to read b");
}

#[test]
fn a_revocation_is_obeyed_once_it_is_acknowledged() {
    let revoke: [AuthCall; 5] = [
        AuthCall::Forbid { role: "r".into(), span: range("b", "c") },
        AuthCall::RoleRevoke { user: "u".into(), role: "r".into() },
        AuthCall::RoleDelete { role: "r".into() },
        AuthCall::UserDelete { user: "u".into() },
        AuthCall::Permit { role: "r".into(), span: range("b", "c"), rights: Rights { read: true, write: false } },
    ];
    for revoke in revoke {
        let mut revoked = sample();
        auth(&mut revoked, revoke.clone());
        let mut under_way = revoked.clone();
        denied(&mut revoked, put("b", "0"));
        assert_eq!(found(revoked.clone()), Ok(()), "{revoke:?}");
        let mut switched_off = revoked.clone();
        revoked.txn(USER, put("b", "1"));
        expect(found(revoked), "u was not allowed to write b");
        // While it is under way either may be.
        under_way.now -= millis(15);
        under_way.txn(USER, put("b", "1"));
        assert_eq!(found(under_way), Ok(()), "{revoke:?}");
        auth(&mut switched_off, AuthCall::Disable);
        switched_off.txn(USER, put("b", "1"));
        assert_eq!(found(switched_off), Ok(()), "{revoke:?}");
    }
}

#[test]
fn a_refusal_of_what_is_allowed_is_found() {
    let mut refused = sample();
    denied(&mut refused, put("b", "1"));
    expect(found(refused), "u was allowed to, and was not");
    let mut off = Sample::new();
    off.history.users.insert(USER, "u".into());
    denied(&mut off, put("b", "1"));
    expect(found(off), "u was allowed to, and was not");
    let mut unknown = sample();
    let forbid = AuthCall::Forbid { role: "r".into(), span: range("b", "c") };
    unknown.call(1, Call::Auth(forbid), Outcome::Unknown("timeout".into()));
    denied(&mut unknown, put("b", "1"));
    unknown.txn(USER, put("b", "2"));
    assert_eq!(found(unknown), Ok(()));
}

#[test]
fn a_stale_read_may_be_judged_by_what_was() {
    let mut revoked = sample();
    auth(&mut revoked, AuthCall::RoleRevoke { user: "u".into(), role: "r".into() });
    revoked.txn(USER, Txn { serializable: true, ..read(Span::key("b")) });
    assert_eq!(found(revoked.clone()), Ok(()));
    revoked.txn(USER, read(Span::key("b")));
    expect(found(revoked), "u was not allowed to read b");
}

#[test]
fn a_user_that_is_never_known_is_found() {
    let mut sample = sample();
    let until = sample.now;
    sample.history.disturbances.push(Disturbance { from: until, until, what: "test".into(), effect: None });
    sample.refused(USER, Call::Txn(put("b", "1")), "etcdserver: invalid auth token");
    assert_eq!(found(sample.clone()), Ok(()));
    sample.now += RECOVERY;
    sample.refused(USER, Call::Txn(put("b", "1")), "etcdserver: invalid auth token");
    expect(found(sample), "and u was not known");
}

fn look(sample: &mut Sample, revision: u64) {
    let reply = AuthReply::Status { enabled: true, revision };
    sample.call(1, Call::Auth(AuthCall::Status), Outcome::Done(Reply::Auth(reply)));
}

#[test]
fn a_revision_that_does_not_count_is_found() {
    for (revision, is_right) in [(6, false), (7, true), (8, true), (9, false)] {
        let mut counted = sample();
        look(&mut counted, 6);
        auth(&mut counted, AuthCall::RoleAdd { role: "s".into() });
        // It may have been granted before.
        auth(&mut counted, AuthCall::RoleGrant { user: "u".into(), role: "r".into() });
        look(&mut counted, revision);
        assert_eq!(found(counted).is_ok(), is_right, "{revision}");
    }
}

#[test]
fn an_end_that_no_call_left_is_found() {
    let rights = Rights { read: true, write: true };
    let right = AuthEnd {
        enabled: true,
        revision: 6,
        users: [("u".to_owned(), vec!["r".to_owned()])].into(),
        roles: [("r".to_owned(), vec![(range("b", "c"), rights), (range("c", "d"), rights)])].into(),
    };
    let ends = |end: &AuthEnd| {
        let mut sample = sample();
        sample.history.end.auth = Some(end.clone());
        found(sample)
    };
    assert_eq!(ends(&right), Ok(()));
    expect(ends(&AuthEnd { enabled: false, ..right.clone() }), "users and roles count: false");
    expect(ends(&AuthEnd { users: [("u".to_owned(), vec![])].into(), ..right.clone() }), "user u has role r: false");
    expect(ends(&AuthEnd { users: [].into(), ..right.clone() }), "user u is there: false");
    expect(ends(&AuthEnd { roles: [].into(), ..right.clone() }), "role r is there: false");
    let less = vec![(range("b", "c"), rights)];
    expect(ends(&AuthEnd { roles: [("r".to_owned(), less)].into(), ..right }), "role r has");
}
