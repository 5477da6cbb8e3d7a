//! What streams are sent, as etcd 3.7.1 was seen to send it.

use expect_test::{Expect, expect};

use super::world::play;

#[track_caller]
fn check(script: &str, expected: Expect) {
    expected.assert_eq(&play(script));
}

#[test]
fn ids() {
    check(
        "
        watch s a
        watch s a id=1
        watch s a
        watch s a id=1
        watch s a id=-1
        watch s a id=-7
        cancel s 2
        watch s a
        watch s a id=2
        cancel s 0
        watch s a
        cancel s 77
        cancel s -1
        watch t a
        ",
        expect![[r#"
            > watch s a
              s id=0 rev=1 created
            > watch s a id=1
              s id=1 rev=1 created
            > watch s a
              s id=2 rev=1 created
            > watch s a id=1
              s id=-1 rev=1 created canceled reason="mvcc: duplicate watch ID provided on the WatchStream"
            > watch s a id=-1
              s id=-1 rev=1 created
            > watch s a id=-7
              s id=-7 rev=1 created
            > cancel s 2
              s id=2 rev=1 canceled
            > watch s a
              s id=3 rev=1 created
            > watch s a id=2
              s id=2 rev=1 created
            > cancel s 0
              s id=0 rev=1 canceled
            > watch s a
              s id=4 rev=1 created
            > cancel s 77
            > cancel s -1
              s id=-1 rev=1 canceled
            > watch t a
              t id=0 rev=1 created
        "#]],
    );
}

#[test]
fn refusals() {
    check(
        "
        watch s a id=1
        watch s b..a id=1 from=-1
        watch s a id=1 from=-1
        watch s b..a from=-1
        watch s b..b
        watch s b..a id=1
        watch s a from=-1
        refuse s a
        watch s a
        watch s ''
        watch s ''..
        watch s ''..a
        put \\0 v
        ",
        expect![[r#"
            > watch s a id=1
              s id=1 rev=1 created
            > watch s b..a id=1 from=-1
              s id=-1 rev=1 created canceled reason="etcdserver: mvcc: required revision has been compacted"
            > watch s a id=1 from=-1
              s id=-1 rev=1 created canceled reason="etcdserver: mvcc: required revision has been compacted"
            > watch s b..a from=-1
              s id=-1 rev=1 created canceled reason="etcdserver: mvcc: required revision has been compacted"
            > watch s b..b
              s id=-1 rev=1 created canceled reason="mvcc: watcher range is empty"
            > watch s b..a id=1
              s id=-1 rev=1 created canceled reason="mvcc: watcher range is empty"
            > watch s a from=-1
              s id=-1 rev=1 created canceled reason="etcdserver: mvcc: required revision has been compacted"
            > refuse s a
              s id=-1 rev=1 created canceled reason="not allowed"
            > watch s a
              s id=0 rev=1 created
            > watch s ''
              s id=2 rev=1 created
            > watch s ''..
              s id=3 rev=1 created
            > watch s ''..a
              s id=4 rev=1 created
            > put \0 v
              s id=2 rev=2 [PUT \x00@2]
              s id=3 rev=2 [PUT \x00@2]
              s id=4 rev=2 [PUT \x00@2]
        "#]],
    );
}

#[test]
fn past_present_and_future() {
    check(
        "
        put a 1
        put b 1
        put a 2
        watch s a from=2
        watch s a..c from=3
        watch s a
        watch s a from=4
        watch s a from=6
        put a 3
        progress s
        put a 4
        progress s
        watch s b from=1
        ",
        expect![[r#"
            > put a 1
            > put b 1
            > put a 2
            > watch s a from=2
              s id=0 rev=4 created
              s id=0 rev=4 [PUT a@2] [PUT a@4]
            > watch s a..c from=3
              s id=1 rev=4 created
              s id=1 rev=4 [PUT b@3] [PUT a@4]
            > watch s a
              s id=2 rev=4 created
            > watch s a from=4
              s id=3 rev=4 created
              s id=3 rev=4 [PUT a@4]
            > watch s a from=6
              s id=4 rev=4 created
            > put a 3
              s id=0 rev=5 [PUT a@5]
              s id=1 rev=5 [PUT a@5]
              s id=2 rev=5 [PUT a@5]
              s id=3 rev=5 [PUT a@5]
            > progress s
            > put a 4
              s id=0 rev=6 [PUT a@6]
              s id=1 rev=6 [PUT a@6]
              s id=2 rev=6 [PUT a@6]
              s id=3 rev=6 [PUT a@6]
              s id=4 rev=6 [PUT a@6]
            > progress s
              s id=-1 rev=6
            > watch s b from=1
              s id=5 rev=6 created
              s id=5 rev=6 [PUT b@3]
        "#]],
    );
}

#[test]
fn progress_on_request() {
    check(
        "
        progress s
        put p 1
        watch s p from=3
        progress s
        put other 1
        progress s
        watch s p
        progress s
        watch s p from=1000000
        progress s
        cancel s 2
        progress s
        ",
        expect![[r#"
            > progress s
            > put p 1
            > watch s p from=3
              s id=0 rev=2 created
            > progress s
            > put other 1
            > progress s
              s id=-1 rev=3
            > watch s p
              s id=1 rev=3 created
            > progress s
              s id=-1 rev=3
            > watch s p from=1000000
              s id=2 rev=3 created
            > progress s
            > cancel s 2
              s id=2 rev=3 canceled
            > progress s
              s id=-1 rev=3
        "#]],
    );
}

#[test]
fn a_progress_notice_comes_when_nothing_else_did() {
    check(
        "
        watch s a notify
        watch s b notify
        watch s c
        watch s d notify from=1000000
        sleep 599
        put a 1
        sleep 61
        sleep 540
        put z 1
        sleep 120
        ",
        expect![[r#"
            > watch s a notify
              s id=0 rev=1 created
            > watch s b notify
              s id=1 rev=1 created
            > watch s c
              s id=2 rev=1 created
            > watch s d notify from=1000000
              s id=3 rev=1 created
            > sleep 599
            > put a 1
              s id=0 rev=2 [PUT a@2]
            > sleep 61
              s id=1 rev=2
            > sleep 540
              s id=0 rev=2
            > put z 1
            > sleep 120
              s id=1 rev=3
        "#]],
    );
}

#[test]
fn compaction() {
    check(
        "
        put c 1
        put c 2
        put c 3
        put c 4
        compact 4
        watch s c from=2 id=5
        progress s
        watch s c id=5
        cancel s 5
        watch s c id=5
        progress s
        watch s c from=4 prev
        watch s c from=5 prev
        put c 5
        ",
        expect![[r#"
            > put c 1
            > put c 2
            > put c 3
            > put c 4
            > compact 4
            > watch s c from=2 id=5
              s id=5 rev=5 created
              s id=5 rev=0 canceled compact=4
            > progress s
            > watch s c id=5
              s id=-1 rev=5 created canceled reason="mvcc: duplicate watch ID provided on the WatchStream"
            > cancel s 5
              s id=5 rev=5 canceled
            > watch s c id=5
              s id=5 rev=5 created
            > progress s
              s id=-1 rev=5
            > watch s c from=4 prev
              s id=0 rev=5 created
              s id=0 rev=5 [PUT c@4] [PUT c@5 prev=4]
            > watch s c from=5 prev
              s id=1 rev=5 created
              s id=1 rev=5 [PUT c@5 prev=4]
            > put c 5
              s id=5 rev=6 [PUT c@6]
              s id=0 rev=6 [PUT c@6 prev=5]
              s id=1 rev=6 [PUT c@6 prev=5]
        "#]],
    );
}

#[test]
fn filters_and_records_before() {
    check(
        "
        watch s f..g noput
        watch s f..g nodelete prev
        watch s f..g noput nodelete
        watch s f..g prev
        put f1 a
        put f1 b
        del f..g
        put f2 x
        txn put f1 1; put f2 1; put g 1
        watch s f..g from=5 prev
        del f1..z
        ",
        expect![[r#"
            > watch s f..g noput
              s id=0 rev=1 created
            > watch s f..g nodelete prev
              s id=1 rev=1 created
            > watch s f..g noput nodelete
              s id=2 rev=1 created
            > watch s f..g prev
              s id=3 rev=1 created
            > put f1 a
              s id=1 rev=2 [PUT f1@2]
              s id=3 rev=2 [PUT f1@2]
            > put f1 b
              s id=1 rev=3 [PUT f1@3 prev=2]
              s id=3 rev=3 [PUT f1@3 prev=2]
            > del f..g
              s id=0 rev=4 [DELETE f1@4]
              s id=3 rev=4 [DELETE f1@4 prev=3]
            > put f2 x
              s id=1 rev=5 [PUT f2@5]
              s id=3 rev=5 [PUT f2@5]
            > txn put f1 1; put f2 1; put g 1
              s id=1 rev=6 [PUT f1@6] [PUT f2@6 prev=5]
              s id=3 rev=6 [PUT f1@6] [PUT f2@6 prev=5]
            > watch s f..g from=5 prev
              s id=4 rev=6 created
              s id=4 rev=6 [PUT f2@5] [PUT f1@6] [PUT f2@6 prev=5]
            > del f1..z
              s id=0 rev=7 [DELETE f1@7] [DELETE f2@7]
              s id=3 rev=7 [DELETE f1@7 prev=6] [DELETE f2@7 prev=6]
              s id=4 rev=7 [DELETE f1@7 prev=6] [DELETE f2@7 prev=6]
        "#]],
    );
}

#[test]
fn large_responses_are_split_for_who_wants_it() {
    check(
        "
        put g0 KiB=1024
        put g1 KiB=1024
        put g2 KiB=1024
        put g3 KiB=1024
        watch s g..h from=2 fragment
        watch s g..h from=2
        put g0 KiB=600
        txn put h0 KiB=512; put h1 KiB=512; put h2 KiB=512; put h3 KiB=512; put h4 KiB=512
        watch s h..i from=7 fragment
        ",
        expect![[r#"
            > put g0 KiB=1024
            > put g1 KiB=1024
            > put g2 KiB=1024
            > put g3 KiB=1024
            > watch s g..h from=2 fragment
              s id=0 rev=5 created
              s id=0 rev=5 fragment [PUT g0@2]
              s id=0 rev=5 fragment [PUT g1@3]
              s id=0 rev=5 fragment [PUT g2@4]
              s id=0 rev=5 [PUT g3@5]
            > watch s g..h from=2
              s id=1 rev=5 created
              s id=1 rev=5 [PUT g0@2] [PUT g1@3] [PUT g2@4] [PUT g3@5]
            > put g0 KiB=600
              s id=0 rev=6 [PUT g0@6]
              s id=1 rev=6 [PUT g0@6]
            > txn put h0 KiB=512; put h1 KiB=512; put h2 KiB=512; put h3 KiB=512; put h4 KiB=512
            > watch s h..i from=7 fragment
              s id=2 rev=7 created
              s id=2 rev=7 fragment [PUT h0@7] [PUT h1@7] [PUT h2@7]
              s id=2 rev=7 [PUT h3@7] [PUT h4@7]
        "#]],
    );
}

#[test]
fn a_store_ahead_of_the_hub_is_not_told_twice() {
    check(
        "
        put a 1
        hold
        put a 2
        put a 3
        watch s a
        watch s a from=3
        watch s a from=2
        progress s
        watch t a
        progress t
        publish
        progress s
        progress t
        put a 4
        ",
        expect![[r#"
            > put a 1
            > hold
            > put a 2
            > put a 3
            > watch s a
              s id=0 rev=4 created
            > watch s a from=3
              s id=1 rev=4 created
            > watch s a from=2
              s id=2 rev=4 created
              s id=2 rev=2 [PUT a@2]
            > progress s
            > watch t a
              t id=0 rev=4 created
            > progress t
            > publish
              s id=1 rev=4 [PUT a@3] [PUT a@4]
              s id=2 rev=4 [PUT a@3] [PUT a@4]
            > progress s
              s id=-1 rev=4
            > progress t
              t id=-1 rev=4
            > put a 4
              s id=0 rev=5 [PUT a@5]
              s id=1 rev=5 [PUT a@5]
              s id=2 rev=5 [PUT a@5]
              t id=0 rev=5 [PUT a@5]
        "#]],
    );
}

#[test]
fn after_a_snapshot_everyone_goes_on_where_they_were() {
    check(
        "
        put a 1
        watch s a
        watch s a from=4
        watch s a from=7
        hold
        put a 2
        put a 3
        put a 4
        restored
        progress s
        put a 5
        put a 6
        progress s
        ",
        expect![[r#"
            > put a 1
            > watch s a
              s id=0 rev=2 created
            > watch s a from=4
              s id=1 rev=2 created
            > watch s a from=7
              s id=2 rev=2 created
            > hold
            > put a 2
            > put a 3
            > put a 4
            > restored
              s id=0 rev=5 [PUT a@3] [PUT a@4] [PUT a@5]
              s id=1 rev=5 [PUT a@4] [PUT a@5]
            > progress s
            > put a 5
              s id=0 rev=6 [PUT a@6]
              s id=1 rev=6 [PUT a@6]
            > put a 6
              s id=0 rev=7 [PUT a@7]
              s id=1 rev=7 [PUT a@7]
              s id=2 rev=7 [PUT a@7]
            > progress s
              s id=-1 rev=7
        "#]],
    );
}

#[test]
fn a_snapshot_that_compacted_what_was_missed_cancels() {
    check(
        "
        watch s a
        watch s a from=5
        hold
        put a 1
        put a 2
        put a 3
        put a 4
        compact 4
        restored
        put a 5
        ",
        expect![[r#"
            > watch s a
              s id=0 rev=1 created
            > watch s a from=5
              s id=1 rev=1 created
            > hold
            > put a 1
            > put a 2
            > put a 3
            > put a 4
            > compact 4
            > restored
              s id=0 rev=0 canceled compact=4
              s id=1 rev=5 [PUT a@5]
            > put a 5
              s id=1 rev=6 [PUT a@6]
        "#]],
    );
}

#[test]
fn streams_are_counted_and_end() {
    check(
        "
        watch s a
        watch s b
        watch t a
        put a 1
        stats
        cancel s 1
        close t
        stats
        slow
        put a 2 unread
        stats
        close s
        stats
        watch u a
        stop
        stats
        ",
        expect![[r#"
            > watch s a
              s id=0 rev=1 created
            > watch s b
              s id=1 rev=1 created
            > watch t a
              t id=0 rev=1 created
            > put a 1
              s id=0 rev=2 [PUT a@2]
              t id=0 rev=2 [PUT a@2]
            > stats
              streams=2 watchers=3 slow=0 pending=0 events=2
            > cancel s 1
              s id=1 rev=2 canceled
            > close t
            > stats
              streams=1 watchers=1 slow=0 pending=0 events=2
            > slow
            > put a 2 unread
            > stats
              streams=1 watchers=1 slow=0 pending=1 events=3
            > close s
            > stats
              streams=0 watchers=0 slow=0 pending=0 events=3
            > watch u a
              u id=0 rev=3 created
            > stop
              u server stopped
            > stats
              streams=1 watchers=1 slow=0 pending=0 events=3
        "#]],
    );
}
