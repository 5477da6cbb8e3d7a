use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use super::memory::Pressure;
use super::*;
use crate::limits;
use crate::metrics::Metrics;

const POOL: u64 = 1 << 20;
const RESERVE: u64 = 1 << 16;

fn gate() -> Gate {
    Gate::new(GateOptions { pool: POOL, reserve: RESERVE, long_reads: Some(2) }, &Metrics::new())
}

fn origin(number: u8) -> Origin {
    Origin::of(Some(IpAddr::from([10, 0, 0, number])), None)
}

/// Lets an ordinary request in that finds room.
#[track_caller]
fn entered(gate: &Gate, who: u8, bytes: u64) -> Hold {
    let (hold, entering) = gate.enter(Traffic::Ordinary, &origin(who), bytes).unwrap();
    assert!(entering.is_none(), "there is room");
    hold
}

#[test]
fn what_a_request_took_is_given_back_at_its_end() {
    let gate = gate();
    let hold = entered(&gate, 1, 1000);
    let same = hold.clone();
    assert!(hold.reads(300) && hold.reads(200), "it does not shrink by itself");
    assert_eq!(gate.numbers().held, 1000 + 2 * 300);
    hold.forget_answer();
    assert_eq!(gate.numbers().held, 1000);
    assert!(hold.message(10_000, false).unwrap().is_none() && hold.message(100, false).unwrap().is_none());
    assert_eq!(gate.numbers().held, 41_000, "small messages are in what every request takes");
    drop(hold);
    assert_eq!(gate.numbers().held, 41_000);
    drop(same);
    assert_eq!(gate.numbers().held, 0);
}

#[test]
fn of_a_stream_one_message_counts() {
    let gate = gate();
    let hold = entered(&gate, 1, 0);
    for len in [10_000, 20_000, 5_000, 10] {
        assert!(hold.message(len, true).unwrap().is_none());
        assert_eq!(gate.numbers().held, if len == 10 { 0 } else { 4 * len as u64 });
    }
}

#[test]
fn a_piece_of_an_answer_holds_what_it_takes_until_it_has_left() {
    let gate = gate();
    let hold = entered(&gate, 1, 0);
    assert!(hold.reads(20_000));
    let large = hold.carry(Bytes::from(vec![7; 20_005]));
    let small = hold.carry(Bytes::from_static(b"small"));
    assert_eq!((&large[..3], large.len(), &small[..]), (&[7, 7, 7][..], 20_005, &b"small"[..]));
    drop(hold);
    assert_eq!(gate.numbers().held, 20_005);
    let rest = large.slice(10..);
    drop(large);
    assert_eq!(gate.numbers().held, 20_005, "a part of it is still there");
    drop(rest);
    assert_eq!(gate.numbers().held, 0);
}

#[test]
fn what_leaves_as_json_counts_more_often() {
    let gate = gate();
    let origin = Origin { is_json: true, ..origin(1) };
    let (hold, _) = gate.enter(Traffic::Ordinary, &origin, 0).unwrap();
    assert!(hold.reads(1000));
    assert_eq!(gate.numbers().held, 1000 * limits::JSON_COPIES);
}

#[test]
fn what_leaves_in_pieces_counts_once_less() {
    let gate = gate();
    let hold = entered(&gate, 1, 0);
    assert!(hold.in_pieces().reads(1000));
    assert_eq!(gate.numbers().held, 1000 * (limits::READ_COPIES - 1));
    assert_eq!(hold.in_pieces().make_room(2000).now_or_never(), Some(Ok(())));
    assert_eq!(gate.numbers().held, 2000 * (limits::READ_COPIES - 1));
    assert!(hold.reads(1500), "the books are the same");
    assert_eq!(gate.numbers().held, 1500 * limits::READ_COPIES);
    drop(hold);
    assert_eq!(gate.numbers().held, 0);
}

#[test]
fn who_would_never_fit_is_refused_at_once() {
    let gate = gate();
    assert_eq!(gate.enter(Traffic::Ordinary, &origin(1), POOL).err(), Some(Refused));
    let hold = entered(&gate, 1, 0);
    assert_eq!(hold.message(POOL as usize, false).err(), Some(Refused));
    assert!(!hold.reads(POOL));
    assert_eq!(hold.make_room(POOL).now_or_never(), Some(Err(Refused)));
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_and_is_refused_in_the_end() {
    let gate = gate();
    let taken = entered(&gate, 1, POOL / 2);
    let (hold, entering) = gate.enter(Traffic::Ordinary, &origin(2), POOL * 3 / 4).unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(entering.unwrap().await, Err(Refused));
    assert_eq!(began.elapsed().as_secs(), limits::ADMISSION_WAIT.as_secs());
    drop(hold);

    let (hold, entering) = gate.enter(Traffic::Ordinary, &origin(2), POOL * 3 / 4).unwrap();
    let mut entering = entering.unwrap();
    assert!((&mut entering).now_or_never().is_none());
    assert_eq!(gate.numbers().waiting, 1);
    drop(taken);
    assert_eq!(entering.await, Ok(()));
    assert_eq!((gate.numbers().held, gate.numbers().waiting), (POOL * 3 / 4, 0));
    drop(hold);
    assert_eq!(gate.numbers().held, 0);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_while_it_waits_leaves_nothing() {
    let gate = gate();
    let taken = entered(&gate, 1, POOL / 2);
    let (hold, entering) = gate.enter(Traffic::Ordinary, &origin(2), POOL * 3 / 4).unwrap();
    let mut entering = entering.unwrap();
    assert!((&mut entering).now_or_never().is_none());
    // It is given what it waits for, and goes away before it has heard of it.
    drop(taken);
    assert_eq!(gate.numbers().held, POOL * 3 / 4);
    drop(entering);
    assert_eq!((gate.numbers().held, gate.numbers().waiting), (0, 0));
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_begins_anew_waits_for_others() {
    let gate = gate();
    let (other, hold) = (entered(&gate, 1, POOL / 2), entered(&gate, 2, 0));
    assert!(hold.reads(POOL / 8), "its share is half");
    assert!(!hold.reads(POOL / 4), "seven eighths are taken");
    let room = hold.make_room(POOL / 4);
    let (made, ()) = tokio::join!(room, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(gate.numbers().held, POOL / 2, "it gave back what it had");
        drop(other);
    });
    assert_eq!(made, Ok(()));
    assert_eq!(gate.numbers().held, POOL / 2);
    assert!(hold.reads(POOL / 4), "it has that already");
    assert_eq!(gate.numbers().held, POOL / 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_does_not_read_waits_for_as_long_as_it_takes() {
    let gate = gate();
    let hold = entered(&gate, 1, 0);
    let mut unread = Vec::new();
    for _ in 0..2 {
        // More than half of what there is counts as half.
        hold.wait_for(POOL).await;
        unread.push(hold.carry(Bytes::from(vec![0; POOL as usize])));
    }
    assert_eq!(gate.numbers().held, POOL - POOL / 8);
    {
        let mut waiting = Box::pin(hold.wait_for(10_000));
        assert!(tokio::time::timeout(Duration::from_secs(1000), &mut waiting).await.is_err());
        unread.pop();
        waiting.await;
    }
    assert_eq!(gate.numbers().held, (POOL - POOL / 8) / 2 + 10_000);
}

#[tokio::test(start_paused = true)]
async fn ordinary_requests_are_never_in_the_way_of_control_traffic() {
    let gate = gate();
    let mut greedy = Vec::new();
    for who in 1..=20 {
        while let Ok((hold, None)) = gate.enter(Traffic::Ordinary, &origin(who), 4096) {
            greedy.push(hold);
        }
    }
    assert!(gate.numbers().held > POOL * 7 / 8, "{:?}", gate.numbers());
    let (_, entering) = gate.enter(Traffic::Ordinary, &origin(1), 4096).unwrap();
    assert_eq!(entering.unwrap().await, Err(Refused));
    for traffic in [Traffic::Control, Traffic::Relief] {
        let hold = gate.enter_now(traffic, &origin(1), 4096).unwrap();
        assert_eq!(gate.numbers().reserve_held, 4096);
        drop(hold);
        assert_eq!(gate.numbers().reserve_held, 0);
    }
}

#[test]
fn a_small_client_is_served_though_a_large_one_holds_all_it_gets() {
    let gate = gate();
    let mut greedy = Vec::new();
    while let Ok((hold, None)) = gate.enter(Traffic::Ordinary, &origin(1), 32_768) {
        greedy.push(hold);
    }
    for _ in 0..100 {
        let hold = entered(&gate, 2, 8192);
        assert!(hold.reads(2000));
    }
}

#[test]
fn who_is_overloaded_refuses_all_but_control_traffic() {
    let gate = gate();
    gate.set_overloaded(true);
    assert!(gate.enter(Traffic::Ordinary, &origin(1), 1).is_err());
    assert!(gate.enter(Traffic::Relief, &origin(1), 1).is_err());
    assert!(gate.enter_now(Traffic::Control, &origin(1), 1).is_ok());
    gate.set_overloaded(false);
    entered(&gate, 1, 1);
}

#[test]
fn where_memory_is_short_nothing_grows() {
    let gate = gate();
    let grows = |gate: &Gate| (gate.lets_grow(|| true).is_ok(), gate.lets_grow(|| false).is_ok());
    assert_eq!((grows(&gate), gate.lets_grant().is_ok()), ((true, true), true));
    gate.set_pressure(Pressure::High, POOL);
    assert_eq!((grows(&gate), gate.lets_grant().is_ok()), ((false, true), true));
    gate.set_pressure(Pressure::Highest, POOL);
    assert_eq!((grows(&gate), gate.lets_grant().is_ok()), ((false, true), false));
    gate.set_pressure(Pressure::None, POOL / 4);
    assert_eq!((grows(&gate), gate.lets_grant().is_ok()), ((true, true), true));
    assert!(gate.enter(Traffic::Ordinary, &origin(1), POOL / 4).is_err(), "the pool is smaller now");
    gate.set_pressure(Pressure::None, u64::MAX);
    assert_eq!(gate.numbers().pool, POOL, "it never grows beyond what it was");
}

#[test]
fn refusals_are_counted_by_their_reasons() {
    let metrics = Metrics::new();
    let gate = Gate::new(GateOptions { pool: POOL, reserve: RESERVE, long_reads: Some(2) }, &metrics);
    assert!(gate.enter(Traffic::Ordinary, &origin(1), POOL).is_err());
    gate.set_overloaded(true);
    assert!(gate.enter(Traffic::Ordinary, &origin(1), 1).is_err());
    assert!(gate.enter(Traffic::Ordinary, &origin(1), 1).is_err());
    gate.set_pressure(Pressure::High, POOL);
    gate.lets_grow(|| true).unwrap_err();
    let counted =
        ["room", "overload", "memory"].map(|reason| metrics.server.requests_refused.with_label_values(&[reason]).get());
    assert_eq!(counted, [1, 2, 1]);
}

#[test]
fn an_open_gate_counts_nothing() {
    let gate = Gate::open();
    let (hold, entering) = gate.enter(Traffic::Ordinary, &Origin::default(), u64::MAX).unwrap();
    assert!(entering.is_none() && !hold.counts() && hold.reads(u64::MAX));
    assert!(hold.part(u64::MAX).is_some() && hold.message(usize::MAX / 8, false).unwrap().is_none());
    assert!(gate.lets_grow(|| true).is_ok());
    assert_eq!(gate.numbers(), GateNumbers::default());
}

#[test]
fn what_may_outlive_a_request_stands_for_itself() {
    let gate = gate();
    let hold = entered(&gate, 1, 0);
    let parts: Vec<Part> = (0..3).map(|_| hold.part(1024).unwrap()).collect();
    assert_eq!(gate.numbers().held, 3072);
    drop(hold);
    assert_eq!(gate.numbers().held, 3072, "they stand for themselves");
    drop(parts);
    assert_eq!(gate.numbers().held, 0);
}
