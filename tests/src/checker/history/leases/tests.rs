use super::super::sample::{Sample, expect, leased, millis, put};
use super::*;
use crate::history::{Disturbance, Effect, Leadership};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

fn found(sample: Sample) -> Result<(), String> {
    let history = sample.end();
    check(&history, &Truth::of(&history), &Bounds::of(Duration::from_secs(15)))
}

/// A lease of ten seconds with a key, renewed after five.
fn sample() -> Sample {
    let mut sample = Sample::new();
    lead(&mut sample, 0, Duration::ZERO);
    sample.grant(1, 7, 10);
    sample.txn(1, leased("a", "1", 7));
    sample.now += millis(5000);
    sample.keep_alive(1, 7, 10);
    sample
}

/// Lets the first member lead from the beginning, or another from some time on.
fn lead(sample: &mut Sample, member: usize, at: Duration) {
    let term = sample.history.leaderships.len() as u64 + 1;
    sample.history.leaderships.push(Leadership { member, term, at });
}

fn disturb(sample: &mut Sample, from: u64, until: u64, effect: Effect) {
    let (from, until) = (millis(from), millis(until));
    sample.history.disturbances.push(Disturbance { from, until, what: "test".into(), effect: Some(effect) });
}

/// Lets the clock of the leader jump by this after a while.
fn jump(sample: &mut Sample, by: u64) {
    disturb(sample, 5500, 5500, Effect::ClockJump { member: 0, by: millis(by) });
}

#[test]
fn a_lease_that_ends_in_time_passes() {
    let mut sample = sample();
    sample.now += millis(10_000);
    sample.expire(7);
    sample.now += millis(10);
    sample.keep_alive(1, 7, 0);
    sample.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl: -1 }));
    sample.refused(1, Call::Txn(leased("b", "2", 7)), NOT_FOUND);
    assert_eq!(found(sample), Ok(()));
}

#[test]
fn an_early_end_is_found_unless_it_has_a_reason() {
    let mut early = sample();
    early.now += millis(8000);
    let before = early.clone();
    early.expire(7);
    let mut drifted = early.clone();
    let mut revoked = early.clone();
    expect(found(early), "lease 7 ended at revision 3");
    jump(&mut drifted, 1900);
    expect(found(drifted.clone()), "lease 7 ended at revision 3");
    jump(&mut drifted, 100);
    assert_eq!(found(drifted), Ok(()));
    let revoke = revoked.call(2, Call::LeaseRevoke { id: 7 }, Outcome::Unknown("timeout".into()));
    revoke.began = millis(100);
    assert_eq!(found(revoked), Ok(()));
    // A renewal that nobody was told of promises nothing.
    let mut unknown = before.clone();
    unknown.now += millis(2000);
    unknown.call(1, Call::LeaseKeepAlive { id: 7 }, Outcome::Unknown("timeout".into()));
    unknown.expire(7);
    assert_eq!(found(unknown), Ok(()));
    // One that was answered while the end was seen found the lease alive.
    let mut under_way = before;
    under_way.now += millis(2000);
    under_way.keep_alive(1, 7, 10);
    under_way.expire(7);
    expect(found(under_way), "lease 7 ended at revision 3");
}

#[test]
fn being_told_early_that_it_is_gone_is_found() {
    let wrong: [fn(&mut Sample); 4] = [
        |sample| drop(sample.keep_alive(1, 7, 0).clone()),
        |sample| {
            sample.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl: -1 }));
        },
        |sample| drop(sample.refused(1, Call::Txn(leased("b", "2", 7)), NOT_FOUND).clone()),
        |sample| drop(sample.refused(1, Call::LeaseRevoke { id: 7 }, NOT_FOUND).clone()),
    ];
    for wrong in wrong {
        let mut early = sample();
        wrong(&mut early);
        let mut drifted = early.clone();
        expect(found(early), "and was gone for");
        let jumps = Effect::ClockJump { member: 1, by: millis(10_000) };
        disturb(&mut drifted, 5085, 5085, jumps);
        expect(found(drifted.clone()), "and was gone for");
        lead(&mut drifted, 1, millis(5080));
        assert_eq!(found(drifted), Ok(()));
        let mut late = sample();
        late.now += millis(10_000);
        wrong(&mut late);
        assert_eq!(found(late), Ok(()));
    }
}

#[test]
fn a_lease_that_outlives_its_time_is_found() {
    let mut sample = sample();
    sample.now += millis(15_000);
    assert_eq!(found(sample.clone()), Ok(()));
    sample.now += millis(2000);
    expect(found(sample.clone()), "lease 7 was to end by");
    sample.txn(1, put("a", "2"));
    assert_eq!(found(sample.clone()), Ok(()));
    sample.history.end.leases.push(7);
    expect(found(sample.clone()), "lease 7 was to end by");
    sample.call(1, Call::LeaseKeepAlive { id: 7 }, Outcome::Unknown("timeout".into()));
    assert_eq!(found(sample.clone()), Ok(()));
    sample.history.end.leases.push(8);
    expect(found(sample), "nobody was granted it");
}

#[test]
fn a_revoked_lease_is_gone() {
    let mut sample = sample();
    sample.revoke(1, 7);
    assert_eq!(found(sample.clone()), Ok(()));
    let mut tied = sample.clone();
    tied.txn(1, leased("b", "2", 7));
    expect(found(tied), "a key was tied to lease 7");
    let mut renewed = sample.clone();
    renewed.keep_alive(1, 7, 10);
    expect(found(renewed), "lease 7 lives after client 1");
    let mut asked = sample;
    asked.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl: 3 }));
    expect(found(asked), "lease 7 lives after client 1");
}

#[test]
fn a_key_that_a_revocation_leaves_is_found() {
    let mut sample = sample();
    let revision = sample.revision;
    let outcome = Outcome::Done(Reply::Revoked { revision });
    sample.call(1, Call::LeaseRevoke { id: 7 }, outcome);
    expect(found(sample), "still has");
}

#[test]
fn a_lease_that_ended_by_itself_is_not_renewed() {
    let mut sample = sample();
    sample.now += millis(10_000);
    sample.expire(7);
    sample.now += millis(10);
    sample.keep_alive(1, 7, 10);
    expect(found(sample), "lease 7 lives after its end at revision 3");
}

/// Writes all the time, for so long.
fn busy(sample: &mut Sample, lasts: u64) {
    let until = sample.now + millis(lasts);
    while sample.now + millis(200) < until {
        sample.txn(2, put("c", &format!("{:?}", sample.now)));
        sample.now += millis(180);
    }
    sample.now = until;
}

/// The sample when the lease has run out, with a write so much later, and the end of the key after that.
fn late(by: u64) -> Sample {
    let mut late = sample();
    late.now += millis(5000);
    busy(&mut late, 5000 + by);
    late.txn(2, put("b", "2"));
    late.expire(7);
    late
}

#[test]
fn keys_that_outlast_a_write_are_found() {
    assert_eq!(found(late(900)), Ok(()));
    expect(found(late(1200)), "the keys of lease 7 were to go by 16.170000s, and went at revision");
    // An end that is only seen late may have come in time.
    let mut unseen = sample();
    unseen.now += millis(20_000);
    unseen.expire(7);
    assert_eq!(found(unseen), Ok(()));
}

#[test]
fn a_leader_that_takes_no_commands_tries_again() {
    for effect in [Effect::Pause { member: 2 }, Effect::Transfer, Effect::ClockJump { member: 2, by: millis(1) }] {
        let mut after = late(4000);
        disturb(&mut after, 16_000, 16_100, effect);
        assert_eq!(found(after), Ok(()));
        let mut after = late(6000);
        disturb(&mut after, 16_000, 16_100, effect);
        expect(found(after), "the keys of lease 7 were to go by 20.090000s");
        let mut before = late(1200);
        disturb(&mut before, 6000, 7000, effect);
        expect(found(before), "the keys of lease 7 were to go by 16.170000s");
    }
    let mut silent = sample();
    silent.now += millis(10_000);
    busy(&mut silent, 3000);
    silent.expire(7);
    assert_eq!(found(silent), Ok(()));
}

#[test]
fn a_new_leader_moves_the_end_by_the_whole_time() {
    for (by, is_right) in [(13_000, true), (14_000, false)] {
        let mut moved = sample();
        moved.now += millis(10_000);
        let now = moved.now;
        lead(&mut moved, 1, now);
        busy(&mut moved, by);
        moved.txn(2, put("b", "2"));
        moved.expire(7);
        assert_eq!(found(moved).is_ok(), is_right, "after {by} ms");
    }
}

/// It lies at a member that heard of no leader, until the next one leads.
#[test]
fn a_renewal_may_be_done_in_the_reign_after_the_one_that_it_was_asked_for_in() {
    for (by, is_right) in [(28_000, true), (30_000, false)] {
        let mut renewed = sample();
        renewed.now += millis(5000);
        let asked = renewed.now;
        renewed.call(1, Call::LeaseKeepAlive { id: 7 }, Outcome::Unknown("timeout".into())).ended =
            asked + millis(7000);
        renewed.now = asked + millis(2000);
        let now = renewed.now;
        lead(&mut renewed, 1, now);
        let lasts = millis(by).saturating_sub(renewed.now);
        busy(&mut renewed, lasts.as_millis() as u64);
        renewed.txn(2, put("b", "2"));
        renewed.expire(7);
        assert_eq!(found(renewed).is_ok(), is_right, "after {by} ms");
    }
}

#[test]
fn a_slow_clock_moves_the_end_by_what_it_lost() {
    let slow = |member| Effect::ClockRate { member, per_cent: 50 };
    let mut others = late(2000);
    disturb(&mut others, 6000, 10_000, slow(1));
    expect(found(others), "the keys of lease 7 were to go by 16.170000s");
    let mut leaders = late(2000);
    disturb(&mut leaders, 6000, 10_000, slow(0));
    assert_eq!(found(leaders), Ok(()));
    let mut longer = late(4000);
    disturb(&mut longer, 6000, 10_000, slow(0));
    expect(found(longer), "the keys of lease 7 were to go by 18.170000s");
}

#[test]
fn a_renewal_that_comes_too_late_is_found() {
    let mut late = sample();
    late.now += millis(10_200);
    late.keep_alive(1, 7, 10);
    late.now += millis(12_000);
    late.expire(7);
    assert_eq!(found(late), Ok(()));
    let mut late = sample();
    late.now += millis(10_400);
    late.keep_alive(1, 7, 10);
    late.now += millis(12_000);
    late.expire(7);
    expect(found(late), "ended by 15.370000s at the latest, and was renewed");
}

fn ask(sample: &mut Sample, ttl: i64) {
    sample.call(1, Call::LeaseTimeToLive { id: 7 }, Outcome::Done(Reply::Lease { ttl }));
}

#[test]
fn seconds_that_cannot_be_left_are_found() {
    for (told, after, text) in [
        (10, 0, None),
        (11, 0, Some("at the latest, with 10 s left")),
        (9, 0, None),
        (8, 0, Some("had less left for")),
        (7, 2500, None),
        (8, 2500, Some("at the latest, with 7 s left")),
        (6, 2500, Some("had less left for")),
        (0, 10_000, None),
        (1, 10_000, Some("at the latest, with 0 s left")),
    ] {
        let mut asked = sample();
        asked.now += millis(after);
        ask(&mut asked, told);
        asked.now += millis(12_000);
        asked.expire(7);
        match text {
            None => assert_eq!(found(asked), Ok(()), "{told} s after {after} ms"),
            Some(text) => expect(found(asked), text),
        }
    }
    let mut led = sample();
    let now = led.now;
    lead(&mut led, 1, now);
    led.txn(2, put("b", "2"));
    ask(&mut led, 11);
    led.now += millis(20_000);
    led.expire(7);
    assert_eq!(found(led), Ok(()));
}

#[test]
fn other_seconds_than_asked_for_are_found() {
    let granted = |asked, told| {
        let mut sample = Sample::new();
        sample.call(1, Call::LeaseGrant { id: 7, ttl: asked }, Outcome::Done(Reply::Lease { ttl: told }));
        sample.keep_alive(1, 7, told);
        found(sample)
    };
    assert_eq!(granted(5, 5), Ok(()));
    assert_eq!(granted(1, 2), Ok(()));
    expect(granted(1, 1), "was to be granted for 2 s");
    expect(granted(5, 6), "was to be granted for 5 s");
    let mut renewed = sample();
    renewed.keep_alive(1, 7, 9);
    expect(found(renewed), "renewed for other seconds");
}

#[test]
fn a_key_of_a_lease_that_was_missed_is_found() {
    let mut missed = sample();
    missed.now += millis(10_000);
    missed.expire(7);
    ask(&mut missed, -1);
    assert_eq!(found(missed.clone()), Ok(()));
    // Without a key that tells of its end.
    let mut bare = Sample::new();
    bare.grant(1, 7, 10);
    bare.now += millis(10_000);
    ask(&mut bare, -1);
    bare.txn(1, leased("b", "2", 7));
    expect(found(bare), "a key was tied to lease 7 after");
}
