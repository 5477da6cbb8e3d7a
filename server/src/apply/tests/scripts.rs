//! Scripts of commands with what they answer, and the events that they make.
//!
//! `check` shows `revision: answer` for each command; a record as `key=value@create/mod/version~lease`,
//! events as `+put` and `-delete`. Rewrite what is expected with `UPDATE_EXPECT=1`.

use expect_test::{Expect, expect};
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use mainstay_proto::etcdserverpb::{AlarmRequest, AlarmType, Compare, PutRequest, RangeRequest, RequestOp};

use super::commands::*;
use super::*;
use crate::command::command::Kind;
use crate::config::{LogFormat, LogLevel};
use crate::logging;

#[track_caller]
fn check(script: &[Kind], expected: Expect) {
    let mut fixture = Fixture::new();
    let mut text = String::new();
    for command in script {
        text += &show(&fixture.apply(command));
        text.push('\n');
    }
    let committed = fixture.state.commit(Bytes::new()).unwrap();
    text += "events\n";
    text += &show_events(&committed.events);
    expected.assert_eq(&text);
}

#[test]
fn puts_count_versions_and_start_again_after_a_delete() {
    check(
        &[
            put("a", "1"),
            put("a", "2"),
            Kind::Put(PutRequest { prev_kv: true, ..put_request("a", "") }),
            delete("a", ""),
            delete("a", ""),
            Kind::Put(PutRequest { prev_kv: true, ..put_request("a", "4") }),
            Kind::Put(PutRequest { prev_kv: true, ..put_request("a", "5") }),
        ],
        expect![[r#"
            2: put
            3: put
            4: put over a=2@2/3/2
            5: deleted 1
            5: deleted 0
            6: put
            7: put over a=4@6/6/1
            events
            2: +a
            3: +a
            4: +a
            5: -a
            6: +a
            7: +a
        "#]],
    );
}

#[test]
fn puts_that_keep_the_value_or_the_lease() {
    let keep_value = || PutRequest { ignore_value: true, ..put_request("a", "") };
    let keep_lease = || PutRequest { ignore_lease: true, prev_kv: true, ..put_request("a", "2") };
    check(
        &[
            Kind::Put(keep_value()),
            Kind::Put(keep_lease()),
            grant(7, 60),
            put_leased("a", "1", 7),
            Kind::Put(keep_lease()),
            Kind::Put(keep_value()),
            Kind::Put(keep_lease()),
            Kind::Put(PutRequest { lease: 8, ..keep_value() }),
            put("", "no key is empty"),
        ],
        expect![[r#"
            1: KeyNotFound
            1: KeyNotFound
            1: granted 7 for 60
            2: put
            3: put over a=1@2/2/1~7
            4: put
            5: put over a=2@2/4/3
            5: LeaseNotFound
            5: KeyNotFound
            events
            2: +a
            3: +a
            4: +a
            5: +a
        "#]],
    );
}

#[test]
fn deletes_answer_what_they_deleted_in_key_order() {
    let mut with_prev = delete_request("a", "c");
    with_prev.prev_kv = true;
    check(
        &[
            put("b", "1"),
            put("a", "2"),
            put("c", "3"),
            Kind::DeleteRange(with_prev),
            delete("b", "a"),
            delete("", ""),
            delete("a", "\0"),
            delete("\0", "\0"),
        ],
        expect![[r#"
            2: put
            3: put
            4: put
            5: deleted 2 a=2@3/3/1 b=1@2/2/1
            5: deleted 0
            5: deleted 0
            6: deleted 1
            6: deleted 0
            events
            2: +b
            3: +a
            4: +c
            5: -a -b
            6: -c
        "#]],
    );
}

#[test]
fn a_revoked_lease_takes_its_keys_in_one_revision() {
    check(
        &[
            grant(7, 60),
            grant(7, 60),
            grant(0, 60),
            grant(-3, 5),
            put_leased("c", "", 7),
            put_leased("a", "", 7),
            put_leased("b", "", -3),
            put_leased("d", "", 9),
            revoke(7),
            revoke(7),
            put_leased("a", "", -3),
            put("b", "detached"),
            delete("a", ""),
            revoke(-3),
        ],
        expect![[r#"
            1: granted 7 for 60
            1: LeaseExists
            1: LeaseNotFound
            1: granted -3 for 5
            2: put
            3: put
            4: put
            4: LeaseNotFound
            5: revoked
            5: LeaseNotFound
            6: put
            7: put
            8: deleted 1
            8: revoked
            events
            2: +c
            3: +a
            4: +b
            5: -a -c
            6: +a
            7: +b
            8: -a
        "#]],
    );
}

#[test]
fn checkpoints_pass_over_what_is_not_there() {
    check(
        &[grant(7, 60), checkpoint(7, 30), checkpoint(8, 30), checkpoint(7, 0)],
        expect![[r#"
        1: granted 7 for 60
        1: checkpointed
        1: checkpointed
        1: checkpointed
        events
    "#]],
    );
}

#[test]
fn compaction_moves_forward_only() {
    check(
        &[
            compact(-1),
            compact(0),
            compact(0),
            compact(1),
            compact(2),
            put("a", ""),
            compact(2),
            compact(1),
            delete("a", ""),
            put("a", ""),
            compact(4),
        ],
        expect![[r#"
            1: Compacted
            1: compacted
            1: Compacted
            1: compacted
            1: FutureRevision
            2: put
            2: compacted
            2: Compacted
            3: deleted 1
            4: put
            4: compacted
            events
            2: +a
            3: -a
            4: +a
        "#]],
    );
}

#[test]
fn a_txn_writes_one_revision_and_sees_its_own_writes() {
    check(
        &[
            put("a", "0"),
            txn(
                vec![],
                vec![
                    reads_key("a"),
                    does(put("b", "1")),
                    reads_key("b"),
                    does(Kind::Put(PutRequest { prev_kv: true, ..put_request("a", "2") })),
                    does(delete("b", "\0")),
                    reads(range_request("a", "\0")),
                    does(delete("x", "")),
                ],
                vec![],
            ),
            txn(vec![], vec![reads_key("a"), does(delete("x", ""))], vec![]),
            txn(vec![], vec![], vec![does(put("a", ""))]),
        ],
        expect![[r#"
            2: put
            3: txn succeeded
              2: 1 of a=0@2/2/1
              3: put
              3: 1 of b=1@3/3/1
              3: put over a=0@2/2/1
              3: deleted 1
              3: 1 of a=2@2/3/2
              3: deleted 0
            3: txn succeeded
              3: 1 of a=2@2/3/2
              3: deleted 0
            3: txn succeeded
            events
            2: +a
            3: +b +a -b
        "#]],
    );
}

#[test]
fn nested_txns_compare_with_what_was_before_the_whole() {
    check(
        &[
            txn(
                vec![absent("a")],
                vec![
                    does(put("a", "1")),
                    does(txn(
                        vec![absent("a")],
                        vec![does(put("b", "a was absent before")), does(txn(vec![], vec![reads_key("b")], vec![]))],
                        vec![does(put("b", "a was there before"))],
                    )),
                    reads(range_request("a", "c")),
                ],
                vec![],
            ),
            txn(vec![absent("a")], vec![], vec![does(txn(vec![absent("c")], vec![reads_key("c")], vec![]))]),
        ],
        expect![[r#"
            2: txn succeeded
              2: put
              0: txn succeeded
                2: put
                0: txn succeeded
                  2: 1 of b=a was absent before@2/2/1
              2: 2 of a=1@2/2/1 b=a was absent before@2/2/1
            2: txn failed
              0: txn succeeded
                2: 0 of
            events
            2: +a +b
        "#]],
    );
}

#[test]
fn a_refused_txn_writes_nothing() {
    let at = |revision| reads(RangeRequest { revision, ..range_request("a", "") });
    let keep_value = |key| does(Kind::Put(PutRequest { ignore_value: true, ..put_request(key, "") }));
    let keep_lease = |key| does(Kind::Put(PutRequest { ignore_lease: true, ..put_request(key, "") }));
    let first = || does(put("z", ""));
    let taken = |operation: RequestOp| txn(vec![], vec![first(), operation], vec![]);
    check(
        &[
            put("a", "1"),
            put("a", "2"),
            compact(2),
            taken(does(put_leased("a", "", 9))),
            taken(at(4)),
            taken(at(3)),
            taken(at(2)),
            taken(at(1)),
            taken(at(-2)),
            taken(at(-1)),
            taken(keep_value("b")),
            taken(keep_lease("b")),
            taken(does(txn(vec![], vec![does(put_leased("a", "", 9))], vec![]))),
            // In the branch that is not taken nothing is looked at.
            txn(vec![], vec![], vec![does(put_leased("a", "", 9)), at(1), keep_value("b")]),
            taken(does(txn(vec![], vec![], vec![does(put_leased("a", "", 9))]))),
        ],
        expect![[r#"
            2: put
            3: put
            3: compacted
            3: LeaseNotFound
            3: FutureRevision
            4: txn succeeded
              4: put
              4: 1 of a=2@2/3/2
            5: txn succeeded
              5: put
              5: 1 of a=1@2/2/1
            5: Compacted
            5: Compacted
            5: Compacted
            5: KeyNotFound
            5: KeyNotFound
            5: LeaseNotFound
            5: txn succeeded
            6: txn succeeded
              6: put
              0: txn succeeded
            events
            2: +a
            3: +a
            4: +z
            5: +z
            6: +z
        "#]],
    );
}

/// etcd 3.7 dies of the first of these: its check sees the key, the operation does not.
#[test]
fn a_key_deleted_by_the_txn_is_not_there_to_be_kept() {
    let keep_value = || does(Kind::Put(PutRequest { ignore_value: true, ..put_request("a", "") }));
    let keep_lease = || does(Kind::Put(PutRequest { ignore_lease: true, ..put_request("a", "new") }));
    check(
        &[
            put("a", "1"),
            txn(vec![], vec![does(delete("a", "")), keep_lease()], vec![]),
            txn(vec![], vec![does(put("b", "")), does(delete("a", "\0")), keep_value()], vec![]),
            txn(vec![], vec![does(txn(vec![], vec![does(delete("a", ""))], vec![])), keep_value()], vec![]),
            // The delete is not on the way, or not of this key, or made good by a put.
            txn(vec![], vec![does(txn(vec![], vec![], vec![does(delete("a", ""))])), keep_value()], vec![]),
            txn(vec![], vec![does(delete("b", "\0")), keep_lease()], vec![]),
            txn(vec![], vec![does(delete("a", "")), does(put("a", "again")), keep_value(), reads_key("a")], vec![]),
        ],
        expect![[r#"
            2: put
            2: KeyNotFound
            2: KeyNotFound
            2: KeyNotFound
            3: txn succeeded
              0: txn succeeded
              3: put
            4: txn succeeded
              3: deleted 0
              4: put
            5: txn succeeded
              5: deleted 1
              5: put
              5: put
              5: 1 of a=again@5/5/2
            events
            2: +a
            3: +a
            4: +a
            5: -a +a +a
        "#]],
    );
}

#[test]
fn a_key_deleted_and_put_again_in_one_txn_is_new() {
    check(
        &[
            grant(7, 60),
            put_leased("a", "1", 7),
            txn(vec![], vec![does(delete("a", "")), does(put("a", "2")), reads_key("a")], vec![]),
            put("a", "3"),
            compact(4),
            Kind::DeleteRange({
                let mut delete = delete_request("a", "");
                delete.prev_kv = true;
                delete
            }),
            revoke(7),
        ],
        expect![[r#"
            1: granted 7 for 60
            2: put
            3: txn succeeded
              3: deleted 1
              3: put
              3: 1 of a=2@3/3/1
            4: put
            4: compacted
            5: deleted 1 a=3@3/4/2
            5: revoked
            events
            2: +a
            3: -a +a
            4: +a
            5: -a
        "#]],
    );
}

#[test]
fn leases_follow_the_writes_of_a_txn() {
    check(
        &[
            grant(1, 60),
            grant(2, 60),
            put_leased("a", "", 1),
            put_leased("b", "", 1),
            txn(
                vec![],
                vec![does(put_leased("a", "", 2)), does(delete("b", "")), does(put_leased("c", "", 1))],
                vec![],
            ),
            revoke(1),
            revoke(2),
        ],
        expect![[r#"
            1: granted 1 for 60
            1: granted 2 for 60
            2: put
            3: put
            4: txn succeeded
              4: put
              4: deleted 1
              4: put
            5: revoked
            6: revoked
            events
            2: +a
            3: +b
            4: +a -b +c
            5: -c
            6: -a
        "#]],
    );
}

#[test]
fn operations_that_ask_nothing_are_answered_by_nothing() {
    let nothing = || RequestOp { request: None };
    check(
        &[txn(vec![], vec![nothing(), does(put("a", "")), nothing()], vec![]), txn(vec![], vec![nothing()], vec![])],
        expect![[r#"
            2: txn succeeded
              nothing
              2: put
              nothing
            2: txn succeeded
              nothing
            events
            2: +a
        "#]],
    );
}

#[test]
fn no_space_stops_what_grows() {
    let lift = || alarm(AlarmAction::Deactivate, 1, AlarmType::Nospace);
    check(
        &[
            put("a", "1"),
            grant(7, 60),
            alarm(AlarmAction::Activate, 1, AlarmType::Nospace),
            put("b", "2"),
            put("a", "2"),
            grant(8, 60),
            txn(vec![], vec![does(put("b", ""))], vec![]),
            txn(vec![], vec![reads_key("a")], vec![does(txn(vec![], vec![does(put("b", ""))], vec![]))]),
            txn(vec![], vec![reads_key("a"), does(delete("a", ""))], vec![]),
            delete("a", ""),
            compact(2),
            checkpoint(7, 5),
            revoke(7),
            lift(),
            put("b", "2"),
        ],
        expect![[r#"
            2: put
            2: granted 7 for 60
            2: alarms NOSPACE@1
            2: NoSpace
            2: NoSpace
            2: NoSpace
            2: NoSpace
            2: NoSpace
            3: txn succeeded
              2: 1 of a=1@2/2/1
              3: deleted 1
            3: deleted 0
            3: compacted
            3: checkpointed
            3: revoked
            3: alarms NOSPACE@1
            4: put
            events
            2: +a
            3: -a
            4: +b
        "#]],
    );
}

#[test]
fn without_space_values_may_still_shrink() {
    check(
        &[
            put("a", "12345"),
            alarm(AlarmAction::Activate, 1, AlarmType::Nospace),
            put("a", "1234"),
            txn(vec![], vec![does(put("a", "123"))], vec![]),
            txn(vec![], vec![does(put("a", "12"))], vec![does(put("b", ""))]),
        ],
        expect![[r#"
            2: put
            2: alarms NOSPACE@1
            3: put
            4: txn succeeded
              4: put
            4: NoSpace
            events
            2: +a
            3: +a
            4: +a
        "#]],
    );
}

#[test]
fn a_corrupt_cluster_is_left_alone() {
    check(
        &[
            put("a", "1"),
            grant(7, 60),
            alarm(AlarmAction::Activate, 1, AlarmType::Nospace),
            alarm(AlarmAction::Activate, 2, AlarmType::Corrupt),
            put("b", "2"),
            delete("a", ""),
            txn(vec![], vec![reads_key("a")], vec![]),
            compact(2),
            grant(8, 60),
            revoke(7),
            checkpoint(7, 5),
            alarm(AlarmAction::Get, 0, AlarmType::None),
            alarm(AlarmAction::Deactivate, 2, AlarmType::Corrupt),
            put("b", "2"),
            delete("a", ""),
        ],
        expect![[r#"
            2: put
            2: granted 7 for 60
            2: alarms NOSPACE@1
            2: alarms CORRUPT@2
            2: Corrupt
            2: Corrupt
            2: Corrupt
            2: Corrupt
            2: Corrupt
            2: Corrupt
            2: checkpointed
            2: alarms NOSPACE@1 CORRUPT@2
            2: alarms CORRUPT@2
            2: NoSpace
            3: deleted 1
            events
            2: +a
            3: -a
        "#]],
    );
}

#[test]
fn an_alarm_is_logged_when_it_is_raised_and_when_it_is_disarmed() {
    use AlarmAction::{Activate, Deactivate};
    let mut fixture = Fixture::new();
    let lines = logging::tests::lines(LogLevel::Info, LogFormat::Console, || {
        for action in [Activate, Activate, Deactivate, Deactivate] {
            fixture.apply(&alarm(action, 258, AlarmType::Nospace));
        }
    });
    let told = |line: &String| {
        let columns: Vec<&str> = line.trim_end().split('\t').collect();
        [columns[1], columns[3], columns[4]].join(" ")
    };
    let told: Vec<String> = lines.iter().filter(|line| line.contains("alarm.rs:")).map(told).collect();
    let fields = r#"{"alarm":"NOSPACE","member-id":"102"}"#;
    assert_eq!(told, [format!("warn alarm raised {fields}"), format!("info alarm disarmed {fields}")]);
}

#[test]
fn alarms_are_raised_listed_and_lifted() {
    use AlarmAction::{Activate, Deactivate, Get};
    use AlarmType::{Corrupt, Nospace};
    check(
        &[
            alarm(Get, 0, AlarmType::None),
            alarm(Activate, 2, Nospace),
            alarm(Activate, 2, Nospace),
            alarm(Activate, 1, Nospace),
            alarm(Activate, 1, Corrupt),
            alarm(Activate, 1, AlarmType::None),
            alarm(Get, 0, AlarmType::None),
            alarm(Get, 9, Nospace),
            alarm(Deactivate, 9, Nospace),
            alarm(Deactivate, 2, Corrupt),
            alarm(Deactivate, 1, AlarmType::None),
            alarm(Deactivate, 2, Nospace),
            Kind::Alarm(AlarmRequest { action: 3, member_id: 1, alarm: 1 }),
            alarm(Get, 0, AlarmType::None),
        ],
        expect![[r#"
            1: alarms
            1: alarms NOSPACE@2
            1: alarms NOSPACE@2
            1: alarms NOSPACE@1
            1: alarms CORRUPT@1
            1: alarms
            1: alarms NOSPACE@1 NOSPACE@2 CORRUPT@1
            1: alarms NOSPACE@1 NOSPACE@2
            1: alarms
            1: alarms
            1: alarms
            1: alarms NOSPACE@2
            1: alarms
            1: alarms NOSPACE@1 CORRUPT@1
            events
        "#]],
    );
}

/// Which of the compares hold for `a`, which was put twice with lease 7, is `vv` and was created at 2.
#[track_caller]
fn check_compares(compares: &[(Compare, bool)]) {
    let mut fixture = Fixture::new();
    for command in [grant(7, 60), put_leased("a", "v", 7), put("b", "w"), put_leased("a", "vv", 7)] {
        fixture.apply(&command);
    }
    for (compare, expected) in compares {
        let outcome = fixture.apply(&txn(vec![compare.clone()], vec![], vec![]));
        let Some(outcome::Reply::Txn(reply)) = outcome.reply else { panic!("{compare:?}: {outcome:?}") };
        assert_eq!(reply.succeeded, *expected, "{compare:?}");
    }
}

#[test]
fn compares_look_at_one_thing_each() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
    let check_all = |operand: fn(i64) -> TargetUnion, found: i64| {
        for (result, below, same, above) in [
            (Equal, false, true, false),
            (Greater, true, false, false),
            (Less, false, false, true),
            (NotEqual, true, false, true),
        ] {
            check_compares(&[
                (compare("a", result, operand(found - 1)), below),
                (compare("a", result, operand(found)), same),
                (compare("a", result, operand(found + 1)), above),
                // What does not exist compares as 0.
                (compare("x", result, operand(-1)), below),
                (compare("x", result, operand(0)), same),
                (compare("x", result, operand(1)), above),
            ]);
        }
    };
    check_all(Version, 2);
    check_all(CreateRevision, 2);
    check_all(ModRevision, 4);
    check_all(Lease, 7);
    let value = |key, result, value: &'static str| compare(key, result, Value(value.into()));
    check_compares(&[
        (value("a", Equal, "vv"), true),
        (value("a", NotEqual, "vv"), false),
        (value("a", Greater, "v"), true),
        (value("a", Less, "w"), true),
        // No value compares with anything where there is none.
        (value("x", Equal, ""), false),
        (value("x", NotEqual, ""), false),
        (value("x", Less, "z"), false),
    ]);
}

#[test]
fn compares_of_a_range_must_hold_for_every_key() {
    use CompareResult::{Equal, Greater};
    let range = |range_end: &'static str, compare: Compare| Compare { range_end: range_end.into(), ..compare };
    check_compares(&[
        (range("c", compare("a", Greater, TargetUnion::Version(0))), true),
        (range("c", compare("a", Greater, TargetUnion::Version(1))), false),
        (range("b", compare("a", Greater, TargetUnion::Version(1))), true),
        (range("\0", compare("a", Greater, TargetUnion::Value("v".into()))), true),
        (range("\0", compare("a", Equal, TargetUnion::Lease(7))), false),
        (range("b", compare("a", Equal, TargetUnion::Lease(7))), true),
        // A range without keys behaves as a key that does not exist.
        (range("z", compare("x", Equal, TargetUnion::Version(0))), true),
        (range("z", compare("x", Equal, TargetUnion::Value("".into()))), false),
        (range("a", compare("b", Equal, TargetUnion::Version(0))), true),
    ]);
}

#[test]
fn compares_that_make_no_sense_mostly_hold() {
    let plain = || compare("a", CompareResult::Equal, TargetUnion::Version(2));
    check_compares(&[
        (Compare { result: 9, ..plain() }, true),
        (Compare { result: 9, key: "x".into(), ..plain() }, true),
        // An unknown target compares nothing with nothing.
        (Compare { target: 9, ..plain() }, true),
        (Compare { target: 9, result: CompareResult::Greater.into(), ..plain() }, false),
        // A missing operand, or one of another kind, counts as zero.
        (Compare { target_union: None, ..plain() }, false),
        (Compare { target_union: None, result: CompareResult::Greater.into(), ..plain() }, true),
        (Compare { target_union: Some(TargetUnion::Lease(2)), ..plain() }, false),
    ]);
}
