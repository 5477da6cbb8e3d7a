use super::super::sample::{Sample, expect, get, millis};
use super::*;
use crate::history::{Header, Listed, MemberReply, Started};

fn listed(members: &[(u64, bool)]) -> Vec<Listed> {
    let of = |(id, is_learner): &(u64, bool)| Listed {
        id: *id,
        name: String::new(),
        peer_urls: vec![url(*id)],
        is_learner: *is_learner,
    };
    members.iter().map(of).collect()
}

fn url(id: u64) -> String {
    format!("http://10.0.0.{id}:2380")
}

fn done(sample: &mut Sample, call: MemberCall, added: Option<u64>, members: &[(u64, bool)]) {
    let reply = Reply::Members(MemberReply { added, members: listed(members) });
    sample.call(90, Call::Member(call), Outcome::Done(reply));
}

fn list(sample: &mut Sample, members: &[(u64, bool)]) {
    done(sample, MemberCall::List { linearizable: true }, None, members);
}

fn add(id: u64, learner: bool) -> MemberCall {
    MemberCall::Add { urls: vec![url(id)], learner }
}

fn started(sample: &mut Sample, id: u64) {
    let (url, at) = (url(id), sample.now);
    sample.history.joined.push(Started { url, at });
}

fn refused(sample: &mut Sample, call: MemberCall, text: &str) {
    sample.call(90, Call::Member(call), Outcome::Refused(format!("etcdserver: {text}")));
}

/// One member; a learner joins and gets its vote.
fn sample() -> Sample {
    let mut sample = Sample::new();
    list(&mut sample, &[(1, false)]);
    done(&mut sample, add(2, true), Some(2), &[(1, false), (2, true)]);
    refused(&mut sample, add(3, true), "too many learner members in cluster");
    started(&mut sample, 2);
    refused(
        &mut sample,
        MemberCall::Promote { id: 2 },
        "can only promote a learner member which is in sync with leader",
    );
    done(&mut sample, MemberCall::Promote { id: 2 }, None, &[(1, false), (2, false)]);
    list(&mut sample, &[(1, false), (2, false)]);
    sample
}

#[test]
fn changes_in_their_order_pass() {
    assert_eq!(check(&Sample::new().end()), Ok(()));
    let mut sample = sample();
    done(&mut sample, MemberCall::Remove { id: 1 }, None, &[(2, false)]);
    refused(&mut sample, MemberCall::Remove { id: 1 }, "member not found");
    list(&mut sample, &[(2, false)]);
    assert_eq!(check(&sample.end()), Ok(()));
}

#[test]
fn a_list_without_what_was_acknowledged_is_found() {
    let mut sample = sample();
    list(&mut sample, &[(1, false)]);
    expect(check(&sample.end()), "no order explains");
}

#[test]
fn a_list_with_what_was_never_made_is_found() {
    let mut sample = sample();
    sample.call(90, Call::Member(add(3, false)), Outcome::Unknown("no answer".into()));
    list(&mut sample, &[(1, false), (2, false), (3, false)]);
    assert_eq!(check(&sample.clone().end()), Ok(()));
    list(&mut sample, &[(1, false), (2, false)]);
    expect(check(&sample.end()), "no order explains");
}

#[test]
fn an_old_list_may_be_old_and_shows_nothing_that_never_was() {
    let old = |sample: &mut Sample, members: &[(u64, bool)]| {
        done(sample, MemberCall::List { linearizable: false }, None, members);
    };
    let mut sample = sample();
    sample.call(90, Call::Member(add(3, false)), Outcome::Unknown("no answer".into()));
    old(&mut sample, &[(1, false)]);
    old(&mut sample, &[(1, false), (2, false), (3, false)]);
    assert_eq!(check(&sample.clone().end()), Ok(()), "nobody agreed on anything since");
    let mut removed = sample.clone();
    done(&mut removed, MemberCall::Remove { id: 3 }, None, &[(1, false), (2, false)]);
    list(&mut removed, &[(1, false), (2, false)]);
    assert_eq!(check(&removed.end()), Ok(()));
    list(&mut sample, &[(1, false), (2, false)]);
    expect(check(&sample.end()), "member 3 was never made one");
}

#[test]
fn a_refusal_for_what_was_never_made_is_found() {
    for (learner, text) in [(false, "Peer URLs already exists"), (true, "too many learner members in cluster")] {
        let mut sample = sample();
        sample.call(90, Call::Member(add(3, learner)), Outcome::Unknown("no answer".into()));
        refused(&mut sample, add(3, learner), text);
        assert_eq!(check(&sample.clone().end()), Ok(()), "it may have been");
        let mut made = sample.clone();
        list(&mut made, &[(1, false), (2, false), (3, learner)]);
        assert_eq!(check(&made.end()), Ok(()));
        list(&mut sample, &[(1, false), (2, false)]);
        expect(check(&sample.end()), "no order explains");
    }
}

#[test]
fn an_id_that_comes_back_is_found() {
    let mut sample = sample();
    done(&mut sample, MemberCall::Remove { id: 1 }, None, &[(2, false)]);
    done(&mut sample, add(1, false), Some(1), &[(1, false), (2, false)]);
    expect(check(&sample.end()), "no order explains");
}

#[test]
fn refusals_without_a_reason_are_found() {
    let cases = [
        (add(3, false), "Peer URLs already exists"),
        (add(3, false), "member not found"),
        (add(3, true), "too many learner members in cluster"),
        (MemberCall::Remove { id: 2 }, "member not found"),
    ];
    for (call, text) in cases {
        let mut sample = sample();
        refused(&mut sample, call, text);
        expect(check(&sample.end()), "no order explains");
    }
    let mut learner = Sample::new();
    list(&mut learner, &[(1, false), (2, true)]);
    refused(&mut learner, MemberCall::Promote { id: 2 }, "can only promote a learner member");
    expect(check(&learner.end()), "no order explains");
}

#[test]
fn a_promotion_before_the_start_is_found() {
    let mut sample = sample();
    sample.history.joined.clear();
    expect(check(&sample.end()), "member 2 was promoted before it was started");
}

#[test]
fn who_was_removed_and_goes_on_is_found() {
    let mut sample = sample();
    done(&mut sample, MemberCall::Remove { id: 1 }, None, &[(2, false)]);
    let serves = |later: u64| {
        let mut sample = sample.clone();
        sample.now += millis(later);
        sample.txn(1, get("a"));
        let operation = sample.history.operations.len() - 1;
        sample.history.headers.push(Header { operation, cluster: 1, member: 1, term: 1 });
        check(&sample.end())
    };
    assert_eq!(serves(100), Ok(()));
    expect(serves(6000), "member 1 goes on");
}

#[test]
fn an_answer_that_shows_no_change_is_found() {
    let mut sample = sample();
    done(&mut sample, MemberCall::Remove { id: 2 }, None, &[(1, false), (2, false)]);
    expect(check(&sample.end()), "the answer does not show the change");
}
